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

use super::{OpError, ROW_UNIT, Shape, ensure};
use half::{bf16, f16};
use rayon::prelude::*;
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

/// Rows that are packed at once.
const BAND: usize = 16;
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
        let words = packing.row_words().checked_add(packing.scale_words()).and_then(|words| words.checked_mul(packing.stored_rows()));
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

/// A packed matrix in host memory, as it is in the device's.
#[derive(Debug, Clone, PartialEq)]
pub struct Packed {
    packing: Packing,
    words: Vec<u32>,
}

/// The parts of a quantised matrix, as files have them: weights `[rows, k]` or, of q4, `[rows, k/2]`; one scale a block,
/// `[rows, k/group]`; minima likewise, which only q4 has.
pub struct Parts {
    /// The weights.
    pub weights: Vec<u8>,
    /// The scales.
    pub scales: Vec<f16>,
    /// The minima.
    pub minima: Vec<f16>,
}

impl Packed {
    /// Rounds `values`, in the graph's order, to the format.
    ///
    /// # Errors
    /// Their number is another one, or one of them is beyond what the format holds.
    pub fn pack(packing: Packing, values: &[f32]) -> Result<Self, OpError> {
        let (n, k) = (packing.rows, packing.k);
        ensure(values.len() == n * k, || format!("{} numbers are no {}", values.len(), packing.shape()))?;
        let (row_words, scale_words) = (packing.row_words(), packing.scale_words());
        let mut words = vec![0; packing.words()];
        let (weights, rest) = words.split_at_mut(packing.scales_at().min(packing.words()));
        // Some rows at once, so that columns are read by whole cache lines.
        let fill = |(band, (weights, scales)): (usize, (&mut [u32], &mut [u32]))| {
            let first = band * BAND;
            let here = BAND.min(n - first);
            let mut rows = vec![0.0; here * k];
            if packing.transposed {
                for i in 0..k {
                    (0..here).for_each(|row| rows[row * k + i] = values[i * n + first + row]);
                }
            } else {
                rows.copy_from_slice(&values[first * k..][..here * k]);
            }
            for (row, (from, weights)) in rows.chunks(k).zip(weights.chunks_mut(row_words)).enumerate() {
                let scales = if scale_words > 0 { &mut scales[row * scale_words..][..scale_words] } else { &mut [] };
                fill_row(packing.format, from, weights, scales)?;
            }
            Ok(())
        };
        let bands = weights[..n * row_words].par_chunks_mut(BAND * row_words);
        let result: Result<(), String> = if scale_words == 0 {
            bands.enumerate().try_for_each(|(band, weights)| fill((band, (weights, &mut []))))
        } else {
            bands.zip(rest[..n * scale_words].par_chunks_mut(BAND * scale_words)).enumerate().try_for_each(fill)
        };
        result.map_err(OpError::new)?;
        Ok(Self { packing, words })
    }

    /// A quantised matrix of its parts.
    ///
    /// # Errors
    /// A part is not of the length that the layout has, or the format has no such parts.
    pub fn from_parts(packing: Packing, parts: &Parts) -> Result<Self, OpError> {
        let blocks = packing.rows * (packing.k / packing.format.group());
        let (bytes, minima) = match packing.format {
            Format::Q8 { .. } => (packing.rows * packing.k, 0),
            Format::Q4 { .. } => (packing.rows * packing.k / 2, blocks),
            other => return Err(OpError::new(format!("{other} is not quantised"))),
        };
        let found = [parts.weights.len(), parts.scales.len(), parts.minima.len()];
        ensure(found == [bytes, blocks, minima], || {
            format!("parts of {found:?} instead of {:?} do not make {} of {}", [bytes, blocks, minima], packing.shape(), packing.format)
        })?;
        let mut words = vec![0; packing.words()];
        for (word, bytes) in words.iter_mut().zip(parts.weights.as_chunks().0) {
            *word = u32::from_le_bytes(*bytes);
        }
        let each = packing.k / packing.format.group();
        for row in 0..packing.rows {
            let scales = &mut words[packing.scales(&(row..row + 1))];
            let from = row * each..(row + 1) * each;
            if minima > 0 {
                let pairs = parts.scales[from.clone()].iter().zip(&parts.minima[from]);
                scales.iter_mut().zip(pairs).for_each(|(word, (&scale, &min))| *word = pair(scale, min));
            } else {
                put_scales(scales, parts.scales[from].iter().copied());
            }
        }
        Ok(Self { packing, words })
    }

    /// A packed matrix of the device's words.
    ///
    /// # Errors
    /// Their number is another one.
    pub fn from_words(packing: Packing, words: Vec<u32>) -> Result<Self, OpError> {
        ensure(words.len() == packing.words(), || format!("{} words are no {}", words.len(), packing.shape()))?;
        Ok(Self { packing, words })
    }

    /// Its layout.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// As the device has it.
    pub fn words(&self) -> &[u32] {
        &self.words
    }

    /// Its parts, if it is quantised; minima only of q4.
    pub fn parts(&self) -> Parts {
        let p = &self.packing;
        let each = p.k / p.format.group();
        let mut parts = Parts { weights: Vec::new(), scales: Vec::new(), minima: Vec::new() };
        parts.weights.extend(self.words[p.weights(&(0..p.rows))].iter().flat_map(|word| word.to_le_bytes()));
        for row in 0..p.rows {
            let words = self.words[p.scales(&(row..row + 1))].iter().map(|&word| unpair(word));
            match p.format {
                Format::Q8 { .. } => parts.scales.extend(words.flatten().take(each)),
                Format::Q4 { .. } => words.for_each(|[scale, min]| {
                    parts.scales.push(scale);
                    parts.minima.push(min);
                }),
                _ => {}
            }
        }
        parts
    }

    /// The numbers that it stands for, in the graph's order.
    pub fn unpack(&self) -> Vec<f32> {
        let p = &self.packing;
        let mut rows = vec![0.0; p.rows * p.k];
        rows.par_chunks_mut(p.k).enumerate().for_each(|(row, to)| self.unpack_row(row, to));
        if !p.transposed {
            return rows;
        }
        let mut values = vec![0.0; p.rows * p.k];
        values.par_chunks_mut(p.rows).enumerate().for_each(|(i, to)| {
            to.iter_mut().enumerate().for_each(|(row, value)| *value = rows[row * p.k + i]);
        });
        values
    }

    fn unpack_row(&self, row: usize, to: &mut [f32]) {
        let p = &self.packing;
        let weights = &self.words[p.weights(&(row..row + 1))];
        let scales = if p.format.scaled() { &self.words[p.scales(&(row..row + 1))] } else { &[] };
        let byte = |i: usize| weights[i / 4].to_le_bytes()[i % 4];
        for (i, value) in to.iter_mut().enumerate() {
            *value = match p.format {
                Format::F32 => f32::from_bits(weights[i]),
                Format::F16 => unpair(weights[i / 2])[i % 2].to_f32(),
                Format::Bf16 => f32::from_bits(weights[i / 2] >> (16 * (i % 2)) << 16),
                Format::Q8 { group } => unpair(scales[i / group / 2])[i / group % 2].to_f32() * f32::from(byte(i).cast_signed()),
                Format::Q4 { group } => {
                    let [scale, min] = unpair(scales[i / group]);
                    let two = byte(i / 8 * 4 + i % 4);
                    let q = if i % 8 < 4 { two & 15 } else { two >> 4 };
                    // As kernels do: one rounding.
                    scale.to_f32().mul_add(f32::from(q), min.to_f32())
                }
            };
        }
    }
}

/// Two 16-bit floats in a word, the first in the low half.
fn pair(low: f16, high: f16) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}

fn unpair(word: u32) -> [f16; 2] {
    [f16::from_bits(word as u16), f16::from_bits((word >> 16) as u16)]
}

/// Scales, two a word.
fn put_scales(words: &mut [u32], scales: impl Iterator<Item = f16>) {
    for (i, scale) in scales.enumerate() {
        words[i / 2] |= u32::from(scale.to_bits()) << (16 * (i % 2));
    }
}

/// Rounds a row.
fn fill_row(format: Format, from: &[f32], weights: &mut [u32], scales: &mut [u32]) -> Result<(), String> {
    if format.scaled()
        && let Some(x) = from.iter().find(|x| !x.is_finite())
    {
        return Err(format!("there is {x} in it, which {format} does not hold"));
    }
    match format {
        Format::F32 => weights.iter_mut().zip(from).for_each(|(word, x)| *word = x.to_bits()),
        Format::F16 | Format::Bf16 => {
            for (i, &x) in from.iter().enumerate() {
                let (bits, held) = if format == Format::F16 {
                    (f16::from_f32(x).to_bits(), f16::from_f32(x).is_finite())
                } else {
                    (bf16::from_f32(x).to_bits(), bf16::from_f32(x).is_finite())
                };
                if x.is_finite() && !held {
                    return Err(format!("{x} is more than {format} holds"));
                }
                weights[i / 2] |= u32::from(bits) << (16 * (i % 2));
            }
        }
        Format::Q8 { group } => {
            let blocks: Vec<_> = from.chunks(group).map(eight_bits).collect::<Result<_, _>>()?;
            put_scales(scales, blocks.iter().map(|(scale, _)| *scale));
            for (i, q) in blocks.iter().flat_map(|(_, q)| q).enumerate() {
                weights[i / 4] |= u32::from(q.cast_unsigned()) << (8 * (i % 4));
            }
        }
        Format::Q4 { group } => {
            for (block, (values, scale)) in from.chunks(group).zip(scales).enumerate() {
                let (fit, q) = four_bits(values)?;
                *scale = pair(fit[0], fit[1]);
                for (i, q) in q.into_iter().enumerate() {
                    let at = block * group + i;
                    let shift = 8 * (at % 4) + 4 * (at % 8 / 4);
                    weights[at / 8] |= u32::from(q) << shift;
                }
            }
        }
    }
    Ok(())
}

/// A block of whole numbers from -127 to 127, and their scale.
fn eight_bits(values: &[f32]) -> Result<(f16, Vec<i8>), String> {
    let largest = values.iter().fold(0f32, |most, x| most.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0);
    if !scale.is_finite() {
        return Err(format!("{largest} is more than q8 holds"));
    }
    let step = scale.to_f32();
    // Against the scale as it is stored; beside one that is 0 there is nothing but zeros.
    let q = |&x: &f32| if step > 0.0 { (x / step).round().clamp(-127.0, 127.0) as i8 } else { 0 };
    Ok((scale, values.iter().map(q).collect()))
}

/// Numbers of steps between least and largest that are tried for a block of 4 bits, in tenths.
const TRIED: [i32; 9] = [-12, -9, -6, -3, 0, 3, 6, 9, 12];

/// A block of whole numbers from 0 to 15, with scale and minimum: of some widths of the step around that from the least value to
/// the largest, each followed by the scale and minimum that fit its whole numbers best (least squares), the one with the least
/// squared error. llama.cpp searches likewise (`make_qkx2_quants`).
fn four_bits(values: &[f32]) -> Result<([f16; 2], Vec<u8>), String> {
    let (least, most) = values.iter().fold((f32::MAX, f32::MIN), |(a, b), &x| (a.min(x), b.max(x)));
    let range = most - least;
    let mut best: Option<(f64, [f16; 2])> = None;
    let mut consider = |scale: f64, min: f64| {
        let fit = [f16::from_f64(scale), f16::from_f64(min)];
        if !fit[0].is_finite() || !fit[1].is_finite() {
            return;
        }
        let error = values.iter().map(|&x| f64::from(x - rounded(fit, x).1).powi(2)).sum();
        if best.is_none_or(|(least, _)| error < least) {
            best = Some((error, fit));
        }
    };
    consider(f64::from(range / 15.0), f64::from(least));
    for tenths in TRIED.iter().filter(|_| range > 0.0) {
        let steps = 15.0 + f64::from(*tenths) / 10.0;
        let scale = f64::from(range) / steps;
        let whole = |x: f32| (f64::from(x - least) / scale).round().clamp(0.0, 15.0);
        let n = values.len() as f64;
        let (mut q1, mut q2, mut x1, mut qx) = (0.0, 0.0, 0.0, 0.0);
        for &x in values {
            let (q, x) = (whole(x), f64::from(x));
            (q1, q2, x1, qx) = (q1 + q, q2 + q * q, x1 + x, qx + q * x);
        }
        let spread = n * q2 - q1 * q1;
        if spread > 0.0 {
            let scale = (n * qx - q1 * x1) / spread;
            consider(scale, (x1 - scale * q1) / n);
        }
    }
    let Some((_, fit)) = best else { return Err(format!("{least} to {most} is more than q4 holds")) };
    Ok((fit, values.iter().map(|&x| rounded(fit, x).0).collect()))
}

/// The nearest of 16 steps to `x`, and what it stands for.
fn rounded([scale, min]: [f16; 2], x: f32) -> (u8, f32) {
    let (scale, min) = (scale.to_f32(), min.to_f32());
    let q = if scale > 0.0 { ((x - min) / scale).round().clamp(0.0, 15.0) } else { 0.0 };
    (q as u8, scale.mul_add(q, min))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(n: usize) -> Vec<f32> {
        (0..n).map(|i| ((i * 7919 % 1009) as f32 / 504.0 - 1.0) * if i % 97 == 0 { 3.0 } else { 0.3 }).collect()
    }

    #[test]
    fn what_is_packed_is_unpacked_within_half_a_step() {
        for (shape, along) in [([5, 64], 1), ([128, 7], 0), ([3, 192], 1)] {
            let shape = Shape::from(shape);
            let x = values(shape.elements());
            for (format, most) in [
                (Format::F32, 0.0),
                (Format::F16, 3.0 / 2048.0),
                (Format::Bf16, 3.0 / 256.0),
                (Format::Q8 { group: 32 }, 3.1 / 254.0),
                (Format::Q8 { group: 64 }, 3.1 / 254.0),
                (Format::Q4 { group: 32 }, 6.0 / 30.0 * 1.3),
                (Format::Q4 { group: 64 }, 6.0 / 30.0 * 1.3),
            ] {
                let packing = Packing::new(format, &shape, along).unwrap();
                let packed = Packed::pack(packing, &x).unwrap();
                let back = packed.unpack();
                let off = x.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
                assert!(off <= most, "{format} {shape}: {off}");
                // What it stands for is packed into the same again.
                if !matches!(format, Format::Q4 { .. }) {
                    assert_eq!(Packed::pack(packing, &back).unwrap().unpack(), back, "{format} {shape}");
                }
                if format.scaled() {
                    let again = Packed::from_parts(packing, &packed.parts()).unwrap();
                    assert_eq!(again, packed, "{format} {shape}");
                }
                assert_eq!(packed.words().len(), packing.words());
            }
        }
    }

    #[test]
    fn rows_of_odd_lengths_are_filled_up() {
        let shape = Shape::from([3, 13]);
        for format in [Format::F32, Format::F16, Format::Bf16] {
            let packing = Packing::new(format, &shape, 1).unwrap();
            assert_eq!(packing.row_words() % 4, 0);
            let packed = Packed::pack(packing, &values(39)).unwrap();
            assert_eq!(packed.unpack().len(), 39);
        }
        assert!(Packing::new(Format::Q8 { group: 32 }, &shape, 1).is_err());
    }

    #[test]
    fn hostile_numbers_are_refused_and_extremes_held() {
        let shape = Shape::from([1, 32]);
        let pack = |format, x: f32| {
            let mut v = vec![0.0; 32];
            v[5] = x;
            Packed::pack(Packing::new(format, &shape, 1).unwrap(), &v).map(|p| p.unpack()[5])
        };
        for format in [Format::F16, Format::Bf16, Format::Q8 { group: 32 }, Format::Q4 { group: 32 }] {
            assert_eq!(pack(format, f32::NAN).is_err(), format.scaled());
            assert_eq!(pack(format, f32::INFINITY).is_err(), format.scaled());
            assert!(format.scaled() || pack(format, f32::NAN).unwrap().is_nan());
            assert!(pack(format, 0.0).unwrap() == 0.0);
            // Denormal scales are coarse, but nothing overflows.
            let tiny = pack(format, 1e-6).unwrap();
            assert!((tiny - 1e-6).abs() <= 1e-6, "{format}: {tiny}");
        }
        assert!(pack(Format::F16, 1e6).is_err());
        assert!(pack(Format::Q8 { group: 32 }, 1e8).is_err());
        assert!(pack(Format::Q4 { group: 32 }, 1e8).is_err());
        assert!((pack(Format::Q8 { group: 32 }, 1e6).unwrap() - 1e6).abs() < 1e3);
    }
}
