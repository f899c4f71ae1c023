// Products of cooperative matrices, 2 x SUMS/2 accumulators a workgroup (one subgroup), each of a pair of its own: their rate.
//   x: 8 matrices a [SIDE,SIDE], then 8 matrices b, row by row     y: SUMS matrices a workgroup, which begin as they are
//   FRESH: other matrices a each turn. A compiler that makes plain multiplications and additions of them (Mesa's) would take the
//   products of the same ones out of the loop. Without, they stay in registers, and the loads do not count.
enable wgpu_cooperative_matrix;
{% if T == "f16" %}
enable f16;
{% endif %}
{% set STEPS = 1 if FRESH else 4 %}
{% set COLS = SUMS // 2 %}
{% set MATRIX = "coop_mat" ~ SIDE ~ "x" ~ SIDE %}
{% set SIZE = SIDE * SIDE %}
struct Params { groups: u32, turns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ SUM }}>;

{% macro load() %}
{% for r in range(2) %}
    let a{{ r }} = coopLoadT<{{ MATRIX }}<{{ T }}, A>>(&x[{% if FRESH %}(turn + {{ r }}u) % 8u * {{ SIZE }}u{% else %}{{ r * SIZE }}u{% endif %}], {{ SIDE }}u);
{% endfor %}
{% endmacro %}
@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>) {
    // No more workgroups than fit one dimension, so none is beyond the end: nothing may return before these operations.
    let first = id.x * {{ SUMS * SIZE }}u;
{% for i in range(SUMS) %}
    var s{{ i }} = coopLoadT<{{ MATRIX }}<{{ SUM }}, C>>(&y[first + {{ i * SIZE }}u], {{ SIDE }}u);
{% endfor %}
{% for c in range(COLS) %}
    let b{{ c }} = coopLoadT<{{ MATRIX }}<{{ T }}, B>>(&x[{{ (c + 8) * SIZE }}u], {{ SIDE }}u);
{% endfor %}
{{ "" if FRESH else load() }}
    for (var turn = 0u; turn < p.turns; turn = turn + 1u) {
{{ load() if FRESH else "" }}
{% for step in range(STEPS) %}
{% for i in range(SUMS) %}
        s{{ i }} = coopMultiplyAdd(a{{ i // COLS }}, b{{ i % COLS }}, s{{ i }});
{% endfor %}
{% endfor %}
    }
{% for i in range(SUMS) %}
    coopStoreT(s{{ i }}, &y[first + {{ i * SIZE }}u], {{ SIDE }}u);
{% endfor %}
}
