// Bindings that all matmul kernels share. a and b are f32 or vec4<f32> arrays (TA_TYPE, TB_TYPE).
struct Params {
    groups: u32,
    m: u32, n: u32, k: u32,
    lda: u32, ldb: u32, ldy: u32,
    a_batch: u32, b_batch: u32, y_batch: u32,
    tiles_m: u32, tiles_n: u32,
    alpha: f32,
    a_at: u32, b_at: u32, y_at: u32,
{% if BIAS %}    bias_at: u32,
{% endif %}
{% if RESIDUAL %}    residual_at: u32,
{% endif %}
{% if KEEP %}    pre_at: u32,
{% endif %}
}
{% set next = namespace(binding=4) %}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> a: array<{{ "vec4<f32>" if AVEC else "f32" }}>;
@group(0) @binding(2) var<storage, read> b: array<{{ "vec4<f32>" if BVEC else "f32" }}>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;
{% if BIAS %}
@group(0) @binding({{ next.binding }}) var<storage, read> bias: array<f32>;
{% set next.binding = next.binding + 1 %}
{% endif %}
{% if RESIDUAL %}
@group(0) @binding({{ next.binding }}) var<storage, read> residual: array<f32>;
{% set next.binding = next.binding + 1 %}
{% endif %}
{% if KEEP %}
@group(0) @binding({{ next.binding }}) var<storage, read_write> pre: array<f32>;
{% endif %}
