// The losses of rows and the gradient of their mean, in one kernel: -log softmax at each row's label, and
// dx = (softmax(x) - onehot(label)) * dy / count; both 0 in ignored rows. One workgroup a row, which reads it a second time for
// the gradient, mostly from a cache. VEC: logits by vectors of four. INPLACE: the gradient takes the place of the logits, of which each
// lane reads the last time what it writes.
{% set F = "vec4<f32>" if VEC else "f32" %}
{% set to = "vec4<" ~ T5 ~ ">" if VEC else T5 %}
{% set X = "dx" if INPLACE else "x" %}
{% set step = " / 4u" if VEC %}
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params {
    groups: u32, width: u32, classes: u32, ignored: u32,
    labels_at: u32, dy_at: u32, count_at: u32, losses_at: u32, dx_at: u32,
{% if not INPLACE %}
    x_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> labels: array<u32>;
@group(0) @binding(2) var<storage, read> dy: array<f32>;
@group(0) @binding(3) var<storage, read> counts: array<f32>;
@group(0) @binding(4) var<storage, read_write> losses: array<f32>;
@group(0) @binding(5) var<storage, read_write> dx: array<{{ to }}>;
{% if not INPLACE %}
@group(0) @binding(6) var<storage, read> x: array<{{ "vec4<" ~ T6 ~ ">" if VEC else T6 }}>;
{% endif %}
{% include "log_sum_exp.wgsl" %}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let row = (p.{{ X }}_at + g * p.width){{ step }};
    let dx_row = (p.dx_at + g * p.width){{ step }};
    let all = p.width{{ step }};
    let label = labels[p.labels_at + g];
    if (label == p.ignored) {
        for (var i = lane; i < all; i = i + {{ WG }}u) { dx[dx_row + i] = {{ to }}(0.0); }
        if (lane == 0u) { losses[p.losses_at + g] = 0.0; }
        return;
    }
    let lse = log_sum_exp(lane, row, p.classes);
    // A label beyond the vocabulary reads the last logit: wrong, but within bounds.
    let place = min(label, p.classes - 1u);
    // By the lane that is to write there.
    if (lane == (place{{ step }}) % {{ WG }}u) { losses[p.losses_at + g] = (lse.largest - f32({{ X }}[row + place{{ " / 4u][place % 4u" if VEC }}])) + lse.log_sum; }
    let factor = dy[p.dy_at] / counts[p.count_at];
    let whole = lse.largest + lse.log_sum;
    let one = {{ F }}(1.0);
    let none = {{ F }}(0.0);
    for (var i = lane; i < all; i = i + {{ WG }}u) {
{% if VEC %}
        let at = vec4<u32>(0u, 1u, 2u, 3u) + 4u * i;
        let chosen = at == vec4<u32>(place);
        let counts_here = at < vec4<u32>(p.classes);
{% else %}
        let chosen = i == place;
        let counts_here = i < p.classes;
{% endif %}
        // Those behind the classes are there for alignment.
        let y = (exp({{ F }}({{ X }}[row + i]) - whole) - select(none, one, chosen)) * factor;
        dx[dx_row + i] = {{ to }}(select(none, y, counts_here));
    }
}
