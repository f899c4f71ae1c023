// Chains the places of each id in ascending order: heads[id] is the first place + 1, links[i] the next place + 1 with the
// id of place i; 0 where there is none. Each word has one writer, so the chains are the same on every run. Places are looked at EACH at
// once, whose loads do not wait for one another: one at a time, a GPU spends the whole kernel waiting.
{% include "group.wgsl" %}
struct Params { groups: u32, n: u32, rows: u32, ids_at: u32, heads_at: u32, links_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> ids: array<u32>;
@group(0) @binding(2) var<storage, read_write> heads: array<u32>;
@group(0) @binding(3) var<storage, read_write> links: array<u32>;

fn row_of(i: u32) -> u32 { return min(ids[p.ids_at + i], p.rows - 1u); }

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.n) { return; }
    let row = row_of(i);
    var next = p.n;
    for (var at = i + 1u; at < next; at = at + {{ EACH }}u) {
{% for j in range(EACH) %}
        let r{{ j }} = row_of(min(at + {{ j }}u, p.n - 1u));
{% endfor %}
{# The nearest comes last, and stays. #}
{% for j in range(EACH)|reverse %}
        if (r{{ j }} == row && at + {{ j }}u < p.n) { next = at + {{ j }}u; }
{% endfor %}
    }
    links[p.links_at + i] = select(0u, next + 1u, next < p.n);
    var first = true;
    for (var end = i; end > 0u && first; end = end - min(end, {{ EACH }}u)) {
{% for j in range(EACH) %}
        let r{{ j }} = row_of(end - min(end, {{ j + 1 }}u));
{% endfor %}
        first = {% for j in range(EACH) %}r{{ j }} != row{{ "" if loop.last else " && " }}{% endfor %};
    }
    if (first) { heads[p.heads_at + row] = i + 1u; }
}
