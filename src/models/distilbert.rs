//! DistilBERT (Sanh et al., "DistilBERT, a distilled version of BERT", 2019): BERT's layers, half as many, without token
//! types and without a pooler.
//!
//! Shapes as in `bert.rs`.

use super::{
    DistilBertConfig, Encoder, HeadNames, HiddenAct, Mode, Parameter, Sizes, Text,
    blocks::{Parameters, Qkv, activate, embed, linear, norm},
    encoder::Dense,
};
use crate::{
    graph::Graph,
    ops::{self, OpError, Tensor},
};

/// A DistilBERT, as it is recorded.
pub struct DistilBert<'a> {
    /// Its shape.
    pub config: &'a DistilBertConfig,
    /// How to record it.
    pub mode: Mode,
}

/// What classifiers stand on.
const BEFORE: Option<Dense> = Some(Dense { name: "pre_classifier", act: HiddenAct::Relu, drops: false });

const HEADS: HeadNames = HeadNames {
    prefix: "distilbert",
    table: "distilbert.embeddings.word_embeddings.weight",
    transform: "vocab_transform",
    transform_norm: "vocab_layer_norm",
    decoder_bias: "vocab_projector.bias",
    pooler: None,
    before_classes: BEFORE,
    classes: "classifier",
    before_choice: BEFORE,
    pair: "",
    detector: None,
};

impl DistilBert<'_> {
    /// x = LayerNorm(x + attention(x)), then LayerNorm(x + feed-forward(x)).
    fn layer(&self, g: &mut Graph, x: Tensor, layer: usize, qkv: Qkv, keys: Option<Tensor>) -> Result<Tensor, OpError> {
        let (c, name, epsilon) = (self.config, layer_name(layer), DistilBertConfig::EPSILON);
        let h = g.layer("attention", |g| {
            let h = qkv.attend(g, x, c.n_heads, keys)?;
            linear(g, h, &format!("{name}.attention.out_lin"), c.dim)
        })?;
        let h = ops::add(g, h, x)?;
        let x = norm(g, h, &format!("{name}.sa_layer_norm"), epsilon)?;
        let h = g.layer("mlp", |g| {
            let h = linear(g, x, &format!("{name}.ffn.lin1"), c.hidden_dim)?;
            let h = activate(g, h, c.act().map_err(OpError::new)?)?;
            linear(g, h, &format!("{name}.ffn.lin2"), c.dim)
        })?;
        let h = self.mode.drop(g, h, layer + 1)?;
        let h = ops::add(g, h, x)?;
        norm(g, h, &format!("{name}.output_layer_norm"), epsilon)
    }
}

fn layer_name(layer: usize) -> String {
    format!("distilbert.transformer.layer.{layer}")
}

impl Encoder for DistilBert<'_> {
    fn sizes(&self) -> Result<Sizes, OpError> {
        let c = self.config;
        Ok(Sizes {
            vocab: c.vocab_size,
            embedding: c.dim,
            hidden: c.dim,
            layers: c.n_layers,
            positions: c.max_position_embeddings,
            types: 0,
            act: c.act().map_err(OpError::new)?,
            masked_lm_act: c.act().map_err(OpError::new)?,
            epsilon: DistilBertConfig::EPSILON,
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
        all.embeddings("distilbert.embeddings", c.vocab_size, c.max_position_embeddings, 0, c.dim);
        for layer in 0..c.n_layers {
            let name = layer_name(layer);
            for part in ["q_lin", "k_lin", "v_lin", "out_lin"] {
                all.linear(&format!("{name}.attention.{part}"), c.dim, c.dim);
            }
            all.norm(&format!("{name}.sa_layer_norm"), c.dim);
            all.linear(&format!("{name}.ffn.lin1"), c.dim, c.hidden_dim);
            all.linear(&format!("{name}.ffn.lin2"), c.hidden_dim, c.dim);
            all.norm(&format!("{name}.output_layer_norm"), c.dim);
        }
        all.list
    }

    fn hidden_states(&self, g: &mut Graph, text: &Text) -> Result<Vec<Tensor>, OpError> {
        let c = self.config;
        let sizes = self.sizes()?;
        let mut x = g.layer("embeddings", |g| {
            let x = embed(g, "distilbert.embeddings", text, &sizes)?;
            let x = norm(g, x, "distilbert.embeddings.LayerNorm", DistilBertConfig::EPSILON)?;
            self.mode.drop(g, x, 0)
        })?;
        let mut states = vec![x];
        for layer in 0..c.n_layers {
            x = g.layer(&format!("layer.{layer}"), |g| {
                let names = ["q_lin", "k_lin", "v_lin"].map(|part| format!("{}.attention.{part}", layer_name(layer)));
                let qkv = Qkv::join(g, names, c.dim)?;
                self.mode.block(g, |g| self.layer(g, x, layer, qkv, text.keys))
            })?;
            states.push(x);
        }
        Ok(states)
    }
}
