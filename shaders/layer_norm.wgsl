// Layer norm of rows, ROWS of them a workgroup, one after another: y = (x - mean) / sqrt(variance + epsilon) * gamma + beta. The
// variance is taken around the mean, in a second pass, which corrects both for the error of the first (Chan, Golub, LeVeque, "Algorithms
// for computing the sample variance", 1983): rows far from 0 lose little. A unit is a vec4 with VEC, else a float.
//   HELD: units of the row that each lane keeps in registers, which are all that there are, and with more rows than one as many of gamma
//   and beta; 0: they are loaded as often as they are needed
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
{% macro lanes(v) %}{% if VEC %}(({{ v }}.x + {{ v }}.y) + ({{ v }}.z + {{ v }}.w)){% else %}{{ v }}{% endif %}{% endmacro %}
{% set FIT = HELD if ROWS > 1 else 0 %}
{# Code for each unit of a lane: its place in the row is `i`, its value `v`; with `fit`, gamma and beta there are `scale` and `shift`. #}
{% macro units(code, fit=false) %}
{% if HELD %}
{% for n in range(HELD) %}
    {
        let i = lane + {{ n * WG }}u;
        let v = x{{ n }};
{% if fit %}
        let scale = {{ "gamma" ~ n if FIT else "gamma[p.gamma_at / " ~ W ~ " + i]" }};
        let shift = {{ "beta" ~ n if FIT else "beta[p.beta_at / " ~ W ~ " + i]" }};
{% endif %}
        {{ code }}
    }
{% endfor %}
{% else %}
    for (var i = lane; i < p.units; i = i + {{ WG }}u) {
        let v = {{ T }}(x[x_row + i]);
{% if fit %}
        let scale = gamma[p.gamma_at / {{ W }} + i];
        let shift = beta[p.beta_at / {{ W }} + i];
{% endif %}
        {{ code }}
    }
{% endif %}
{% endmacro %}
struct Params {
    groups: u32, rows: u32, units: u32, inverse_width: f32, epsilon: f32,
    x_at: u32, gamma_at: u32, beta_at: u32, y_at: u32, mean_at: u32, rstd_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read> gamma: array<{{ T }}>;
@group(0) @binding(3) var<storage, read> beta: array<{{ T }}>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ V ~ T4 ~ E }}>;
@group(0) @binding(5) var<storage, read_write> means: array<f32>;
@group(0) @binding(6) var<storage, read_write> rstds: array<f32>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
{% for n in range(FIT) %}
    let gamma{{ n }} = gamma[p.gamma_at / {{ W }} + lane + {{ n * WG }}u];
    let beta{{ n }} = beta[p.beta_at / {{ W }} + lane + {{ n * WG }}u];
{% endfor %}
    let end = min((g + 1u) * {{ ROWS }}u, p.rows);
    for (var row = g * {{ ROWS }}u; row < end; row = row + 1u) {
        let x_row = p.x_at / {{ W }} + row * p.units;
        let y_row = p.y_at / {{ W }} + row * p.units;
{% for n in range(HELD) %}
        let x{{ n }} = {{ T }}(x[x_row + lane + {{ n * WG }}u]);
{% endfor %}
        var sum = {{ T }}(0.0);
{{ units("sum = sum + v;") }}
        let guess = reduce_sum(lane, {{ lanes("sum") }}) * p.inverse_width;
        var off = {{ T }}(0.0);
        var squares = {{ T }}(0.0);
{{ units("let d = v - guess; off = off + d; squares = squares + d * d;") }}
        let correction = reduce_sum(lane, {{ lanes("off") }}) * p.inverse_width;
        let mean = guess + correction;
        let variance = max(reduce_sum(lane, {{ lanes("squares") }}) * p.inverse_width - correction * correction, 0.0);
        let rstd = 1.0 / sqrt(variance + p.epsilon);
{{ units("y[y_row + i] = " ~ V ~ T4 ~ E ~ "((v - mean) * rstd * scale + shift);", true) }}
        if (lane == 0u) {
            means[p.mean_at + row] = mean;
            rstds[p.rstd_at + row] = rstd;
        }
    }
}
