// Where texel i of an image is (src/gpu/image.rs).
fn texel(i: u32) -> vec2<u32> {
    return vec2<u32>(i & 4095u, i >> 12u);
}
