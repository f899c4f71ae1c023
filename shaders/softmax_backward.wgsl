// The gradient of softmax, one workgroup a row: dx = y (dy - sum of dy y).
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params { groups: u32, width: u32, y_at: u32, dy_at: u32, dx_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> y: array<f32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read_write> dx: array<f32>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let y_row = p.y_at + g * p.width;
    let dy_row = p.dy_at + g * p.width;
    let dx_row = p.dx_at + g * p.width;
    var sum = 0.0;
    for (var i = lane; i < p.width; i = i + {{ WG }}u) { sum = sum + y[y_row + i] * dy[dy_row + i]; }
    let total = reduce_sum(lane, sum);
    for (var i = lane; i < p.width; i = i + {{ WG }}u) { dx[dx_row + i] = y[y_row + i] * (dy[dy_row + i] - total); }
}
