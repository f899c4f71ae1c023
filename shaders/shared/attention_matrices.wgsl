{# What attention's kernels with cooperative matrices share; they import it, and it sees their defines. SUBGROUPS, BY, COLUMNS and
   STEPS count matrices of SIDE x SIDE: along the block of rows, of a subgroup's, along the other side, and along a head's width. #}
{% set MATRIX = "coop_mat" ~ SIDE ~ "x" ~ SIDE %}
{% set STEPS = D // SIDE %}
{% set ROWS = SUBGROUPS * BY * SIDE %}
{% set WIDE = COLUMNS * SIDE %}
{% set WG = SUBGROUPS * LANES %}
{# Vectors of four, and of eight, of a head's row; halves from a row to the next in workgroup memory, apart by 16 bytes against bank
   conflicts. #}
{% set VECTORS = D // 4 %}
{% set EIGHTS = D // 8 %}
{% set LD = D + 8 %}
{# A row's scores are shared between the lanes that there are for each row: vectors of a lane's share. #}
{% set SHARED = WG // ROWS %}
{% set SHARE = WIDE // 4 // SHARED %}
{# Floats behind a row of scores: eight lanes at a time read a vector each, of eight rows or of two neighbours in each of four, and
   these are to be of different banks. #}
{% set PAD = 4 if SHARED == 1 else 8 %}
{% macro part_of_row(i) %}lane % {{ SHARED }}u + {{ i * SHARED }}u{% endmacro %}

{# The two fours of eight numbers that were read, as halves. #}
{% macro low(x, type) %}{% if type == "f16" %}halves({{ x }}.xy){% else %}vec4<f16>({{ x }}l){% endif %}{% endmacro %}
{% macro high(x, type) %}{% if type == "f16" %}halves({{ x }}.zw){% else %}vec4<f16>({{ x }}h){% endif %}{% endmacro %}
{# Eights that a lane has of a block of `count` rows. #}
{% macro loads(count) %}{{ (count * EIGHTS + WG - 1) // WG }}{% endmacro %}

{# Registers for a lane's part of a block of `count` rows. #}
{% macro registers(x, type, count) %}
{% for i in range(loads(count)|int) %}
{% if type == "f16" %}
    var {{ x }}{{ i }} = vec4<u32>();
{% else %}
    var {{ x }}{{ i }}l = vec4<f32>();
    var {{ x }}{{ i }}h = vec4<f32>();
{% endif %}
{% endfor %}
{% endmacro %}

{# To these registers: rows first .. first + count, as they are in storage. The last row stands in for those beyond it; `at` and
   `stride` count eights. Where this runs ahead of its use it stands inside of a condition: otherwise NVIDIA's compiler moves it down
   to that use, past barriers. #}
{% macro fetch(x, source, type, at, stride, first, count, from=0, to=1000) %}
{% for i in range(from, [to, loads(count)|int]|min) %}
            {
                let u = lane + {{ i * WG }}u;
                let place = {{ at }} + min({{ first }} + u / {{ EIGHTS }}u, p.t - 1u) * {{ stride }} + u % {{ EIGHTS }}u;
{% if type == "f16" %}
                {{ x }}{{ i }} = {{ source }}[place];
{% else %}
                {{ x }}{{ i }}l = vec4<f32>({{ source }}[place * 2u]);
                {{ x }}{{ i }}h = vec4<f32>({{ source }}[place * 2u + 1u]);
{% endif %}
            }
{% endfor %}
{% endmacro %}

{# From them to `tile`, rounded to halves; its rows begin at `base`. #}
{% macro put(x, tile, base, type, count, from=0, to=1000) %}
{% for i in range(from, [to, loads(count)|int]|min) %}
            {
                let u = lane + {{ i * WG }}u;
                let place = {{ base * LD // 4 }}u + (u + u / {{ EIGHTS }}u) * 2u;
{% set GUARDED = (i + 1) * WG > count * EIGHTS %}
                {{ "if (u < " ~ count * EIGHTS ~ "u) {" if GUARDED else "" }}
                {{ tile }}[place] = {{ low(x ~ i, type) }};
                {{ tile }}[place + 1u] = {{ high(x ~ i, type) }};
                {{ "}" if GUARDED else "" }}
            }
{% endfor %}
{% endmacro %}

{# Both at once, four eights at a time. #}
{% macro stage(tile, source, type, at, stride, first, count) %}
    {
{{ registers("x_", type, count) }}
{% for i in range(0, loads(count)|int, 4) %}
{{ fetch("x_", source, type, at, stride, first, count, i, i + 4) }}
{{ put("x_", tile, 0, type, count, i, i + 4) }}
{% endfor %}
    }
{% endmacro %}

{# Where a subgroup's rows begin in the block; and the row that a lane has a share of. Which lanes are a subgroup does not matter. #}
{% macro places() %}
    let rows_at = subgroup * {{ BY * SIDE }}u;
    let own = lane / {{ SHARED }}u;
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

{# sum[m]_[n] += the columns of `probabilities`, whose rows are `ld` long, from `from` on, times the rows of `tile` from `base` on. #}
{% macro gather(sum, from, ld, tile, base) %}
{% for k in range(COLUMNS) %}
        {
{% for m in range(BY) %}
            let a{{ m }} = coopLoadT<{{ MATRIX }}<f16, A>>(&probabilities[(rows_at + {{ m * SIDE }}u) * {{ ld // 4 }}u + {{ (from + k * SIDE) // 4 }}u], {{ ld // 4 }}u);
{% endfor %}
{% for n in range(STEPS) %}
            let b{{ n }} = coopLoadT<{{ MATRIX }}<f16, B>>(&{{ tile }}[{{ (base + k * SIDE) * LD // 4 + n * SIDE // 4 }}], {{ LD // 4 }}u);
{% for m in range(BY) %}
            {{ sum }}{{ m }}_{{ n }} = coopMultiplyAdd(a{{ m }}, b{{ n }}, {{ sum }}{{ m }}_{{ n }});
{% endfor %}
{% endfor %}
        }
{% endfor %}
{% endmacro %}

{# Matrices name[m]_[n0 .. n0 + count] to columns from `from` on of `scores`, whose rows are `ld` long. #}
{% macro keep(name, n0, count, from, ld) %}
{% for m in range(BY) %}
{% for n in range(count) %}
        {
            let place = (rows_at + {{ m * SIDE }}u) * {{ ld // 4 }}u + {{ (from + n * SIDE) // 4 }}u;
            coopStoreT({{ name }}{{ m }}_{{ n0 + n }}, &scores[place], {{ ld // 4 }}u);
        }
{% endfor %}
{% endfor %}
{% endmacro %}

{# Matrices sum[m]_[n] to rows of `to`, by way of `scores`, whose rows are `ld` long and take `most` matrices at once; r is
   the row in `factor`. #}
{% macro leave(sum, to, type, at, stride, ld, most, factor) %}
{% for n0 in range(0, STEPS, most) %}
{% set count = [most, STEPS - n0]|min %}
{% set UNITS = ROWS * count * SIDE // 4 %}
    workgroupBarrier();
{{ keep(sum, n0, count, 0, ld) }}
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
