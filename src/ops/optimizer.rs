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

/// A parameter that AdamW moves.
#[derive(Debug, Clone, Copy)]
pub struct AdamWTensor {
    /// The parameter.
    pub parameter: Tensor,
    /// Its gradient.
    pub grad: Tensor,
    /// First moment.
    pub m: Tensor,
    /// Second moment.
    pub v: Tensor,
    /// Decay of the parameter, as [`AdamW::weight_decay`].
    pub weight_decay: f32,
    /// Multiplies the learning rate, as [`AdamW::rate_scale`].
    pub rate_scale: f32,
}

/// For each tensor `parameter, gradient, m, v`, then `hyper [3], factor [] or none`; updates each tensor's 0, 2 and 3. The rules differ in
/// decay and rate.
#[derive(Debug)]
struct AdamWStep(Vec<AdamW>);

/// Tensors of a dispatch, where the adapter has bindings for them: what the block of parameters holds.
const TENSORS: usize = 7;

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
    let tensor = AdamWTensor { parameter, grad, m, v, weight_decay: rule.weight_decay, rate_scale: rule.rate_scale };
    adamw_all(g, &[tensor], hyper, factor, rule)
}

/// [`adamw`] of several tensors, in a few dispatches on a GPU that has enough bindings. Decay and rate of `rule` are each
/// tensor's own.
///
/// # Errors
/// Shapes differ.
pub fn adamw_all(
    g: &mut dyn Recorder,
    tensors: &[AdamWTensor],
    hyper: Tensor,
    factor: Option<Tensor>,
    rule: AdamW,
) -> Result<(), OpError> {
    let rules = tensors.iter().map(|t| AdamW { weight_decay: t.weight_decay, rate_scale: t.rate_scale, ..rule }).collect();
    let each = tensors.iter().flat_map(|t| [t.parameter, t.grad, t.m, t.v]);
    let inputs: Vec<_> = each.chain([hyper]).chain(factor).collect();
    g.record(Arc::new(AdamWStep(rules)), &inputs)?;
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
        let hyper = 4 * self.0.len();
        ensure(hyper > 0, || "there is no tensor to move".into())?;
        for tensor in 0..self.0.len() {
            // Each tensor's four are of one shape; the last of all is the rates' place.
            let mut own = inputs[4 * tensor..4 * tensor + 4].to_vec();
            own.extend_from_slice(&inputs[hyper..]);
            check(&own, &[1, 2, 3], 4)?;
        }
        Ok(Vec::new())
    }
    fn updates(&self) -> Vec<usize> {
        (0..self.0.len()).flat_map(|tensor| [0, 2, 3].map(|i| 4 * tensor + i)).collect()
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        (0..self.0.len()).map(|tensor| 14 * inputs[4 * tensor].elements() as u64).sum()
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let place = 4 * self.0.len();
        let hyper = cx.input(place);
        let factor = (cx.inputs.len() > place + 1).then(|| cx.input(place + 1));
        // Ranges of tensors, with x, grad, m and v of each; those that come in vectors of four apart from the others.
        let (mut fours, mut ones) = (Vec::new(), Vec::new());
        for (tensor, rule) in self.0.iter().enumerate() {
            let own = [0, 1, 2, 3].map(|i| cx.input(4 * tensor + i));
            for range in cx.row_ranges(own[0].ty.elements(), 1)? {
                let windows = own.each_ref().map(|t| t.part(range.clone()));
                let vec4 = cx.vec4(range.len(), &windows.each_ref());
                if vec4 { &mut fours } else { &mut ones }.push((windows, *rule));
            }
        }
        // Mesa's software adapter goes through the loads of the tensors that a workgroup skips, too.
        let most = if cx.caps.software { 1 } else { (cx.caps.max_bindings.saturating_sub(2) / 4).clamp(1, TENSORS) };
        for (jobs, width) in [(fours, 4), (ones, 1)] {
            for some in jobs.chunks(most) {
                let AdamW { beta1, beta2, eps, .. } = self.0[0];
                let mut words = [beta1, beta2, eps].map(f32::to_bits).to_vec();
                let (mut bindings, mut groups) = (Vec::new(), 0);
                for ([x, grad, m, v], rule) in some {
                    let units = x.len / width;
                    words.extend([units as u32, groups as u32, rule.weight_decay.to_bits(), rule.rate_scale.to_bits()]);
                    groups += units.div_ceil(LANES);
                    bindings.extend([x.clone().write(), grad.clone().read(), m.clone().write(), v.clone().write()]);
                }
                bindings.push(hyper.all().read());
                bindings.extend(factor.as_ref().map(|f| f.all().read()));
                let kernel =
                    kernel!("adamw").with("TENSORS", some.len() as u32).with("VEC", width == 4).with("CLIP", factor.is_some());
                cx.dispatch(kernel, &bindings, &words, groups)?;
            }
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for AdamWStep {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let place = 4 * self.0.len();
        let factor = inputs.get(place + 1).map_or(T::ONE, |f| f.f()[0]);
        let [rate, c1, c2] = [0, 1, 2].map(|i| inputs[place].f()[i]);
        let mut updated = Vec::with_capacity(3 * self.0.len());
        let mut inputs = inputs.into_iter();
        for rule in &self.0 {
            let AdamW { beta1, beta2, eps, weight_decay, rate_scale } = *rule;
            let [beta1, beta2, eps, decay, scale] =
                [beta1, beta2, eps, weight_decay, rate_scale].map(|x| T::from_f64(f64::from(x)));
            let rate = rate * scale;
            let mut own: Vec<_> = inputs.by_ref().take(4).collect();
            if let ([x, grad, m, v], true) = (&mut own[..], factor >= T::ZERO) {
                let (x, m, v) = (x.f_mut(), m.f_mut(), v.f_mut());
                for (i, &grad) in grad.f().iter().enumerate() {
                    let g = grad * factor;
                    m[i] = beta1 * m[i] + (T::ONE - beta1) * g;
                    v[i] = beta2 * v[i] + (T::ONE - beta2) * g * g;
                    let step = rate * (m[i] / c1) / ((v[i] / c2).sqrt() + eps);
                    x[i] = x[i] * (T::ONE - rate * decay) - step;
                }
            }
            own.remove(1);
            updated.extend(own);
        }
        updated
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
