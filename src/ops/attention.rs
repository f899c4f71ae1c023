//! Multi-head attention, fused: softmax(q k^T / sqrt(D)) v with an online softmax, and no T x T matrix in memory.

use super::*;
use crate::gpu::Kernel;
use attention_backward::AttentionBackward;
use attention_kernels::Pass;

/// The widest head that kernels hold in registers.
pub(super) const WIDEST_HEAD: usize = 128;

/// How a kernel of attention spreads its rows.
#[derive(Clone, Copy)]
pub(super) struct Tile {
    /// Lanes of a workgroup.
    lanes: usize,
    /// Rows that a lane holds.
    rows: usize,
    /// Rows of the other side that a lane meets in one step of its loop.
    step: u32,
    /// Each lane loads one of those and broadcasts it: a workgroup is one subgroup of `step` lanes.
    spread: bool,
}

impl Tile {
    /// Workgroups for `t` rows.
    pub fn blocks(self, t: usize) -> usize {
        t.div_ceil(self.lanes * self.rows)
    }
    /// The kernel for this tile; `step` is its name for the rows of a step.
    pub fn variant(self, kernel: Kernel, step: &'static str) -> Kernel {
        kernel.with("WG", self.lanes as u32).with("ROWS", self.rows as u32).with(step, self.step).with("SPREAD", self.spread)
    }
}

/// Which keys a query may attend to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mask {
    /// Only keys at the query's own position or before it.
    pub causal: bool,
    /// `[B,T]` of u32: 0 for a key that is padding, anything else for one that may be attended. All, if `None`.
    pub keys: Option<Tensor>,
    /// Of those at its own position or before it only so many, its own included: the locally banded layers of GPT-3 (Brown et al.
    /// 2020, section 2.1, after Child et al. 2019). All, if `None`.
    pub band: Option<usize>,
}

/// `[B,T,3C] -> [B,T,C]` and the log-sum-exp of the scores, `[B,heads,T]`, which the backward pass recomputes from.
/// With two inputs, the second masks keys.
#[derive(Debug, Clone, Copy)]
pub(super) struct Attention {
    pub heads: usize,
    pub causal: bool,
    pub band: Option<usize>,
}

/// Attention over GPT-2's fused projection: each row of `qkv`, `[B,T,3C]`, is q, then k, then v, each `C = heads * D` wide
/// with the heads one after another. Scores are scaled by 1/sqrt(D). A query whose every key is masked gives zeros.
///
/// # Errors
/// Shapes do not fit, a head is wider than 128, or there is a band of no keys or one that is not causal.
pub fn attention(g: &mut dyn Recorder, qkv: Tensor, heads: usize, mask: Mask) -> Result<Tensor, OpError> {
    let inputs: Vec<_> = [qkv].into_iter().chain(mask.keys).collect();
    ensure(mask.band.is_none_or(|band| band > 0 && mask.causal), || {
        "a band of attention is causal, and of one key at least".into()
    })?;
    record_one(g, Attention { heads, causal: mask.causal, band: mask.band }, &inputs)
}

/// The sizes of an attention.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// Batch.
    pub b: usize,
    /// Rows.
    pub t: usize,
    /// Heads.
    pub h: usize,
    /// A head's width.
    pub d: usize,
}

impl Sizes {
    /// Of a fused projection `[B,T,3C]`.
    pub fn of(qkv: &Shape, heads: usize) -> Result<Self, OpError> {
        ensure(qkv.rank() == 3, || format!("q, k and v are [batch, rows, 3 * width], not {qkv}"))?;
        ensure(heads > 0 && qkv.width() % (3 * heads) == 0 && qkv.width() > 0, || {
            format!("a width of {} is not three times a multiple of {heads} heads", qkv.width())
        })?;
        let d = qkv.width() / (3 * heads);
        ensure(d <= WIDEST_HEAD, || format!("heads are {d} wide; at most {WIDEST_HEAD} is supported"))?;
        Ok(Self { b: qkv.0[0], t: qkv.0[1], h: heads, d })
    }
    /// Width of all heads, C.
    pub fn c(self) -> usize {
        self.h * self.d
    }
    /// 1/sqrt(D), which scores are multiplied by.
    pub fn scale(self) -> f64 {
        1.0 / (self.d as f64).sqrt()
    }
    /// First element of a row's head in one third (0: q, 1: k, 2: v) of the fused projection.
    pub fn at(self, b: usize, t: usize, third: usize, h: usize) -> usize {
        ((b * self.t + t) * 3 + third) * self.c() + h * self.d
    }
    /// First element of a row's head in `[B,T,C]`.
    pub fn out_at(self, b: usize, t: usize, h: usize) -> usize {
        (b * self.t + t) * self.c() + h * self.d
    }
    /// Place of a row's log-sum-exp.
    pub fn row(self, b: usize, h: usize, t: usize) -> usize {
        (b * self.h + h) * self.t + t
    }
    /// Software adapters run 8 lanes at a time and gain from big register tiles, which real GPUs would spill; `most` is the
    /// number of rows that a lane holds there.
    pub fn tile(self, cx: &Lowering<'_>, most: usize) -> Tile {
        let portable = Tile { lanes: 64, rows: 1, step: 4, spread: false };
        if !cx.caps.software {
            return portable;
        }
        let spread = cx.caps.subgroup == Some(8);
        Tile { lanes: 8, rows: if self.t <= 8 { 1 } else { most }, step: if spread { 8 } else { 4 }, spread }
    }
    /// Keys that query `t` of batch `b` may attend to.
    pub fn keys(self, attention: &Attention, mask: Option<&[u32]>, b: usize, t: usize) -> impl Iterator<Item = usize> {
        let start = attention.band.map_or(0, |band| (t + 1).saturating_sub(band));
        let end = if attention.causal { t + 1 } else { self.t };
        (start..end).filter(move |&k| mask.is_none_or(|keys| keys[b * self.t + k] != 0))
    }
}

/// The product of two rows, in eight interleaved sums: a single one would have to be added up in order, one number at a time.
pub(super) fn dot<T: Real>(a: &[T], b: &[T]) -> T {
    let (a_eights, a_rest) = a.as_chunks::<8>();
    let (b_eights, b_rest) = b.as_chunks::<8>();
    let mut sums = [T::ZERO; 8];
    for (a, b) in a_eights.iter().zip(b_eights) {
        for i in 0..8 {
            sums[i] += a[i] * b[i];
        }
    }
    let rest: T = a_rest.iter().zip(b_rest).map(|(&a, &b)| a * b).sum();
    sums.into_iter().sum::<T>() + rest
}

/// `y += factor * x`
pub(super) fn add_scaled<T: Real>(y: &mut [T], factor: T, x: &[T]) {
    y.iter_mut().zip(x).for_each(|(y, &x)| *y += factor * x);
}

/// One query on the host: writes the weighted mean of `values` into `y`, and returns the log-sum-exp of the scores. Leaves
/// `y` alone if there are no keys.
pub(super) fn attend<'a, T: Real>(q: &[T], scale: T, rows: impl Iterator<Item = (&'a [T], &'a [T])> + Clone, y: &mut [T]) -> T {
    let scores: Vec<T> = rows.clone().map(|(k, _)| dot(q, k) * scale).collect();
    let Some(top) = scores.iter().copied().reduce(Real::max) else { return T::ZERO };
    let sum: T = scores.iter().map(|&s| (s - top).exp()).sum();
    for (&s, (_, v)) in scores.iter().zip(rows) {
        let p = (s - top).exp() / sum;
        add_scaled(y, p, v);
    }
    top + sum.ln()
}

impl Attention {
    /// Floating-point operations of `products` products of the scores' size.
    pub fn flops_of(&self, s: Sizes, products: usize) -> u64 {
        // With a causal mask half of the scores, with a band those in it.
        let twice = match self.band.map(|band| band.min(s.t)) {
            Some(band) => band * (2 * s.t + 1 - band),
            None if self.causal => s.t * s.t,
            None => 2 * s.t * s.t,
        };
        (s.b * s.h * twice * s.d * products) as u64
    }

    /// The variant of a kernel for its mask, and the word that this takes.
    pub fn masked(&self, kernel: Kernel, padded: bool, t: usize) -> (Kernel, Option<u32>) {
        // A longer one than there are rows masks nothing, and must not overflow.
        let band = self.band.map(|band| band.min(t) as u32);
        (kernel.with("CAUSAL", self.causal).with("PADDED", padded).with("BAND", band.is_some()), band)
    }

    /// What is masked, in words.
    pub fn words(&self, padded: bool) -> String {
        let words = [(self.causal, " causal"), (padded, " padded")].map(|(on, word)| if on { word } else { "" }).concat();
        words + &self.band.map_or(String::new(), |band| format!(" banded {band}"))
    }
}

impl Operation for Attention {
    fn name(&self) -> &'static str {
        "attention"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, if inputs.len() == 1 { "f" } else { "fu" })?;
        let s = Sizes::of(&inputs[0].shape, self.heads)?;
        if let Some(keys) = inputs.get(1) {
            ensure(keys.shape == Shape::from([s.b, s.t]), || format!("a mask of keys is [{},{}], not {}", s.b, s.t, keys.shape))?;
        }
        Ok(vec![TensorType::f32([s.b, s.t, s.c()]), TensorType::f32([s.b, s.h, s.t])])
    }

    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let mut grads = vec![None; node.inputs.len()];
        if let Some(dy) = node.grads[0] {
            let mut inputs = vec![node.inputs[0], node.outputs[0], node.outputs[1], dy];
            inputs.extend_from_slice(&node.inputs[1..]);
            grads[0] = Some(record_one(g, AttentionBackward(*self), &inputs)?);
        }
        Ok(grads)
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let Ok(s) = Sizes::of(&inputs[0].shape, self.heads) else { return 0 };
        self.flops_of(s, 2)
    }

    fn half_input(&self, i: usize) -> Half {
        if i == 0 { Half::Accepted } else { Half::Never }
    }
    fn half_output(&self, i: usize) -> bool {
        i == 0
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (mut qkv, o, lse) = (cx.input(0), cx.output(0), cx.output(1));
        let keys = (cx.inputs.len() > 1).then(|| cx.input(1));
        let s = Sizes::of(&qkv.ty.shape, self.heads)?;
        let tile = s.tile(cx, 2);
        let vec4 = cx.vec4(s.d, &[&qkv.all(), &o.all()]);
        let flops = self.flops(std::slice::from_ref(&qkv.ty), &[]);
        let tiled = attention_kernels::choose(cx, s, Pass::Forward, (self.words(keys.is_some()), &[&qkv.all()], vec4), flops);
        let direct = tiled.is_none() && vec4 && attention_direct::fits(cx, s, &[&qkv]);
        let rows = if direct { attention_direct::blocks(s.t) } else { tile.blocks(s.t) };
        let blocks = tiled.map_or(rows, |block| block.blocks(s.t));
        if direct {
            qkv = cx.imaged(&qkv);
        }
        // Ranges of rows that are multiples of four elements begin on vectors where the whole does.
        for range in cx.row_ranges(s.b, s.t * 3 * s.c())? {
            let batch = range.len();
            let from = qkv.rows(range.clone(), s.t * 3 * s.c());
            let to = o.rows(range.clone(), s.t * s.c());
            let mut bindings = vec![from.read(), to.write(), lse.rows(range.clone(), s.h * s.t).write()];
            bindings.extend(keys.as_ref().map(|keys| keys.rows(range, s.t).read()));
            let kernel = match tiled {
                Some(block) => block.kernel(cx.caps, s.d, Pass::Forward),
                None if direct => attention_direct::kernel(s.d, Pass::Forward),
                None => {
                    let kernel = tile.variant(kernel!("attention"), "KEYS").with("D", s.d as u32);
                    kernel.with("VEC", vec4).with("CACHE", false)
                }
            };
            let (kernel, band) = self.masked(kernel, keys.is_some(), s.t);
            let words = [s.t as u32, s.h as u32, blocks as u32, s.t as u32, (s.scale() as f32).to_bits()];
            let words: Vec<_> = words.into_iter().chain(band).collect();
            cx.dispatch(kernel, &bindings, &words, batch * s.h * blocks)?;
        }
        Ok(())
    }

    host_reference!();
}

impl Reference for Attention {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (mut o, mut lse) = (HostTensor::zeros(&outputs[0]), HostTensor::zeros(&outputs[1]));
        let Ok(s) = Sizes::of(&inputs[0].shape, self.heads) else { return vec![o, lse] };
        let (qkv, mask) = (inputs[0].f(), inputs.get(1).map(HostTensor::u));
        let (o_data, lse_data) = (o.f_mut(), lse.f_mut());
        for b in 0..s.b {
            for h in 0..s.h {
                for t in 0..s.t {
                    let part = |t, third| &qkv[s.at(b, t, third, h)..][..s.d];
                    let visible: Vec<_> = s.keys(self, mask, b, t).collect();
                    let rows = visible.iter().map(|&k| (part(k, 1), part(k, 2)));
                    let y = &mut o_data[s.out_at(b, t, h)..][..s.d];
                    lse_data[s.row(b, h, t)] = attend(part(t, 0), T::from_f64(s.scale()), rows, y);
                }
            }
        }
        vec![o, lse]
    }
}
