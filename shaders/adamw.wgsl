// A step of AdamW in place, as PyTorch's, of TENSORS tensors, one after another: the workgroups of a tensor begin at `first`. hyper:
// learning rate (which rate_scale multiplies), and the bias corrections 1 - beta^t of both moments.
// CLIP: the gradient is multiplied by factor; where that is negative nothing changes.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, beta1: f32, beta2: f32, eps: f32,
{% for i in range(TENSORS) %}
    units{{ i }}: u32, first{{ i }}: u32, decay{{ i }}: f32, rate_scale{{ i }}: f32,
{% endfor %}
{% for i in range(TENSORS) %}
    x{{ i }}_at: u32, grad{{ i }}_at: u32, m{{ i }}_at: u32, v{{ i }}_at: u32,
{% endfor %}
    hyper_at: u32,
{% if CLIP %}
    factor_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
{% for i in range(TENSORS) %}
@group(0) @binding({{ 4 * i + 1 }}) var<storage, read_write> x{{ i }}: array<{{ T }}>;
@group(0) @binding({{ 4 * i + 2 }}) var<storage, read> grad{{ i }}: array<{{ T }}>;
@group(0) @binding({{ 4 * i + 3 }}) var<storage, read_write> m{{ i }}: array<{{ T }}>;
@group(0) @binding({{ 4 * i + 4 }}) var<storage, read_write> v{{ i }}: array<{{ T }}>;
{% endfor %}
@group(0) @binding({{ 4 * TENSORS + 1 }}) var<storage, read> hyper: array<f32>;
{% if CLIP %}
@group(0) @binding({{ 4 * TENSORS + 2 }}) var<storage, read> factor: array<f32>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let group = group_index(id, count);
    if (group >= p.groups) { return; }
{% if CLIP %}
    // The gradients have overflowed.
    if (factor[p.factor_at] < 0.0) { return; }
{% endif %}
{% for n in range(TENSORS) %}
    if (group >= p.first{{ n }} && group < {{ "p.groups" if loop.last else "p.first" ~ (n + 1) }}) {
        let i = (group - p.first{{ n }}) * 64u + lane;
        if (i >= p.units{{ n }}) { return; }
        let rate = hyper[p.hyper_at] * p.rate_scale{{ n }};
        let m_at = p.m{{ n }}_at / {{ W }} + i;
        let v_at = p.v{{ n }}_at / {{ W }} + i;
        let x_at = p.x{{ n }}_at / {{ W }} + i;
        let g = grad{{ n }}[p.grad{{ n }}_at / {{ W }} + i]{{ " * factor[p.factor_at]" if CLIP else "" }};
        let next_m = p.beta1 * m{{ n }}[m_at] + (1.0 - p.beta1) * g;
        let next_v = p.beta2 * v{{ n }}[v_at] + (1.0 - p.beta2) * g * g;
        m{{ n }}[m_at] = next_m;
        v{{ n }}[v_at] = next_v;
        let root = sqrt(next_v / hyper[p.hyper_at + 2u]) + p.eps;
        x{{ n }}[x_at] = x{{ n }}[x_at] * (1.0 - rate * p.decay{{ n }}) - rate * (next_m / hyper[p.hyper_at + 1u]) / root;
    }
{% endfor %}
}
