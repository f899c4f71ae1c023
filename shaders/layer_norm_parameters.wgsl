// The gradients of layer norm's gamma and beta, summed over blocks of `part` rows: y[block] holds a row of the sums of
// dy (x - mean) rstd, then a row of the sums of dy.
{% include "group.wgsl" %}
{% from "columns.wgsl" import LANES, T, W, column_and_block, each_row, strands_of, together %}
{% set V = "vec4<" if VEC else "" %}
{% set E = ">" if VEC else "" %}
struct Params {
    groups: u32, rows: u32, width: u32, part: u32,
    dy_at: u32, x_at: u32, mean_at: u32, rstd_at: u32, y_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> dy: array<{{ V ~ T1 ~ E }}>;
@group(0) @binding(2) var<storage, read> x: array<{{ V ~ T2 ~ E }}>;
@group(0) @binding(3) var<storage, read> means: array<f32>;
@group(0) @binding(4) var<storage, read> rstds: array<f32>;
@group(0) @binding(5) var<storage, read_write> y: array<{{ T }}>;
{{ strands_of(["gamma", "beta"]) }}
@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
{{ column_and_block() }}
    var gamma = {{ T }}();
    var beta = {{ T }}();
    if (column < p.width) {
        {{ each_row() }} {
            let at = row * p.width + column;
            let d = {{ T }}(dy[p.dy_at / {{ W }} + at]);
            gamma = gamma + d * (({{ T }}(x[p.x_at / {{ W }} + at]) - means[p.mean_at + row]) * rstds[p.rstd_at + row]);
            beta = beta + d;
        }
    }
{{ together(["gamma", "beta"]) }}
    if (column < p.width) {
        let to = p.y_at / {{ W }} + block * 2u * p.width + column;
        y[to] = gamma;
        y[to + p.width] = beta;
    }
}
