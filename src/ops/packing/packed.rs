//! Packed matrices in host memory.

use super::{
    Format, Packing,
    round::{fill_row, put_scales},
};
use crate::ops::{OpError, ensure};
use half::f16;
use rayon::prelude::*;

/// Rows that are packed at once.
const BAND: usize = 16;

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
            format!(
                "parts of {found:?} instead of {:?} do not make {} of {}",
                [bytes, blocks, minima],
                packing.shape(),
                packing.format
            )
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
pub(super) fn pair(low: f16, high: f16) -> u32 {
    u32::from(low.to_bits()) | u32::from(high.to_bits()) << 16
}

fn unpair(word: u32) -> [f16; 2] {
    [f16::from_bits(word as u16), f16::from_bits((word >> 16) as u16)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::Shape;

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
