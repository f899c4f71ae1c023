// How many are counted, by parts, and with MEAN sums of their losses: workgroup g adds up [g * part, (g + 1) * part).
// FIRST: counts labels that are not `ignored`; else adds up counts of earlier parts. LAST: divides the sum by the count.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params {
    groups: u32, width: u32, part: u32, ignored: u32, nan: u32,
    counted_at: u32, count_at: u32, {{ "x_at: u32, sum_at: u32," if MEAN }}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> counted: array<{{ "u32" if FIRST else "f32" }}>;
@group(0) @binding(2) var<storage, read_write> counts: array<f32>;
{% if MEAN %}
@group(0) @binding(3) var<storage, read> x: array<f32>;
@group(0) @binding(4) var<storage, read_write> sums: array<f32>;
{% endif %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let start = g * p.part;
    let end = min(start + p.part, p.width);
{% if MEAN %}
    var sum = 0.0;
{% endif %}
    var n = 0.0;
    for (var i = start + lane; i < end; i = i + {{ WG }}u) {
{% if MEAN %}
        sum = sum + x[p.x_at + i];
{% endif %}
{% if FIRST %}
        n = n + select(1.0, 0.0, counted[p.counted_at + i] == p.ignored);
{% else %}
        n = n + counted[p.counted_at + i];
{% endif %}
    }
    let all = reduce_sum(lane, n);
    if (lane == 0u) { counts[p.count_at + g] = all; }
{% if MEAN %}
    var total = reduce_sum(lane, sum);
{% if LAST %}
    // WGSL does not promise what 0 / 0 is.
    if (all == 0.0) { total = bitcast<f32>(p.nan); } else { total = total / all; }
{% endif %}
    if (lane == 0u) { sums[p.sum_at + g] = total; }
{% endif %}
}
