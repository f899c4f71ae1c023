// Bindings that all matmul kernels share. AVEC, BVEC: a, b are arrays of vec4s; YVEC: y is, and what the epilogue reads.
// T1, T2, ...: the types of their elements in memory; sums are in f32 whatever they are.
// SCALED, where a kernel says it: the scales of a packed b follow the others.
// NORM, where a kernel says it: rows of a are normalised first, with gamma and beta. DRAW: y has, for each row, p.slots pairs of a
// value and its column, for a draw with rng and, STEPS, steps.
// AIMAGE, BIMAGE, where a kernel says them: a, b are images, of texels of four numbers.
// A kernel may say A_ELEMENT and B_ELEMENT for the elements of a and b.
{% set types = [T1, T2, T3, T4, T5, T6] %}
{% macro elements(type, vec) %}array<{{ "vec4<" ~ type ~ ">" if vec else type }}>{% endmacro %}
struct Params {
    groups: u32,
    m: u32, n: u32, k: u32,
    lda: u32, ldb: u32, ldy: u32,
    a_batch: u32, b_batch: u32, y_batch: u32,
    tiles_m: u32, tiles_n: u32,
    alpha: f32,
{% if NORM is defined and NORM %}    inverse_k: f32, epsilon: f32,
{% endif %}
{% if DRAW is defined and DRAW %}    slots: u32, first_slot: u32, first_row: u32, text_rows: u32, first_n: u32, factor: f32,
{% endif %}
    a_at: u32, b_at: u32, y_at: u32,
{% if BIAS %}    bias_at: u32,
{% endif %}
{% if RESIDUAL %}    residual_at: u32,
{% endif %}
{% if KEEP %}    pre_at: u32,
{% endif %}
{% if SCALED is defined and SCALED %}    scales_at: u32,
{% endif %}
{% if NORM is defined and NORM %}    gamma_at: u32, beta_at: u32,
{% endif %}
{% if DRAW is defined and DRAW %}    rng_at: u32,{{ " steps_at: u32," if STEPS else "" }}
{% endif %}
}
{% set next = namespace(binding=4) %}
@group(0) @binding(0) var<uniform> p: Params;
{% if AIMAGE is defined and AIMAGE %}
@group(0) @binding(1) var a: texture_storage_2d<rgba32uint, read>;
{% else %}
@group(0) @binding(1) var<storage, read> a: {{ "array<" ~ A_ELEMENT ~ ">" if A_ELEMENT is defined else elements(T1, AVEC) }};
{% endif %}
{% if BIMAGE is defined and BIMAGE %}
@group(0) @binding(2) var b: texture_storage_2d<rgba32uint, read>;
{% else %}
@group(0) @binding(2) var<storage, read> b: {{ "array<" ~ B_ELEMENT ~ ">" if B_ELEMENT is defined else elements(T2, BVEC) }};
{% endif %}
@group(0) @binding(3) var<storage, read_write> y: {{ elements(T3, YVEC) }};
{% if BIAS %}
@group(0) @binding({{ next.binding }}) var<storage, read> bias: {{ elements(types[next.binding - 1], YVEC) }};
{% set next.binding = next.binding + 1 %}
{% endif %}
{% if RESIDUAL %}
@group(0) @binding({{ next.binding }}) var<storage, read> residual: {{ elements(types[next.binding - 1], YVEC) }};
{% set next.binding = next.binding + 1 %}
{% endif %}
{% if KEEP %}
@group(0) @binding({{ next.binding }}) var<storage, read_write> pre: {{ elements(types[next.binding - 1], YVEC) }};
{% set next.binding = next.binding + 1 %}
{% endif %}
{% if SCALED is defined and SCALED %}
{% if BIMAGE is defined and BIMAGE %}
@group(0) @binding({{ next.binding }}) var scales: texture_storage_2d<rgba32uint, read>;
{% else %}
@group(0) @binding({{ next.binding }}) var<storage, read> scales: array<u32>;
{% endif %}
{% set next.binding = next.binding + 1 %}
{% endif %}
{% if NORM is defined and NORM %}
@group(0) @binding({{ next.binding }}) var<storage, read> gamma: array<vec4<f32>>;
@group(0) @binding({{ next.binding + 1 }}) var<storage, read> beta: array<vec4<f32>>;
{% set next.binding = next.binding + 2 %}
{% endif %}
{% if DRAW is defined and DRAW %}
@group(0) @binding({{ next.binding }}) var<storage, read> rng: array<u32>;
{% if STEPS %}
@group(0) @binding({{ next.binding + 1 }}) var<storage, read> steps: array<u32>;
{% endif %}
{% endif %}
