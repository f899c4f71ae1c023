// The results of attention_decode.wgsl's splits brought together: x has, for each head, query and split, the sum of N vec4s, then
// its scale and weight; o is [B,T,C]. A lane has a vec4 of o.
{% include "group.wgsl" %}
{% set N = D // 4 %}
struct Params { groups: u32, units: u32, t: u32, heads: u32, splits: u32, x_at: u32, o_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> o: array<vec4<{{ T2 }}>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let column = i % {{ N }}u;
    let head = i / {{ N }}u % p.heads;
    let row = i / ({{ N }}u * p.heads);
    let batch = row / p.t;
    let source = p.x_at / 4u + ((batch * p.heads + head) * p.t + row % p.t) * p.splits * {{ N + 1 }}u;
    var top = -3.0e38;
    for (var s = 0u; s < p.splits; s = s + 1u) { top = max(top, x[source + s * {{ N + 1 }}u + {{ N }}u].x); }
    var total = vec4<f32>();
    var sum = 0.0;
    for (var s = 0u; s < p.splits; s = s + 1u) {
        let at = source + s * {{ N + 1 }}u;
        let weight = x[at + {{ N }}u];
        let factor = exp(weight.x - top);
        total = fma(vec4<f32>(factor), x[at + column], total);
        sum = fma(factor, weight.y, sum);
    }
    o[p.o_at / 4u + i] = vec4<{{ T2 }}>(total * select(0.0, 1.0 / sum, sum > 0.0));
}
