//! The mean squared error, composed of other operations.

use super::*;

/// The mean over all elements of `(predictions - targets)^2`, a scalar `[]`; both have the same shape.
///
/// # Errors
/// The shapes differ, or one is not of floats.
pub fn mse(g: &mut dyn Recorder, predictions: Tensor, targets: Tensor) -> Result<Tensor, OpError> {
    let (found, expected) = (&g.ty(predictions).shape, &g.ty(targets).shape);
    // Checked here, because an addition would broadcast.
    ensure(found == expected, || format!("mse: the predictions are {found}, and the targets {expected}"))?;
    let negative = scale(g, targets, -1.0)?;
    let error = add(g, predictions, negative)?;
    let square = mul(g, error, error)?;
    mean(g, square)
}
