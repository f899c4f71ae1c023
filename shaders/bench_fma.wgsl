// Chains of fused multiply-adds, SUMS of four numbers each a lane, one after another in each: the rate of arithmetic.
// a = 1 and b come from outside, so that nothing can be left out; sums of whole numbers are exact while they are small.
{% if T == "f16" %}
enable f16;
{% endif %}
{% include "group.wgsl" %}
{# Multiply-adds of each sum in a turn. #}
{% set STEPS = 8 %}
struct Params { groups: u32, turns: u32, a: f32, b: f32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> y: array<f32>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let a = vec4<{{ T }}>({{ T }}(p.a));
    let b = vec4<{{ T }}>({{ T }}(p.b));
    let start = vec4<{{ T }}>({{ T }}(lane), {{ T }}(lane + 1u), {{ T }}(lane + 2u), {{ T }}(lane + 3u));
{% for i in range(SUMS) %}
    var s{{ i }} = start + vec4<{{ T }}>({{ T }}({{ i }}));
{% endfor %}
    for (var turn = 0u; turn < p.turns; turn = turn + 1u) {
{% for step in range(STEPS) %}
{% for i in range(SUMS) %}
        s{{ i }} = fma(s{{ i }}, a, b);
{% endfor %}
{% endfor %}
    }
    var sum = vec4<f32>();
{% for i in range(SUMS) %}
    sum = sum + vec4<f32>(s{{ i }});
{% endfor %}
    y[g * {{ WG }}u + lane] = sum.x + sum.y + sum.z + sum.w;
}
