// IMAGE: from an image.
// The sum of all numbers that a lane reads, modulo 2^32: the rate of memory, read. Little is written.
{% include "group.wgsl" %}
struct Params { groups: u32, units: u32, add: u32 }
@group(0) @binding(0) var<uniform> p: Params;
{% if IMAGE %}
{% include "image.wgsl" %}
@group(0) @binding(1) var x: texture_storage_2d<rgba32uint, read>;
{% else %}
@group(0) @binding(1) var<storage, read> x: array<vec4<u32>>;
{% endif %}
@group(0) @binding(2) var<storage, read_write> y: array<u32>;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    var s = vec4<u32>(p.add);
    for (var turn = 0u; turn < {{ TURNS }}u; turn = turn + 1u) {
{# Neighbouring lanes have neighbouring numbers. The number of units is a multiple of what a workgroup reads. #}
        let first = (g * {{ TURNS }}u + turn) * {{ WG * ITEMS }}u + lane;
{% for i in range(ITEMS) %}
        s = s + {{ "textureLoad(x, texel(first + " ~ i * WG ~ "u))" if IMAGE else "x[first + " ~ i * WG ~ "u]" }};
{% endfor %}
    }
    y[g * {{ WG }}u + lane] = s.x + s.y + s.z + s.w;
}
