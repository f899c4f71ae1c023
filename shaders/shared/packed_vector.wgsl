// What vectors of sixteen bytes of a packed matrix (src/ops/packing.rs) hold: STEP numbers in FORMAT. The including kernel defines b,
// SCALED scales, and p; BIMAGE: both are in an image.
fn packed_vector(i: u32) -> vec4<u32> {
    return {{ "textureLoad(b, texel(i))" if BIMAGE else "b[i]" }};
}
{% if SCALED %}
fn scale_word(i: u32) -> u32 {
{% if BIMAGE %}
    let four = textureLoad(scales, texel(i / 4u));
    return four[i % 4u];
{% else %}
    return scales[i];
{% endif %}
}
// Words of a row's scales.
fn scale_words() -> u32 {
    return {% if FORMAT == "q4" %}p.k / {{ GROUP }}u{% else %}(p.k / {{ GROUP }}u + 1u) / 2u{% endif %};
}
// Scale and, of q4, minimum of a block in the row of scales that begins there.
fn packed_fit(row: u32, block: u32) -> vec2<f32> {
{% if FORMAT == "q4" %}
    return unpack2x16float(scale_word(row + block));
{% else %}
    let two = unpack2x16float(scale_word(row + block / 2u));
    return vec2<f32>(select(two.x, two.y, block % 2u == 1u), 0.0);
{% endif %}
}
{% endif %}
// Numbers 4 i to 4 i + 3 of a vector.
fn unpacked_four(v: vec4<u32>, i: u32{{ ", fit: vec2<f32>" if SCALED else "" }}) -> vec4<f32> {
{% if FORMAT == "f32" %}
    return bitcast<vec4<f32>>(v);
{% elif FORMAT == "f16" %}
    let two = select(v.xy, v.zw, i == 1u);
    return vec4<f32>(unpack2x16float(two.x), unpack2x16float(two.y));
{% elif FORMAT == "bf16" %}
    let two = select(v.xy, v.zw, i == 1u);
    return bitcast<vec4<f32>>(vec4<u32>(two.x << 16u, two.x & 0xffff0000u, two.y << 16u, two.y & 0xffff0000u));
{% elif FORMAT == "q8" %}
    return fit.x * vec4<f32>(unpack4xI8(v[i]));
{% else %}
    return fma(vec4<f32>(unpack4xU8((v[i / 2u] >> (4u * (i % 2u))) & 0x0f0f0f0fu)), vec4<f32>(fit.x), vec4<f32>(fit.y));
{% endif %}
}
