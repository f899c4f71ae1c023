// Sums over groups of `part` rows.
{% include "group.wgsl" %}
{% from "columns.wgsl" import LANES, T, W, column_and_block, each_row, strands_of, together %}
struct Params { groups: u32, rows: u32, width: u32, part: u32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ "vec4<" ~ T1 ~ ">" if VEC else T1 }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ T }}>;
{{ strands_of(["sum"]) }}
@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
{{ column_and_block() }}
    var sum = {{ T }}();
    if (column < p.width) {
        {{ each_row() }} {
            sum = sum + {{ T }}(x[p.x_at / {{ W }} + row * p.width + column]);
        }
    }
{{ together(["sum"]) }}
    if (column < p.width) { y[p.y_at / {{ W }} + block * p.width + column] = sum; }
}
