//! `config.json` of an ALBERT.

use super::{HiddenAct, Rest, heads_fit, in_range, layers_fit, table_fits};
use serde::{Deserialize, Serialize};

/// Which parameters the layers share (Lan et al. 2020, table 4). A field of ours: transformers knows `all` and, as
/// `num_hidden_groups` = `num_hidden_layers`, `none`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// All of a group's.
    #[default]
    All,
    /// Those of the attention blocks; each layer has a feed-forward block of its own.
    Attention,
    /// Those of the feed-forward blocks; each layer has an attention block of its own.
    Ffn,
    /// Nothing: each layer is a group of its own.
    None,
}

/// The shape of an ALBERT (Lan et al. 2020, section 3). Missing fields are those of ALBERT-xxlarge, as in transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AlbertConfig {
    /// `albert`
    pub model_type: String,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of the embeddings, E.
    pub embedding_size: usize,
    /// Width of the residual stream, H.
    pub hidden_size: usize,
    /// Number of layers, L.
    pub num_hidden_layers: usize,
    /// Number of groups of layers; the layers of one share their parameters.
    pub num_hidden_groups: usize,
    /// Number of layers within a layer, each with its own parameters.
    pub inner_group_num: usize,
    /// Number of attention heads a layer.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// `gelu_new`, `gelu` or `relu`; in the MLM head too.
    pub hidden_act: String,
    /// Dropout in training.
    pub hidden_dropout_prob: f32,
    /// Dropout on attention probabilities; the fused attention has none, so what we train has 0.
    pub attention_probs_dropout_prob: f32,
    /// Longest context, tokens.
    pub max_position_embeddings: usize,
    /// Number of token types (segments).
    pub type_vocab_size: usize,
    /// Standard deviation of the initial weights.
    pub initializer_range: f32,
    /// Added to the variance in layer norms.
    pub layer_norm_eps: f32,
    /// Token that fills rows up.
    pub pad_token_id: u32,
    /// What the layers share.
    #[serde(skip_serializing_if = "is_default")]
    pub sharing: Sharing,
    /// The head, its labels, and fields that we only pass on.
    #[serde(flatten)]
    pub rest: Rest,
}

fn is_default(sharing: &Sharing) -> bool {
    *sharing == Sharing::All
}

impl Default for AlbertConfig {
    fn default() -> Self {
        Self {
            model_type: "albert".into(),
            vocab_size: 30000,
            embedding_size: 128,
            hidden_size: 4096,
            num_hidden_layers: 12,
            num_hidden_groups: 1,
            inner_group_num: 1,
            num_attention_heads: 64,
            intermediate_size: 16384,
            hidden_act: "gelu_new".into(),
            hidden_dropout_prob: 0.0,
            attention_probs_dropout_prob: 0.0,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            sharing: Sharing::All,
            rest: Rest::default(),
        }
    }
}

impl AlbertConfig {
    /// The sizes of the paper's table 1: `base`, `large`, `xlarge`, `xxlarge`.
    pub fn named(size: &str) -> Option<Self> {
        let (num_hidden_layers, hidden_size, num_attention_heads) = match size {
            "base" => (12, 768, 12),
            "large" => (24, 1024, 16),
            "xlarge" => (24, 2048, 16),
            "xxlarge" => (12, 4096, 64),
            _ => return None,
        };
        let intermediate_size = 4 * hidden_size;
        Some(Self { num_hidden_layers, hidden_size, num_attention_heads, intermediate_size, ..Self::default() })
    }

    /// The same shape with another mode of sharing.
    #[must_use]
    pub fn shared(self, sharing: Sharing) -> Self {
        let num_hidden_groups = if sharing == Sharing::All { self.num_hidden_groups } else { self.num_hidden_layers };
        Self { sharing, num_hidden_groups, ..self }
    }

    /// The group of layer `layer`, as transformers counts: `int(i / (L / G))`.
    pub fn group(&self, layer: usize) -> usize {
        let layers_a_group = self.num_hidden_layers as f64 / self.num_hidden_groups as f64;
        ((layer as f64 / layers_a_group) as usize).min(self.num_hidden_groups - 1)
    }

    /// Checks sizes against each other and against what a kernel can address.
    ///
    /// # Errors
    /// What does not fit, with the names of the fields.
    pub fn check(&self) -> Result<(), String> {
        in_range(&[
            ("vocab_size", self.vocab_size),
            ("embedding_size", self.embedding_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_hidden_groups", self.num_hidden_groups),
            ("inner_group_num", self.inner_group_num),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        if self.num_hidden_groups > self.num_hidden_layers {
            return Err(format!(
                "num_hidden_groups {} is more than num_hidden_layers {}",
                self.num_hidden_groups, self.num_hidden_layers
            ));
        }
        if self.sharing != Sharing::All && self.num_hidden_groups != self.num_hidden_layers {
            return Err(format!(
                "sharing is not \"all\", and num_hidden_groups {} is not num_hidden_layers {}",
                self.num_hidden_groups, self.num_hidden_layers
            ));
        }
        layers_fit("num_hidden_layers", self.num_hidden_layers)?;
        heads_fit(("hidden_size", self.hidden_size), ("num_attention_heads", self.num_attention_heads))?;
        table_fits(self.vocab_size, self.embedding_size, self.layer_norm_eps)?;
        self.activation()?;
        self.rest.check()
    }

    /// The feed-forward layer's activation.
    ///
    /// # Errors
    /// One that is not supported.
    pub fn activation(&self) -> Result<HiddenAct, String> {
        HiddenAct::parse("hidden_act", &self.hidden_act)
    }
}
