// The numbers of a packed matrix: the rows of the window that is bound.
{% include "group.wgsl" %}
{% set SCALED = FORMAT == "q8" or FORMAT == "q4" %}
struct Params {
    groups: u32, units: u32, width: u32, row_words: u32, scale_words: u32,
    w_at: u32, y_at: u32,
{% if SCALED %}
    scales_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ "vec4<" ~ T2 ~ ">" if VEC else T2 }}>;
{% if SCALED %}
@group(0) @binding(3) var<storage, read> scales: array<u32>;
{% endif %}
{% include "packed.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let fours = (p.width + 3u) / 4u;
    let place = i / fours;
    let four = i - place * fours;
    let values = packed_four(place, four);
    let at = p.y_at + place * p.width + four * 4u;
{% if VEC %}
    y[at / 4u] = vec4<{{ T2 }}>(values);
{% else %}
    y[at] = {{ T2 }}(values.x);
    if (four * 4u + 1u < p.width) { y[at + 1u] = {{ T2 }}(values.y); }
    if (four * 4u + 2u < p.width) { y[at + 2u] = {{ T2 }}(values.z); }
    if (four * 4u + 3u < p.width) { y[at + 3u] = {{ T2 }}(values.w); }
{% endif %}
}
