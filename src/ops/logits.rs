//! Logits of which only the first are of classes.

use super::{Tensor, TensorType};

/// Logits `[.., V]`, of whose last dimension all or only the first so many elements are of classes: what stands behind them, for
/// alignment, counts nowhere, is never chosen, and has a gradient of 0. A tensor by itself has a class an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Logits {
    /// `[.., V]`
    pub tensor: Tensor,
    pub(super) classes: Option<usize>,
}

impl Logits {
    /// The first `classes` elements are of classes.
    pub fn among(tensor: Tensor, classes: usize) -> Self {
        Self { tensor, classes: Some(classes) }
    }
}

impl From<Tensor> for Logits {
    fn from(tensor: Tensor) -> Self {
        Self { tensor, classes: None }
    }
}

/// How many classes there are, for logits of this type.
pub(super) fn classes_of(classes: Option<usize>, logits: &TensorType) -> usize {
    classes.unwrap_or(logits.shape.width())
}
