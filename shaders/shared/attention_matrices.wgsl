{# What attention's kernels with cooperative matrices share; they import it, and it sees their defines. SUBGROUPS, BY, COLUMNS and
   STEPS count matrices of SIDE x SIDE: along the block of rows, of a subgroup's, along the other side, and along a head's width. #}
{% set MATRIX = "coop_mat" ~ SIDE ~ "x" ~ SIDE %}
{% set STEPS = D // SIDE %}
{% set ROWS = SUBGROUPS * BY * SIDE %}
{% set WIDE = COLUMNS * SIDE %}
{% set WG = SUBGROUPS * LANES %}
{# Vectors of a head's row; halves from a row to the next in workgroup memory, apart by 16 bytes against bank conflicts. #}
{% set VECTORS = D // 4 %}
{% set LD = D + 8 %}
{# A row's scores are shared between the lanes that there are for each row: vectors of a lane's share. #}
{% set SHARE = WIDE // 4 // (WG // ROWS) %}
{% macro part_of_row(i) %}lane % {{ WG // ROWS }}u + {{ i * (WG // ROWS) }}u{% endmacro %}

{# Rows first .. first + count, rounded to halves, to `tile`; the last row stands in for those beyond it. #}
{% macro stage(tile, source, at, stride, first, count) %}
{% set UNITS = count * VECTORS %}
{% set LOADS = (UNITS + WG - 1) // WG %}
{% for i0 in range(0, LOADS, 4) %}
        {
{% for i in range(i0, [i0 + 4, LOADS]|min) %}
            let u{{ i }} = lane + {{ i * WG }}u;
            let x{{ i }} = vec4<f16>({{ source }}[{{ at }} + min({{ first }} + u{{ i }} / {{ VECTORS }}u, p.t - 1u) * {{ stride }} + u{{ i }} % {{ VECTORS }}u]);
{% endfor %}
{% for i in range(i0, [i0 + 4, LOADS]|min) %}
            {{ ("if (u" ~ i ~ " < " ~ UNITS ~ "u) { ") if (i + 1) * WG > UNITS else "" }}{{ tile }}[u{{ i }} + u{{ i }} / {{ VECTORS }}u * 2u] = x{{ i }};{{ " }" if (i + 1) * WG > UNITS else "" }}
{% endfor %}
        }
{% endfor %}
{% endmacro %}

{# Where a subgroup's rows begin in the block; and the row that a lane has a share of. Which lanes are a subgroup does not matter. #}
{% macro places() %}
    let rows_at = subgroup * {{ BY * SIDE }}u;
    let own = lane / {{ WG // ROWS }}u;
    let row = first + own;
{% endmacro %}

{# A subgroup's rows, which lie in x, to registers. #}
{% macro load_rows(name) %}
{% for m in range(BY) %}
{% for d in range(STEPS) %}
    let {{ name }}{{ m }}_{{ d }} = coopLoadT<{{ MATRIX }}<f16, A>>(&x[(rows_at + {{ m * SIDE }}u) * {{ LD // 4 }}u + {{ d * SIDE // 4 }}u], {{ LD // 4 }}u);
{% endfor %}
{% endfor %}
{% endmacro %}

{# sum[m]_[n]: a subgroup's rows times the rows of `tile`. #}
{% macro products(sum, rows, tile) %}
{% for n in range(COLUMNS) %}
{% for m in range(BY) %}
        var {{ sum }}{{ m }}_{{ n }} = {{ MATRIX }}<f32, C>();
{% endfor %}
{% for d in range(STEPS) %}
        {
            let b = coopLoad<{{ MATRIX }}<f16, B>>(&{{ tile }}[{{ n * SIDE * LD // 4 + d * SIDE // 4 }}], {{ LD // 4 }}u);
{% for m in range(BY) %}
            {{ sum }}{{ m }}_{{ n }} = coopMultiplyAdd({{ rows }}{{ m }}_{{ d }}, b, {{ sum }}{{ m }}_{{ n }});
{% endfor %}
        }
{% endfor %}
{% endfor %}
{% endmacro %}

{# Matrices sum[m]_[n] to rows of `to`, by way of `scores`, whose rows are `ld` long and take `most` matrices at once. #}
{% macro leave(sum, to, type, at, stride, ld, most, factor) %}
{% for n0 in range(0, STEPS, most) %}
{% set count = [most, STEPS - n0]|min %}
{% set UNITS = ROWS * count * SIDE // 4 %}
    workgroupBarrier();
{% for m in range(BY) %}
{% for n in range(count) %}
    {
        let place = (rows_at + {{ m * SIDE }}u) * {{ ld // 4 }}u + {{ n * SIDE // 4 }}u;
        coopStoreT({{ sum }}{{ m }}_{{ n0 + n }}, &scores[place], {{ ld // 4 }}u);
    }
{% endfor %}
{% endfor %}
    workgroupBarrier();
    for (var u = lane; u < {{ UNITS }}u; u = u + {{ WG }}u) {
        let r = u / {{ count * SIDE // 4 }}u;
        let column = u % {{ count * SIDE // 4 }}u;
        if (live && first + r < p.t) {
            {{ to }}[{{ at }} + r * {{ stride }} + {{ n0 * SIDE // 4 }}u + column] = vec4<{{ type }}>(scores[r * {{ ld // 4 }}u + column] * {{ factor }});
        }
    }
{% endfor %}
{% endmacro %}
