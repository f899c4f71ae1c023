{# What the kernels of attention that read images share. #}
{% set comp = ["x", "y", "z", "w"] %}
{# Texel `at` of an image. #}
{% macro load(name, at) %}bitcast<vec4<f32>>(textureLoad({{ name }}, texel({{ at }}))){% endmacro %}
{# One for each of a lane's four columns: what stands between `before` and `after` is the column's component. #}
{% macro lanes(type, before, after) %}vec4<{{ type }}>({% for j in range(4) %}{{ before ~ comp[j] ~ after }}{{ "" if loop.last else ", " }}{% endfor %}){% endmacro %}
{# The place of a lane's vector number `n` of a head of `count`; lanes beyond it repeat the last one. #}
{% macro vectors(n, count) %}{{ "(lane + " ~ 8 * n ~ "u)" if 8 * n + 8 <= count else "min(lane + " ~ 8 * n ~ "u, " ~ (count - 1) ~ "u)" }}{% endmacro %}
{# Vectors of a head, and of those a lane's. #}
{% set N = D // 4 %}
{% set NV = (N + 7) // 8 %}
{# sum[r]_[n] += w[r] times rows of `image`, for the eight columns from `begin` on, of which a lane has one in w[r].x; after that w[r] is turned
   to the next eight. A lane's vectors of the first row are at x_[n], and rows are `each` apart. #}
{% macro accumulate(sum, w, image, x, each) %}
{% for j in range(8) %}{% for n in range(NV) %}
            let {{ x }}{{ j }}_{{ n }} = {{ load(image, x ~ "_" ~ n ~ " + min(begin + " ~ j ~ "u, p.t - 1u) * " ~ each) }};
{% endfor %}{% endfor %}
{% for r in range(ROWS) %}
{% for j in range(8) %}
            let {{ w }}{{ r }}_{{ j }} = vec4<f32>(subgroupBroadcast({{ w }}{{ r }}.x, {{ j }}u));
{% for n in range(NV) %}
            {{ sum }}{{ r }}_{{ n }} = fma({{ w }}{{ r }}_{{ j }}, {{ x }}{{ j }}_{{ n }}, {{ sum }}{{ r }}_{{ n }});
{% endfor %}
{% endfor %}
            {{ w }}{{ r }} = {{ w }}{{ r }}.yzwx;
{% endfor %}
{% endmacro %}
