// A step of stochastic gradient descent in place, as PyTorch's. hyper[0] is the learning rate, which rate_scale multiplies.
// MOMENTUM: with a buffer. CLIP: the gradient is multiplied by factor; where that is negative nothing changes.
{% include "group.wgsl" %}
struct Params {
    groups: u32, n: u32, momentum: f32, decay: f32, rate_scale: f32,
    x_at: u32, grad_at: u32, hyper_at: u32,
{% if MOMENTUM %}
    m_at: u32,
{% endif %}
{% if CLIP %}
    factor_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<f32>;
@group(0) @binding(2) var<storage, read> grad: array<f32>;
@group(0) @binding(3) var<storage, read> hyper: array<f32>;
{% if MOMENTUM %}
@group(0) @binding(4) var<storage, read_write> m: array<f32>;
{% endif %}
{% if CLIP %}
@group(0) @binding({{ 5 if MOMENTUM else 4 }}) var<storage, read> factor: array<f32>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.n) { return; }
{% if CLIP %}
    // The gradients have overflowed.
    if (factor[p.factor_at] < 0.0) { return; }
{% endif %}
    var g = grad[p.grad_at + i]{{ " * factor[p.factor_at]" if CLIP else "" }} + p.decay * x[p.x_at + i];
{% if MOMENTUM %}
    g = p.momentum * m[p.m_at + i] + g;
    m[p.m_at + i] = g;
{% endif %}
    x[p.x_at + i] = x[p.x_at + i] - hyper[p.hyper_at] * p.rate_scale * g;
}
