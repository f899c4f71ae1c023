//! `config.json` of a DistilBERT.

use super::{HiddenAct, Rest, heads_fit, in_range, layers_fit, table_fits};
use serde::{Deserialize, Serialize};

/// The shape of a DistilBERT (Sanh et al. 2019): BERT without token types and pooler. Missing fields are those of
/// distilbert-base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DistilBertConfig {
    /// `distilbert`
    pub model_type: String,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Longest context, tokens.
    pub max_position_embeddings: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Number of layers.
    pub n_layers: usize,
    /// Number of attention heads a layer.
    pub n_heads: usize,
    /// Width of the feed-forward layer.
    pub hidden_dim: usize,
    /// `gelu` or `relu`.
    pub activation: String,
    /// Dropout in training.
    pub dropout: f32,
    /// Dropout on attention probabilities; the fused attention has none, so what we train has 0.
    pub attention_dropout: f32,
    /// Standard deviation of the initial weights.
    pub initializer_range: f32,
    /// Token that fills rows up.
    pub pad_token_id: u32,
    /// The head, its labels, and fields that we only pass on.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Default for DistilBertConfig {
    fn default() -> Self {
        Self {
            model_type: "distilbert".into(),
            vocab_size: 30522,
            max_position_embeddings: 512,
            dim: 768,
            n_layers: 6,
            n_heads: 12,
            hidden_dim: 3072,
            activation: "gelu".into(),
            dropout: 0.1,
            attention_dropout: 0.1,
            initializer_range: 0.02,
            pad_token_id: 0,
            rest: Rest::default(),
        }
    }
}

impl DistilBertConfig {
    /// Its layer norms' epsilon, which is no field of the file.
    pub const EPSILON: f32 = 1e-12;

    /// Checks sizes against each other and against what a kernel can address.
    ///
    /// # Errors
    /// What does not fit, with the names of the fields.
    pub fn check(&self) -> Result<(), String> {
        in_range(&[
            ("vocab_size", self.vocab_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("dim", self.dim),
            ("n_layers", self.n_layers),
            ("n_heads", self.n_heads),
            ("hidden_dim", self.hidden_dim),
        ])?;
        layers_fit("n_layers", self.n_layers)?;
        heads_fit(("dim", self.dim), ("n_heads", self.n_heads))?;
        table_fits(self.vocab_size, self.dim, Self::EPSILON)?;
        self.act()?;
        self.rest.check()
    }

    /// The feed-forward layer's activation.
    ///
    /// # Errors
    /// One that is not supported.
    pub fn act(&self) -> Result<HiddenAct, String> {
        HiddenAct::parse("activation", &self.activation)
    }
}
