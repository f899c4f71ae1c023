// Few rows times a packed matrix (src/ops/packing.rs), one token at a time as a rule: a workgroup makes ROWS x COLS dot products. Its
// WG lanes run along k, each reads sixteen bytes of each of COLS rows of weights, unpacks them in registers and multiplies them with
// what all columns share of `a`; the lanes' sums are added up at the end.
//   FORMAT: f32, f16, bf16, q8, q4     GROUP: weights that share a scale
//   BIMAGE: weights and scales are in an image
//   LOADS: neighbouring vectors of sixteen bytes that a lane takes of a row at once
//   AVEC: a is in vec4s, and rows are whole vectors of weights; else rows of weights are filled up with zeros
//   LANES: the size of a subgroup, of which there are WG / LANES; 0 without subgroups
//   NORM: a prologue, the layer norm of a's rows (layer_norm.wgsl): every workgroup makes it for itself
//   DRAW: instead of products it leaves the best of its columns, with noise unless GREEDY, and where that is; sample_best.wgsl ends it
{% include "group.wgsl" %}
{% set B_ELEMENT = "vec4<u32>" %}
{% set SCALED = FORMAT == "q8" or FORMAT == "q4" %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
{% if BIMAGE %}
{% include "image.wgsl" %}
{% endif %}
{% set comp = ["x", "y", "z", "w"] %}
{% set STEP = {"f32": 4, "f16": 8, "bf16": 8, "q8": 16, "q4": 32}[FORMAT] %}
{% include "packed_vector.wgsl" %}
{% set SUMS = ROWS * COLS %}
{# Sums of four components cost nothing until the end, but registers. #}
{% set FOURS = FORMAT == "f32" and SUMS <= 8 %}
{% set S = "vec4<f32>" if FOURS else "f32" %}
{% set TEAMS = WG // LANES if LANES > 0 else 0 %}
{% set WHO = "lane, team, member" if TEAMS > 1 else "lane, 0u, lane" %}
{% if TEAMS > 1 %}
var<workgroup> partial: array<f32, {{ TEAMS * SUMS }}>;
{% elif LANES == 0 %}
var<workgroup> partial: array<f32, {{ WG * SUMS }}>;
{% endif %}
{% if NORM %}
{% if TEAMS == 0 %}
{% set SUBGROUP = false %}
{% include "reduce.wgsl" %}
{% elif TEAMS > 1 %}
var<workgroup> totals: array<f32, {{ TEAMS }}>;
{% endif %}
// The sum over all lanes.
fn total(lane: u32, team: u32, member: u32, x: f32) -> f32 {
{% if TEAMS == 0 %}
    return reduce_sum(lane, x);
{% elif TEAMS == 1 %}
    return subgroupAdd(x);
{% else %}
    let sum = subgroupAdd(x);
    if (member == 0u) { totals[team] = sum; }
    workgroupBarrier();
    let all = {% for t in range(TEAMS) %}{{ " + " if t > 0 else "" }}totals[{{ t }}]{% endfor %};
    workgroupBarrier();
    return all;
{% endif %}
}
{% endif %}
{% if DRAW %}
{% include "random.wgsl" %}
{% include "draw.wgsl" %}
// What decides the draw of column n in a row; what is no number is never drawn.
fn drawn(sum: f32, n: u32, m: u32) -> f32 {
    let row = min(m, p.m - 1u);
    let v = p.alpha * sum * p.factor{% if not GREEDY %} + gumbel(key_of(row), p.first_n + n, row){% endif %};
    return select(LOWEST, v, n < p.n && v > LOWEST);
}
fn leave(m: u32, slot: u32, best: f32, n: u32) {
    let at = p.y_at + 2u * (m * p.slots + p.first_slot + slot);
    y[at] = best;
    y[at + 1u] = f32(p.first_n + n);
}
{% endif %}
{# Vector i of four weights in a vector of sixteen bytes. #}
{% macro four(w, i) %}
{% if FORMAT == "f32" %}bitcast<vec4<f32>>({{ w }}){% elif FORMAT == "f16" %}vec4<f32>(unpack2x16float({{ w }}.{{ comp[2 * i] }}), unpack2x16float({{ w }}.{{ comp[2 * i + 1] }})){% elif FORMAT == "bf16" %}bitcast<vec4<f32>>(vec4<u32>({{ w }}.{{ comp[2 * i] }} << 16u, {{ w }}.{{ comp[2 * i] }} & 0xffff0000u, {{ w }}.{{ comp[2 * i + 1] }} << 16u, {{ w }}.{{ comp[2 * i + 1] }} & 0xffff0000u)){% elif FORMAT == "q8" %}vec4<f32>(unpack4xI8({{ w }}.{{ comp[i] }})){% else %}vec4<f32>(unpack4xI8({% if i % 2 == 0 %}{{ w }}.{{ comp[i // 2] }}{% else %}({{ w }}.{{ comp[i // 2] }} >> 4u){% endif %} & 0x0f0f0f0fu)){% endif %}{% endmacro %}
{# sum + a b #}
{% macro add(sum, a, b) %}{{ "fma(" ~ a ~ ", " ~ b ~ ", " ~ sum ~ ")" if FOURS else sum ~ " + dot(" ~ a ~ ", " ~ b ~ ")" }}{% endmacro %}
{% macro times(sum, factor, before) %}{{ "fma(" ~ sum ~ ", " ~ ("vec4<f32>(" ~ factor ~ ")" if FOURS else factor) ~ ", " ~ before ~ ")" }}{% endmacro %}

@compute @workgroup_size({{ WG }})
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
{% if TEAMS > 1 %}
    @builtin(subgroup_id) team: u32,
    @builtin(subgroup_invocation_id) member: u32,
{% endif %}
) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    // Neighbouring workgroups share weights.
    let m0 = (g % p.tiles_m) * {{ ROWS }}u;
    let n0 = (g / p.tiles_m) * {{ COLS }}u;
{# Rows and columns beyond the edge repeat the last one, and are not written. #}
{% for r in range(ROWS) %}
    let a_{{ r }} = (p.a_at + min(m0 + {{ r }}u, p.m - 1u) * p.lda){{ " / 4u" if AVEC else "" }};
{% endfor %}
{% for c in range(COLS) %}
    let n_{{ c }} = min(n0 + {{ c }}u, p.n - 1u);
    let b_{{ c }} = p.b_at / 4u + n_{{ c }} * p.ldb;
{% if SCALED %}
    let scales_{{ c }} = p.scales_at + n_{{ c }} * scale_words();
{% endif %}
{% for r in range(ROWS) %}
    var s{{ r }}_{{ c }} = {{ S }}();
{% endfor %}
{% endfor %}
{% if NORM %}
{% for r in range(ROWS) %}
    var sum{{ r }} = vec4<f32>();
    for (var v = lane; v < p.k / 4u; v = v + {{ WG }}u) { sum{{ r }} = sum{{ r }} + vec4<f32>(a[a_{{ r }} + v]); }
    let guess{{ r }} = total({{ WHO }}, dot(sum{{ r }}, vec4<f32>(1.0))) * p.inverse_k;
    var off{{ r }} = vec4<f32>();
    var squares{{ r }} = vec4<f32>();
    for (var v = lane; v < p.k / 4u; v = v + {{ WG }}u) {
        let d = vec4<f32>(a[a_{{ r }} + v]) - guess{{ r }};
        off{{ r }} = off{{ r }} + d;
        squares{{ r }} = fma(d, d, squares{{ r }});
    }
    let shift{{ r }} = total({{ WHO }}, dot(off{{ r }}, vec4<f32>(1.0))) * p.inverse_k;
    let square{{ r }} = total({{ WHO }}, dot(squares{{ r }}, vec4<f32>(1.0))) * p.inverse_k;
    let mean{{ r }} = guess{{ r }} + shift{{ r }};
    let rstd{{ r }} = 1.0 / sqrt(max(square{{ r }} - shift{{ r }} * shift{{ r }}, 0.0) + p.epsilon);
{% endfor %}
{% endif %}
    for (var v = lane * {{ LOADS }}u; v < p.ldb; v = v + {{ WG * LOADS }}u) {
        let k = v * {{ STEP if not AVEC else STEP // 4 }}u;
{% if SCALED %}
        let block = v * {{ STEP }}u / {{ GROUP }}u;
{% for c in range(COLS) %}
        let fit{{ c }} = packed_fit(scales_{{ c }}, block);
{% for r in range(ROWS) %}
        var t{{ r }}_{{ c }} = {{ S }}();
{% endfor %}
{% endfor %}
{% if FORMAT == "q4" %}
{% for r in range(ROWS) %}
        var x{{ r }} = {{ S }}();
{% endfor %}
{% endif %}
{% endif %}
{% for l in range(LOADS) %}
{% for c in range(COLS) %}
        let w{{ l }}_{{ c }} = packed_vector(b_{{ c }} + v + {{ l }}u);
{% endfor %}
{% for i in range(STEP // 4) %}
        {
{% for c in range(COLS) %}
            let w{{ c }} = {{ four("w" ~ l ~ "_" ~ c, i) }};
{% endfor %}
{% set first = l * STEP + 4 * i %}
{% if NORM %}
            let scale_by = gamma[p.gamma_at / 4u + k + {{ first // 4 }}u];
            let shift_by = beta[p.beta_at / 4u + k + {{ first // 4 }}u];
{% endif %}
{% for r in range(ROWS) %}
{% if NORM %}
            let a{{ r }} = fma((vec4<f32>(a[a_{{ r }} + k + {{ first // 4 }}u]) - mean{{ r }}) * rstd{{ r }}, scale_by, shift_by);
{% elif AVEC %}
            let a{{ r }} = vec4<f32>(a[a_{{ r }} + k + {{ first // 4 }}u]);
{% else %}
            let a{{ r }} = vec4<f32>({% for j in range(4) %}select(0.0, f32(a[a_{{ r }} + min(k + {{ first + j }}u, p.k - 1u)]), k + {{ first + j }}u < p.k){{ "" if loop.last else ", " }}{% endfor %});
{% endif %}
{% if FORMAT == "q4" %}
            x{{ r }} = x{{ r }} + {{ "a" ~ r if FOURS else "dot(a" ~ r ~ ", vec4<f32>(1.0))" }};
{% endif %}
{% set to = "t" if SCALED else "s" %}
{% for c in range(COLS) %}
            {{ to }}{{ r }}_{{ c }} = {{ add(to ~ r ~ "_" ~ c, "a" ~ r, "w" ~ c) }};
{% endfor %}
{% endfor %}
        }
{% endfor %}
{% endfor %}
{% if SCALED %}
{% for c in range(COLS) %}
{% for r in range(ROWS) %}
{% set sum = "s" ~ r ~ "_" ~ c %}
{% if FORMAT == "q4" %}
        {{ sum }} = {{ times("x" ~ r, "fit" ~ c ~ ".y", sum) }};
{% endif %}
        {{ sum }} = {{ times("t" ~ r ~ "_" ~ c, "fit" ~ c ~ ".x", sum) }};
{% endfor %}
{% endfor %}
{% endif %}
    }
{% macro whole(r, c) %}{{ "dot(s" ~ r ~ "_" ~ c ~ ", vec4<f32>(1.0))" if FOURS else "s" ~ r ~ "_" ~ c }}{% endmacro %}
{% if TEAMS == 1 %}
    // A lane ends a column.
{% for r in range(ROWS) %}
    {
{% if DRAW %}
        var best = LOWEST;
        var at = p.n;
{% endif %}
{% for first in range(0, COLS, WG) %}
{% set here = [COLS - first, WG]|min %}
        {
            let n = n0 + {{ first }}u + lane;
            let ends = {{ "lane < " ~ here ~ "u && " if here < WG else "" }}n < p.n;
            var mine = subgroupAdd({{ whole(r, first) }});
{% for c in range(1, here) %}
            mine = select(mine, subgroupAdd({{ whole(r, first + c) }}), lane == {{ c }}u);
{% endfor %}
{% if DRAW %}
            let v = select(LOWEST, drawn(mine, n, m0 + {{ r }}u), ends);
            at = select(at, n, v > best);
            best = max(best, v);
{% else %}
            if (ends && m0 + {{ r }}u < p.m) { finish(mine, (m0 + {{ r }}u) * p.ldy + n, n); }
{% endif %}
        }
{% endfor %}
{% if DRAW %}
        let top = subgroupMax(best);
        let n = subgroupMin(select(p.n, at, best == top && best > LOWEST));
        if (lane == 0u && m0 + {{ r }}u < p.m) { leave(m0 + {{ r }}u, g / p.tiles_m, top, n); }
{% endif %}
    }
{% endfor %}
{% else %}
{% if TEAMS > 1 %}
{% for r in range(ROWS) %}{% for c in range(COLS) %}
    let sum{{ r }}_{{ c }} = subgroupAdd({{ whole(r, c) }});
{% endfor %}{% endfor %}
    if (member == 0u) {
{% for r in range(ROWS) %}{% for c in range(COLS) %}
        partial[team * {{ SUMS }}u + {{ r * COLS + c }}u] = sum{{ r }}_{{ c }};
{% endfor %}{% endfor %}
    }
    workgroupBarrier();
{% else %}
{% for r in range(ROWS) %}{% for c in range(COLS) %}
    partial[lane * {{ SUMS }}u + {{ r * COLS + c }}u] = {{ whole(r, c) }};
{% endfor %}{% endfor %}
    workgroupBarrier();
    for (var half = {{ WG // 2 }}u; half > 1u; half = half / 2u) {
        for (var i = lane; i < half * {{ SUMS }}u; i = i + {{ WG }}u) {
            partial[i] = partial[i] + partial[i + half * {{ SUMS }}u];
        }
        workgroupBarrier();
    }
{% endif %}
    for (var i = lane; i < {{ SUMS }}u; i = i + {{ WG }}u) {
        let m = m0 + i / {{ COLS }}u;
        let n = n0 + i % {{ COLS }}u;
        let sum = partial[i]{% for t in range(1, TEAMS if TEAMS > 1 else 2) %} + partial[i + {{ t * SUMS }}u]{% endfor %};
{% if DRAW %}
        partial[i] = drawn(sum, n, m);
{% else %}
        if (m < p.m && n < p.n) { finish(sum, m * p.ldy + n, n); }
{% endif %}
    }
{% if DRAW %}
    workgroupBarrier();
    for (var r = lane; r < {{ ROWS }}u; r = r + {{ WG }}u) {
        var best = LOWEST;
        var n = p.n;
        for (var c = 0u; c < {{ COLS }}u; c = c + 1u) {
            let v = partial[r * {{ COLS }}u + c];
            if (v > best) { best = v; n = n0 + c; }
        }
        if (m0 + r < p.m) { leave(m0 + r, g / p.tiles_m, best, n); }
    }
{% endif %}
{% endif %}
}
