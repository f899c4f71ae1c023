// Moves the decoding of a row on by the token `chosen`: tokens, positions, the row's step, and the history, a ring of p.ring.
fn advance(row: u32, chosen: u32) {
    let step = steps[p.steps_at + row];
    tokens[p.tokens_at + row] = chosen;
    positions[p.positions_at + row] = positions[p.positions_at + row] + 1u;
    history[p.history_at + row * p.ring + step % p.ring] = chosen;
    steps[p.steps_at + row] = step + 1u;
}
