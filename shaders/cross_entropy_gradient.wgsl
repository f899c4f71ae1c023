// The losses of rows and the gradient of their mean, in one kernel: -log softmax at each row's label, and
// dx = (softmax(x) - onehot(label)) * dy / count; both 0 in ignored rows. One workgroup a row, which reads it a second time for
// the gradient, mostly from a cache.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params {
    groups: u32, width: u32, classes: u32, ignored: u32,
    x_at: u32, labels_at: u32, dy_at: u32, count_at: u32, losses_at: u32, dx_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ T1 }}>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read> counts: array<f32>;
@group(0) @binding(5) var<storage, read_write> losses: array<f32>;
@group(0) @binding(6) var<storage, read_write> dx: array<{{ T6 }}>;
{% include "log_sum_exp.wgsl" %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let row = p.x_at + g * p.width;
    let dx_row = p.dx_at + g * p.width;
    let label = labels[p.labels_at + g];
    if (label == p.ignored) {
        for (var i = lane; i < p.width; i = i + {{ WG }}u) { dx[dx_row + i] = {{ T6 }}(0.0); }
        if (lane == 0u) { losses[p.losses_at + g] = 0.0; }
        return;
    }
    let lse = log_sum_exp(lane, row, p.classes);
    // A label beyond the vocabulary reads the last logit: wrong, but within bounds.
    let chosen = min(label, p.classes - 1u);
    if (lane == 0u) { losses[p.losses_at + g] = (lse.largest - f32(x[row + chosen])) + lse.log_sum; }
    let factor = dy[p.dy_at] / counts[p.count_at];
    let whole = lse.largest + lse.log_sum;
    for (var i = lane; i < p.classes; i = i + {{ WG }}u) {
        dx[dx_row + i] = {{ T6 }}((exp(f32(x[row + i]) - whole) - select(0.0, 1.0, i == chosen)) * factor);
    }
    // Those behind the classes are there for alignment.
    for (var i = p.classes + lane; i < p.width; i = i + {{ WG }}u) { dx[dx_row + i] = {{ T6 }}(0.0); }
}
