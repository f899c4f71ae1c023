// Gradients of attention, probabilities recomputed from the saved log-sum-exp (Dao et al., "FlashAttention", 2022,
// algorithm 4), without atomics. The two sides mirror each other; a lane holds ROWS of its side's rows in named registers,
// and the workgroup walks over the other side's rows together, OTHERS at a time, with uniform loads or, with SPREAD, one row
// a lane that is then broadcast (see attention.wgsl):
//   query side: a lane has q and dy, walks over k and v; makes dq, and delta = sum(dy * o), which the key side reads
//   QUERY off:  a lane has k and v, walks over q and dy; makes dk and dv
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
{% set N = (D + 3) // 4 %}
{% set comp = ["x", "y", "z", "w"] %}
{% include "attention_backward_bindings.wgsl" %}
{# What a load brings in: a register for each of the others, or with SPREAD one whose lanes are the others. #}
{% set LOADS = 1 if SPREAD else OTHERS %}
{% macro of(name, j, part) %}{% if SPREAD %}subgroupBroadcast({{ name }}0{{ part }}, {{ j }}u){% else %}{{ name }}{{ j }}{{ part }}{% endif %}{% endmacro %}
{# Components i*4 .. of a row that starts at `at` (in units of T), zeros beyond the head's width. #}
{% macro load(name, at, i) %}{% if VEC %}vec4<f32>({{ name }}[{{ at }} + {{ i }}u]){% else %}vec4<f32>({% for c in range(4) %}{{ ("f32(" ~ name ~ "[" ~ at ~ " + " ~ (4 * i + c) ~ "u])") if 4 * i + c < D else "0.0" }}{{ "" if loop.last else ", " }}{% endfor %}){% endif %}{% endmacro %}
{% macro store(at, i, value, factor) %}
{% if VEC %}
        d[{{ at }} + {{ i }}u] = vec4<{{ T5 }}>({{ value }}{{ factor }});
{% else %}
{% for n in range(4) %}{% if 4 * i + n < D %}
        d[{{ at }} + {{ 4 * i + n }}u] = {{ T5 }}({{ value }}.{{ comp[n] }}{{ factor }});
{% endif %}{% endfor %}
{% endif %}
{% endmacro %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let first = (g % p.blocks) * {{ ROWS * WG }}u;
    let head = (g / p.blocks) % p.heads;
    let batch = g / (p.blocks * p.heads);
    let c = p.heads * {{ D }}u;
    let stride = 3u * c / {{ W }};
    let dy_stride = c / {{ W }};
    let q_at = (p.qkv_at + batch * p.t * 3u * c + head * {{ D }}u) / {{ W }};
    let k_at = q_at + c / {{ W }};
    let v_at = k_at + c / {{ W }};
    let dy_at = (p.dy_at + batch * p.t * c + head * {{ D }}u) / {{ W }};
    let d_at = (p.d_at + batch * p.t * 3u * c + head * {{ D }}u) / {{ W }};
    let lse_at = p.lse_at + (batch * p.heads + head) * p.t;
    let delta_at = p.delta_at + (batch * p.heads + head) * p.t;
{% for r in range(ROWS) %}
    let row{{ r }} = first + {{ r * WG }}u + lane;
    let at{{ r }} = min(row{{ r }}, p.t - 1u);
{% if QUERY %}
    let a{{ r }} = q_at + at{{ r }} * stride;
    let b{{ r }} = dy_at + at{{ r }} * dy_stride;
    let o{{ r }} = (p.o_at + (batch * p.t + at{{ r }}) * c + head * {{ D }}u) / {{ W }};
    var delta{{ r }} = 0.0;
    let lse{{ r }} = lse[lse_at + at{{ r }}];
{% else %}
    let a{{ r }} = k_at + at{{ r }} * stride;
    let b{{ r }} = v_at + at{{ r }} * stride;
{% if PADDED %}
    let keep{{ r }} = keys[p.keys_at + batch * p.t + at{{ r }}] != 0u;
{% endif %}
{% endif %}
{% for i in range(N) %}
    let a{{ r }}_{{ i }} = {{ load("qkv", "a" ~ r, i) }} * p.scale;
    let b{{ r }}_{{ i }} = {{ load("dy" if QUERY else "qkv", "b" ~ r, i) }};
    var da{{ r }}_{{ i }} = vec4<f32>();
{% if QUERY %}
    delta{{ r }} = delta{{ r }} + dot(b{{ r }}_{{ i }}, {{ load("o", "o" ~ r, i) }});
{% else %}
    var db{{ r }}_{{ i }} = vec4<f32>();
{% endif %}
{% endfor %}
{% endfor %}
{% if QUERY %}
    let start = {{ "first + 1u - min(first + 1u, p.band)" if BAND else "0u" }};
    let end = {{ "min(p.t, first + " ~ (ROWS * WG) ~ "u)" if CAUSAL else "p.t" }};
{% else %}
    let start = {{ "first" if CAUSAL else "0u" }};
    let end = {{ "min(p.t, first + p.band + " ~ ((ROWS * WG) - 1) ~ "u)" if BAND else "p.t" }};
{% endif %}
    for (var at = start; at < end; at = at + {{ OTHERS }}u) {
{% for j in range(LOADS) %}
        let place{{ j }} = at + {{ "lane" if SPREAD else j ~ "u" }};
        let other{{ j }} = min(place{{ j }}, end - 1u);
{% if QUERY %}
        let m{{ j }} = k_at + other{{ j }} * stride;
        let n{{ j }} = v_at + other{{ j }} * stride;
        let keep{{ j }} = {{ "select(0u, keys[p.keys_at + batch * p.t + other" ~ j ~ "]" if PADDED else "select(0u, 1u" }}, place{{ j }} < end);
{% else %}
        let m{{ j }} = q_at + other{{ j }} * stride;
        let n{{ j }} = dy_at + other{{ j }} * dy_stride;
        let lse{{ j }} = lse[lse_at + other{{ j }}];
        let delta{{ j }} = delta[delta_at + other{{ j }}];
{% endif %}
{% endfor %}
{% for j in range(OTHERS) %}
{% if QUERY %}
        let keep_{{ j }} = {{ of("keep", j, "") }} != 0u;
{% else %}
        let lse_{{ j }} = {{ of("lse", j, "") }};
        let delta_{{ j }} = {{ of("delta", j, "") }};
{% endif %}
{% for r in range(ROWS) %}
        var s{{ r }}_{{ j }} = 0.0;
        var t{{ r }}_{{ j }} = 0.0;
{% endfor %}
{% endfor %}
{% for i in range(N) %}
        {
{% for j in range(LOADS) %}
            let x{{ j }} = {{ load("qkv", "m" ~ j, i) }};
            let y{{ j }} = {{ load("qkv" if QUERY else "dy", "n" ~ j, i) }};
{% endfor %}
{% for j in range(OTHERS) %}{% for n in range(4) %}{% if 4 * i + n < D %}
            let x_{{ j }}_{{ n }} = {{ of("x", j, "." ~ comp[n]) }};
            let y_{{ j }}_{{ n }} = {{ of("y", j, "." ~ comp[n]) }};
{% for r in range(ROWS) %}
            s{{ r }}_{{ j }} = fma(a{{ r }}_{{ i }}.{{ comp[n] }}, x_{{ j }}_{{ n }}, s{{ r }}_{{ j }});
            t{{ r }}_{{ j }} = fma(b{{ r }}_{{ i }}.{{ comp[n] }}, y_{{ j }}_{{ n }}, t{{ r }}_{{ j }});
{% endfor %}
{% endif %}{% endfor %}{% endfor %}
        }
{% endfor %}
{% for r in range(ROWS) %}{% for j in range(OTHERS) %}
{% set side = r if QUERY else "_" ~ j %}
{% if QUERY %}
{% set keep = "keep_" ~ j ~ ((" && at + " ~ j ~ "u <= row" ~ r) if CAUSAL else "") ~ ((" && at + " ~ j ~ "u + p.band > row" ~ r) if BAND else "") %}
{% else %}
{% set keep = "at + " ~ j ~ "u < end" ~ ((" && keep" ~ r) if PADDED else "") ~ ((" && at + " ~ j ~ "u >= row" ~ r) if CAUSAL else "") ~ ((" && at + " ~ j ~ "u < row" ~ r ~ " + p.band") if BAND else "") %}
{% endif %}
        let p{{ r }}_{{ j }} = select(0.0, exp(s{{ r }}_{{ j }} - lse{{ side }}), {{ keep }});
        let ds{{ r }}_{{ j }} = p{{ r }}_{{ j }} * (t{{ r }}_{{ j }} - delta{{ side }});
{% endfor %}{% endfor %}
{% for i in range(N) %}
        {
{% for j in range(LOADS) %}
            let x{{ j }} = {{ load("qkv", "m" ~ j, i) }};
{% if not QUERY %}
            let y{{ j }} = {{ load("dy", "n" ~ j, i) }};
{% endif %}
{% endfor %}
{% for j in range(OTHERS) %}
            let x_{{ j }} = {{ of("x", j, "") }};
{% if not QUERY %}
            let y_{{ j }} = {{ of("y", j, "") }};
{% endif %}
{% for r in range(ROWS) %}
            da{{ r }}_{{ i }} = fma(vec4<f32>(ds{{ r }}_{{ j }}), x_{{ j }}, da{{ r }}_{{ i }});
{% if not QUERY %}
            db{{ r }}_{{ i }} = fma(vec4<f32>(p{{ r }}_{{ j }}), y_{{ j }}, db{{ r }}_{{ i }});
{% endif %}
{% endfor %}
{% endfor %}
        }
{% endfor %}
    }
{% for r in range(ROWS) %}
    if (row{{ r }} < p.t) {
        let to{{ r }} = d_at + row{{ r }} * stride{{ "" if QUERY else " + c / " ~ W }};
{% for i in range(N) %}
{{ store("to" ~ r, i, "da" ~ r ~ "_" ~ i, " * p.scale") }}
{% if not QUERY %}
{{ store("to" ~ r ~ " + c / " ~ W, i, "db" ~ r ~ "_" ~ i, "") }}
{% endif %}
{% endfor %}
{% if QUERY %}
        delta[delta_at + row{{ r }}] = delta{{ r }};
{% endif %}
    }
{% endfor %}
}
