//! Weights in narrow storage: 16-bit floats, or whole numbers of 8 or 4 bits in blocks with a scale. Kernels compute in 32 bits
//! whatever a weight is stored as, and a graph knows nothing of it.
//!
//! A packed matrix is stored as rows along which products add up (n rows, k long), whichever way round the graph has it, so that
//! lanes read along k. In memory: the rows of weights, one after another, each whole vectors of 16 bytes; then, from an aligned
//! place on, the rows of scales. Like a variable's memory, that of a matrix that is not transposed goes on behind its rows with zeros.
//!
//! | format | weights | scales, a block |
//! |---|---|---|
//! | f32, f16, bf16 | as they are, rows filled up with zeros | none |
//! | q8 | `x = scale * q`, q from -127 to 127, a byte | a 16-bit float, two a word |
//! | q4 | `x = scale * q + min`, q from 0 to 15; of eight neighbours byte i holds number i (low) and i + 4 (high) | scale and min, 16-bit floats in a word |
//!
//! q8 with blocks of 32 holds what llama.cpp calls Q8_0, and q4 what it calls Q4_0 and Q4_1.

mod packed;
mod round;

use super::{OpError, ROW_UNIT, Shape, ensure};
pub use packed::{Packed, Parts};
use std::{fmt, ops::Range};

/// How the numbers of a packed matrix are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper half of 32-bit floats.
    Bf16,
    /// A byte each, in blocks of `group` with a scale.
    Q8 {
        /// Numbers in a block: 32 or 64.
        group: usize,
    },
    /// Half a byte each, in blocks of `group` with a scale and a minimum.
    Q4 {
        /// Numbers in a block: 32 or 64.
        group: usize,
    },
}

impl Format {
    /// Numbers that share a scale; 1 where there is none.
    pub fn group(self) -> usize {
        match self {
            Self::Q8 { group } | Self::Q4 { group } => group,
            _ => 1,
        }
    }

    /// The format of that word, with blocks of `group` where it has any.
    pub fn parse(word: &str, group: usize) -> Option<Self> {
        Some(match word {
            "f32" => Self::F32,
            "f16" => Self::F16,
            "bf16" => Self::Bf16,
            "q8" => Self::Q8 { group },
            "q4" => Self::Q4 { group },
            _ => return None,
        })
    }

    /// As kernels and files have it, without the block's length.
    pub fn word(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8 { .. } => "q8",
            Self::Q4 { .. } => "q4",
        }
    }

    /// Numbers in 16 bytes.
    pub fn step(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 8,
            Self::Q8 { .. } => 16,
            Self::Q4 { .. } => 32,
        }
    }

    /// Whether blocks have scales.
    pub fn scaled(self) -> bool {
        matches!(self, Self::Q8 { .. } | Self::Q4 { .. })
    }
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Q8 { group } | Self::Q4 { group } => write!(f, "{}/{group}", self.word()),
            _ => f.write_str(self.word()),
        }
    }
}

/// The layout of a packed matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Packing {
    /// How its numbers are stored.
    pub format: Format,
    /// The graph has it as `[k, rows]`, not as `[rows, k]`.
    pub transposed: bool,
    /// Stored rows: outputs of a product, or rows of a table.
    pub rows: usize,
    /// The length of a row, along which a product adds up.
    pub k: usize,
}

/// Where scales begin, words: aligned for every adapter.
const ALIGNED: usize = 64;

impl Packing {
    /// The layout of a matrix that a graph has as `shape`, and along whose dimension `along` products add up.
    ///
    /// # Errors
    /// It is no matrix, is empty or too large, or its rows are not made of whole blocks.
    pub fn new(format: Format, shape: &Shape, along: usize) -> Result<Self, OpError> {
        ensure(shape.rank() == 2 && along < 2 && shape.elements() > 0, || format!("{shape} is no matrix that can be packed"))?;
        let (k, rows) = (shape.0[along], shape.0[1 - along]);
        let group = format.group();
        ensure(!format.scaled() || [32, 64].contains(&group), || format!("blocks of {group} are not supported; 32 and 64 are"))?;
        ensure(k % group == 0, || format!("rows of {k} are not made of blocks of {group}"))?;
        let packing = Self { format, transposed: along == 0, rows, k };
        let words =
            packing.row_words().checked_add(packing.scale_words()).and_then(|words| words.checked_mul(packing.stored_rows()));
        ensure(words.is_some_and(|words| words < u32::MAX as usize - ALIGNED), || format!("{shape} is too large to be packed"))?;
        Ok(packing)
    }

    /// The shape that the graph has.
    pub fn shape(&self) -> Shape {
        if self.transposed { [self.k, self.rows].into() } else { [self.rows, self.k].into() }
    }

    /// Rows in memory, with those of zeros behind its own.
    pub fn stored_rows(&self) -> usize {
        if self.transposed { self.rows } else { self.rows.next_multiple_of(ROW_UNIT) }
    }

    /// Whether a tensor of this shape is the matrix, perhaps with the rows behind its own.
    pub fn is(&self, shape: &Shape) -> bool {
        *shape == self.shape() || (!self.transposed && *shape == Shape::from([self.stored_rows(), self.k]))
    }

    /// Words of a row's weights; a multiple of four.
    pub fn row_words(&self) -> usize {
        4 * self.k.div_ceil(self.format.step())
    }

    /// Words of a row's scales.
    pub fn scale_words(&self) -> usize {
        match self.format {
            Format::Q8 { group } => (self.k / group).div_ceil(2),
            Format::Q4 { group } => self.k / group,
            _ => 0,
        }
    }

    /// The first word of the scales.
    fn scales_at(&self) -> usize {
        (self.stored_rows() * self.row_words()).next_multiple_of(ALIGNED)
    }

    /// All words.
    pub fn words(&self) -> usize {
        let rows = self.stored_rows();
        if self.format.scaled() { self.scales_at() + rows * self.scale_words() } else { rows * self.row_words() }
    }

    /// The words of the weights of rows `rows`.
    pub fn weights(&self, rows: &Range<usize>) -> Range<usize> {
        rows.start * self.row_words()..rows.end * self.row_words()
    }

    /// The words of the scales of rows `rows`.
    pub fn scales(&self, rows: &Range<usize>) -> Range<usize> {
        let at = self.scales_at();
        at + rows.start * self.scale_words()..at + rows.end * self.scale_words()
    }

    /// Bytes in memory.
    pub fn bytes(&self) -> u64 {
        4 * self.words() as u64
    }

    /// The same in whole vectors of 16.
    pub fn vector_bytes(&self) -> u64 {
        self.bytes().next_multiple_of(16)
    }
}
