// Sums of parts of rows: workgroup g sums elements [j * part, (j + 1) * part) of row r, where g = r * parts + j.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params { groups: u32, width: u32, parts: u32, part: u32, factor: f32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let start = (g % p.parts) * p.part;
    let end = min(start + p.part, p.width);
    let row = p.x_at + (g / p.parts) * p.width;
    var sum = 0.0;
    for (var i = start + lane; i < end; i = i + {{ WG }}u) { sum = sum + x[row + i]; }
    let total = reduce_sum(lane, sum);
    if (lane == 0u) { y[p.y_at + g] = total * p.factor; }
}
