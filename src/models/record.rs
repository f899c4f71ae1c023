//! A model of any kind recorded on inputs of given sizes: what `forward`, `backward` and `graph` run.

use super::{
    Config, Head, Mode, Model, ModelError, Text,
    gpt2::{Context, Gpt2},
    heads::{self, Labels, Outputs},
};
use crate::{
    graph::{Graph, GraphError},
    ops::{self, OpError, Tensor, TensorType},
};

/// Sizes of the inputs, and which of them there are.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// Rows of tokens.
    pub rows: usize,
    /// Tokens a row.
    pub time: usize,
    /// Rows that belong to one example: more than 1 only for [`Head::Choice`].
    pub choices: usize,
    /// There is a mask of padding.
    pub mask: bool,
    /// There are token types.
    pub types: bool,
}

/// A recorded model.
pub struct Recording {
    /// `[rows, time]` u32.
    pub ids: Tensor,
    /// `[rows, time]` u32, if there are any.
    pub types: Option<Tensor>,
    /// `[rows, time]` u32, if there is any.
    pub keys: Option<Tensor>,
    /// Hidden states, and outputs by transformers' names.
    pub outputs: Outputs,
    inputs: Inputs,
    mode: Mode,
    regression: bool,
}

impl Model {
    /// Records the model with `head` (which a GPT-2 does not look at).
    ///
    /// # Errors
    /// The head does not go with the model, or the inputs are longer than its context.
    pub fn record(&self, g: &mut Graph, head: Head, inputs: Inputs, mode: Mode) -> Result<Recording, ModelError> {
        let shape = [inputs.rows, inputs.time];
        let ids = g.input("input_ids", TensorType::u32(shape));
        let types = inputs.types.then(|| g.input("token_type_ids", TensorType::u32(shape)));
        let keys = inputs.mask.then(|| g.input("attention_mask", TensorType::u32(shape)));
        let outputs = match &self.config {
            Config::Gpt2(config) => {
                let gpt2 = Gpt2 { config, mode };
                let states = gpt2.hidden_states(g, ids, Context::Whole { keys }).map_err(GraphError::from)?;
                let logits = gpt2.head(g, states[states.len() - 1]).map_err(GraphError::from)?;
                Outputs { hidden_states: states, named: vec![("logits", logits)] }
            }
            _ => {
                let encoder = self.encoder(mode)?;
                let labels = self.config.rest().map_or(0, super::Rest::labels);
                let text = Text { ids, types, keys };
                heads::outputs(g, &*encoder, head, labels, (self.has_pooler(), inputs.choices), &text)
                    .map_err(GraphError::from)?
            }
        };
        let regression = head == Head::Sequence && self.config.rest().is_some_and(super::Rest::regression);
        Ok(Recording { ids, types, keys, outputs, inputs, mode, regression })
    }
}

/// Inputs with the names that they are fed by.
pub type NamedInputs = Vec<(&'static str, Tensor)>;

impl Recording {
    /// Adds inputs for the labels that the loss of `head` takes, by transformers' names, and the loss `[]`. A GPT-2's labels
    /// are to be the next tokens.
    ///
    /// # Errors
    /// The head has no loss.
    pub fn loss(&self, g: &mut Graph, config: &Config, head: Head) -> Result<(NamedInputs, Tensor), OpError> {
        let Inputs { rows, time, choices, .. } = self.inputs;
        if let Config::Gpt2(config) = config {
            let labels = g.input("labels", TensorType::u32([rows, time]));
            let states = &self.outputs.hidden_states;
            let loss = Gpt2 { config, mode: self.mode }.loss_of(g, states[states.len() - 1], labels)?;
            return Ok((vec![("labels", labels)], loss));
        }
        let mut labels = Vec::new();
        let mut label = |g: &mut Graph, name, ty| {
            let tensor = g.input(name, ty);
            labels.push((name, tensor));
            tensor
        };
        let examples = rows / choices;
        let (tokens, texts) = (TensorType::u32([rows, time]), TensorType::u32([examples]));
        let given = match head {
            Head::Base => {
                return Err(OpError::new(format!("a bare encoder has no loss; give --head, one of {}", Head::names())));
            }
            Head::MaskedLm | Head::Tokens => Labels::One(label(g, "labels", tokens)),
            Head::NextSentence | Head::Choice => Labels::One(label(g, "labels", texts)),
            Head::Sequence if self.regression => Labels::One(label(g, "labels", TensorType::f32([examples]))),
            Head::Sequence => Labels::One(label(g, "labels", texts)),
            Head::PreTraining => Labels::Pair(label(g, "labels", tokens), label(g, pair_label(config), texts)),
            Head::Replaced => {
                let labels = label(g, "labels", tokens);
                // Padding is no token.
                Labels::Replaced(match self.keys {
                    Some(keys) => ops::hide_labels(g, labels, keys)?,
                    None => labels,
                })
            }
            Head::Questions => Labels::Span(label(g, "start_positions", texts.clone()), label(g, "end_positions", texts)),
        };
        let loss = heads::loss(g, &self.outputs, given, self.regression)?;
        Ok((labels, loss))
    }
}

/// transformers' name for the label of a pair of segments in pre-training.
pub fn pair_label(config: &Config) -> &'static str {
    if matches!(config, Config::Albert(_)) { "sentence_order_label" } else { "next_sentence_label" }
}
