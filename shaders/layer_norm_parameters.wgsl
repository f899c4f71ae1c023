// The gradients of layer norm's gamma and beta, summed over blocks of `part` rows: y[block] holds a row of the sums of
// dy (x - mean) rstd, then a row of the sums of dy. One lane a column, or with VEC four neighbouring ones, so that loads are
// contiguous and the order is fixed. With STRANDS so many lanes share a column, each every STRANDS-th row (see sum_leading.wgsl).
// width counts columns, in fours with VEC.
{% include "group.wgsl" %}
{% set LANES = 64 if STRANDS == 1 else 256 %}
{% set COLUMNS = LANES // STRANDS %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, rows: u32, width: u32, part: u32,
    dy_at: u32, x_at: u32, mean_at: u32, rstd_at: u32, y_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read> x: array<{{ V ~ T2 ~ E }}>;
@group(0) @binding(3) var<storage, read> means: array<f32>;
@group(0) @binding(4) var<storage, read> rstds: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<{{ T }}>;
{% if STRANDS > 1 %}
var<workgroup> gammas: array<{{ T }}, {{ LANES }}>;
var<workgroup> betas: array<{{ T }}, {{ LANES }}>;
{% endif %}

@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let columns = (p.width + {{ COLUMNS - 1 }}u) / {{ COLUMNS }}u;
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let column = (g % columns) * {{ COLUMNS }}u + lane % {{ COLUMNS }}u;
    let block = g / columns;
    let end = min((block + 1u) * p.part, p.rows);
    var gamma = {{ T }}();
    var beta = {{ T }}();
    if (column < p.width) {
        for (var row = block * p.part + lane / {{ COLUMNS }}u; row < end; row = row + {{ STRANDS }}u) {
            let at = row * p.width + column;
            let d = {{ T }}(dy[p.dy_at / {{ W }} + at]);
            gamma = gamma + d * (({{ T }}(x[p.x_at / {{ W }} + at]) - means[p.mean_at + row]) * rstds[p.rstd_at + row]);
            beta = beta + d;
        }
    }
{% if STRANDS > 1 %}
    gammas[lane] = gamma;
    betas[lane] = beta;
    workgroupBarrier();
    if (lane >= {{ COLUMNS }}u) { return; }
{% for strand in range(1, STRANDS) %}
    gamma = gamma + gammas[lane + {{ strand * COLUMNS }}u];
    beta = beta + betas[lane + {{ strand * COLUMNS }}u];
{% endfor %}
{% endif %}
    if (column < p.width) {
        let to = p.y_at / {{ W }} + block * 2u * p.width + column;
        y[to] = gamma;
        y[to + p.width] = beta;
    }
}
