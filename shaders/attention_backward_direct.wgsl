// Gradients of attention, probabilities recomputed from the saved log-sum-exp (Dao et al., "FlashAttention", 2022, algorithm 4),
// without atomics, for software adapters: as attention_direct.wgsl, operands in images. The two sides mirror each other; a workgroup has
// ROWS of its side's rows and walks over the other side's, 32 at a time, which are the lanes' columns of scores and probabilities:
//   query side: own rows are q and dy, the others k and v; makes dq, and delta = sum(dy * o), which the key side reads
//   QUERY off:  own rows are k and v, the others q and dy; makes dk and dv
{% set IMAGE = true %}
{% include "group.wgsl" %}
{% set V = "vec4<" %}
{% set E = ">" %}
{% include "attention_backward_bindings.wgsl" %}
{% from "attention_images.wgsl" import N, NV, accumulate, comp, lanes, load, vectors %}
{% set other = "qkv" if QUERY else "dy" %}
{% set own = "dy" if QUERY else "qkv" %}
{% set each_own = "c" if QUERY else "3u * c" %}
{% set each_other = "3u * c" if QUERY else "c" %}

@compute @workgroup_size(8)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    // Those that take longest with a causal mask first.
    let first = {{ "(p.blocks - 1u - g % p.blocks)" if QUERY else "g % p.blocks" }} * {{ ROWS }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    // In vectors.
    let c = p.heads * {{ N }}u;
    let q_at = p.qkv_at / 4u + batch * p.t * 3u * c + head * {{ N }}u;
    let k_at = q_at + c;
    let v_at = k_at + c;
    let dy_at = p.dy_at / 4u + batch * p.t * c + head * {{ N }}u;
    let lse_at = p.lse_at + (batch * p.heads + head) * p.t;
    let delta_at = p.delta_at + (batch * p.heads + head) * p.t;
{% for l in range(ROWS // 8) %}
    let row_{{ l }} = min(first + {{ 8 * l }}u + lane, p.t - 1u);
    let a_{{ l }} = {{ "q_at" if QUERY else "k_at" }} + row_{{ l }} * 3u * c;
    let b_{{ l }} = {{ "dy_at" if QUERY else "v_at" }} + row_{{ l }} * {{ each_own }};
{% if QUERY %}
    let lse_{{ l }} = lse[lse_at + row_{{ l }}];
    var delta_{{ l }} = 0.0;
    let o_{{ l }} = p.o_at / 4u + (batch * p.t + row_{{ l }}) * c + head * {{ N }}u;
    for (var i = 0u; i < {{ N }}u; i = i + 1u) {
        delta_{{ l }} = delta_{{ l }} + dot(vec4<f32>(o[o_{{ l }} + i]), {{ load("dy", "b_" ~ l ~ " + i") }});
    }
    if (first + {{ 8 * l }}u + lane < p.t) { delta[delta_at + row_{{ l }}] = delta_{{ l }}; }
{% elif PADDED %}
    let keep_{{ l }} = f32(keys[p.keys_at + batch * p.t + row_{{ l }}] != 0u);
{% endif %}
{% endfor %}
{% for n in range(NV) %}
    let x_{{ n }} = {{ "k_at" if QUERY else "q_at" }} + {{ vectors(n, N) }};
{% if not QUERY %}
    let y_{{ n }} = dy_at + {{ vectors(n, N) }};
{% endif %}
{% endfor %}
{% for r in range(ROWS) %}{% for n in range(NV) %}
    var da{{ r }}_{{ n }} = vec4<f32>();
{% if not QUERY %}
    var db{{ r }}_{{ n }} = vec4<f32>();
{% endif %}
{% endfor %}{% endfor %}
{% if QUERY %}
    let start = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }};
    let end = {{ "min(p.t, first + " ~ ROWS ~ "u)" if CAUSAL else "p.t" }};
{% else %}
    let start = {{ "first" if CAUSAL else "0u" }};
    let end = {{ "min(p.t, first + p.band + " ~ (ROWS - 1) ~ "u)" if BAND else "p.t" }};
{% endif %}
    for (var at = start; at < end; at = at + 32u) {
        let places = vec4<u32>(at + lane) + vec4<u32>(0u, 8u, 16u, 24u);
        let rows = min(places, vec4<u32>(p.t - 1u));
        let m_at = vec4<u32>({{ "k_at" if QUERY else "q_at" }}) + rows * (3u * c);
        let n_at = vec4<u32>({{ "v_at" if QUERY else "dy_at" }}) + rows * ({{ each_other }});
{% if QUERY and PADDED %}
        let kept_at = p.keys_at + batch * p.t;
        let keep = (places < vec4<u32>(end)) & ({{ lanes("u32", "keys[kept_at + rows.", "]") }} != vec4<u32>());
{% else %}
        let keep = places < vec4<u32>(end);
{% endif %}
{% if not QUERY %}
        let lse = {{ lanes("f32", "lse[lse_at + rows.", "]") }};
        let delta = {{ lanes("f32", "delta[delta_at + rows.", "]") }};
{% endif %}
{% for r in range(ROWS) %}
        var s{{ r }} = vec4<f32>();
        var t{{ r }} = vec4<f32>();
{% endfor %}
        for (var i = 0u; i < {{ N }}u; i = i + 1u) {
{% for side, at, source in [("a", "m_at", "qkv"), ("b", "n_at", other)] %}
{% for j in range(4) %}
            let x{{ side }}_{{ j }} = {{ load(source, at ~ "." ~ comp[j] ~ " + i") }};
{% endfor %}
{% for n in range(4) %}
            let w{{ side }}_{{ n }} = vec4<f32>({% for j in range(4) %}x{{ side }}_{{ j }}.{{ comp[n] }}{{ "" if loop.last else ", " }}{% endfor %});
{% endfor %}
{% for r in range(ROWS) %}
{% set sum = ("s" if side == "a" else "t") ~ r %}
{% if r % 8 == 0 %}
            let z{{ side }}_{{ r // 8 }} = {{ load("qkv" if side == "a" else own, side ~ "_" ~ (r // 8) ~ " + i") }}{{ " * p.scale" if side == "a" else "" }};
{% endif %}
{% for n in range(4) %}
            {{ sum }} = fma(vec4<f32>(subgroupBroadcast(z{{ side }}_{{ r // 8 }}.{{ comp[n] }}, {{ r % 8 }}u)), w{{ side }}_{{ n }}, {{ sum }});
{% endfor %}
{% endfor %}
{% endfor %}
        }
{% for r in range(ROWS) %}
{% set row = "vec4<u32>(first + " ~ r ~ "u)" %}
{% set owner = "_" ~ (r // 8) ~ ", " ~ (r % 8) ~ "u)" %}
{% if QUERY %}
{% set keep = "keep" ~ ((" & (places <= " ~ row ~ ")") if CAUSAL else "") ~ ((" & (places + p.band > " ~ row ~ ")") if BAND else "") %}
{% else %}
{% set keep = "keep" ~ ((" & (places >= " ~ row ~ ")") if CAUSAL else "") ~ ((" & (places < " ~ row ~ " + p.band)") if BAND else "") %}
{% endif %}
        var p{{ r }} = select(vec4<f32>(), exp(s{{ r }} - {{ "subgroupBroadcast(lse" ~ owner if QUERY else "lse" }}), {{ keep }}){{ (" * subgroupBroadcast(keep" ~ owner) if PADDED and not QUERY else "" }};
        var ds{{ r }} = p{{ r }} * (t{{ r }} - {{ "subgroupBroadcast(delta" ~ owner if QUERY else "delta" }});
{% endfor %}
        for (var begin = at; begin < min(end, at + 32u); begin = begin + 8u) {
{{ accumulate("da", "ds", "qkv", "x", "3u * c") }}
{% if not QUERY %}
{{ accumulate("db", "p", "dy", "y", "c") }}
{% endif %}
        }
    }
    let d_at = p.d_at / 4u + (batch * p.t + first) * 3u * c + head * {{ N }}u{{ "" if QUERY else " + c" }} + lane;
{% for r in range(ROWS) %}
    if (first + {{ r }}u < p.t) {
{% for n in range(NV) %}
        {{ "if (lane < " ~ (N - 8 * n) ~ "u) " if 8 * n + 8 > N else "" }}{
            d[d_at + {{ r }}u * 3u * c + {{ 8 * n }}u] = vec4<{{ T5 }}>(da{{ r }}_{{ n }} * p.scale);
{% if not QUERY %}
            d[d_at + {{ r }}u * 3u * c + c + {{ 8 * n }}u] = vec4<{{ T5 }}>(db{{ r }}_{{ n }});
{% endif %}
        }
{% endfor %}
    }
{% endfor %}
}
