//! Sums and means: over the last dimension, over leading dimensions, or over everything. Fixed order, no atomics.

use super::*;
use crate::gpu::Kernel;

/// Elements that one workgroup of the row sum handles before a second pass is worth its dispatch.
const ROW_PART: usize = 4096;
/// Rows that one workgroup of the column sum handles.
const COLUMN_PART: usize = 64;
/// On a GPU: lanes that share a column, and rows that each of them sums.
const STRANDS: usize = 8;
const STRAND_PART: usize = 32;

/// How the lanes of kernels that sum over rows share out the columns.
pub(super) struct Columns {
    /// Lanes that share a column.
    strands: usize,
    /// Neighbouring columns of a lane.
    unit: usize,
}

impl Columns {
    /// For rows of `width` in these windows.
    pub fn new(cx: &Lowering<'_>, width: usize, windows: &[&Window]) -> Self {
        Self { strands: if cx.caps.software { 1 } else { STRANDS }, unit: if cx.vec4(width, windows) { 4 } else { 1 } }
    }
    /// The variant.
    pub fn kernel(&self, kernel: Kernel) -> Kernel {
        kernel.with("STRANDS", self.strands as u32).with("VEC", self.unit == 4)
    }
    /// What `width` columns count for in the kernel.
    pub fn units(&self, width: usize) -> usize {
        width / self.unit
    }
    /// Workgroups for `width` columns.
    pub fn groups(&self, width: usize) -> usize {
        self.units(width).div_ceil(if self.strands == 1 { 64 } else { 256 / self.strands })
    }
}

/// `[.., w] -> [..]`: the sum over the last dimension, times a factor.
#[derive(Debug)]
struct SumLast(f32);

/// `[leading dimensions.., rest..] -> [rest..]`: the sum over the first dimensions.
#[derive(Debug)]
struct SumLeading(usize);

/// `[..] -> [.., w]`: each element repeated, times a factor; the gradient of [`SumLast`].
#[derive(Debug)]
struct RepeatLast(usize, f32);

/// `[rest..] -> [leading.., rest..]`: the whole repeated; the gradient of [`SumLeading`].
#[derive(Debug)]
struct RepeatLeading(Vec<usize>);

/// The sum over the last dimension: `[.., w] -> [..]`.
///
/// # Errors
/// `x` is a scalar, or not of floats.
pub fn sum_last(g: &mut dyn Recorder, x: Tensor) -> Result<Tensor, OpError> {
    record_one(g, SumLast(1.0), &[x])
}

/// The mean over the last dimension: `[.., w] -> [..]`.
///
/// # Errors
/// `x` is a scalar, or not of floats.
pub fn mean_last(g: &mut dyn Recorder, x: Tensor) -> Result<Tensor, OpError> {
    let width = g.ty(x).shape.width();
    record_one(g, SumLast(1.0 / width as f32), &[x])
}

/// The sum over the first `count` dimensions.
///
/// # Errors
/// There are not so many.
pub fn sum_leading(g: &mut dyn Recorder, x: Tensor, count: usize) -> Result<Tensor, OpError> {
    record_one(g, SumLeading(count), &[x])
}

/// The sum of all elements, a scalar `[]`.
///
/// # Errors
/// `x` is not of floats.
pub fn sum(g: &mut dyn Recorder, x: Tensor) -> Result<Tensor, OpError> {
    let n = g.ty(x).elements();
    let flat = reshape(g, x, [n])?;
    sum_last(g, flat)
}

/// The mean of all elements, a scalar `[]`.
///
/// # Errors
/// `x` is not of floats.
pub fn mean(g: &mut dyn Recorder, x: Tensor) -> Result<Tensor, OpError> {
    let n = g.ty(x).elements();
    let flat = reshape(g, x, [n])?;
    mean_last(g, flat)
}

impl Operation for SumLast {
    fn name(&self) -> &'static str {
        "sum_last"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        ensure(inputs[0].shape.rank() > 0, || "a scalar has no last dimension".into())?;
        let mut shape = inputs[0].shape.clone();
        shape.0.pop();
        Ok(vec![TensorType::f32(shape)])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        let width = g.ty(node.inputs[0]).shape.width();
        Ok(vec![Some(record_one(g, RepeatLast(width, self.0), &[dy])?)])
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, y) = (cx.input(0), cx.output(0));
        let (rows, width) = (x.ty.shape.rows(), x.ty.shape.width());
        let parts = width.div_ceil(ROW_PART);
        let (kernel, _) = cx.reducing(kernel!("sum_last"), 64);
        let target = if parts > 1 { cx.scratch(rows * parts) } else { y.clone() };
        // A row longer than a binding is bound in ranges of whole parts.
        if width > cx.max_elements() {
            let most = cx.max_elements() / ROW_PART * ROW_PART;
            for row in 0..rows {
                for start in (0..width).step_by(most) {
                    let end = width.min(start + most);
                    let from = x.part(row * width + start..row * width + end);
                    let to = target.part(row * parts + start / ROW_PART..row * parts + end.div_ceil(ROW_PART));
                    let count = to.len;
                    let params = [(end - start) as u32, count as u32, ROW_PART as u32, 1f32.to_bits()];
                    cx.dispatch(kernel.clone(), &[from.read(), to.write()], &params, count)?;
                }
            }
        } else {
            let factor = if parts > 1 { 1.0 } else { self.0 };
            for range in cx.row_ranges(rows, width)? {
                let count = range.len() * parts;
                let (from, to) = (x.rows(range.clone(), width), target.rows(range, parts));
                let params = [width as u32, parts as u32, ROW_PART as u32, factor.to_bits()];
                cx.dispatch(kernel.clone(), &[from.read(), to.write()], &params, count)?;
            }
        }
        if parts > 1 {
            for range in cx.row_ranges(rows, parts)? {
                let count = range.len();
                let (from, to) = (target.rows(range.clone(), parts), y.rows(range, 1));
                let params = [parts as u32, 1, parts as u32, self.0.to_bits()];
                cx.dispatch(kernel.clone(), &[from.read(), to.write()], &params, count)?;
            }
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for SumLast {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = inputs[0].shape.width();
        let factor = T::from_f64(f64::from(self.0));
        let sums = inputs[0].f().chunks(width).map(|row| row.iter().copied().sum::<T>() * factor);
        vec![HostTensor::floats(outputs[0].shape.clone(), sums.collect())]
    }
}

impl Operation for SumLeading {
    fn name(&self) -> &'static str {
        "sum_leading"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        ensure(self.0 <= inputs[0].shape.rank(), || format!("there are no {} dimensions in {}", self.0, inputs[0].shape))?;
        Ok(vec![TensorType::f32(&inputs[0].shape.0[self.0..])])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        let leading = g.ty(node.inputs[0]).shape.0[..self.0].to_vec();
        Ok(vec![Some(record_one(g, RepeatLeading(leading), &[dy])?)])
    }
    fn half_input(&self, _i: usize) -> Half {
        Half::Accepted
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let y = cx.output(0);
        let width = y.ty.elements();
        let mut from = cx.input(0);
        let mut rows = from.ty.elements() / width.max(1);
        // Each pass sums groups of `part` rows; the last one writes the output. On a GPU several lanes share a column.
        loop {
            let columns = Columns::new(cx, width, &[&from.all(), &y.all()]);
            // Fours of columns are a quarter as many lanes, so that parts are a quarter as long on a GPU, which wants many; but what one part
            // holds is not worth another pass.
            let longest = STRANDS * STRAND_PART;
            let part = match rows {
                _ if cx.caps.software => COLUMN_PART,
                _ if rows <= longest => longest,
                _ => longest / columns.unit,
            };
            let groups = rows.div_ceil(part).max(1);
            let to = if groups == 1 { y.clone() } else { cx.scratch(groups * width) };
            let most = (cx.max_elements() / width.max(1) / part).max(1);
            for start in (0..groups).step_by(most) {
                let end = groups.min(start + most);
                let row_range = start * part..rows.min(end * part);
                let params = [row_range.len() as u32, columns.units(width) as u32, part as u32];
                let kernel = columns.kernel(kernel!("sum_leading"));
                let windows = [from.rows(row_range, width).read(), to.rows(start..end, width).write()];
                cx.dispatch(kernel, &windows, &params, (end - start) * columns.groups(width))?;
            }
            if groups == 1 {
                return Ok(());
            }
            (from, rows) = (to, groups);
        }
    }
    host_reference!();
}
impl Reference for SumLeading {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let mut y = vec![T::ZERO; outputs[0].elements()];
        for row in inputs[0].f().chunks(y.len()) {
            for (sum, &x) in y.iter_mut().zip(row) {
                *sum += x;
            }
        }
        vec![HostTensor::floats(outputs[0].shape.clone(), y)]
    }
}

/// Lowers a repetition: `y[i] = x[index of i] * factor`.
fn lower_repeat(cx: &mut Lowering<'_>, factor: f32, last: Option<usize>) -> Result<(), OpError> {
    let (x, y) = (cx.input(0), cx.output(0));
    let n = x.ty.elements();
    let width = last.unwrap_or(n).max(1);
    let rows = y.ty.elements() / width;
    let wide = width > cx.max_elements();
    if wide && last.is_some() {
        // One element fills a row larger than a binding.
        for row in 0..rows {
            for range in cx.row_ranges(width, 1)? {
                let to = y.part(row * width + range.start..row * width + range.end);
                let len = to.len;
                cx.dispatch(
                    kernel!("repeat").with("LAST", true),
                    &[x.part(row..row + 1).read(), to.write()],
                    &[len as u32, len as u32, factor.to_bits()],
                    len.div_ceil(64),
                )?;
            }
        }
        return Ok(());
    }
    for range in cx.row_ranges(rows, width)? {
        let source = if last.is_some() { x.part(range.clone()) } else { x.all() };
        let to = y.rows(range, width);
        let len = to.len;
        cx.dispatch(
            kernel!("repeat").with("LAST", last.is_some()),
            &[source.read(), to.write()],
            &[len as u32, width as u32, factor.to_bits()],
            len.div_ceil(64),
        )?;
    }
    Ok(())
}

impl Operation for RepeatLast {
    fn name(&self) -> &'static str {
        "repeat_last"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        let mut shape = inputs[0].shape.clone();
        shape.0.push(self.0);
        Ok(vec![TensorType::f32(shape)])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        Ok(vec![Some(record_one(g, SumLast(self.1), &[dy])?)])
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower_repeat(cx, self.1, Some(self.0))
    }
    host_reference!();
}
impl Reference for RepeatLast {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let factor = T::from_f64(f64::from(self.1));
        let y = inputs[0].f().iter().flat_map(|&x| std::iter::repeat_n(x * factor, self.0)).collect();
        vec![HostTensor::floats(outputs[0].shape.clone(), y)]
    }
}

impl Operation for RepeatLeading {
    fn name(&self) -> &'static str {
        "repeat_leading"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        Ok(vec![TensorType::f32([self.0.as_slice(), &inputs[0].shape.0].concat())])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        Ok(vec![Some(sum_leading(g, dy, self.0.len())?)])
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        lower_repeat(cx, 1.0, None)
    }
    host_reference!();
}
impl Reference for RepeatLeading {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let y = inputs[0].f().iter().copied().cycle().take(outputs[0].elements()).collect();
        vec![HostTensor::floats(outputs[0].shape.clone(), y)]
    }
}
