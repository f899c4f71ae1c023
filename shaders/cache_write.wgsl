// Keys and values, the last two thirds of the rows of qkv [B,T,3C], into the rows of cache [B,capacity,2C] from
// positions[b] on. Widths are in units: vec4s with VEC, else floats.
{% include "group.wgsl" %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, time: u32, capacity: u32, width: u32,
    cache_at: u32, qkv_at: u32, positions_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read_write> cache: array<{{ T }}>;
@group(0) @binding(2) var<storage, read> qkv: array<{{ T }}>;
@group(0) @binding(3) var<storage, read> positions: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let row = i / p.width;
    let batch = row / p.time;
    let column = i - row * p.width;
    let place = positions[p.positions_at + batch] + row - batch * p.time;
    if (place >= p.capacity) { return; }
    cache[p.cache_at / {{ W }} + (batch * p.capacity + place) * p.width + column] =
        qkv[p.qkv_at / {{ W }} + row * (p.width / 2u * 3u) + p.width / 2u + column];
}
