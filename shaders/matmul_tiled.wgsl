// Matrix product through workgroup memory, for real GPUs. A workgroup makes a tile of BM x BN outputs, 16 steps of k at a
// time; a thread makes TM x TN of them in registers. While a step is computed, the next one's operands are on their way into
// registers, so that loads and arithmetic overlap.
//   AT: a is stored [k,m]; BT: b is stored [n,k]. Loads run along the stored rows, four elements a thread, so they coalesce.
//   WHOLE: m, n and k are multiples of the tile's sides, and both operands come in vectors: nothing needs a guard
//   PAD: numbers between the rows of a tile that is stored transposed, against bank conflicts
{% include "group.wgsl" %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
{% set comp = ["x", "y", "z", "w"] %}
{% set BK = 16 %}
{% set COLUMNS = BN // TN %}
{% set THREADS = (BM // TM) * COLUMNS %}
// Vectors of four that a thread fetches of either operand a step.
{% set ALOADS = BM * BK // 4 // THREADS %}
{% set BLOADS = BN * BK // 4 // THREADS %}
// Groups of four rows and of four columns that a thread makes; neighbouring threads' groups are neighbours, so that a
// subgroup reads the tiles without bank conflicts.
{% set ROWS = TM // 4 %}
{% set COLS = TN // 4 %}
// As [k][m] and [k][n].
{% set ALD = BM if AT else BM + PAD %}
{% set BLD = BN + PAD if BT else BN %}
var<workgroup> tile_a: array<vec4<f32>, {{ BK * ALD // 4 }}>;
var<workgroup> tile_b: array<vec4<f32>, {{ BK * BLD // 4 }}>;

// Four elements of a stored row from (row, column), zeros beyond the edge.
{% for o in ["a", "b"] %}
{% set VEC = AVEC if o == "a" else BVEC %}
fn fetch_{{ o }}(at: u32, row: u32, column: u32, rows: u32, columns: u32) -> vec4<f32> {
{% if not WHOLE %}
    if (row >= rows || column >= columns) { return vec4<f32>(); }
{% endif %}
    let place = at + row * p.ld{{ o }} + column;
{% if VEC %}
    return vec4<f32>({{ o }}[place / 4u]);
{% else %}
    var v = vec4<f32>(f32({{ o }}[place]), 0.0, 0.0, 0.0);
    if (column + 1u < columns) { v.y = f32({{ o }}[place + 1u]); }
    if (column + 2u < columns) { v.z = f32({{ o }}[place + 2u]); }
    if (column + 3u < columns) { v.w = f32({{ o }}[place + 3u]); }
    return v;
{% endif %}
}
{% endfor %}

@compute @workgroup_size({{ THREADS }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let tiles = p.tiles_m * p.tiles_n;
    let batch = g / tiles;
    let tile = g % tiles;
    let m0 = (tile / p.tiles_n) * {{ BM }}u;
    let n0 = (tile % p.tiles_n) * {{ BN }}u;
    let a_at = p.a_at + batch * p.a_batch;
    let b_at = p.b_at + batch * p.b_batch;
{% if COLUMNS % 8 == 0 and (BM // TM) % 4 == 0 %}
    // 32 neighbouring lanes, a subgroup of many GPUs, are 4 x 8 threads: each row of a tile is then read in one go.
    let quad = lane / 32u;
    let tx = (quad % {{ COLUMNS // 8 }}u) * 8u + lane % 8u;
    let ty = (quad / {{ COLUMNS // 8 }}u) * 4u + lane % 32u / 8u;
{% else %}
    let tx = lane % {{ COLUMNS }}u;
    let ty = lane / {{ COLUMNS }}u;
{% endif %}
{# Where load i of a thread lies: along k for an operand whose rows are of k, else along m or n. #}
{% macro step_of(i, transposed, width) %}{% if transposed %}(lane + {{ i * THREADS }}u) / {{ width // 4 }}u{% else %}((lane + {{ i * THREADS }}u) % {{ BK // 4 }}u) * 4u{% endif %}{% endmacro %}
{% macro line_of(i, transposed, width) %}{% if transposed %}((lane + {{ i * THREADS }}u) % {{ width // 4 }}u) * 4u{% else %}(lane + {{ i * THREADS }}u) / {{ BK // 4 }}u{% endif %}{% endmacro %}
{% for i in range(ALOADS) %}
    let a_k{{ i }} = {{ step_of(i, AT, BM) }};
    let a_m{{ i }} = {{ line_of(i, AT, BM) }};
    var x{{ i }} = {{ "fetch_a(a_at, a_k" ~ i ~ ", m0 + a_m" ~ i ~ ", p.k, p.m)" if AT else "fetch_a(a_at, m0 + a_m" ~ i ~ ", a_k" ~ i ~ ", p.m, p.k)" }};
{% endfor %}
{% for i in range(BLOADS) %}
    let b_k{{ i }} = {{ step_of(i, not BT, BN) }};
    let b_n{{ i }} = {{ line_of(i, not BT, BN) }};
    var w{{ i }} = {{ "fetch_b(b_at, n0 + b_n" ~ i ~ ", b_k" ~ i ~ ", p.n, p.k)" if BT else "fetch_b(b_at, b_k" ~ i ~ ", n0 + b_n" ~ i ~ ", p.k, p.n)" }};
{% endfor %}
{% for r in range(TM) %}
{% for c in range(COLS) %}
    var s{{ r }}_{{ c }} = vec4<f32>();
{% endfor %}
{% endfor %}
{# From registers to the tiles. #}
{% macro put() %}
{% for i in range(ALOADS) %}
{% if AT %}
        tile_a[(a_k{{ i }} * {{ ALD }}u + a_m{{ i }}) / 4u] = x{{ i }};
{% else %}
{% for j in range(4) %}
        tile_a[((a_k{{ i }} + {{ j }}u) * {{ ALD }}u + a_m{{ i }}) / 4u][a_m{{ i }} % 4u] = x{{ i }}.{{ comp[j] }};
{% endfor %}
{% endif %}
{% endfor %}
{% for i in range(BLOADS) %}
{% if BT %}
{% for j in range(4) %}
        tile_b[((b_k{{ i }} + {{ j }}u) * {{ BLD }}u + b_n{{ i }}) / 4u][b_n{{ i }} % 4u] = w{{ i }}.{{ comp[j] }};
{% endfor %}
{% else %}
        tile_b[(b_k{{ i }} * {{ BLD }}u + b_n{{ i }}) / 4u] = w{{ i }};
{% endif %}
{% endfor %}
{% endmacro %}
    for (var k0 = 0u; k0 < p.k; k0 = k0 + {{ BK }}u) {
        workgroupBarrier();
{{ put() }}        workgroupBarrier();
        // The next step's operands, which nothing waits for until they are put into a tile.
        let next = k0 + {{ BK }}u;
        if (next < p.k) {
{% for i in range(ALOADS) %}
            x{{ i }} = {{ "fetch_a(a_at, next + a_k" ~ i ~ ", m0 + a_m" ~ i ~ ", p.k, p.m)" if AT else "fetch_a(a_at, m0 + a_m" ~ i ~ ", next + a_k" ~ i ~ ", p.m, p.k)" }};
{% endfor %}
{% for i in range(BLOADS) %}
            w{{ i }} = {{ "fetch_b(b_at, n0 + b_n" ~ i ~ ", next + b_k" ~ i ~ ", p.n, p.k)" if BT else "fetch_b(b_at, next + b_k" ~ i ~ ", n0 + b_n" ~ i ~ ", p.k, p.n)" }};
{% endfor %}
        }
        for (var k = 0u; k < {{ BK }}u; k = k + 4u) {
{% for j in range(4) %}
            {
{% for r in range(ROWS) %}
                let xa{{ r }} = tile_a[(k + {{ j }}u) * {{ ALD // 4 }}u + {{ r * BM // TM }}u + ty];
{% endfor %}
{% for c in range(COLS) %}
                let wb{{ c }} = tile_b[(k + {{ j }}u) * {{ BLD // 4 }}u + {{ c * COLUMNS }}u + tx];
{% endfor %}
{% for r in range(TM) %}
{% for c in range(COLS) %}
                s{{ r }}_{{ c }} = fma(vec4<f32>(xa{{ r // 4 }}.{{ comp[r % 4] }}), wb{{ c }}, s{{ r }}_{{ c }});
{% endfor %}
{% endfor %}
            }
{% endfor %}
        }
    }
    let y0 = batch * p.y_batch;
{% for r in range(TM) %}
    {
        let m = m0 + {{ (r // 4) * (BM // TM) * 4 }}u + ty * 4u + {{ r % 4 }}u;
        if (m < p.m) {
{% for c in range(COLS) %}
            {
                let n = n0 + {{ c * COLUMNS * 4 }}u + tx * 4u;
                finish_four(s{{ r }}_{{ c }}, y0 + m * p.ldy + n, n);
            }
{% endfor %}
        }
    }
{% endfor %}
}
