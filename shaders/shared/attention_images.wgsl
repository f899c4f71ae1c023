{# What the kernels of attention that read images share. #}
{% set comp = ["x", "y", "z", "w"] %}
{# Texel `at` of an image. #}
{% macro load(name, at) %}bitcast<vec4<f32>>(textureLoad({{ name }}, texel({{ at }}))){% endmacro %}
{# One for each of a lane's four columns: what stands between `before` and `after` is the column's component. #}
{% macro lanes(type, before, after) %}vec4<{{ type }}>({% for j in range(4) %}{{ before ~ comp[j] ~ after }}{{ "" if loop.last else ", " }}{% endfor %}){% endmacro %}
{# The place of a lane's vector number `n` of a head of `count`; lanes beyond it repeat the last one. #}
{% macro vectors(n, count) %}{{ "(lane + " ~ 8 * n ~ "u)" if 8 * n + 8 <= count else "min(lane + " ~ 8 * n ~ "u, " ~ (count - 1) ~ "u)" }}{% endmacro %}
