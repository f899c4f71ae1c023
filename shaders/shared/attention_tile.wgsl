{# What the tiled kernels of attention share; they import it, and it sees their defines. A workgroup has ROWS rows of one side and
   meets the other side's COLUMNS at a time; a lane, at (tx, ty), makes TM x 4 of a tile of scores, and TM rows by every TX-th vector
   of a product with it. Rows in workgroup memory are D wide, in vectors.
   SUBGROUP: the lanes side by side, which have a row of scores between them, are of one subgroup of so many lanes, and exchange what
   they have of it by shuffles; else, where it is 0, through workgroup memory. #}
{% set comp = ["x", "y", "z", "w"] %}
{# Vectors of a row; lanes side by side, which is also vectors of a row of scores; vectors that a lane makes of a row of D. #}
{% set N = D // 4 %}
{% set TX = COLUMNS // 4 %}
{% set WG = (ROWS // TM) * TX %}
{% set GROUPS = (N + TX - 1) // TX %}
{# Lanes side by side read a vector of every fourth row of the columns' tile, so those must lie in different banks. Where rows are
   multiples of eight vectors, each four rows have their vectors in another order; else they are one vector further apart. #}
{% set SWIZZLE = N % 8 == 0 %}
{% set FOUR = 4 * N if SWIZZLE else 4 * N + 1 %}
{% set COLUMN_VECTORS = COLUMNS // 4 * FOUR %}
{% macro vector(c, four) %}{% if SWIZZLE %}({{ c }} ^ ({{ four }} & 7u)){% else %}{{ c }}{% endif %}{% endmacro %}

{# Rows first .. first + count of what is stored `stride` vectors apart from `at` go to `tile`; the last of `limit` rows stands in
   for those beyond it, whose scores are masked or never stored. #}
{% macro stage(tile, source, at, stride, first, limit, count, columns, factor) %}
{% set UNITS = count * N %}
{% set LOADS = (UNITS + WG - 1) // WG %}
{% for i0 in range(0, LOADS, 4) %}
        {
{% for i in range(i0, [i0 + 4, LOADS]|min) %}
            let u{{ i }} = lane + {{ i * WG }}u;
            let x{{ i }} = vec4<f32>({{ source }}[{{ at }} + min({{ first }} + u{{ i }} / {{ N }}u, {{ limit }} - 1u) * {{ stride }} + u{{ i }} % {{ N }}u]){{ factor }};
{% endfor %}
{% for i in range(i0, [i0 + 4, LOADS]|min) %}
{% set place = "u" ~ i if not columns else (("u" ~ i ~ " ^ (u" ~ i ~ " / " ~ FOUR ~ "u & 7u)") if SWIZZLE else ("u" ~ i ~ " + u" ~ i ~ " / " ~ (4 * N) ~ "u")) %}
            {{ ("if (u" ~ i ~ " < " ~ UNITS ~ "u) { ") if (i + 1) * WG > UNITS else "" }}{{ tile }}[{{ place }}] = x{{ i }};{{ " }" if (i + 1) * WG > UNITS else "" }}
{% endfor %}
        }
{% endfor %}
{% endmacro %}

{# s[r] += row r of `a` times each of the lane's four rows of `x`. #}
{% macro scores(s, a, x) %}
        for (var c = 0u; c < {{ N }}u; c = c + 1u) {
            let at = tx * {{ FOUR }}u + {{ vector("c", "tx") }};
{% for j in range(4) %}
            let w{{ j }} = {{ x }}[at + {{ j * N }}u];
{% endfor %}
{% for n in comp %}
            let w_{{ n }} = vec4<f32>(w0.{{ n }}, w1.{{ n }}, w2.{{ n }}, w3.{{ n }});
{% endfor %}
{% for r in range(TM) %}
            let a{{ r }} = {{ a }}[(ty * {{ TM }}u + {{ r }}u) * {{ N }}u + c];
{% for n in comp %}
            {{ s }}{{ r }} = fma(vec4<f32>(a{{ r }}.{{ n }}), w_{{ n }}, {{ s }}{{ r }});
{% endfor %}
{% endfor %}
        }
{% endmacro %}

{# sum[r]_[n] += the scores' tile, of which a lane has s[r], times `x`. #}
{% macro gather(sum, x, s) %}
        for (var four = 0u; four < {{ TX }}u; four = four + 1u) {
{% for r in range(TM) %}
            let t{{ r }} = {% if SUBGROUP %}subgroupShuffle({{ s }}{{ r }}, row_lanes + four){% else %}t[(ty * {{ TM }}u + {{ r }}u) * {{ TX }}u + four]{% endif %};
{% endfor %}
{% for n in range(GROUPS) %}
            {
                let at = four * {{ FOUR }}u + {{ vector("c" ~ n, "four") }};
{% for j in range(4) %}
                let w{{ j }} = {{ x }}[at + {{ j * N }}u];
{% for r in range(TM) %}
                {{ sum }}{{ r }}_{{ n }} = fma(vec4<f32>(t{{ r }}.{{ comp[j] }}), w{{ j }}, {{ sum }}{{ r }}_{{ n }});
{% endfor %}
{% endfor %}
            }
{% endfor %}
        }
{% endmacro %}

{# With SUBGROUP: the largest, or the sum, of what a row's lanes have. Pairs are added up before pairs of pairs, so all get the same. #}
{% macro row_max(x) %}
{% for i in range(6) if 2 ** i < TX %}
        {{ x }} = max({{ x }}, subgroupShuffleXor({{ x }}, {{ 2 ** i }}u));
{% endfor %}
{% endmacro %}
{% macro row_sum(x) %}
{% for i in range(6) if 2 ** i < TX %}
        {{ x }} = {{ x }} + subgroupShuffleXor({{ x }}, {{ 2 ** i }}u);
{% endfor %}
{% endmacro %}

{# Where a lane is, and which vectors of a row are its own; the last stands in for those beyond. #}
{% macro places() %}
    let tx = lane % {{ TX }}u;
    let ty = lane / {{ TX }}u;
{% if SUBGROUP %}
    // The first of the row's lanes in their subgroup.
    let row_lanes = lane % {{ SUBGROUP }}u - tx;
{% endif %}
{% for n in range(GROUPS) %}
    let c{{ n }} = {{ "min(tx + " ~ (n * TX) ~ "u, " ~ (N - 1) ~ "u)" if (n + 1) * TX > N else "tx + " ~ (n * TX) ~ "u" }};
{% endfor %}
{% endmacro %}

{# Stores a lane's vectors of row r. #}
{% macro store(to, type, at, sum, r, factor) %}
{% for n in range(GROUPS) %}
        {{ ("if (tx + " ~ (n * TX) ~ "u < " ~ N ~ "u) { ") if (n + 1) * TX > N else "" }}{{ to }}[{{ at }} + c{{ n }}] = vec4<{{ type }}>({{ sum }}{{ r }}_{{ n }} * {{ factor }});{{ " }" if (n + 1) * TX > N else "" }}
{% endfor %}
{% endmacro %}
