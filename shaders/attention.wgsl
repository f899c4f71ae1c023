// Fused attention with an online softmax (Dao et al., "FlashAttention", 2022). A lane holds ROWS query rows in named
// registers and the workgroup walks over the keys together, KEYS at a time: no workgroup memory, no barrier, no T x T
// matrix. Keys beyond the causal diagonal of the block, or before its band, are never visited. Loads of k and v are uniform; with SPREAD, where
// a workgroup is a subgroup of KEYS lanes, each lane loads one key's instead and broadcasts it (see matmul_direct.wgsl).
//   plain: q, k and v are thirds of the rows of qkv, [B,T,3C]
//   CACHE: query t of batch b stands at positions[b] + t. The keys before positions[b] are in the rows of cache, [B,capacity,2C],
//   as k, then v; the others come from qkv, and are put into the cache for later.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
{% set N = (D + 3) // 4 %}
{% set UNITS = N if VEC else D %}
{% set comp = ["x", "y", "z", "w"] %}
{# What a load brings in: a register for each key, or with SPREAD one whose lanes are the keys. #}
{% set LOADS = 1 if SPREAD else KEYS %}
{% macro of(name, j, part) %}{% if SPREAD %}subgroupBroadcast({{ name }}0{{ part }}, {{ j }}u){% else %}{{ name }}{{ j }}{{ part }}{% endif %}{% endmacro %}
struct Params {
    groups: u32, t: u32, heads: u32, blocks: u32, capacity: u32, scale: f32,
{% if BAND %}
    band: u32,
{% endif %}
    qkv_at: u32, o_at: u32,
{% if CACHE %}
    cache_at: u32, positions_at: u32,
{% else %}
    lse_at: u32,
{% if PADDED %}
    keys_at: u32,
{% endif %}
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> qkv: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read_write> o: array<{{ V ~ T2 ~ E }}>;
{% if CACHE %}
@group(0) @binding(3) var<storage, read_write> cache: array<{{ T }}>;
@group(0) @binding(4) var<storage, read> positions: array<u32>;
{% else %}
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
{% if PADDED %}
@group(0) @binding(4) var<storage, read> keys: array<u32>;
{% endif %}
{% endif %}
// The score of a key that may not be attended.
const MASKED = -3.0e38;
{# Components i*4 .. of a row that starts at `at` (in units of T), zeros beyond the head's width. #}
{% macro load(name, at, i) %}{% if VEC %}vec4<f32>({{ name }}[{{ at }} + {{ i }}u]){% else %}vec4<f32>({% for c in range(4) %}{{ ("f32(" ~ name ~ "[" ~ at ~ " + " ~ (4 * i + c) ~ "u])") if 4 * i + c < D else "0.0" }}{{ "" if loop.last else ", " }}{% endfor %}){% endif %}{% endmacro %}

{# Goes over the rows before `end` of `source`, keys and values of which begin at `start`. #}
{% macro visit(source, start, stride, end, causal) %}
    for (var at = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }}; at < {{ end }}; at = at + {{ KEYS }}u) {
{% for j in range(LOADS) %}
        let place{{ j }} = at + {{ "lane" if SPREAD else j ~ "u" }};
        let key{{ j }} = min(place{{ j }}, {{ end }} - 1u);
        let k{{ j }} = {{ start }} + key{{ j }} * {{ stride }};
        let v{{ j }} = k{{ j }} + c / {{ W }};
        let keep{{ j }} = {{ "select(0u, keys[p.keys_at + batch * p.t + key" ~ j ~ "]" if PADDED else "select(0u, 1u" }}, place{{ j }} < {{ end }});
{% endfor %}
{% for j in range(KEYS) %}
        let keep_{{ j }} = {{ of("keep", j, "") }} != 0u;
{% for r in range(ROWS) %}
        var s{{ r }}_{{ j }} = 0.0;
{% endfor %}
{% endfor %}
{% for i in range(N) %}
        {
{% for j in range(LOADS) %}
            let x{{ j }} = {{ load(source, "k" ~ j, i) }};
{% endfor %}
{% for j in range(KEYS) %}{% for n in range(4) %}{% if 4 * i + n < D %}
            let x_{{ j }}_{{ n }} = {{ of("x", j, "." ~ comp[n]) }};
{% for r in range(ROWS) %}
            s{{ r }}_{{ j }} = fma(q{{ r }}_{{ i }}.{{ comp[n] }}, x_{{ j }}_{{ n }}, s{{ r }}_{{ j }});
{% endfor %}
{% endif %}{% endfor %}{% endfor %}
        }
{% endfor %}
{% for r in range(ROWS) %}
        var next{{ r }} = top{{ r }};
{% for j in range(KEYS) %}
        let w{{ r }}_{{ j }} = select(MASKED, s{{ r }}_{{ j }}, keep_{{ j }}{{ (" && at + " ~ j ~ "u <= row" ~ r) if causal else "" }}{{ (" && at + " ~ j ~ "u + p.band > row" ~ r) if BAND else "" }});
        next{{ r }} = max(next{{ r }}, w{{ r }}_{{ j }});
{% endfor %}
        let fade{{ r }} = exp(top{{ r }} - next{{ r }});
        sum{{ r }} = sum{{ r }} * fade{{ r }};
{% for j in range(KEYS) %}
        let p{{ r }}_{{ j }} = select(0.0, exp(w{{ r }}_{{ j }} - next{{ r }}), w{{ r }}_{{ j }} > MASKED);
        sum{{ r }} = sum{{ r }} + p{{ r }}_{{ j }};
{% endfor %}
        top{{ r }} = next{{ r }};
{% endfor %}
{% for i in range(N) %}
        {
{% for j in range(LOADS) %}
            let x{{ j }} = {{ load(source, "v" ~ j, i) }};
{% endfor %}
{% for r in range(ROWS) %}
            o{{ r }}_{{ i }} = o{{ r }}_{{ i }} * fade{{ r }};
{% endfor %}
{% for j in range(KEYS) %}
            let x_{{ j }} = {{ of("x", j, "") }};
{% for r in range(ROWS) %}
            o{{ r }}_{{ i }} = fma(vec4<f32>(p{{ r }}_{{ j }}), x_{{ j }}, o{{ r }}_{{ i }});
{% endfor %}
{% endfor %}
        }
{% endfor %}
    }
{% endmacro %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let first = (g % p.blocks) * {{ ROWS * WG }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    let c = p.heads * {{ D }}u;
    let q_at = (p.qkv_at + batch * p.t * 3u * c + head * {{ D }}u) / {{ W }};
    let q_stride = 3u * c / {{ W }};
{% if CACHE %}
    let cache_at = (p.cache_at + batch * p.capacity * 2u * c + head * {{ D }}u) / {{ W }};
    let cache_stride = 2u * c / {{ W }};
    // A position beyond the cache attends to all of it.
    let position = min(positions[p.positions_at + batch], p.capacity);
    // Rows that find a place in it.
    let placed = min(p.t, p.capacity - position);
    let end = min(placed, first + {{ ROWS * WG }}u);
    // Nobody reads these places before the next dispatch.
    let own = min(p.t, first + {{ ROWS * WG }}u);
    for (var row = first; row < min(own, placed); row = row + 1u) {
        let source = q_at + row * q_stride + c / {{ W }};
        let to = cache_at + (position + row) * cache_stride;
        for (var i = lane; i < {{ UNITS }}u; i = i + {{ WG }}u) {
            cache[to + i] = {{ T }}(qkv[source + i]);
            cache[to + c / {{ W }} + i] = {{ T }}(qkv[source + c / {{ W }} + i]);
        }
    }
{% else %}
    let end = {{ "min(p.t, first + " ~ (ROWS * WG) ~ "u)" if CAUSAL else "p.t" }};
{% endif %}
    let kv_at = q_at + c / {{ W }};
    let kv_stride = q_stride;
{% for r in range(ROWS) %}
    let row{{ r }} = first + {{ r * WG }}u + lane;
    let q{{ r }} = q_at + min(row{{ r }}, p.t - 1u) * q_stride;
{% for i in range(N) %}
    let q{{ r }}_{{ i }} = {{ load("qkv", "q" ~ r, i) }} * p.scale;
    var o{{ r }}_{{ i }} = vec4<f32>();
{% endfor %}
    var top{{ r }} = MASKED;
    var sum{{ r }} = 0.0;
{% endfor %}
{% if CACHE %}
{{ visit("cache", "cache_at", "cache_stride", "position", false) }}
{% endif %}
{{ visit("qkv", "kv_at", "kv_stride", "end", CAUSAL) }}
{% for r in range(ROWS) %}
    if (row{{ r }} < p.t) {
        // A query that may attend to nothing gives zeros.
        let some = sum{{ r }} > 0.0;
        let factor = select(0.0, 1.0 / sum{{ r }}, some);
        let to = (p.o_at + (batch * p.t + row{{ r }}) * c + head * {{ D }}u) / {{ W }};
{% for i in range(N) %}
{% if VEC %}
        o[to + {{ i }}u] = vec4<{{ T2 }}>(o{{ r }}_{{ i }} * factor);
{% else %}
{% for n in range(4) %}{% if 4 * i + n < D %}
        o[to + {{ 4 * i + n }}u] = {{ T2 }}(o{{ r }}_{{ i }}.{{ comp[n] }} * factor);
{% endif %}{% endfor %}
{% endif %}
{% endfor %}
{% if not CACHE %}
        lse[p.lse_at + (batch * p.heads + head) * p.t + row{{ r }}] = select(0.0, top{{ r }} + log(sum{{ r }}), some);
{% endif %}
    }
{% endfor %}
}
