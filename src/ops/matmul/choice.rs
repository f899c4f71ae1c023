//! Which kernels can compute a product on which adapter, and which a rule of thumb takes.

use super::{
    MatMul, Sizes,
    cooperative::{self, Tile},
};
use crate::gpu::Capabilities;

/// Up to this many rows a product is a set of matrix-vector products.
const FEW_ROWS: usize = 8;

/// From this many multiplications on, a product is worth a kernel that takes long to compile.
const LARGE: usize = 1 << 26;

/// A kernel for a product.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Choice {
    /// From storage: rows of outputs that a workgroup makes, and how many times four columns each of its lanes does.
    Direct { rows: usize, columns: usize, lanes: usize },
    /// Through workgroup memory: the tile of a workgroup, that of a thread, and in how many parts k is taken at once.
    Tiled { tile: [usize; 2], thread: [usize; 2], split: usize },
    /// A few rows by columns of b.
    Rows,
    /// A few rows by rows of b.
    Dot,
    /// By cooperative matrices: operands are rounded to 16 bits.
    Cooperative { tile: Tile, split: usize },
}

impl Choice {
    /// As the cache of measurements and tables have it.
    pub(super) fn name(self) -> String {
        match self {
            Self::Direct { rows, columns, lanes } => format!("direct {rows}x{}", 4 * lanes * columns),
            Self::Tiled { tile: [m, n], thread: [a, b], split } => format!("tiled {m}x{n} by {a}x{b}{}", parted(split)),
            Self::Rows => "rows".into(),
            Self::Dot => "dot".into(),
            Self::Cooperative { tile, split } => format!("{}{}", tile.name(), parted(split)),
        }
    }

    /// In how many parts k is taken at once.
    pub(super) fn split(self) -> usize {
        match self {
            Self::Tiled { split, .. } | Self::Cooperative { split, .. } => split,
            _ => 1,
        }
    }

    /// The kernel for one of these parts.
    pub(super) fn whole(self) -> Self {
        match self {
            Self::Tiled { tile, thread, .. } => Self::Tiled { tile, thread, split: 1 },
            Self::Cooperative { tile, .. } => Self::Cooperative { tile, split: 1 },
            other => other,
        }
    }
}

/// In how many parts k is taken, in words.
fn parted(split: usize) -> String {
    if split == 1 { String::new() } else { format!(", k in {split}") }
}

/// Tiles of a workgroup and of a thread: large ones do more arithmetic for each load, small ones fill the adapter sooner.
const TILES: [([usize; 2], [usize; 2]); 5] =
    [([32, 32], [4, 4]), ([64, 64], [4, 4]), ([128, 64], [8, 4]), ([128, 128], [8, 8]), ([128, 128], [16, 8])];

/// Steps of k that tiles hold, as in the shader.
pub(super) const TILE_K: usize = 16;
/// Numbers between rows that are stored transposed.
pub(super) const PAD: usize = 4;

/// Whether a tile's operands fit.
pub(super) fn tiles_fit(caps: &Capabilities, tile: [usize; 2], pad: usize) -> bool {
    4 * TILE_K * (tile[0] + tile[1] + 2 * pad) <= caps.workgroup_memory as usize
}

/// Outputs of a workgroup that is one subgroup, which reads b from storage and broadcasts a: rows, and columns a lane in vectors. It
/// needs neither workgroup memory nor barriers, which is for GPUs whose workgroup memory is no faster than their caches (Mali), and
/// whose broadcasts cost nothing (a read of a scalar register on AMD). Per step of k it reads 16 bytes a lane and vector of
/// columns, and 64 bytes of a, for 16 * 8 FLOPs a lane and vector: 8 FLOPs a byte, half of what a tile of 64x64 does, and
/// what caches must give again to each subgroup. A broadcast is worth four multiply-adds a lane, or eight, where an NVIDIA GPU does
/// four in the time of one. More rows than 16 by 8 do not fit the registers of all GPUs.
const SUBGROUP_ROWS: usize = 16;
const SUBGROUP_COLUMNS: [usize; 2] = [1, 2];

/// Workgroups that fill a GPU of some tens of cores, each holding several.
const FULL: usize = 192;
/// The most parts that k is taken in.
const MOST_PARTS: usize = 16;

/// How many parts of k give a grid of `groups` enough workgroups. Parts are of equal length, in vectors of four.
fn parts(groups: usize, k: usize) -> usize {
    let mut split = 1;
    // Parts of less than 256 are not worth the sum.
    while groups * split < FULL && split < MOST_PARTS && k % (8 * split) == 0 && k / (2 * split) >= 256 {
        split *= 2;
    }
    split
}

/// The kernels that can do a product, and the place of the one that a rule of thumb takes. The first is the simplest, which
/// others are checked against. `mixed`: operands may be rounded to 16 bits. `packed`: b is to be unpacked.
pub(super) fn candidates(caps: &Capabilities, op: &MatMul, s: Sizes, mixed: bool, packed: bool) -> (Vec<Choice>, usize) {
    let (list, rule) = in_f32(caps, op, s, packed);
    let tiles = if mixed && s.m > FEW_ROWS { cooperative::tiles(caps) } else { Vec::new() };
    if tiles.is_empty() {
        return (list, rule);
    }
    // Of the others those that are needed, and one that is good where rows are not made of whole vectors: each takes a driver time.
    let (first, taken) = (list[0], list[rule]);
    let odd = |choice: &Choice| matches!(choice, Choice::Tiled { tile: [128, 64], split: 1, .. });
    let mut list: Vec<_> = list
        .into_iter()
        .enumerate()
        .filter(|(i, choice)| *i == 0 || *i == rule || odd(choice))
        .map(|(_, choice)| choice)
        .collect();
    let rule = if taken == first { 0 } else { list.iter().position(|choice| *choice == taken).unwrap_or(0) };
    // No rule takes one of these: they are experimental, so each is checked on the adapter at hand before it is used.
    let [whole, split] = [false, true].map(|split| {
        let wastes = |tile: &Tile| tile.sides()[0] >= 2 * s.m || tile.sides()[1] >= 2 * s.n;
        // The smallest, at least.
        let tiles = tiles.iter().enumerate().filter(move |(i, tile)| *i == 0 || !wastes(tile)).map(|(_, tile)| tile);
        let parts = move |tile: &Tile| if split { parts(grid(s, tile.sides()), s.k) } else { 1 };
        tiles.map(move |&tile| Choice::Cooperative { tile, split: parts(&tile) })
    });
    list.extend(whole);
    list.extend(split.filter(|choice| choice.split() > 1));
    (list, rule)
}

/// Workgroups of these tiles.
fn grid(s: Sizes, tile: [usize; 2]) -> usize {
    s.batch * s.m.div_ceil(tile[0]) * s.n.div_ceil(tile[1])
}

/// Those that compute in 32 bits.
fn in_f32(caps: &Capabilities, op: &MatMul, s: Sizes, packed: bool) -> (Vec<Choice>, usize) {
    let (software, spread) = (caps.software, caps.subgroup == Some(8));
    let few = s.m <= FEW_ROWS;
    let (transpose_a, transpose_b) = (op.layout.transpose_a, op.layout.transpose_b);
    if software && (packed || !(few && transpose_b && !transpose_a)) {
        let rule = direct(s, spread, caps.images);
        let mut list = vec![rule];
        if let Choice::Direct { rows: rows @ (32 | 64), columns, lanes } = rule {
            list.extend([16, 32, 64].into_iter().filter(|&r| r != rows && r <= s.m).map(|rows| Choice::Direct {
                rows,
                columns,
                lanes,
            }));
        }
        return (list, 0);
    }
    let tiled = |split: bool| {
        TILES.into_iter().map(move |(tile, thread)| {
            let split = if split { parts(grid(s, tile), s.k) } else { 1 };
            Choice::Tiled { tile, thread, split }
        })
    };
    let mut list: Vec<_> = if few && !transpose_a && transpose_b {
        vec![Choice::Dot]
    } else if few && !transpose_a {
        vec![Choice::Rows]
    } else {
        Vec::new()
    };
    let skinny = !list.is_empty();
    if !software {
        list.extend(tiled(false));
        // A sum over parts starts from nothing, so that only a whole product can be split.
        list.extend(tiled(true).filter(|choice| !matches!(choice, Choice::Tiled { split: 1, .. })));
    }
    let simple = list.len();
    if skinny {
        return (list, 0);
    }
    // The largest tile that fills the adapter; else the one that does with k in parts; else the smallest.
    let full = |choice: &Choice| matches!(choice, Choice::Tiled { tile, split, .. } if grid(s, *tile) * split >= FULL);
    let rule = (0..TILES.len()).rev().find(|&i| full(&list[i]));
    let rule = rule.or_else(|| (TILES.len()..simple).rev().find(|&i| full(&list[i])));
    let rule = rule.unwrap_or(if simple > TILES.len() { simple - 1 } else { 0 });
    if !few && let Some(lanes) = caps.subgroup {
        // No rule takes one of these: none has been measured on a GPU yet.
        list.extend(SUBGROUP_COLUMNS.map(|columns| Choice::Direct { rows: SUBGROUP_ROWS, columns, lanes: lanes as usize }));
    }
    (list, rule)
}

/// The variant that a software adapter likes: many rows pay for the loads of b, but the driver compiles 64 of them for a second
/// or two. Loads of images cost less.
fn direct(s: Sizes, spread: bool, images: bool) -> Choice {
    let rows = match s.m {
        0..=1 => 1,
        2 => 2,
        3..=4 => 4,
        5..=8 => 8,
        _ if !spread => 12,
        9..=16 => 16,
        _ if images || s.m < 64 || s.m * s.n * s.k < LARGE => 32,
        _ => 64,
    };
    Choice::Direct { rows, columns: if s.n > 32 && (rows <= 8 || images || !spread) { 2 } else { 1 }, lanes: 8 }
}
