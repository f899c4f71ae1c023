//! The mean of losses over the places that count: what the cross-entropies have in common.

use super::*;

/// Lanes of the reductions where the adapter has no subgroups of one size.
const PORTABLE_LANES: u32 = 128;
/// Losses that one workgroup adds up.
const PART: usize = 4096;

/// `labels [..] -> [1]`
#[derive(Debug)]
struct CountLabels {
    ignore: u32,
}

/// The number of `labels` `[..]` u32 that are not `ignore`, a float `[1]`: what losses of rows are divided by for their mean.
///
/// # Errors
/// They are not u32.
pub fn count_labels(g: &mut dyn Recorder, labels: Tensor, ignore: u32) -> Result<Tensor, OpError> {
    record_one(g, CountLabels { ignore }, &[labels])
}

impl Operation for CountLabels {
    fn name(&self) -> &'static str {
        "count_labels"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "u")?;
        Ok(vec![TensorType::f32([1])])
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (labels, count) = (cx.input(0), cx.output(0));
        lower_count(cx, &labels, &count, self.ignore)
    }
    host_reference!();
}
impl Reference for CountLabels {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let [_, count] = reference([], inputs[0].u(), self.ignore);
        vec![count]
    }
}

/// Lowers the mean of `losses` over the places whose label is not `ignore` into `loss` `[]`, and their number into `count`
/// `[1]`. `losses` are 0 where they do not count; `labels` is of the same number of elements. With none to count the mean is
/// NaN.
pub(super) fn lower(cx: &mut Lowering<'_>, [losses, labels, loss, count]: [&Operand; 4], ignore: u32) -> Result<(), OpError> {
    add_up(cx, [labels, count], Some([losses, loss]), ignore)
}

/// Lowers the number of `labels` that are not `ignore` into `count` `[1]`.
pub(super) fn lower_count(cx: &mut Lowering<'_>, labels: &Operand, count: &Operand, ignore: u32) -> Result<(), OpError> {
    add_up(cx, [labels, count], None, ignore)
}

fn add_up(
    cx: &mut Lowering<'_>,
    [labels, count]: [&Operand; 2],
    mean: Option<[&Operand; 2]>,
    ignore: u32,
) -> Result<(), OpError> {
    let n = labels.ty.elements();
    // Losses and counts are added up by parts, and then over the parts.
    let parts = n.div_ceil(PART).max(1);
    let mut of_parts = |all: &Operand| if parts > 1 { cx.scratch(parts) } else { all.clone() };
    let (counts, sums) = (of_parts(count), mean.map(|[_, loss]| of_parts(loss)));
    let (kernel, _) = cx.reducing(kernel!("counted_mean").with("MEAN", mean.is_some()), PORTABLE_LANES);
    let nan = f32::NAN.to_bits();
    let first = kernel.clone().with("FIRST", true).with("LAST", parts == 1);
    let most = (cx.max_elements() / PART).max(1);
    for start in (0..parts).step_by(most) {
        let end = parts.min(start + most);
        let range = start * PART..n.min(end * PART);
        let params = [range.len() as u32, PART as u32, ignore, nan];
        let mut windows = vec![labels.part(range.clone()).read(), counts.part(start..end).write()];
        if let (Some([losses, _]), Some(sums)) = (mean, &sums) {
            windows.extend([losses.part(range).read(), sums.part(start..end).write()]);
        }
        cx.dispatch(first.clone(), &windows, &params, end - start)?;
    }
    if parts > 1 {
        let mut windows = vec![counts.all().read(), count.all().write()];
        if let (Some([_, loss]), Some(sums)) = (mean, &sums) {
            windows.extend([sums.all().read(), loss.all().write()]);
        }
        let params = [parts as u32, parts as u32, ignore, nan];
        cx.dispatch(kernel.with("FIRST", false).with("LAST", true), &windows, &params, 1)?;
    }
    Ok(())
}

/// The reference: the mean `[]` and the count `[1]`.
pub(super) fn reference<T: Real>(losses: impl IntoIterator<Item = T>, labels: &[u32], ignore: u32) -> [HostTensor<T>; 2] {
    let count = T::from_f64(labels.iter().filter(|&&label| label != ignore).count() as f64);
    let mean = losses.into_iter().sum::<T>() / count;
    [HostTensor::floats([], vec![mean]), HostTensor::floats([1], vec![count])]
}
