// The gradient of layer norm's input, one workgroup a row. With h = (x - mean) rstd and d = dy gamma:
// dx = rstd (d - mean of d - h * mean of d h). A unit is a vec4 with VEC, else a float.
//   HELD: units of the row that each lane keeps in registers, which are all that there are; 0: they are loaded for each pass
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
{% macro lanes(v) %}{% if VEC %}(({{ v }}.x + {{ v }}.y) + ({{ v }}.z + {{ v }}.w)){% else %}{{ v }}{% endif %}{% endmacro %}
struct Params {
    groups: u32, units: u32, inverse_width: f32,
    dy_at: u32, x_at: u32, gamma_at: u32, mean_at: u32, rstd_at: u32, dx_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read> x: array<{{ V ~ T2 ~ E }}>;
@group(0) @binding(3) var<storage, read> gamma: array<{{ T }}>;
@group(0) @binding(4) var<storage, read> means: array<f32>;
@group(0) @binding(5) var<storage, read> rstds: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<{{ V ~ T6 ~ E }}>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let x_row = p.x_at / {{ W }} + g * p.units;
    let dy_row = p.dy_at / {{ W }} + g * p.units;
    let dx_row = p.dx_at / {{ W }} + g * p.units;
    let mean = means[p.mean_at + g];
    let rstd = rstds[p.rstd_at + g];
    var sum_d = {{ T }}(0.0);
    var sum_dh = {{ T }}(0.0);
{% if HELD %}
{% for n in range(HELD) %}
    let i{{ n }} = lane + {{ n * WG }}u;
    let d{{ n }} = {{ T }}(dy[dy_row + i{{ n }}]) * gamma[p.gamma_at / {{ W }} + i{{ n }}];
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
    dx[dx_row + i{{ n }}] = {{ V ~ T6 ~ E }}(rstd * (d{{ n }} - mean_d - h{{ n }} * mean_dh));
{% endfor %}
{% else %}
    for (var i = lane; i < p.units; i = i + {{ WG }}u) {
        let d = {{ T }}(dy[dy_row + i]) * gamma[p.gamma_at / {{ W }} + i];
        let h = ({{ T }}(x[x_row + i]) - mean) * rstd;
        dx[dx_row + i] = {{ V ~ T6 ~ E }}(rstd * (d - mean_d - h * mean_dh));
    }
{% endif %}
}
