// The log of the sum of exponentials of a row, over one workgroup of WG lanes, in one pass (Milakov and Gimelshein,
// "Online normalizer calculation for softmax", 2018). Needs reduce.wgsl and `x`; every lane must call it.
struct LogSumExp { largest: f32, log_sum: f32 }
fn log_sum_exp(lane: u32, row: u32, width: u32) -> LogSumExp {
    // The lowest float, not -infinity, so that nothing subtracts infinities.
    var largest = -3.4028234e38;
    var sum = 0.0;
    for (var i = lane; i < width; i = i + {{ WG }}u) {
        let v = f32(x[row + i]);
        let e = exp(-abs(v - largest));
        sum = select(sum + e, sum * e + 1.0, v > largest);
        largest = max(largest, v);
    }
    let top = reduce_max(lane, largest);
    let total = reduce_sum(lane, sum * exp(largest - top));
    return LogSumExp(top, log(total));
}
