//! Products by cooperative matrices (tensor cores): the tiles there are, and what each asks of the adapter.
//!
//! A tile is counted in matrices, so that an adapter with matrices of 8 x 8 runs what one with 16 x 16 does, at half the size.

use crate::{
    gpu::{Capabilities, Kernel},
    kernel,
};

/// The tile of a workgroup, in cooperative matrices of `side` x `side`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Tile {
    /// Along m and n.
    group: [usize; 2],
    /// What each subgroup makes of it.
    subgroup: [usize; 2],
    /// Along k, in a step.
    k: usize,
    side: usize,
    /// Of a subgroup.
    lanes: usize,
}

/// Group, subgroup, k. Large tiles do more arithmetic for each load (with 16 x 16 matrices 64x64 of a subgroup fill its registers),
/// small ones fill the adapter sooner. Each was the fastest for something on an H100, when 33 were timed in turn, or is small.
const TILES: [([usize; 2], [usize; 2], usize); 6] = [
    ([2, 2], [1, 2], 2),
    ([4, 4], [2, 2], 2),
    ([8, 4], [4, 2], 2),
    ([8, 8], [2, 4], 4),
    ([8, 8], [4, 2], 4),
    ([8, 8], [4, 4], 2),
];

/// Halves of padding behind a row in workgroup memory, as in the shader.
const PADDING: usize = 8;
/// Numbers of padding behind a row of sums there, as in the shader.
const SUMS_PADDING: usize = 8;
/// Workgroup memory, bytes, that a workgroup had better stay below: those of 38 KB lost a third of their rate on an H200, it seems because
/// two of them did not share a multiprocessor.
const SHARED: usize = 28 << 10;
/// Elements that an invocation fetches at a time.
const FETCH: usize = 8;

/// The tiles that the adapter can do; none where it has no such matrices.
pub(super) fn tiles(caps: &Capabilities) -> Vec<Tile> {
    let (Some(matrices), Some(lanes)) = (caps.matrices(), caps.subgroup) else { return Vec::new() };
    let (side, lanes) = (matrices.size as usize, lanes as usize);
    TILES
        .into_iter()
        .map(|(group, subgroup, k)| Tile { group, subgroup, k, side, lanes })
        .filter(|tile| tile.fits(caps))
        .collect()
}

impl Tile {
    /// Outputs of a workgroup along m and n.
    pub(super) fn sides(self) -> [usize; 2] {
        self.group.map(|matrices| matrices * self.side)
    }

    /// Steps of k that are taken at once.
    pub(super) fn step(self) -> usize {
        self.k * self.side
    }

    /// Whether a product of these sizes is made of whole tiles.
    pub(super) fn divides(self, (m, n, k): (usize, usize, usize)) -> bool {
        let [tile_m, tile_n] = self.sides();
        m % tile_m == 0 && n % tile_n == 0 && k % self.step() == 0
    }

    fn threads(self) -> usize {
        self.lanes * (self.group[0] / self.subgroup[0]) * (self.group[1] / self.subgroup[1])
    }

    /// Bytes of workgroup memory: the operands' tiles as the layout with the longer padding has them, and a row of `out` matrices
    /// of sums a subgroup.
    fn memory(self, out: usize) -> usize {
        let [m, n] = self.sides();
        let padded = |long: usize, wide: usize| (long * (wide + PADDING)).max(wide * (long + PADDING));
        let operands = 2 * (padded(m, self.step()) + padded(n, self.step()));
        operands + 4 * (self.threads() / self.lanes) * self.side * (self.side * out + SUMS_PADDING)
    }

    fn fits(self, caps: &Capabilities) -> bool {
        let whole = self.sides().iter().all(|side| side * self.step() % (FETCH * self.threads()) == 0);
        let threads = self.threads() <= caps.max_invocations as usize;
        threads && whole && self.memory(1) <= caps.workgroup_memory as usize
    }

    /// As the cache of measurements and tables have it.
    pub(super) fn name(self) -> String {
        let [m, n] = self.sides();
        let [a, b] = self.subgroup.map(|matrices| matrices * self.side);
        format!("cooperative {m}x{n}x{} by {a}x{b}", self.step())
    }

    /// The variant. `even`: the product is made of whole tiles, and nothing needs a guard.
    pub(super) fn kernel(self, caps: &Capabilities, even: bool) -> Kernel {
        let most = SHARED.min(caps.workgroup_memory as usize);
        let out = [4, 2, 1].into_iter().find(|&out| self.subgroup[1] % out == 0 && self.memory(out) <= most).unwrap_or(1);
        kernel!("matmul_cooperative")
            .with("SIDE", self.side as u32)
            .with("LANES", self.lanes as u32)
            .with("GM", self.group[0] as u32)
            .with("GN", self.group[1] as u32)
            .with("SM", self.subgroup[0] as u32)
            .with("SN", self.subgroup[1] as u32)
            .with("K", self.k as u32)
            .with("OUT", out as u32)
            .with("EVEN", even)
    }
}
