// The end of a draw that a product's workgroups have begun (matmul_packed.wgsl with DRAW): x has for each row and workgroup the
// best value and its token, one workgroup a row finds the best of them.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params {
    groups: u32, slots: u32, ring: u32, stop_a: u32, stop_b: u32, stop_c: u32, stop_d: u32,
    x_at: u32, y_at: u32,
{% if ADVANCE %}
    steps_at: u32, tokens_at: u32, positions_at: u32, history_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<vec2<f32>>;
@group(0) @binding(2) var<storage, read_write> y: array<u32>;
{% if ADVANCE %}
@group(0) @binding(3) var<storage, read_write> steps: array<u32>;
@group(0) @binding(4) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(5) var<storage, read_write> positions: array<u32>;
@group(0) @binding(6) var<storage, read_write> history: array<u32>;
{% include "advance.wgsl" %}
{% endif %}
const LOWEST = -3.4028234e38;
// Beyond every token.
const NONE = 4.0e9;

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(id, count);
    if (row >= p.groups) { return; }
    var best = LOWEST;
    var place = NONE;
    for (var i = lane; i < p.slots; i = i + {{ WG }}u) {
        let one = x[p.x_at / 2u + row * p.slots + i];
        if (one.x > best) { best = one.x; place = one.y; }
    }
    // Of equals the first.
    let winner = reduce_max(lane, best);
    let first = -reduce_max(lane, select(-NONE, -place, best == winner));
    // Logits that are no numbers win nowhere; any token is as good as another then.
    let drawn = select(0u, u32(first), first < NONE);
    if (lane == 0u) {
        y[p.y_at + row] = {{ "advance(row, drawn)" if ADVANCE else "drawn" }};
    }
}
