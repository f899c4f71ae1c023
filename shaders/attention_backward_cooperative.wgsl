// Gradients of attention by cooperative matrices (tensor cores) of SIDE x SIDE, probabilities recomputed from the saved log-sum-exp:
// operands, probabilities and their gradients rounded to f16, sums in f32. A workgroup has a block of rows of its side, a and b,
// which its subgroups keep in matrices, BY rows of them each, and walks over the other side's rows x and y, COLUMNS matrices at a
// time; the next of them are on their way to registers meanwhile. Elements of a x and b y, which WGSL has no way to in a matrix, go
// through workgroup memory (see attention_cooperative.wgsl).
//   query side: a is q, b is dy, x is k, y is v: ds = p (b y - delta), and dq += ds x; also makes delta = sum(dy * o)
//   QUERY off:  a is k, b is v, x is q, y is dy: dv += p y, dk += ds x
// Nothing may return before these operations, so workgroups beyond the end repeat the last one's and write nothing.
enable f16;
enable wgpu_cooperative_matrix;
{% from "attention_matrices.wgsl" import MATRIX, STEPS, ROWS, WIDE, WG, LD, SHARED, SHARE, PAD, VECTORS, EIGHTS, registers, fetch, put, stage, load_rows, products, gather, keep, places, leave, part_of_row %}
{# Scores a x, then b y, side by side; and so probabilities and their gradients. #}
{% set SCORES = 2 * WIDE + PAD %}
{% set PROBS = 2 * WIDE + 8 %}
{% set V = "vec4<" %}
{% set E = ">" %}
{% set PAIRS = true %}
{% set T_Y = T1 if QUERY else T2 %}
{% include "attention_backward_bindings.wgsl" %}
{% include "halves.wgsl" %}
// Probabilities are kept times 2^10, so that small ones are no smaller than 16 bits can say; tuning, whose log-sum-exps are not those
// of its scores, has some beyond 1.
const LARGER = 1024.0;
// The block's own rows at first, then the other side's.
var<workgroup> x: array<vec4<f16>, {{ [ROWS, WIDE]|max * LD // 4 }}>;
var<workgroup> y: array<vec4<f16>, {{ WIDE * LD // 4 }}>;
var<workgroup> scores: array<vec4<f32>, {{ ROWS * SCORES // 4 }}>;
var<workgroup> probabilities: array<vec4<f16>, {{ ROWS * PROBS // 4 }}>;
{% macro fours(name) %}vec4<f32>({{ name }}[{{ name }}_at + inside.x], {{ name }}[{{ name }}_at + inside.y], {{ name }}[{{ name }}_at + inside.z], {{ name }}[{{ name }}_at + inside.w]){% endmacro %}
{# The other side's rows from `at` on, to registers. #}
{% macro fetch_others(at) %}
{{ fetch("x_", "qkv", T1, "k_at" if QUERY else "q_at", "(3u * c)", at, WIDE) }}
{% if QUERY %}
{{ fetch("y_", "qkv", T1, "v_at", "(3u * c)", at, WIDE) }}
{% else %}
{{ fetch("y_", "dy", T2, "dy_at", "c", at, WIDE) }}
{% endif %}
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
    // With a causal mask the last queries and the first keys take longest: those first.
    let first = {{ "(p.blocks - 1u - g % p.blocks)" if QUERY else "(g % p.blocks)" }} * {{ ROWS }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    // In eights, but what is written in fours.
    let c = p.heads * {{ EIGHTS }}u;
    let q_at = p.qkv_at / 8u + batch * p.t * 3u * c + head * {{ EIGHTS }}u;
    let k_at = q_at + c;
    let v_at = k_at + c;
    let dy_at = p.dy_at / 8u + batch * p.t * c + head * {{ EIGHTS }}u;
    let c4 = c * 2u;
    let d_at = p.d_at / 4u + (batch * p.t + first) * 3u * c4 + head * {{ VECTORS }}u;
    let lse_at = p.lse_at + (batch * p.heads + head) * p.t;
    let delta_at = p.delta_at + (batch * p.heads + head) * p.t;
{% if PADDED %}
    let keys_at = p.keys_at + batch * p.t;
{% endif %}
{{ places() }}
    let row_inside = min(row, p.t - 1u);
{% if QUERY %}
    let start = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }};
    let end = {{ "min(p.t, first + " ~ ROWS ~ "u)" if CAUSAL else "p.t" }};
{% else %}
    let start = {{ ("first - first % " ~ WIDE ~ "u") if CAUSAL else "0u" }};
    let end = {{ "min(p.t, first + p.band + " ~ (ROWS - 1) ~ "u)" if BAND else "p.t" }};
{% endif %}
{{ registers("x_", T1, WIDE) }}
{{ registers("y_", T_Y, WIDE) }}
    if (live) {
{{ fetch_others("start") }}
    }
{% if QUERY %}
{{ stage("x", "qkv", T1, "q_at", "(3u * c)", "first", ROWS) }}
    workgroupBarrier();
{{ load_rows("a") }}
    workgroupBarrier();
{{ stage("x", "dy", T2, "dy_at", "c", "first", ROWS) }}
    // Each lane its share of the row's delta.
    let o_at = p.o_at / 4u + (batch * p.t + row_inside) * c4 + head * {{ VECTORS }}u;
    let row_dy_at = dy_at + row_inside * c;
    var part = 0.0;
    for (var i = lane % {{ SHARED }}u; i < {{ EIGHTS }}u; i = i + {{ SHARED }}u) {
{% if T2 == "f16" %}
        let y_ = dy[row_dy_at + i];
        let low_dy = widened(y_.xy);
        let high_dy = widened(y_.zw);
{% else %}
        let low_dy = vec4<f32>(dy[(row_dy_at + i) * 2u]);
        let high_dy = vec4<f32>(dy[(row_dy_at + i) * 2u + 1u]);
{% endif %}
        part = part + dot(low_dy, vec4<f32>(o[o_at + i * 2u])) + dot(high_dy, vec4<f32>(o[o_at + i * 2u + 1u]));
    }
    scores[lane].x = part;
    workgroupBarrier();
{{ load_rows("b") }}
    var row_delta = 0.0;
{% for i in range(SHARED) %}
    row_delta = row_delta + scores[own * {{ SHARED }}u + {{ i }}u].x;
{% endfor %}
    if (live && row < p.t && lane % {{ SHARED }}u == 0u) { delta[delta_at + row] = row_delta; }
    let row_lse = lse[lse_at + row_inside];
{% else %}
{{ stage("x", "qkv", T1, "k_at", "(3u * c)", "first", ROWS) }}
    workgroupBarrier();
{{ load_rows("a") }}
    workgroupBarrier();
{{ stage("x", "qkv", T1, "v_at", "(3u * c)", "first", ROWS) }}
    workgroupBarrier();
{{ load_rows("b") }}
{% if PADDED %}
    let row_keep = keys[keys_at + row_inside] != 0u;
{% endif %}
{% endif %}
{% for m in range(BY) %}
{% for n in range(STEPS) %}
    var da{{ m }}_{{ n }} = {{ MATRIX }}<f32, C>();
{% if not QUERY %}
    var db{{ m }}_{{ n }} = {{ MATRIX }}<f32, C>();
{% endif %}
{% endfor %}
{% endfor %}
    for (var at = start; at < end; at = at + {{ WIDE }}u) {
        workgroupBarrier();
{{ put("x_", "x", 0, T1, WIDE) }}
{{ put("y_", "y", 0, T_Y, WIDE) }}
        workgroupBarrier();
        if (at + {{ WIDE }}u < end) {
{{ fetch_others("(at + " ~ WIDE ~ "u)") }}
        }
{{ products("s", "a", "x") }}
{{ keep("s", 0, COLUMNS, 0, SCORES) }}
{{ products("u", "b", "y") }}
{{ keep("u", 0, COLUMNS, WIDE, SCORES) }}
        workgroupBarrier();
{% for i in range(SHARE) %}
        {
            let four = {{ part_of_row(i) }};
            let other = vec4<u32>(at + four * 4u) + vec4<u32>(0u, 1u, 2u, 3u);
            let inside = min(other, vec4<u32>(p.t - 1u));
{% if QUERY and PADDED %}
            let kept = vec4<u32>(keys[keys_at + inside.x], keys[keys_at + inside.y], keys[keys_at + inside.z], keys[keys_at + inside.w]) != vec4<u32>();
{% endif %}
            let keep = (other < vec4<u32>(p.t)){% if CAUSAL %} & (other {{ "<=" if QUERY else ">=" }} vec4<u32>(row)){% endif %}{% if BAND %} & ({{ "other + p.band > vec4<u32>(row)" if QUERY else "other < vec4<u32>(row + p.band)" }}){% endif %}{% if PADDED %} & {{ "kept" if QUERY else "vec4<bool>(row_keep)" }}{% endif %};
            let s = scores[own * {{ SCORES // 4 }}u + four] * p.scale;
            let u = scores[own * {{ SCORES // 4 }}u + {{ WIDE // 4 }}u + four];
            let e = select(vec4<f32>(), exp(s - {{ "vec4<f32>(row_lse)" if QUERY else fours("lse") }}), keep);
{% if not QUERY %}
            probabilities[own * {{ PROBS // 4 }}u + four] = vec4<f16>(e * LARGER);
{% endif %}
            probabilities[own * {{ PROBS // 4 }}u + {{ WIDE // 4 }}u + four] = vec4<f16>(e * (u - {{ "vec4<f32>(row_delta)" if QUERY else fours("delta") }}));
        }
{% endfor %}
        workgroupBarrier();
{{ gather("da", WIDE, PROBS, "x", 0) }}
{% if not QUERY %}
{{ gather("db", 0, PROBS, "y", 0) }}
{% endif %}
    }
{% if QUERY %}
{{ leave("da", "d", T5, "d_at", "(3u * c4)", SCORES, 2 * COLUMNS, "p.scale") }}
{% else %}
    let dk_at = d_at + c4;
{{ leave("da", "d", T5, "dk_at", "(3u * c4)", SCORES, 2 * COLUMNS, "p.scale") }}
    let dv_at = dk_at + c4;
{{ leave("db", "d", T5, "dv_at", "(3u * c4)", SCORES, 2 * COLUMNS, "(1.0 / LARGER)") }}
{% endif %}
}
