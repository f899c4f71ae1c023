// Few rows times a matrix stored [n,k] (the tied head of a language model, one token at a time): the lanes of a workgroup
// run along k, contiguously; each workgroup makes ROWS x COLS dot products.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
{% set W = "4u" if AVEC else "1u" %}
{% set T = "vec4<f32>" if AVEC else "f32" %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let tiles = p.tiles_m * p.tiles_n;
    let batch = g / tiles;
    let tile = g % tiles;
    let m0 = (tile / p.tiles_n) * {{ ROWS }}u;
    let n0 = (tile % p.tiles_n) * {{ COLS }}u;
    let a_at = p.a_at + batch * p.a_batch;
    let b_at = p.b_at + batch * p.b_batch;
{% for r in range(ROWS) %}
    let a_{{ r }} = (a_at + min(m0 + {{ r }}u, p.m - 1u) * p.lda) / {{ W }};
{% for c in range(COLS) %}
    var s{{ r }}_{{ c }} = {{ T }}();
{% endfor %}{% endfor %}
{% for c in range(COLS) %}
    let b_{{ c }} = (b_at + min(n0 + {{ c }}u, p.n - 1u) * p.ldb) / {{ W }};
{% endfor %}
    for (var k = lane; k < p.k / {{ W }}; k = k + {{ WG }}u) {
{% for r in range(ROWS) %}
        let x{{ r }} = {{ T }}(a[a_{{ r }} + k]);
{% endfor %}
{% for c in range(COLS) %}
        let w{{ c }} = {{ T }}(b[b_{{ c }} + k]);
{% for r in range(ROWS) %}
        s{{ r }}_{{ c }} = fma(x{{ r }}, w{{ c }}, s{{ r }}_{{ c }});
{% endfor %}
{% endfor %}
    }
    let y0 = batch * p.y_batch;
{% for r in range(ROWS) %}{% for c in range(COLS) %}
    {
        let total = reduce_sum(lane, {{ "dot(s" ~ r ~ "_" ~ c ~ ", vec4<f32>(1.0))" if AVEC else "s" ~ r ~ "_" ~ c }});
        if (lane == 0u && m0 + {{ r }}u < p.m && n0 + {{ c }}u < p.n) {
            finish(total, y0 + (m0 + {{ r }}u) * p.ldy + n0 + {{ c }}u, n0 + {{ c }}u);
        }
    }
{% endfor %}{% endfor %}
}
