// Matrix product by cooperative matrices (tensor cores) of SIDE x SIDE: operands rounded to f16, sums in f32. A workgroup makes a
// tile of GM x GN matrices, each of its subgroups (of LANES lanes) SM x SN of them in registers, and a step takes K matrices along k.
//   T1, T2: the stored element types of a and b     AT: a is stored [k,m]     BT: b is stored [n,k]
//   EVEN: m, n and k are multiples of the tile's sides, and both operands are read in vectors: nothing needs a guard
//   OUT: matrices side by side that a subgroup hands on through workgroup memory at once, where an epilogue needs elements
// Operands keep their stored order in workgroup memory, rows apart by a padding of 8 halves (16 bytes) against bank conflicts: the
// loads of matrices transpose. While a step is multiplied, the next one's elements are on their way into registers.
// Nothing may return before these operations, so workgroups beyond the end compute zeros and write nothing.
enable f16;
enable wgpu_cooperative_matrix;
{% set BM = GM * SIDE %}
{% set BN = GN * SIDE %}
{% set BK = K * SIDE %}
{% set SUBGROUPS = (GM // SM) * (GN // SN) %}
{% set THREADS = SUBGROUPS * LANES %}
{% set MATRIX = "coop_mat" ~ SIDE ~ "x" ~ SIDE %}
{# Eight numbers that were fetched: halves as they are stored, sixteen bytes at once, else two vectors. #}
{% set A_PACKED = T1 == "f16" and AVEC %}
{% set B_PACKED = T2 == "f16" and BVEC %}
{% set A_ELEMENT = "vec4<u32>" if A_PACKED else ("vec4<" ~ T1 ~ ">" if AVEC else T1) %}
{% set B_ELEMENT = "vec4<u32>" if B_PACKED else ("vec4<" ~ T2 ~ ">" if BVEC else T2) %}
struct Eight { lo: vec4<f32>, hi: vec4<f32> }
{% set A_EIGHT = "vec4<u32>" if A_PACKED else "Eight" %}
{% set B_EIGHT = "vec4<u32>" if B_PACKED else "Eight" %}
{% include "halves.wgsl" %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
{# What is stored beside each other is m or k, n or k. #}
{% set AW = BM if AT else BK %}
{% set AH = BK if AT else BM %}
{% set BW = BK if BT else BN %}
{% set BH = BN if BT else BK %}
{% set ALD = AW + 8 %}
{% set BLD = BW + 8 %}
{# Matrices are loaded by pointers to vectors of halves, which tell how memory is aligned: NVIDIA's compiler refuses vectors of another
   type than the matrix's elements. #}
var<workgroup> tile_a: array<vec4<f16>, {{ AH * ALD // 4 }}>;
var<workgroup> tile_b: array<vec4<f16>, {{ BH * BLD // 4 }}>;

// Eight elements of a stored row from (row, column), zeros beyond the edge, not yet rounded: that would wait for them.
{% for o in ["a", "b"] %}
{% set VEC = AVEC if o == "a" else BVEC %}
{% set PACKED = A_PACKED if o == "a" else B_PACKED %}
{% set EIGHT = A_EIGHT if o == "a" else B_EIGHT %}
fn fetch_{{ o }}(at: u32, row: u32, column: u32, rows: u32, columns: u32) -> {{ EIGHT }} {
{% if not EVEN %}
    if (row >= rows || column >= columns) { return {{ EIGHT }}(); }
{% endif %}
    let place = at + row * p.ld{{ o }} + column;
{% if PACKED %}
    return {{ o }}[place / 8u];
{% elif VEC and EVEN %}
    return Eight({{ o }}[place / 4u], {{ o }}[place / 4u + 1u]);
{% elif VEC %}
    var v = Eight({{ o }}[place / 4u], vec4<f32>());
    if (column + 4u < columns) { v.hi = {{ o }}[place / 4u + 1u]; }
    return v;
{% else %}
    var v = Eight();
    v.lo.x = f32({{ o }}[place]);
{% for part in ["lo.y", "lo.z", "lo.w", "hi.x", "hi.y", "hi.z", "hi.w"] %}
    if (column + {{ loop.index }}u < columns) { v.{{ part }} = f32({{ o }}[place + {{ loop.index }}u]); }
{% endfor %}
    return v;
{% endif %}
}
{% endfor %}

{% set PLAIN = not (BIAS or KEEP or RESIDUAL or ACT != "none") %}
// Whether a tile within the edges can be stored as it is in registers: without an epilogue, and by vectors, since matrices must be
// aligned to 16 bytes.
{% set STORED = PLAIN and YVEC and T3 == "f32" %}
{% set LEAVES = not (STORED and EVEN) %}
{% if LEAVES %}
{# Vectors from a row to the next, apart by two against bank conflicts. #}
{% set SLD = OUT * SIDE // 4 + 2 %}
var<workgroup> sums: array<vec4<f32>, {{ SUBGROUPS * SIDE * SLD }}>;
{% set FOURS = SIDE * OUT * SIDE // 4 %}
{% set ENDS = (FOURS + LANES - 1) // LANES %}
{% set PRELOADS = RESIDUAL and YVEC %}
{# Where vector number i of a subgroup's stands in the result. #}
{% macro place_of_i() %}
        let m = m0 + i / {{ OUT * SIDE // 4 }}u;
        let n = n0 + (i % {{ OUT * SIDE // 4 }}u) * 4u;
{% endmacro %}
{# And in `sums`. #}
{% set SUM = "sums[subgroup * " ~ SIDE * SLD ~ "u + i / " ~ OUT * SIDE // 4 ~ "u * " ~ SLD ~ "u + i % " ~ OUT * SIDE // 4 ~ "u]" %}
{% if PRELOADS %}
// What is to be added to the elements that a lane ends of OUT neighbouring matrices: all loads on their way before any is needed.
struct Rest {
{% for i in range(ENDS) %}
    of{{ i }}: vec4<f32>,
{% endfor %}
}
fn rests_of(lane: u32, y0: u32, m0: u32, n0: u32) -> Rest {
    var rest = Rest();
{% for i in range(ENDS) %}
    {
        let i = lane + {{ i * LANES }}u;
{{ place_of_i() }}
        if ({{ "true" if EVEN else "m < p.m && n < p.n" }}) { rest.of{{ i }} = rest_of(y0 + m * p.ldy + n); }
    }
{% endfor %}
    return rest;
}
{% endif %}
// Ends the elements of OUT neighbouring matrices of a subgroup, which are in `sums`.
fn leave(subgroup: u32, lane: u32, y0: u32, m0: u32, n0: u32{{ ", rest: Rest" if PRELOADS else "" }}) {
{% if PRELOADS %}
{% for i in range(ENDS) %}
    {
        let i = lane + {{ i * LANES }}u;
{{ place_of_i() }}
        if (i < {{ FOURS }}u && m < p.m && n < p.n) { finish_onto({{ SUM }}, shift_of(n), rest.of{{ i }}, y0 + m * p.ldy + n); }
    }
{% endfor %}
{% else %}
    for (var i = lane; i < {{ FOURS }}u; i = i + {{ LANES }}u) {
{{ place_of_i() }}
        if (m < p.m) { finish_four({{ SUM }}, y0 + m * p.ldy + n, n); }
    }
{% endif %}
}
{% endif %}

@compute @workgroup_size({{ THREADS }})
fn main(
    @builtin(workgroup_id) id: vec3<u32>,
    @builtin(num_workgroups) count: vec3<u32>,
    @builtin(local_invocation_index) lane: u32,
    @builtin(subgroup_id) subgroup: u32,
) {
    // Not by a function: naga takes what functions return for something that differs from lane to lane.
    let g = id.x + id.y * count.x;
    let tiles = p.tiles_m * p.tiles_n;
    let batch = min(g, p.groups - 1u) / tiles;
    let tile = g - batch * tiles;
    // Workgroups that run at the same time should share operands: bands of up to 8 rows of tiles, column by column.
    let band = tile / (8u * p.tiles_n);
    let high = max(min(p.tiles_m, (band + 1u) * 8u) - min(p.tiles_m, band * 8u), 1u);
    let within = tile - band * 8u * p.tiles_n;
    // Beyond the end `band` is, too, so m0 is.
    let m0 = (band * 8u + within % high) * {{ BM }}u;
    let n0 = (within / high) * {{ BN }}u;
    let a_at = p.a_at + batch * p.a_batch;
    let b_at = p.b_at + batch * p.b_batch;
    // Where a subgroup's matrices begin in the tile.
    let sm = (subgroup / {{ GN // SN }}u) * {{ SM * SIDE }}u;
    let sn = (subgroup % {{ GN // SN }}u) * {{ SN * SIDE }}u;
{% for r in range(SM) %}
{% for c in range(SN) %}
    var s{{ r }}_{{ c }} = {{ MATRIX }}<f32, C>();
{% endfor %}
{% endfor %}
{% macro multiply(step) %}
{% for c in range(SN) %}
{% for r in range(SM) %}
            s{{ r }}_{{ c }} = coopMultiplyAdd(a{{ r }}, b{{ c }}, s{{ r }}_{{ c }});
{% endfor %}
{% endfor %}
{% endmacro %}
{% set ALOADS = AH * AW // 8 // THREADS %}
{% set BLOADS = BH * BW // 8 // THREADS %}
{% for i in range(ALOADS) %}
    let a_row{{ i }} = (lane + {{ i * THREADS }}u) / {{ AW // 8 }}u;
    let a_column{{ i }} = ((lane + {{ i * THREADS }}u) % {{ AW // 8 }}u) * 8u;
    let a_place{{ i }} = (a_row{{ i }} * {{ ALD }}u + a_column{{ i }}) / 4u;
{% endfor %}
{% for i in range(BLOADS) %}
    let b_row{{ i }} = (lane + {{ i * THREADS }}u) / {{ BW // 8 }}u;
    let b_column{{ i }} = ((lane + {{ i * THREADS }}u) % {{ BW // 8 }}u) * 8u;
    let b_place{{ i }} = (b_row{{ i }} * {{ BLD }}u + b_column{{ i }}) / 4u;
{% endfor %}
{% macro fetch_a(i, k) %}{{ "fetch_a(a_at, " ~ k ~ " + a_row" ~ i ~ ", m0 + a_column" ~ i ~ ", p.k, p.m)" if AT else "fetch_a(a_at, m0 + a_row" ~ i ~ ", " ~ k ~ " + a_column" ~ i ~ ", p.m, p.k)" }}{% endmacro %}
{% macro fetch_b(i, k) %}{{ "fetch_b(b_at, n0 + b_row" ~ i ~ ", " ~ k ~ " + b_column" ~ i ~ ", p.n, p.k)" if BT else "fetch_b(b_at, " ~ k ~ " + b_row" ~ i ~ ", n0 + b_column" ~ i ~ ", p.k, p.n)" }}{% endmacro %}
{# From registers to the tiles. #}
{% macro put() %}
{% for i in range(ALOADS) %}
        tile_a[a_place{{ i }}] = {{ "halves(x" ~ i ~ ".xy)" if A_PACKED else "vec4<f16>(x" ~ i ~ ".lo)" }};
        tile_a[a_place{{ i }} + 1u] = {{ "halves(x" ~ i ~ ".zw)" if A_PACKED else "vec4<f16>(x" ~ i ~ ".hi)" }};
{% endfor %}
{% for i in range(BLOADS) %}
        tile_b[b_place{{ i }}] = {{ "halves(w" ~ i ~ ".xy)" if B_PACKED else "vec4<f16>(w" ~ i ~ ".lo)" }};
        tile_b[b_place{{ i }} + 1u] = {{ "halves(w" ~ i ~ ".zw)" if B_PACKED else "vec4<f16>(w" ~ i ~ ".hi)" }};
{% endfor %}
{% endmacro %}
{% for i in range(ALOADS) %}
    var x{{ i }} = {{ fetch_a(i, "0u") }};
{% endfor %}
{% for i in range(BLOADS) %}
    var w{{ i }} = {{ fetch_b(i, "0u") }};
{% endfor %}
    let from_a = {{ "sm" if AT else "sm * " ~ ALD ~ "u" }};
    let from_b = {{ "sn * " ~ BLD ~ "u" if BT else "sn" }};
    for (var k0 = 0u; k0 < p.k; k0 = k0 + {{ BK }}u) {
        workgroupBarrier();
{{ put() }}        workgroupBarrier();
        // Nothing waits for them until they are put into the tiles. Without the condition NVIDIA's compiler moves the loads to there.
        let next = k0 + {{ BK }}u;
        if (next < p.k) {
{% for i in range(ALOADS) %}
            x{{ i }} = {{ fetch_a(i, "next") }};
{% endfor %}
{% for i in range(BLOADS) %}
            w{{ i }} = {{ fetch_b(i, "next") }};
{% endfor %}
        }
{% for step in range(K) %}
        {
{% for r in range(SM) %}
            let a{{ r }} = coopLoad{{ "" if AT else "T" }}<{{ MATRIX }}<f16, A>>(&tile_a[(from_a + {{ (step * SIDE * ALD + r * SIDE) if AT else (r * SIDE * ALD + step * SIDE) }}u) / 4u], {{ ALD // 4 }}u);
{% endfor %}
{% for c in range(SN) %}
            let b{{ c }} = coopLoad{{ "" if BT else "T" }}<{{ MATRIX }}<f16, B>>(&tile_b[(from_b + {{ (c * SIDE * BLD + step * SIDE) if BT else (step * SIDE * BLD + c * SIDE) }}u) / 4u], {{ BLD // 4 }}u);
{% endfor %}
{{ multiply(step) }}        }
{% endfor %}
    }
    let y0 = batch * p.y_batch;
{% if STORED %}
{% if not EVEN %}
    if ((m0 + {{ BM }}u <= p.m) & (n0 + {{ BN }}u <= p.n)) {
{% endif %}
    let stored = p.y_at + y0 + (m0 + sm) * p.ldy + n0 + sn;
    // By a name, and so are all arguments of the stores: naga 30 stores before it computes what is written as an argument.
    let fours = p.ldy / 4u;
{% for r in range(SM) %}
{% for c in range(SN) %}
    {
        let place = (stored + {{ r * SIDE }}u * p.ldy + {{ c * SIDE }}u) / 4u;
{% if ACC %}
        let before = coopLoadT<{{ MATRIX }}<f32, C>>(&y[place], fours);
        let ended = s{{ r }}_{{ c }} * p.alpha + before;
{% else %}
        let ended = s{{ r }}_{{ c }} * p.alpha;
{% endif %}
        coopStoreT(ended, &y[place], fours);
    }
{% endfor %}
{% endfor %}
{% if not EVEN %}
    } else {
{% endif %}
{% endif %}
{% if LEAVES %}
    // Which lanes end which elements does not matter; these are those of a subgroup on every adapter there is.
    let ends = lane / {{ LANES }}u;
    let first_m = m0 + (ends / {{ GN // SN }}u) * {{ SM * SIDE }}u;
    let first_n = n0 + (ends % {{ GN // SN }}u) * {{ SN * SIDE }}u;
{% for r in range(SM) %}
{% for c in range(0, SN, OUT) %}
{% if PRELOADS %}
    let rest{{ r }}_{{ c }} = rests_of(lane % {{ LANES }}u, y0, first_m + {{ r * SIDE }}u, first_n + {{ c * SIDE }}u);
{% endif %}
{% if not loop.first or r > 0 %}
    workgroupBarrier();
{% endif %}
{% for i in range(OUT) %}
    coopStoreT(s{{ r }}_{{ c + i }}, &sums[subgroup * {{ SIDE * SLD }}u + {{ i * SIDE // 4 }}u], {{ SLD }}u);
{% endfor %}
    workgroupBarrier();
    leave(ends, lane % {{ LANES }}u, y0, first_m + {{ r * SIDE }}u, first_n + {{ c * SIDE }}u{{ (", rest" ~ r ~ "_" ~ c) if PRELOADS else "" }});
{% endfor %}
{% endfor %}
{% if STORED and not EVEN %}
    }
{% endif %}
{% endif %}
}
