// The gradients of layer norm's gamma and beta, summed over blocks of `part` rows: y[block] holds a row of the sums of
// dy (x - mean) rstd, then a row of the sums of dy. One lane a column, so that loads are contiguous and the order is fixed.
{% include "group.wgsl" %}
struct Params {
    groups: u32, rows: u32, width: u32, part: u32,
    dy_at: u32, x_at: u32, mean_at: u32, rstd_at: u32, y_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<{{ T1 }}>;
@group(0) @binding(2) var<storage, read> x: array<{{ T2 }}>;
@group(0) @binding(3) var<storage, read> means: array<f32>;
@group(0) @binding(4) var<storage, read> rstds: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let columns = (p.width + 63u) / 64u;
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let column = (g % columns) * 64u + lane;
    let block = g / columns;
    if (column >= p.width) { return; }
    let end = min((block + 1u) * p.part, p.rows);
    var gamma = 0.0;
    var beta = 0.0;
    for (var row = block * p.part; row < end; row = row + 1u) {
        let at = row * p.width + column;
        let d = f32(dy[p.dy_at + at]);
        gamma = gamma + d * ((f32(x[p.x_at + at]) - means[p.mean_at + row]) * rstds[p.rstd_at + row]);
        beta = beta + d;
    }
    let to = p.y_at + block * 2u * p.width + column;
    y[to] = gamma;
    y[to + p.width] = beta;
}
