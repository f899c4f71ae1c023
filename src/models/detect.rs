//! Replaced tokens found: the discriminator's probabilities for the tokens of texts (Clark et al. 2020, section 2).

use super::{Head, Model, ModelError, Predictor};
use crate::{
    graph::Engine,
    text::SpecialTokens,
    train::tasks::{Lengths, Sequence, row_logits},
};

/// Lengths of rows are multiples of this, so that few plans serve all texts.
const STEP: usize = 16;

/// An ELECTRA's discriminator on a device.
pub struct Detector<'a> {
    predictor: Predictor<'a>,
    special: SpecialTokens,
    context: usize,
    place: String,
}

impl<'a> Detector<'a> {
    /// Puts the weights on the device.
    ///
    /// # Errors
    /// The model has no head for replaced tokens, or its context leaves no room for text.
    pub fn new(model: &'a Model, special: SpecialTokens, engine: Engine) -> Result<Self, ModelError> {
        let fail = |reason: String| ModelError::Head { place: model.place().to_owned(), reason };
        let context = model.config.positions();
        if context < 3 {
            return Err(fail(format!("a context of {context} leaves no room for text")));
        }
        let predictor = Predictor::new(model, Head::Replaced, engine).map_err(|error| match error {
            ModelError::Checkpoint(error) => {
                fail(format!("it has no head for replaced tokens, or not all of it; a discriminator has: {error}"))
            }
            other => other,
        })?;
        Ok(Self { predictor, special, context, place: model.place().to_owned() })
    }

    /// For each token of each text, which are without special tokens, the probability that it was replaced. A text that is
    /// longer than the context is looked at in parts. `rows` is how many go through the model at once.
    ///
    /// # Errors
    /// The device fails, or what the model gives is no number.
    pub fn detect(&mut self, texts: &[Vec<u32>], rows: usize) -> Result<Vec<Vec<f32>>, ModelError> {
        let mut sequences = Vec::new();
        let mut owners = Vec::new();
        for (owner, text) in texts.iter().enumerate() {
            for part in parts(text, self.context - 2) {
                let ids: Vec<_> = [self.special.cls].into_iter().chain(part.iter().copied()).chain([self.special.sep]).collect();
                sequences.push(Sequence { types: vec![0; ids.len()], ids, cut: 0 });
                owners.push(owner);
            }
        }
        let lengths = Lengths::Multiples { of: STEP, most: self.context };
        let all: Vec<_> = sequences.iter().collect();
        let rows = rows.min(all.len()).max(1);
        let predictor = &mut self.predictor;
        let logits = row_logits(&all, rows, lengths, self.special.pad, &mut |batch| predictor.run(batch))?;
        let mut found = vec![Vec::new(); texts.len()];
        for ((owner, sequence), outputs) in owners.into_iter().zip(&sequences).zip(logits) {
            let inner = &outputs[0].values[1..sequence.ids.len() - 1];
            if inner.iter().any(|x| x.is_nan()) {
                return Err(ModelError::NoNumber { place: self.place.clone() });
            }
            found[owner].extend(inner.iter().map(|&x| 1.0 / (1.0 + (-x).exp())));
        }
        Ok(found)
    }

    /// Keeps the compiled pipelines for the next start, where the backend can.
    pub fn save_pipelines(&self) {
        self.predictor.save_pipelines();
    }
}

/// A text in parts of about equal length, `most` tokens at most, so that none has much less to go by than the others.
fn parts(text: &[u32], most: usize) -> impl Iterator<Item = &[u32]> {
    let number = text.len().div_ceil(most).max(1);
    text.chunks(text.len().div_ceil(number).max(1))
}
