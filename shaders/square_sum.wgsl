// Sums of squares by parts of TENSORS tensors, one after another: workgroup g of those of a tensor, which begin at `first`, adds up its
// elements [(g - first) * part, (g - first + 1) * part).
// LAST: x0 holds such sums already; adds them up and takes the root.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, part: u32,
{% for i in range(TENSORS) %}
    units{{ i }}: u32, first{{ i }}: u32,
{% endfor %}
{% for i in range(TENSORS) %}
    x{{ i }}_at: u32,
{% endfor %}
    y_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
{% for i in range(TENSORS) %}
@group(0) @binding({{ i + 1 }}) var<storage, read> x{{ i }}: array<{{ T }}>;
{% endfor %}
@group(0) @binding({{ TENSORS + 1 }}) var<storage, read_write> y: array<f32>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    var sum = {{ T }}(0.0);
{% for i in range(TENSORS) %}
    if (g >= p.first{{ i }} && g < {{ "p.groups" if loop.last else "p.first" ~ (i + 1) }}) {
        let start = (g - p.first{{ i }}) * p.part;
        let end = min(start + p.part, p.units{{ i }});
        for (var i = start + lane; i < end; i = i + {{ WG }}u) {
            let v = x{{ i }}[p.x{{ i }}_at / {{ W }} + i];
            sum = sum + v{{ "" if LAST else " * v" }};
        }
    }
{% endfor %}
    let total = reduce_sum(lane, {{ "(sum.x + sum.y) + (sum.z + sum.w)" if VEC else "sum" }});
    if (lane == 0u) { y[p.y_at + g] = {{ "sqrt(total)" if LAST else "total" }}; }
}
