// Reductions over one workgroup of WG lanes, in a fixed order: same input, same bits.
// SUBGROUP: the workgroup is exactly one subgroup, and no workgroup memory is needed.
// Every lane must call these, and every lane gets the result.
{% if SUBGROUP %}
fn reduce_sum(lane: u32, x: f32) -> f32 { return subgroupAdd(x); }
fn reduce_max(lane: u32, x: f32) -> f32 { return subgroupMax(x); }
{% else %}
var<workgroup> reduce_memory: array<f32, {{ WG }}>;
fn reduce_sum(lane: u32, x: f32) -> f32 {
    reduce_memory[lane] = x;
    workgroupBarrier();
    for (var half = {{ WG }}u / 2u; half > 0u; half = half / 2u) {
        if (lane < half) { reduce_memory[lane] = reduce_memory[lane] + reduce_memory[lane + half]; }
        workgroupBarrier();
    }
    let total = reduce_memory[0];
    workgroupBarrier();
    return total;
}
fn reduce_max(lane: u32, x: f32) -> f32 {
    reduce_memory[lane] = x;
    workgroupBarrier();
    for (var half = {{ WG }}u / 2u; half > 0u; half = half / 2u) {
        if (lane < half) { reduce_memory[lane] = max(reduce_memory[lane], reduce_memory[lane + half]); }
        workgroupBarrier();
    }
    let total = reduce_memory[0];
    workgroupBarrier();
    return total;
}
{% endif %}
