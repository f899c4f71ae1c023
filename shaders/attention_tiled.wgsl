// Fused attention through workgroup memory, for real GPUs (Dao, "FlashAttention-2", 2023). A workgroup has a block of ROWS queries
// and walks over the keys, COLUMNS at a time: k is staged and the scores are made in tiles of registers, then v takes k's place,
// the probabilities go through workgroup memory, and their product with v is made in tiles of registers. Blocks of keys that the
// mask rules out, beyond the diagonal or before the band, are never visited. Operands lie row by row, as they are stored: both products
// read vectors along a row.
//   SUBGROUP: probabilities stay in registers (see attention_tile.wgsl), so that a step needs barriers for k and v alone
//   BOTH, with SUBGROUP only: v has a tile of its own, and both are staged at once
//   q, k and v are thirds of the rows of qkv, [B,T,3C], D wide a head, D % 4 == 0; lse [B,heads,T] is the scores' log-sum-exp
{% include "group.wgsl" %}
{% from "attention_tile.wgsl" import N, TX, WG, GROUPS, COLUMN_VECTORS, comp, stage, scores, gather, row_max, row_sum, places, store %}
{% include "attention_bindings.wgsl" %}
var<workgroup> queries: array<vec4<f32>, {{ ROWS * N }}>;
// Keys, then values.
var<workgroup> others: array<vec4<f32>, {{ COLUMN_VECTORS }}>;
{% set VALUES = "values" if BOTH else "others" %}
{% if BOTH %}
var<workgroup> values: array<vec4<f32>, {{ COLUMN_VECTORS }}>;
{% endif %}
{% if not SUBGROUP %}
// Probabilities; before them, and at the end, a number for each row and each lane beside others, which a row's lanes exchange.
var<workgroup> t: array<vec4<f32>, {{ ROWS * TX }}>;
{% macro exchange(name) %}
{% for r in range(TM) %}
        {
            let place = (ty * {{ TM }}u + {{ r }}u) * {{ TX }}u + tx;
            t[place / 4u][place % 4u] = {{ name }}{{ r }};
        }
{% endfor %}
{% endmacro %}
{% endif %}
{% macro stage_values() %}
{{ stage(VALUES, "qkv", "v_at", "(3u * c)", "at", "p.t", COLUMNS, true, "") }}
{% endmacro %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    // The last blocks first: with a causal mask they take longest.
    let first = (p.blocks - 1u - g % p.blocks) * {{ ROWS }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    // In vectors.
    let c = p.heads * {{ N }}u;
    let q_at = p.qkv_at / 4u + batch * p.t * 3u * c + head * {{ N }}u;
    let k_at = q_at + c;
    let v_at = k_at + c;
    let end = {{ "min(p.t, first + " ~ ROWS ~ "u)" if CAUSAL else "p.t" }};
{{ places() }}
{{ stage("queries", "qkv", "q_at", "(3u * c)", "first", "p.t", ROWS, false, " * p.scale") }}
{% for r in range(TM) %}
    let row{{ r }} = first + ty * {{ TM }}u + {{ r }}u;
    var top{{ r }} = MASKED;
    // Of the lane's own keys, until the end.
    var sum{{ r }} = 0.0;
{% for n in range(GROUPS) %}
    var o{{ r }}_{{ n }} = vec4<f32>();
{% endfor %}
{% endfor %}
    for (var at = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }}; at < end; at = at + {{ COLUMNS }}u) {
        workgroupBarrier();
{{ stage("others", "qkv", "k_at", "(3u * c)", "at", "p.t", COLUMNS, true, "") }}
{% if BOTH %}
{{ stage_values() }}
{% endif %}
        workgroupBarrier();
{% for r in range(TM) %}
        var s{{ r }} = vec4<f32>();
{% endfor %}
{{ scores("s", "queries", "others") }}
        let key = vec4<u32>(at + tx * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
{% if PADDED %}
        let keys_at = p.keys_at + batch * p.t;
        let inside = min(key, vec4<u32>(p.t - 1u));
        let keep = (key < vec4<u32>(p.t)) & (vec4<u32>(keys[keys_at + inside.x], keys[keys_at + inside.y], keys[keys_at + inside.z], keys[keys_at + inside.w]) != vec4<u32>());
{% else %}
        let keep = key < vec4<u32>(p.t);
{% endif %}
{% for r in range(TM) %}
        s{{ r }} = select(vec4<f32>(MASKED), s{{ r }}, keep{{ " & (key <= vec4<u32>(row" ~ r ~ "))" if CAUSAL else "" }}{{ " & (key + p.band > vec4<u32>(row" ~ r ~ "))" if BAND else "" }});
        let most{{ r }} = max(max(s{{ r }}.x, s{{ r }}.y), max(s{{ r }}.z, s{{ r }}.w));
{% endfor %}
{% if not SUBGROUP %}
{{ exchange("most") }}
{% endif %}
{% if not BOTH %}
        workgroupBarrier();
{{ stage_values() }}
{% endif %}
{% for r in range(TM) %}
        {
{% if SUBGROUP %}
            var most = most{{ r }};
{{ row_max("most") }}
            let next = max(top{{ r }}, most);
{% else %}
            var most = t[(ty * {{ TM }}u + {{ r }}u) * {{ TX // 4 }}u];
{% for i in range(1, TX // 4) %}
            most = max(most, t[(ty * {{ TM }}u + {{ r }}u) * {{ TX // 4 }}u + {{ i }}u]);
{% endfor %}
            let next = max(top{{ r }}, max(max(most.x, most.y), max(most.z, most.w)));
{% endif %}
            let fade = exp(top{{ r }} - next);
            s{{ r }} = select(vec4<f32>(), exp(s{{ r }} - next), s{{ r }} > vec4<f32>(MASKED));
            sum{{ r }} = sum{{ r }} * fade + ((s{{ r }}.x + s{{ r }}.y) + (s{{ r }}.z + s{{ r }}.w));
{% for n in range(GROUPS) %}
            o{{ r }}_{{ n }} = o{{ r }}_{{ n }} * fade;
{% endfor %}
            top{{ r }} = next;
        }
{% endfor %}
{% if not SUBGROUP %}
        workgroupBarrier();
{% for r in range(TM) %}
        t[(ty * {{ TM }}u + {{ r }}u) * {{ TX }}u + tx] = s{{ r }};
{% endfor %}
{% endif %}
{% if not BOTH %}
        workgroupBarrier();
{% endif %}
{{ gather("o", VALUES, "s") }}
    }
{% if SUBGROUP %}
{% for r in range(TM) %}
{{ row_sum("sum" ~ r) }}
{% endfor %}
{% else %}
    workgroupBarrier();
{{ exchange("sum") }}
    workgroupBarrier();
{% endif %}
{% for r in range(TM) %}
    if (row{{ r }} < p.t) {
{% if SUBGROUP %}
        let sum = sum{{ r }};
{% else %}
        var sums = t[(ty * {{ TM }}u + {{ r }}u) * {{ TX // 4 }}u];
{% for i in range(1, TX // 4) %}
        sums = sums + t[(ty * {{ TM }}u + {{ r }}u) * {{ TX // 4 }}u + {{ i }}u];
{% endfor %}
        let sum = (sums.x + sums.y) + (sums.z + sums.w);
{% endif %}
        // A query that may attend to nothing gives zeros.
        let some = sum > 0.0;
        let factor = select(0.0, 1.0 / sum, some);
        let to = p.o_at / 4u + (batch * p.t + row{{ r }}) * c + head * {{ N }}u;
{{ store("o", T2, "to", "o", r, "factor") }}
        if (tx == 0u) { lse[p.lse_at + (batch * p.heads + head) * p.t + row{{ r }}] = select(0.0, top{{ r }} + log(sum), some); }
    }
{% endfor %}
}
