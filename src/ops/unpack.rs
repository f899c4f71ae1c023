//! Weights in narrow storage as numbers, for kernels that do not read them packed.

use super::{Lowering, OpError, Operand, Packing, Window, ensure};
use crate::{
    gpu::{Access, Kernel},
    kernel,
};
use std::ops::Range;

/// Lanes of a workgroup.
const LANES: usize = 64;

/// Windows of the rows `rows` of a packed matrix: of the weights, and of the scales if there are any.
pub(super) fn windows(operand: &Operand, packing: &Packing, rows: &Range<usize>) -> (Window, Option<Window>) {
    let scales = packing.format.scaled().then(|| operand.part(packing.scales(rows)));
    (operand.part(packing.weights(rows)), scales)
}

/// The variant of a kernel for a format.
pub(super) fn of_format(kernel: Kernel, packing: &Packing) -> Kernel {
    let kernel = kernel.with("FORMAT", packing.format.word());
    if packing.format.scaled() { kernel.with("GROUP", packing.format.group() as u32) } else { kernel }
}

/// Writes the numbers of the packed matrix `from`, its first `rows` rows in the order in which they are stored.
///
/// # Errors
/// `from` is not packed, or a row is larger than a binding.
pub(crate) fn lower_unpacking(cx: &mut Lowering<'_>, (from, rows): (&Operand, usize), to: &Operand) -> Result<(), OpError> {
    let Some(packing) = from.storage.packing() else { return Err(OpError::new("what is to be unpacked is not packed")) };
    ensure(from.at == 0, || "a part of a packed matrix cannot be unpacked".into())?;
    let width = packing.k;
    // Numbers take as much as words do, or more.
    for window in cx.row_ranges(rows, packing.row_words().max(width))? {
        let (weights, scales) = windows(from, &packing, &window);
        let y = to.rows(window.clone(), width);
        let vec4 = cx.vec4(width, &[&y]);
        let units = window.len() * width.div_ceil(4);
        let words = [units, width, packing.row_words(), packing.scale_words()];
        let mut bindings: Vec<(Window, Access)> = vec![weights.read(), y.write()];
        bindings.extend(scales.map(Window::read));
        let kernel = of_format(kernel!("unpack"), &packing).with("VEC", vec4);
        cx.dispatch(kernel, &bindings, &words.map(|n| n as u32), units.div_ceil(LANES))?;
    }
    Ok(())
}
