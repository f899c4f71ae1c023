//! A GPT-2 in candle's tensors: learned positions, pre-LN blocks, causal attention, tied head.
//!
//! candle's fused layer norm and softmax have no gradient, so training takes its differentiable ones, as candle's own
//! training examples do; the forward pass takes the fused ones.

use candle_core::{D, Device, Result, Tensor, Var};
use candle_nn::ops;

/// Sizes of the model; `width` is a multiple of `heads`.
#[derive(Clone, Copy, Debug)]
pub struct Sizes {
    pub vocab: usize,
    pub context: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
}

/// Weight and bias of a layer.
struct Pair(Var, Var);

struct Block {
    ln_1: Pair,
    c_attn: Pair,
    c_proj: Pair,
    ln_2: Pair,
    c_fc: Pair,
    mlp_c_proj: Pair,
}

pub struct Gpt2 {
    sizes: Sizes,
    wte: Var,
    wpe: Var,
    blocks: Vec<Block>,
    ln_f: Pair,
    mask: Tensor,
}

/// `[time, time]`: 0 where a query sees a key, minus infinity where the key lies after it.
pub fn causal_mask(time: usize) -> Result<Tensor> {
    let mask: Vec<f32> = (0..time * time).map(|at| if at % time > at / time { f32::NEG_INFINITY } else { 0.0 }).collect();
    Tensor::from_vec(mask, (time, time), &Device::Cpu)
}

/// `[batch, time, 3 * width]` to `[batch, time, width]`.
pub fn softmax_attention(qkv: &Tensor, heads: usize, mask: Option<&Tensor>, train: bool) -> Result<Tensor> {
    let (batch, time, triple) = qkv.dims3()?;
    let (width, size) = (triple / 3, triple / 3 / heads);
    let part = |n: usize| {
        qkv.narrow(2, n * width, width)?.reshape((batch, time, heads, size))?.transpose(1, 2)?.contiguous()
    };
    let (q, k, v) = (part(0)?, part(1)?, part(2)?);
    let mut scores = (q.matmul(&k.t()?)? * (1.0 / (size as f64).sqrt()))?;
    if let Some(mask) = mask {
        scores = scores.broadcast_add(mask)?;
    }
    let weights = if train { ops::softmax(&scores, D::Minus1)? } else { ops::softmax_last_dim(&scores)? };
    weights.matmul(&v)?.transpose(1, 2)?.reshape((batch, time, width))
}

fn linear(x: &Tensor, layer: &Pair) -> Result<Tensor> {
    x.matmul(layer.0.as_tensor())?.broadcast_add(layer.1.as_tensor())
}

fn norm(x: &Tensor, layer: &Pair, train: bool) -> Result<Tensor> {
    let (gain, bias) = (layer.0.as_tensor(), layer.1.as_tensor());
    if train { ops::layer_norm_slow(x, gain, bias, 1e-5) } else { ops::layer_norm(x, gain, bias, 1e-5) }
}

impl Block {
    fn new(width: usize) -> Result<Self> {
        let dense = |input: usize, output: usize| -> Result<Pair> {
            Ok(Pair(
                Var::randn(0f32, 0.02, (input, output), &Device::Cpu)?,
                Var::zeros(output, candle_core::DType::F32, &Device::Cpu)?,
            ))
        };
        Ok(Self {
            ln_1: unit(width)?,
            c_attn: dense(width, 3 * width)?,
            c_proj: dense(width, width)?,
            ln_2: unit(width)?,
            c_fc: dense(width, 4 * width)?,
            mlp_c_proj: dense(4 * width, width)?,
        })
    }

    /// `x` and the result are `[batch * time, width]`.
    fn forward(&self, x: &Tensor, batch: usize, heads: usize, mask: &Tensor, train: bool) -> Result<Tensor> {
        let (rows, width) = x.dims2()?;
        let qkv = linear(&norm(x, &self.ln_1, train)?, &self.c_attn)?;
        let qkv = qkv.reshape((batch, rows / batch, 3 * width))?;
        let h = softmax_attention(&qkv, heads, Some(mask), train)?.reshape((rows, width))?;
        let x = (x + linear(&h, &self.c_proj)?)?;
        let h = linear(&norm(&x, &self.ln_2, train)?, &self.c_fc)?.gelu()?;
        &x + linear(&h, &self.mlp_c_proj)?
    }
}

fn unit(width: usize) -> Result<Pair> {
    let float = candle_core::DType::F32;
    Ok(Pair(Var::ones(width, float, &Device::Cpu)?, Var::zeros(width, float, &Device::Cpu)?))
}

impl Gpt2 {
    pub fn new(sizes: Sizes) -> Result<Self> {
        let table = |rows| Var::randn(0f32, 0.02, (rows, sizes.width), &Device::Cpu);
        Ok(Self {
            sizes,
            wte: table(sizes.vocab)?,
            wpe: table(sizes.context)?,
            blocks: (0..sizes.layers).map(|_| Block::new(sizes.width)).collect::<Result<_>>()?,
            ln_f: unit(sizes.width)?,
            mask: causal_mask(sizes.context)?,
        })
    }

    /// All parameters.
    pub fn variables(&self) -> Vec<Var> {
        let pairs = self.blocks.iter().flat_map(|b| [&b.ln_1, &b.c_attn, &b.c_proj, &b.ln_2, &b.c_fc, &b.mlp_c_proj]);
        let pairs = pairs.chain([&self.ln_f]).flat_map(|Pair(weight, bias)| [weight.clone(), bias.clone()]);
        [self.wte.clone(), self.wpe.clone()].into_iter().chain(pairs).collect()
    }

    /// Token ids `[batch, context]` to logits `[batch * context, vocab]`.
    pub fn logits(&self, ids: &Tensor, train: bool) -> Result<Tensor> {
        let (batch, time) = ids.dims2()?;
        let words = self.wte.as_tensor().embedding(&ids.flatten_all()?)?.reshape((batch, time, self.sizes.width))?;
        let mut x = words.broadcast_add(self.wpe.as_tensor())?.reshape((batch * time, self.sizes.width))?;
        for block in &self.blocks {
            x = block.forward(&x, batch, self.sizes.heads, &self.mask, train)?;
        }
        norm(&x, &self.ln_f, train)?.matmul(&self.wte.as_tensor().t()?)
    }
}
