// The noise that a draw from softmax adds to a logit, and moving decoding on by what was drawn. Needs random.wgsl.
//   STEPS: each row has a step of its own, else all have the second word of rng
// The including kernel defines rng, and where flagged steps; p with first_row, text_rows (rows of one text, which differ in their
// steps alone) and the `_at` words. ADVANCE: also tokens, positions, history, a ring of p.ring tokens for each row.
const LOWEST = -3.4028234e38;
fn key_of(row: u32) -> vec2<u32> {
    return vec2<u32>(rng[p.rng_at], {{ "steps[p.steps_at + row]" if STEPS else "rng[p.rng_at + 1u]" }});
}
fn gumbel(key: vec2<u32>, i: u32, row: u32) -> f32 {
    // 23 bits and a half: exact, and never 0 or 1.
    let u = (f32(threefry(key, vec2<u32>(i, (p.first_row + row) / p.text_rows)).x >> 9u) + 0.5) * (1.0 / 8388608.0);
    return -log(-log(u));
}
