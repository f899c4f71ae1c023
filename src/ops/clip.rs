//! Clipping by the global norm (Pascanu, Mikolov, Bengio, "On the difficulty of training recurrent neural networks", 2013).

use super::*;

/// Elements whose squares one workgroup adds up.
const PART: usize = 8192;
/// Tensors of a dispatch: with the result as many bindings as every adapter has.
const TENSORS: usize = 7;
/// Lanes of the reductions where the adapter has no subgroups of one size.
const PORTABLE_LANES: u32 = 64;

/// Any number of float tensors to the root of the sum of all their squares, `[]`.
#[derive(Debug)]
struct GlobalNorm;

/// `norm [] -> min(1, most / (norm + 1e-6)) []`
#[derive(Debug)]
struct ClipFactor(f32);

/// The norm `[]` of all `tensors` together.
///
/// # Errors
/// There is none, or one is not of floats.
pub fn global_norm(g: &mut dyn Recorder, tensors: &[Tensor]) -> Result<Tensor, OpError> {
    record_one(g, GlobalNorm, tensors)
}

/// What gradients of global norm `norm` `[]` are multiplied by so that it is at most `most`, as PyTorch's
/// `clip_grad_norm_`: `min(1, most / (norm + 1e-6))`.
///
/// # Errors
/// `norm` is not a scalar.
pub fn clip_factor(g: &mut dyn Recorder, norm: Tensor, most: f32) -> Result<Tensor, OpError> {
    record_one(g, ClipFactor(most), &[norm])
}

/// Lowers the norm of all `tensors` together into `y`, one element: sums of squares by parts, of several tensors in a dispatch, then
/// the root of their sum.
pub(super) fn lower_norm(cx: &mut Lowering<'_>, tensors: &[Operand], y: Window) -> Result<(), OpError> {
    let mut jobs = Vec::new();
    for tensor in tensors {
        for range in cx.row_ranges(tensor.ty.elements(), 1)? {
            jobs.push(tensor.part(range));
        }
    }
    let parts = cx.scratch(jobs.iter().map(|job| job.len.div_ceil(PART)).sum());
    let (kernel, _) = cx.reducing(kernel!("square_sum"), PORTABLE_LANES);
    let mut first = 0;
    let (fours, ones): (Vec<_>, Vec<_>) = jobs.into_iter().partition(|job| cx.vec4(job.len, &[job]));
    for (jobs, width) in [(fours, 4), (ones, 1)] {
        for some in jobs.chunks(TENSORS) {
            let mut words = vec![(PART / width) as u32];
            let mut groups = 0;
            for job in some {
                words.extend([(job.len / width) as u32, groups as u32]);
                groups += job.len.div_ceil(PART);
            }
            let kernel = kernel.clone().with("TENSORS", some.len() as u32).with("VEC", width == 4).with("LAST", false);
            let mut bindings: Vec<_> = some.iter().map(|job| job.clone().read()).collect();
            bindings.push(parts.part(first..first + groups).write());
            cx.dispatch(kernel, &bindings, &words, groups)?;
            first += groups;
        }
    }
    let kernel = kernel.with("TENSORS", 1).with("VEC", false).with("LAST", true);
    cx.dispatch(kernel, &[parts.all().read(), y.write()], &[first as u32, first as u32, 0], 1)
}

impl Operation for GlobalNorm {
    fn name(&self) -> &'static str {
        "global_norm"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        ensure(!inputs.is_empty(), || "there is no tensor to take the norm of".into())?;
        expect(inputs, &"f".repeat(inputs.len()))?;
        Ok(vec![TensorType::f32([])])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        inputs.iter().map(|i| 2 * i.elements() as u64).sum()
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (inputs, y) = (cx.inputs.clone(), cx.output(0));
        lower_norm(cx, &inputs, y.all())
    }
    host_reference!();
}
impl Reference for GlobalNorm {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let total: T = inputs.iter().map(|x| x.f().iter().map(|&x| x * x).sum::<T>()).sum();
        vec![HostTensor::floats([], vec![total.sqrt()])]
    }
}

impl Operation for ClipFactor {
    fn name(&self) -> &'static str {
        "clip_factor"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "f")?;
        ensure(inputs[0].elements() == 1, || format!("a norm is a scalar, not {}", inputs[0].shape))?;
        Ok(vec![inputs[0].clone()])
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, y) = (cx.input(0), cx.output(0));
        cx.dispatch(kernel!("clip_factor"), &[x.all().read(), y.all().write()], &[self.0.to_bits()], 1)
    }
    host_reference!();
}
impl Reference for ClipFactor {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let factor = T::from_f64(f64::from(self.0)) / (inputs[0].f()[0] + T::from_f64(1e-6));
        let factor = if factor < T::ONE { factor } else { T::ONE };
        vec![HostTensor::floats(inputs[0].shape.clone(), vec![factor])]
    }
}
