// The numbers of a packed matrix: rows of the window [first, end) that is bound, all of them, or (PICK) one for each id.
{% include "group.wgsl" %}
{% set SCALED = FORMAT == "q8" or FORMAT == "q4" %}
struct Params {
    groups: u32, units: u32, width: u32, row_words: u32, scale_words: u32, first: u32, end: u32, rows: u32,
    w_at: u32, y_at: u32,
{% if PICK %}    ids_at: u32,
{% endif %}
{% if SCALED %}    scales_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> w: array<u32>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ "vec4<" ~ T2 ~ ">" if VEC else T2 }}>;
{% if PICK %}
@group(0) @binding(3) var<storage, read> ids: array<u32>;
{% endif %}
{% if SCALED %}
@group(0) @binding({{ 4 if PICK else 3 }}) var<storage, read> scales: array<u32>;
{% endif %}
{% include "packed.wgsl" %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let fours = (p.width + 3u) / 4u;
    let place = i / fours;
    let four = i - place * fours;
{% if PICK %}
    // An id beyond the table reads its last row: wrong, but within bounds.
    let row = min(ids[p.ids_at + place], p.rows - 1u);
    if (row < p.first || row >= p.end) { return; }
    let values = packed_four(row - p.first, four);
{% else %}
    let values = packed_four(place, four);
{% endif %}
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
