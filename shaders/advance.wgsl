// Moves decoding on by a token: tokens, positions, the step of the random state, and the history, a ring of `width`.
struct Params {
    groups: u32, batch: u32, width: u32,
    chosen_at: u32, tokens_at: u32, positions_at: u32, rng_at: u32, history_at: u32,
}
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> chosen: array<u32>;
@group(0) @binding(2) var<storage, read_write> tokens: array<u32>;
@group(0) @binding(3) var<storage, read_write> positions: array<u32>;
@group(0) @binding(4) var<storage, read_write> rng: array<u32>;
@group(0) @binding(5) var<storage, read_write> history: array<u32>;

@compute @workgroup_size(64)
fn main(@builtin(local_invocation_index) lane: u32) {
    let step = rng[p.rng_at + 1u];
    for (var b = lane; b < p.batch; b = b + 64u) {
        let id = chosen[p.chosen_at + b];
        tokens[p.tokens_at + b] = id;
        positions[p.positions_at + b] = positions[p.positions_at + b] + 1u;
        history[p.history_at + b * p.width + step % p.width] = id;
    }
    // Everyone has read the step.
    storageBarrier();
    if (lane == 0u) { rng[p.rng_at + 1u] = step + 1u; }
}
