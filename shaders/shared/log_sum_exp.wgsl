// The log of the sum of exponentials of a row, over one workgroup of WG lanes, in one pass (Milakov and Gimelshein,
// "Online normalizer calculation for softmax", 2018). Needs reduce.wgsl; X is the array's name; every lane must call it.
// VEC: the array and `row` are in vectors of four, `width` is in numbers all the same, and each lane goes over four columns.
struct LogSumExp { largest: f32, log_sum: f32 }
// The lowest float, not -infinity, so that nothing subtracts infinities.
const LOWEST = -3.4028234e38;
{% set F = "vec4<f32>" if VEC else "f32" %}
fn log_sum_exp(lane: u32, row: u32, width: u32) -> LogSumExp {
    var largest = {{ F }}(LOWEST);
    var sum = {{ F }}(0.0);
{% if VEC %}
    let whole = width / 4u;
{% else %}
    let whole = width;
{% endif %}
    for (var i = lane; i < whole; i = i + {{ WG }}u) {
        let v = {{ F }}({{ X }}[row + i]);
        let e = exp(-abs(v - largest));
        sum = select(sum + e, sum * e + 1.0, v > largest);
        largest = max(largest, v);
    }
{% if VEC %}
    if (lane == 0u && whole * 4u < width) {
        let there = vec4<u32>(0u, 1u, 2u, 3u) + whole * 4u < vec4<u32>(width);
        let v = select(vec4<f32>(LOWEST), vec4<f32>({{ X }}[row + whole]), there);
        let e = select(vec4<f32>(0.0), exp(-abs(v - largest)), there);
        sum = select(sum + e, sum * e + 1.0, v > largest);
        largest = max(largest, v);
    }
    let top = reduce_max(lane, max(max(largest.x, largest.y), max(largest.z, largest.w)));
    let total = reduce_sum(lane, dot(sum, exp(largest - top)));
{% else %}
    let top = reduce_max(lane, largest);
    let total = reduce_sum(lane, sum * exp(largest - top));
{% endif %}
    return LogSumExp(top, log(total));
}
