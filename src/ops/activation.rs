//! tanh (of poolers) and ReLU. Their gradients need only the output, so the input can be dropped early.

use super::{elementwise::lower_pointwise, *};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Tanh,
    Relu,
}

impl Form {
    /// Its name in `shaders/activation.wgsl`.
    fn word(self) -> &'static str {
        match self {
            Self::Tanh => "tanh",
            Self::Relu => "relu",
        }
    }
}

/// `y = f(x)`
#[derive(Debug)]
struct Activation(Form);

/// `dx = f'(x) dy`, from the output `y` and `dy`.
#[derive(Debug)]
struct ActivationBackward(Form);

/// The hyperbolic tangent of every element of `x`.
///
/// # Errors
/// `x` is not of floats.
pub fn tanh(g: &mut dyn Recorder, x: Tensor) -> Result<Tensor, OpError> {
    record_one(g, Activation(Form::Tanh), &[x])
}

/// Every element of `x`, or 0 where it is negative. The gradient at 0 is 0, as in PyTorch.
///
/// # Errors
/// `x` is not of floats.
pub fn relu(g: &mut dyn Recorder, x: Tensor) -> Result<Tensor, OpError> {
    record_one(g, Activation(Form::Relu), &[x])
}

/// Lowers either.
fn lower(cx: &mut Lowering<'_>, form: Form, gradient: bool) -> Result<(), OpError> {
    lower_pointwise(cx, &kernel!("activation").with("FORM", form.word()).with("GRADIENT", gradient))
}

impl Operation for Activation {
    fn name(&self) -> &'static str {
        self.0.word()
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        Ok(vec![inputs[0].clone()])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        Ok(vec![Some(record_one(g, ActivationBackward(self.0), &[node.outputs[0], dy])?)])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let each = if self.0 == Form::Tanh { 23 } else { 1 };
        each * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower(cx, self.0, false)
    }
    host_reference!();
}
impl Reference for Activation {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let y = inputs[0].f().iter().map(|&x| match self.0 {
            Form::Tanh => x.tanh(),
            Form::Relu if x < T::ZERO => T::ZERO,
            Form::Relu => x,
        });
        vec![HostTensor::floats(outputs[0].shape.clone(), y.collect())]
    }
}

impl Operation for ActivationBackward {
    fn name(&self) -> &'static str {
        match self.0 {
            Form::Tanh => "tanh_backward",
            Form::Relu => "relu_backward",
        }
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ff")?;
        ensure(inputs[0].shape == inputs[1].shape, || "the gradient has another shape than the output".into())?;
        Ok(vec![inputs[0].clone()])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let each = if self.0 == Form::Tanh { 4 } else { 1 };
        each * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower(cx, self.0, true)
    }
    host_reference!();
}
impl Reference for ActivationBackward {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let dx = inputs[0].f().iter().zip(inputs[1].f()).map(|(&y, &dy)| match self.0 {
            Form::Tanh => dy * (T::ONE - y * y),
            Form::Relu if y <= T::ZERO => T::ZERO,
            Form::Relu => dy,
        });
        vec![HostTensor::floats(outputs[0].shape.clone(), dx.collect())]
    }
}
