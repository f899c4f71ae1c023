// Labels of places, element by element, IGNORE where the mask is 0. FORM "replaced": whether x, the original token, differs
// from the corrupted one. FORM "hide": the label x.
{% include "group.wgsl" %}
{% set U = "vec4<u32>" if VEC else "u32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params {
    groups: u32, units: u32, x_at: u32, {% if FORM == "replaced" %}corrupted_at: u32, {% endif %}mask_at: u32, y_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ U }}>;
{% if FORM == "replaced" %}
@group(0) @binding(2) var<storage, read> corrupted: array<{{ U }}>;
@group(0) @binding(3) var<storage, read> mask: array<{{ U }}>;
@group(0) @binding(4) var<storage, read_write> y: array<{{ U }}>;
{% else %}
@group(0) @binding(2) var<storage, read> mask: array<{{ U }}>;
@group(0) @binding(3) var<storage, read_write> y: array<{{ U }}>;
{% endif %}
const IGNORE = 0xffffffffu;

@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let i = group_index(id, count) * 64u + lane;
    if (i >= p.units) { return; }
    let v = x[i + p.x_at / {{ W }}];
{% if FORM == "replaced" %}
    let label = select({{ U }}(0u), {{ U }}(1u), v != corrupted[i + p.corrupted_at / {{ W }}]);
{% else %}
    let label = v;
{% endif %}
    y[i + p.y_at / {{ W }}] = select(label, {{ U }}(IGNORE), mask[i + p.mask_at / {{ W }}] == {{ U }}(0u));
}
