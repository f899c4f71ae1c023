//! `config.json` of an ELECTRA's generator or discriminator.

use super::{HiddenAct, Rest, heads_fit, in_range, layers_fit, table_fits};
use serde::{Deserialize, Serialize};

/// The shape of either network (Clark et al. 2020, table 6). Missing fields are those of ELECTRA-small's discriminator, as in
/// transformers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ElectraConfig {
    /// `electra`
    pub model_type: String,
    /// Number of tokens.
    pub vocab_size: usize,
    /// Width of the embeddings, E.
    pub embedding_size: usize,
    /// Width of the residual stream, H.
    pub hidden_size: usize,
    /// Number of layers, L.
    pub num_hidden_layers: usize,
    /// Number of attention heads a layer.
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
    /// What the multiple-choice head looks at; `first` is supported.
    pub summary_type: String,
    /// Whether it has a layer of its own; `true` is supported.
    pub summary_use_proj: bool,
    /// That layer's activation; `gelu` is supported.
    pub summary_activation: String,
    /// The head, its labels, and fields that we only pass on.
    #[serde(flatten)]
    pub rest: Rest,
}

impl Default for ElectraConfig {
    fn default() -> Self {
        Self {
            model_type: "electra".into(),
            vocab_size: 30522,
            embedding_size: 128,
            hidden_size: 256,
            num_hidden_layers: 12,
            num_attention_heads: 4,
            intermediate_size: 1024,
            hidden_act: "gelu".into(),
            hidden_dropout_prob: 0.1,
            attention_probs_dropout_prob: 0.1,
            max_position_embeddings: 512,
            type_vocab_size: 2,
            initializer_range: 0.02,
            layer_norm_eps: 1e-12,
            pad_token_id: 0,
            summary_type: "first".into(),
            summary_use_proj: true,
            summary_activation: "gelu".into(),
            rest: Rest::default(),
        }
    }
}

impl ElectraConfig {
    /// The discriminators of the paper's table 6: `small`, `base`, `large`.
    pub fn named(size: &str) -> Option<Self> {
        let (num_hidden_layers, hidden_size, embedding_size, num_attention_heads) = match size {
            "small" => (12, 256, 128, 4),
            "base" => (12, 768, 768, 12),
            "large" => (24, 1024, 1024, 16),
            _ => return None,
        };
        let intermediate_size = 4 * hidden_size;
        let default = Self::default();
        Some(Self { num_hidden_layers, hidden_size, embedding_size, num_attention_heads, intermediate_size, ..default })
    }

    /// The generator that goes with this discriminator (section 3.2 and the reference's `get_generator_config`): as many
    /// layers of `fraction` of the width, heads of width 64, and the same embeddings.
    ///
    /// # Errors
    /// The fraction leaves no width, or one that its heads do not divide.
    pub fn generator(&self, fraction: f32) -> Result<Self, String> {
        let hidden_size = (self.hidden_size as f32 * fraction).round() as usize;
        let generator = Self {
            hidden_size,
            num_attention_heads: (hidden_size / 64).max(1),
            intermediate_size: 4 * hidden_size,
            ..self.clone()
        };
        let what = format!("a generator of {fraction} of the discriminator's width {}", self.hidden_size);
        if hidden_size == 0 {
            return Err(format!("{what} has no width and no heads"));
        }
        generator.check().map_err(|reason| format!("{what}: {reason}"))?;
        Ok(generator)
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
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("max_position_embeddings", self.max_position_embeddings),
            ("type_vocab_size", self.type_vocab_size),
        ])?;
        layers_fit("num_hidden_layers", self.num_hidden_layers)?;
        heads_fit(("hidden_size", self.hidden_size), ("num_attention_heads", self.num_attention_heads))?;
        table_fits(self.vocab_size, self.embedding_size, self.layer_norm_eps)?;
        let positions = self.rest.others.get("position_embedding_type").and_then(|v| v.as_str());
        if positions.is_some_and(|kind| kind != "absolute") {
            return Err(format!("position_embedding_type {:?} is not supported; absolute is", positions.unwrap_or_default()));
        }
        if self.summary_type != "first" || !self.summary_use_proj || self.summary_activation != "gelu" {
            return Err(format!(
                "summary_type {:?}, summary_use_proj {} and summary_activation {:?} are not supported; \"first\", true and \"gelu\" are",
                self.summary_type, self.summary_use_proj, self.summary_activation
            ));
        }
        self.activation()?;
        self.rest.check()
    }

    /// The feed-forward layer's activation, and the detector's.
    ///
    /// # Errors
    /// One that is not supported.
    pub fn activation(&self) -> Result<HiddenAct, String> {
        HiddenAct::parse("hidden_act", &self.hidden_act)
    }
}
