//! What memory a plan takes: which tensors share a buffer or an image.

use super::{
    arena::{self, Layout, Need},
    lowered::{Lowered, Root},
    record::Leaf,
};
use crate::ops::{Storage, Tensor};

/// Bytes that a plan takes on a device.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Memory {
    /// Of the arena, which tensors that are made in a run share.
    pub arena: u64,
    /// Of all those tensors, were none to share memory.
    pub planned: u64,
    /// Of images, which products read their operands from where that is faster, those of variables among them.
    pub images: u64,
    /// Of variables.
    pub variables: u64,
}

/// Pieces of memory that are needed for a part of a run, and where each lies.
pub(super) struct Shared {
    /// Numbers of the roots.
    pub roots: Vec<usize>,
    pub needs: Vec<Need>,
    pub layout: Layout,
}

impl Shared {
    fn of(roots: Vec<usize>, need: impl Fn(usize) -> Need, lay_out: impl Fn(&[Need]) -> Layout) -> Self {
        let needs: Vec<_> = roots.iter().map(|&root| need(root)).collect();
        let layout = lay_out(&needs);
        Self { roots, needs, layout }
    }
    /// Bytes of what they lie in.
    fn bytes(&self) -> u64 {
        self.layout.buffers.iter().sum()
    }
}

/// All that runs share memory for.
pub(super) struct Arena {
    pub buffers: Shared,
    pub images: Shared,
}

impl Arena {
    /// For a run that ends with the host reading `wanted`. With `sentinel` bytes around it every tensor has memory of its own, so that an
    /// overrun meets a sentinel and not a neighbour.
    pub fn of(lowered: &Lowered, wanted: &[Tensor], sentinel: u64) -> Self {
        let Lowered { steps, roots, operands, .. } = lowered;
        let mut life: Vec<Option<(usize, usize)>> = vec![None; roots.len()];
        for (at, step) in steps.iter().enumerate() {
            for window in step.dispatch.windows() {
                life[window.root].get_or_insert((at, at)).1 = at;
            }
        }
        for tensor in wanted {
            life[operands[tensor].root].get_or_insert((0, 0)).1 = steps.len();
        }
        let lives = (0..roots.len()).filter(|&r| roots[r].leaf.is_none() && life[r].is_some());
        let (images, buffers) = lives.partition(|&r| roots[r].storage == Storage::Image);
        let need = |r: usize| {
            let (first, last) = life[r].unwrap_or_default();
            Need { bytes: roots[r].bytes(), first, last }
        };
        let apart = |needs: &[Need]| Layout {
            place: (0..needs.len()).collect(),
            buffers: needs.iter().map(|n| n.bytes.next_multiple_of(256) + 2 * sentinel).collect(),
        };
        let lay_out = |needs: &[Need]| if sentinel > 0 { apart(needs) } else { arena::lay_out(needs) };
        Self { buffers: Shared::of(buffers, need, lay_out), images: Shared::of(images, need, arena::lay_out) }
    }

    /// What a plan takes with it.
    pub fn memory(&self, lowered: &Lowered) -> Memory {
        let mut memory = Memory {
            arena: self.buffers.bytes(),
            planned: self.buffers.needs.iter().map(|need| need.bytes).sum(),
            images: self.images.bytes(),
            variables: 0,
        };
        let imaged = lowered.imaged_variables();
        for root in &lowered.roots {
            if let Root { leaf: Some(Leaf::Variable(name)), .. } = root {
                memory.variables += root.bytes();
                memory.images += if imaged.contains(name.as_str()) { root.bytes() } else { 0 };
            }
        }
        memory
    }
}
