// The first half of a step of LAMB, as google-research/albert's lamb_optimizer.py (no bias correction): moments in place,
// and the update u = m / (sqrt(v) + eps) + decay * x.
// DIRECT: x = x - rate * rate_scale * u at once, for parameters whose layer is not adapted. CLIP: the gradient is multiplied by
// factor; where that is negative nothing changes.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, beta1: f32, beta2: f32, eps: f32, decay: f32, rate_scale: f32,
    x_at: u32, grad_at: u32, m_at: u32, v_at: u32, {{ "hyper_at" if DIRECT else "u_at" }}: u32,
{% if CLIP %}
    factor_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, {{ "read_write" if DIRECT else "read" }}> x: array<{{ T }}>;
@group(0) @binding(2) var<storage, read> grad: array<{{ T }}>;
@group(0) @binding(3) var<storage, read_write> m: array<{{ T }}>;
@group(0) @binding(4) var<storage, read_write> v: array<{{ T }}>;
{% if DIRECT %}
@group(0) @binding(5) var<storage, read> hyper: array<f32>;
{% else %}
@group(0) @binding(5) var<storage, read_write> u: array<{{ T }}>;
{% endif %}
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
    let m_at = p.m_at / {{ W }} + i;
    let v_at = p.v_at / {{ W }} + i;
    let x_at = p.x_at / {{ W }} + i;
    let g = grad[p.grad_at / {{ W }} + i]{{ " * factor[p.factor_at]" if CLIP else "" }};
    let next_m = p.beta1 * m[m_at] + (1.0 - p.beta1) * g;
    let next_v = p.beta2 * v[v_at] + (1.0 - p.beta2) * g * g;
    m[m_at] = next_m;
    v[v_at] = next_v;
    let update = next_m / (sqrt(next_v) + p.eps) + p.decay * x[x_at];
{% if DIRECT %}
    x[x_at] = x[x_at] - hyper[p.hyper_at] * p.rate_scale * update;
{% else %}
    u[p.u_at / {{ W }} + i] = update;
{% endif %}
}
