// The second half of a step of LAMB: x = x - rate * rate_scale * ratio * u in place, where ratio is |x| / |u|, or 1 if either is 0.
// norms: |x| and |u|, of the whole tensors. CLIP: there is a factor, which may say that nothing is to change.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, rate_scale: f32,
    x_at: u32, u_at: u32, norms_at: u32, hyper_at: u32,
{% if CLIP %}
    factor_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> x: array<{{ T }}>;
@group(0) @binding(2) var<storage, read> u: array<{{ T }}>;
@group(0) @binding(3) var<storage, read> norms: array<f32>;
@group(0) @binding(4) var<storage, read> hyper: array<f32>;
{% if CLIP %}
@group(0) @binding(5) var<storage, read> factor: array<f32>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
{% if CLIP %}
    // The gradients have overflowed.
    if (factor[p.factor_at] < 0.0) { return; }
{% endif %}
    let x_norm = norms[p.norms_at];
    let u_norm = norms[p.norms_at + 1u];
    // Written so that a NaN norm spoils the parameters rather than passing for 1.
    var ratio = 1.0;
    if (x_norm != 0.0 && u_norm != 0.0) { ratio = x_norm / u_norm; }
    let at = p.x_at / {{ W }} + i;
    x[at] = x[at] - hyper[p.hyper_at] * p.rate_scale * ratio * u[p.u_at / {{ W }} + i];
}
