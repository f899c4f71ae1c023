// Four neighbouring numbers of a row of a packed matrix (src/ops/packing.rs), the first of which is number 4 `four` of it.
//   FORMAT: f32, f16, bf16, q8, q4     GROUP: numbers that share a scale
// The including kernel defines `w`, and where there are scales `scales`, arrays of words; p with row_words, scale_words and the
// `_at` words.
fn packed_four(row: u32, four: u32) -> vec4<f32> {
    let at = p.w_at + row * p.row_words;
{% if FORMAT == "f32" %}
    let i = at + four * 4u;
    return bitcast<vec4<f32>>(vec4<u32>(w[i], w[i + 1u], w[i + 2u], w[i + 3u]));
{% elif FORMAT == "f16" %}
    let i = at + four * 2u;
    return vec4<f32>(unpack2x16float(w[i]), unpack2x16float(w[i + 1u]));
{% elif FORMAT == "bf16" %}
    let i = at + four * 2u;
    let words = vec2<u32>(w[i], w[i + 1u]);
    return bitcast<vec4<f32>>(vec4<u32>(words.x << 16u, words.x & 0xffff0000u, words.y << 16u, words.y & 0xffff0000u));
{% elif FORMAT == "q8" %}
    let block = four / {{ GROUP // 4 }}u;
    let two = unpack2x16float(scales[p.scales_at + row * p.scale_words + block / 2u]);
    return select(two.x, two.y, block % 2u == 1u) * vec4<f32>(unpack4xI8(w[at + four]));
{% else %}
    let fit = unpack2x16float(scales[p.scales_at + row * p.scale_words + four / {{ GROUP // 4 }}u]);
    let q = unpack4xU8((w[at + four / 2u] >> (4u * (four % 2u))) & 0x0f0f0f0fu);
    return fma(vec4<f32>(q), vec4<f32>(fit.x), vec4<f32>(fit.y));
{% endif %}
}
