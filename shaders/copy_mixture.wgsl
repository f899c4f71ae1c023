// The loss -log p, element by element, of the mixture p = sigmoid(d) [the input token is right] + (1 - sigmoid(d)) exp(-t),
// where t is the loss of the right token in the softmax; `replaced` is 0 where the input token is right, and at IGNORE the
// loss is 0. With GRADIENT the derivatives by t and d times dloss / count.
{% include "group.wgsl" %}
{% include "logistic.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set U = "vec4<u32>" if VEC else "u32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, losses_at: u32, copies_at: u32, replaced_at: u32, y_at: u32,
{% if GRADIENT %}
    dcopies_at: u32, dloss_at: u32, count_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> losses: array<{{ T }}>;
@group(0) @binding(2) var<storage, read> copies: array<{{ T }}>;
@group(0) @binding(3) var<storage, read> replaced: array<{{ U }}>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ T }}>;
{% if GRADIENT %}
@group(0) @binding(5) var<storage, read_write> dcopies: array<{{ T }}>;
@group(0) @binding(6) var<storage, read> dloss: array<f32>;
@group(0) @binding(7) var<storage, read> counts: array<f32>;
{% endif %}
const IGNORE = 0xffffffffu;

// 1 - exp(-t) for t >= 0. Below 1/4, where the difference would cancel, by its series up to t^6: the rest is below 5e-8 of it.
fn one_minus_exp(t: f32) -> f32 {
    let series = t * (1.0 - 0.5 * t * (1.0 - (1.0 / 3.0) * t * (1.0 - 0.25 * t * (1.0 - 0.2 * t * (1.0 - (1.0 / 6.0) * t)))));
    return select(1.0 - exp_of_negative(t), series, t < 0.25);
}
{% if GRADIENT %}

fn one(t: f32, d: f32, label: u32, factor: f32) -> vec2<f32> {
    if (label == IGNORE) { return vec2<f32>(0.0); }
    var result = vec2<f32>(1.0, sigmoid(d));
    if (label == 0u) {
        // The softmax's share of p; and sigmoid(d) - sigmoid(d + t), as a product.
        result = vec2<f32>(sigmoid(-(d + t)), -sigmoid(-d) * sigmoid(d + t) * one_minus_exp(t));
    }
    return vec2<f32>(keep_nan(keep_nan(result.x * factor, t), d), keep_nan(keep_nan(result.y * factor, t), d));
}
{% else %}

fn one(t: f32, d: f32, label: u32) -> f32 {
    if (label == IGNORE) { return 0.0; }
    // -log((1 - sigmoid(d)) exp(-t))
    var result = softplus(d) + t;
    if (label == 0u) {
        // 1 - p: where p is near 1 its logarithm must come from this.
        let rest = sigmoid(-d) * one_minus_exp(t);
        if (rest <= 0.5) {
            result = -log_one_plus(-rest);
        } else {
            // The log-sum-exp of -softplus(-d) and -softplus(d) - t, which differ by d + t.
            result = min(softplus(-d), result) - log_one_plus(exp_of_negative(abs(d + t)));
        }
    }
    return keep_nan(keep_nan(result, t), d);
}
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let t = losses[i + p.losses_at / {{ W }}];
    let d = copies[i + p.copies_at / {{ W }}];
    let label = replaced[i + p.replaced_at / {{ W }}];
{% if GRADIENT %}
    let factor = dloss[p.dloss_at] / counts[p.count_at];
{% if VEC %}
    let a = one(t.x, d.x, label.x, factor);
    let b = one(t.y, d.y, label.y, factor);
    let c = one(t.z, d.z, label.z, factor);
    let e = one(t.w, d.w, label.w, factor);
    y[i + p.y_at / 4u] = vec4<f32>(a.x, b.x, c.x, e.x);
    dcopies[i + p.dcopies_at / 4u] = vec4<f32>(a.y, b.y, c.y, e.y);
{% else %}
    let both = one(t, d, label, factor);
    y[i + p.y_at] = both.x;
    dcopies[i + p.dcopies_at] = both.y;
{% endif %}
{% elif VEC %}
    y[i + p.y_at / 4u] =
        vec4<f32>(one(t.x, d.x, label.x), one(t.y, d.y, label.y), one(t.z, d.z, label.z), one(t.w, d.w, label.w));
{% else %}
    y[i + p.y_at] = one(t, d, label);
{% endif %}
}
