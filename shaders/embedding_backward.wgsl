// dtable[v] = sum of dy[i] over the places i of v, in ascending order, along the chain that embedding_chain.wgsl made.
// ADD: adds to what earlier passes gave.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, width: u32, dy_at: u32, heads_at: u32, links_at: u32, table_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read> heads: array<u32>;
@group(0) @binding(3) var<storage, read> links: array<u32>;
@group(0) @binding(4) var<storage, read_write> table: array<{{ T }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let row = i / p.width;
    let column = i - row * p.width;
    let to = p.table_at / {{ W }} + i;
    var sum = {{ "table[to]" if ADD else T ~ "(0.0)" }};
    var place = heads[p.heads_at + row];
    // A frequent id has thousands of places: sums of 32, and their sum, round less than one long sum.
    while (place != 0u) {
        var part = {{ T }}(0.0);
        for (var n = 0u; n < 32u && place != 0u; n = n + 1u) {
            let at = place - 1u;
            part = part + {{ T }}(dy[p.dy_at / {{ W }} + at * p.width + column]);
            place = links[p.links_at + at];
        }
        sum = sum + part;
    }
    table[to] = sum;
}
