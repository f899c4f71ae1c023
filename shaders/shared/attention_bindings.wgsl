// Bindings that the kernels of attention with blocks of queries share. Where a kernel says it, IMAGE: qkv is an image; PAIRS: its
// halves are read as words, eight at a time.
struct Params {
    groups: u32, t: u32, heads: u32, blocks: u32, capacity: u32, scale: f32,
{% if BAND %}
    band: u32,
{% endif %}
    qkv_at: u32, o_at: u32, lse_at: u32,
{% if PADDED %}
    keys_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
{% if IMAGE is defined %}
{% include "image.wgsl" %}
@group(0) @binding(1) var qkv: texture_storage_2d<rgba32uint, read>;
{% else %}
@group(0) @binding(1) var<storage, read> qkv: array<vec4<{{ "u32" if PAIRS is defined and T1 == "f16" else T1 }}>>;
{% endif %}
@group(0) @binding(2) var<storage, read_write> o: array<vec4<{{ T2 }}>>;
@group(0) @binding(3) var<storage, read_write> lse: array<f32>;
{% if PADDED %}
@group(0) @binding(4) var<storage, read> keys: array<u32>;
{% endif %}
// The score of a key that may not be attended.
const MASKED = -3.0e38;
