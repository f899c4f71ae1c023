//! Dropout (Srivastava et al. 2014), its mask from the counter-based generator: nothing is stored for the backward pass.

use super::{
    random::{threefry, unit_float},
    *,
};

/// Lanes of a workgroup.
const LANES: usize = 64;

/// `x [..], rng [2] -> y [..]`
#[derive(Debug)]
struct Dropout {
    rate: f32,
    stream: u32,
}

/// Zeroes each element with probability `rate` and scales the others by `1 / (1 - rate)`: `x [..], rng [2] u32 -> [..]`.
///
/// The mask is a function of `rng` (seed and step), `stream` (one number a place in the model) and the element's index:
/// the same on every device, in the backward pass and when a block is recomputed.
///
/// # Errors
/// `rate` is not in `[0, 1)`, or `rng` is not `[2]`.
pub fn dropout(g: &mut dyn Recorder, x: Tensor, rate: f32, stream: u32, rng: Tensor) -> Result<Tensor, OpError> {
    record_one(g, Dropout { rate, stream }, &[x, rng])
}

impl Dropout {
    fn factor(&self) -> f32 {
        1.0 / (1.0 - self.rate)
    }
}

impl Operation for Dropout {
    fn name(&self) -> &'static str {
        "dropout"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "fu")?;
        ensure((0.0..1.0).contains(&self.rate), || format!("a rate of {} is not in [0, 1)", self.rate))?;
        ensure(inputs[1].shape == Shape::from([2]), || format!("a random state is [2], not {}", inputs[1].shape))?;
        Ok(vec![inputs[0].clone()])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None, None]) };
        Ok(vec![Some(dropout(g, dy, self.rate, self.stream, node.inputs[1])?), None])
    }
    fn half_input(&self, i: usize) -> Half {
        if i == 0 { Half::Accepted } else { Half::Never }
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, rng, y) = (cx.input(0), cx.input(1), cx.output(0));
        for range in cx.row_ranges(x.ty.elements(), 1)? {
            // A lane takes the two elements that share a call of the generator; ranges start at even elements.
            let pairs = range.len().div_ceil(2);
            let words = [range.len() as u32, range.start as u32, self.stream, self.rate.to_bits(), self.factor().to_bits()];
            cx.dispatch(
                kernel!("dropout"),
                &[x.part(range.clone()).read(), rng.all().read(), y.part(range).write()],
                &words,
                pairs.div_ceil(LANES),
            )?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for Dropout {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (key, factor) = ([inputs[1].u()[0], inputs[1].u()[1]], T::from_f64(f64::from(self.factor())));
        let mut y = inputs[0].f().to_vec();
        // Two elements share a call of the generator.
        for (pair, elements) in y.chunks_mut(2).enumerate() {
            let words = threefry(key, [pair as u32, self.stream]);
            for (x, bits) in elements.iter_mut().zip(words) {
                *x = if unit_float(bits) < self.rate { T::ZERO } else { *x * factor };
            }
        }
        vec![HostTensor::floats(outputs[0].shape.clone(), y)]
    }
}
