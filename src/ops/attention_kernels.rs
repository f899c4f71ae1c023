//! Which kernel computes attention on which adapter.

use super::{Lowering, Precision, Window, attention::Sizes, attention_cooperative, attention_tiled};
use crate::gpu::{Capabilities, Kernel};

/// Which of the two operations.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Pass {
    Forward,
    Backward,
}

/// A kernel in which a workgroup has a block of rows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Blocked {
    /// Through workgroup memory, in f32.
    Tiled(attention_tiled::Block),
    /// By cooperative matrices: operands and probabilities are rounded to 16 bits.
    Cooperative(attention_cooperative::Block),
}

/// Workgroups that fill a GPU of some tens of cores, each holding several.
const FULL: usize = 96;
/// The squared error that kernels which round probabilities to 16 bits may have, as a part of the results' squared size: tens of
/// times what that rounding does.
const ROUNDED: f64 = 1e-6;

impl Blocked {
    /// Workgroups for `t` rows.
    pub fn blocks(self, t: usize) -> usize {
        t.div_ceil(match self {
            Self::Tiled(block) => block.rows(),
            Self::Cooperative(block) => block.rows(),
        })
    }

    fn name(self) -> String {
        match self {
            Self::Tiled(block) => block.name(),
            Self::Cooperative(block) => block.name(),
        }
    }

    /// The variant for heads `d` wide.
    pub fn kernel(self, caps: &Capabilities, d: usize, pass: Pass) -> Kernel {
        match self {
            Self::Tiled(block) => block.kernel(caps, d, pass),
            Self::Cooperative(block) => block.kernel(d, pass),
        }
    }
}

/// The kernel to take; none for the one that holds rows in registers, which software adapters like better, and which does what
/// others cannot. `mask`: what is masked, in words. `read`: the rows that a workgroup walks over, and `vec4` whether these and all
/// others are read in vectors.
pub(super) fn choose(
    cx: &mut Lowering<'_>,
    s: Sizes,
    pass: Pass,
    (mask, read, vec4): (String, &[&Window], bool),
    flops: u64,
) -> Option<Blocked> {
    if !vec4 {
        return None;
    }
    let mut list: Vec<_> = match cx.caps.software {
        true => Vec::new(),
        false => attention_tiled::blocks(cx.caps, s.d, pass).into_iter().map(Blocked::Tiled).collect(),
    };
    let fills = |block: &Blocked| s.b * s.h * block.blocks(s.t) >= FULL;
    // Small ones fill it sooner. Number 0 is the kernel of rows, which all are checked against.
    let rule = list.iter().position(fills).map_or(list.len(), |place| place + 1);
    let mixed = cx.precision == Precision::Mixed;
    // No rule takes one of these: they are experimental, so each is checked on the adapter at hand before it is used.
    let cooperative =
        if mixed && cx.vectors(8, s.d, read) { attention_cooperative::blocks(cx.caps, s.d, pass) } else { Vec::new() };
    if cooperative.is_empty() && !cx.caps.software {
        // Nor one of these, as long as none was measured on a GPU. Where there are cooperative matrices, they are not worth the time
        // that each takes to compile.
        list.extend(attention_tiled::shuffled(cx.caps, s.d, pass).into_iter().map(Blocked::Tiled));
    }
    list.extend(cooperative.into_iter().map(Blocked::Cooperative));
    let names = ["rows".to_owned()].into_iter().chain(list.iter().map(|block| block.name())).collect();
    let pass = if pass == Pass::Forward { "attention" } else { "attention_backward" };
    let work = format!("{pass}{mask} {}x{} of {}x{}", s.b, s.h, s.t, s.d);
    let error = mixed.then_some(ROUNDED);
    cx.choose_within(work, names, rule, flops, error).checked_sub(1).map(|place| list[place])
}
