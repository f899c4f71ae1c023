//! BERT (Devlin et al., "BERT: pre-training of deep bidirectional Transformers for language understanding", 2019): a
//! Transformer encoder with the layer norms after each residual sum, learned positions, and segments.
//!
//! Shapes: B batch, T time, H width (`hidden_size`), V vocabulary. Weights of linear layers are `[out, in]`, as in PyTorch.

use super::{
    BertConfig, Encoder, HeadNames, HiddenAct, Mode, Parameter, Sizes, Text,
    blocks::{Parameters, Qkv, activate, embed, linear, norm},
};
use crate::{
    graph::Graph,
    ops::{self, OpError, Tensor},
};

/// A BERT, as it is recorded.
pub struct Bert<'a> {
    /// Its shape.
    pub config: &'a BertConfig,
    /// How to record it.
    pub mode: Mode,
}

const HEADS: HeadNames = HeadNames {
    prefix: "bert",
    table: "bert.embeddings.word_embeddings.weight",
    transform: "cls.predictions.transform.dense",
    transform_norm: "cls.predictions.transform.LayerNorm",
    decoder_bias: "cls.predictions.bias",
    pooler: Some("bert.pooler.dense"),
    before_classes: None,
    classes: "classifier",
    before_choice: None,
    pair: "cls.seq_relationship",
    detector: None,
};

impl Bert<'_> {
    fn layers(&self) -> Layers {
        let c = self.config;
        Layers {
            name: "bert.encoder.layer",
            count: c.num_hidden_layers,
            hidden: c.hidden_size,
            heads: c.num_attention_heads,
            intermediate: c.intermediate_size,
            epsilon: c.layer_norm_eps,
        }
    }
}

/// A BERT's layers, which ELECTRA's networks have too.
pub(super) struct Layers {
    /// What the names of their parameters begin with, before the layer's number.
    pub name: &'static str,
    /// Number of layers.
    pub count: usize,
    /// Width of the residual stream, H.
    pub hidden: usize,
    /// Attention heads a layer.
    pub heads: usize,
    /// Width of the feed-forward layer.
    pub intermediate: usize,
    /// Added to the variance in layer norms.
    pub epsilon: f32,
}

impl Layers {
    /// Adds their parameters.
    pub fn parameters(&self, all: &mut Parameters) {
        let h = self.hidden;
        for layer in 0..self.count {
            let name = format!("{}.{layer}", self.name);
            for part in ["query", "key", "value"] {
                all.linear(&format!("{name}.attention.self.{part}"), h, h);
            }
            all.linear(&format!("{name}.attention.output.dense"), h, h);
            all.norm(&format!("{name}.attention.output.LayerNorm"), h);
            all.linear(&format!("{name}.intermediate.dense"), h, self.intermediate);
            all.linear(&format!("{name}.output.dense"), self.intermediate, h);
            all.norm(&format!("{name}.output.LayerNorm"), h);
        }
    }

    /// `x` `[B,T,H]` and what each layer makes of it.
    pub fn states(
        &self,
        g: &mut Graph,
        mut x: Tensor,
        keys: Option<Tensor>,
        act: HiddenAct,
        mode: &Mode,
    ) -> Result<Vec<Tensor>, OpError> {
        let mut states = vec![x];
        for layer in 0..self.count {
            x = g.layer(&format!("layer.{layer}"), |g| {
                let names = ["query", "key", "value"].map(|part| format!("{}.{layer}.attention.self.{part}", self.name));
                let qkv = Qkv::join(g, names, self.hidden)?;
                mode.block(g, |g| self.layer(g, x, layer, qkv, keys, act, mode))
            })?;
            states.push(x);
        }
        Ok(states)
    }

    /// x = LayerNorm(x + attention(x)), then LayerNorm(x + feed-forward(x)).
    #[allow(clippy::too_many_arguments)]
    fn layer(
        &self,
        g: &mut Graph,
        x: Tensor,
        layer: usize,
        qkv: Qkv,
        keys: Option<Tensor>,
        act: HiddenAct,
        mode: &Mode,
    ) -> Result<Tensor, OpError> {
        let name = format!("{}.{layer}", self.name);
        let h = g.layer("attention", |g| {
            let h = qkv.attend(g, x, self.heads, keys)?;
            linear(g, h, &format!("{name}.attention.output.dense"), self.hidden)
        })?;
        let h = mode.drop(g, h, 2 * layer + 1)?;
        let h = ops::add(g, h, x)?;
        let x = norm(g, h, &format!("{name}.attention.output.LayerNorm"), self.epsilon)?;
        let h = g.layer("mlp", |g| {
            let h = linear(g, x, &format!("{name}.intermediate.dense"), self.intermediate)?;
            let h = activate(g, h, act)?;
            linear(g, h, &format!("{name}.output.dense"), self.hidden)
        })?;
        let h = mode.drop(g, h, 2 * layer + 2)?;
        let h = ops::add(g, h, x)?;
        norm(g, h, &format!("{name}.output.LayerNorm"), self.epsilon)
    }
}

impl Encoder for Bert<'_> {
    fn sizes(&self) -> Result<Sizes, OpError> {
        let c = self.config;
        Ok(Sizes {
            vocab: c.vocab_size,
            embedding: c.hidden_size,
            hidden: c.hidden_size,
            layers: c.num_hidden_layers,
            positions: c.max_position_embeddings,
            types: c.type_vocab_size,
            act: c.activation().map_err(OpError::new)?,
            masked_lm_act: c.activation().map_err(OpError::new)?,
            epsilon: c.layer_norm_eps,
            range: c.initializer_range,
        })
    }

    fn mode(&self) -> &Mode {
        &self.mode
    }

    fn heads(&self) -> &'static HeadNames {
        &HEADS
    }

    fn parameters(&self) -> Vec<Parameter> {
        let (c, mut all) = (self.config, Parameters::new(self.config.initializer_range));
        let h = c.hidden_size;
        all.embeddings("bert.embeddings", c.vocab_size, c.max_position_embeddings, c.type_vocab_size, h);
        self.layers().parameters(&mut all);
        all.list
    }

    fn hidden_states(&self, g: &mut Graph, text: &Text) -> Result<Vec<Tensor>, OpError> {
        let c = self.config;
        let sizes = self.sizes()?;
        let x = g.layer("embeddings", |g| {
            let x = embed(g, "bert.embeddings", text, &sizes)?;
            let x = norm(g, x, "bert.embeddings.LayerNorm", c.layer_norm_eps)?;
            self.mode.drop(g, x, 0)
        })?;
        self.layers().states(g, x, text.keys, sizes.act, &self.mode)
    }
}
