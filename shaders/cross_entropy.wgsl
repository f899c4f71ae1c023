// Log-sum-exp of the first `classes` logits of rows, and -log softmax at each row's label (0 where it is `ignored`). One workgroup
// a row. VEC: logits by vectors of four.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params { groups: u32, width: u32, classes: u32, ignored: u32, x_at: u32, labels_at: u32, losses_at: u32, lse_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ "vec4<" ~ T1 ~ ">" if VEC else T1 }}>;
@group(0) @binding(2) var<storage, read> labels: array<u32>;
@group(0) @binding(3) var<storage, read_write> losses: array<f32>;
@group(0) @binding(4) var<storage, read_write> lses: array<f32>;
{% set X = "x" %}
{% include "log_sum_exp.wgsl" %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let row = (p.x_at + g * p.width){{ " / 4u" if VEC }};
    let lse = log_sum_exp(lane, row, p.classes);
    if (lane == 0u) {
        let label = labels[p.labels_at + g];
        // A label beyond the vocabulary reads the last logit: wrong, but within bounds.
        let place = min(label, p.classes - 1u);
        let chosen = f32(x[row + place{{ " / 4u][place % 4u" if VEC }}]);
        losses[p.losses_at + g] = select((lse.largest - chosen) + lse.log_sum, 0.0, label == p.ignored);
        lses[p.lse_at + g] = lse.largest + lse.log_sum;
    }
}
