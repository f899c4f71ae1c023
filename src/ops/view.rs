//! Reshape, slice, transpose and concatenate: views of the same memory where possible, else one strided copy.

use super::*;
use std::ops::Range;

/// Dimensions that the strided copy handles; tensors are folded to this many.
const RANK: usize = 4;
/// Sizes or strides of those.
type Folded = [usize; RANK];

/// The same elements in another shape: always a view.
#[derive(Debug)]
struct Reshape(Shape);

/// A range along one dimension: a view where it is contiguous.
#[derive(Debug)]
struct Slice {
    axis: usize,
    range: Range<usize>,
}

/// Two dimensions exchanged.
#[derive(Debug)]
struct Transpose(usize, usize);

/// The inputs one after another along one dimension.
#[derive(Debug)]
struct Concat(usize);

/// A variable's rows with those behind them: always a view.
#[derive(Debug)]
struct WholeRows;

/// The gradient of a slice: zeros, with the upstream gradient in the slice's place.
#[derive(Debug)]
struct Pad {
    axis: usize,
    start: usize,
    size: usize,
}

/// The same elements in another shape.
///
/// # Errors
/// The number of elements differs.
pub fn reshape(g: &mut dyn Recorder, x: Tensor, shape: impl Into<Shape>) -> Result<Tensor, OpError> {
    record_one(g, Reshape(shape.into()), &[x])
}

/// Memory of a variable that is a matrix has rows up to a multiple of this, zeros behind its own, and that of a vector elements: tiles
/// and vectors of products fit so many.
pub const ROW_UNIT: usize = 64;

/// The matrix with rows of zeros up to a multiple of [`ROW_UNIT`], `[n, k] -> [n', k]`, or the vector with zeros, `[n] -> [n']`. Only
/// a variable has them; it is a view.
///
/// # Errors
/// It is neither. Planning a graph where it is no variable is an error, too.
pub fn whole_rows(g: &mut dyn Recorder, table: Tensor) -> Result<Tensor, OpError> {
    if g.ty(table).whole() == *g.ty(table) { Ok(table) } else { record_one(g, WholeRows, &[table]) }
}

/// Elements `range` along `axis`.
///
/// # Errors
/// The range does not lie within the dimension.
pub fn slice(g: &mut dyn Recorder, x: Tensor, axis: usize, range: Range<usize>) -> Result<Tensor, OpError> {
    record_one(g, Slice { axis, range }, &[x])
}

/// Dimensions `a` and `b` exchanged.
///
/// # Errors
/// There are no such dimensions, or too many of them.
pub fn transpose(g: &mut dyn Recorder, x: Tensor, a: usize, b: usize) -> Result<Tensor, OpError> {
    record_one(g, Transpose(a.min(b), a.max(b)), &[x])
}

/// The inputs one after another along `axis`; their other dimensions are equal.
///
/// # Errors
/// They are not, or there is no such dimension.
pub fn concat(g: &mut dyn Recorder, inputs: &[Tensor], axis: usize) -> Result<Tensor, OpError> {
    record_one(g, Concat(axis), inputs)
}

/// `[before, size, after]` of a shape around `axis`.
fn fold(shape: &Shape, axis: usize) -> [usize; 3] {
    [shape.0[..axis].iter().product(), shape.0[axis], shape.0[axis + 1..].iter().product()]
}

fn has_axis(shape: &Shape, axis: usize) -> Result<(), OpError> {
    ensure(axis < shape.rank(), || format!("there is no dimension {axis} in {shape}"))
}

/// A copy between two strided places: `sizes` elements, and for each dimension the stride in elements.
struct StridedCopy {
    sizes: Folded,
    from: (Operand, usize, Folded),
    to: (Operand, usize, Folded),
}

impl StridedCopy {
    /// Cuts the copy along its dimensions until both ends fit a binding, then dispatches it.
    fn lower(self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let span = |strides: &Folded| self.sizes.iter().zip(strides).map(|(&n, &s)| n.saturating_sub(1) * s).sum::<usize>() + 1;
        let units: usize = self.sizes.iter().product();
        if units == 0 {
            return Ok(());
        }
        let (from_span, to_span) = (span(&self.from.2), span(&self.to.2));
        if from_span > cx.max_elements() || to_span > cx.max_elements() {
            // Halve the dimension that spans the most memory.
            let extent = |d: usize| (self.sizes[d] - 1) * self.from.2[d].max(self.to.2[d]);
            let Some(axis) = (0..RANK).max_by_key(|&d| extent(d)).filter(|&d| self.sizes[d] > 1) else {
                return Err(OpError::new("a copy does not fit the adapter's largest binding"));
            };
            let half = self.sizes[axis] / 2;
            let mut first = self.sizes;
            first[axis] = half;
            let mut second = self.sizes;
            second[axis] -= half;
            let (from, to) = (self.from, self.to);
            let moved = |end: &(Operand, usize, Folded)| (end.0.clone(), end.1 + half * end.2[axis], end.2);
            let (from_second, to_second) = (moved(&from), moved(&to));
            Self { sizes: first, from, to }.lower(cx)?;
            return Self { sizes: second, from: from_second, to: to_second }.lower(cx);
        }
        let source = self.from.0.part(self.from.1..self.from.1 + from_span);
        let target = self.to.0.part(self.to.1..self.to.1 + to_span);
        let mut params = vec![units as u32];
        params.extend(self.sizes.iter().chain(&self.from.2).chain(&self.to.2).map(|&x| x as u32));
        cx.dispatch(kernel!("copy"), &[source.read(), target.write()], &params, units.div_ceil(64))
    }
}

/// The strided copy on the host.
fn copy_host<T: Copy>(sizes: Folded, from: (&[T], usize, Folded), to: (&mut [T], usize, Folded)) {
    for a in 0..sizes[0] {
        for b in 0..sizes[1] {
            for c in 0..sizes[2] {
                for d in 0..sizes[3] {
                    let place = |at: usize, s: Folded| at + a * s[0] + b * s[1] + c * s[2] + d * s[3];
                    to.0[place(to.1, to.2)] = from.0[place(from.1, from.2)];
                }
            }
        }
    }
}

/// [`copy_host`] for either element type.
fn copy_tensor<T: Real>(sizes: Folded, from: (&HostTensor<T>, usize, Folded), to: (&mut HostTensor<T>, usize, Folded)) {
    match &from.0.data {
        HostData::Float(data) => copy_host(sizes, (data, from.1, from.2), (to.0.f_mut(), to.1, to.2)),
        HostData::Uint(data) => copy_host(sizes, (data, from.1, from.2), (to.0.u_mut(), to.1, to.2)),
    }
}

/// Sizes and strides of the block `[before, size, after]` of a tensor folded to `[before, total, after]`.
fn block(before: usize, size: usize, after: usize, total: usize) -> (Folded, Folded) {
    ([1, before, size, after], [0, total * after, after, 1])
}

impl Operation for Reshape {
    fn name(&self) -> &'static str {
        "reshape"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        ensure(inputs.len() == 1 && inputs[0].elements() == self.0.elements(), || {
            format!("cannot become {}: another number of elements", self.0)
        })?;
        Ok(vec![TensorType { dtype: inputs[0].dtype, shape: self.0.clone() }])
    }
    fn view(&self, _inputs: &[TensorType]) -> Option<usize> {
        Some(0)
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        let shape = g.ty(node.inputs[0]).shape.clone();
        Ok(vec![Some(reshape(g, dy, shape)?)])
    }
    fn lower(&self, _cx: &mut Lowering<'_>) -> Result<(), OpError> {
        Ok(())
    }
    host_reference!();
}
impl Reference for Reshape {
    fn run<T: Real>(&self, mut inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        vec![inputs.remove(0).reshaped(self.0.clone())]
    }
}

impl Operation for WholeRows {
    fn name(&self) -> &'static str {
        "whole_rows"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        ensure([1, 2].contains(&inputs[0].shape.rank()), || "only a matrix or a vector has rows behind its own".into())?;
        Ok(vec![inputs[0].whole()])
    }
    fn view(&self, _inputs: &[TensorType]) -> Option<usize> {
        Some(0)
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        let rows = g.ty(node.inputs[0]).shape.0[0];
        Ok(vec![Some(slice(g, dy, 0, 0..rows)?)])
    }
    fn lower(&self, _cx: &mut Lowering<'_>) -> Result<(), OpError> {
        Ok(())
    }
    host_reference!();
}
impl Reference for WholeRows {
    fn run<T: Real>(&self, mut inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let mut data = std::mem::take(inputs[0].f_mut());
        data.resize(outputs[0].elements(), T::ZERO);
        vec![HostTensor::floats(outputs[0].shape.clone(), data)]
    }
}

impl Operation for Slice {
    fn name(&self) -> &'static str {
        "slice"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let shape = &inputs[0].shape;
        has_axis(shape, self.axis)?;
        ensure(self.range.start < self.range.end && self.range.end <= shape.0[self.axis], || {
            format!("{:?} is not a range of dimension {} of {shape}", self.range, self.axis)
        })?;
        let mut sizes = shape.clone();
        sizes.0[self.axis] = self.range.len();
        Ok(vec![TensorType { dtype: inputs[0].dtype, shape: sizes }])
    }
    fn view(&self, inputs: &[TensorType]) -> Option<usize> {
        let [before, _, after] = fold(&inputs[0].shape, self.axis);
        (before == 1).then_some(self.range.start * after)
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        let size = g.ty(node.inputs[0]).shape.0[self.axis];
        Ok(vec![Some(record_one(g, Pad { axis: self.axis, start: self.range.start, size }, &[dy])?)])
    }
    fn half_input(&self, _i: usize) -> Half {
        Half::Accepted
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, y) = (cx.input(0), cx.output(0));
        let [before, total, after] = fold(&x.ty.shape, self.axis);
        let (sizes, from) = block(before, self.range.len(), after, total);
        let (_, to) = block(before, self.range.len(), after, self.range.len());
        StridedCopy { sizes, from: (x, self.range.start * after, from), to: (y, 0, to) }.lower(cx)
    }
    host_reference!();
}
impl Reference for Slice {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let [before, total, after] = fold(&inputs[0].shape, self.axis);
        let (sizes, from) = block(before, self.range.len(), after, total);
        let (_, to) = block(before, self.range.len(), after, self.range.len());
        let mut y = HostTensor::zeros(&outputs[0]);
        copy_tensor(sizes, (&inputs[0], self.range.start * after, from), (&mut y, 0, to));
        vec![y]
    }
}

impl Operation for Pad {
    fn name(&self) -> &'static str {
        "pad"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        has_axis(&inputs[0].shape, self.axis)?;
        let mut shape = inputs[0].shape.clone();
        ensure(self.start + shape.0[self.axis] <= self.size, || "the padded part does not fit".into())?;
        shape.0[self.axis] = self.size;
        Ok(vec![TensorType::f32(shape)])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        let size = g.ty(node.inputs[0]).shape.0[self.axis];
        Ok(vec![Some(slice(g, dy, self.axis, self.start..self.start + size)?)])
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, y) = (cx.input(0), cx.output(0));
        let [before, size, after] = fold(&x.ty.shape, self.axis);
        for range in cx.row_ranges(y.ty.elements(), 1)? {
            let len = range.len();
            cx.dispatch(kernel!("zero"), &[y.part(range).write()], &[len as u32], len.div_ceil(64))?;
        }
        let (sizes, from) = block(before, size, after, size);
        let (_, to) = block(before, size, after, self.size);
        StridedCopy { sizes, from: (x, 0, from), to: (y, self.start * after, to) }.lower(cx)
    }
    host_reference!();
}
impl Reference for Pad {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let [before, size, after] = fold(&inputs[0].shape, self.axis);
        let (sizes, from) = block(before, size, after, size);
        let (_, to) = block(before, size, after, self.size);
        let mut y = HostTensor::zeros(&outputs[0]);
        copy_tensor(sizes, (&inputs[0], 0, from), (&mut y, self.start * after, to));
        vec![y]
    }
}

impl Transpose {
    /// `[before, first, between, second, after]` sizes around the two dimensions, as a copy of four dimensions; the
    /// innermost (`after`) is folded away where it is 1.
    fn plan(&self, shape: &Shape) -> Result<(Folded, Folded, Folded), OpError> {
        let before: usize = shape.0[..self.0].iter().product();
        let between: usize = shape.0[self.0 + 1..self.1].iter().product();
        let after: usize = shape.0[self.1 + 1..].iter().product();
        let (first, second) = (shape.0[self.0], shape.0[self.1]);
        ensure(before == 1 || between == 1 || after == 1, || {
            format!("{shape}: a transpose over five separate dimensions is not supported; reshape first")
        })?;
        // Strides of (before, first, between, second, after) in the source and in the target.
        let sizes = [before, first, between, second, after];
        let from = [first * between * second * after, between * second * after, second * after, after, 1];
        let to = [first * between * second * after, after, first * after, between * first * after, 1];
        let dropped = [0, 2, 4].into_iter().find(|&d| sizes[d] == 1).unwrap_or(4);
        let keep = |all: [usize; 5]| {
            let mut kept = [0; RANK];
            for (slot, d) in kept.iter_mut().zip((0..5).filter(|&d| d != dropped)) {
                *slot = all[d];
            }
            kept
        };
        Ok((keep(sizes), keep(from), keep(to)))
    }
}

impl Operation for Transpose {
    fn name(&self) -> &'static str {
        "transpose"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let shape = &inputs[0].shape;
        has_axis(shape, self.1)?;
        self.plan(shape)?;
        let mut sizes = shape.clone();
        sizes.0.swap(self.0, self.1);
        Ok(vec![TensorType { dtype: inputs[0].dtype, shape: sizes }])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        Ok(vec![Some(transpose(g, dy, self.0, self.1)?)])
    }
    fn half_input(&self, _i: usize) -> Half {
        Half::Accepted
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, y) = (cx.input(0), cx.output(0));
        let (sizes, from, to) = self.plan(&x.ty.shape)?;
        StridedCopy { sizes, from: (x, 0, from), to: (y, 0, to) }.lower(cx)
    }
    host_reference!();
}
impl Reference for Transpose {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let mut y = HostTensor::zeros(&outputs[0]);
        if let Ok((sizes, from, to)) = self.plan(&inputs[0].shape) {
            copy_tensor(sizes, (&inputs[0], 0, from), (&mut y, 0, to));
        }
        vec![y]
    }
}

impl Operation for Concat {
    fn name(&self) -> &'static str {
        "concat"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let Some(first) = inputs.first() else { return Err(OpError::new("takes at least one input")) };
        has_axis(&first.shape, self.0)?;
        let mut shape = first.shape.clone();
        shape.0[self.0] = 0;
        for input in inputs {
            let mut other = input.shape.clone();
            ensure(input.dtype == first.dtype && other.rank() == shape.rank(), || "types differ".into())?;
            shape.0[self.0] += other.0[self.0];
            other.0[self.0] = shape.0[self.0];
            ensure(other == shape, || format!("dimensions other than {} differ", self.0))?;
        }
        Ok(vec![TensorType { dtype: first.dtype, shape }])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None; node.inputs.len()]) };
        let mut start = 0;
        let mut grads = Vec::new();
        for &input in node.inputs {
            let size = g.ty(input).shape.0[self.0];
            grads.push(Some(slice(g, dy, self.0, start..start + size)?));
            start += size;
        }
        Ok(grads)
    }
    fn half_input(&self, _i: usize) -> Half {
        Half::Accepted
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let y = cx.output(0);
        let [before, total, after] = fold(&y.ty.shape, self.0);
        let mut start = 0;
        for x in cx.inputs.clone() {
            let size = x.ty.shape.0[self.0];
            let (sizes, from) = block(before, size, after, size);
            let (_, to) = block(before, size, after, total);
            StridedCopy { sizes, from: (x, 0, from), to: (y.clone(), start * after, to) }.lower(cx)?;
            start += size;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for Concat {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let mut y = HostTensor::zeros(&outputs[0]);
        let [before, total, after] = fold(&outputs[0].shape, self.0);
        let mut start = 0;
        for x in &inputs {
            let size = x.shape.0[self.0];
            let (sizes, from) = block(before, size, after, size);
            let (_, to) = block(before, size, after, total);
            copy_tensor(sizes, (x, 0, from), (&mut y, start * after, to));
            start += size;
        }
        vec![y]
    }
}
