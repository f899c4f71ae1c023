// Fused attention by cooperative matrices (tensor cores) of SIDE x SIDE: q, k, v and probabilities rounded to f16, sums in f32. A
// workgroup of SUBGROUPS subgroups has a block of queries, each subgroup BY matrices of them, and walks over the keys, COLUMNS
// matrices at a time, in one pass with an online softmax (Milakov & Gimelshein, "Online normalizer calculation for softmax", 2018).
// WGSL has no way to an element of such a matrix: scores go through workgroup memory, and so would results whenever they are to be
// rescaled, since a row has a score larger than all before. Hence they are rescaled seldom (as in FlashAttention-4): a row's
// probabilities are 2^(score - reference), where the reference follows the largest score only when probabilities might no longer fit
// in 16 bits. The next keys and values are on their way to registers meanwhile.
//   q, k and v are thirds of the rows of qkv, [B,T,3C], D wide a head, D % SIDE == 0; lse [B,heads,T] is the scores' log-sum-exp
// Nothing may return before these operations, so workgroups beyond the end repeat the last one's and write nothing.
enable f16;
enable wgpu_cooperative_matrix;
{% from "attention_matrices.wgsl" import MATRIX, STEPS, ROWS, WIDE, WG, LD, SHARED, SHARE, PAD, VECTORS, EIGHTS, registers, fetch, put, stage, load_rows, products, gather, keep, places, leave, part_of_row %}
{% set SCORES = WIDE + PAD %}
{% set PROBS = WIDE + 8 %}
{% set PAIRS = true %}
{% include "attention_bindings.wgsl" %}
{% include "halves.wgsl" %}
const LOG2E = 1.4426950408889634;
// A reference is set 9 below the largest score, so that a row's largest probability is 2^9 at first, and small ones are no smaller
// than 16 bits can say. It stays as long as none is larger than 2^15. Before a row has a key it is below all scores, but so far above
// MASKED that a masked key's probability is 0.
const BELOW = 9.0;
const MOST = 15.0;
const LOWEST = -1.0e38;
// Queries at first, then keys and, behind them, values.
var<workgroup> x: array<vec4<f16>, {{ [ROWS, 2 * WIDE]|max * LD // 4 }}>;
// A row's padding takes what its results are divided by at the end.
var<workgroup> scores: array<vec4<f32>, {{ ROWS * SCORES // 4 }}>;
var<workgroup> probabilities: array<vec4<f16>, {{ ROWS * PROBS // 4 }}>;
// The first: whether a row's reference moved in this step. Sixteen bytes, as all sizes here are multiples of that: NVIDIA's compiler
// puts these variables one behind the other, and matrices must be aligned to 16 bytes, which vectors of halves alone are not.
var<workgroup> moved: array<atomic<u32>, 4>;

@compute @workgroup_size({{ WG }})
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(subgroup_invocation_id) place_in_subgroup: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    // So that the lanes which share a row are of one subgroup, and neighbours there.
    let lane = subgroup * {{ LANES }}u + place_in_subgroup;
    // Not by a function: naga takes what functions return for something that differs from lane to lane.
    let number = id.x + id.y * count.x;
    let live = number < p.groups;
    let g = min(number, p.groups - 1u);
    // The last blocks first: with a causal mask they take longest.
    let first = (p.blocks - 1u - g % p.blocks) * {{ ROWS }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    // In eights.
    let c = p.heads * {{ EIGHTS }}u;
    let q_at = p.qkv_at / 8u + batch * p.t * 3u * c + head * {{ EIGHTS }}u;
    let k_at = q_at + c;
    let v_at = k_at + c;
{% if PADDED %}
    let keys_at = p.keys_at + batch * p.t;
{% endif %}
    let start = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }};
    let end = {{ "min(p.t, first + " ~ ROWS ~ "u)" if CAUSAL else "p.t" }};
{{ places() }}
    // Keys before this one may be attended by the row, by all rows.
    let row_end = {{ "min(p.t, row + 1u)" if CAUSAL else "p.t" }};
    let all_end = {{ "min(p.t, first + 1u)" if CAUSAL else "p.t" }};
{{ registers("k_", T1, WIDE) }}
{{ registers("v_", T1, WIDE) }}
    if (live) {
{{ fetch("k_", "qkv", T1, "k_at", "(3u * c)", "start", WIDE) }}
{{ fetch("v_", "qkv", T1, "v_at", "(3u * c)", "start", WIDE) }}
    }
{{ stage("x", "qkv", T1, "q_at", "(3u * c)", "first", ROWS) }}
    workgroupBarrier();
{{ load_rows("q") }}
    workgroupBarrier();
{{ put("k_", "x", 0, T1, WIDE) }}
    if (start + {{ WIDE }}u < end) {
{{ fetch("k_", "qkv", T1, "k_at", "(3u * c)", "(start + " ~ WIDE ~ "u)", WIDE) }}
    }
    // Scores are powers of two here.
    let scale = p.scale * LOG2E;
    var reference = LOWEST;
    // Of the lane's own share of its row.
    var sum = 0.0;
{% for m in range(BY) %}
{% for n in range(STEPS) %}
    var o{{ m }}_{{ n }} = {{ MATRIX }}<f32, C>();
{% endfor %}
{% endfor %}
    for (var at = start; at < end; at = at + {{ WIDE }}u) {
        // These keys are there, the last values are done with.
        workgroupBarrier();
        if (lane == 0u) { atomicStore(&moved[0], 0u); }
{{ put("v_", "x", WIDE, T1, WIDE) }}
        if (at + {{ WIDE }}u < end) {
{{ fetch("v_", "qkv", T1, "v_at", "(3u * c)", "(at + " ~ WIDE ~ "u)", WIDE) }}
        }
{{ products("s", "q", "x") }}
{{ keep("s", 0, COLUMNS, 0, SCORES) }}
        // The scores are there, and these keys are done with.
        workgroupBarrier();
        if (at + {{ WIDE }}u < end) {
{{ put("k_", "x", 0, T1, WIDE) }}
        }
        if (at + {{ 2 * WIDE }}u < end) {
{{ fetch("k_", "qkv", T1, "k_at", "(3u * c)", "(at + " ~ 2 * WIDE ~ "u)", WIDE) }}
        }
{% for i in range(SHARE) %}
        var w{{ i }} = scores[own * {{ SCORES // 4 }}u + {{ part_of_row(i) }}] * scale;
{% endfor %}
{# Most steps of most blocks have nothing to mask. #}
        {{ "if (at + " ~ WIDE ~ "u > all_end) " if not (PADDED or BAND) else "" }}{
            let near = at + lane % {{ SHARED }}u * 4u;
            let before = vec4<i32>(i32(row_end) - i32(near));
{% if BAND %}
            let after = vec4<i32>(i32(row) - i32(p.band) - i32(near));
{% endif %}
{% for i in range(SHARE) %}
            {
                let key = vec4<i32>(0, 1, 2, 3) + {{ 4 * i * SHARED }};
{% if PADDED %}
                let inside = min(vec4<u32>(key) + near, vec4<u32>(p.t - 1u));
                let kept = vec4<u32>(keys[keys_at + inside.x], keys[keys_at + inside.y], keys[keys_at + inside.z], keys[keys_at + inside.w]) != vec4<u32>();
{% endif %}
                w{{ i }} = select(vec4<f32>(MASKED), w{{ i }}, (key < before){{ " & (key > after)" if BAND else "" }}{{ " & kept" if PADDED else "" }});
            }
{% endfor %}
        }
        var tops = w0;
{% for i in range(1, SHARE) %}
        tops = max(tops, w{{ i }});
{% endfor %}
        var top = max(max(tops.x, tops.y), max(tops.z, tops.w));
{% for by in [1, 2, 4, 8, 16, 32] if by < SHARED %}
        top = max(top, subgroupShuffleXor(top, {{ by }}u));
{% endfor %}
        let last = reference;
        reference = select(last, top - BELOW, top > last + MOST);
        let shrink = exp2(last - reference);
        // Without a key before there is no result to rescale.
        if (reference > last && sum > 0.0) { atomicStore(&moved[0], 1u); }
        sum = sum * shrink;
{% for i in range(SHARE) %}
        {
            let e = exp2(w{{ i }} - reference);
            sum = sum + ((e.x + e.y) + (e.z + e.w));
            probabilities[own * {{ PROBS // 4 }}u + {{ part_of_row(i) }}] = vec4<f16>(e);
        }
{% endfor %}
        // With barriers, after which probabilities and values are there, too.
        let rescale = workgroupUniformLoad(&moved[0]);
        if (rescale != 0u) {
{% for n0 in range(0, STEPS, COLUMNS) %}
{% set count = [COLUMNS, STEPS - n0]|min %}
{{ keep("o", n0, count, 0, SCORES) }}
            workgroupBarrier();
{% for i in range(SHARE) %}
            {
                let place = own * {{ SCORES // 4 }}u + {{ part_of_row(i) }};
                scores[place] = scores[place] * shrink;
            }
{% endfor %}
            workgroupBarrier();
{% for m in range(BY) %}
{% for n in range(count) %}
            o{{ m }}_{{ n0 + n }} = coopLoadT<{{ MATRIX }}<f32, C>>(&scores[(rows_at + {{ m * SIDE }}u) * {{ SCORES // 4 }}u + {{ n * SIDE // 4 }}u], {{ SCORES // 4 }}u);
{% endfor %}
{% endfor %}
{% if n0 + COLUMNS < STEPS %}
            workgroupBarrier();
{% endif %}
{% endfor %}
        }
{{ gather("o", 0, PROBS, "x", WIDE) }}
    }
{% for by in [1, 2, 4, 8, 16, 32] if by < SHARED %}
    sum = sum + subgroupShuffleXor(sum, {{ by }}u);
{% endfor %}
    // A query that may attend to nothing gives zeros.
    if (live && row < p.t && lane % {{ SHARED }}u == 0u) {
        lse[p.lse_at + (batch * p.heads + head) * p.t + row] = select(0.0, (reference + log2(sum)) / LOG2E, sum > 0.0);
    }
    if (lane % {{ SHARED }}u == 0u) { scores[own * {{ SCORES // 4 }}u + {{ WIDE // 4 }}u].x = select(0.0, 1.0 / sum, sum > 0.0); }
    let c4 = c * 2u;
    let o_at = p.o_at / 4u + (batch * p.t + first) * c4 + head * {{ VECTORS }}u;
{{ leave("o", "o", T2, "o_at", "c4", SCORES, COLUMNS, "scores[r * " ~ SCORES // 4 ~ "u + " ~ WIDE // 4 ~ "u].x") }}
}
