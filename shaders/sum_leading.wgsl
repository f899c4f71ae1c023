// Sums over groups of `part` rows: one lane a column, or with VEC four neighbouring ones, so that loads are contiguous and the order is
// fixed. With STRANDS so many lanes share a column, each every STRANDS-th row, since a GPU waits for loads that follow one another.
// width counts columns, in fours with VEC.
{% include "group.wgsl" %}
{% set LANES = 64 if STRANDS == 1 else 256 %}
{% set COLUMNS = LANES // STRANDS %}
{% set T = "vec4<f32>" if VEC else "f32" %}
{% set W = "4u" if VEC else "1u" %}
struct Params { groups: u32, rows: u32, width: u32, part: u32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<{{ "vec4<" ~ T1 ~ ">" if VEC else T1 }}>;
@group(0) @binding(2) var<storage, read_write> y: array<{{ T }}>;
{% if STRANDS > 1 %}
var<workgroup> strands: array<{{ T }}, {{ LANES }}>;
{% endif %}

@compute @workgroup_size({{ LANES }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let columns = (p.width + {{ COLUMNS - 1 }}u) / {{ COLUMNS }}u;
    let g = group_index(id, count);
    if (g >= p.groups) { return; }
    let column = (g % columns) * {{ COLUMNS }}u + lane % {{ COLUMNS }}u;
    let block = g / columns;
    let end = min((block + 1u) * p.part, p.rows);
    var sum = {{ T }}();
    if (column < p.width) {
        for (var row = block * p.part + lane / {{ COLUMNS }}u; row < end; row = row + {{ STRANDS }}u) {
            sum = sum + {{ T }}(x[p.x_at / {{ W }} + row * p.width + column]);
        }
    }
{% if STRANDS > 1 %}
    strands[lane] = sum;
    workgroupBarrier();
    if (lane >= {{ COLUMNS }}u) { return; }
{% for strand in range(1, STRANDS) %}
    sum = sum + strands[lane + {{ strand * COLUMNS }}u];
{% endfor %}
{% endif %}
    if (column < p.width) { y[p.y_at / {{ W }} + block * p.width + column] = sum; }
}
