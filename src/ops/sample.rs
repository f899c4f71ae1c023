//! The choice of the next token on the device: repetition penalty, temperature, top-k, top-p, and a draw by Gumbel noise.

use super::{random::threefry, *};
use rayon::prelude::*;

/// Lanes of a row. Many, whatever the adapter's subgroups are: the bounds take 64 passes over the row, and Mesa's software
/// adapter ends a shader's loops after 65,535 turns altogether.
const LANES: u32 = 256;

/// How a token is chosen. The order is transformers': penalty, temperature, top-k, top-p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Divides the logits; 0 takes the likeliest token, the first of equals.
    pub temperature: f32,
    /// Only the likeliest `top_k` tokens, and their equals; 0 for all.
    pub top_k: usize,
    /// Only the smallest set of likeliest tokens whose probability reaches this, and their equals; 1 for all.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens that were seen (Keskar et al., "CTRL", 2019); 1 for none.
    pub repetition_penalty: f32,
}

impl Sample {
    /// A draw from all tokens, without a penalty; with a temperature of 0 the likeliest token.
    pub fn plain(temperature: f32) -> Self {
        Self { temperature, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 }
    }
}

/// `logits [B,V], rng [2], seen [B,V] or none -> [B]`; updates what was seen.
#[derive(Debug)]
struct SampleRows(Sample);

/// `chosen [B], tokens [B], positions [B], rng [2], history [B,N]`; updates all but the first.
#[derive(Debug)]
struct Advance;

/// Chooses a token of each row: `logits [B,V], rng [2] u32 -> [B]` u32. `seen` `[B,V]` u32 is not 0 for tokens that the
/// penalty applies to; the chosen one is marked in it.
///
/// The draw is a function of `rng` (seed and step), the row and the logits: the same on every device, but for rounding.
///
/// # Errors
/// Shapes do not fit, or a setting is out of its range.
pub fn sample(
    g: &mut dyn Recorder,
    logits: Tensor,
    seen: Option<Tensor>,
    rng: Tensor,
    rule: Sample,
) -> Result<Tensor, OpError> {
    let inputs: Vec<_> = [logits, rng].into_iter().chain(seen).collect();
    record_one(g, SampleRows(rule), &inputs)
}

/// The likeliest token of each row, the first of equals: `logits [B,V] -> [B]` u32.
///
/// # Errors
/// The logits are no matrix.
pub fn likeliest(g: &mut dyn Recorder, logits: Tensor) -> Result<Tensor, OpError> {
    let rng = g.fill(TensorType::u32([2]), 0.0);
    sample(g, logits, None, rng, Sample::plain(0.0))
}

/// Moves decoding on by a token: `tokens` becomes `chosen` (both `[B]` u32), `positions` `[B]` u32 and the step in `rng`
/// `[2]` u32 grow by one, and `chosen` is put at the step's place in `history` `[B,N]` u32, which is a ring.
///
/// # Errors
/// Shapes do not fit.
pub fn advance(
    g: &mut dyn Recorder,
    chosen: Tensor,
    tokens: Tensor,
    positions: Tensor,
    rng: Tensor,
    history: Tensor,
) -> Result<(), OpError> {
    g.record(Arc::new(Advance), &[chosen, tokens, positions, rng, history])?;
    Ok(())
}

/// A total order of floats as unsigned integers.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

impl Operation for SampleRows {
    fn name(&self) -> &'static str {
        "sample"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, if inputs.len() == 2 { "fu" } else { "fuu" })?;
        let (rule, logits) = (self.0, &inputs[0].shape);
        ensure(logits.rank() == 2 && logits.width() > 0, || format!("logits are [rows, vocabulary], not {logits}"))?;
        ensure(inputs[1].shape.0 == [2], || format!("a random state is [2], not {}", inputs[1].shape))?;
        ensure(inputs.get(2).is_none_or(|seen| seen.shape == *logits), || "what was seen has another shape".into())?;
        ensure(rule.temperature >= 0.0 && rule.temperature.is_finite(), || {
            format!("a temperature of {} is not a number from 0 up", rule.temperature)
        })?;
        ensure(rule.top_p > 0.0 && rule.top_p <= 1.0, || format!("top-p of {} is not in (0, 1]", rule.top_p))?;
        ensure(rule.repetition_penalty > 0.0 && rule.repetition_penalty.is_finite(), || {
            format!("a repetition penalty of {} is not above 0", rule.repetition_penalty)
        })?;
        Ok(vec![TensorType::u32([logits.0[0]])])
    }
    fn updates(&self) -> Vec<usize> {
        // The caller may give nothing to mark; then there is no such input.
        if self.0.repetition_penalty == 1.0 { Vec::new() } else { vec![2] }
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        16 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (logits, rng, y) = (cx.input(0), cx.input(1), cx.output(0));
        let (rows, width) = (logits.ty.shape.rows(), logits.ty.shape.width());
        let rule = self.0;
        let greedy = rule.temperature == 0.0;
        let seen = (cx.inputs.len() > 2).then(|| cx.input(2));
        let kernel = kernel!("sample")
            .with("WG", LANES)
            .with("SUBGROUP", false)
            .with("GREEDY", greedy)
            .with("TOP_K", !greedy && rule.top_k > 0 && rule.top_k < width)
            .with("TOP_P", !greedy && rule.top_p < 1.0)
            .with("SEEN", seen.is_some());
        let factor = if greedy { 1.0 } else { 1.0 / rule.temperature };
        for range in cx.row_ranges(rows, width)? {
            let mut bindings = vec![logits.rows(range.clone(), width).read(), rng.all().read(), y.part(range.clone()).write()];
            bindings.extend(seen.as_ref().map(|seen| seen.rows(range.clone(), width).write()));
            let words = [
                width as u32,
                range.start as u32,
                rule.top_k as u32,
                rule.top_p.to_bits(),
                factor.to_bits(),
                rule.repetition_penalty.to_bits(),
            ];
            cx.dispatch(kernel.clone(), &bindings, &words, range.len())?;
        }
        Ok(())
    }
    host_reference!();
}

impl Sample {
    /// The choice for one row on the host. The random numbers are of single precision whatever T is.
    fn choose<T: Real>(self, logits: &[T], seen: Option<&[u32]>, rng: [u32; 2], row: u32) -> usize {
        let penalty = T::from_f64(f64::from(self.repetition_penalty));
        let greedy = self.temperature == 0.0;
        let factor = T::from_f64(f64::from(if greedy { 1.0 } else { 1.0 / self.temperature }));
        let values = logits.iter().enumerate().map(|(i, &x)| match seen {
            Some(seen) if seen[i] != 0 => (if x > T::ZERO { x / penalty } else { x * penalty }) * factor,
            _ => x * factor,
        });
        let values: Vec<T> = values.collect();
        let likeliest = |values: &[T]| (0..values.len()).fold(0, |best, i| if values[i] > values[best] { i } else { best });
        if greedy {
            return likeliest(&values);
        }
        let mut order: Vec<usize> = (0..values.len()).collect();
        let bounded = self.top_k > 0 && self.top_k < order.len();
        if bounded || self.top_p < 1.0 {
            order.sort_by_key(|&i| std::cmp::Reverse(key(values[i].to_f64() as f32)));
        }
        if bounded {
            let least = values[order[self.top_k - 1]];
            order.retain(|&i| values[i] >= least);
        }
        if self.top_p < 1.0 {
            let top = values[order[0]];
            let weight = |i: usize| (values[i] - top).exp();
            let total: T = order.iter().map(|&i| weight(i)).sum();
            let wanted = T::from_f64(f64::from(self.top_p)) * total;
            let mut sum = T::ZERO;
            let last = order.iter().position(|&i| {
                sum += weight(i);
                sum >= wanted
            });
            if let Some(last) = last {
                let least = values[order[last]];
                order.retain(|&i| values[i] >= least);
            }
        }
        let mut noisy = vec![T::from_f64(f64::NEG_INFINITY); values.len()];
        for i in order {
            noisy[i] = values[i] + T::from_f64(f64::from(gumbel(threefry(rng, [i as u32, row])[0])));
        }
        likeliest(&noisy)
    }
}

/// Gumbel noise from random bits, by the inverse of its distribution function; the uniform number is never 0 or 1.
fn gumbel(bits: u32) -> f32 {
    let u = ((bits >> 9) as f32 + 0.5) * (1.0 / 8_388_608.0);
    -(-u.ln()).ln()
}

impl Reference for SampleRows {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = inputs[0].shape.width();
        let rng = [inputs[1].u()[0], inputs[1].u()[1]];
        let seen = inputs.get(2).map(HostTensor::u);
        let chosen: Vec<u32> = inputs[0]
            .f()
            .par_chunks(width)
            .enumerate()
            .map(|(row, logits)| self.0.choose(logits, seen.map(|s| &s[row * width..][..width]), rng, row as u32) as u32)
            .collect();
        let mut results = vec![HostTensor::uints(outputs[0].shape.clone(), chosen.clone())];
        if let (Some(seen), false) = (inputs.get(2), self.updates().is_empty()) {
            let mut seen = seen.clone();
            chosen.iter().enumerate().for_each(|(row, &id)| seen.u_mut()[row * width + id as usize] = 1);
            results.push(seen);
        }
        results
    }
}

impl Operation for Advance {
    fn name(&self) -> &'static str {
        "advance"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "uuuuu")?;
        let batch = inputs[0].elements();
        let fits = inputs[1].elements() == batch
            && inputs[2].elements() == batch
            && inputs[3].elements() == 2
            && inputs[4].shape.rank() == 2
            && inputs[4].shape.0[0] == batch
            && inputs[4].elements() > 0;
        ensure(fits, || format!("tokens, positions, random state and history do not fit {batch} chosen tokens"))?;
        Ok(Vec::new())
    }
    fn updates(&self) -> Vec<usize> {
        vec![1, 2, 3, 4]
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let [chosen, tokens, positions, rng, history] = [0, 1, 2, 3, 4].map(|i| cx.input(i).all());
        let (batch, width) = (chosen.len as u32, cx.input(4).ty.shape.width() as u32);
        let bindings = [chosen.read(), tokens.write(), positions.write(), rng.write(), history.write()];
        cx.dispatch(kernel!("advance"), &bindings, &[batch, width], 1)
    }
    host_reference!();
}
impl Reference for Advance {
    fn run<T: Real>(&self, mut inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let chosen = inputs.remove(0);
        let width = inputs[3].shape.width();
        let step = inputs[2].u()[1];
        for (b, &id) in chosen.u().iter().enumerate() {
            inputs[0].u_mut()[b] = id;
            inputs[1].u_mut()[b] += 1;
            inputs[3].u_mut()[b * width + step as usize % width] = id;
        }
        inputs[2].u_mut()[1] = step.wrapping_add(1);
        inputs
    }
}
