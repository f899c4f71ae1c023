//! The cross-entropy over a vocabulary, a part of the rows at a time.

use crate::{
    graph::Graph,
    ops::{self, OpError, Recorder, Tensor, TensorType},
};

/// What makes logits `[.., V']` of hidden states `[.., C]`.
pub(super) type Head<'a> = dyn Fn(&mut Graph, Tensor) -> Result<Tensor, OpError> + 'a;

/// The mean cross-entropy `[]` of `targets` `[..]` with the logits that `head` makes of `hidden` `[.., C]`, of which the first `classes`
/// count: [`ops::cross_entropy_among`], but no more than `part` rows of logits exist at once. They are computed again in the backward pass.
///
/// # Errors
/// Shapes do not fit.
pub(super) fn in_parts(
    g: &mut Graph,
    [hidden, targets]: [Tensor; 2],
    head: &Head<'_>,
    part: usize,
    classes: usize,
) -> Result<Tensor, OpError> {
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
            let logits = head(g, hidden)?;
            let losses = g.layer("loss", |g| ops::cross_entropy_rows_among(g, logits, targets, ops::IGNORE, classes))?;
            g.layer("loss", |g| ops::sum(g, losses))
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
