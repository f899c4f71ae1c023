// The binary cross-entropy of logits x, element by element: y = softplus(x) where the label is 0, softplus(-x) where it is 1,
// 0 where it is IGNORE. With GRADIENT y = (sigmoid(x) - label) * dloss / count, and 0 where it is IGNORE.
{% include "group.wgsl" %}
{% include "logistic.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set U = "vec4<u32>" if VEC else "u32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, x_at: u32, labels_at: u32, y_at: u32,
{% if GRADIENT %}
    dloss_at: u32, count_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T }}>;
@group(0) @binding(2) var<storage, read> labels: array<{{ U }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ T }}>;
{% if GRADIENT %}
@group(0) @binding(4) var<storage, read> dloss: array<f32>;
@group(0) @binding(5) var<storage, read> counts: array<f32>;
{% endif %}
const IGNORE = 0xffffffffu;

fn one(x: f32, label: u32, factor: f32) -> f32 {
    if (label == IGNORE) { return 0.0; }
    // The loss is softplus(z), and sigmoid(x) - 1 = -sigmoid(-x): nothing cancels.
    let sign = select(-1.0, 1.0, label == 0u);
    let z = sign * x;
{% if GRADIENT %}
    return keep_nan(sign * sigmoid(z) * factor, x);
{% else %}
    return keep_nan(softplus(z), x);
{% endif %}
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let v = x[i + p.x_at / {{ W }}];
    let label = labels[i + p.labels_at / {{ W }}];
    let factor = {{ "dloss[p.dloss_at] / counts[p.count_at]" if GRADIENT else "1.0" }};
{% if VEC %}
    let result = vec4<f32>(
        one(v.x, label.x, factor), one(v.y, label.y, factor), one(v.z, label.z, factor), one(v.w, label.w, factor),
    );
{% else %}
    let result = one(v, label, factor);
{% endif %}
    y[i + p.y_at / {{ W }}] = result;
}
