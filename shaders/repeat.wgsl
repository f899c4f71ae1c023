// y repeats x: each element `width` times (LAST), or the whole again and again.
{% include "group.wgsl" %}
struct Params { groups: u32, units: u32, width: u32, factor: f32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
{% if LAST %}
    y[p.y_at + i] = x[p.x_at + i / p.width] * p.factor;
{% else %}
    y[p.y_at + i] = x[p.x_at + i % p.width] * p.factor;
{% endif %}
}
