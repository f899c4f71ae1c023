//! Optimizer steps: they update parameters and moments in place.

use super::*;

/// Lanes of a workgroup.
const LANES: usize = 64;

/// Adam with decoupled weight decay (Loshchilov and Hutter, "Decoupled weight decay regularization", 2019), as PyTorch's
/// `AdamW`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamW {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decay of the parameter, times the learning rate a step; 0 for those that have none.
    pub weight_decay: f32,
    /// Multiplies the learning rate: layer-wise decay; 1 for none.
    pub rate_scale: f32,
}

/// Stochastic gradient descent with momentum, as PyTorch's `SGD`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sgd {
    /// Decay of the buffer.
    pub momentum: f32,
    /// How much of the parameter is added to its gradient; 0 for those that have no decay.
    pub weight_decay: f32,
    /// Multiplies the learning rate: layer-wise decay; 1 for none.
    pub rate_scale: f32,
}

/// `parameter, gradient, m, v, hyper [3], factor [] or none`; updates 0, 2 and 3.
#[derive(Debug)]
struct AdamWStep(AdamW);

/// `parameter, gradient, hyper [3], momentum buffer or none, factor [] or none`; updates 0 and 3.
#[derive(Debug)]
struct SgdStep {
    rule: Sgd,
    buffer: bool,
}

/// A step of AdamW, with gradient g = factor * grad:
///
/// `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; p = p (1 - lr decay) - lr (m / c1) / (sqrt(v / c2) + eps)`
///
/// `hyper` is `[rate, c1, c2]` with lr = rate times the rule's `rate_scale`, and `c = 1 - beta^step`, the bias corrections.
/// `factor` `[]` is the clipping's; where it is negative nothing changes ([`loss_scale`]).
///
/// # Errors
/// Shapes differ.
#[allow(clippy::too_many_arguments)]
pub fn adamw(
    g: &mut dyn Recorder,
    parameter: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    hyper: Tensor,
    factor: Option<Tensor>,
    rule: AdamW,
) -> Result<(), OpError> {
    let inputs: Vec<_> = [parameter, grad, m, v, hyper].into_iter().chain(factor).collect();
    g.record(Arc::new(AdamWStep(rule)), &inputs)?;
    Ok(())
}

/// A step of stochastic gradient descent as PyTorch's `SGD`: `g = factor * grad + decay p; m = momentum m + g; p = p - lr m`,
/// where without a buffer m is g; where the factor is negative nothing changes. `hyper` is `[rate, _, _]` with lr = rate times the rule's `rate_scale`.
///
/// # Errors
/// Shapes differ.
#[allow(clippy::too_many_arguments)]
pub fn sgd(
    g: &mut dyn Recorder,
    parameter: Tensor,
    grad: Tensor,
    buffer: Option<Tensor>,
    hyper: Tensor,
    factor: Option<Tensor>,
    rule: Sgd,
) -> Result<(), OpError> {
    let inputs: Vec<_> = [parameter, grad, hyper].into_iter().chain(buffer).chain(factor).collect();
    g.record(Arc::new(SgdStep { rule, buffer: buffer.is_some() }), &inputs)?;
    Ok(())
}

/// The shape rule of optimizer steps. `same` are the inputs of the parameter's type, `hyper` the place of the rates.
pub(super) fn check(inputs: &[TensorType], same: &[usize], hyper: usize) -> Result<Vec<TensorType>, OpError> {
    expect(inputs, &"f".repeat(inputs.len()))?;
    for &i in same {
        ensure(inputs[i].shape == inputs[0].shape, || {
            format!("input {i} is {}, and the parameter {}", inputs[i].shape, inputs[0].shape)
        })?;
    }
    ensure(inputs[hyper].elements() == 3, || format!("the rates are [3], not {}", inputs[hyper].shape))?;
    Ok(Vec::new())
}

impl Operation for AdamWStep {
    fn name(&self) -> &'static str {
        "adamw"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check(inputs, &[1, 2, 3], 4)
    }
    fn updates(&self) -> Vec<usize> {
        vec![0, 2, 3]
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        14 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let [x, grad, m, v, hyper] = [0, 1, 2, 3, 4].map(|i| cx.input(i));
        let factor = (cx.inputs.len() > 5).then(|| cx.input(5));
        for range in cx.row_ranges(x.ty.elements(), 1)? {
            let windows = [&x, &grad, &m, &v].map(|t| t.part(range.clone()));
            let vec4 = cx.vec4(range.len(), &windows.each_ref());
            let units = if vec4 { range.len() / 4 } else { range.len() };
            let [x, grad, m, v] = windows;
            let mut bindings = vec![x.write(), grad.read(), m.write(), v.write(), hyper.all().read()];
            bindings.extend(factor.as_ref().map(|f| f.all().read()));
            let rule = self.0;
            let rates = [rule.beta1, rule.beta2, rule.eps, rule.weight_decay, rule.rate_scale].map(f32::to_bits);
            let words: Vec<_> = [units as u32].into_iter().chain(rates).collect();
            let kernel = kernel!("adamw").with("VEC", vec4).with("CLIP", factor.is_some());
            cx.dispatch(kernel, &bindings, &words, units.div_ceil(LANES))?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for AdamWStep {
    fn run<T: Real>(&self, mut inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let AdamW { beta1, beta2, eps, weight_decay, rate_scale } = self.0;
        let [beta1, beta2, eps, decay, scale] =
            [beta1, beta2, eps, weight_decay, rate_scale].map(|x| T::from_f64(f64::from(x)));
        let factor = inputs.get(5).map_or(T::ONE, |f| f.f()[0]);
        let [rate, c1, c2] = [0, 1, 2].map(|i| inputs[4].f()[i]);
        let rate = rate * scale;
        inputs.truncate(4);
        if factor < T::ZERO {
            inputs.remove(1);
            return inputs;
        }
        let [x, grad, m, v] = &mut inputs[..] else { return inputs };
        let (x_data, m_data, v_data) = (x.f_mut(), m.f_mut(), v.f_mut());
        for (i, &grad) in grad.f().iter().enumerate() {
            let g = grad * factor;
            m_data[i] = beta1 * m_data[i] + (T::ONE - beta1) * g;
            v_data[i] = beta2 * v_data[i] + (T::ONE - beta2) * g * g;
            let step = rate * (m_data[i] / c1) / ((v_data[i] / c2).sqrt() + eps);
            x_data[i] = x_data[i] * (T::ONE - rate * decay) - step;
        }
        inputs.remove(1);
        inputs
    }
}

impl Operation for SgdStep {
    fn name(&self) -> &'static str {
        "sgd"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        check(inputs, if self.buffer { &[1, 3] } else { &[1] }, 2)
    }
    fn updates(&self) -> Vec<usize> {
        if self.buffer { vec![0, 3] } else { vec![0] }
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        6 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let [x, grad, hyper] = [0, 1, 2].map(|i| cx.input(i));
        let buffer = self.buffer.then(|| cx.input(3));
        let place = 3 + usize::from(self.buffer);
        let factor = (cx.inputs.len() > place).then(|| cx.input(place));
        for range in cx.row_ranges(x.ty.elements(), 1)? {
            let mut bindings = vec![x.part(range.clone()).write(), grad.part(range.clone()).read(), hyper.all().read()];
            bindings.extend(buffer.as_ref().map(|b| b.part(range.clone()).write()));
            bindings.extend(factor.as_ref().map(|f| f.all().read()));
            let Sgd { momentum, weight_decay, rate_scale } = self.rule;
            let words = [range.len() as u32, momentum.to_bits(), weight_decay.to_bits(), rate_scale.to_bits()];
            let kernel = kernel!("sgd").with("MOMENTUM", self.buffer).with("CLIP", factor.is_some());
            cx.dispatch(kernel, &bindings, &words, range.len().div_ceil(LANES))?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for SgdStep {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let Sgd { momentum, weight_decay, rate_scale } = self.rule;
        let [momentum, decay, scale] = [momentum, weight_decay, rate_scale].map(|x| T::from_f64(f64::from(x)));
        let factor = inputs.get(3 + usize::from(self.buffer)).map_or(T::ONE, |f| f.f()[0]);
        let rate = inputs[2].f()[0] * scale;
        let mut updated = vec![inputs[0].clone()];
        updated.extend(self.buffer.then(|| inputs[3].clone()));
        if factor < T::ZERO {
            return updated;
        }
        for (i, &grad) in inputs[1].f().iter().enumerate() {
            let mut g = grad * factor + decay * updated[0].f()[i];
            if let Some(buffer) = updated.get_mut(1) {
                g = momentum * buffer.f()[i] + g;
                buffer.f_mut()[i] = g;
            }
            updated[0].f_mut()[i] = updated[0].f()[i] - rate * g;
        }
        updated
    }
}
