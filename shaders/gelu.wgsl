// y = gelu(x), or with GRADIENT y = gelu'(x) * dy.
{% include "group.wgsl" %}
{% include "gelu.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
{% set W = "4u" if VEC else "1u" %}
{% set F = "gelu_" ~ FORM ~ ("_derivative" if GRADIENT else "") %}
struct Params { groups: u32, units: u32, x_at: u32, {% if GRADIENT %}dy_at: u32, {% endif %}y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ V ~ T1 ~ E }}>;
{% if GRADIENT %}
@group(0) @binding(2) var<storage, read> dy: array<{{ V ~ T2 ~ E }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ V ~ T3 ~ E }}>;
{% else %}
@group(0) @binding(2) var<storage, read_write> y: array<{{ V ~ T2 ~ E }}>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let v = {{ T }}(x[i + p.x_at / {{ W }}]);
{% if VEC %}
    let result = vec4<f32>({{ F }}(v.x), {{ F }}(v.y), {{ F }}(v.z), {{ F }}(v.w));
{% else %}
    let result = {{ F }}(v);
{% endif %}
    y[i + p.y_at / {{ W }}] = {{ V ~ (T3 if GRADIENT else T2) ~ E }}(result{% if GRADIENT %} * {{ T }}(dy[i + p.dy_at / {{ W }}]){% endif %});
}
