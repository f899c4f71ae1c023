// Matrix product through workgroup memory, for real GPUs: 16 x 16 threads of 4 x 4 outputs, a 64 x 64 tile, 16 steps of k
// at a time. AT: a is stored [k,m]; BT: b is stored [n,k]. Loads run along the stored rows, so they coalesce.
{% include "group.wgsl" %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
{% set comp = ["x", "y", "z", "w"] %}
// Tiles as [k][64], so that a thread reads its four rows or columns as one vec4.
var<workgroup> tile_a: array<vec4<f32>, 256>;
var<workgroup> tile_b: array<vec4<f32>, 256>;

fn load_a(at: u32, m: u32, k: u32) -> f32 {
    if (m >= p.m || k >= p.k) { return 0.0; }
    return a[at + {{ "k * p.lda + m" if AT else "m * p.lda + k" }}];
}
fn load_b(at: u32, k: u32, n: u32) -> f32 {
    if (n >= p.n || k >= p.k) { return 0.0; }
    return b[at + {{ "n * p.ldb + k" if BT else "k * p.ldb + n" }}];
}

@compute @workgroup_size(256)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let tiles = p.tiles_m * p.tiles_n;
    let batch = g / tiles;
    let tile = g % tiles;
    let m0 = (tile / p.tiles_n) * 64u;
    let n0 = (tile % p.tiles_n) * 64u;
    let a_at = p.a_at + batch * p.a_batch;
    let b_at = p.b_at + batch * p.b_batch;
    let tx = lane % 16u;
    let ty = lane / 16u;
    // Each thread fetches four neighbours: of a row of k for a plain operand a, of m for a transposed one; likewise b.
    let a_m = {{ "(lane % 16u) * 4u" if AT else "lane / 4u" }};
    let a_k = {{ "lane / 16u" if AT else "(lane % 4u) * 4u" }};
    let b_n = {{ "lane / 4u" if BT else "(lane % 16u) * 4u" }};
    let b_k = {{ "(lane % 4u) * 4u" if BT else "lane / 16u" }};
{% for r in range(4) %}
    var s{{ r }} = vec4<f32>();
{% endfor %}
    for (var k0 = 0u; k0 < p.k; k0 = k0 + 16u) {
{% for i in range(4) %}
        let x{{ i }} = {{ "load_a(a_at, m0 + a_m + " ~ i ~ "u, k0 + a_k)" if AT else "load_a(a_at, m0 + a_m, k0 + a_k + " ~ i ~ "u)" }};
        let w{{ i }} = {{ "load_b(b_at, k0 + b_k + " ~ i ~ "u, n0 + b_n)" if BT else "load_b(b_at, k0 + b_k, n0 + b_n + " ~ i ~ "u)" }};
{% endfor %}
        workgroupBarrier();
{% if AT %}
        tile_a[a_k * 16u + a_m / 4u] = vec4<f32>(x0, x1, x2, x3);
{% else %}
{% for i in range(4) %}
        tile_a[(a_k + {{ i }}u) * 16u + a_m / 4u][a_m % 4u] = x{{ i }};
{% endfor %}
{% endif %}
{% if BT %}
{% for i in range(4) %}
        tile_b[(b_k + {{ i }}u) * 16u + b_n / 4u][b_n % 4u] = w{{ i }};
{% endfor %}
{% else %}
        tile_b[b_k * 16u + b_n / 4u] = vec4<f32>(w0, w1, w2, w3);
{% endif %}
        workgroupBarrier();
{% for k in range(16) %}
        {
            let x = tile_a[{{ k * 16 }}u + ty];
            let w = tile_b[{{ k * 16 }}u + tx];
{% for r in range(4) %}
            s{{ r }} = fma(vec4<f32>(x.{{ comp[r] }}), w, s{{ r }});
{% endfor %}
        }
{% endfor %}
    }
    let y0 = batch * p.y_batch;
{% for r in range(4) %}
    {
        let m = m0 + ty * 4u + {{ r }}u;
        let n = n0 + tx * 4u;
        if (m < p.m) { finish_four(s{{ r }}, y0 + m * p.ldy + n, n); }
    }
{% endfor %}
}
