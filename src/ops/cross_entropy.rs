//! Cross-entropy of logits and labels, fused with log-softmax: no probabilities in memory.

use super::{cross_entropy_gradient::CrossEntropyWithGradient, *};
use crate::gpu::Kernel;

/// The label that conventionally stands for "no label here": transformers' -100.
pub const IGNORE: u32 = u32::MAX;

/// Lanes of the row reductions where the adapter has no subgroups of one size.
const PORTABLE_LANES: u32 = 128;
/// Rows of so many logits are long, and the most lanes that go over one.
const LONG_ROW: usize = 4096;
const MOST_LANES: u32 = 1024;
/// Logits that one workgroup of the gradient handles.
const WIDTH_PART: usize = 1024;

/// What counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rule {
    /// The label of rows that do not.
    pub ignore: u32,
    /// The first so many logits of a row, if not all.
    pub classes: Option<usize>,
}

impl Rule {
    pub fn classes(self, logits: &TensorType) -> usize {
        logits::classes_of(self.classes, logits)
    }
}

/// `logits [.., V], labels [..] -> losses [..], lse [..]`; the second is the log of the sum of the exponentials.
#[derive(Debug)]
struct CrossEntropyRows {
    rule: Rule,
}

/// `logits [.., V], labels [..] -> loss [], lse [..], count [1]`; the last is the number of rows that are not ignored.
#[derive(Debug)]
struct CrossEntropy {
    rule: Rule,
}

/// `logits [.., V], labels [..], lse [..], dloss, count [1] -> dlogits [.., V]`. With `rows` there is a gradient for each
/// row, `[..]`, and no count; else one for the mean, `[]`.
#[derive(Debug)]
struct CrossEntropyBackward {
    rule: Rule,
    rows: bool,
}

/// The mean of `-log softmax(logits)[label]`, nats, over the rows whose label is not `ignore`:
/// `logits [.., V], labels [..] u32 -> []`.
///
/// With nothing to count the loss is NaN and the gradient 0, as in PyTorch. Labels are to be below V (the host checks
/// them); one that is not counts as V - 1.
///
/// # Errors
/// The labels' shape is not that of the logits without the last dimension, or there are fewer logits than classes.
pub fn cross_entropy(g: &mut dyn Recorder, logits: impl Into<Logits>, labels: Tensor, ignore: u32) -> Result<Tensor, OpError> {
    let Logits { tensor, classes } = logits.into();
    record_one(g, CrossEntropy { rule: Rule { ignore, classes } }, &[tensor, labels])
}

/// `-log softmax(logits)[label]` of each row, nats, 0 where the label is `ignore`:
/// `logits [.., V], labels [..] u32 -> [..]`. Labels as in [`cross_entropy`].
///
/// # Errors
/// The labels' shape is not that of the logits without the last dimension, or there are fewer logits than classes.
pub fn cross_entropy_rows(
    g: &mut dyn Recorder,
    logits: impl Into<Logits>,
    labels: Tensor,
    ignore: u32,
) -> Result<Tensor, OpError> {
    let Logits { tensor, classes } = logits.into();
    record_one(g, CrossEntropyRows { rule: Rule { ignore, classes } }, &[tensor, labels])
}

/// The shape rule that both have; returns the labels' shape.
pub(super) fn rows_of(inputs: &[TensorType], rule: Rule) -> Result<Shape, OpError> {
    expect(inputs, "fu")?;
    let (logits, labels) = (&inputs[0].shape, &inputs[1].shape);
    ensure(logits.rank() > 0 && logits.width() > 0, || "there is no last dimension to go over".into())?;
    let classes = rule.classes(&inputs[0]);
    ensure(0 < classes && classes <= logits.width(), || format!("{logits} has not {classes} classes"))?;
    ensure(logits.0[..logits.rank() - 1] == labels.0, || {
        format!("the labels are {labels}, which is not {logits} without its last dimension")
    })?;
    Ok(labels.clone())
}

/// `kernel`, which goes over a row with a workgroup, and reduces: on GPUs as wide as goes where rows are long, so that few are under
/// way at once and what is read again is still in a cache.
pub(super) fn row_kernel(cx: &Lowering<'_>, kernel: Kernel, width: usize) -> Kernel {
    let widest = cx.caps.max_invocations.min(MOST_LANES);
    if cx.caps.software || width < LONG_ROW || widest < PORTABLE_LANES {
        return cx.reducing(kernel, PORTABLE_LANES).0;
    }
    // The reductions halve the lanes.
    kernel.with("WG", 1 << widest.ilog2()).with("SUBGROUP", false)
}

/// Losses and log-sum-exps of the rows.
fn lower_rows(cx: &mut Lowering<'_>, rule: Rule, losses: &Operand, lse: &Operand) -> Result<(), OpError> {
    let (x, labels) = (cx.input(0), cx.input(1));
    let (rows, width) = (x.ty.shape.rows(), x.ty.shape.width());
    let kernel = row_kernel(cx, kernel!("cross_entropy"), width);
    for range in cx.row_ranges(rows, width)? {
        let [labels, losses, lse] = [&labels, losses, lse].map(|t| t.part(range.clone()));
        let logits = x.rows(range.clone(), width);
        let kernel = kernel.clone().with("VEC", cx.vec4(width, &[&logits]));
        let windows = [logits.read(), labels.read(), losses.write(), lse.write()];
        cx.dispatch(kernel, &windows, &[width as u32, rule.classes(&x.ty) as u32, rule.ignore], range.len())?;
    }
    Ok(())
}

/// The loss and the log-sum-exp of a row.
fn reference_row<T: Real>(row: &[T], label: u32, ignore: u32) -> (T, T) {
    let largest = row.iter().copied().fold(row[0], T::max);
    let log_sum = row.iter().map(|&x| (x - largest).exp()).sum::<T>().ln();
    let chosen = row[(label as usize).min(row.len() - 1)];
    let loss = if label == ignore { T::ZERO } else { (largest - chosen) + log_sum };
    (loss, largest + log_sum)
}

/// The losses and log-sum-exps of all rows.
pub(super) fn reference_rows<T: Real>(inputs: &[HostTensor<T>], rule: Rule) -> (Vec<T>, Vec<T>) {
    let rows = inputs[0].f().chunks(inputs[0].shape.width());
    let classes = rule.classes(&inputs[0].ty());
    rows.zip(inputs[1].u()).map(|(row, &label)| reference_row(&row[..classes], label, rule.ignore)).unzip()
}

/// The gradient of the logits; `factor` is the gradient of a row's loss.
pub(super) fn reference_gradient<T: Real>(
    inputs: &[HostTensor<T>],
    rule: Rule,
    lse: &[T],
    factor: impl Fn(usize) -> T,
) -> HostTensor<T> {
    let (logits, labels) = (&inputs[0], inputs[1].u());
    let (width, classes) = (logits.shape.width(), rule.classes(&logits.ty()));
    let mut dx = Vec::with_capacity(logits.f().len());
    for (i, row) in logits.f().chunks(width).enumerate() {
        if labels[i] == rule.ignore {
            dx.extend(std::iter::repeat_n(T::ZERO, width));
            continue;
        }
        let chosen = (labels[i] as usize).min(classes - 1);
        dx.extend(row[..classes].iter().enumerate().map(|(j, &x)| {
            let target = if j == chosen { T::ONE } else { T::ZERO };
            ((x - lse[i]).exp() - target) * factor(i)
        }));
        dx.extend(std::iter::repeat_n(T::ZERO, width - classes));
    }
    HostTensor::floats(logits.shape.clone(), dx)
}

impl Operation for CrossEntropyRows {
    fn name(&self) -> &'static str {
        "cross_entropy_rows"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let rows = TensorType::f32(rows_of(inputs, self.rule)?);
        Ok(vec![rows.clone(), rows])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None, None]) };
        let op = CrossEntropyBackward { rule: self.rule, rows: true };
        let dx = record_one(g, op, &[node.inputs[0], node.inputs[1], node.outputs[1], dy])?;
        Ok(vec![Some(dx), None])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        5 * inputs[0].elements() as u64
    }
    fn half_input(&self, i: usize) -> Half {
        if i == 0 { Half::Accepted } else { Half::Never }
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (losses, lse) = (cx.output(0), cx.output(1));
        lower_rows(cx, self.rule, &losses, &lse)
    }
    host_reference!();
}
impl Reference for CrossEntropyRows {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (losses, lse) = reference_rows(&inputs, self.rule);
        let shape = &outputs[0].shape;
        vec![HostTensor::floats(shape.clone(), losses), HostTensor::floats(shape.clone(), lse)]
    }
}

impl Operation for CrossEntropy {
    fn name(&self) -> &'static str {
        "cross_entropy"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let rows = rows_of(inputs, self.rule)?;
        Ok(vec![TensorType::f32([]), TensorType::f32(rows), TensorType::f32([1])])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None, None]) };
        let (lse, count) = (node.outputs[1], node.outputs[2]);
        let op = CrossEntropyBackward { rule: self.rule, rows: false };
        let dx = record_one(g, op, &[node.inputs[0], node.inputs[1], lse, dy, count])?;
        Ok(vec![Some(dx), None])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        5 * inputs[0].elements() as u64
    }
    fn half_input(&self, i: usize) -> Half {
        if i == 0 { Half::Accepted } else { Half::Never }
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let labels = cx.input(1);
        let (loss, lse, count) = (cx.output(0), cx.output(1), cx.output(2));
        let losses = cx.scratch(labels.ty.elements());
        lower_rows(cx, self.rule, &losses, &lse)?;
        counted_mean::lower(cx, [&losses, &labels, &loss, &count], self.rule.ignore)
    }
    fn pair(&self, next: &dyn Operation, links: &[Link]) -> Option<Paired> {
        let next = next.as_any().downcast_ref::<CrossEntropyBackward>()?;
        let mine = [Link::Input(0), Link::Input(1), Link::Output(1), Link::Other, Link::Output(2)];
        let op = Arc::new(CrossEntropyWithGradient { rule: self.rule });
        (!next.rows && next.rule == self.rule && links == mine).then(|| Paired { op, extra_inputs: vec![3] })
    }
    host_reference!();
}
impl Reference for CrossEntropy {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (losses, lse) = reference_rows(&inputs, self.rule);
        let [loss, count] = counted_mean::reference(losses, inputs[1].u(), self.rule.ignore);
        vec![loss, HostTensor::floats(outputs[1].shape.clone(), lse), count]
    }
}

impl Operation for CrossEntropyBackward {
    fn name(&self) -> &'static str {
        "cross_entropy_backward"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, if self.rows { "fuff" } else { "fufff" })?;
        let rows = rows_of(&inputs[..2], self.rule)?;
        let gradient = if self.rows { rows.elements() } else { 1 };
        ensure(inputs[3].elements() == gradient, || format!("the gradient has not {gradient} elements"))?;
        Ok(vec![inputs[0].clone()])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        5 * inputs[0].elements() as u64
    }
    fn half_input(&self, i: usize) -> Half {
        if i == 0 { Half::Accepted } else { Half::Never }
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 0))
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, labels, lse, dy, dx) = (cx.input(0), cx.input(1), cx.input(2), cx.input(3), cx.output(0));
        let (rows, width) = (x.ty.shape.rows(), x.ty.shape.width());
        let parts = width.div_ceil(WIDTH_PART);
        for range in cx.row_ranges(rows, width)? {
            let in_place = x.root == dx.root;
            let mut windows = vec![
                labels.part(range.clone()).read(),
                lse.part(range.clone()).read(),
                if self.rows { dy.part(range.clone()) } else { dy.all() }.read(),
                dx.rows(range.clone(), width).write(),
            ];
            if !self.rows {
                windows.push(cx.input(4).all().read());
            }
            if !in_place {
                windows.push(x.rows(range.clone(), width).read());
            }
            let classes = self.rule.classes(&x.ty);
            let params = [width as u32, classes as u32, parts as u32, WIDTH_PART as u32, self.rule.ignore];
            let kernel = kernel!("cross_entropy_backward").with("ROWS", self.rows).with("INPLACE", in_place);
            cx.dispatch(kernel, &windows, &params, range.len() * parts)?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for CrossEntropyBackward {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (dy, all) = (inputs[3].f(), inputs.get(4).map(|count| inputs[3].f()[0] / count.f()[0]));
        vec![reference_gradient(&inputs, self.rule, inputs[2].f(), |row| all.unwrap_or_else(|| dy[row]))]
    }
}
