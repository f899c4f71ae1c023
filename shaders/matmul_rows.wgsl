// Few rows times a matrix stored [k,n] (the layers of a language model, one token at a time), for real GPUs: 16 lanes of a
// workgroup hold 64 neighbouring columns, and four such groups share the k dimension between them.
{% include "group.wgsl" %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
var<workgroup> partial: array<vec4<f32>, 64>;

fn load_b(at: u32, n: u32) -> vec4<f32> {
{% if BVEC %}
    return vec4<f32>(b[(at + min(n, p.n - 4u)) / 4u]);
{% else %}
    return vec4<f32>({% for i in range(4) %}f32(b[at + min(n + {{ i }}u, p.n - 1u)]){{ "" if loop.last else ", " }}{% endfor %});
{% endif %}
}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let tiles = p.tiles_m * p.tiles_n;
    let batch = g / tiles;
    let tile = g % tiles;
    let m0 = (tile / p.tiles_n) * {{ ROWS }}u;
    let n0 = (tile % p.tiles_n) * 64u + (lane % 16u) * 4u;
    let part = lane / 16u;
    let a_at = p.a_at + batch * p.a_batch;
    let b_at = p.b_at + batch * p.b_batch;
{% for r in range(ROWS) %}
    let a_{{ r }} = a_at + min(m0 + {{ r }}u, p.m - 1u) * p.lda;
    var s{{ r }} = vec4<f32>();
{% endfor %}
    for (var k = part; k < p.k; k = k + 4u) {
        let w = load_b(b_at + k * p.ldb, n0);
{% for r in range(ROWS) %}
        s{{ r }} = fma(vec4<f32>(f32(a[a_{{ r }} + k])), w, s{{ r }});
{% endfor %}
    }
    let y0 = batch * p.y_batch;
{% for r in range(ROWS) %}
    partial[lane] = s{{ r }};
    workgroupBarrier();
    if (part == 0u && m0 + {{ r }}u < p.m) {
        let total = partial[lane] + partial[lane + 16u] + partial[lane + 32u] + partial[lane + 48u];
        finish_four(total, y0 + (m0 + {{ r }}u) * p.ldy + n0, n0);
    }
    workgroupBarrier();
{% endfor %}
}
