//! `config.json` of a BERT.

use super::{HiddenAct, Rest, heads_fit, in_range, layers_fit, table_fits};
use serde::{Deserialize, Serialize};

/// The shape of a BERT (Devlin et al. 2019, section 3). Missing fields are those of BERT-base.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BertConfig {
    /// `bert`
    pub model_type: String,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of the residual stream, H.
    pub hidden_size: usize,
    /// Number of layers, L.
    pub num_hidden_layers: usize,
    /// Number of attention heads a layer, A.
    pub num_attention_heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate_size: usize,
    /// `gelu`, `gelu_new` or `relu`.
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
    /// The head, its labels, and fields that we only pass on.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Default for BertConfig {
    fn default() -> Self {
        Self {
            model_type: "bert".into(),
            vocab_size: 30522,
            hidden_size: 768,
            num_hidden_layers: 12,
            num_attention_heads: 12,
            intermediate_size: 3072,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            rest: Rest::default(),
        }
    }
}

impl BertConfig {
    /// The sizes of the paper and of its miniatures (Turc et al. 2019): `tiny`, `mini`, `small`, `medium`, `base`, `large`.
    pub fn named(size: &str) -> Option<Self> {
        let (num_hidden_layers, hidden_size) = match size {
            "tiny" => (2, 128),
            "mini" => (4, 256),
            "small" => (4, 512),
            "medium" => (8, 512),
            "base" => (12, 768),
            "large" => (24, 1024),
            _ => return None,
        };
        let (num_attention_heads, intermediate_size) = (hidden_size / 64, 4 * hidden_size);
        Some(Self { num_hidden_layers, hidden_size, num_attention_heads, intermediate_size, ..Self::default() })
    }

    /// Checks sizes against each other and against what a kernel can address.
    ///
    /// # Errors
    /// What does not fit, with the names of the fields.
    pub fn check(&self) -> Result<(), String> {
        in_range(&[
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        layers_fit("num_hidden_layers", self.num_hidden_layers)?;
        heads_fit(("hidden_size", self.hidden_size), ("num_attention_heads", self.num_attention_heads))?;
        table_fits(self.vocab_size, self.hidden_size, self.layer_norm_eps)?;
        let positions = self.rest.others.get("position_embedding_type").and_then(|v| v.as_str());
        if positions.is_some_and(|kind| kind != "absolute") {
            return Err(format!("position_embedding_type {:?} is not supported; absolute is", positions.unwrap_or_default()));
        }
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
