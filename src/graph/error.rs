//! What can go wrong in a graph.

use crate::{gpu::GpuError, ops::OpError};

/// A fault in recording, planning or running a graph.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GraphError {
    /// Shapes or types do not fit, or an operation cannot run on this adapter.
    #[error(transparent)]
    Op(#[from] OpError),
    /// The adapter failed.
    #[error(transparent)]
    Gpu(#[from] GpuError),
    /// A variable was given or expected with another type.
    #[error("variable {name}: it is {found}, where {expected} is needed")]
    Variable {
        /// Its name.
        name: String,
        /// The type it has.
        found: String,
        /// The type that is needed.
        expected: String,
    },
    /// An input was fed with another type.
    #[error("an input of type {expected} was given {found}")]
    Input {
        /// The type it was given.
        found: String,
        /// The type it has.
        expected: String,
    },
    /// A mixed plan for an adapter without 16-bit floats, which is named.
    #[error("mixed precision needs 16-bit floats in shaders, which {0} does not have; --precision f32 works everywhere")]
    Precision(String),
    /// A tensor was asked for that the plan does not keep, or fed that is no input of it.
    #[error("tensor {0} is not {1} of this plan")]
    NotPlanned(u32, &'static str),
}
