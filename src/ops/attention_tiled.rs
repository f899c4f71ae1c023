//! The blocks of attention's kernels for real GPUs, which go through workgroup memory.
//!
//! Where subgroups are all of one size, there are blocks whose scores never leave their lanes' registers. The columns / 4 lanes that have
//! a row of scores between them are then part of one subgroup. Per step that saves a tile of rows x columns in workgroup memory, the
//! stores to it and what waits for them: two barriers are left of five (of a backward block's keys of five as well, of its queries
//! of three), those around k and v, which all of the workgroup's subgroups read. These tiles are worth their barriers: read
//! straight from storage, k and v would be 8 d bytes a key for each subgroup, whose lanes / (columns / 4) * by rows are 4 to 32
//! times fewer than a workgroup's, and lanes side by side would read 16 bytes each of rows 4 d bytes apart.
//! The price: a lane takes a probability from another by one shuffle a number, where workgroup memory gives four at once. A number is
//! worth d / columns vectors of four multiply-adds. An NVIDIA GPU shuffles 32 numbers a clock while it does 128 multiply-adds, so
//! that with as many columns as d shuffles alone would take as long as arithmetic; with half or a quarter of them they hide behind it. So
//! these blocks have 16 or 32 columns, and more rows instead. None of this has been measured on a GPU yet.

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
    /// The subgroups' size, where they exchange scores by shuffles.
    subgroup: Option<usize>,
}

const fn block(rows: usize, columns: usize, by: usize) -> Block {
    Block { rows, columns, by, subgroup: None }
}

/// Those that are taken without measuring come first, if they fit the adapter and fill it.
const FORWARD: [Block; 6] =
    [block(64, 64, 4), block(64, 64, 8), block(64, 32, 4), block(32, 32, 4), block(32, 16, 4), block(16, 16, 2)];
const BACKWARD: [Block; 5] = [block(32, 64, 4), block(64, 32, 4), block(32, 32, 4), block(32, 16, 4), block(16, 16, 2)];

/// Those with scores in registers.
const SHUFFLED_FORWARD: [Block; 3] = [block(64, 32, 4), block(128, 32, 8), block(32, 16, 4)];
const SHUFFLED_BACKWARD: [Block; 3] = [block(64, 32, 4), block(32, 32, 4), block(32, 16, 4)];

/// The blocks with scores in registers that fit the adapter, for heads `d` wide; none where subgroups differ in size.
pub(super) fn shuffled(caps: &Capabilities, d: usize, pass: Pass) -> Vec<Block> {
    let Some(lanes) = caps.subgroup.map(|lanes| lanes as usize) else { return Vec::new() };
    let list = if pass == Pass::Forward { SHUFFLED_FORWARD } else { SHUFFLED_BACKWARD };
    let blocks = list.into_iter().map(|block| Block { subgroup: Some(lanes), ..block });
    // A row's lanes are of one subgroup, and all subgroups are full.
    let whole = |block: &Block| lanes % (block.columns / 4) == 0 && block.lanes() % lanes == 0;
    blocks.filter(|block| whole(block) && block.fits(caps, d, pass)).collect()
}

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

    /// Bytes of workgroup memory for heads `d` wide, with so many tiles of rows and of columns, and one of scores unless they stay in
    /// registers.
    fn memory(self, d: usize, rows: usize, columns: usize) -> usize {
        // Every four rows of columns are a vector further apart, unless rows are multiples of eight vectors.
        let padding = if d % 32 == 0 { 0 } else { self.columns / 4 * 4 };
        let scores = if self.subgroup.is_some() { 0 } else { self.rows * self.columns };
        4 * (rows * self.rows * d + columns * (self.columns * d + padding) + scores)
    }

    /// Whether columns have two tiles: that saves a barrier or two and, in the backward pass, a load.
    fn both(self, caps: &Capabilities, d: usize, pass: Pass) -> bool {
        let rows = if pass == Pass::Forward { 1 } else { 2 };
        let wanted = pass == Pass::Backward || self.subgroup.is_some();
        wanted && self.memory(d, rows, 2) <= caps.workgroup_memory as usize
    }

    fn fits(self, caps: &Capabilities, d: usize, pass: Pass) -> bool {
        let rows = if pass == Pass::Forward { 1 } else { 2 };
        self.lanes() <= caps.max_invocations as usize && self.memory(d, rows, 1) <= caps.workgroup_memory as usize
    }

    /// As the cache of measurements and tables have it.
    pub fn name(self) -> String {
        let kind = if self.subgroup.is_some() { "shuffled" } else { "tiled" };
        format!("{kind} {}x{} by {}x4", self.rows, self.columns, self.by)
    }

    /// The variant of `attention_tiled` or `attention_backward_tiled` for heads `d` wide.
    pub fn kernel(self, caps: &Capabilities, d: usize, pass: Pass) -> Kernel {
        let kernel = match pass {
            Pass::Forward => kernel!("attention_tiled"),
            Pass::Backward => kernel!("attention_backward_tiled"),
        };
        kernel
            .with("BOTH", self.both(caps, d, pass))
            .with("SUBGROUP", self.subgroup.unwrap_or(0) as u32)
            .with("D", d as u32)
            .with("ROWS", self.rows as u32)
            .with("COLUMNS", self.columns as u32)
            .with("TM", self.by as u32)
    }
}
