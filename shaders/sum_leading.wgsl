// Sums over groups of `part` rows: one lane a column, so that loads are contiguous and the order is fixed.
{% include "group.wgsl" %}
struct Params { groups: u32, rows: u32, width: u32, part: u32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T1 }}>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let columns = (p.width + 63u) / 64u;
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let column = (g % columns) * 64u + lane;
    let block = g / columns;
    if (column >= p.width) { return; }
    let end = min((block + 1u) * p.part, p.rows);
    var sum = 0.0;
    for (var row = block * p.part; row < end; row = row + 1u) { sum = sum + f32(x[p.x_at + row * p.width + column]); }
    y[p.y_at + block * p.width + column] = sum;
}
