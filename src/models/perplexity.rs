//! How well a GPT-2 predicts a text.

use super::{Gpt2Config, gpt2::Gpt2};
use crate::{
    graph::{Engine, Graph, GraphError, PlanOptions},
    ops::{HostTensor, IGNORE, TensorType},
    train::windows,
};

/// How a text is cut into windows.
#[derive(Debug, Clone, Copy)]
pub struct Cut {
    /// Tokens between the starts of windows, at most the model's context.
    pub stride: usize,
    /// Windows at once.
    pub batch: usize,
}

/// A text's loss.
#[derive(Debug, Clone, Copy)]
pub struct TextLoss {
    /// Over all tokens that were predicted, nats.
    pub sum: f64,
    /// Those tokens.
    pub tokens: usize,
}

impl TextLoss {
    /// Nats a token.
    pub fn mean(&self) -> f64 {
        self.sum / self.tokens as f64
    }

    /// The exponential of that.
    pub fn perplexity(&self) -> f64 {
        self.mean().exp()
    }
}

/// The loss over `tokens`, at least two, of the model whose weights are in `engine`. Each token is predicted once, in the first window
/// that holds it. `progress` is told how many batches are done, and of how many.
///
/// # Errors
/// The plan does not fit the device, or the device fails.
pub fn text_loss(
    engine: &mut Engine,
    config: &Gpt2Config,
    tokens: &[u32],
    cut: Cut,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<TextLoss, GraphError> {
    let targets = tokens.len().saturating_sub(1).max(1);
    let time = config.n_positions.min(targets);
    let stride = cut.stride.clamp(1, time);
    // A short text has fewer windows than are to run at once; rows without text would be computed for nothing.
    let batch = cut.batch.clamp(1, targets.div_ceil(stride));
    let batches = windows(tokens, time, stride, batch);
    let shape = [batch, time];
    let mut g = Graph::new();
    let ids = g.input("ids", TensorType::u32(shape));
    let targets = g.input("targets", TensorType::u32(shape));
    let loss = Gpt2::new(config).loss(&mut g, ids, targets, None)?;
    let mut plan = engine.compile(g, &[loss], &PlanOptions::named("perplexity"))?;
    let (all, mut total) = (batches.len(), TextLoss { sum: 0.0, tokens: 0 });
    for (done, batch) in batches.into_iter().enumerate() {
        let counted = batch.targets.iter().filter(|&&t| t != IGNORE).count();
        plan.set(ids, HostTensor::uints(shape, batch.ids))?;
        plan.set(targets, HostTensor::uints(shape, batch.targets))?;
        plan.run(engine)?;
        total.sum += f64::from(plan.get(loss)?.f()[0]) * counted as f64;
        total.tokens += counted;
        progress(done + 1, all);
    }
    Ok(total)
}
