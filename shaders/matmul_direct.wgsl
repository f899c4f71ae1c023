// Matrix product straight from storage: the LANES lanes of a workgroup hold ROWS x 4*LANES*COLS outputs in named registers, 4
// neighbouring columns a lane and vec4. No workgroup memory, no barrier. For software adapters, with 8 lanes; with SUBGROUP also
// for GPUs, with as many as a subgroup has.
//
// What costs time on software adapters is not arithmetic but loads: Mesa 22.3 turns each one, uniform or not, into a loop over the 8 lanes
// with a bounds check for each component; loads of images it does by vectors. So every load is a vec4 that differs from lane to
// lane, 32 numbers a load, and with SUBGROUP (a workgroup is one subgroup) the operand a is spread over the lanes, each of which then broadcasts its part:
//   a [m,k]: lane l has row l of 8, 4 steps of k         AT, a [k,m]: lane l has rows 4l to 4l+3 of 32, one step of k
//   (of 16 lanes: of 16 and of 64; those that would be beyond ROWS repeat the last)
//   b [k,n]: lane l has columns 4l to 4l+3, one step     BT, b [n,k]: the same columns, 4 steps of each
// Without SUBGROUP all lanes read the same rows of a.
//   AIMAGE, BIMAGE: a, b are images; all that is read of them comes in vec4s.
//   FORMAT: b is packed along k (src/ops/packing.rs), in this format; "none": it is not. BT and K4 only. GROUP: as there
//   K4: 4 steps of k at once. An operand that is stored along k is then in vec4s, else in floats.
{% include "group.wgsl" %}
{% set PACKED = FORMAT != "none" %}
{% if PACKED %}
{% set B_ELEMENT = "vec4<u32>" %}
{% set SCALED = FORMAT == "q8" or FORMAT == "q4" %}
{% set STEP = {"f32": 4, "f16": 8, "bf16": 8, "q8": 16, "q4": 32}[FORMAT] %}
{% endif %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
{% if AIMAGE or BIMAGE %}
{% include "image.wgsl" %}
{% endif %}
{# Four numbers of a or b. #}
{% macro a4(i) %}{{ "bitcast<vec4<f32>>(textureLoad(a, texel(" ~ i ~ ")))" if AIMAGE else "vec4<f32>(a[" ~ i ~ "])" }}{% endmacro %}
{% macro b4(i) %}{{ "bitcast<vec4<f32>>(textureLoad(b, texel(" ~ i ~ ")))" if BIMAGE else "vec4<f32>(b[" ~ i ~ "])" }}{% endmacro %}
{% if PACKED %}
{% include "packed_vector.wgsl" %}
{% endif %}
{% set comp = ["x", "y", "z", "w"] %}
{% set STEPS = 4 if K4 else 1 %}
{# Rows of a that one load fetches for all lanes together. #}
{% set SPREAD = (4 * LANES if AT else LANES) if SUBGROUP else (4 if AT else 1) %}
{% set LOADS = (ROWS + SPREAD - 1) // SPREAD %}

@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let tiles = p.tiles_m * p.tiles_n;
    let batch = g / tiles;
    let tile = g % tiles;
    // Neighbouring workgroups share the panel of the larger operand, so that it comes from memory once; the other one stays in caches.
    let across = p.m > p.n;
    let tile_m = select(tile % p.tiles_m, tile / p.tiles_n, across);
    let tile_n = select(tile / p.tiles_m, tile % p.tiles_n, across);
    let m0 = tile_m * {{ ROWS }}u;
    let n0 = tile_n * {{ 4 * LANES * COLS }}u + lane * 4u;
    let a_at = p.a_at + batch * p.a_batch;
    let b_at = p.b_at + batch * p.b_batch;
{# Rows and columns beyond the edge repeat the last one, and are not written. #}
{% set HOLDERS = (ROWS + 3) // 4 if AT else ROWS %}
{% set holder = "min(lane, " ~ (HOLDERS - 1) ~ "u)" if HOLDERS < LANES else "lane" %}
{% macro row(l, i) %}m0 + {{ SPREAD * l + i }}u{% if SUBGROUP %} + {{ holder }}{{ " * 4u" if AT else "" }}{% endif %}{% endmacro %}
{% for l in range(LOADS) %}
{% if not AT %}
    let a_{{ l }} = (a_at + min({{ row(l, 0) }}, p.m - 1u) * p.lda){{ " / 4u" if AVEC else "" }};
{% elif AVEC %}
    let a_{{ l }} = (a_at + min({{ row(l, 0) }}, p.m - 4u)) / 4u;
{% else %}
{% for i in range(4) %}
    let a_{{ l }}_{{ i }} = a_at + min({{ row(l, i) }}, p.m - 1u);
{% endfor %}
{% endif %}
{% endfor %}
{% for c in range(COLS) %}
{% if BVEC and not BT %}
    let b_{{ c }} = (b_at + min(n0 + {{ 4 * LANES * c }}u, p.n - 4u)) / 4u;
{% else %}
{% for j in range(4) %}
    let b_{{ c }}_{{ j }} = {% if BT %}(b_at + min(n0 + {{ 4 * LANES * c + j }}u, p.n - 1u) * p.ldb){{ " / 4u" if BVEC else "" }}{% else %}b_at + min(n0 + {{ 4 * LANES * c + j }}u, p.n - 1u){% endif %};
{% if PACKED and SCALED %}
    let scales_{{ c }}_{{ j }} = p.scales_at + min(n0 + {{ 4 * LANES * c + j }}u, p.n - 1u) * scale_words();
{% endif %}
{% endfor %}
{% endif %}
{% endfor %}
{% for r in range(ROWS) %}{% for c in range(COLS) %}
    var s{{ r }}_{{ c }} = vec4<f32>();
{% endfor %}{% endfor %}
{% if PACKED %}
    for (var v = 0u; v < p.ldb / 4u; v = v + 1u) {
{% for c in range(COLS) %}{% for j in range(4) %}
        let v{{ c }}_{{ j }} = packed_vector(b_{{ c }}_{{ j }} + v);
{% if SCALED %}
        let fit{{ c }}_{{ j }} = packed_fit(scales_{{ c }}_{{ j }}, v * {{ STEP }}u / {{ GROUP }}u);
{% endif %}
{% endfor %}{% endfor %}
{# A loop that turns once would cost that adapter its registers. #}
{% if STEP > 4 %}
    for (var i = 0u; i < {{ STEP // 4 }}u; i = i + 1u) {
{% else %}
    {
        let i = 0u;
{% endif %}
        let k = v * {{ STEP }}u + i * 4u;
{% else %}
    for (var k = 0u; k < p.k; k = k + {{ STEPS }}u) {
{% endif %}
{# wI_C: columns of step k + I. #}
{% for c in range(COLS) %}
{% if BT %}
{% for j in range(4) %}
        let t{{ c }}_{{ j }} = {% if PACKED %}unpacked_four(v{{ c }}_{{ j }}, i{% if SCALED %}, fit{{ c }}_{{ j }}{% endif %}){% elif K4 %}{{ b4("b_" ~ c ~ "_" ~ j ~ " + k / 4u") }}{% else %}f32(b[b_{{ c }}_{{ j }} + k]){% endif %};
{% endfor %}
{% endif %}
{% for i in range(STEPS) %}
{% if BT %}
        let w{{ i }}_{{ c }} = vec4<f32>({% for j in range(4) %}t{{ c }}_{{ j }}{{ ("." ~ comp[i]) if K4 else "" }}{{ "" if loop.last else ", " }}{% endfor %});
{% elif BVEC %}
        let w{{ i }}_{{ c }} = {{ b4("b_" ~ c ~ " + (k + " ~ i ~ "u) * (p.ldb / 4u)") }};
{% else %}
        let w{{ i }}_{{ c }} = vec4<f32>({% for j in range(4) %}f32(b[b_{{ c }}_{{ j }} + (k + {{ i }}u) * p.ldb]){{ "" if loop.last else ", " }}{% endfor %});
{% endif %}
{% endfor %}
{% endfor %}
{% macro load_a(l) %}
{% if not AT %}
        let x{{ l }} = {% if K4 %}{{ a4("a_" ~ l ~ " + k / 4u") }}{% else %}f32(a[a_{{ l }} + k]){% endif %};
{% else %}
{% for i in range(STEPS) %}
{% if AVEC %}
        let x{{ l }}_{{ i }} = {{ a4("a_" ~ l ~ " + (k + " ~ i ~ "u) * (p.lda / 4u)") }};
{% else %}
        let x{{ l }}_{{ i }} = vec4<f32>({% for j in range(4) %}f32(a[a_{{ l }}_{{ j }} + (k + {{ i }}u) * p.lda]){{ "" if loop.last else ", " }}{% endfor %});
{% endif %}
{% endfor %}
{% endif %}
{% endmacro %}
{# The sums are more than there are registers, so each takes all steps before the next one's turn. #}
{% for r in range(ROWS) %}
{% if r % SPREAD == 0 %}
{{ load_a(r // SPREAD) }}
{% endif %}
{% for i in range(STEPS) %}
{% if AT %}
{% set value = "x" ~ (r // SPREAD) ~ "_" ~ i ~ "." ~ comp[r % 4] %}
{% set owner = r % SPREAD // 4 %}
{% else %}
{% set value = "x" ~ (r // SPREAD) ~ (("." ~ comp[i]) if K4 else "") %}
{% set owner = r % SPREAD %}
{% endif %}
        let u{{ r }}_{{ i }} = vec4<f32>({% if SUBGROUP %}subgroupBroadcast({{ value }}, {{ owner }}u){% else %}{{ value }}{% endif %});
{% for c in range(COLS) %}
        s{{ r }}_{{ c }} = fma(u{{ r }}_{{ i }}, w{{ i }}_{{ c }}, s{{ r }}_{{ c }});
{% endfor %}
{% endfor %}
{% endfor %}
    }
{% if PACKED %}
    }
{% endif %}
    let y0 = batch * p.y_batch;
{% for c in range(COLS) %}
    let n_{{ c }} = n0 + {{ 4 * LANES * c }}u;
{% if YVEC %}
    let shift_{{ c }} = shift_of(min(n_{{ c }}, p.n - 4u));
{% endif %}
{% endfor %}
{% for r in range(ROWS) %}
    if (m0 + {{ r }}u < p.m) {
        let at = y0 + (m0 + {{ r }}u) * p.ldy;
{% for c in range(COLS) %}
{% if YVEC %}
        if (n_{{ c }} < p.n) { finish_onto(s{{ r }}_{{ c }}, shift_{{ c }}, rest_of(at + n_{{ c }}), at + n_{{ c }}); }
{% else %}
        finish_four(s{{ r }}_{{ c }}, at + n_{{ c }}, n_{{ c }});
{% endif %}
{% endfor %}
    }
{% endfor %}
}
