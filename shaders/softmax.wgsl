// Softmax of rows, one workgroup a row.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params { groups: u32, width: u32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;
{% set X = "x" %}
{% include "log_sum_exp.wgsl" %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let row = p.x_at + g * p.width;
    let lse = log_sum_exp(lane, row, p.width);
    let to = p.y_at + g * p.width;
    for (var i = lane; i < p.width; i = i + {{ WG }}u) { y[to + i] = exp((x[row + i] - lse.largest) - lse.log_sum); }
}
