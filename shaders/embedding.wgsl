// y[i] = table[ids[i]], for the ids whose row lies in the window [first, end) of the table that is bound.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, width: u32, first: u32, end: u32, rows: u32,
    table_at: u32, ids_at: u32, y_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> table: array<{{ T }}>;
@group(0) @binding(2) var<storage, read> ids: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ V ~ T3 ~ E }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let place = i / p.width;
    // An id beyond the table reads its last row: wrong, but within bounds.
    let row = min(ids[p.ids_at + place], p.rows - 1u);
    if (row < p.first || row >= p.end) { return; }
    y[p.y_at / {{ W }} + i] = {{ V ~ T3 ~ E }}(table[p.table_at / {{ W }} + (row - p.first) * p.width + (i - place * p.width)]);
}
