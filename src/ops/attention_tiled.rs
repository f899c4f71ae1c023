//! The blocks of attention's kernels for real GPUs, which go through workgroup memory.

use super::attention_kernels::Pass;
use crate::{
    gpu::{Capabilities, Kernel},
    kernel,
};

/// What a workgroup computes at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Block {
    /// Rows of its own side: queries, or keys where their gradients are made.
    rows: usize,
    /// Rows of the other side that it meets in a step.
    columns: usize,
    /// Rows of the scores that a lane makes, by four columns.
    by: usize,
}

const fn block(rows: usize, columns: usize, by: usize) -> Block {
    Block { rows, columns, by }
}

/// Those that are taken without measuring come first, if they fit the adapter and fill it.
const FORWARD: [Block; 6] =
    [block(64, 64, 4), block(64, 64, 8), block(64, 32, 4), block(32, 32, 4), block(32, 16, 4), block(16, 16, 2)];
const BACKWARD: [Block; 5] = [block(32, 64, 4), block(64, 32, 4), block(32, 32, 4), block(32, 16, 4), block(16, 16, 2)];

/// The blocks that fit the adapter, for heads `d` wide.
pub(super) fn blocks(caps: &Capabilities, d: usize, pass: Pass) -> Vec<Block> {
    let list = if pass == Pass::Forward { &FORWARD[..] } else { &BACKWARD[..] };
    list.iter().copied().filter(|block| block.fits(caps, d, pass)).collect()
}

impl Block {
    /// Rows of a workgroup.
    pub fn rows(self) -> usize {
        self.rows
    }

    fn lanes(self) -> usize {
        self.rows / self.by * (self.columns / 4)
    }

    /// Bytes of workgroup memory for heads `d` wide, with so many tiles of rows and of columns, and one of scores.
    fn memory(self, d: usize, rows: usize, columns: usize) -> usize {
        // Every four rows of columns are a vector further apart, unless rows are multiples of eight vectors.
        let padding = if d % 32 == 0 { 0 } else { self.columns / 4 * 4 };
        4 * (rows * self.rows * d + columns * (self.columns * d + padding) + self.rows * self.columns)
    }

    fn fits(self, caps: &Capabilities, d: usize, pass: Pass) -> bool {
        let rows = if pass == Pass::Forward { 1 } else { 2 };
        self.lanes() <= caps.max_invocations as usize && self.memory(d, rows, 1) <= caps.workgroup_memory as usize
    }

    /// As the cache of measurements and tables have it.
    pub fn name(self) -> String {
        format!("tiled {}x{} by {}x4", self.rows, self.columns, self.by)
    }

    /// The variant of `attention_tiled` or `attention_backward_tiled` for heads `d` wide.
    pub fn kernel(self, caps: &Capabilities, d: usize, pass: Pass) -> Kernel {
        let kernel = match pass {
            Pass::Forward => kernel!("attention_tiled"),
            // A second tile of columns saves a load and a barrier, where there is room for it.
            Pass::Backward => kernel!("attention_backward_tiled")
                .with("BOTH", self.memory(d, 2, 2) <= caps.workgroup_memory as usize),
        };
        kernel
            .with("D", d as u32)
            .with("ROWS", self.rows as u32)
            .with("COLUMNS", self.columns as u32)
            .with("TM", self.by as u32)
    }
}
