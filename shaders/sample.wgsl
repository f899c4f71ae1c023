// The next token of a row of `width` logits, of which the first `classes` are of tokens, one workgroup a row: repetition penalty,
// temperature, top-k, top-p, then the largest of logit + Gumbel noise, which is a draw from softmax (Gumbel 1954; Maddison, Tarlow,
// Minka, "A* sampling", 2014).
// Nothing is sorted: the bounds of top-k and top-p are found bit by bit, over a total order of floats as integers.
{% include "group.wgsl" %}
{% include "reduce.wgsl" %}
struct Params {
    groups: u32, width: u32, classes: u32, first_row: u32, text_rows: u32, top_k: u32, top_p: f32, factor: f32, penalty: f32, ring: u32,
    stop_a: u32, stop_b: u32, stop_c: u32, stop_d: u32,
    x_at: u32, rng_at: u32, y_at: u32,
{% if SEEN %}
    seen_at: u32,
{% endif %}
{% if STEPS %}
    steps_at: u32,
{% endif %}
{% if ADVANCE %}
    tokens_at: u32, positions_at: u32, history_at: u32,
{% endif %}
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read> rng: array<u32>;
@group(0) @binding(3) var<storage, read_write> y: array<u32>;
{% if SEEN %}
@group(0) @binding(4) var<storage, read_write> seen: array<u32>;
{% endif %}
{% if STEPS %}
@group(0) @binding({{ 4 + SEEN }}) var<storage, {{ "read_write" if ADVANCE else "read" }}> steps: array<u32>;
{% endif %}
{% if ADVANCE %}
@group(0) @binding({{ 5 + SEEN }}) var<storage, read_write> tokens: array<u32>;
@group(0) @binding({{ 6 + SEEN }}) var<storage, read_write> positions: array<u32>;
@group(0) @binding({{ 7 + SEEN }}) var<storage, read_write> history: array<u32>;
{% include "advance.wgsl" %}
{% endif %}
{% include "random.wgsl" %}
{% include "draw.wgsl" %}

fn value(row: u32, i: u32) -> f32 {
    var v = x[p.x_at + row * p.width + i];
{% if SEEN %}
    if (seen[p.seen_at + row * p.width + i] != 0u) { v = select(v * p.penalty, v / p.penalty, v > 0.0); }
{% endif %}
    return v * p.factor;
}
fn key(v: f32) -> u32 {
    let bits = bitcast<u32>(v);
    return select(bits | 0x80000000u, ~bits, (bits >> 31u) == 1u);
}

@compute @workgroup_size({{ WG }})
fn main(@builtin(workgroup_id) id: vec3<u32>, @builtin(num_workgroups) count: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let row = group_index(id, count);
    if (row >= p.groups) { return; }
    // A text that has ended has nothing to choose from.
    let width = {{ "select(p.classes, 0u, ended(row))" if STOPS else "p.classes" }};
    // The key that a token must reach.
    var least = 0u;
{% if TOP_K %}
    // The largest key that at least top_k tokens reach.
    for (var bit = 0x80000000u; bit != 0u; bit = bit >> 1u) {
        var n = 0.0;
        for (var i = lane; i < width; i = i + {{ WG }}u) { n = n + select(0.0, 1.0, key(value(row, i)) >= (least | bit)); }
        if (reduce_sum(lane, n) >= f32(p.top_k)) { least = least | bit; }
    }
{% endif %}
{% if TOP_P %}
    var largest = LOWEST;
    for (var i = lane; i < width; i = i + {{ WG }}u) { largest = max(largest, value(row, i)); }
    let top = reduce_max(lane, largest);
    var sum = 0.0;
    for (var i = lane; i < width; i = i + {{ WG }}u) {
        let v = value(row, i);
        sum = sum + select(0.0, exp(v - top), key(v) >= least);
    }
    let wanted = p.top_p * reduce_sum(lane, sum);
    // The largest key such that the tokens that reach it, and top-k's bound, have the wanted probability.
    var nucleus = 0u;
    for (var bit = 0x80000000u; bit != 0u; bit = bit >> 1u) {
        let trial = max(nucleus | bit, least);
        var reached = 0.0;
        for (var i = lane; i < width; i = i + {{ WG }}u) {
            let v = value(row, i);
            reached = reached + select(0.0, exp(v - top), key(v) >= trial);
        }
        if (reduce_sum(lane, reached) >= wanted) { nucleus = nucleus | bit; }
    }
    least = max(least, nucleus);
{% endif %}
{% if not GREEDY %}
    let key_of_row = key_of(row);
{% endif %}
    var best = LOWEST;
    var place = p.width;
    for (var i = lane; i < width; i = i + {{ WG }}u) {
        var v = value(row, i);
{% if not GREEDY %}
        if (key(v) < least) { continue; }
        v = v + gumbel(key_of_row, i, row);
{% endif %}
        if (v > best) { best = v; place = i; }
    }
    // Of equals the first; indices are exact as floats below 2^24.
    let winner = reduce_max(lane, best);
    let first = -reduce_max(lane, select(LOWEST, -f32(place), best == winner && place < p.width));
    // Logits that are no numbers win nowhere; any token is as good as another then.
    let drawn = select(0u, u32(first), first < f32(p.width));
    if (lane == 0u) {
        let chosen = {{ "advance(row, drawn)" if ADVANCE else "drawn" }};
        y[p.y_at + row] = chosen;
{% if SEEN %}
        seen[p.seen_at + row * p.width + chosen] = 1u;
{% endif %}
    }
}
