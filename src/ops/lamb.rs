//! LAMB (You et al., "Large batch optimization for deep learning: training BERT in 76 minutes", 2020) as
//! google-research/albert's `lamb_optimizer.py`: without the paper's bias correction.

use super::*;

/// Lanes of a workgroup.
const LANES: usize = 64;

/// The rule that a parameter follows. Those excluded from decay (layer norms and biases) are excluded from the adaptation
/// of their layer's rate too: `weight_decay` 0 and no `adapt`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Lamb {
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// How much of the parameter is added to its update; 0 for those that have no decay.
    pub weight_decay: f32,
    /// Whether the update is scaled to the parameter's norm.
    pub adapt: bool,
    /// Multiplies the learning rate: layer-wise decay; 1 for none.
    pub rate_scale: f32,
}

/// `parameter, gradient, m, v, hyper [3], factor [] or none`; updates 0, 2 and 3.
#[derive(Debug)]
struct LambStep(Lamb);

/// A step of LAMB, with gradient g = factor * grad:
///
/// `m = b1 m + (1 - b1) g; v = b2 v + (1 - b2) g^2; u = m / (sqrt(v) + eps) + decay p; p = p - lr ratio u`
///
/// where ratio is `|p| / |u|`, or 1 if either norm is 0 or the rule does not adapt. `hyper` is `[rate, _, _]` with lr
/// = rate times the rule's `rate_scale`; `factor` `[]` is the clipping's; where it is negative
/// nothing changes ([`loss_scale`]).
///
/// # Errors
/// Shapes differ.
#[allow(clippy::too_many_arguments)]
pub fn lamb(
    g: &mut dyn Recorder,
    parameter: Tensor,
    grad: Tensor,
    m: Tensor,
    v: Tensor,
    hyper: Tensor,
    factor: Option<Tensor>,
    rule: Lamb,
) -> Result<(), OpError> {
    let inputs: Vec<_> = [parameter, grad, m, v, hyper].into_iter().chain(factor).collect();
    g.record(Arc::new(LambStep(rule)), &inputs)?;
    Ok(())
}

impl Operation for LambStep {
    fn name(&self) -> &'static str {
        "lamb"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        optimizer::check(inputs, &[1, 2, 3], 4)
    }
    fn updates(&self) -> Vec<usize> {
        vec![0, 2, 3]
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let each = if self.0.adapt { 19 } else { 14 };
        each * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let rule = self.0;
        let [x, grad, m, v, hyper] = [0, 1, 2, 3, 4].map(|i| cx.input(i));
        let factor = (cx.inputs.len() > 5).then(|| cx.input(5));
        let n = x.ty.elements();
        let u = rule.adapt.then(|| cx.scratch(n));
        let rates = [rule.beta1, rule.beta2, rule.eps, rule.weight_decay, rule.rate_scale].map(f32::to_bits);
        for range in cx.row_ranges(n, 1)? {
            let same = [&x, &grad, &m, &v].into_iter().chain(&u);
            let windows: Vec<_> = same.map(|t| t.part(range.clone())).collect();
            let vec4 = cx.vec4(range.len(), &windows.iter().collect::<Vec<_>>());
            let units = if vec4 { range.len() / 4 } else { range.len() };
            // Read or written: x, grad, m, v, u.
            let written = [u.is_none(), false, true, true, true];
            let mut bindings: Vec<_> =
                windows.into_iter().zip(written).map(|(w, written)| if written { w.write() } else { w.read() }).collect();
            if u.is_none() {
                bindings.push(hyper.all().read());
            }
            bindings.extend(factor.as_ref().map(|f| f.all().read()));
            let words: Vec<_> = [units as u32].into_iter().chain(rates).collect();
            let kernel = kernel!("lamb_moments").with("VEC", vec4).with("DIRECT", u.is_none()).with("CLIP", factor.is_some());
            cx.dispatch(kernel, &bindings, &words, units.div_ceil(LANES))?;
        }
        let Some(u) = u else { return Ok(()) };
        let norms = cx.scratch(2);
        clip::lower_norm(cx, std::slice::from_ref(&x), norms.part(0..1))?;
        clip::lower_norm(cx, std::slice::from_ref(&u), norms.part(1..2))?;
        for range in cx.row_ranges(n, 1)? {
            let (x, u) = (x.part(range.clone()), u.part(range.clone()));
            let vec4 = cx.vec4(range.len(), &[&x, &u]);
            let units = if vec4 { range.len() / 4 } else { range.len() };
            let mut bindings = vec![x.write(), u.read(), norms.all().read(), hyper.all().read()];
            bindings.extend(factor.as_ref().map(|f| f.all().read()));
            let words = [units as u32, rule.rate_scale.to_bits()];
            cx.dispatch(
                kernel!("lamb_apply").with("VEC", vec4).with("CLIP", factor.is_some()),
                &bindings,
                &words,
                units.div_ceil(LANES),
            )?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for LambStep {
    fn run<T: Real>(&self, mut inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let Lamb { beta1, beta2, eps, weight_decay, rate_scale, .. } = self.0;
        let [beta1, beta2, eps, decay, scale] = [beta1, beta2, eps, weight_decay, rate_scale].map(|x| T::from_f64(f64::from(x)));
        let factor = inputs.get(5).map_or(T::ONE, |f| f.f()[0]);
        let rate = inputs[4].f()[0] * scale;
        inputs.truncate(4);
        if factor < T::ZERO {
            inputs.remove(1);
            return inputs;
        }
        let [x, grad, m, v] = &mut inputs[..] else { return inputs };
        let (x, m, v) = (x.f_mut(), m.f_mut(), v.f_mut());
        let mut u = Vec::with_capacity(x.len());
        for (i, &grad) in grad.f().iter().enumerate() {
            let g = grad * factor;
            m[i] = beta1 * m[i] + (T::ONE - beta1) * g;
            v[i] = beta2 * v[i] + (T::ONE - beta2) * g * g;
            u.push(m[i] / (v[i].sqrt() + eps) + decay * x[i]);
        }
        let norm = |values: &[T]| values.iter().map(|&x| x * x).sum::<T>().sqrt();
        let (x_norm, u_norm) = (norm(x), norm(&u));
        let adapted = self.0.adapt && x_norm != T::ZERO && u_norm != T::ZERO;
        let ratio = if adapted { x_norm / u_norm } else { T::ONE };
        for (x, &u) in x.iter_mut().zip(&u) {
            *x -= rate * ratio * u;
        }
        inputs.remove(1);
        inputs
    }
}
