// Four halves that were read as two words: 16 bytes at a time are two of these, where vectors of halves would come by 8.
fn widened(two: vec2<u32>) -> vec4<f32> {
    return vec4<f32>(unpack2x16float(two.x), unpack2x16float(two.y));
}
// naga has no bitcast to halves, but compilers know that halves made wider and narrow again are what they were.
fn halves(two: vec2<u32>) -> vec4<f16> {
    return vec4<f16>(widened(two));
}
