//! Matrix products: all layouts, batched, with bias, scale, GELU and residual, or the gradient of a GELU, as epilogues.
//!
//! `y = gelu(alpha * op(a) op(b) + bias) + residual`, or `y = (alpha * op(a) op(b) + bias) * gelu'(x)`

mod choice;
mod cooperative;
mod kernels;
mod packed;
mod skinny;

use super::*;
use crate::ops::{
    elementwise::{is_residual_add, scale_factor},
    layer_norm::Normalised,
};
pub(super) use skinny::normalised;

/// How the operands of a matrix product are stored, and a factor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Layout {
    /// The first operand is stored transposed: `[.., k, m]`.
    pub transpose_a: bool,
    /// The second operand is stored transposed: `[.., n, k]`.
    pub transpose_b: bool,
    /// Multiplies the product.
    pub alpha: f32,
}

impl Default for Layout {
    fn default() -> Self {
        Self { transpose_a: false, transpose_b: false, alpha: 1.0 }
    }
}

/// A matrix product with its epilogue.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
struct MatMul {
    layout: Layout,
    /// A third input `[n]` is added.
    bias: bool,
    /// Applied to product and bias.
    activation: Option<Gelu>,
    /// The value before the activation is a second output.
    keep: bool,
    /// What a last input of the output's shape is to the result.
    rest: Option<Rest>,
}

/// What an epilogue does last, with an input of the output's shape.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Rest {
    /// Adds it.
    Added,
    /// Multiplies by the derivative of this GELU there: the backward rule of what the product's result is the gradient of.
    Derivative(Gelu),
}

impl Rest {
    /// As the shaders' `GATE` has it.
    fn gate(rest: Option<Self>) -> &'static str {
        if let Some(Self::Derivative(form)) = rest { form.word() } else { "none" }
    }
}

/// `a b`: `[.., k] x [k, n] -> [.., n]`, or batched `[.., m, k] x [.., k, n] -> [.., m, n]` with equal leading dimensions.
///
/// # Errors
/// The inner dimensions differ.
pub fn matmul(g: &mut dyn Recorder, a: Tensor, b: Tensor) -> Result<Tensor, OpError> {
    matmul_with(g, a, b, None, Layout::default())
}

/// `x w + bias` with the weight stored `[in, out]`, as GPT-2's Conv1D has it: `[.., in] -> [.., out]`.
///
/// # Errors
/// The dimensions do not fit.
pub fn linear(g: &mut dyn Recorder, x: Tensor, w: Tensor, bias: Tensor) -> Result<Tensor, OpError> {
    matmul_with(g, x, w, Some(bias), Layout::default())
}

/// A product in any layout. `bias` is `[n]`.
///
/// # Errors
/// The dimensions do not fit.
pub fn matmul_with(g: &mut dyn Recorder, a: Tensor, b: Tensor, bias: Option<Tensor>, layout: Layout) -> Result<Tensor, OpError> {
    let op = MatMul { layout, bias: bias.is_some(), ..MatMul::default() };
    let inputs: Vec<_> = [a, b].into_iter().chain(bias).collect();
    record_one(g, op, &inputs)
}

/// Sizes of a product, with a two-dimensional second operand shared by all rows of the first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sizes {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
}

impl Sizes {
    fn flops(self) -> u64 {
        2 * self.batch as u64 * self.m as u64 * self.n as u64 * self.k as u64
    }
}

impl MatMul {
    fn sizes(&self, a: &Shape, b: &Shape) -> Result<Sizes, OpError> {
        let describe = || {
            let t = |on| if on { " transposed" } else { "" };
            format!("{a}{} and {b}{} have no product", t(self.layout.transpose_a), t(self.layout.transpose_b))
        };
        ensure(a.rank() >= 1 && b.rank() >= 2, describe)?;
        let b_last = [b.0[b.rank() - 2], b.0[b.rank() - 1]];
        let (bk, n) = if self.layout.transpose_b { (b_last[1], b_last[0]) } else { (b_last[0], b_last[1]) };
        let sizes = if b.rank() == 2 && !self.layout.transpose_a {
            // Every leading dimension of a is a row.
            Sizes { batch: 1, m: a.rows(), n, k: a.width() }
        } else {
            ensure(a.rank() == b.rank() && a.0[..a.rank() - 2] == b.0[..b.rank() - 2], describe)?;
            let a_last = [a.0[a.rank() - 2], a.0[a.rank() - 1]];
            let (m, k) = if self.layout.transpose_a { (a_last[1], a_last[0]) } else { (a_last[0], a_last[1]) };
            Sizes { batch: a.0[..a.rank() - 2].iter().product(), m, n, k }
        };
        ensure(sizes.k == bk && sizes.k > 0, describe)?;
        Ok(sizes)
    }

    /// Lowers it, with a norm of the first input's rows where the kernel has been asked whether it does that.
    fn lower_after(&self, cx: &mut Lowering<'_>, norm: Option<Normalised>) -> Result<(), OpError> {
        let sizes = self.sizes(&cx.inputs[0].ty.shape, &cx.inputs[1].ty.shape)?;
        match cx.inputs[1].storage.packing() {
            Some(packing) => packed::lower(self, sizes, &packing, cx, norm),
            None => kernels::lower(self, sizes, cx.input(1), cx),
        }
    }

    /// Number of inputs.
    fn inputs(&self) -> usize {
        2 + usize::from(self.bias) + usize::from(self.rest.is_some())
    }
}

impl Operation for MatMul {
    fn name(&self) -> &'static str {
        "matmul"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, &"f".repeat(self.inputs()))?;
        let sizes = self.sizes(&inputs[0].shape, &inputs[1].shape)?;
        let mut shape = inputs[0].shape.with_width(sizes.n);
        if self.layout.transpose_a {
            let rank = shape.rank();
            shape.0[rank - 2] = sizes.m;
        }
        if self.bias {
            ensure(inputs[2].shape == Shape::from([sizes.n]), || format!("the bias is {}, not [{}]", inputs[2].shape, sizes.n))?;
        }
        let y = TensorType::f32(shape);
        Ok(if self.keep { vec![y.clone(), y] } else { vec![y] })
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        self.sizes(&inputs[0].shape, &inputs[1].shape).map_or(0, Sizes::flops)
    }

    fn absorb(&self, next: &dyn Operation, position: usize, types: &[TensorType], keep: bool) -> Option<Absorbed> {
        if self.rest.is_some() {
            return None;
        }
        if let Some(kind) = super::gelu::kind_of(next) {
            let op = Self { activation: Some(kind), keep, ..*self };
            return (self.activation.is_none()).then(|| Absorbed { op: Arc::new(op), extra_inputs: vec![], drops: false });
        }
        if keep {
            return None;
        }
        if is_residual_add(next, types) {
            let op = Self { rest: Some(Rest::Added), ..*self };
            return Some(Absorbed { op: Arc::new(op), extra_inputs: vec![1 - position], drops: false });
        }
        if let (Some(form), None, 1) = (super::gelu::derivative_of(next), self.activation, position) {
            let op = Self { rest: Some(Rest::Derivative(form)), ..*self };
            return Some(Absorbed { op: Arc::new(op), extra_inputs: vec![0], drops: false });
        }
        if let Some(drawn) = skinny::drawn(self, next, position, types) {
            return Some(drawn);
        }
        let factor = scale_factor(next)?;
        let plain = !self.bias && self.activation.is_none();
        plain.then(|| Absorbed {
            op: Arc::new(Self { layout: Layout { alpha: self.layout.alpha * factor, ..self.layout }, ..*self }),
            extra_inputs: vec![],
            drops: false,
        })
    }

    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        // Epilogues other than the bias are only ever fused after autodiff.
        let (a, b) = (node.inputs[0], node.inputs[1]);
        let Some(dy) = node.grads[0] else { return Ok(vec![None; node.inputs.len()]) };
        let (ta, tb) = (self.layout.transpose_a, self.layout.transpose_b);
        let product = |g: &mut dyn Recorder, x, w, transpose_a, transpose_b| {
            matmul_with(g, x, w, None, Layout { transpose_a, transpose_b, alpha: self.layout.alpha })
        };
        let da = match (node.wanted[0], ta) {
            (false, _) => None,
            (true, false) => Some(product(g, dy, b, false, !tb)?),
            (true, true) => Some(product(g, b, dy, tb, true)?),
        };
        let db = if node.wanted[1] {
            // With a shared matrix every leading dimension of a is a row.
            let shared = g.ty(b).shape.rank() == 2;
            let flat = |g: &mut dyn Recorder, t: Tensor| {
                let shape = g.ty(t).shape.clone();
                if shared && shape.rank() != 2 { reshape(g, t, [shape.rows(), shape.width()]) } else { Ok(t) }
            };
            let (x, d) = (flat(g, a)?, flat(g, dy)?);
            Some(if tb { product(g, d, x, true, ta)? } else { product(g, x, d, !ta, false)? })
        } else {
            None
        };
        let mut grads = vec![da, db];
        if self.bias {
            let leading = g.ty(dy).shape.rank() - 1;
            grads.push(if node.wanted[2] { Some(sum_leading(g, dy, leading)?) } else { None });
        }
        Ok(grads)
    }

    fn half_input(&self, i: usize) -> Half {
        match i {
            0 | 1 => Half::Wanted,
            // The bias is small, and a residual no weight.
            _ if self.bias && i == 2 => Half::Never,
            _ if self.rest == Some(Rest::Added) => Half::Added,
            _ => Half::Accepted,
        }
    }

    fn half_output(&self, _i: usize) -> bool {
        true
    }

    fn packed_input(&self, i: usize, packing: &Packing) -> bool {
        // Stored along k.
        i == 1 && packing.transposed != self.layout.transpose_b && !self.layout.transpose_a
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        self.lower_after(cx, None)
    }

    host_reference!();
}

impl Reference for MatMul {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let Ok(s) = self.sizes(&inputs[0].shape, &inputs[1].shape) else { return Vec::new() };
        let (a, b) = (inputs[0].f(), inputs[1].f());
        let mut y = vec![T::ZERO; s.batch * s.m * s.n];
        let (a_strides, b_strides) = (
            if self.layout.transpose_a { (1, s.m) } else { (s.k, 1) },
            if self.layout.transpose_b { (1, s.k) } else { (s.n, 1) },
        );
        let shared = inputs[1].shape.rank() == 2;
        for batch in 0..s.batch {
            let a = &a[batch * s.m * s.k..][..s.m * s.k];
            let b = if shared { b } else { &b[batch * s.k * s.n..][..s.k * s.n] };
            let y = &mut y[batch * s.m * s.n..][..s.m * s.n];
            multiply((s.m, s.n, s.k), (a, a_strides), (b, b_strides), y, T::from_f64(f64::from(self.layout.alpha)));
        }
        if self.bias {
            for row in y.chunks_mut(s.n) {
                for (y, &bias) in row.iter_mut().zip(inputs[2].f()) {
                    *y += bias;
                }
            }
        }
        let before = y.clone();
        if let Some(kind) = self.activation {
            y.iter_mut().for_each(|y| *y = kind.apply(*y));
        }
        if let Some(rest) = self.rest {
            let last = inputs[self.inputs() - 1].f();
            y.iter_mut().zip(last).for_each(|(y, &x)| match rest {
                Rest::Added => *y += x,
                Rest::Derivative(form) => *y *= form.derivative(x),
            });
        }
        let shape = &outputs[0].shape;
        let mut results = vec![HostTensor::floats(shape.clone(), y)];
        if self.keep {
            results.push(HostTensor::floats(shape.clone(), before));
        }
        results
    }
}

/// `y = alpha a b` by the gemm crate; strides are (row, column).
fn multiply<T: Real>(
    (m, n, k): (usize, usize, usize),
    (a, a_strides): (&[T], (usize, usize)),
    (b, b_strides): (&[T], (usize, usize)),
    y: &mut [T],
    alpha: T,
) {
    let threads = if m * n * k > 1 << 16 { gemm::Parallelism::Rayon(0) } else { gemm::Parallelism::None };
    // Safety: the slices hold m*k, k*n and m*n elements (checked by the shape rule), and the strides stay within them;
    // `y` overlaps neither operand.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            y.as_mut_ptr(),
            1,
            n as isize,
            false,
            a.as_ptr(),
            a_strides.1 as isize,
            a_strides.0 as isize,
            b.as_ptr(),
            b_strides.1 as isize,
            b_strides.0 as isize,
            T::ZERO,
            alpha,
            false,
            false,
            false,
            threads,
        );
    }
}
