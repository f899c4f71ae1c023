// Matrix product straight from storage, for software adapters: a subgroup of 8 lanes holds ROWS x 64 outputs in named
// registers. The operand U is read at addresses that are uniform over the workgroup (a scalar load and a broadcast), the
// operand V contiguously over the lanes. No workgroup memory, no barrier.
//   plain:  y = U V with U = op(a) [m,k], V = b [k,n]            (UT: a is stored [k,m])
//   SWAP:   U = b stored [n,k], V = a stored [k,m]: lanes run over m; the caller has transposed a
{% include "group.wgsl" %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
{% set U = "b" if SWAP else "a" %}
{% set V = "a" if SWAP else "b" %}
{% set UVEC = BVEC if SWAP else AVEC %}
{% set VVEC = AVEC if SWAP else BVEC %}
{% set ldu = "p.ldb" if SWAP else "p.lda" %}
{% set ldv = "p.lda" if SWAP else "p.ldb" %}
{% set comp = ["x", "y", "z", "w"] %}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let tiles = p.tiles_m * p.tiles_n;
    let batch = g / tiles;
    let tile = g % tiles;
    // Neighbouring workgroups share the panel of V, which is the larger one.
    let tiles_u = {{ "p.tiles_n" if SWAP else "p.tiles_m" }};
    let u0 = (tile % tiles_u) * {{ ROWS }}u;
    let v0 = (tile / tiles_u) * {{ 32 * COLS }}u + lane * 4u;
    let u_size = {{ "p.n" if SWAP else "p.m" }};
    let v_size = {{ "p.m" if SWAP else "p.n" }};
    let u_at = p.{{ U }}_at + batch * p.{{ U }}_batch;
    let v_at = p.{{ V }}_at + batch * p.{{ V }}_batch;
{# Rows and columns beyond the edge repeat the last one, and are not written. #}
{% for r in range(ROWS) %}
{% if UT %}
{% if not UVEC %}
    let u_{{ r }} = u_at + min(u0 + {{ r }}u, u_size - 1u);
{% elif r % 4 == 0 %}
    let u_{{ r }} = (u_at + min(u0 + {{ r }}u, u_size - 4u)) / 4u;
{% endif %}
{% else %}
    let u_{{ r }} = (u_at + min(u0 + {{ r }}u, u_size - 1u) * {{ ldu }}){{ " / 4u" if UVEC else "" }};
{% endif %}
{% endfor %}
{% for c in range(COLS) %}
{% if VVEC %}
    var v_{{ c }} = (v_at + min(v0 + {{ 32 * c }}u, v_size - 4u)) / 4u;
{% else %}
    let v_{{ c }} = v_at + min(v0 + {{ 32 * c }}u, v_size - 1u);
{% for i in range(1, 4) %}
    let v_{{ c }}_{{ i }} = v_at + min(v0 + {{ 32 * c + i }}u, v_size - 1u);
{% endfor %}
{% endif %}
{% endfor %}
{% for r in range(ROWS) %}{% for c in range(COLS) %}
    var s{{ r }}_{{ c }} = vec4<f32>();
{% endfor %}{% endfor %}
{% macro load_v(k) %}
{% for c in range(COLS) %}
{% if VVEC %}
        let w{{ c }} = {{ V }}[v_{{ c }} + ({{ k }}) * ({{ ldv }} / 4u)];
{% else %}
        let w{{ c }} = vec4<f32>({{ V }}[v_{{ c }} + ({{ k }}) * {{ ldv }}]{% for i in range(1, 4) %}, {{ V }}[v_{{ c }}_{{ i }} + ({{ k }}) * {{ ldv }}]{% endfor %});
{% endif %}
{% endfor %}
{% endmacro %}
{% if UVEC and not UT %}
    // Four steps of k at once: U in vec4s along k.
    for (var k = 0u; k < p.k; k = k + 4u) {
{% for r in range(ROWS) %}
        let x{{ r }} = {{ U }}[u_{{ r }} + k / 4u];
{% endfor %}
{% for i in range(4) %}
        {
{{ load_v("k + " ~ i ~ "u") }}
{% for r in range(ROWS) %}{% for c in range(COLS) %}
        s{{ r }}_{{ c }} = fma(vec4<f32>(x{{ r }}.{{ comp[i] }}), w{{ c }}, s{{ r }}_{{ c }});
{% endfor %}{% endfor %}
        }
{% endfor %}
    }
{% else %}
    for (var k = 0u; k < p.k; k = k + 1u) {
{{ load_v("k") }}
{% for r in range(ROWS) %}
{% if UT and UVEC %}
{% if r % 4 == 0 %}
        let x{{ r }} = {{ U }}[u_{{ r }} + k * ({{ ldu }} / 4u)];
{% endif %}
{% set value = "x" ~ (r // 4 * 4) ~ "." ~ comp[r % 4] %}
{% elif UT %}
        let x{{ r }} = {{ U }}[u_{{ r }} + k * {{ ldu }}];
{% set value = "x" ~ r %}
{% else %}
        let x{{ r }} = {{ U }}[u_{{ r }} + k];
{% set value = "x" ~ r %}
{% endif %}
{% for c in range(COLS) %}
        s{{ r }}_{{ c }} = fma(vec4<f32>({{ value }}), w{{ c }}, s{{ r }}_{{ c }});
{% endfor %}
{% endfor %}
    }
{% endif %}
    let y0 = batch * p.y_batch;
{% for c in range(COLS) %}{% for i in range(4) %}
    {
        let v = v0 + {{ 32 * c + i }}u;
        if (v < v_size) {
{% for r in range(ROWS) %}
{% if SWAP %}
            if (u0 + {{ r }}u < u_size) { finish(s{{ r }}_{{ c }}.{{ comp[i] }}, y0 + v * p.ldy + u0 + {{ r }}u, u0 + {{ r }}u); }
{% else %}
            if (u0 + {{ r }}u < u_size) { finish(s{{ r }}_{{ c }}.{{ comp[i] }}, y0 + (u0 + {{ r }}u) * p.ldy + v, v); }
{% endif %}
{% endfor %}
        }
    }
{% endfor %}{% endfor %}
}
