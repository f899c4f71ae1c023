// Gradients of attention through workgroup memory, for real GPUs (Dao, "FlashAttention-2", 2023, algorithm 2), probabilities
// recomputed from the saved log-sum-exp, without atomics. The two sides mirror each other. A workgroup has a block of ROWS rows of
// its side, a and b, and walks over the other side's rows x and y, COLUMNS at a time; scores a x and b y, and all sums, are tiles
// of registers (see attention_tiled.wgsl, which operands are laid out as in):
//   query side: a is q, b is dy, x is k, y is v: ds = p (b y - delta), and dq += ds x; also makes delta = sum(dy * o)
//   QUERY off:  a is k, b is v, x is q, y is dy: dv += p y, dk += ds x
//   BOTH: x and y have a tile each; else one takes the other's place, and on the key side x is staged twice
//   SUBGROUP: probabilities and their gradients stay in registers (see attention_tile.wgsl): barriers are for x and y alone
{% include "group.wgsl" %}
{% from "attention_tile.wgsl" import N, TX, WG, GROUPS, COLUMN_VECTORS, comp, stage, scores, gather, row_sum, places, store %}
{% set V = "vec4<" %}
{% set E = ">" %}
{% include "attention_backward_bindings.wgsl" %}
var<workgroup> a: array<vec4<f32>, {{ ROWS * N }}>;
var<workgroup> b: array<vec4<f32>, {{ ROWS * N }}>;
var<workgroup> x: array<vec4<f32>, {{ COLUMN_VECTORS }}>;
{% if BOTH %}
var<workgroup> y: array<vec4<f32>, {{ COLUMN_VECTORS }}>;
{% endif %}
{% if not SUBGROUP %}
// Probabilities, or their gradients.
var<workgroup> t: array<vec4<f32>, {{ ROWS * TX }}>;
{% endif %}
{% set Y = "y" if BOTH else "x" %}
{% macro stage_x() %}
{{ stage("x", "qkv", "k_at" if QUERY else "q_at", "(3u * c)", "at", "p.t", COLUMNS, true, "") }}
{% endmacro %}
{% macro stage_y() %}
{% if QUERY %}
{{ stage(Y, "qkv", "v_at", "(3u * c)", "at", "p.t", COLUMNS, true, "") }}
{% else %}
{{ stage(Y, "dy", "dy_at", "c", "at", "p.t", COLUMNS, true, "") }}
{% endif %}
{% endmacro %}
{# Once nothing reads what is there. #}
{% macro put(name) %}
{% if not SUBGROUP %}
{% for r in range(TM) %}
        t[(ty * {{ TM }}u + {{ r }}u) * {{ TX }}u + tx] = {{ name }}{{ r }};
{% endfor %}
{% endif %}
{% endmacro %}
{# Where nothing was staged, and only what was put needs it. #}
{% macro barrier() %}
{% if not SUBGROUP %}
        workgroupBarrier();
{% endif %}
{% endmacro %}
{# Probabilities from scores, s to s; then their gradients, u to u. #}
{% macro probabilities() %}
{% for r in range(TM) %}
        s{{ r }} = select(vec4<f32>(), exp(s{{ r }} - {{ "vec4<f32>(lse" ~ r ~ ")" if QUERY else "lses" }}), keep{% if CAUSAL %} & (other {{ "<=" if QUERY else ">=" }} vec4<u32>(row{{ r }})){% endif %}{% if BAND %} & ({{ "other + p.band > vec4<u32>(row" ~ r ~ ")" if QUERY else "other < vec4<u32>(row" ~ r ~ " + p.band)" }}){% endif %}{% if PADDED and not QUERY %} & vec4<bool>(keep{{ r }}){% endif %});
{% endfor %}
{% endmacro %}
{% macro gradients() %}
{% for r in range(TM) %}
        u{{ r }} = s{{ r }} * (u{{ r }} - {{ "vec4<f32>(delta" ~ r ~ ")" if QUERY else "deltas" }});
{% endfor %}
{% endmacro %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    // With a causal mask the last queries and the first keys take longest: those first.
    let first = {{ "(p.blocks - 1u - g % p.blocks)" if QUERY else "(g % p.blocks)" }} * {{ ROWS }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    // In vectors.
    let c = p.heads * {{ N }}u;
    let q_at = p.qkv_at / 4u + batch * p.t * 3u * c + head * {{ N }}u;
    let k_at = q_at + c;
    let v_at = k_at + c;
    let dy_at = p.dy_at / 4u + batch * p.t * c + head * {{ N }}u;
    let d_at = p.d_at / 4u + batch * p.t * 3u * c + head * {{ N }}u;
    let lse_at = p.lse_at + (batch * p.heads + head) * p.t;
    let delta_at = p.delta_at + (batch * p.heads + head) * p.t;
{{ places() }}
{{ stage("a", "qkv", "q_at" if QUERY else "k_at", "(3u * c)", "first", "p.t", ROWS, false, " * p.scale") }}
{% if QUERY %}
{{ stage("b", "dy", "dy_at", "c", "first", "p.t", ROWS, false, "") }}
    workgroupBarrier();
{% if not SUBGROUP %}
    // Through the tile of scores, from one lane a row to the row's lanes.
    for (var row = lane; row < {{ ROWS }}u; row = row + {{ WG }}u) {
        let o_at = p.o_at / 4u + (batch * p.t + min(first + row, p.t - 1u)) * c + head * {{ N }}u;
        var sum = 0.0;
        for (var i = 0u; i < {{ N }}u; i = i + 1u) {
            sum = sum + dot(b[row * {{ N }}u + i], vec4<f32>(o[o_at + i]));
        }
        if (first + row < p.t) { delta[delta_at + first + row] = sum; }
        t[row].x = sum;
    }
    workgroupBarrier();
{% endif %}
{% else %}
{{ stage("b", "qkv", "v_at", "(3u * c)", "first", "p.t", ROWS, false, "") }}
{% endif %}
{% for r in range(TM) %}
    let row{{ r }} = first + ty * {{ TM }}u + {{ r }}u;
{% if QUERY %}
{% if SUBGROUP %}
    var delta{{ r }} = 0.0;
    for (var i = tx; i < {{ N }}u; i = i + {{ TX }}u) {
        let o_at = p.o_at / 4u + (batch * p.t + min(row{{ r }}, p.t - 1u)) * c + head * {{ N }}u;
        delta{{ r }} = delta{{ r }} + dot(b[(ty * {{ TM }}u + {{ r }}u) * {{ N }}u + i], vec4<f32>(o[o_at + i]));
    }
{{ row_sum("delta" ~ r) }}
    if (tx == 0u && row{{ r }} < p.t) { delta[delta_at + row{{ r }}] = delta{{ r }}; }
{% else %}
    let delta{{ r }} = t[ty * {{ TM }}u + {{ r }}u].x;
{% endif %}
    let lse{{ r }} = lse[lse_at + min(row{{ r }}, p.t - 1u)];
{% elif PADDED %}
    let keep{{ r }} = keys[p.keys_at + batch * p.t + min(row{{ r }}, p.t - 1u)] != 0u;
{% endif %}
{% for n in range(GROUPS) %}
    var da{{ r }}_{{ n }} = vec4<f32>();
{% if not QUERY %}
    var db{{ r }}_{{ n }} = vec4<f32>();
{% endif %}
{% endfor %}
{% endfor %}
{% if QUERY %}
    let start = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }};
    let end = {{ "min(p.t, first + " ~ ROWS ~ "u)" if CAUSAL else "p.t" }};
{% else %}
    let start = {{ ("first - first % " ~ COLUMNS ~ "u") if CAUSAL else "0u" }};
    let end = {{ "min(p.t, first + p.band + " ~ (ROWS - 1) ~ "u)" if BAND else "p.t" }};
{% endif %}
    for (var at = start; at < end; at = at + {{ COLUMNS }}u) {
        let other = vec4<u32>(at + tx * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
        let inside = min(other, vec4<u32>(p.t - 1u));
{% if QUERY and PADDED %}
        let keys_at = p.keys_at + batch * p.t;
        let keep = (other < vec4<u32>(p.t)) & (vec4<u32>(keys[keys_at + inside.x], keys[keys_at + inside.y], keys[keys_at + inside.z], keys[keys_at + inside.w]) != vec4<u32>());
{% else %}
        let keep = other < vec4<u32>(p.t);
{% endif %}
{% if not QUERY %}
        let lses = vec4<f32>(lse[lse_at + inside.x], lse[lse_at + inside.y], lse[lse_at + inside.z], lse[lse_at + inside.w]);
        let deltas = vec4<f32>(delta[delta_at + inside.x], delta[delta_at + inside.y], delta[delta_at + inside.z], delta[delta_at + inside.w]);
{% endif %}
{% for r in range(TM) %}
        var s{{ r }} = vec4<f32>();
        var u{{ r }} = vec4<f32>();
{% endfor %}
        workgroupBarrier();
{% if BOTH %}
{{ stage_x() }}
{{ stage_y() }}
        workgroupBarrier();
{{ scores("s", "a", "x") }}
{{ probabilities() }}
{{ scores("u", "b", "y") }}
{{ gradients() }}
{% if not QUERY %}
{{ put("s") }}
{{ barrier() }}
{{ gather("db", "y", "s") }}
{{ barrier() }}
{% endif %}
{{ put("u") }}
{{ barrier() }}
{% elif QUERY %}
{{ stage_y() }}
        workgroupBarrier();
{{ scores("u", "b", "x") }}
        workgroupBarrier();
{{ stage_x() }}
        workgroupBarrier();
{{ scores("s", "a", "x") }}
{{ probabilities() }}
{{ gradients() }}
{{ put("u") }}
{{ barrier() }}
{% else %}
{{ stage_x() }}
        workgroupBarrier();
{{ scores("s", "a", "x") }}
{{ probabilities() }}
{{ put("s") }}
        workgroupBarrier();
{{ stage_y() }}
        workgroupBarrier();
{{ scores("u", "b", "x") }}
{{ gradients() }}
{{ gather("db", "x", "s") }}
        workgroupBarrier();
{{ put("u") }}
{{ stage_x() }}
        workgroupBarrier();
{% endif %}
{{ gather("da", "x", "u") }}
    }
{% for r in range(TM) %}
    if (row{{ r }} < p.t) {
        let to = d_at + row{{ r }} * 3u * c{{ "" if QUERY else " + c" }};
{{ store("d", T5, "to", "da", r, "p.scale") }}
{% if not QUERY %}
        let to_v = to + c;
{{ store("d", T5, "to_v", "db", r, "1.0") }}
{% endif %}
    }
{% endfor %}
}
