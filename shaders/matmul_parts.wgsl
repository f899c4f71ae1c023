// The sum of a product's parts, p.k of them, each [m,n] and p.a_batch apart, and what follows a product. A lane takes four
// neighbouring columns. Bound as the products are; b is not read.
{% include "group.wgsl" %}
{% include "matmul_bindings.wgsl" %}
{% include "epilogue.wgsl" %}
@compute @workgroup_size(64)
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let fours = (p.n + 3u) / 4u;
    let unit = group_index(id, count) * 64u + lane;
    let m = unit / fours;
    let n = (unit % fours) * 4u;
    if (m >= p.m) { return; }
    let at = p.a_at + m * p.n + n;
    var sum = vec4<f32>();
    for (var part = 0u; part < p.k; part = part + 1u) {
        let place = at + part * p.a_batch;
{% if AVEC %}
        sum = sum + a[place / 4u];
{% else %}
        sum.x = sum.x + a[place];
        if (n + 1u < p.n) { sum.y = sum.y + a[place + 1u]; }
        if (n + 2u < p.n) { sum.z = sum.z + a[place + 2u]; }
        if (n + 3u < p.n) { sum.w = sum.w + a[place + 3u]; }
{% endif %}
    }
    finish_four(sum, m * p.ldy + n, n);
}
