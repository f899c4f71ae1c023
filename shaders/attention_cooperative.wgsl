// Fused attention by cooperative matrices (tensor cores) of SIDE x SIDE: q, k, v and probabilities rounded to f16, sums in f32. A
// workgroup of SUBGROUPS subgroups has a block of queries, each subgroup BY matrices of them, and walks over the keys, COLUMNS
// matrices at a time. WGSL has no way to an element of such a matrix, so scores go through workgroup memory, and results could not
// be rescaled when a larger score comes up. Hence two passes over the keys: one finds each row's log-sum-exp from the scores alone,
// one makes the scores again, final probabilities of them, and adds up their products with v in matrices that stay in registers.
//   q, k and v are thirds of the rows of qkv, [B,T,3C], D wide a head, D % SIDE == 0; lse [B,heads,T] is the scores' log-sum-exp
// Nothing may return before these operations, so workgroups beyond the end repeat the last one's and write nothing.
enable f16;
enable wgpu_cooperative_matrix;
{% from "attention_matrices.wgsl" import MATRIX, STEPS, ROWS, WIDE, WG, LD, SHARE, VECTORS, stage, load_rows, products, places, leave, part_of_row %}
{% set SCORES = WIDE + 4 %}
{% set PROBS = WIDE + 8 %}
{% include "attention_bindings.wgsl" %}
// Probabilities are kept times 2^14, so that small ones are no smaller than 16 bits can say.
const LARGER = 16384.0;
// Queries, then keys and values.
var<workgroup> x: array<vec4<f16>, {{ [ROWS, WIDE]|max * LD // 4 }}>;
var<workgroup> scores: array<vec4<f32>, {{ ROWS * SCORES // 4 }}>;
var<workgroup> probabilities: array<vec4<f16>, {{ ROWS * PROBS // 4 }}>;
{# The scores of a block of keys, to workgroup memory. #}
{% macro make_scores() %}
        workgroupBarrier();
{{ stage("x", "qkv", "k_at", "(3u * c)", "at", WIDE) }}
        workgroupBarrier();
{{ products("s", "q", "x") }}
{% for m in range(BY) %}
{% for n in range(COLUMNS) %}
        {
            let place = (rows_at + {{ m * SIDE }}u) * {{ SCORES // 4 }}u + {{ n * SIDE // 4 }}u;
            coopStoreT(s{{ m }}_{{ n }}, &scores[place], {{ SCORES // 4 }}u);
        }
{% endfor %}
{% endfor %}
        workgroupBarrier();
{% endmacro %}
{# Four of a lane's scores: of which keys, and w, masked. #}
{% macro four_scores(i) %}
            let four = {{ part_of_row(i) }};
            let key = vec4<u32>(at + four * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
{% if PADDED %}
            let inside = min(key, vec4<u32>(p.t - 1u));
            let kept = vec4<u32>(keys[keys_at + inside.x], keys[keys_at + inside.y], keys[keys_at + inside.z], keys[keys_at + inside.w]) != vec4<u32>();
{% endif %}
            let keep = (key < vec4<u32>(p.t)){{ " & (key <= vec4<u32>(row))" if CAUSAL else "" }}{{ " & (key + p.band > vec4<u32>(row))" if BAND else "" }}{{ " & kept" if PADDED else "" }};
            let w = select(vec4<f32>(MASKED), scores[own * {{ SCORES // 4 }}u + four] * p.scale, keep);
{% endmacro %}

@compute @workgroup_size({{ WG }})
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    // Not by a function: naga takes what functions return for something that differs from lane to lane.
    let number = id.x + id.y * count.x;
    let live = number < p.groups;
    let g = min(number, p.groups - 1u);
    // The last blocks first: with a causal mask they take longest.
    let first = (p.blocks - 1u - g % p.blocks) * {{ ROWS }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    // In vectors.
    let c = p.heads * {{ VECTORS }}u;
    let q_at = p.qkv_at / 4u + batch * p.t * 3u * c + head * {{ VECTORS }}u;
    let k_at = q_at + c;
    let v_at = k_at + c;
{% if PADDED %}
    let keys_at = p.keys_at + batch * p.t;
{% endif %}
    let start = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }};
    let end = {{ "min(p.t, first + " ~ ROWS ~ "u)" if CAUSAL else "p.t" }};
{{ places() }}
{{ stage("x", "qkv", "q_at", "(3u * c)", "first", ROWS) }}
    workgroupBarrier();
{{ load_rows("q") }}
    // Of the lane's own share of its row.
    var top = MASKED;
    var sum = 0.0;
    for (var at = start; at < end; at = at + {{ WIDE }}u) {
{{ make_scores() }}
{% for i in range(SHARE) %}
        {
{{ four_scores(i) }}
            let next = max(top, max(max(w.x, w.y), max(w.z, w.w)));
            let e = select(vec4<f32>(), exp(w - next), w > vec4<f32>(MASKED));
            sum = sum * exp(top - next) + ((e.x + e.y) + (e.z + e.w));
            top = next;
        }
{% endfor %}
    }
    workgroupBarrier();
    scores[lane] = vec4<f32>(top, sum, 0.0, 0.0);
    workgroupBarrier();
{% for i in range(WG // ROWS) %}
    let share{{ i }} = scores[own * {{ WG // ROWS }}u + {{ i }}u];
{% endfor %}
    var most = MASKED;
    var all = 0.0;
{% for i in range(WG // ROWS) %}
    most = max(most, share{{ i }}.x);
{% endfor %}
{% for i in range(WG // ROWS) %}
    all = all + share{{ i }}.y * exp(share{{ i }}.x - most);
{% endfor %}
    // A query that may attend to nothing gives zeros.
    let total = select(0.0, most + log(all), all > 0.0);
    if (live && row < p.t && lane % {{ WG // ROWS }}u == 0u) { lse[p.lse_at + (batch * p.heads + head) * p.t + row] = total; }
{% for m in range(BY) %}
{% for n in range(STEPS) %}
    var o{{ m }}_{{ n }} = {{ MATRIX }}<f32, C>();
{% endfor %}
{% endfor %}
    for (var at = start; at < end; at = at + {{ WIDE }}u) {
{{ make_scores() }}
{{ stage("x", "qkv", "v_at", "(3u * c)", "at", WIDE) }}
{% for i in range(SHARE) %}
        {
{{ four_scores(i) }}
            probabilities[own * {{ PROBS // 4 }}u + four] = vec4<f16>(select(vec4<f32>(), exp(w - total) * LARGER, w > vec4<f32>(MASKED)));
        }
{% endfor %}
        workgroupBarrier();
{% for k in range(COLUMNS) %}
        {
{% for m in range(BY) %}
            let a{{ m }} = coopLoadT<{{ MATRIX }}<f16, A>>(&probabilities[(rows_at + {{ m * SIDE }}u) * {{ PROBS // 4 }}u + {{ k * SIDE // 4 }}u], {{ PROBS // 4 }}u);
{% endfor %}
{% for n in range(STEPS) %}
            let b{{ n }} = coopLoadT<{{ MATRIX }}<f16, B>>(&x[{{ k * SIDE * LD // 4 + n * SIDE // 4 }}], {{ LD // 4 }}u);
{% for m in range(BY) %}
            o{{ m }}_{{ n }} = coopMultiplyAdd(a{{ m }}, b{{ n }}, o{{ m }}_{{ n }});
{% endfor %}
{% endfor %}
        }
{% endfor %}
    }
    let o_at = p.o_at / 4u + (batch * p.t + first) * c + head * {{ VECTORS }}u;
{{ leave("o", "o", T2, "o_at", "c", SCORES, COLUMNS, "(1.0 / LARGER)") }}
}
