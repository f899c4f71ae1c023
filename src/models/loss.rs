//! The cross-entropy over a vocabulary, a part of the rows at a time.

use super::blocks::Decoder;
use crate::{
    graph::Graph,
    ops::{self, Logits, OpError, Recorder, Tensor, TensorType},
};

/// The mean cross-entropy `[]` of `targets` `[..]` with the logits that `decoder` makes of `hidden` `[.., C]`. No more than `part` rows of
/// logits exist at once: they are computed again in the backward pass.
///
/// # Errors
/// Shapes do not fit.
pub(super) fn in_parts(g: &mut Graph, [hidden, targets]: [Tensor; 2], decoder: Decoder, part: usize) -> Result<Tensor, OpError> {
    let tokens = g.ty(decoder.table).shape.rows();
    let decoder = decoder.whole(g)?;
    let TensorType { shape, .. } = g.ty(hidden).clone();
    let rows = shape.rows();
    let hidden = ops::reshape(g, hidden, [rows, shape.width()])?;
    let targets = ops::reshape(g, targets, [rows])?;
    let mut sum = None;
    for start in (0..rows).step_by(part) {
        let range = start..rows.min(start + part);
        let loss = g.recomputed(|g| {
            let hidden = ops::slice(g, hidden, 0, range.clone())?;
            let targets = ops::slice(g, targets, 0, range)?;
            let logits = g.layer("head", |g| decoder.logits(g, hidden))?;
            g.layer("loss", |g| {
                let losses = ops::cross_entropy_rows(g, Logits::among(logits, tokens), targets, ops::IGNORE)?;
                ops::sum(g, losses)
            })
        })?;
        sum = Some(match sum {
            Some(before) => g.layer("loss", |g| ops::add(g, before, loss))?,
            None => loss,
        });
    }
    let sum = sum.ok_or_else(|| OpError::new("there are no rows"))?;
    g.layer("loss", |g| {
        let count = ops::count_labels(g, targets, ops::IGNORE)?;
        let count = ops::reshape(g, count, [])?;
        ops::div(g, sum, count)
    })
}
