// y = x * factor where the generator gives at least `rate`, else 0. A lane does the two elements that share a call of it.
{% include "group.wgsl" %}
{% include "random.wgsl" %}
struct Params {
    groups: u32, n: u32, first: u32, stream: u32, rate: f32, factor: f32,
    x_at: u32, rng_at: u32, y_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T1 }}>;
@group(0) @binding(2) var<storage, read> rng: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ T3 }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = (group_index(id, count) * 64u + lane) * 2u;
    if (i >= p.n) { return; }
    let key = vec2<u32>(rng[p.rng_at], rng[p.rng_at + 1u]);
    let bits = threefry(key, vec2<u32>((p.first + i) / 2u, p.stream));
    y[p.y_at + i] = {{ T3 }}(select(f32(x[p.x_at + i]) * p.factor, 0.0, unit_float(bits.x) < p.rate));
    if (i + 1u < p.n) { y[p.y_at + i + 1u] = {{ T3 }}(select(f32(x[p.x_at + i + 1u]) * p.factor, 0.0, unit_float(bits.y) < p.rate)); }
}
