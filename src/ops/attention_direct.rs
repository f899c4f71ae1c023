//! Attention on software adapters that read images faster than buffers.

use super::{Lowering, Operand, attention::Sizes, attention_kernels::Pass};
use crate::{gpu::Kernel, kernel};

/// Rows of a workgroup: 32 gain 1 to 3 % and take the driver three times as long to compile.
const ROWS: usize = 16;
/// Fewer rows of a sequence are not worth the images: at 64 it is a draw.
const FEWEST: usize = 64;
/// Turns of its loops that such an adapter lets a shader have altogether (65,535), less what begins and ends it.
const MOST_TURNS: usize = 65_000;

/// Workgroups for `t` rows.
pub(super) fn blocks(t: usize) -> usize {
    t.div_ceil(ROWS)
}

/// Whether these kernels can do it, and are to: operands that a workgroup reads again and again are `often`.
pub(super) fn fits(cx: &Lowering<'_>, s: Sizes, often: &[&Operand]) -> bool {
    let turns = s.t.div_ceil(32) * (s.d / 4 + 5);
    let adapter = cx.caps.software && cx.caps.subgroup == Some(8);
    let sizes = s.d % 4 == 0 && s.t >= FEWEST && turns <= MOST_TURNS;
    adapter && sizes && often.iter().all(|operand| cx.fits_image(operand))
}

/// The variant of `attention_direct` or `attention_backward_direct` for heads `d` wide.
pub(super) fn kernel(d: usize, pass: Pass) -> Kernel {
    let kernel = match pass {
        Pass::Forward => kernel!("attention_direct"),
        Pass::Backward => kernel!("attention_backward_direct"),
    };
    kernel.with("D", d as u32).with("ROWS", ROWS as u32)
}
