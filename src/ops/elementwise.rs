//! Addition, multiplication, division and scaling. The second operand may be broadcast over the first one's leading dimensions.

use super::*;

/// Lanes of a workgroup, and so elements (or vec4s of them) a workgroup handles.
const LANES: usize = 64;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Add,
    Mul,
    Div,
}

impl Kind {
    fn sign(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Mul => "*",
            Self::Div => "/",
        }
    }
}

/// `a + b`, `a * b` or `a / b`; `b`'s shape is a suffix of `a`'s.
#[derive(Debug)]
struct Binary(Kind);

/// `a * factor`
#[derive(Debug)]
pub(super) struct Scale(pub f32);

/// `a + b`; the shape of `b` is that of `a` or the trailing part of it.
///
/// # Errors
/// The shapes do not fit.
pub fn add(g: &mut dyn Recorder, a: Tensor, b: Tensor) -> Result<Tensor, OpError> {
    record_one(g, Binary(Kind::Add), &[a, b])
}

/// `a * b`, element by element; the shape of `b` is that of `a` or the trailing part of it.
///
/// # Errors
/// The shapes do not fit.
pub fn mul(g: &mut dyn Recorder, a: Tensor, b: Tensor) -> Result<Tensor, OpError> {
    record_one(g, Binary(Kind::Mul), &[a, b])
}

/// `a / b`, element by element; the shape of `b` is that of `a` or the trailing part of it.
///
/// # Errors
/// The shapes do not fit.
pub fn div(g: &mut dyn Recorder, a: Tensor, b: Tensor) -> Result<Tensor, OpError> {
    record_one(g, Binary(Kind::Div), &[a, b])
}

/// `a * factor`
///
/// # Errors
/// `a` is not of floats.
pub fn scale(g: &mut dyn Recorder, a: Tensor, factor: f32) -> Result<Tensor, OpError> {
    record_one(g, Scale(factor), &[a])
}

/// A tensor whose every element is `value`.
pub fn constant(g: &mut dyn Recorder, shape: impl Into<Shape>, value: f32) -> Tensor {
    g.fill(TensorType::f32(shape), value)
}

/// Lowers an operation whose inputs and outputs are all of one shape, element by element; `kernel` is told `VEC`.
pub(super) fn lower_pointwise(cx: &mut Lowering<'_>, kernel: &crate::gpu::Kernel) -> Result<(), OpError> {
    let (read, written) = (cx.inputs.clone(), cx.outputs.clone());
    lower_pointwise_on(cx, kernel, &read, &written, &[])
}

/// The same over given tensors of one shape, bound in this order, with the `whole` ones after them: a few elements each,
/// which every place reads.
pub(super) fn lower_pointwise_on(
    cx: &mut Lowering<'_>,
    kernel: &crate::gpu::Kernel,
    read: &[Operand],
    written: &[Operand],
    whole: &[Operand],
) -> Result<(), OpError> {
    for range in cx.row_ranges(written[0].ty.elements(), 1)? {
        let windows: Vec<_> = read.iter().chain(written).map(|o| o.part(range.clone())).collect();
        let vec4 = cx.vec4(range.len(), &windows.iter().collect::<Vec<_>>());
        let units = if vec4 { range.len() / 4 } else { range.len() };
        let bindings: Vec<_> = windows
            .into_iter()
            .enumerate()
            .map(|(i, window)| if i < read.len() { window.read() } else { window.write() })
            .chain(whole.iter().map(|o| o.all().read()))
            .collect();
        cx.dispatch(kernel.clone().with("VEC", vec4), &bindings, &[units as u32], units.div_ceil(LANES))?;
    }
    Ok(())
}

/// Lowers `to = from`, of one shape, `to` stored in 16 bits: rounded to the nearest, ties to even.
pub(crate) fn lower_rounding(cx: &mut Lowering<'_>, from: &Operand, to: &Operand) -> Result<(), OpError> {
    lower_pointwise_on(cx, &kernel!("round_half"), std::slice::from_ref(from), std::slice::from_ref(to), &[])
}

impl Binary {
    /// Whether `self` is the addition of two tensors of one shape: what an epilogue can take on as a residual.
    pub(super) fn is_residual(&self, types: &[TensorType]) -> bool {
        self.0 == Kind::Add && types[0].shape == types[1].shape
    }
}

/// Whether `op` adds two tensors of one shape.
pub(super) fn is_residual_add(op: &dyn Operation, types: &[TensorType]) -> bool {
    op.as_any().downcast_ref::<Binary>().is_some_and(|b| b.is_residual(types))
}

/// The factor, if `op` scales.
pub(super) fn scale_factor(op: &dyn Operation) -> Option<f32> {
    op.as_any().downcast_ref::<Scale>().map(|s| s.0)
}

impl Operation for Binary {
    fn name(&self) -> &'static str {
        match self.0 {
            Kind::Add => "add",
            Kind::Mul => "mul",
            Kind::Div => "div",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ff")?;
        ensure(inputs[1].shape.is_suffix_of(&inputs[0].shape), || {
            format!("{} is not the trailing part of {}", inputs[1].shape, inputs[0].shape)
        })?;
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None, None]) };
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let leading = g.ty(a).shape.rank() - g.ty(b).shape.rank();
        let da = match self.0 {
            Kind::Add => Some(dy),
            Kind::Mul if node.wanted[0] => Some(mul(g, dy, b)?),
            Kind::Div if node.wanted[0] => Some(div(g, dy, b)?),
            Kind::Mul | Kind::Div => None,
        };
        let db = if node.wanted[1] {
            let full = match self.0 {
                Kind::Add => dy,
                Kind::Mul => mul(g, dy, a)?,
                Kind::Div => {
                    let slope = div(g, node.outputs[0], b)?;
                    let product = mul(g, dy, slope)?;
                    scale(g, product, -1.0)?
                }
            };
            Some(if leading > 0 { sum_leading(g, full, leading)? } else { full })
        } else {
            None
        };
        Ok(vec![da, db])
    }

    fn half_input(&self, _i: usize) -> Half {
        if self.0 == Kind::Add { Half::Added } else { Half::Accepted }
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (a, b, y) = (cx.input(0), cx.input(1), cx.output(0));
        let (n, period) = (a.ty.elements(), b.ty.elements().max(1));
        let same = n == period;
        // A broadcast operand is bound whole; windows of the others then start at a multiple of its length.
        let ranges = if same {
            cx.row_ranges(n, 1)?
        } else {
            cx.row_ranges(n / period, period)?.into_iter().map(|r| r.start * period..r.end * period).collect()
        };
        for range in ranges {
            let windows = (a.part(range.clone()), if same { b.part(range.clone()) } else { b.all() }, y.part(range.clone()));
            let len = range.len();
            let vec4 = cx.vec4(len, &[&windows.0, &windows.1, &windows.2]) && period % 4 == 0;
            let kernel = kernel!("binary").with("VEC", vec4).with("OP", self.0.sign());
            let units = if vec4 { len / 4 } else { len };
            let period = if vec4 { period / 4 } else { period };
            cx.dispatch(
                kernel,
                &[windows.0.read(), windows.1.read(), windows.2.write()],
                &[units as u32, period.min(units) as u32],
                units.div_ceil(LANES),
            )?;
        }
        Ok(())
    }

    host_reference!();
}

impl Reference for Binary {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (a, b) = (inputs[0].f(), inputs[1].f());
        let y = a.iter().zip(b.iter().cycle()).map(|(&a, &b)| match self.0 {
            Kind::Add => a + b,
            Kind::Mul => a * b,
            Kind::Div => a / b,
        });
        vec![HostTensor::floats(inputs[0].shape.clone(), y.collect())]
    }
}

impl Operation for Scale {
    fn name(&self) -> &'static str {
        "scale"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        Ok(vec![inputs[0].clone()])
    }

    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None]) };
        Ok(vec![Some(scale(g, dy, self.0)?)])
    }

    fn half_input(&self, _i: usize) -> Half {
        Half::Accepted
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, y) = (cx.input(0), cx.output(0));
        for range in cx.row_ranges(x.ty.elements(), 1)? {
            let windows = (x.part(range.clone()), y.part(range.clone()));
            let vec4 = cx.vec4(range.len(), &[&windows.0, &windows.1]);
            let units = if vec4 { range.len() / 4 } else { range.len() };
            cx.dispatch(
                kernel!("scale").with("VEC", vec4),
                &[windows.0.read(), windows.1.write()],
                &[units as u32, self.0.to_bits()],
                units.div_ceil(LANES),
            )?;
        }
        Ok(())
    }

    host_reference!();
}

impl Reference for Scale {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let factor = T::from_f64(f64::from(self.0));
        vec![HostTensor::floats(inputs[0].shape.clone(), inputs[0].f().iter().map(|&x| x * factor).collect())]
    }
}
