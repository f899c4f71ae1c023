//! The choice of the next token on the device: repetition penalty, temperature, top-k, top-p, and a draw by Gumbel noise.

use super::{random::threefry, *};
use crate::gpu::Kernel;
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

/// Tokens that end a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StopTokens([u32; Self::MOST]);

impl StopTokens {
    /// How many there can be.
    pub const MOST: usize = 4;
    /// What is no token.
    const NONE: u32 = u32::MAX;

    /// Those of `tokens`, as far as there is room.
    pub fn of(tokens: &[u32]) -> Self {
        let mut stops = [Self::NONE; Self::MOST];
        stops.iter_mut().zip(tokens).for_each(|(stop, &token)| *stop = token);
        Self(stops)
    }
    /// None.
    pub fn none() -> Self {
        Self::of(&[])
    }
    /// Whether a text ends with `token`.
    pub fn contains(&self, token: u32) -> bool {
        token != Self::NONE && self.0.contains(&token)
    }
    fn any(&self) -> bool {
        self.0 != [Self::NONE; Self::MOST]
    }
}

/// `logits [R,V], rng [2], seen [R,V], steps [R], tokens [R], positions [R], history [R,N] -> [R]`, with those from the third on that
/// the flags name; updates what was seen, and what moves on.
#[derive(Debug, Clone, Copy)]
pub(super) struct SampleRows {
    rule: Sample,
    /// The first so many logits of a row are of tokens, if not all.
    classes: Option<usize>,
    seen: bool,
    /// Each row has a step of its own.
    steps: bool,
    /// Rows of one text, which differ in their steps alone.
    text_rows: usize,
    /// Tokens, positions, steps and history move on.
    advance: bool,
    /// Rows whose newest token is one of these stay.
    stops: StopTokens,
}

/// What decoding keeps of its rows on the device.
#[derive(Debug, Clone, Copy)]
pub struct Decoding {
    /// `[2]` u32, whose first word is the seed.
    pub rng: Tensor,
    /// `[R]` u32: how many tokens of its text were chosen before the row's.
    pub steps: Tensor,
    /// Rows of one text, for tokens one after another; they differ in their steps alone.
    pub text_rows: usize,
    /// `[R,V]` u32, not 0 for tokens that the penalty applies to; the chosen one is marked.
    pub seen: Option<Tensor>,
    /// `[R]` u32, `[R]` u32 and `[R,N]` u32: the newest token, its position, and the tokens of the last N steps, a ring. They, and
    /// the steps, move on by a token.
    pub state: Option<[Tensor; 3]>,
    /// A row whose newest token is one of these has ended: its position stays, and that token is all that is chosen from then on.
    pub stops: StopTokens,
}

/// Chooses a token of each row: `logits [B,V], rng [2] u32 -> [B]` u32. `seen` `[B,V]` u32 is not 0 for tokens that the
/// penalty applies to; the chosen one is marked in it.
///
/// The draw is a function of `rng` (seed and step), the row and the logits: the same on every device, but for rounding.
///
/// # Errors
/// Shapes do not fit, or a setting is out of its range.
pub fn sample(
    g: &mut dyn Recorder,
    logits: impl Into<Logits>,
    seen: Option<Tensor>,
    rng: Tensor,
    rule: Sample,
) -> Result<Tensor, OpError> {
    let Logits { tensor, classes } = logits.into();
    let inputs: Vec<_> = [tensor, rng].into_iter().chain(seen).collect();
    let stops = StopTokens::none();
    record_one(g, SampleRows { rule, classes, seen: seen.is_some(), steps: false, text_rows: 1, advance: false, stops }, &inputs)
}

/// The same for decoding: `logits [R,V] -> [R]` u32. The draw is a function of the seed, the row's text, its step and the logits.
///
/// # Errors
/// Shapes do not fit, or a setting is out of its range.
pub fn choose(g: &mut dyn Recorder, logits: Tensor, decoding: &Decoding, rule: Sample) -> Result<Tensor, OpError> {
    let Decoding { rng, steps, text_rows, seen, state, stops } = *decoding;
    let inputs: Vec<_> = [logits, rng].into_iter().chain(seen).chain([steps]).chain(state.into_iter().flatten()).collect();
    let (seen, advance) = (seen.is_some(), state.is_some());
    record_one(g, SampleRows { rule, classes: None, seen, steps: true, text_rows, advance, stops }, &inputs)
}

/// The likeliest token of each row, the first of equals: `logits [B,V] -> [B]` u32.
///
/// # Errors
/// The logits are no matrix.
pub fn likeliest(g: &mut dyn Recorder, logits: impl Into<Logits>) -> Result<Tensor, OpError> {
    let rng = g.fill(TensorType::u32([2]), 0.0);
    sample(g, logits, None, rng, Sample::plain(0.0))
}

/// A total order of floats as unsigned integers.
fn key(x: f32) -> u32 {
    let bits = x.to_bits();
    if bits >> 31 == 1 { !bits } else { bits | 1 << 31 }
}

impl SampleRows {
    /// Whether it is a draw from all logits, or the likeliest: what a product's workgroups can begin.
    pub fn plain(&self) -> bool {
        let rule = self.rule;
        let all = self.classes.is_none() && (rule.temperature == 0.0 || (rule.top_k == 0 && rule.top_p == 1.0));
        all && !self.seen && rule.repetition_penalty == 1.0
    }
    /// What logits are multiplied by.
    pub fn factor(&self) -> f32 {
        if self.rule.temperature == 0.0 { 1.0 } else { 1.0 / self.rule.temperature }
    }
    /// The variant of a kernel that draws.
    pub fn variant(&self, kernel: Kernel) -> Kernel {
        kernel.with("GREEDY", self.rule.temperature == 0.0).with("STEPS", self.steps)
    }
    /// Rows of one text.
    pub fn text_rows(&self) -> usize {
        self.text_rows
    }
    /// Where the steps are among the inputs.
    pub fn steps_at(&self) -> Option<usize> {
        self.steps.then_some(2 + usize::from(self.seen))
    }
    /// What moves on: steps, tokens, positions and history, among the inputs.
    fn state(&self) -> Vec<usize> {
        let first = 2 + usize::from(self.seen);
        if self.advance { (first..first + 4).collect() } else { Vec::new() }
    }
    /// The variant of a kernel that moves decoding on.
    fn advancing(&self, kernel: Kernel) -> Kernel {
        kernel.with("ADVANCE", self.advance).with("STOPS", self.advance && self.stops.any())
    }

    /// The end of a draw that a product's workgroups have begun: `parts` has, for each row, `slots` pairs of a value and its token.
    /// `inputs` are the operation's own.
    ///
    /// # Errors
    /// A row of them is larger than a binding.
    pub fn finish(
        &self,
        cx: &mut Lowering<'_>,
        inputs: &[Operand],
        parts: &Operand,
        slots: usize,
        y: &Operand,
    ) -> Result<(), OpError> {
        let rows = y.ty.elements();
        let lanes = if cx.caps.software { 8 } else { LANES };
        let kernel = kernel!("sample_best").with("WG", lanes).with("SUBGROUP", cx.caps.subgroup == Some(lanes));
        let kernel = self.advancing(kernel);
        let state: Vec<_> = self.state().into_iter().map(|i| &inputs[i]).collect();
        let ring = state.last().map_or(1, |history| history.ty.shape.width());
        for range in cx.row_ranges(rows, 2 * slots)? {
            let mut bindings = vec![parts.rows(range.clone(), 2 * slots).read(), y.part(range.clone()).write()];
            bindings.extend(state.iter().map(|part| part.rows(range.clone(), part.ty.elements() / rows).write()));
            let words = [&[slots as u32, ring as u32], &self.stops.0[..]].concat();
            cx.dispatch(kernel.clone(), &bindings, &words, range.len())?;
        }
        Ok(())
    }
}

impl Operation for SampleRows {
    fn name(&self) -> &'static str {
        "sample"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let more = usize::from(self.seen) + usize::from(self.steps) + if self.advance { 3 } else { 0 };
        expect(inputs, &format!("f{}", "u".repeat(1 + more)))?;
        let (rule, logits) = (self.rule, &inputs[0].shape);
        ensure(logits.rank() == 2 && logits.width() > 0, || format!("logits are [rows, vocabulary], not {logits}"))?;
        ensure(inputs[1].shape.0 == [2], || format!("a random state is [2], not {}", inputs[1].shape))?;
        ensure(!self.seen || inputs[2].shape == *logits, || "what was seen has another shape".into())?;
        let rows = logits.0[0];
        let whole = self.text_rows > 0 && rows % self.text_rows == 0;
        ensure(whole, || format!("{rows} rows are not made of texts of {}", self.text_rows))?;
        ensure(self.steps_at().is_none_or(|at| inputs[at].elements() == rows), || format!("steps are not [{rows}]"))?;
        if let [_, tokens, positions, history] = self.state()[..] {
            let ring = &inputs[history].shape;
            let fits = inputs[tokens].elements() == rows && inputs[positions].elements() == rows;
            ensure(fits && ring.rank() == 2 && ring.0[0] == rows && ring.width() > 0, || {
                format!("tokens, positions and history do not fit {rows} rows")
            })?;
        }
        let classes = logits::classes_of(self.classes, &inputs[0]);
        ensure(0 < classes && classes <= logits.width(), || format!("{logits} has not {classes} tokens"))?;
        let beyond = self.stops.0.iter().find(|&&stop| stop != StopTokens::NONE && stop as usize >= classes);
        ensure(beyond.is_none(), || format!("a text cannot end with token {} of {classes}", beyond.unwrap_or(&0)))?;
        ensure(rule.temperature >= 0.0 && rule.temperature.is_finite(), || {
            format!("a temperature of {} is not a number from 0 up", rule.temperature)
        })?;
        ensure(rule.top_p > 0.0 && rule.top_p <= 1.0, || format!("top-p of {} is not in (0, 1]", rule.top_p))?;
        ensure(rule.repetition_penalty > 0.0 && rule.repetition_penalty.is_finite(), || {
            format!("a repetition penalty of {} is not above 0", rule.repetition_penalty)
        })?;
        Ok(vec![TensorType::u32([rows])])
    }
    fn updates(&self) -> Vec<usize> {
        // The caller may give nothing to mark; then there is no such input.
        let seen = self.seen && self.rule.repetition_penalty != 1.0;
        seen.then_some(2).into_iter().chain(self.state()).collect()
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        16 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (logits, rng, y) = (cx.input(0), cx.input(1), cx.output(0));
        let (rows, width) = (logits.ty.shape.rows(), logits.ty.shape.width());
        let classes = logits::classes_of(self.classes, &logits.ty);
        let rule = self.rule;
        let greedy = rule.temperature == 0.0;
        let seen = self.seen.then(|| cx.input(2));
        let steps = self.steps_at().map(|at| cx.input(at));
        let state: Vec<_> = self.state().into_iter().skip(1).map(|i| cx.input(i)).collect();
        let kernel = self
            .variant(kernel!("sample"))
            .with("WG", LANES)
            .with("SUBGROUP", false)
            .with("TOP_K", !greedy && rule.top_k > 0 && rule.top_k < classes)
            .with("TOP_P", !greedy && rule.top_p < 1.0)
            .with("SEEN", seen.is_some());
        let kernel = self.advancing(kernel);
        let ring = state.last().map_or(1, |history| history.ty.shape.width());
        for range in cx.row_ranges(rows, width)? {
            let mut bindings = vec![logits.rows(range.clone(), width).read(), rng.all().read(), y.part(range.clone()).write()];
            bindings.extend(seen.as_ref().map(|seen| seen.rows(range.clone(), width).write()));
            bindings.extend(steps.as_ref().map(|steps| {
                let steps = steps.part(range.clone());
                if self.advance { steps.write() } else { steps.read() }
            }));
            bindings.extend(state.iter().map(|part| part.rows(range.clone(), part.ty.elements() / rows).write()));
            let words = [
                width as u32,
                classes as u32,
                range.start as u32,
                self.text_rows as u32,
                rule.top_k as u32,
                rule.top_p.to_bits(),
                self.factor().to_bits(),
                rule.repetition_penalty.to_bits(),
                ring as u32,
            ];
            let words = [&words, &self.stops.0[..]].concat();
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
        let classes = logits::classes_of(self.classes, &inputs[0].ty());
        let rng = [inputs[1].u()[0], inputs[1].u()[1]];
        let seen = self.seen.then(|| inputs[2].u());
        let steps = self.steps_at().map(|at| inputs[at].u());
        let newest = self.state().get(1).map(|&at| inputs[at].u());
        // The token of a row that has ended.
        let stop = |row: usize| newest.map(|newest| newest[row]).filter(|&token| self.stops.contains(token));
        let choose = |(row, logits): (usize, &[T])| {
            let key = [rng[0], steps.map_or(rng[1], |steps| steps[row])];
            let seen = seen.map(|seen| &seen[row * width..][..width]);
            stop(row).unwrap_or_else(|| self.rule.choose(&logits[..classes], seen, key, (row / self.text_rows) as u32) as u32)
        };
        let chosen: Vec<u32> = inputs[0].f().par_chunks(width).enumerate().map(choose).collect();
        let mut results = vec![HostTensor::uints(outputs[0].shape.clone(), chosen.clone())];
        for i in self.updates() {
            let mut updated = inputs[i].clone();
            let (data, kind) = (updated.u_mut(), self.state().iter().position(|&at| at == i));
            let each = data.len() / chosen.len();
            for (row, &id) in chosen.iter().enumerate() {
                match kind {
                    None => data[row * width + id as usize] = 1,
                    Some(0) => data[row] = data[row].wrapping_add(1),
                    Some(1) => data[row] = id,
                    Some(2) => data[row] = data[row].wrapping_add(u32::from(stop(row).is_none())),
                    Some(_) => data[row * each + steps.map_or(0, |steps| steps[row] as usize) % each] = id,
                }
            }
            results.push(updated);
        }
        results
    }
}
