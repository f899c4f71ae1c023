// The gradient of cross-entropy: dx = (softmax(x) - onehot(label)) * factor, 0 in ignored rows. The factor is the row's
// own gradient with ROWS, else the mean's gradient over the number of counted rows. A workgroup does a part of a row.
// INPLACE: it takes the place of the logits.
{% set X = "dx" if INPLACE else "x" %}
{% include "group.wgsl" %}
struct Params {
    groups: u32, width: u32, classes: u32, parts: u32, part: u32, ignored: u32,
    labels_at: u32, lse_at: u32, dy_at: u32, dx_at: u32,
{% if not ROWS %}
    count_at: u32,
{% endif %}
{% if not INPLACE %}
    x_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> lses: array<f32>;
@group(0) @binding(3) var<storage, read> dy: array<f32>;
@group(0) @binding(4) var<storage, read_write> dx: array<{{ T4 }}>;
{% if not ROWS %}
@group(0) @binding(5) var<storage, read> counts: array<f32>;
{% endif %}
{% if not INPLACE %}
@group(0) @binding({{ 5 if ROWS else 6 }}) var<storage, read> x: array<{{ T5 if ROWS else T6 }}>;
{% endif %}

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let row = g / p.parts;
    let start = (g % p.parts) * p.part;
    let end = min(start + p.part, p.width);
    // Those behind the classes are there for alignment.
    let last = min(end, p.classes);
    let label = labels[p.labels_at + row];
    let x_row = p.{{ X }}_at + row * p.width;
    let dx_row = p.dx_at + row * p.width;
    if (label == p.ignored) {
        for (var i = start + lane; i < end; i = i + 64u) { dx[dx_row + i] = {{ T4 }}(0.0); }
        return;
    }
    let chosen = min(label, p.classes - 1u);
    let lse = lses[p.lse_at + row];
{% if ROWS %}
    let factor = dy[p.dy_at + row];
{% else %}
    let factor = dy[p.dy_at] / counts[p.count_at];
{% endif %}
    for (var i = start + lane; i < last; i = i + 64u) {
        dx[dx_row + i] = {{ T4 }}((exp(f32({{ X }}[x_row + i]) - lse) - select(0.0, 1.0, i == chosen)) * factor);
    }
    for (var i = max(start, last) + lane; i < end; i = i + 64u) { dx[dx_row + i] = {{ T4 }}(0.0); }
}
