//! Rounding of rows to narrow formats.

use super::{Format, packed::pair};
use half::{bf16, f16};

/// Rounds a row of the graph's numbers into words of zeros.
///
/// # Errors
/// A number is beyond what the format holds.
pub(super) fn fill_row(format: Format, from: &[f32], weights: &mut [u32], scales: &mut [u32]) -> Result<(), String> {
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

/// Scales, two a word.
pub(super) fn put_scales(words: &mut [u32], scales: impl Iterator<Item = f16>) {
    for (i, scale) in scales.enumerate() {
        words[i / 2] |= u32::from(scale.to_bits()) << (16 * (i % 2));
    }
}
