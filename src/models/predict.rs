//! A fine-tuned model on texts of any length: a plan for each padded length.

use super::{Head, Inputs, Missing, Mode, Model, ModelError, Recording, encoder};
use crate::{
    graph::{Engine, Graph, Plan, PlanOptions},
    ops::HostTensor,
    train::tasks::TextBatch,
};

/// A model with a head, ready to be run.
pub struct Predictor<'a> {
    model: &'a Model,
    head: Head,
    engine: Engine,
    types: bool,
    /// The last plan, with its rows and tokens a row. Batches come sorted by length, so that no other is asked for again, and
    /// the memory of plans for all lengths would be many times that of the longest.
    plan: Option<([usize; 2], Plan, Recording)>,
}

impl<'a> Predictor<'a> {
    /// Loads the weights of `model` with `head`.
    ///
    /// # Errors
    /// A weight is missing, or the head does not go with the model.
    pub fn new(model: &'a Model, head: Head, mut engine: Engine) -> Result<Self, ModelError> {
        model.upload(&mut engine, &model.parameters(head)?, Missing::Refuse)?;
        let sizes = encoder(&model.config, Mode::default()).and_then(|encoder| encoder.sizes().ok());
        let types = sizes.is_some_and(|sizes| sizes.types > 1);
        Ok(Self { model, head, engine, types, plan: None })
    }

    /// The head's outputs for a batch. Each row is by itself, those of choices too: their logits are `[rows, 1]`.
    ///
    /// # Errors
    /// The rows are longer than the model's context, or the device fails.
    pub fn run(&mut self, text: &TextBatch) -> Result<Vec<HostTensor<f32>>, ModelError> {
        let shape = [text.rows, text.time];
        let (_, mut plan, recording) = match self.plan.take() {
            Some(current) if current.0 == shape => current,
            // The one before is dropped first, so that only one is in memory.
            before => {
                drop(before);
                let mut g = Graph::new();
                let inputs = Inputs { rows: text.rows, time: text.time, choices: 1, mask: true, types: self.types };
                let recording = self.model.record(&mut g, self.head, inputs, Mode::default())?;
                let outputs: Vec<_> = recording.outputs.named.iter().map(|output| output.1).collect();
                (shape, self.engine.compile(g, &outputs, &PlanOptions::named("predict"))?, recording)
            }
        };
        let given = [(Some(recording.ids), &text.ids), (recording.types, &text.types), (recording.keys, &text.mask)];
        for (tensor, values) in given {
            if let Some(tensor) = tensor {
                plan.set(tensor, HostTensor::uints(shape, values.clone()))?;
            }
        }
        plan.run(&mut self.engine)?;
        let outputs = recording.outputs.named.iter().map(|output| Ok(plan.get(output.1)?)).collect();
        self.plan = Some((shape, plan, recording));
        outputs
    }

    /// Keeps the compiled pipelines for the next start, where the backend can.
    pub fn save_pipelines(&self) {
        self.engine.save_pipelines();
    }
}
