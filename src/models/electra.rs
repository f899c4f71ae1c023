//! ELECTRA (Clark et al., "ELECTRA: pre-training text encoders as discriminators rather than generators", 2020): two
//! encoders as BERT's, whose embeddings may be narrower than their layers. The generator, a small masked LM, puts tokens at
//! the masked places of a text; the discriminator tells for each token whether it was replaced. How both are trained
//! together is in `replaced.rs`.
//!
//! Shapes: B batch, T time, E embedding width, H width, V vocabulary. Weights of linear layers are `[out, in]`.

use super::{
    ElectraConfig, Encoder, HeadNames, HiddenAct, Mode, Parameter, Sizes, Text,
    bert::Layers,
    blocks::{Parameters, embed, linear, norm},
    encoder::Dense,
};
use crate::{
    graph::Graph,
    ops::{Gelu, OpError, Tensor},
};

/// A generator or a discriminator, as it is recorded.
pub struct Electra<'a> {
    /// Its shape.
    pub config: &'a ElectraConfig,
    /// How to record it.
    pub mode: Mode,
}

const HEADS: HeadNames = HeadNames {
    prefix: "electra",
    table: "electra.embeddings.word_embeddings.weight",
    transform: "generator_predictions.dense",
    transform_norm: "generator_predictions.LayerNorm",
    decoder_bias: "generator_lm_head.bias",
    pooler: None,
    before_classes: Some(Dense { name: "classifier.dense", act: HiddenAct::Gelu(Gelu::Erf), drops: true }),
    classes: "classifier.out_proj",
    before_choice: Some(Dense { name: "sequence_summary.summary", act: HiddenAct::Gelu(Gelu::Erf), drops: false }),
    pair: "",
    detector: Some(["discriminator_predictions.dense", "discriminator_predictions.dense_prediction"]),
};

/// What a layer projects from the embeddings' width to its own, if they differ.
const PROJECTION: &str = "electra.embeddings_project";
impl Electra<'_> {
    fn layers(&self) -> Layers {
        let c = self.config;
        Layers {
            name: "electra.encoder.layer",
            count: c.num_hidden_layers,
            hidden: c.hidden_size,
            heads: c.num_attention_heads,
            intermediate: c.intermediate_size,
            epsilon: c.layer_norm_eps,
        }
    }
}

impl Encoder for Electra<'_> {
    fn sizes(&self) -> Result<Sizes, OpError> {
        let c = self.config;
        Ok(Sizes {
            vocab: c.vocab_size,
            embedding: c.embedding_size,
            hidden: c.hidden_size,
            layers: c.num_hidden_layers,
            positions: c.max_position_embeddings,
            types: c.type_vocab_size,
            act: c.activation().map_err(OpError::new)?,
            // Whatever the layers have: so it is in transformers, and the reference knows no other.
            masked_lm_act: HiddenAct::Gelu(Gelu::Erf),
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
        all.embeddings("electra.embeddings", c.vocab_size, c.max_position_embeddings, c.type_vocab_size, e);
        if e != h {
            all.linear(PROJECTION, e, h);
        }
        self.layers().parameters(&mut all);
        all.list
    }

    fn hidden_states(&self, g: &mut Graph, text: &Text) -> Result<Vec<Tensor>, OpError> {
        let c = self.config;
        let sizes = self.sizes()?;
        let x = g.layer("embeddings", |g| {
            let x = embed(g, "electra.embeddings", text, &sizes)?;
            let x = norm(g, x, "electra.embeddings.LayerNorm", c.layer_norm_eps)?;
            let x = self.mode.drop(g, x, 0)?;
            if c.embedding_size == c.hidden_size { Ok(x) } else { linear(g, x, PROJECTION, c.hidden_size) }
        })?;
        self.layers().states(g, x, text.keys, sizes.act, &self.mode)
    }
}
