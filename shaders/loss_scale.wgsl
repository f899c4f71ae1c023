// What gradients are multiplied by whose loss was scaled, and the next step's scale. state: the scale, the steps since it last
// changed, the steps that were skipped.
//   y[0]: min(1, most / (norm + 1e-6)) / scale, or -1 if the gradients overflowed: the optimizer then leaves everything as it is
//   y[1]: the gradients' norm without the scale
// CLIP: with the first factor, else 1 / scale.
struct Params { groups: u32, most: f32, interval: f32, largest: f32, norm_at: u32, state_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> norm: array<f32>;
@group(0) @binding(2) var<storage, read_write> state: array<f32>;
@group(0) @binding(3) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(1)
fn main() {
    let scale = state[p.state_at];
    let scaled = norm[p.norm_at];
    let found = scaled / scale;
    y[p.y_at + 1u] = found;
    // By its bits: a compiler may take it that no number is infinite or none.
    if ((bitcast<u32>(scaled) & 0x7f800000u) == 0x7f800000u) {
        y[p.y_at] = -1.0;
        state[p.state_at] = max(0.5 * scale, 1.0);
        state[p.state_at + 1u] = 0.0;
        state[p.state_at + 2u] = state[p.state_at + 2u] + 1.0;
        return;
    }
    y[p.y_at] = {{ "min(1.0, p.most / (found + 1e-6))" if CLIP else "1.0" }} / scale;
    let steps = state[p.state_at + 1u] + 1.0;
    let grows = steps >= p.interval;
    state[p.state_at] = select(scale, min(2.0 * scale, p.largest), grows);
    state[p.state_at + 1u] = select(steps, 0.0, grows);
}
