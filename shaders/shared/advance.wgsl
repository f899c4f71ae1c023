// Moves the decoding of a row on by the token `drawn`: tokens, positions, the row's step, and the history, a ring of p.ring. Returns
// the token.
//   STOPS: a row whose newest token is among p.stop_a to p.stop_d has ended. It stays where it is, and that token is all that comes.
{% if STOPS %}
fn ended(row: u32) -> bool {
    let newest = tokens[p.tokens_at + row];
    return newest == p.stop_a || newest == p.stop_b || newest == p.stop_c || newest == p.stop_d;
}
{% endif %}
fn advance(row: u32, drawn: u32) -> u32 {
    let step = steps[p.steps_at + row];
{% if STOPS %}
    let stays = ended(row);
    let token = select(drawn, tokens[p.tokens_at + row], stays);
    positions[p.positions_at + row] = positions[p.positions_at + row] + select(1u, 0u, stays);
{% else %}
    let token = drawn;
    positions[p.positions_at + row] = positions[p.positions_at + row] + 1u;
{% endif %}
    tokens[p.tokens_at + row] = token;
    history[p.history_at + row * p.ring + step % p.ring] = token;
    steps[p.steps_at + row] = step + 1u;
    return token;
}
