// Transposes matrices whose sides are multiples of 4: a lane moves a block of 4 x 4. x is [batch][rows][cols].
{% include "group.wgsl" %}
struct Params { groups: u32, blocks: u32, rows: u32, cols: u32, ldx: u32, ldy: u32, x_batch: u32, y_batch: u32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec4<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<vec4<f32>>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.blocks) { return; }
    let across = p.rows / 4u;
    let down = p.cols / 4u;
    let row = (i % across) * 4u;
    let col = ((i / across) % down) * 4u;
    let batch = i / (across * down);
    let source = p.x_at + batch * p.x_batch + row * p.ldx + col;
    let target_at = p.y_at + batch * p.y_batch + col * p.ldy + row;
    let r0 = x[source / 4u];
    let r1 = x[(source + p.ldx) / 4u];
    let r2 = x[(source + 2u * p.ldx) / 4u];
    let r3 = x[(source + 3u * p.ldx) / 4u];
    y[target_at / 4u] = vec4<f32>(r0.x, r1.x, r2.x, r3.x);
    y[(target_at + p.ldy) / 4u] = vec4<f32>(r0.y, r1.y, r2.y, r3.y);
    y[(target_at + 2u * p.ldy) / 4u] = vec4<f32>(r0.z, r1.z, r2.z, r3.z);
    y[(target_at + 3u * p.ldy) / 4u] = vec4<f32>(r0.w, r1.w, r2.w, r3.w);
}
