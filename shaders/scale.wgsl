// y = x * factor
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
struct Params { groups: u32, units: u32, factor: f32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ V ~ T2 ~ E }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    y[i + p.y_at / {{ W }}] = {{ V ~ T2 ~ E }}({{ T }}(x[i + p.x_at / {{ W }}]) * p.factor);
}
