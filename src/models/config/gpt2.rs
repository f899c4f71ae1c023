//! `config.json` of a GPT-2, as Hugging Face writes it.

use super::{in_range, layers_fit, token_id};
use crate::ops::Gelu;
use serde::{Deserialize, Serialize};

/// The shape of a GPT-2 (Radford et al. 2019, section 2.3 and table 2). Missing fields are those of the 124M model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gpt2Config {
    /// `gpt2`
    pub model_type: String,
    /// For transformers' `AutoModel`.
    pub architectures: Vec<String>,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Longest context, tokens.
    pub n_positions: usize,
    /// Width of the residual stream.
    pub n_embd: usize,
    /// Number of blocks.
    pub n_layer: usize,
    /// Number of attention heads a block.
    pub n_head: usize,
    /// Width of the feed-forward layer; 4 `n_embd` where absent.
    pub n_inner: Option<usize>,
    /// `gelu_new` (tanh form) or `gelu` (erf form).
    pub activation_function: String,
    /// Added to the variance in layer norms.
    pub layer_norm_epsilon: f32,
    /// Standard deviation of the initial weights.
    pub initializer_range: f32,
    /// Dropout on the embeddings, in training.
    pub embd_pdrop: f32,
    /// Dropout on what each sub-layer adds to the residual stream, in training.
    pub resid_pdrop: f32,
    /// Dropout on attention probabilities; the fused attention has none, so what we train has 0.
    pub attn_pdrop: f32,
    /// Scores are divided by the square root of the head's width.
    pub scale_attn_weights: bool,
    /// Scores are divided by the layer's number too: not supported.
    pub scale_attn_by_inverse_layer_idx: bool,
    /// The head is the token table.
    pub tie_word_embeddings: bool,
    /// Token that begins a text.
    #[serde(deserialize_with = "token_id")]
    pub bos_token_id: Option<u32>,
    /// Token that ends a text.
    #[serde(deserialize_with = "token_id")]
    pub eos_token_id: Option<u32>,
    /// For transformers: it may use a cache.
    pub use_cache: bool,
}

impl Default for Gpt2Config {
    fn default() -> Self {
        Self {
            model_type: "gpt2".into(),
            architectures: vec!["GPT2LMHeadModel".into()],
            vocab_size: 50257,
            n_positions: 1024,
            n_embd: 768,
            n_layer: 12,
            n_head: 12,
            n_inner: None,
            activation_function: "gelu_new".into(),
            layer_norm_epsilon: 1e-5,
            initializer_range: 0.02,
            embd_pdrop: 0.1,
            resid_pdrop: 0.1,
            attn_pdrop: 0.1,
            scale_attn_weights: true,
            scale_attn_by_inverse_layer_idx: false,
            tie_word_embeddings: true,
            bos_token_id: Some(50256),
            eos_token_id: Some(50256),
            use_cache: true,
        }
    }
}

impl Gpt2Config {
    /// The sizes of the paper's table 2: `124m`, `355m`, `774m`, `1.5b`.
    pub fn named(size: &str) -> Option<Self> {
        let (n_layer, n_head, n_embd) = match size {
            "124m" => (12, 12, 768),
            "355m" => (24, 16, 1024),
            "774m" => (36, 20, 1280),
            "1.5b" => (48, 25, 1600),
            _ => return None,
        };
        Some(Self { n_layer, n_head, n_embd, ..Self::default() })
    }

    /// Checks sizes against each other and against what a kernel can address.
    ///
    /// # Errors
    /// What does not fit, with the names of the fields.
    pub fn check(&self) -> Result<(), String> {
        in_range(&[
            ("vocab_size", self.vocab_size),
            ("n_positions", self.n_positions),
            ("n_embd", self.n_embd),
            ("n_layer", self.n_layer),
            ("n_head", self.n_head),
            ("n_inner", self.inner()),
        ])?;
        layers_fit("n_layer", self.n_layer)?;
        if self.n_embd % self.n_head != 0 {
            return Err(format!("n_embd {} is not a multiple of n_head {}", self.n_embd, self.n_head));
        }
        if self.n_embd / self.n_head > 128 {
            return Err(format!(
                "heads of width {} (n_embd {} / n_head {}) are wider than the attention kernel's 128",
                self.n_embd / self.n_head,
                self.n_embd,
                self.n_head
            ));
        }
        if self.vocab_size.checked_mul(self.n_embd).is_none_or(|n| n > u32::MAX as usize) {
            return Err("vocab_size times n_embd is more than 2^32".into());
        }
        if !(self.layer_norm_epsilon > 0.0 && self.layer_norm_epsilon.is_finite()) {
            return Err(format!("layer_norm_epsilon is {}; it must be positive", self.layer_norm_epsilon));
        }
        if !self.scale_attn_weights || self.scale_attn_by_inverse_layer_idx {
            return Err("scale_attn_weights = false and scale_attn_by_inverse_layer_idx are not supported".into());
        }
        self.activation()?;
        Ok(())
    }

    /// Width of the feed-forward layer.
    pub fn inner(&self) -> usize {
        self.n_inner.unwrap_or(4 * self.n_embd)
    }

    /// The feed-forward layer's activation.
    ///
    /// # Errors
    /// One that is not supported.
    pub fn activation(&self) -> Result<Gelu, String> {
        match self.activation_function.as_str() {
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Gelu::Tanh),
            "gelu" => Ok(Gelu::Erf),
            other => Err(format!("activation_function {other:?} is not supported; gelu_new and gelu are")),
        }
    }
}
