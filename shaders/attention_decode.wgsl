// Attention of a few queries over a cache, for GPUs: the lanes of a workgroup run along keys for the scores, and along a head's
// columns for the sums, so that one query keeps them all busy. A workgroup has ROWS queries of a head and RANGE keys; the keys of
// a long cache are split over several (Dao, Haziza, Massa, Sizov, "Flash-decoding for long-context inference", 2023).
//   query t of batch b stands at positions[b] + t. The keys before positions[b] are in the rows of cache, [B,capacity,2C], as k,
//   then v; the others come from qkv, [B,T,3C], and are put into the cache for later.
//   SPLIT: o gets, for each split of a query's keys, their sum, its scale and its weight; attention_combine.wgsl does the rest.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
{% set N = D // 4 %}
{% set GROUPS = WG // N %}
struct Params {
    groups: u32, t: u32, heads: u32, blocks: u32, splits: u32, capacity: u32, scale: f32,
    qkv_at: u32, o_at: u32, cache_at: u32, positions_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<vec4<{{ T1 }}>>;
@group(0) @binding(2) var<storage, read_write> o: array<vec4<{{ T2 }}>>;
@group(0) @binding(3) var<storage, read_write> cache: array<vec4<f32>>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
const MASKED = -3.0e38;
var<workgroup> q: array<vec4<f32>, {{ ROWS * N }}>;
var<workgroup> scores: array<f32, {{ ROWS * RANGE }}>;
var<workgroup> sums: array<vec4<f32>, {{ WG }}>;

{% macro score(source, at) %}
{% for i in range(N) %}
            let x{{ i }} = vec4<f32>({{ source }}[{{ at }} + {{ i }}u]);
{% endfor %}
{% for i in range(N) %}
{% for r in range(ROWS) %}
            s{{ r }} = s{{ r }} + dot(q[{{ r * N + i }}], x{{ i }});
{% endfor %}
{% endfor %}
{% endmacro %}
@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let split = g % p.splits;
    let first = (g / p.splits % p.blocks) * {{ ROWS }}u;
    let head = (g / (p.splits * p.blocks)) % p.heads;
    let batch = g / (p.splits * p.blocks * p.heads);
    let c = p.heads * {{ N }}u;
    let qkv_at = p.qkv_at / 4u + batch * p.t * 3u * c + head * {{ N }}u;
    let cache_at = p.cache_at / 4u + batch * p.capacity * 2u * c + head * {{ N }}u;
    // A position beyond the cache attends to all of it.
    let position = min(positions[p.positions_at + batch], p.capacity);
    // Keys that the block's last query sees, and those of them that are this workgroup's.
    let end = min(p.capacity, position + min(p.t, first + {{ ROWS }}u));
    let begin = split * {{ RANGE }}u;
    let keys = min(max(end, begin) - begin, {{ RANGE }}u);
    if (split == 0u) {
        // Nobody reads these places before the next dispatch.
        for (var i = lane; i < {{ ROWS * N }}u; i = i + {{ WG }}u) {
            let row = first + i / {{ N }}u;
            if (row < p.t && position + row < p.capacity) {
                let source = qkv_at + row * 3u * c + c + i % {{ N }}u;
                let to = cache_at + (position + row) * 2u * c + i % {{ N }}u;
                cache[to] = vec4<f32>(qkv[source]);
                cache[to + c] = vec4<f32>(qkv[source + c]);
            }
        }
    }
    for (var i = lane; i < {{ ROWS * N }}u; i = i + {{ WG }}u) {
        let row = min(first + i / {{ N }}u, p.t - 1u);
        q[i] = vec4<f32>(qkv[qkv_at + row * 3u * c + i % {{ N }}u]) * p.scale;
    }
    workgroupBarrier();
{% for r in range(ROWS) %}
    var top{{ r }} = MASKED;
    var sum{{ r }} = 0.0;
{% endfor %}
    for (var i = lane; i < keys; i = i + {{ WG }}u) {
        let key = begin + i;
{% for r in range(ROWS) %}
        var s{{ r }} = 0.0;
{% endfor %}
        if (key < position) {
            let at = cache_at + key * 2u * c;
{{ score("cache", "at") }}
        } else {
            let at = qkv_at + (key - position) * 3u * c + c;
{{ score("qkv", "at") }}
        }
{% for r in range(ROWS) %}
        let w{{ r }} = select(MASKED, s{{ r }}, key <= position + first + {{ r }}u);
        scores[{{ r * RANGE }}u + i] = w{{ r }};
        top{{ r }} = max(top{{ r }}, w{{ r }});
{% endfor %}
    }
{% for r in range(ROWS) %}
    top{{ r }} = reduce_max(lane, top{{ r }});
{% endfor %}
    for (var i = lane; i < keys; i = i + {{ WG }}u) {
{% for r in range(ROWS) %}
        let w{{ r }} = scores[{{ r * RANGE }}u + i];
        let e{{ r }} = select(0.0, exp(w{{ r }} - top{{ r }}), w{{ r }} > MASKED);
        scores[{{ r * RANGE }}u + i] = e{{ r }};
        sum{{ r }} = sum{{ r }} + e{{ r }};
{% endfor %}
    }
{% for r in range(ROWS) %}
    sum{{ r }} = reduce_sum(lane, sum{{ r }});
    var o{{ r }} = vec4<f32>();
{% endfor %}
    let column = lane % {{ N }}u;
    if (lane < {{ GROUPS * N }}u) {
        for (var i = lane / {{ N }}u; i < keys; i = i + {{ GROUPS }}u) {
            let key = begin + i;
            var x = vec4<f32>();
            if (key < position) {
                x = cache[cache_at + key * 2u * c + c + column];
            } else {
                x = vec4<f32>(qkv[qkv_at + (key - position) * 3u * c + 2u * c + column]);
            }
{% for r in range(ROWS) %}
            o{{ r }} = fma(vec4<f32>(scores[{{ r * RANGE }}u + i]), x, o{{ r }});
{% endfor %}
        }
    }
{% for r in range(ROWS) %}
    sums[lane] = o{{ r }};
    workgroupBarrier();
    if (lane < {{ N }}u && first + {{ r }}u < p.t) {
        var total = sums[lane];
        for (var i = 1u; i < {{ GROUPS }}u; i = i + 1u) { total = total + sums[i * {{ N }}u + lane]; }
{% if SPLIT %}
        let to = p.o_at / 4u + (((batch * p.heads + head) * p.t + first + {{ r }}u) * p.splits + split) * {{ N + 1 }}u;
        o[to + lane] = vec4<{{ T2 }}>(total);
        if (lane == 0u) { o[to + {{ N }}u] = vec4<{{ T2 }}>(top{{ r }}, sum{{ r }}, 0.0, 0.0); }
{% else %}
        // A query that may attend to nothing gives zeros.
        let factor = select(0.0, 1.0 / sum{{ r }}, sum{{ r }} > 0.0);
        o[p.o_at / 4u + (batch * p.t + first + {{ r }}u) * c + head * {{ N }}u + lane] = vec4<{{ T2 }}>(total * factor);
{% endif %}
    }
    workgroupBarrier();
{% endfor %}
}
