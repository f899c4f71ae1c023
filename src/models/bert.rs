//! BERT (Devlin et al., "BERT: pre-training of deep bidirectional Transformers for language understanding", 2019): a
//! Transformer encoder with the layer norms after each residual sum, learned positions, and segments.
//!
//! Shapes: B batch, T time, H width (`hidden_size`), V vocabulary. Weights of linear layers are `[out, in]`, as in PyTorch.

use super::{
    BertConfig, Encoder, HeadNames, Mode, Parameter, Sizes, Text,
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
    pre_classifier: None,
    pair: "cls.seq_relationship",
};

impl Bert<'_> {
    /// x = LayerNorm(x + attention(x)), then LayerNorm(x + feed-forward(x)).
    fn layer(&self, g: &mut Graph, x: Tensor, layer: usize, qkv: Qkv, keys: Option<Tensor>) -> Result<Tensor, OpError> {
        let (c, name) = (self.config, layer_name(layer));
        let h = g.layer("attention", |g| {
            let h = qkv.attend(g, x, c.num_attention_heads, keys)?;
            linear(g, h, &format!("{name}.attention.output.dense"), c.hidden_size)
        })?;
        let h = self.mode.drop(g, h, 2 * layer + 1)?;
        let h = ops::add(g, h, x)?;
        let x = norm(g, h, &format!("{name}.attention.output.LayerNorm"), c.layer_norm_eps)?;
        let h = g.layer("mlp", |g| {
            let h = linear(g, x, &format!("{name}.intermediate.dense"), c.intermediate_size)?;
            let h = activate(g, h, c.activation().map_err(OpError::new)?)?;
            linear(g, h, &format!("{name}.output.dense"), c.hidden_size)
        })?;
        let h = self.mode.drop(g, h, 2 * layer + 2)?;
        let h = ops::add(g, h, x)?;
        norm(g, h, &format!("{name}.output.LayerNorm"), c.layer_norm_eps)
    }
}

fn layer_name(layer: usize) -> String {
    format!("bert.encoder.layer.{layer}")
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
        all.table("bert.embeddings.word_embeddings.weight", c.vocab_size, h);
        all.table("bert.embeddings.position_embeddings.weight", c.max_position_embeddings, h);
        all.table("bert.embeddings.token_type_embeddings.weight", c.type_vocab_size, h);
        all.norm("bert.embeddings.LayerNorm", h);
        for layer in 0..c.num_hidden_layers {
            let name = layer_name(layer);
            for part in ["query", "key", "value"] {
                all.linear(&format!("{name}.attention.self.{part}"), h, h);
            }
            all.linear(&format!("{name}.attention.output.dense"), h, h);
            all.norm(&format!("{name}.attention.output.LayerNorm"), h);
            all.linear(&format!("{name}.intermediate.dense"), h, c.intermediate_size);
            all.linear(&format!("{name}.output.dense"), c.intermediate_size, h);
            all.norm(&format!("{name}.output.LayerNorm"), h);
        }
        all.list
    }

    fn hidden_states(&self, g: &mut Graph, text: &Text) -> Result<Vec<Tensor>, OpError> {
        let c = self.config;
        let sizes = self.sizes()?;
        let mut x = g.layer("embeddings", |g| {
            let x = embed(g, "bert.embeddings", text, &sizes)?;
            let x = norm(g, x, "bert.embeddings.LayerNorm", c.layer_norm_eps)?;
            self.mode.drop(g, x, 0)
        })?;
        let mut states = vec![x];
        for layer in 0..c.num_hidden_layers {
            x = g.layer(&format!("layer.{layer}"), |g| {
                let names = ["query", "key", "value"].map(|part| format!("{}.attention.self.{part}", layer_name(layer)));
                let qkv = Qkv::join(g, names, c.hidden_size)?;
                self.mode.block(g, |g| self.layer(g, x, layer, qkv, text.keys))
            })?;
            states.push(x);
        }
        Ok(states)
    }
}
