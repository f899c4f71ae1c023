// y = x + add, four numbers a lane: the rate of memory, read and written. Whole numbers, so that the host can check each.
{% include "group.wgsl" %}
struct Params { groups: u32, units: u32, add: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<u32>>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
{# Neighbouring lanes have neighbouring numbers. #}
    let first = g * {{ WG * ITEMS }}u + lane;
{% for i in range(ITEMS) %}
    let x{{ i }} = x[min(first + {{ i * WG }}u, p.units - 1u)];
{% endfor %}
{% for i in range(ITEMS) %}
    if (first + {{ i * WG }}u < p.units) { y[first + {{ i * WG }}u] = x{{ i }} + p.add; }
{% endfor %}
}
