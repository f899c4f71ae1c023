//! ALBERT (Lan et al., "ALBERT: a lite BERT for self-supervised learning of language representations", 2020): BERT with a
//! factorised embedding (section 3.1, E < H) and with layers that share their parameters (cross-layer parameter sharing).
//!
//! Shapes: B batch, T time, E embedding width, H width, V vocabulary. Weights of linear layers are `[out, in]`.

use super::{
    AlbertConfig, Encoder, HeadNames, Mode, Parameter, Sharing, Sizes, Text,
    blocks::{Parameters, Qkv, activate, embed, linear, norm},
};
use crate::{
    graph::Graph,
    ops::{self, OpError, Tensor},
};
use std::collections::HashMap;

/// An ALBERT, as it is recorded.
pub struct Albert<'a> {
    /// Its shape.
    pub config: &'a AlbertConfig,
    /// How to record it.
    pub mode: Mode,
}

const HEADS: HeadNames = HeadNames {
    prefix: "albert",
    table: "albert.embeddings.word_embeddings.weight",
    transform: "predictions.dense",
    transform_norm: "predictions.LayerNorm",
    decoder_bias: "predictions.bias",
    pooler: Some("albert.pooler"),
    before_classes: None,
    classes: "classifier",
    before_choice: None,
    pair: "sop_classifier.classifier",
    detector: None,
};

/// What a layer projects from the embeddings' width to its own.
const MAPPING: &str = "albert.encoder.embedding_hidden_mapping_in";

/// Names of the two blocks of inner layer `inner` of group `group`: a shared block's parameters are the first group's.
struct Blocks {
    attention: String,
    feed_forward: String,
}

impl Albert<'_> {
    fn blocks(&self, group: usize, inner: usize) -> Blocks {
        let name = |group| format!("albert.encoder.albert_layer_groups.{group}.albert_layers.{inner}");
        let own = |shared| name(if self.config.sharing == shared { 0 } else { group });
        Blocks { attention: own(Sharing::Attention), feed_forward: own(Sharing::Ffn) }
    }

    /// x = LayerNorm(x + attention(x)), then LayerNorm(x + feed-forward(x)).
    fn layer(
        &self,
        g: &mut Graph,
        x: Tensor,
        stream: usize,
        names: &Blocks,
        qkv: Qkv,
        keys: Option<Tensor>,
    ) -> Result<Tensor, OpError> {
        let (c, attention, feed_forward) = (self.config, &names.attention, &names.feed_forward);
        let h = g.layer("attention", |g| {
            let h = qkv.attend(g, x, c.num_attention_heads, keys)?;
            linear(g, h, &format!("{attention}.attention.dense"), c.hidden_size)
        })?;
        let h = self.mode.drop(g, h, stream)?;
        let h = ops::add(g, h, x)?;
        let x = norm(g, h, &format!("{attention}.attention.LayerNorm"), c.layer_norm_eps)?;
        let h = g.layer("mlp", |g| {
            let h = linear(g, x, &format!("{feed_forward}.ffn"), c.intermediate_size)?;
            let h = activate(g, h, c.activation().map_err(OpError::new)?)?;
            linear(g, h, &format!("{feed_forward}.ffn_output"), c.hidden_size)
        })?;
        let h = self.mode.drop(g, h, stream + 1)?;
        let h = ops::add(g, h, x)?;
        norm(g, h, &format!("{feed_forward}.full_layer_layer_norm"), c.layer_norm_eps)
    }
}

impl Encoder for Albert<'_> {
    fn sizes(&self) -> Result<Sizes, OpError> {
        let c = self.config;
        Ok(Sizes {
            vocab: c.vocab_size,
            embedding: c.embedding_size,
            hidden: c.hidden_size,
            layers: c.num_hidden_layers * c.inner_group_num,
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
        let (e, h) = (c.embedding_size, c.hidden_size);
        all.embeddings("albert.embeddings", c.vocab_size, c.max_position_embeddings, c.type_vocab_size, e);
        all.linear(MAPPING, e, h);
        for group in 0..c.num_hidden_groups {
            for inner in 0..c.inner_group_num {
                let Blocks { attention, feed_forward } = self.blocks(group, inner);
                if group == 0 || c.sharing != Sharing::Ffn {
                    all.norm(&format!("{feed_forward}.full_layer_layer_norm"), h);
                }
                if group == 0 || c.sharing != Sharing::Attention {
                    for part in ["query", "key", "value", "dense"] {
                        all.linear(&format!("{attention}.attention.{part}"), h, h);
                    }
                    all.norm(&format!("{attention}.attention.LayerNorm"), h);
                }
                if group == 0 || c.sharing != Sharing::Ffn {
                    all.linear(&format!("{feed_forward}.ffn"), h, c.intermediate_size);
                    all.linear(&format!("{feed_forward}.ffn_output"), c.intermediate_size, h);
                }
            }
        }
        all.list
    }

    fn hidden_states(&self, g: &mut Graph, text: &Text) -> Result<Vec<Tensor>, OpError> {
        let c = self.config;
        let sizes = self.sizes()?;
        let mut x = g.layer("embeddings", |g| {
            let x = embed(g, "albert.embeddings", text, &sizes)?;
            let x = norm(g, x, "albert.embeddings.LayerNorm", c.layer_norm_eps)?;
            let x = self.mode.drop(g, x, 0)?;
            linear(g, x, MAPPING, c.hidden_size)
        })?;
        let mut states = vec![x];
        // Joined once for all layers that share it.
        let mut joined: HashMap<String, Qkv> = HashMap::new();
        for layer in 0..c.num_hidden_layers {
            for inner in 0..c.inner_group_num {
                let names = self.blocks(c.group(layer), inner);
                let qkv = match joined.get(&names.attention) {
                    Some(&qkv) => qkv,
                    None => {
                        let parts = ["query", "key", "value"].map(|part| format!("{}.attention.{part}", names.attention));
                        *joined.entry(names.attention.clone()).or_insert(Qkv::join(g, parts, c.hidden_size)?)
                    }
                };
                let stream = 2 * (layer * c.inner_group_num + inner) + 1;
                x = g.layer(&format!("layer.{layer}"), |g| {
                    self.mode.block(g, |g| self.layer(g, x, stream, &names, qkv, text.keys))
                })?;
                states.push(x);
            }
        }
        Ok(states)
    }
}
