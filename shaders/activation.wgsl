// y = tanh(x) or relu(x), or with GRADIENT, where x is that output, y = dy times its derivative.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params { groups: u32, units: u32, x_at: u32, {% if GRADIENT %}dy_at: u32, {% endif %}y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T }}>;
{% if GRADIENT %}
@group(0) @binding(2) var<storage, read> dy: array<{{ T }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ T }}>;
{% else %}
@group(0) @binding(2) var<storage, read_write> y: array<{{ T }}>;
{% endif %}
{% if not GRADIENT and FORM == "tanh" %}

// The rational minimax approximation of Eigen (ptanh_float) and XLA (EmitFastTanh): drivers' tanh overflows to NaN. Odd
// in x, and x itself below 0.0004, so it is accurate relative to small values too. Beyond the clamp it is 1 to the last
// bits. A NaN stays one, or a diverged model would look healthy; its bits tell, comparisons are optimised away.
fn activate(at: f32) -> f32 {
    let x = clamp(at, -7.90531110763549805, 7.90531110763549805);
    let t = x * x;
    let a = ((((((-2.76076847742355e-16 * t + 2.00018790482477e-13) * t - 8.60467152213735e-11) * t
        + 5.12229709037114e-08) * t + 1.48572235717979e-05) * t + 6.37261928875436e-04) * t + 4.89352455891786e-03);
    let b = (((1.19825839466702e-06 * t + 1.18534705686654e-04) * t + 2.26843463243900e-03) * t + 4.89352518554385e-03);
    let size = bitcast<u32>(at) & 0x7fffffffu;
    return select(x * a / b, at, size < bitcast<u32>(0.0004f) || size > 0x7f800000u);
}
{% elif not GRADIENT %}

// 0 for what has bits between those of -0 and -infinity; a NaN stays one.
fn activate(x: f32) -> f32 {
    return select(x, 0.0, bitcast<u32>(x) - 0x80000000u <= 0x7f800000u);
}
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let v = x[i + p.x_at / {{ W }}];
{% if GRADIENT %}
    let d = dy[i + p.dy_at / {{ W }}];
{% if FORM == "tanh" %}
    // (1 - v) (1 + v): 1 - v * v cancels where v is near 1.
    let result = d * ((1.0 - v) * (1.0 + v));
{% else %}
    let result = select(d, {{ T }}(0.0), v <= {{ T }}(0.0));
{% endif %}
{% elif VEC %}
    let result = vec4<f32>(activate(v.x), activate(v.y), activate(v.z), activate(v.w));
{% else %}
    let result = activate(v);
{% endif %}
    y[i + p.y_at / {{ W }}] = result;
}
