// y = min(1, most / (x + 1e-6)), of one number.
struct Params { groups: u32, most: f32, x_at: u32, y_at: u32 }
@group(0) @binding(0) var<uniform> p: Params;
@group(0) @binding(1) var<storage, read> x: array<f32>;
@group(0) @binding(2) var<storage, read_write> y: array<f32>;

@compute @workgroup_size(1)
fn main() {
    y[p.y_at] = min(1.0, p.most / (x[p.x_at] + 1e-6));
}
