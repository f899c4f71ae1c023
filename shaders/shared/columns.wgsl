{# How the lanes of kernels that sum over blocks of `part` rows share out the columns: one lane a column, or with VEC four neighbouring ones,
   so that loads are contiguous and the order is fixed. With STRANDS so many lanes share a column, each every STRANDS-th row, since a GPU
   waits for loads that follow one another. p.width counts columns, in fours with VEC. #}
{% set LANES = 64 if STRANDS == 1 else 256 %}
{% set COLUMNS = LANES // STRANDS %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
{# Declares what `together` needs for these sums. #}
{% macro strands_of(sums) %}
{% if STRANDS > 1 %}
{% for sum in sums %}
var<workgroup> strands_of_{{ sum }}: array<{{ T }}, {{ LANES }}>;
{% endfor %}
{% endif %}
{% endmacro %}
{# A lane's column, its workgroup's block, and the end of that, of workgroup g. #}
{% macro column_and_block() %}
    let columns = (p.width + {{ COLUMNS - 1 }}u) / {{ COLUMNS }}u;
    let column = (g % columns) * {{ COLUMNS }}u + lane % {{ COLUMNS }}u;
    let block = g / columns;
    let end = min((block + 1u) * p.part, p.rows);
{% endmacro %}
{# The head of a lane's loop over its rows. #}
{% macro each_row() %}for (var row = block * p.part + lane / {{ COLUMNS }}u; row < end; row = row + {{ STRANDS }}u){% endmacro %}
{# The variables `sums` of the lanes that share a column are added up; only the first of them goes on. #}
{% macro together(sums) %}
{% if STRANDS > 1 %}
{% for sum in sums %}
    strands_of_{{ sum }}[lane] = {{ sum }};
{% endfor %}
    workgroupBarrier();
    if (lane >= {{ COLUMNS }}u) { return; }
{% for sum in sums %}{% for strand in range(1, STRANDS) %}
    {{ sum }} = {{ sum }} + strands_of_{{ sum }}[lane + {{ strand * COLUMNS }}u];
{% endfor %}{% endfor %}
{% endif %}
{% endmacro %}
