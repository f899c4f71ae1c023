// The gradient of layer norm's input, ROWS rows a workgroup, one after another. With h = (x - mean) rstd and d = dy gamma:
// dx = rstd (d - mean of d - h * mean of d h). A unit is a vec4 with VEC, else a float.
//   HELD: units of the row that each lane keeps in registers, which are all that there are, and with more rows than one as many of gamma;
//   0: they are loaded for each pass
//   ADDED: another gradient of the same input is added
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
{% set Y = V ~ (T7 if ADDED else T6) ~ E %}
{# The gradient of place `i` of the row is written. #}
{% macro write(i, d, h) %}dx[dx_row + {{ i }}] = {{ Y }}(rstd * ({{ d }} - mean_d - {{ h }} * mean_dh){% if ADDED %} + {{ T }}(added[added_row + {{ i }}]){% endif %});{% endmacro %}
{% macro lanes(v) %}{% if VEC %}(({{ v }}.x + {{ v }}.y) + ({{ v }}.z + {{ v }}.w)){% else %}{{ v }}{% endif %}{% endmacro %}
struct Params {
    groups: u32, rows: u32, units: u32, inverse_width: f32,
    dy_at: u32, x_at: u32, gamma_at: u32, mean_at: u32, rstd_at: u32, {% if ADDED %}added_at: u32, {% endif %}dx_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read> x: array<{{ V ~ T2 ~ E }}>;
@group(0) @binding(3) var<storage, read> gamma: array<{{ T }}>;
@group(0) @binding(4) var<storage, read> means: array<f32>;
@group(0) @binding(5) var<storage, read> rstds: array<f32>;
{% if ADDED %}
@group(0) @binding(6) var<storage, read> added: array<{{ V ~ T6 ~ E }}>;
@group(0) @binding(7) var<storage, read_write> dx: array<{{ Y }}>;
{% else %}
@group(0) @binding(6) var<storage, read_write> dx: array<{{ Y }}>;
{% endif %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
{% for n in range(HELD) %}
    let i{{ n }} = lane + {{ n * WG }}u;
{% if ROWS > 1 %}
    let gamma{{ n }} = gamma[p.gamma_at / {{ W }} + i{{ n }}];
{% endif %}
{% endfor %}
    let end = min((g + 1u) * {{ ROWS }}u, p.rows);
    for (var row = g * {{ ROWS }}u; row < end; row = row + 1u) {
        let x_row = p.x_at / {{ W }} + row * p.units;
        let dy_row = p.dy_at / {{ W }} + row * p.units;
        let dx_row = p.dx_at / {{ W }} + row * p.units;
{% if ADDED %}
        let added_row = p.added_at / {{ W }} + row * p.units;
{% endif %}
        let mean = means[p.mean_at + row];
        let rstd = rstds[p.rstd_at + row];
        var sum_d = {{ T }}(0.0);
        var sum_dh = {{ T }}(0.0);
{% if HELD %}
{% for n in range(HELD) %}
        let d{{ n }} = {{ T }}(dy[dy_row + i{{ n }}]) * {{ "gamma" ~ n if ROWS > 1 else "gamma[p.gamma_at / " ~ W ~ " + i" ~ n ~ "]" }};
        let h{{ n }} = ({{ T }}(x[x_row + i{{ n }}]) - mean) * rstd;
        sum_d = sum_d + d{{ n }};
        sum_dh = sum_dh + d{{ n }} * h{{ n }};
{% endfor %}
{% else %}
        for (var i = lane; i < p.units; i = i + {{ WG }}u) {
            let d = {{ T }}(dy[dy_row + i]) * gamma[p.gamma_at / {{ W }} + i];
            sum_d = sum_d + d;
            sum_dh = sum_dh + d * (({{ T }}(x[x_row + i]) - mean) * rstd);
        }
{% endif %}
        let mean_d = reduce_sum(lane, {{ lanes("sum_d") }}) * p.inverse_width;
        let mean_dh = reduce_sum(lane, {{ lanes("sum_dh") }}) * p.inverse_width;
{% if HELD %}
{% for n in range(HELD) %}
        {{ write("i" ~ n, "d" ~ n, "h" ~ n) }}
{% endfor %}
{% else %}
        for (var i = lane; i < p.units; i = i + {{ WG }}u) {
            let d = {{ T }}(dy[dy_row + i]) * gamma[p.gamma_at / {{ W }} + i];
            let h = ({{ T }}(x[x_row + i]) - mean) * rstd;
            {{ write("i", "d", "h") }}
        }
{% endif %}
    }
}
