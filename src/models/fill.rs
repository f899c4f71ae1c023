//! Masked tokens filled in: the masked-LM head's probabilities at the masks of a text.

use super::{Encoder, Head, Missing, Mode, Model, ModelError, Text};
use crate::{
    graph::{Engine, Graph, GraphError, PlanOptions},
    ops::{self, HostTensor, OpError, Recorder, Tensor, TensorType},
};

/// A token that may stand at a mask.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: u32,
    /// Its probability.
    pub probability: f32,
}

/// A model with its masked-LM head on a device.
pub struct Filler<'a> {
    encoder: Box<dyn Encoder + 'a>,
    engine: &'a mut Engine,
    place: &'a str,
}

impl<'a> Filler<'a> {
    /// Puts the weights on the device.
    ///
    /// # Errors
    /// The model is no encoder, or has no masked-LM head.
    pub fn new(model: &'a Model, engine: &'a mut Engine) -> Result<Self, ModelError> {
        let encoder = model.encoder(Mode::default())?;
        let parameters = model.parameters(Head::MaskedLm)?;
        model.upload(engine, &parameters, Missing::Refuse).map_err(|error| match error {
            ModelError::Checkpoint(error) => ModelError::Head {
                place: model.place().to_owned(),
                reason: format!("it has no masked-LM head, or not all of it: {error}"),
            },
            other => other,
        })?;
        Ok(Self { encoder, engine, place: model.place() })
    }

    /// For each of the places `masks` in the text `ids` (with [CLS] and [SEP]) the `top` likeliest tokens, likeliest first.
    ///
    /// # Errors
    /// The text is longer than the model's context, the device fails, or what the model gives is no number.
    pub fn fill(&mut self, ids: &[u32], masks: &[usize], top: usize) -> Result<Vec<Vec<Candidate>>, ModelError> {
        let time = ids.len();
        let mut g = Graph::new();
        let input = g.input("ids", TensorType::u32([1, time]));
        let places = g.input("masks", TensorType::u32([masks.len()]));
        let output = self.record(&mut g, input, places).map_err(GraphError::from)?;
        let mut plan = self.engine.compile(g, &[output], &PlanOptions::named("fill"))?;
        plan.set(input, HostTensor::uints([1, time], ids.to_vec()))?;
        plan.set(places, HostTensor::uints([masks.len()], masks.iter().map(|&m| m as u32).collect()))?;
        plan.run(self.engine)?;
        let probabilities = plan.get(output)?;
        if probabilities.f().iter().any(|p| p.is_nan()) {
            return Err(ModelError::NoNumber { place: self.place.to_owned() });
        }
        Ok(probabilities.f().chunks(probabilities.shape.width()).map(|row| likeliest(row, top)).collect())
    }

    /// Probabilities `[masks, V]`.
    fn record(&self, g: &mut Graph, ids: Tensor, places: Tensor) -> Result<Tensor, OpError> {
        let states = self.encoder.hidden_states(g, &Text { ids, types: None, keys: None })?;
        let last = states[states.len() - 1];
        let shape = g.ty(last).shape.clone();
        let rows = ops::reshape(g, last, [shape.rows(), shape.width()])?;
        let masked = ops::embedding(g, rows, places)?;
        let logits = self.encoder.masked_lm(g, masked)?;
        ops::softmax(g, logits)
    }
}

/// The `top` largest of a row; of equals the first.
fn likeliest(row: &[f32], top: usize) -> Vec<Candidate> {
    let mut order: Vec<usize> = (0..row.len()).collect();
    order.sort_by(|&a, &b| row[b].total_cmp(&row[a]));
    order.truncate(top);
    order.into_iter().map(|i| Candidate { id: i as u32, probability: row[i] }).collect()
}
