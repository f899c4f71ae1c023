//! What BERT, DistilBERT, ALBERT and ELECTRA have in common, as the heads see them.

use super::{
    Albert, Bert, Config, DistilBert, Electra, Mode, Parameter,
    blocks::{Decoder, activate, linear, norm, weight},
    config::HiddenAct,
};
use crate::{
    graph::Graph,
    ops::{self, Logits, OpError, Recorder, Tensor},
};

/// Token ids and what comes with them.
#[derive(Clone, Copy)]
pub struct Text {
    /// `[B,T]` u32.
    pub ids: Tensor,
    /// `[B,T]` u32: 0 in the first segment, 1 in the second; all 0 where absent.
    pub types: Option<Tensor>,
    /// `[B,T]` u32: 0 where there is padding; no padding where absent.
    pub keys: Option<Tensor>,
}

/// Sizes that embeddings and heads need.
#[derive(Debug, Clone, Copy)]
pub struct Sizes {
    /// Number of tokens, V.
    pub vocab: usize,
    /// Width of the embeddings, E.
    pub embedding: usize,
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// Layers, those within layers counted by themselves.
    pub layers: usize,
    /// Longest context.
    pub positions: usize,
    /// Number of token types; 0 for none.
    pub types: usize,
    /// The activation of the feed-forward layers, and of the detector.
    pub act: HiddenAct,
    /// The activation of the masked-LM head.
    pub masked_lm_act: HiddenAct,
    /// Added to the variance in layer norms.
    pub epsilon: f32,
    /// Standard deviation of initial weights.
    pub range: f32,
}

/// Names of what the heads are made of, as Hugging Face has them.
pub struct HeadNames {
    /// What names of the encoder begin with, unless it was saved without a head.
    pub prefix: &'static str,
    /// The token table, which the masked-LM head's decoder is tied to.
    pub table: &'static str,
    /// The masked-LM head's linear layer.
    pub transform: &'static str,
    /// Its layer norm.
    pub transform_norm: &'static str,
    /// The bias of its decoder.
    pub decoder_bias: &'static str,
    /// The linear layer on the first token, followed by tanh.
    pub pooler: Option<&'static str>,
    /// What a classifier of whole texts stands on, if there is no pooler.
    pub before_classes: Option<Dense>,
    /// The linear layer that gives a whole text its class.
    pub classes: &'static str,
    /// What the choice between texts stands on, if there is no pooler.
    pub before_choice: Option<Dense>,
    /// The linear layer that judges a pair of segments; empty if there is none.
    pub pair: &'static str,
    /// The linear layers that tell replaced tokens from original ones, with the activation between them.
    pub detector: Option<[&'static str; 2]>,
}

/// A linear layer of the same width and its activation, on the first token.
#[derive(Clone, Copy)]
pub struct Dense {
    /// Its name.
    pub name: &'static str,
    /// The activation.
    pub act: HiddenAct,
    /// Whether there is dropout before it, too.
    pub drops: bool,
}

/// An encoder under recording.
pub trait Encoder {
    /// Its sizes.
    ///
    /// # Errors
    /// An activation that is not supported.
    fn sizes(&self) -> Result<Sizes, OpError>;
    /// How it is recorded.
    fn mode(&self) -> &Mode;
    /// Names of its heads' parts.
    fn heads(&self) -> &'static HeadNames;
    /// Parameters of embeddings and layers, in transformers' order as a rule.
    fn parameters(&self) -> Vec<Parameter>;
    /// The embeddings' output and each layer's, `[B,T,H]`.
    ///
    /// # Errors
    /// The text is longer than the model's context.
    fn hidden_states(&self, g: &mut Graph, text: &Text) -> Result<Vec<Tensor>, OpError>;
}

/// The encoder of a configuration; `None` for a GPT-2, which is no encoder.
pub fn encoder(config: &Config, mode: Mode) -> Option<Box<dyn Encoder + '_>> {
    match config {
        Config::Gpt2(_) => None,
        Config::Bert(config) => Some(Box::new(Bert { config, mode })),
        Config::DistilBert(config) => Some(Box::new(DistilBert { config, mode })),
        Config::Albert(config) => Some(Box::new(Albert { config, mode })),
        Config::Electra(config) => Some(Box::new(Electra { config, mode })),
    }
}

impl dyn Encoder + '_ {
    /// tanh of a linear layer on the first token, `[B,T,H] -> [B,H]`; `None` if the encoder has no pooler.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn pooled(&self, g: &mut Graph, last: Tensor) -> Result<Option<Tensor>, OpError> {
        let Some(name) = self.heads().pooler else { return Ok(None) };
        g.layer("pooler", |g| {
            let first = first_token(g, last)?;
            let h = linear(g, first, name, self.sizes()?.hidden)?;
            Ok(Some(ops::tanh(g, h)?))
        })
    }

    /// What a classifier of whole texts is put on, `[B,H]`, with dropout in training: the pooled first token, or the first
    /// token through `before`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn summary(&self, g: &mut Graph, last: Tensor, before: Option<Dense>) -> Result<Tensor, OpError> {
        let (mode, stream) = (self.mode(), 2 * self.sizes()?.layers + 1);
        let summary = match (self.pooled(g, last)?, before) {
            (Some(pooled), _) => pooled,
            (None, Some(Dense { name, act, drops })) => {
                let first = first_token(g, last)?;
                let first = if drops { mode.drop(g, first, stream + 1)? } else { first };
                let h = linear(g, first, name, self.sizes()?.hidden)?;
                activate(g, h, act)?
            }
            (None, None) => first_token(g, last)?,
        };
        mode.drop(g, summary, stream)
    }

    /// Logits of the masked tokens for rows of hidden states, `[.., H] -> [.., V]`: linear, activation, layer norm, and the
    /// token table.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn masked_lm(&self, g: &mut Graph, rows: Tensor) -> Result<Tensor, OpError> {
        g.layer("mlm", |g| {
            let (h, decoder) = self.transformed(g, rows)?;
            decoder.logits(g, h)
        })
    }

    /// The same for a loss and the choice of tokens, with zeros behind the logits, `[.., V']`, so that they are made of whole vectors
    /// and tiles.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn whole_masked_lm(&self, g: &mut Graph, rows: Tensor) -> Result<Logits, OpError> {
        g.layer("mlm", |g| {
            let (h, decoder) = self.transformed(g, rows)?;
            decoder.whole_logits(g, h)
        })
    }

    /// What the masked-LM head's decoder takes, `[.., E]`, and the decoder, which is tied to the token table.
    fn transformed(&self, g: &mut Graph, rows: Tensor) -> Result<(Tensor, Decoder), OpError> {
        let (sizes, names) = (self.sizes()?, self.heads());
        let h = linear(g, rows, names.transform, sizes.embedding)?;
        let h = activate(g, h, sizes.masked_lm_act)?;
        let h = norm(g, h, names.transform_norm, sizes.epsilon)?;
        let table = weight(g, names.table, [sizes.vocab, sizes.embedding])?;
        Ok((h, Decoder { table, bias: Some(weight(g, names.decoder_bias, [sizes.vocab])?) }))
    }

    /// Logits of a pair of segments, `[B,H] -> [B,2]`: 0 where the second continues the first, in order.
    ///
    /// # Errors
    /// The encoder has no such head.
    pub fn pair(&self, g: &mut Graph, pooled: Tensor) -> Result<Tensor, OpError> {
        g.layer("pair", |g| linear(g, pooled, self.heads().pair, 2))
    }

    /// For each token the logit of its having been replaced, `[.., H] -> [..]`.
    ///
    /// # Errors
    /// The encoder has no such head.
    pub fn replaced(&self, g: &mut Graph, last: Tensor) -> Result<Tensor, OpError> {
        let sizes = self.sizes()?;
        let [dense, prediction] = self.heads().detector.ok_or_else(no_detector)?;
        g.layer("detector", |g| {
            let h = linear(g, last, dense, sizes.hidden)?;
            let h = activate(g, h, sizes.act)?;
            let logits = linear(g, h, prediction, 1)?;
            let shape = g.ty(logits).shape.0.clone();
            ops::reshape(g, logits, shape[..shape.len() - 1].to_vec())
        })
    }
}

/// Only an ELECTRA tells replaced tokens.
pub(super) fn no_detector() -> OpError {
    OpError::new("this kind of model has no head for replaced tokens; an ELECTRA has")
}

/// The first token of each row, `[B,T,H] -> [B,H]`.
fn first_token(g: &mut Graph, last: Tensor) -> Result<Tensor, OpError> {
    let shape = g.ty(last).shape.clone();
    let first = ops::slice(g, last, 1, 0..1)?;
    ops::reshape(g, first, [shape.0[0], shape.width()])
}
