//! Softmax over the last dimension.

use super::*;

/// Lanes of the row reductions where the adapter has no subgroups of one size.
const PORTABLE_LANES: u32 = 128;

/// `[.., w] -> [.., w]`
#[derive(Debug)]
struct Softmax;

/// `dx = y (dy - sum of dy y)`, from the softmax's output `y` and `dy`.
#[derive(Debug)]
struct SoftmaxBackward;

/// Softmax over the last dimension: `[.., w] -> [.., w]`. The row's maximum is subtracted, so no exponential overflows.
///
/// # Errors
/// `x` is a scalar or not of floats, or a row of it has no elements.
pub fn softmax(g: &mut dyn Recorder, x: Tensor) -> Result<Tensor, OpError> {
    record_one(g, Softmax, &[x])
}

/// Lowers either: the inputs and the output are all of one shape, and a workgroup does a row.
fn lower(cx: &mut Lowering<'_>, kernel: crate::gpu::Kernel) -> Result<(), OpError> {
    let operands: Vec<_> = cx.inputs.iter().chain(&cx.outputs).cloned().collect();
    let (rows, width) = (operands[0].ty.shape.rows(), operands[0].ty.shape.width());
    let (kernel, _) = cx.reducing(kernel.with("VEC", false), PORTABLE_LANES);
    for range in cx.row_ranges(rows, width)? {
        let last = operands.len() - 1;
        let bindings: Vec<_> = operands
            .iter()
            .map(|o| o.rows(range.clone(), width))
            .enumerate()
            .map(|(i, w)| if i == last { w.write() } else { w.read() })
            .collect();
        cx.dispatch(kernel.clone(), &bindings, &[width as u32], range.len())?;
    }
    Ok(())
}

impl Operation for Softmax {
    fn name(&self) -> &'static str {
        "softmax"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        let shape = &inputs[0].shape;
        ensure(shape.rank() > 0 && shape.width() > 0, || "there is no last dimension to go over".into())?;
        Ok(vec![inputs[0].clone()])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        Ok(vec![Some(record_one(g, SoftmaxBackward, &[node.outputs[0], dy])?)])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        5 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower(cx, kernel!("softmax"))
    }
    host_reference!();
}
impl Reference for Softmax {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let mut y = inputs[0].f().to_vec();
        for row in y.chunks_mut(outputs[0].shape.width()) {
            let largest = row.iter().copied().fold(row[0], T::max);
            row.iter_mut().for_each(|x| *x = (*x - largest).exp());
            let sum: T = row.iter().copied().sum();
            row.iter_mut().for_each(|x| *x = *x / sum);
        }
        vec![HostTensor::floats(outputs[0].shape.clone(), y)]
    }
}

impl Operation for SoftmaxBackward {
    fn name(&self) -> &'static str {
        "softmax_backward"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ff")?;
        ensure(inputs[0].shape == inputs[1].shape, || "the gradient has another shape than the output".into())?;
        Ok(vec![inputs[0].clone()])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        4 * inputs[0].elements() as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower(cx, kernel!("softmax_backward"))
    }
    host_reference!();
}
impl Reference for SoftmaxBackward {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = outputs[0].shape.width();
        let mut dx = Vec::with_capacity(outputs[0].elements());
        for (y, dy) in inputs[0].f().chunks(width).zip(inputs[1].f().chunks(width)) {
            let sum: T = y.iter().zip(dy).map(|(&y, &dy)| y * dy).sum();
            dx.extend(y.iter().zip(dy).map(|(&y, &dy)| y * (dy - sum)));
        }
        vec![HostTensor::floats(outputs[0].shape.clone(), dx)]
    }
}
