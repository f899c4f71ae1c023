// Sums of squares by parts: workgroup g adds up elements [g * part, (g + 1) * part).
// LAST: x holds such sums already; adds them up and takes the root.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params { groups: u32, units: u32, part: u32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T }}>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let end = min((g + 1u) * p.part, p.units);
    var sum = {{ T }}(0.0);
    for (var i = g * p.part + lane; i < end; i = i + {{ WG }}u) {
        let v = x[p.x_at / {{ W }} + i];
        sum = sum + v{{ "" if LAST else " * v" }};
    }
    let total = reduce_sum(lane, {{ "(sum.x + sum.y) + (sum.z + sum.w)" if VEC else "sum" }});
    if (lane == 0u) { y[p.y_at + g] = {{ "sqrt(total)" if LAST else "total" }}; }
}
