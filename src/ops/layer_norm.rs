//! Layer normalisation over the last dimension (Ba, Kiros, Hinton, "Layer normalization", 2016).

use super::{elementwise::is_residual_add, matmul::normalised, reduce::Columns, *};
use crate::gpu::{Access, Kernel};

/// Lanes of the row reductions where the adapter has no subgroups of one size.
const PORTABLE_LANES: u32 = 64;
/// Rows that one workgroup sums for the gradients of gamma and beta.
const COLUMN_PART: usize = 64;

/// The most vectors or numbers of a row that a lane keeps in registers between its passes.
const MOST_HELD: u32 = 32;

/// Of a row of `units` for `lanes` lanes: how many each keeps in registers; 0 if that does not come out even, or they are too many.
fn held(units: usize, lanes: u32) -> u32 {
    let each = units as u32 / lanes;
    if units as u32 % lanes == 0 && each <= MOST_HELD { each } else { 0 }
}

/// Rows that a workgroup goes through, so that it loads gamma and beta once for all of them: on software adapters.
const SOFTWARE_ROWS: usize = 8;
/// On GPUs, where gamma and beta come from caches as fast as rows come from memory, but workgroups wait: the first unless measured.
const GPU_ROWS: [usize; 2] = [1, 4];
/// With fewer rows than these there are not enough workgroups of more than one.
const MANY_ROWS: usize = 2048;
/// The most vectors each of x, gamma and beta that a lane of a GPU has registers for.
const MOST_FIT: usize = 8;

/// A kernel that goes over rows, a few of them a workgroup.
struct ByRows {
    kernel: Kernel,
    lanes: u32,
    /// Rows of a workgroup.
    each: usize,
}

impl ByRows {
    /// `kernel` for `x`, which takes so many floating-point operations.
    fn new(cx: &mut Lowering<'_>, kernel: Kernel, x: &TensorType, flops: u64) -> Self {
        let (rows, width) = (x.shape.rows(), x.shape.width());
        let (kernel, lanes) = cx.reducing(kernel, PORTABLE_LANES);
        let each = if cx.caps.software {
            SOFTWARE_ROWS
        } else if rows < MANY_ROWS || width > 4 * MOST_FIT * lanes as usize {
            GPU_ROWS[0]
        } else {
            let names = GPU_ROWS.map(|n| format!("{n} rows a workgroup"));
            GPU_ROWS[cx.choose(format!("{} {rows}x{width}", kernel.name), names.to_vec(), 0, flops)]
        };
        Self { kernel: kernel.with("ROWS", each as u32), lanes, each }
    }

    /// Adds a dispatch over `rows` of `width`, in vectors of four if `vec4`. `more` params follow those of the rows.
    fn dispatch(
        &self,
        cx: &mut Lowering<'_>,
        [rows, width]: [usize; 2],
        vec4: bool,
        windows: &[(Window, Access)],
        more: &[u32],
    ) -> Result<(), OpError> {
        let units = if vec4 { width / 4 } else { width };
        let kernel = self.kernel.clone().with("VEC", vec4).with("HELD", held(units, self.lanes));
        let params = [&[rows as u32, units as u32, (1.0 / width as f32).to_bits()], more].concat();
        cx.dispatch(kernel, windows, &params, rows.div_ceil(self.each))
    }
}

/// `x [.., w], gamma [w], beta [w] -> y [.., w], mean [..], rstd [..]`
#[derive(Debug, Clone, Copy)]
pub(super) struct LayerNorm {
    pub epsilon: f32,
}

/// A layer norm as the prologue of another operation's kernel.
pub(super) struct Normalised {
    /// `[w]`
    pub gamma: Operand,
    /// `[w]`
    pub beta: Operand,
    /// Added to the variance.
    pub epsilon: f32,
}

/// `dy [.., w], x [.., w], gamma [w], mean [..], rstd [..], another gradient of x [.., w] or none -> dx [.., w]`
#[derive(Debug)]
struct LayerNormInput {
    /// Another gradient of the same tensor is added: that of the residual connection around the block that begins with the norm.
    added: bool,
}

/// `dy [.., w], x [.., w], mean [..], rstd [..] -> [blocks, 2, w]`: of each block of [`COLUMN_PART`] rows, the gradients of
/// gamma and of beta.
#[derive(Debug)]
struct LayerNormParameters;

/// `(x - mean) / sqrt(variance + epsilon) * gamma + beta` over the last dimension, with the biased variance:
/// `x [.., w], gamma [w], beta [w] -> [.., w]`.
///
/// # Errors
/// `x` is a scalar, or `gamma` or `beta` is not of its width.
pub fn layer_norm(g: &mut dyn Recorder, x: Tensor, gamma: Tensor, beta: Tensor, epsilon: f32) -> Result<Tensor, OpError> {
    record_one(g, LayerNorm { epsilon }, &[x, gamma, beta])
}

/// All dimensions but the last.
fn leading(shape: &Shape) -> Shape {
    let mut leading = shape.clone();
    leading.0.pop();
    leading
}

impl Operation for LayerNorm {
    fn name(&self) -> &'static str {
        "layer_norm"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "fff")?;
        let shape = &inputs[0].shape;
        ensure(shape.rank() > 0 && shape.width() > 0, || "there is no last dimension to go over".into())?;
        for (name, input) in ["gamma", "beta"].iter().zip(&inputs[1..]) {
            ensure(input.shape == Shape::from([shape.width()]), || {
                format!("{name} is {}, not [{}]", input.shape, shape.width())
            })?;
        }
        let statistic = TensorType::f32(leading(shape));
        Ok(vec![inputs[0].clone(), statistic.clone(), statistic])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None, None, None]) };
        let (x, gamma, mean, rstd) = (node.inputs[0], node.inputs[1], node.outputs[1], node.outputs[2]);
        let dx = if node.wanted[0] {
            Some(record_one(g, LayerNormInput { added: false }, &[dy, x, gamma, mean, rstd])?)
        } else {
            None
        };
        if !node.wanted[1] && !node.wanted[2] {
            return Ok(vec![dx, None, None]);
        }
        // One kernel and one chain of sums for both; their two rows are then views.
        let parts = record_one(g, LayerNormParameters, &[dy, x, mean, rstd])?;
        let [blocks, width] = [0, 2].map(|d| g.ty(parts).shape.0[d]);
        let both = if blocks > 1 { sum_leading(g, parts, 1)? } else { reshape(g, parts, [2, width])? };
        let mut row = |wanted: bool, index: usize| -> Result<Option<Tensor>, OpError> {
            if !wanted {
                return Ok(None);
            }
            let row = slice(g, both, 0, index..index + 1)?;
            Ok(Some(reshape(g, row, [width])?))
        };
        Ok(vec![dx, row(node.wanted[1], 0)?, row(node.wanted[2], 1)?])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        8 * inputs[0].elements() as u64
    }
    fn half_input(&self, i: usize) -> Half {
        if i == 0 { Half::Accepted } else { Half::Never }
    }
    fn half_output(&self, i: usize) -> bool {
        i == 0
    }
    fn absorb(&self, next: &dyn Operation, position: usize, types: &[TensorType], keep: bool) -> Option<Absorbed> {
        if keep { None } else { normalised(*self, next, position, types) }
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, gamma, beta) = (cx.input(0), cx.input(1), cx.input(2));
        let (y, mean, rstd) = (cx.output(0), cx.output(1), cx.output(2));
        let (rows, width) = (x.ty.shape.rows(), x.ty.shape.width());
        let by_rows = ByRows::new(cx, kernel!("layer_norm"), &x.ty, self.flops(std::slice::from_ref(&x.ty), &[]));
        for range in cx.row_ranges(rows, width)? {
            let (from, to) = (x.rows(range.clone(), width), y.rows(range.clone(), width));
            let (gamma, beta) = (gamma.all(), beta.all());
            let vec4 = cx.vec4(width, &[&from, &to, &gamma, &beta]);
            let windows = [
                from.read(),
                gamma.read(),
                beta.read(),
                to.write(),
                mean.rows(range.clone(), 1).write(),
                rstd.rows(range.clone(), 1).write(),
            ];
            by_rows.dispatch(cx, [range.len(), width], vec4, &windows, &[self.epsilon.to_bits()])?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for LayerNorm {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = outputs[0].shape.width();
        let (n, epsilon) = (T::from_f64(width as f64), T::from_f64(f64::from(self.epsilon)));
        let (gamma, beta) = (inputs[1].f(), inputs[2].f());
        let (mut y, mut means, mut rstds) = (Vec::with_capacity(outputs[0].elements()), Vec::new(), Vec::new());
        for row in inputs[0].f().chunks(width) {
            let mean = row.iter().copied().sum::<T>() / n;
            let variance = row.iter().map(|&x| (x - mean) * (x - mean)).sum::<T>() / n;
            let rstd = T::ONE / (variance + epsilon).sqrt();
            y.extend(row.iter().zip(gamma.iter().zip(beta)).map(|(&x, (&gamma, &beta))| (x - mean) * rstd * gamma + beta));
            means.push(mean);
            rstds.push(rstd);
        }
        outputs.iter().zip([y, means, rstds]).map(|(ty, data)| HostTensor::floats(ty.shape.clone(), data)).collect()
    }
}

impl Operation for LayerNormInput {
    fn name(&self) -> &'static str {
        "layer_norm_input"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, if self.added { "ffffff" } else { "fffff" })?;
        ensure(inputs[0].shape == inputs[1].shape, || "the gradient has another shape than the output".into())?;
        Ok(vec![inputs[1].clone()])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        12 * inputs[0].elements() as u64
    }
    fn half_input(&self, i: usize) -> Half {
        if i < 2 || i == 5 { Half::Accepted } else { Half::Never }
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn absorb(&self, next: &dyn Operation, position: usize, types: &[TensorType], keep: bool) -> Option<Absorbed> {
        let fits = !keep && !self.added && is_residual_add(next, types);
        fits.then(|| Absorbed { op: Arc::new(Self { added: true }), extra_inputs: vec![1 - position], drops: false })
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (dy, x, gamma, mean, rstd) = (cx.input(0), cx.input(1), cx.input(2), cx.input(3), cx.input(4));
        let dx = cx.output(0);
        let (rows, width) = (x.ty.shape.rows(), x.ty.shape.width());
        let kernel = kernel!("layer_norm_input").with("ADDED", self.added);
        let by_rows = ByRows::new(cx, kernel, &x.ty, self.flops(std::slice::from_ref(&x.ty), &[]));
        for range in cx.row_ranges(rows, width)? {
            let [dy, x, dx] = [&dy, &x, &dx].map(|t| t.rows(range.clone(), width));
            let added = self.added.then(|| cx.input(5).rows(range.clone(), width));
            let gamma = gamma.all();
            let vec4 = cx.vec4(width, &[&dy, &x, &gamma, &dx].into_iter().chain(&added).collect::<Vec<_>>());
            let (mean, rstd) = (mean.rows(range.clone(), 1), rstd.rows(range.clone(), 1));
            let mut windows = vec![dy.read(), x.read(), gamma.read(), mean.read(), rstd.read()];
            windows.extend(added.map(Window::read));
            windows.push(dx.write());
            by_rows.dispatch(cx, [range.len(), width], vec4, &windows, &[])?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for LayerNormInput {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = outputs[0].shape.width();
        let n = T::from_f64(width as f64);
        let (gamma, statistics) = (inputs[2].f(), inputs[3].f().iter().zip(inputs[4].f()));
        let mut dx = Vec::with_capacity(outputs[0].elements());
        for ((dy, x), (&mean, &rstd)) in inputs[0].f().chunks(width).zip(inputs[1].f().chunks(width)).zip(statistics) {
            let d: Vec<T> = dy.iter().zip(gamma).map(|(&dy, &gamma)| dy * gamma).collect();
            let h: Vec<T> = x.iter().map(|&x| (x - mean) * rstd).collect();
            let mean_d = d.iter().copied().sum::<T>() / n;
            let mean_dh = d.iter().zip(&h).map(|(&d, &h)| d * h).sum::<T>() / n;
            dx.extend(d.iter().zip(&h).map(|(&d, &h)| rstd * (d - mean_d - h * mean_dh)));
        }
        if let Some(added) = inputs.get(5) {
            dx.iter_mut().zip(added.f()).for_each(|(dx, &added)| *dx += added);
        }
        vec![HostTensor::floats(outputs[0].shape.clone(), dx)]
    }
}

impl Operation for LayerNormParameters {
    fn name(&self) -> &'static str {
        "layer_norm_parameters"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ffff")?;
        ensure(inputs[0].shape == inputs[1].shape, || "the gradient has another shape than the output".into())?;
        let shape = &inputs[1].shape;
        Ok(vec![TensorType::f32([shape.rows().div_ceil(COLUMN_PART).max(1), 2, shape.width()])])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        5 * inputs[0].elements() as u64
    }
    fn half_input(&self, i: usize) -> Half {
        if i < 2 { Half::Accepted } else { Half::Never }
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (dy, x, mean, rstd) = (cx.input(0), cx.input(1), cx.input(2), cx.input(3));
        let y = cx.output(0);
        let (rows, width) = (x.ty.shape.rows(), x.ty.shape.width());
        let blocks = y.ty.shape.0[0];
        let columns = Columns::new(cx, width, &[&dy.all(), &x.all(), &y.all()]);
        let kernel = columns.kernel(kernel!("layer_norm_parameters"));
        let most = (cx.max_elements() / width / COLUMN_PART).max(1);
        for start in (0..blocks).step_by(most) {
            let end = blocks.min(start + most);
            let range = start * COLUMN_PART..rows.min(end * COLUMN_PART);
            let params = [range.len() as u32, columns.units(width) as u32, COLUMN_PART as u32];
            let windows = [
                dy.rows(range.clone(), width).read(),
                x.rows(range.clone(), width).read(),
                mean.rows(range.clone(), 1).read(),
                rstd.rows(range, 1).read(),
                y.rows(start..end, 2 * width).write(),
            ];
            cx.dispatch(kernel.clone(), &windows, &params, (end - start) * columns.groups(width))?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for LayerNormParameters {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = outputs[0].shape.width();
        let mut sums = vec![T::ZERO; outputs[0].elements()];
        let statistics = inputs[2].f().iter().zip(inputs[3].f());
        let rows = inputs[0].f().chunks(width).zip(inputs[1].f().chunks(width)).zip(statistics);
        for (row, ((dy, x), (&mean, &rstd))) in rows.enumerate() {
            let block = &mut sums[row / COLUMN_PART * 2 * width..][..2 * width];
            let (gamma, beta) = block.split_at_mut(width);
            for i in 0..width {
                gamma[i] += dy[i] * (x[i] - mean) * rstd;
                beta[i] += dy[i];
            }
        }
        vec![HostTensor::floats(outputs[0].shape.clone(), sums)]
    }
}
