//! What can go wrong in training.

use crate::{checkpoint::CheckpointError, graph::GraphError, ops::OpError, text::TextError};
use std::path::PathBuf;

/// A fault in training.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A data file cannot be used.
    #[error("{}: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A setting cannot be used.
    #[error("{flag}: {reason}")]
    Setting {
        /// The command line's name for it.
        flag: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The loss is no number any more.
    #[error("step {step}: the loss is {loss}; try a lower --lr, a longer --warmup, or a smaller --clip")]
    Diverged {
        /// Where it happened.
        step: usize,
        /// NaN or infinite.
        loss: f32,
    },
    /// The saved state does not fit this run.
    #[error("{}: {reason}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
    /// The log cannot be written.
    #[error("--log {}: {source}", path.display())]
    Log {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The text or the tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
    /// A task's file cannot be used.
    #[error(transparent)]
    Task(#[from] super::tasks::TaskError),
    /// A checkpoint cannot be read or written.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// The graph or the device.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

impl From<OpError> for TrainError {
    fn from(error: OpError) -> Self {
        Self::Graph(error.into())
    }
}
