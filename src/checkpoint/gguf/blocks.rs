//! ggml's blocks of numbers (ggml-common.h, ggml-quants.c): how long they are, what they stand for, and which of them narrow storage
//! holds as they are.

use crate::ops::Parts;
use half::{bf16, f16};

/// How a tensor's numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockType {
    /// 32-bit floats.
    F32,
    /// 16-bit floats.
    F16,
    /// The upper half of 32-bit floats.
    Bf16,
    /// 32 numbers of 4 bits, and a scale.
    Q4_0,
    /// 32 numbers of 4 bits, a scale and a minimum.
    Q4_1,
    /// 32 numbers of 5 bits, and a scale.
    Q5_0,
    /// 32 numbers of 5 bits, a scale and a minimum.
    Q5_1,
    /// 32 numbers of 8 bits, and a scale.
    Q8_0,
    /// 256 numbers of 4 bits in 8 parts, whose scales and minima have 6 bits.
    Q4K,
    /// 256 numbers of 5 bits in 8 parts, whose scales and minima have 6 bits.
    Q5K,
    /// 256 numbers of 6 bits in 16 parts, whose scales have 8 bits.
    Q6K,
}

fn half_at(block: &[u8], at: usize) -> f16 {
    f16::from_le_bytes([block[at], block[at + 1]])
}

/// The 6-bit scale and minimum of part `j` of a block of 256, of the 12 bytes that hold all eight (`get_scale_min_k4`).
fn six_bits(packed: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (packed[j + 4] & 15 | packed[j - 4] >> 6 << 4, packed[j + 4] >> 4 | packed[j] >> 6 << 4)
    }
}

/// Half bytes of 32 numbers: the first 16 in the low halves.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> + '_ {
    bytes[..16].iter().map(|b| b & 15).chain(bytes[..16].iter().map(|b| b >> 4))
}

impl BlockType {
    /// Those that are known.
    pub const NAMES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K and Q6_K";

    /// The type of that number in a file.
    pub fn new(number: u32) -> Option<Self> {
        Some(match number {
            0 => Self::F32,
            1 => Self::F16,
            2 => Self::Q4_0,
            3 => Self::Q4_1,
            6 => Self::Q5_0,
            7 => Self::Q5_1,
            8 => Self::Q8_0,
            12 => Self::Q4K,
            13 => Self::Q5K,
            14 => Self::Q6K,
            30 => Self::Bf16,
            _ => return None,
        })
    }

    /// Numbers in a block, and its bytes.
    pub fn block(self) -> (usize, usize) {
        match self {
            Self::F32 => (1, 4),
            Self::F16 | Self::Bf16 => (1, 2),
            Self::Q4_0 => (32, 18),
            Self::Q4_1 => (32, 20),
            Self::Q5_0 => (32, 22),
            Self::Q5_1 => (32, 24),
            Self::Q8_0 => (32, 34),
            Self::Q4K => (256, 144),
            Self::Q5K => (256, 176),
            Self::Q6K => (256, 210),
        }
    }

    /// What whole blocks stand for.
    pub(super) fn unpack(self, bytes: &[u8]) -> Vec<f32> {
        let (numbers, size) = self.block();
        let mut values = Vec::with_capacity(bytes.len() / size * numbers);
        for block in bytes.chunks_exact(size) {
            self.unpack_block(block, &mut values);
        }
        values
    }

    fn unpack_block(self, block: &[u8], to: &mut Vec<f32>) {
        let scale = |at| half_at(block, at).to_f32();
        // The fifth bits of 32 numbers, from a place in the block.
        let fifth = |at: usize, i: usize| block[at + i / 8] >> (i % 8) & 1;
        match self {
            Self::F32 => to.push(f32::from_le_bytes([block[0], block[1], block[2], block[3]])),
            Self::F16 => to.push(scale(0)),
            Self::Bf16 => to.push(bf16::from_le_bytes([block[0], block[1]]).to_f32()),
            Self::Q4_0 => to.extend(nibbles(&block[2..]).map(|q| scale(0) * (f32::from(q) - 8.0))),
            Self::Q4_1 => to.extend(nibbles(&block[4..]).map(|q| scale(0) * f32::from(q) + scale(2))),
            Self::Q5_0 => {
                let five = nibbles(&block[6..]).enumerate().map(|(i, q)| q | fifth(2, i) << 4);
                to.extend(five.map(|q| scale(0) * (f32::from(q) - 16.0)));
            }
            Self::Q5_1 => {
                let five = nibbles(&block[8..]).enumerate().map(|(i, q)| q | fifth(4, i) << 4);
                to.extend(five.map(|q| scale(0) * f32::from(q) + scale(2)));
            }
            Self::Q8_0 => to.extend(block[2..].iter().map(|q| scale(0) * f32::from(q.cast_signed()))),
            Self::Q4K | Self::Q5K => {
                let five = self == Self::Q5K;
                let (high, low) = (&block[16..48], &block[if five { 48 } else { 16 }..]);
                for j in 0..8 {
                    let (s, m) = six_bits(&block[4..16], j);
                    let (d, min) = (scale(0) * f32::from(s), scale(2) * f32::from(m));
                    for i in 0..32 {
                        let byte = low[j / 2 * 32 + i];
                        let q = if j % 2 == 0 { byte & 15 } else { byte >> 4 };
                        let q = if five { q | (high[i] >> j & 1) << 4 } else { q };
                        to.push(d * f32::from(q) - min);
                    }
                }
            }
            Self::Q6K => {
                let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
                let d = scale(208);
                for i in 0..256 {
                    // Two halves of four quarters of 32.
                    let (half, quarter, l) = (i / 128, i % 128 / 32, i % 32);
                    let byte = low[half * 64 + quarter % 2 * 32 + l];
                    let four = if quarter < 2 { byte & 15 } else { byte >> 4 };
                    let two = high[half * 32 + l] >> (2 * quarter) & 3;
                    let q = f32::from(four | two << 4) - 32.0;
                    to.push(d * f32::from(scales[half * 8 + quarter * 2 + l / 16].cast_signed()) * q);
                }
            }
        }
    }

    /// Whole blocks as parts of narrow storage with blocks of 32: of those with 8 or 4 bits.
    pub(super) fn parts(self, bytes: &[u8]) -> Option<Parts> {
        let mut parts = Parts { weights: Vec::new(), scales: Vec::new(), minima: Vec::new() };
        if !matches!(self, Self::Q4_0 | Self::Q4_1 | Self::Q8_0 | Self::Q4K) {
            return None;
        }
        for block in bytes.chunks_exact(self.block().1) {
            let scale = half_at(block, 0);
            match self {
                Self::Q8_0 => {
                    parts.scales.push(scale);
                    parts.weights.extend(&block[2..]);
                }
                Self::Q4K => {
                    for j in 0..8 {
                        let (s, m) = six_bits(&block[4..16], j);
                        parts.scales.push(f16::from_f32(scale.to_f32() * f32::from(s)));
                        parts.minima.push(f16::from_f32(-half_at(block, 2).to_f32() * f32::from(m)));
                        let bytes = &block[16 + j / 2 * 32..][..32];
                        put(&mut parts.weights, bytes.iter().map(|b| if j % 2 == 0 { b & 15 } else { b >> 4 }));
                    }
                }
                _ => {
                    // Eight steps below zero, which is a power of two: no rounding.
                    let min = if self == Self::Q4_0 { f16::from_f32(-8.0 * scale.to_f32()) } else { half_at(block, 2) };
                    parts.scales.push(scale);
                    parts.minima.push(min);
                    put(&mut parts.weights, nibbles(&block[self.block().1 - 16..]));
                }
            }
        }
        Some(parts)
    }
}

/// Numbers of 4 bits in the order of narrow storage: of eight neighbours byte i holds number i and number i + 4.
fn put(to: &mut Vec<u8>, numbers: impl Iterator<Item = u8>) {
    let numbers: Vec<u8> = numbers.collect();
    for eight in numbers.chunks_exact(8) {
        to.extend((0..4).map(|i| eight[i] | eight[i + 4] << 4));
    }
}
