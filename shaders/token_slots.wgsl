// Rows of tokens (or labels) and what their slots say about them, slots of a row together; a slot is used unless `used` is
// IGNORE. With TOKENS y is x with the used slots' tokens at their places; else y is x at the places of used slots, and
// IGNORE elsewhere. Gathered: every element looks through its row's slots, so nothing depends on the order of lanes.
// first: the place (row * width + position, over all rows) of the window's first element.
{% include "group.wgsl" %}
{% set U = "vec4<u32>" if VEC else "u32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, units_a_row: u32, slots: u32, first: u32,
    x_at: u32, places_at: u32, used_at: u32, y_at: u32,
{% if TOKENS %}
    tokens_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ U }}>;
@group(0) @binding(2) var<storage, read> places: array<u32>;
@group(0) @binding(3) var<storage, read> used: array<u32>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ U }}>;
{% if TOKENS %}
@group(0) @binding(5) var<storage, read> tokens: array<u32>;
{% endif %}
const IGNORE = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let first_slot = i / p.units_a_row * p.slots;
    let here = {{ "p.first + i * 4u + vec4<u32>(0u, 1u, 2u, 3u)" if VEC else "p.first + i" }};
    let before = x[i + p.x_at / {{ W }}];
    var value = {{ "before" if TOKENS else U ~ "(IGNORE)" }};
    // From the last to the first, so that of several slots with one place the first has its way.
    for (var s = p.slots; s > 0u; s = s - 1u) {
        let slot = first_slot + s - 1u;
        let hit = here == {{ U }}(places[p.places_at + slot]);
{% if TOKENS %}
        let token = {{ U }}(tokens[p.tokens_at + slot]);
{% else %}
        let token = before;
{% endif %}
        if (used[p.used_at + slot] != IGNORE) { value = select(value, token, hit); }
    }
    y[i + p.y_at / {{ W }}] = value;
}
