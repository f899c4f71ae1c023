// A strided copy over four dimensions. Words are copied as they are, whatever they mean; numbers of 16 bits are converted
// where one side has others.
{% set HALF = T1 == "f16" or T2 == "f16" %}
{% include "group.wgsl" %}
struct Params {
    groups: u32, units: u32,
    n0: u32, n1: u32, n2: u32, n3: u32,
    x0: u32, x1: u32, x2: u32, x3: u32,
    y0: u32, y1: u32, y2: u32, y3: u32,
    x_at: u32, y_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T1 if HALF else "u32" }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ T2 if HALF else "u32" }}>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let d = i % p.n3;
    let c = (i / p.n3) % p.n2;
    let b = (i / (p.n3 * p.n2)) % p.n1;
    let a = i / (p.n3 * p.n2 * p.n1);
    y[p.y_at + a * p.y0 + b * p.y1 + c * p.y2 + d * p.y3] = {{ T2 if HALF else "u32" }}(x[p.x_at + a * p.x0 + b * p.x1 + c * p.x2 + d * p.x3]);
}
