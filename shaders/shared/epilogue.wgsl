// What a matmul does with a finished sum at column n of row m, element by element (all optional):
//   y = activation(alpha * sum + before + bias[n]) + residual
// `before` is what an earlier dispatch over another range of k left in y. KEEP also writes the value before the activation.
// The including kernel defines: y, and where flagged bias, residual, pre; p with alpha and the `_at` words.
{% if ACT != "none" %}
{% include "gelu.wgsl" %}
{% endif %}
fn finish(sum: f32, at: u32, n: u32) {
    var value = p.alpha * sum;
{% if ACC %}
    value = value + y[p.y_at + at];
{% endif %}
{% if BIAS %}
    value = value + bias[p.bias_at + n];
{% endif %}
{% if KEEP %}
    pre[p.pre_at + at] = value;
{% endif %}
{% if ACT != "none" %}
    value = gelu_{{ ACT }}(value);
{% endif %}
{% if RESIDUAL %}
    value = value + residual[p.residual_at + at];
{% endif %}
    y[p.y_at + at] = value;
}
