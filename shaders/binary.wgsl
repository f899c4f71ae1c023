// y = a OP b, where b repeats every `period` units (a unit is a vec4 with VEC, else a float).
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
struct Params { groups: u32, units: u32, period: u32, a_at: u32, b_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read> b: array<{{ V ~ T2 ~ E }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ V ~ T3 ~ E }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    y[i + p.y_at / {{ W }}] = {{ V ~ T3 ~ E }}({{ T }}(a[i + p.a_at / {{ W }}]) {{ OP }} {{ T }}(b[i % p.period + p.b_at / {{ W }}]));
}
