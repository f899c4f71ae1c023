//! The blocks of attention's kernels with cooperative matrices (tensor cores), counted in matrices as those of products are.

use super::attention_kernels::Pass;
use crate::{
    gpu::{Capabilities, Kernel},
    kernel,
};

/// What a workgroup computes at a time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Block {
    subgroups: usize,
    /// Matrices along the rows that a subgroup has.
    by: usize,
    /// Matrices along the other side in a step.
    columns: usize,
    side: usize,
    /// Of a subgroup.
    lanes: usize,
}

/// Subgroups, rows of matrices of each, and matrices of columns.
const FORWARD: [[usize; 3]; 5] = [[4, 1, 4], [4, 1, 2], [8, 1, 2], [2, 2, 2], [4, 2, 2]];
const BACKWARD: [[usize; 3]; 5] = [[4, 1, 2], [4, 1, 1], [2, 1, 2], [2, 2, 2], [2, 2, 1]];

/// Halves of padding behind a row in workgroup memory, as in the shader.
const PADDING: usize = 8;
/// Bytes of what the forward kernel's lanes tell each other.
const FLAG: usize = 4;

/// The blocks that the adapter can do for heads `d` wide; none where it has no such matrices.
pub(super) fn blocks(caps: &Capabilities, d: usize, pass: Pass) -> Vec<Block> {
    let (Some(matrices), Some(lanes)) = (caps.matrices(), caps.subgroup) else { return Vec::new() };
    let (side, lanes) = (matrices.size as usize, lanes as usize);
    if d % side != 0 {
        return Vec::new();
    }
    let list = if pass == Pass::Forward { FORWARD } else { BACKWARD };
    let blocks = list.into_iter().map(|[subgroups, by, columns]| Block { subgroups, by, columns, side, lanes });
    blocks.filter(|block| block.fits(caps, d, pass)).collect()
}

impl Block {
    /// Rows of a workgroup.
    pub fn rows(self) -> usize {
        self.subgroups * self.by * self.side
    }

    fn wide(self) -> usize {
        self.columns * self.side
    }

    fn threads(self) -> usize {
        self.subgroups * self.lanes
    }

    /// Bytes of workgroup memory.
    fn memory(self, d: usize, pass: Pass) -> usize {
        let tile = |rows: usize| 2 * rows * (d + PADDING);
        let (rows, wide) = (self.rows(), self.wide());
        let (tiles, scores) = match pass {
            Pass::Forward => (tile(rows.max(2 * wide)) + FLAG, wide),
            Pass::Backward => (tile(rows.max(wide)) + tile(wide), 2 * wide),
        };
        // Floats of padding behind a row of scores, as in the shader.
        let pad = if self.threads() <= rows { 4 } else { 8 };
        tiles + rows * (4 * (scores + pad) + 2 * (scores + PADDING))
    }

    /// Whether the adapter has room for it, and each lane a share of a row of scores in whole vectors.
    fn fits(self, caps: &Capabilities, d: usize, pass: Pass) -> bool {
        let shared = self.threads() % self.rows() == 0 && self.wide() % (4 * (self.threads() / self.rows()).max(1)) == 0;
        let memory = self.memory(d, pass) <= caps.workgroup_memory as usize;
        shared && memory && self.threads() <= caps.max_invocations as usize
    }

    /// As the cache of measurements and tables have it.
    pub fn name(self) -> String {
        format!("cooperative {}x{} by {}", self.rows(), self.wide(), self.by * self.side)
    }

    /// The variant of `attention_cooperative` or `attention_backward_cooperative` for heads `d` wide.
    pub fn kernel(self, d: usize, pass: Pass) -> Kernel {
        let kernel = match pass {
            Pass::Forward => kernel!("attention_cooperative"),
            Pass::Backward => kernel!("attention_backward_cooperative"),
        };
        kernel
            .with("D", d as u32)
            .with("SIDE", self.side as u32)
            .with("LANES", self.lanes as u32)
            .with("SUBGROUPS", self.subgroups as u32)
            .with("BY", self.by as u32)
            .with("COLUMNS", self.columns as u32)
    }
}
