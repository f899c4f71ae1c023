// A step of AdamW in place, as PyTorch's. hyper: learning rate (which rate_scale multiplies), and the bias corrections
// 1 - beta^t of both moments.
// CLIP: the gradient is multiplied by factor; where that is negative nothing changes.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, beta1: f32, beta2: f32, eps: f32, decay: f32, rate_scale: f32,
    x_at: u32, grad_at: u32, m_at: u32, v_at: u32, hyper_at: u32,
{% if CLIP %}
    factor_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<{{ T }}>;
@group(0) @binding(2) var<storage, read> grad: array<{{ T }}>;
@group(0) @binding(3) var<storage, read_write> m: array<{{ T }}>;
@group(0) @binding(4) var<storage, read_write> v: array<{{ T }}>;
@group(0) @binding(5) var<storage, read> hyper: array<f32>;
{% if CLIP %}
@group(0) @binding(6) var<storage, read> factor: array<f32>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
{% if CLIP %}
    // The gradients have overflowed.
    if (factor[p.factor_at] < 0.0) { return; }
{% endif %}
    let rate = hyper[p.hyper_at] * p.rate_scale;
    let m_at = p.m_at / {{ W }} + i;
    let v_at = p.v_at / {{ W }} + i;
    let x_at = p.x_at / {{ W }} + i;
    let g = grad[p.grad_at / {{ W }} + i]{{ " * factor[p.factor_at]" if CLIP else "" }};
    let next_m = p.beta1 * m[m_at] + (1.0 - p.beta1) * g;
    let next_v = p.beta2 * v[v_at] + (1.0 - p.beta2) * g * g;
    m[m_at] = next_m;
    v[v_at] = next_v;
    let root = sqrt(next_v / hyper[p.hyper_at + 2u]) + p.eps;
    x[x_at] = x[x_at] * (1.0 - rate * p.decay) - rate * (next_m / hyper[p.hyper_at + 1u]) / root;
}
