//! A GPT-2 in burn's modules: learned positions, pre-LN blocks, causal attention, tied head.

use burn::module::{Initializer, Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, gelu_approximate, softmax};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor};
use clap::ValueEnum;

use crate::paced::Outcome;
use crate::weights::Weights;

/// Which of burn's ways to write causal attention is timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Attention {
    /// `burn::tensor::module::attention`, which may choose a flash kernel.
    Fused,
    /// matmul, mask, softmax, matmul.
    Plain,
}

/// Which GELU the feed-forward layer uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Gelu {
    /// By the error function: burn's primitive.
    Erf,
    /// By tanh, as GPT-2 has it: in burn a chain of elementwise operations.
    Tanh,
}

/// Sizes of the model; `width` is a multiple of `heads`.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    pub vocab: usize,
    pub context: usize,
    pub width: usize,
    pub layers: usize,
    pub heads: usize,
    pub attention: Attention,
    pub gelu: Gelu,
}

/// One pre-LN transformer block.
#[derive(Module, Debug)]
struct Block {
    ln_1: LayerNorm,
    c_attn: Linear,
    c_proj: Linear,
    ln_2: LayerNorm,
    c_fc: Linear,
    mlp_c_proj: Linear,
}

/// The whole model; its head is the transposed token table.
#[derive(Module, Debug)]
pub struct Gpt2 {
    wte: Embedding,
    wpe: Embedding,
    blocks: Vec<Block>,
    ln_f: LayerNorm,
}

/// A layer's keys and values so far, each [batch, heads, time, size].
pub type Past = Option<(Tensor<4>, Tensor<4>)>;

pub const NORMAL: Initializer = Initializer::Normal { mean: 0.0, std: 0.02 };

pub fn linear(input: usize, output: usize, device: &Device) -> Linear {
    LinearConfig::new(input, output).with_initializer(NORMAL).init(device)
}

pub fn embedding(rows: usize, width: usize, device: &Device) -> Embedding {
    EmbeddingConfig::new(rows, width).with_initializer(NORMAL).init(device)
}

impl Block {
    fn new(width: usize, device: &Device) -> Self {
        Self {
            ln_1: LayerNormConfig::new(width).init(device),
            c_attn: linear(width, 3 * width, device),
            c_proj: linear(width, width, device),
            ln_2: LayerNormConfig::new(width).init(device),
            c_fc: linear(width, 4 * width, device),
            mlp_c_proj: linear(4 * width, width, device),
        }
    }

    /// `x` and the result are [batch, time, width]; `mask` is [1, 1, time, time], true above
    /// the diagonal, and `None` for the token after `past`.
    fn forward(
        &self,
        x: Tensor<3>,
        mask: Option<&Tensor<4, Bool>>,
        past: Option<&mut Past>,
        config: &Config,
    ) -> Tensor<3> {
        let h = self.attend(self.ln_1.forward(x.clone()), mask, past, config);
        let x = x + self.c_proj.forward(h);
        let h = self.c_fc.forward(self.ln_2.forward(x.clone()));
        let h = match config.gelu {
            Gelu::Erf => gelu(h),
            Gelu::Tanh => gelu_approximate(h),
        };
        x + self.mlp_c_proj.forward(h)
    }

    fn attend(
        &self,
        x: Tensor<3>,
        mask: Option<&Tensor<4, Bool>>,
        past: Option<&mut Past>,
        config: &Config,
    ) -> Tensor<3> {
        let [batch, time, width] = x.dims();
        let size = width / config.heads;
        let qkv = self.c_attn.forward(x);
        let part = |n: usize| {
            qkv.clone()
                .narrow(2, n * width, width)
                .reshape([batch, time, config.heads, size])
                .swap_dims(1, 2)
        };
        let (q, mut k, mut v) = (part(0), part(1), part(2));
        if let Some(past) = past {
            if let Some((keys, values)) = past.take() {
                (k, v) = (Tensor::cat(vec![keys, k], 2), Tensor::cat(vec![values, v], 2));
            }
            *past = Some((k.clone(), v.clone()));
        }
        let out = match config.attention {
            Attention::Fused => {
                let options = AttentionModuleOptions { is_causal: mask.is_some(), ..Default::default() };
                attention(q, k, v, None, None, options)
            }
            Attention::Plain => {
                let scores = q.matmul(k.swap_dims(2, 3)) / (size as f64).sqrt();
                let scores = match mask {
                    Some(mask) => scores.mask_fill(mask.clone(), f32::NEG_INFINITY),
                    None => scores,
                };
                softmax(scores, 3).matmul(v)
            }
        };
        out.swap_dims(1, 2).reshape([batch, time, width])
    }
}

impl Gpt2 {
    pub fn new(config: &Config, device: &Device) -> Self {
        Self {
            wte: embedding(config.vocab, config.width, device),
            wpe: embedding(config.context, config.width, device),
            blocks: (0..config.layers).map(|_| Block::new(config.width, device)).collect(),
            ln_f: LayerNormConfig::new(config.width).init(device),
        }
    }

    /// Token ids [batch, time] to logits [batch * time, vocab].
    pub fn forward(
        &self,
        ids: Tensor<2, Int>,
        positions: Tensor<2, Int>,
        mask: &Tensor<4, Bool>,
        config: &Config,
    ) -> Tensor<2> {
        let [batch, time] = ids.dims();
        let mut x = self.wte.forward(ids) + self.wpe.forward(positions);
        for block in &self.blocks {
            x = block.forward(x, Some(mask), None, config);
        }
        let x = self.ln_f.forward(x).reshape([batch * time, config.width]);
        x.matmul(self.wte.weight.val().transpose())
    }

    /// Ids [1, time], which follow what is in `past`, a place a layer, to the likeliest next id [1, 1].
    pub fn next(
        &self,
        ids: Tensor<2, Int>,
        positions: Tensor<2, Int>,
        mask: Option<&Tensor<4, Bool>>,
        past: &mut [Past],
        config: &Config,
    ) -> Tensor<2, Int> {
        let [_, time] = ids.dims();
        let mut x = self.wte.forward(ids) + self.wpe.forward(positions);
        for (block, past) in self.blocks.iter().zip(past) {
            x = block.forward(x, mask, Some(past), config);
        }
        let last = x.narrow(1, time - 1, 1);
        let x = self.ln_f.forward(last).reshape([1, config.width]);
        x.matmul(self.wte.weight.val().transpose()).argmax(1)
    }

    /// Takes the parameters that `weights` has.
    pub fn load(&mut self, weights: &Weights) -> Outcome<()> {
        let matrix = |to: &mut Param<Tensor<2>>, name: &str| weights.into(to, &format!("transformer.{name}.weight"));
        matrix(&mut self.wte.weight, "wte")?;
        matrix(&mut self.wpe.weight, "wpe")?;
        let norm = |to: &mut LayerNorm, name: &str| {
            weights.into(&mut to.gamma, &format!("transformer.{name}.weight"))?;
            let beta = to.beta.as_mut().ok_or("a layer norm has no bias")?;
            weights.into(beta, &format!("transformer.{name}.bias"))
        };
        norm(&mut self.ln_f, "ln_f")?;
        for (layer, block) in self.blocks.iter_mut().enumerate() {
            norm(&mut block.ln_1, &format!("h.{layer}.ln_1"))?;
            norm(&mut block.ln_2, &format!("h.{layer}.ln_2"))?;
            for (to, name) in [
                (&mut block.c_attn, "attn.c_attn"),
                (&mut block.c_proj, "attn.c_proj"),
                (&mut block.c_fc, "mlp.c_fc"),
                (&mut block.mlp_c_proj, "mlp.c_proj"),
            ] {
                matrix(&mut to.weight, &format!("h.{layer}.{name}"))?;
                let bias = to.bias.as_mut().ok_or("a linear layer has no bias")?;
                weights.into(bias, &format!("transformer.h.{layer}.{name}.bias"))?;
            }
        }
        Ok(())
    }
}
