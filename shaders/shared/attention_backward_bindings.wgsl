// Bindings that all kernels of attention's gradient share. Where a kernel says it, IMAGE: qkv and dy are images; PAIRS: their halves
// are read as words, eight at a time. V and E are what stands around the type of an element: of a vec4, or nothing.
struct Params {
    groups: u32, t: u32, heads: u32, blocks: u32, scale: f32,
{% if BAND %}
    band: u32,
{% endif %}
    qkv_at: u32, dy_at: u32, lse_at: u32, delta_at: u32, d_at: u32,
{% if QUERY %}
    o_at: u32,
{% endif %}
{% if PADDED %}
    keys_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
{% if IMAGE is defined %}
{% include "image.wgsl" %}
@group(0) @binding(1) var qkv: texture_storage_2d<rgba32uint, read>;
@group(0) @binding(2) var dy: texture_storage_2d<rgba32uint, read>;
{% else %}
@group(0) @binding(1) var<storage, read> qkv: array<{{ V ~ ("u32" if PAIRS is defined and T1 == "f16" else T1) ~ E }}>;
@group(0) @binding(2) var<storage, read> dy: array<{{ V ~ ("u32" if PAIRS is defined and T2 == "f16" else T2) ~ E }}>;
{% endif %}
@group(0) @binding(3) var<storage, read> lse: array<f32>;
@group(0) @binding(4) var<storage, {{ "read_write" if QUERY else "read" }}> delta: array<f32>;
@group(0) @binding(5) var<storage, read_write> d: array<{{ V ~ T5 ~ E }}>;
{% if QUERY %}
@group(0) @binding(6) var<storage, read> o: array<{{ V ~ T6 ~ E }}>;
{% endif %}
{% if PADDED %}
@group(0) @binding({{ 7 if QUERY else 6 }}) var<storage, read> keys: array<u32>;
{% endif %}
