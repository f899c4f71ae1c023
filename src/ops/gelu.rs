//! GELU (Hendrycks and Gimpel, "Gaussian error linear units", 2016) in its exact form and in its tanh approximation.

use super::{elementwise::lower_pointwise, *};

/// sqrt(2 / pi)
const SQRT_2_OVER_PI: f64 = 0.797_884_560_802_865_4;
/// 1 / sqrt(2 pi)
const INVERSE_SQRT_2_PI: f64 = 0.398_942_280_401_432_7;
/// The weight of x^3 in the tanh form.
const CUBIC: f64 = 0.044_715;

/// Which form of GELU.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Gelu {
    /// `0.5 x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3)))`: GPT-2's, transformers' `gelu_new`.
    Tanh,
    /// `0.5 x (1 + erf(x / sqrt(2)))`: BERT's, transformers' `gelu`.
    Erf,
}

impl Gelu {
    /// Its name in `shaders/shared/gelu.wgsl`: `gelu_WORD` is the function, `gelu_WORD_derivative` its derivative.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Erf => "erf",
        }
    }

    /// gelu(x)
    pub(super) fn apply<T: Real>(self, x: T) -> T {
        x * self.gate(x)
    }

    /// What x is multiplied with: `0.5 (1 + tanh(u))`, which is `1 / (1 + exp(-2 u))`, or `0.5 (1 + erf(..))`.
    fn gate<T: Real>(self, x: T) -> T {
        match self {
            Self::Tanh => {
                let u = T::from_f64(SQRT_2_OVER_PI) * (x + T::from_f64(CUBIC) * x * x * x);
                T::ONE / (T::ONE + (T::from_f64(-2.0) * u).exp())
            }
            // In double precision whatever T is: accurate to the last bit or so.
            Self::Erf => {
                let half = T::from_f64(0.5);
                half + half * T::from_f64(libm::erf(x.to_f64() * std::f64::consts::FRAC_1_SQRT_2))
            }
        }
    }

    /// d gelu(x) / dx
    pub(super) fn derivative<T: Real>(self, x: T) -> T {
        let gate = self.gate(x);
        match self {
            Self::Tanh => {
                let inner = T::from_f64(SQRT_2_OVER_PI) * (T::ONE + T::from_f64(3.0 * CUBIC) * x * x);
                // 0.5 (1 - tanh^2) = 2 gate (1 - gate)
                gate + x * T::from_f64(2.0) * gate * (T::ONE - gate) * inner
            }
            Self::Erf => {
                let density = T::from_f64(INVERSE_SQRT_2_PI) * (T::from_f64(-0.5) * x * x).exp();
                gate + x * density
            }
        }
    }
}

/// `y = gelu(x)`
#[derive(Debug)]
struct Activation(Gelu);

/// `dx = gelu'(x) dy`
#[derive(Debug)]
struct ActivationBackward(Gelu);

/// GELU of every element of `x`, in the given form.
///
/// # Errors
/// `x` is not of floats.
pub fn gelu(g: &mut dyn Recorder, x: Tensor, form: Gelu) -> Result<Tensor, OpError> {
    record_one(g, Activation(form), &[x])
}

/// The gradient of `gelu(x)` for a gradient `dy` of its result: `dx = gelu'(x) dy`, all of one shape.
///
/// # Errors
/// The shapes differ, or they are not of floats.
pub fn gelu_gradient(g: &mut dyn Recorder, x: Tensor, dy: Tensor, form: Gelu) -> Result<Tensor, OpError> {
    record_one(g, ActivationBackward(form), &[x, dy])
}

/// The form, if `op` is a GELU: what an epilogue can take on.
pub(super) fn kind_of(op: &dyn Operation) -> Option<Gelu> {
    op.as_any().downcast_ref::<Activation>().map(|a| a.0)
}

/// The form, if `op` is the gradient of a GELU: `dx = gelu'(x) dy` with inputs x, dy.
pub(super) fn derivative_of(op: &dyn Operation) -> Option<Gelu> {
    op.as_any().downcast_ref::<ActivationBackward>().map(|a| a.0)
}

/// Lowers either.
fn lower(cx: &mut Lowering<'_>, form: Gelu, gradient: bool) -> Result<(), OpError> {
    lower_pointwise(cx, &kernel!("gelu").with("FORM", form.word()).with("GRADIENT", gradient))
}

impl Operation for Activation {
    fn name(&self) -> &'static str {
        "gelu"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        Ok(vec![inputs[0].clone()])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        Ok(vec![Some(gelu_gradient(g, node.inputs[0], dy, self.0)?)])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        10 * inputs[0].elements() as u64
    }
    fn half_input(&self, _i: usize) -> Half {
        Half::Accepted
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower(cx, self.0, false)
    }
    host_reference!();
}
impl Reference for Activation {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let y = inputs[0].f().iter().map(|&x| self.0.apply(x)).collect();
        vec![HostTensor::floats(outputs[0].shape.clone(), y)]
    }
}

impl Operation for ActivationBackward {
    fn name(&self) -> &'static str {
        "gelu_backward"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ff")?;
        ensure(inputs[0].shape == inputs[1].shape, || "the gradient has another shape than the input".into())?;
        Ok(vec![inputs[0].clone()])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        20 * inputs[0].elements() as u64
    }
    fn half_input(&self, _i: usize) -> Half {
        Half::Accepted
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower(cx, self.0, true)
    }
    host_reference!();
}
impl Reference for ActivationBackward {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let dx = inputs[0].f().iter().zip(inputs[1].f()).map(|(&x, &dy)| self.0.derivative(x) * dy).collect();
        vec![HostTensor::floats(outputs[0].shape.clone(), dx)]
    }
}
