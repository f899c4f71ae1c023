//! Dynamic loss scaling (Micikevicius et al., "Mixed precision training", 2018, section 3.2), with the rule and the constants of
//! PyTorch's `GradScaler`: the loss is multiplied by a scale, so that small gradients do not vanish in 16 bits; a step whose
//! gradients overflow is skipped and halves the scale, and 2,000 steps that do not double it.

use super::*;

/// The scale that training begins with.
pub const FIRST_LOSS_SCALE: f32 = 65_536.0;
/// Steps without an overflow after which the scale is doubled.
const INTERVAL: f32 = 2000.0;
/// Beyond it a gradient that is worth anything would overflow.
const LARGEST: f32 = 16_777_216.0;

/// `norm [], state [3] -> [2]`; updates 1.
#[derive(Debug)]
struct LossScale {
    /// The largest norm, where gradients are clipped.
    most: Option<f32>,
}

/// What gradients of global norm `norm` `[]` are multiplied by whose loss was multiplied by the scale, and their norm without it.
/// `state` `[3]`, a variable, is the scale, the steps since it last changed, and the number of steps skipped; it is moved on.
///
/// Returns the factor `[]`, which is -1 where the gradients overflowed (optimizers then change nothing), and the norm `[]`.
/// `most` clips as [`clip_factor`] does.
///
/// # Errors
/// Shapes differ.
pub fn loss_scale(g: &mut dyn Recorder, norm: Tensor, state: Tensor, most: Option<f32>) -> Result<[Tensor; 2], OpError> {
    let both = record_one(g, LossScale { most }, &[norm, state])?;
    let mut part = |i: usize| -> Result<Tensor, OpError> {
        let one = slice(g, both, 0, i..i + 1)?;
        reshape(g, one, [])
    };
    Ok([part(0)?, part(1)?])
}

impl Operation for LossScale {
    fn name(&self) -> &'static str {
        "loss_scale"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ff")?;
        ensure(inputs[0].elements() == 1, || format!("a norm is a scalar, not {}", inputs[0].shape))?;
        ensure(inputs[1].elements() == 3, || format!("the scale's state is [3], not {}", inputs[1].shape))?;
        Ok(vec![TensorType::f32([2])])
    }
    fn updates(&self) -> Vec<usize> {
        vec![1]
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (norm, state, y) = (cx.input(0), cx.input(1), cx.output(0));
        let kernel = kernel!("loss_scale").with("CLIP", self.most.is_some());
        let words = [self.most.unwrap_or_default(), INTERVAL, LARGEST].map(f32::to_bits);
        cx.dispatch(kernel, &[norm.all().read(), state.all().write(), y.all().write()], &words, 1)
    }
    host_reference!();
}
impl Reference for LossScale {
    fn run<T: Real>(&self, mut inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let real = |x: f32| T::from_f64(f64::from(x));
        let scaled = inputs[0].f()[0];
        let state = inputs[1].f_mut();
        let (scale, finite) = (state[0], scaled * T::ZERO == T::ZERO);
        let found = scaled / scale;
        let mut factor = real(-1.0);
        if finite {
            factor = match self.most.map(|most| real(most) / (found + T::from_f64(1e-6))) {
                Some(clipped) if clipped < T::ONE => clipped / scale,
                _ => T::ONE / scale,
            };
            state[1] += T::ONE;
            if state[1] >= real(INTERVAL) {
                let doubled = real(2.0) * scale;
                (state[0], state[1]) = (if doubled < real(LARGEST) { doubled } else { real(LARGEST) }, T::ZERO);
            }
        } else {
            let halved = real(0.5) * scale;
            (state[0], state[1]) = (if halved < T::ONE { T::ONE } else { halved }, T::ZERO);
            state[2] += T::ONE;
        }
        vec![HostTensor::floats(outputs[0].shape.clone(), vec![factor, found]), inputs.remove(1)]
    }
}
