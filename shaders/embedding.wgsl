// y[i] = table[ids[i]], four numbers a lane, for the ids whose row lies in the window [first, end) of the table that is bound.
//   FORMAT: plain, or how the table is packed    GROUP: numbers that share a scale    VEC: rows are whole vectors, and aligned
//   ADD: none, or what is added: rows (more[i]), or the rows of a second, plain table (more[more_ids[i]]), of which the window
//        [more_first, more_end) is bound
{% include "group.wgsl" %}
{% set PLAIN = FORMAT == "plain" %}
{% set SCALED = FORMAT == "q8" or FORMAT == "q4" %}
{% set ADDED = {"none": 0, "rows": 1, "table": 2}[ADD] %}
{% set E = "vec4<f32>" if VEC else "f32" %}
struct Params {
    groups: u32, units: u32, width: u32, first: u32, end: u32, rows: u32, row_words: u32, scale_words: u32,
    more_first: u32, more_end: u32, more_rows: u32,
    w_at: u32, ids_at: u32, y_at: u32,
{% if ADDED > 0 %}    more_at: u32,
{% endif %}
{% if ADDED > 1 %}    more_ids_at: u32,
{% endif %}
{% if SCALED %}    scales_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> w: array<{{ E if PLAIN else "u32" }}>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ "vec4<" ~ T3 ~ ">" if VEC else T3 }}>;
{% if ADDED > 0 %}
@group(0) @binding(4) var<storage, read> more: array<{{ "vec4<" ~ T4 ~ ">" if VEC else T4 }}>;
{% endif %}
{% if ADDED > 1 %}
@group(0) @binding(5) var<storage, read> more_ids: array<u32>;
{% endif %}
{% if SCALED %}
@group(0) @binding({{ 4 + ADDED }}) var<storage, read> scales: array<u32>;
{% endif %}
{% macro four_of(array) %}
fn {{ array }}_four(row: u32, four: u32) -> vec4<f32> {
    let at = p.{{ array }}_at + row * p.width + four * 4u;
{% if VEC %}
    return vec4<f32>({{ array }}[at / 4u]);
{% else %}
    let left = p.width - four * 4u;
    var values = vec4<f32>(f32({{ array }}[at]), 0.0, 0.0, 0.0);
    if (left > 1u) { values.y = f32({{ array }}[at + 1u]); }
    if (left > 2u) { values.z = f32({{ array }}[at + 2u]); }
    if (left > 3u) { values.w = f32({{ array }}[at + 3u]); }
    return values;
{% endif %}
}
{% endmacro %}
{% if PLAIN %}
{{ four_of("w") }}
{% else %}
{% include "packed.wgsl" %}
{% endif %}
{% if ADDED > 0 %}
{{ four_of("more") }}
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let fours = (p.width + 3u) / 4u;
    let place = i / fours;
    let four = i - place * fours;
    // An id beyond the table reads its last row: wrong, but within bounds.
    let row = min(ids[p.ids_at + place], p.rows - 1u);
    if (row < p.first || row >= p.end) { return; }
{% if ADDED > 1 %}
    let more_row = min(more_ids[p.more_ids_at + place], p.more_rows - 1u);
    if (more_row < p.more_first || more_row >= p.more_end) { return; }
{% endif %}
    let values = {{ "w_four" if PLAIN else "packed_four" }}(row - p.first, four)
        {{- ["", " + more_four(place, four)", " + more_four(more_row - p.more_first, four)"][ADDED] }};
    let at = p.y_at + place * p.width + four * 4u;
{% if VEC %}
    y[at / 4u] = vec4<{{ T3 }}>(values);
{% else %}
    y[at] = {{ T3 }}(values.x);
    if (four * 4u + 1u < p.width) { y[at + 1u] = {{ T3 }}(values.y); }
    if (four * 4u + 2u < p.width) { y[at + 2u] = {{ T3 }}(values.z); }
    if (four * 4u + 3u < p.width) { y[at + 3u] = {{ T3 }}(values.w); }
{% endif %}
}
