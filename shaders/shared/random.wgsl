// Threefry-2x32 with 20 rounds (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", 2011):
// a counter-based generator, so a number depends only on (key, counter) and never on who computes it.
// The CPU's twin is src/ops/random.rs.
fn threefry_round(x: vec2<u32>, rotation: u32) -> vec2<u32> {
    let sum = x.x + x.y;
    return vec2<u32>(sum, ((x.y << rotation) | (x.y >> (32u - rotation))) ^ sum);
}
fn threefry(key: vec2<u32>, counter: vec2<u32>) -> vec2<u32> {
    let third = key.x ^ key.y ^ 0x1BD11BDAu;
    var x = counter + key;
    x = threefry_round(x, 13u); x = threefry_round(x, 15u); x = threefry_round(x, 26u); x = threefry_round(x, 6u);
    x = x + vec2<u32>(key.y, third + 1u);
    x = threefry_round(x, 17u); x = threefry_round(x, 29u); x = threefry_round(x, 16u); x = threefry_round(x, 24u);
    x = x + vec2<u32>(third, key.x + 2u);
    x = threefry_round(x, 13u); x = threefry_round(x, 15u); x = threefry_round(x, 26u); x = threefry_round(x, 6u);
    x = x + vec2<u32>(key.x, key.y + 3u);
    x = threefry_round(x, 17u); x = threefry_round(x, 29u); x = threefry_round(x, 16u); x = threefry_round(x, 24u);
    x = x + vec2<u32>(key.y, third + 4u);
    x = threefry_round(x, 13u); x = threefry_round(x, 15u); x = threefry_round(x, 26u); x = threefry_round(x, 6u);
    x = x + vec2<u32>(third, key.x + 5u);
    return x;
}
// Uniform in [0, 1) with 24 bits.
fn unit_float(bits: u32) -> f32 { return f32(bits >> 8u) * (1.0 / 16777216.0); }
