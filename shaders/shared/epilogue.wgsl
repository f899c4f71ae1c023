// What a matmul does with finished sums at column n of row m, element by element (all optional):
//   y = activation(alpha * sum + before + bias[n]) + residual, or with GATE (alpha * sum + before + bias[n]) * gelu'(residual)
// `before` is what an earlier dispatch over another range of k left in y. KEEP also writes the value before the activation.
// With YVEC y, bias, residual and pre are arrays of vec4s, and n is a multiple of 4.
// The including kernel defines, as matmul_bindings.wgsl does: y, and where flagged bias, residual, pre; p with n, alpha and the
// `_at` words.
{% if ACT != "none" or GATE != "none" %}
{% include "gelu.wgsl" %}
{% endif %}
{% set T = "vec4<f32>" if YVEC else "f32" %}
{% macro of_each(function, v) %}{% if YVEC %}vec4<f32>({{ function }}({{ v }}.x), {{ function }}({{ v }}.y), {{ function }}({{ v }}.z), {{ function }}({{ v }}.w)){% else %}{{ function }}({{ v }}){% endif %}{% endmacro %}
{% macro stored(type) %}{{ "vec4<" ~ type ~ ">" if YVEC else type }}{% endmacro %}
{% macro place(name, index) %}{{ name }}[{% if YVEC %}(p.{{ name }}_at + {{ index }}) / 4u{% else %}p.{{ name }}_at + {{ index }}{% endif %}]{% endmacro %}
{% macro read(name, index) %}{{ T }}({{ place(name, index) }}){% endmacro %}
// What is added to all of column n.
fn shift_of(n: u32) -> {{ T }} { return {{ read("bias", "n") if BIAS else T ~ "()" }}; }
// What there is beside the sum at place `at`.
fn rest_of(at: u32) -> {{ T }} { return {{ read("residual", "at") if RESIDUAL else T ~ "()" }}; }
// The result at place `at`, with those two at hand.
fn finish_onto(sum: {{ T }}, shift: {{ T }}, rest: {{ T }}, at: u32) {
    var value = p.alpha * sum;
{% if ACC %}
    value = value + {{ read("y", "at") }};
{% endif %}
{% if BIAS %}
    value = value + shift;
{% endif %}
{% if KEEP %}
    {{ place("pre", "at") }} = {{ stored(types[2 + BIAS + RESIDUAL + 1]) }}(value);
{% endif %}
{% if ACT != "none" %}
    value = {{ of_each("gelu_" ~ ACT, "value") }};
{% endif %}
{% if GATE != "none" %}
    value = value * {{ of_each("gelu_" ~ GATE ~ "_derivative", "rest") }};
{% elif RESIDUAL %}
    value = value + rest;
{% endif %}
    {{ place("y", "at") }} = {{ stored(T3) }}(value);
}
fn finish(sum: {{ T }}, at: u32, n: u32) { finish_onto(sum, shift_of(n), rest_of(at), at); }
// Four neighbouring columns from n, of which those beyond the edge are not written.
fn finish_four(sum: vec4<f32>, at: u32, n: u32) {
{% if YVEC %}
    if (n < p.n) { finish(sum, at, n); }
{% else %}
    if (n < p.n) { finish(sum.x, at, n); }
    if (n + 1u < p.n) { finish(sum.y, at + 1u, n + 1u); }
    if (n + 2u < p.n) { finish(sum.z, at + 2u, n + 2u); }
    if (n + 3u < p.n) { finish(sum.w, at + 3u, n + 3u); }
{% endif %}
}
