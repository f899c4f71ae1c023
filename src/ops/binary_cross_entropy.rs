//! Binary cross-entropy of logits and labels: ELECTRA's loss of the discriminator.

use super::{elementwise::lower_pointwise_on, *};

/// `logits [..], labels [..] -> loss [], count [1]`; the second is the number of labels that are not ignored.
#[derive(Debug)]
struct BinaryCrossEntropy;

/// `logits [..], labels [..], dloss [], count [1] -> dlogits [..]`
#[derive(Debug)]
struct BinaryCrossEntropyBackward;

/// The mean of `-log sigmoid(x)` where the label is 1 and of `-log(1 - sigmoid(x))` where it is 0, nats, over the labels that
/// are not [`IGNORE`]: `logits [..], labels [..] u32 -> []`. It is the mean of `softplus(x) - label x`, PyTorch's
/// `BCEWithLogitsLoss`.
///
/// With nothing to count the loss is NaN and the gradient 0, as in [`cross_entropy`]. Labels are to be 0, 1 or [`IGNORE`]
/// (the host checks them); another counts as 1.
///
/// # Errors
/// The labels' shape is not that of the logits.
pub fn binary_cross_entropy(g: &mut dyn Recorder, logits: Tensor, labels: Tensor) -> Result<Tensor, OpError> {
    record_one(g, BinaryCrossEntropy, &[logits, labels])
}

/// The shape rule of logits and labels.
fn check(logits: &TensorType, labels: &TensorType) -> Result<(), OpError> {
    ensure(logits.shape == labels.shape, || format!("the labels are {}, and the logits {}", labels.shape, logits.shape))
}

/// log(1 + exp(x))
pub(super) fn softplus<T: Real>(x: T) -> T {
    x.max(T::ZERO) + (-x.max(-x)).exp().ln_1p()
}

/// 1 / (1 + exp(-x))
pub(super) fn sigmoid<T: Real>(x: T) -> T {
    let e = (-x.max(-x)).exp();
    (if x >= T::ZERO { T::ONE } else { e }) / (T::ONE + e)
}

impl Operation for BinaryCrossEntropy {
    fn name(&self) -> &'static str {
        "binary_cross_entropy"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "fu")?;
        check(&inputs[0], &inputs[1])?;
        Ok(vec![TensorType::f32([]), TensorType::f32([1])])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None, None]) };
        let inputs = [node.inputs[0], node.inputs[1], dy, node.outputs[1]];
        Ok(vec![Some(record_one(g, BinaryCrossEntropyBackward, &inputs)?), None])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        30 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (logits, labels, loss, count) = (cx.input(0), cx.input(1), cx.output(0), cx.output(1));
        let losses = cx.scratch(labels.ty.elements());
        let kernel = kernel!("binary_cross_entropy").with("GRADIENT", false);
        lower_pointwise_on(cx, &kernel, &[logits, labels.clone()], std::slice::from_ref(&losses), &[])?;
        counted_mean::lower(cx, [&losses, &labels, &loss, &count], IGNORE)
    }
    host_reference!();
}
impl Reference for BinaryCrossEntropy {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let losses = inputs[0].f().iter().zip(inputs[1].u()).map(|(&x, &label)| match label {
            IGNORE => T::ZERO,
            0 => softplus(x),
            _ => softplus(-x),
        });
        counted_mean::reference(losses, inputs[1].u(), IGNORE).into()
    }
}

impl Operation for BinaryCrossEntropyBackward {
    fn name(&self) -> &'static str {
        "binary_cross_entropy_backward"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "fuff")?;
        check(&inputs[0], &inputs[1])?;
        Ok(vec![inputs[0].clone()])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        20 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let kernel = kernel!("binary_cross_entropy").with("GRADIENT", true);
        let [logits, labels, dloss, count] = [0, 1, 2, 3].map(|i| cx.input(i));
        let dlogits = cx.output(0);
        lower_pointwise_on(cx, &kernel, &[logits, labels], &[dlogits], &[dloss, count])
    }
    host_reference!();
}
impl Reference for BinaryCrossEntropyBackward {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let factor = inputs[2].f()[0] / inputs[3].f()[0];
        let dx = inputs[0].f().iter().zip(inputs[1].u()).map(|(&x, &label)| match label {
            IGNORE => T::ZERO,
            0 => sigmoid(x) * factor,
            // sigmoid(x) - 1
            _ => -sigmoid(-x) * factor,
        });
        vec![HostTensor::floats(outputs[0].shape.clone(), dx.collect())]
    }
}
