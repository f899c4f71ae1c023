//! A GPT-2 in burn's modules: learned positions, pre-LN blocks, causal attention, tied head.

use burn::module::{Initializer, Module};
use burn::nn::{Embedding, EmbeddingConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig};
use burn::tensor::activation::{gelu, gelu_approximate, softmax};
use burn::tensor::module::attention;
use burn::tensor::ops::AttentionModuleOptions;
use burn::tensor::{Bool, Device, Int, Tensor};
use clap::ValueEnum;

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
    /// the diagonal.
    fn forward(&self, x: Tensor<3>, mask: &Tensor<4, Bool>, config: &Config) -> Tensor<3> {
        let h = self.attend(self.ln_1.forward(x.clone()), mask, config);
        let x = x + self.c_proj.forward(h);
        let h = self.c_fc.forward(self.ln_2.forward(x.clone()));
        let h = match config.gelu {
            Gelu::Erf => gelu(h),
            Gelu::Tanh => gelu_approximate(h),
        };
        x + self.mlp_c_proj.forward(h)
    }

    fn attend(&self, x: Tensor<3>, mask: &Tensor<4, Bool>, config: &Config) -> Tensor<3> {
        let [batch, time, width] = x.dims();
        let size = width / config.heads;
        let qkv = self.c_attn.forward(x);
        let part = |n: usize| {
            qkv.clone()
                .narrow(2, n * width, width)
                .reshape([batch, time, config.heads, size])
                .swap_dims(1, 2)
        };
        let (q, k, v) = (part(0), part(1), part(2));
        let out = match config.attention {
            Attention::Fused => {
                let options = AttentionModuleOptions { is_causal: true, ..Default::default() };
                attention(q, k, v, None, None, options)
            }
            Attention::Plain => {
                let scores = q.matmul(k.swap_dims(2, 3)) / (size as f64).sqrt();
                let scores = scores.mask_fill(mask.clone(), f32::NEG_INFINITY);
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
            x = block.forward(x, mask, config);
        }
        let x = self.ln_f.forward(x).reshape([batch * time, config.width]);
        x.matmul(self.wte.weight.val().transpose())
    }
}
