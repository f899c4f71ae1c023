//! The mean cross-entropy and its gradient together: what a training step's plan makes of the two. Logits are read once from
//! memory and once from a cache, instead of twice from memory.

use super::{
    cross_entropy::{Rule, reference_gradient, reference_rows, row_kernel, rows_of},
    *,
};

/// `logits [.., V], labels [..], dloss -> loss [], dlogits [.., V]`; dloss has one element.
#[derive(Debug)]
pub(super) struct CrossEntropyWithGradient {
    pub rule: Rule,
}

impl Operation for CrossEntropyWithGradient {
    fn name(&self) -> &'static str {
        "cross_entropy_with_gradient"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "fuf")?;
        rows_of(&inputs[..2], self.rule)?;
        ensure(inputs[2].elements() == 1, || format!("the gradient of a mean is a scalar, not {}", inputs[2].shape))?;
        Ok(vec![TensorType::f32([]), inputs[0].clone()])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        10 * inputs[0].elements() as u64
    }
    fn half_input(&self, i: usize) -> Half {
        if i == 0 { Half::Accepted } else { Half::Never }
    }
    fn half_output(&self, i: usize) -> bool {
        i == 1
    }
    fn in_place(&self) -> Option<(usize, usize)> {
        Some((0, 1))
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (x, labels, dy) = (cx.input(0), cx.input(1), cx.input(2));
        let (loss, dx) = (cx.output(0), cx.output(1));
        let (rows, width) = (x.ty.shape.rows(), x.ty.shape.width());
        let (losses, count) = (cx.scratch(rows), cx.scratch(1));
        let ignore = self.rule.ignore;
        cx.besides(|cx| counted_mean::lower_count(cx, &labels, &count, ignore))?;
        let kernel = row_kernel(cx, kernel!("cross_entropy_gradient"), width);
        for range in cx.row_ranges(rows, width)? {
            let (logits, gradient) = (x.rows(range.clone(), width), dx.rows(range.clone(), width));
            let in_place = x.root == dx.root;
            let kernel = kernel.clone().with("VEC", cx.vec4(width, &[&logits, &gradient])).with("INPLACE", in_place);
            let mut windows = vec![
                labels.part(range.clone()).read(),
                dy.all().read(),
                count.all().read(),
                losses.part(range.clone()).write(),
                gradient.write(),
            ];
            windows.extend((!in_place).then(|| logits.read()));
            cx.dispatch(kernel, &windows, &[width as u32, self.rule.classes(&x.ty) as u32, ignore], range.len())?;
        }
        // It counts again, in the same turn.
        cx.besides(|cx| counted_mean::lower(cx, [&losses, &labels, &loss, &count], ignore))
    }
    host_reference!();
}
impl Reference for CrossEntropyWithGradient {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (losses, lse) = reference_rows(&inputs, self.rule);
        let [loss, count] = counted_mean::reference(losses, inputs[1].u(), self.rule.ignore);
        let factor = inputs[2].f()[0] / count.f()[0];
        vec![loss, reference_gradient(&inputs, self.rule, &lse, |_| factor)]
    }
}
