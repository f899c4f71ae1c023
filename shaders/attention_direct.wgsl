// Fused attention with an online softmax (Dao et al., "FlashAttention", 2022) straight from storage, for software adapters: no
// workgroup memory, no barrier, no T x T matrix. A workgroup of 8 lanes, a subgroup, has ROWS queries and walks over the keys, 32 at a
// time, as matmul_direct.wgsl makes its products; what it says of loads holds here, too.
//   scores: a lane has keys lane, 8 + lane, 16 + lane and 24 + lane of the 32, in the components of a vec4, of every query. It goes
//   through the head four dimensions at a time; queries are spread over the lanes and broadcast, a broadcast for four sums of 8 lanes.
//   result: a lane has vectors lane, 8 + lane, ... of the head, of every query. Probabilities are broadcast, one for all of a row.
// Keys beyond the causal diagonal of the block, or before its band, are never visited.
//   q, k and v are thirds of the rows of qkv, [B,T,3C], D wide a head, D % 4 == 0; lse [B,heads,T] is the scores' log-sum-exp
// qkv is an image.
{% set IMAGE = true %}
{% include "group.wgsl" %}
{% include "attention_bindings.wgsl" %}
{% from "attention_images.wgsl" import N, NV, accumulate, comp, lanes, load, vectors %}
{# Dimensions, in vectors, that a turn of the loop over them has. #}
{% set UNROLL = 2 if N % 2 == 0 else 1 %}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    // The last blocks first: with a causal mask they take longest.
    let first = (p.blocks - 1u - g % p.blocks) * {{ ROWS }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    let c = p.heads * {{ N }}u;
    let q_at = p.qkv_at / 4u + batch * p.t * 3u * c + head * {{ N }}u;
    let end = {{ "min(p.t, first + " ~ ROWS ~ "u)" if CAUSAL else "p.t" }};
{% for l in range(ROWS // 8) %}
    let q_{{ l }} = q_at + min(first + {{ 8 * l }}u + lane, p.t - 1u) * 3u * c;
{% endfor %}
{% for n in range(NV) %}
    let v_{{ n }} = q_at + 2u * c + {{ vectors(n, N) }};
{% endfor %}
{% for r in range(ROWS) %}
{% for n in range(NV) %}
    var o{{ r }}_{{ n }} = vec4<f32>();
{% endfor %}
    var top{{ r }} = MASKED;
    var sum{{ r }} = 0.0;
{% endfor %}
    for (var at = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }}; at < end; at = at + 32u) {
        let places = vec4<u32>(at + lane) + vec4<u32>(0u, 8u, 16u, 24u);
        let rows = min(places, vec4<u32>(p.t - 1u));
        let k_at = vec4<u32>(q_at + c) + rows * (3u * c);
{% if PADDED %}
        let kept_at = p.keys_at + batch * p.t;
        let keep = (places < vec4<u32>(end)) & ({{ lanes("u32", "keys[kept_at + rows.", "]") }} != vec4<u32>());
{% else %}
        let keep = places < vec4<u32>(end);
{% endif %}
{% for r in range(ROWS) %}
        var s{{ r }} = vec4<f32>();
{% endfor %}
        for (var i = 0u; i < {{ N }}u; i = i + {{ UNROLL }}u) {
{% for u in range(UNROLL) %}
{% for j in range(4) %}
            let x{{ u }}_{{ j }} = {{ load("qkv", "k_at." ~ comp[j] ~ " + i + " ~ u ~ "u") }};
{% endfor %}
{% for n in range(4) %}
            let w{{ u }}_{{ n }} = vec4<f32>({% for j in range(4) %}x{{ u }}_{{ j }}.{{ comp[n] }}{{ "" if loop.last else ", " }}{% endfor %});
{% endfor %}
{% endfor %}
{% for r in range(ROWS) %}
{% if r % 8 == 0 %}
{% for u in range(UNROLL) %}
            let y{{ u }}_{{ r // 8 }} = {{ load("qkv", "q_" ~ (r // 8) ~ " + i + " ~ u ~ "u") }} * p.scale;
{% endfor %}
{% endif %}
{% for u in range(UNROLL) %}{% for n in range(4) %}
            s{{ r }} = fma(vec4<f32>(subgroupBroadcast(y{{ u }}_{{ r // 8 }}.{{ comp[n] }}, {{ r % 8 }}u)), w{{ u }}_{{ n }}, s{{ r }});
{% endfor %}{% endfor %}
{% endfor %}
        }
{% for r in range(ROWS) %}
{% set row = "vec4<u32>(first + " ~ r ~ "u)" %}
        let w{{ r }} = select(vec4<f32>(MASKED), s{{ r }}, keep{{ (" & (places <= " ~ row ~ ")") if CAUSAL else "" }}{{ (" & (places + p.band > " ~ row ~ ")") if BAND else "" }});
        let most{{ r }} = max(max(w{{ r }}.x, w{{ r }}.y), max(w{{ r }}.z, w{{ r }}.w));
        var next{{ r }} = top{{ r }};
{% for l in range(8) %}
        next{{ r }} = max(next{{ r }}, subgroupBroadcast(most{{ r }}, {{ l }}u));
{% endfor %}
        let fade{{ r }} = exp(top{{ r }} - next{{ r }});
        top{{ r }} = next{{ r }};
        var p{{ r }} = select(vec4<f32>(), exp(w{{ r }} - next{{ r }}), w{{ r }} > vec4<f32>(MASKED));
        sum{{ r }} = sum{{ r }} * fade{{ r }} + ((p{{ r }}.x + p{{ r }}.y) + (p{{ r }}.z + p{{ r }}.w));
{% for n in range(NV) %}
        o{{ r }}_{{ n }} = o{{ r }}_{{ n }} * fade{{ r }};
{% endfor %}
{% endfor %}
        for (var begin = at; begin < min(end, at + 32u); begin = begin + 8u) {
{{ accumulate("o", "p", "qkv", "v", "3u * c") }}
        }
    }
    let o_at = p.o_at / 4u + (batch * p.t + first) * c + head * {{ N }}u + lane;
{% for l in range(ROWS // 8) %}
    var lse{{ l }} = 0.0;
{% endfor %}
{% for r in range(ROWS) %}
    {
        var sum = 0.0;
{% for l in range(8) %}
        sum = sum + subgroupBroadcast(sum{{ r }}, {{ l }}u);
{% endfor %}
        // A query that may attend to nothing gives zeros.
        let some = sum > 0.0;
        let factor = select(0.0, 1.0 / sum, some);
        lse{{ r // 8 }} = select(lse{{ r // 8 }}, select(0.0, top{{ r }} + log(sum), some), lane == {{ r % 8 }}u);
        if (first + {{ r }}u < p.t) {
{% for n in range(NV) %}
            {{ "if (lane < " ~ (N - 8 * n) ~ "u) " if 8 * n + 8 > N else "" }}{ o[o_at + {{ r }}u * c + {{ 8 * n }}u] = vec4<{{ T2 }}>(o{{ r }}_{{ n }} * factor); }
{% endfor %}
        }
    }
{% endfor %}
{% for l in range(ROWS // 8) %}
    if (first + {{ 8 * l }}u + lane < p.t) {
        lse[p.lse_at + (batch * p.heads + head) * p.t + first + {{ 8 * l }}u + lane] = lse{{ l }};
    }
{% endfor %}
}
