// Products of cooperative matrices, SUMS accumulators a workgroup (one subgroup), all of the same a and b: their rate.
//   x: a [SIDE,SIDE] then b [SIDE,SIDE], row by row     y: SUMS matrices a workgroup, which begin as they are
enable wgpu_cooperative_matrix;
{% if T == "f16" %}
enable f16;
{% endif %}
{% include "group.wgsl" %}
{# Products into each accumulator in a turn. #}
{% set STEPS = 4 %}
{% set MATRIX = "coop_mat" ~ SIDE ~ "x" ~ SIDE %}
struct Params { groups: u32, turns: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ SUM }}>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let a = coopLoadT<{{ MATRIX }}<{{ T }}, A>>(&x[0], {{ SIDE }}u);
    let b = coopLoadT<{{ MATRIX }}<{{ T }}, B>>(&x[{{ SIDE * SIDE }}], {{ SIDE }}u);
    let first = g * {{ SUMS * SIDE * SIDE }}u;
{% for i in range(SUMS) %}
    var s{{ i }} = coopLoadT<{{ MATRIX }}<{{ SUM }}, C>>(&y[first + {{ i * SIDE * SIDE }}u], {{ SIDE }}u);
{% endfor %}
    for (var turn = 0u; turn < p.turns; turn = turn + 1u) {
{% for step in range(STEPS) %}
{% for i in range(SUMS) %}
        s{{ i }} = coopMultiplyAdd(a, b, s{{ i }});
{% endfor %}
{% endfor %}
    }
{% for i in range(SUMS) %}
    coopStoreT(s{{ i }}, &y[first + {{ i * SIDE * SIDE }}u], {{ SIDE }}u);
{% endfor %}
}
