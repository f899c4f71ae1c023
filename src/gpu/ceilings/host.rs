//! Ceilings of the CPU, all cores at once: what `--device cpu` is held against.

use super::{Ceilings, Effort, Progress, Rate};
use rayon::prelude::*;
use std::{hint::black_box, time::Instant};

/// Words of the buffers: beyond what caches hold.
const WORDS: usize = 16 << 20;
/// A piece of work for a core, words.
const PIECE: usize = 64 << 10;
/// Independent sums of a core, in vectors.
const SUMS: usize = 10;

/// Name, backend and driver.
pub fn identity() -> (String, String, String) {
    ("cpu".into(), "host".into(), format!("{} with {} threads", std::env::consts::ARCH, rayon::current_num_threads()))
}

pub fn measure(effort: Effort, progress: &mut Progress<'_>) -> Ceilings {
    let (name, backend, driver) = identity();
    progress("copy bandwidth", 0, 3);
    let x: Vec<u64> = (0..WORDS as u64).collect();
    let mut y = vec![0_u64; WORDS];
    let bytes = (WORDS * 8) as f64;
    let copy = best(effort, &mut || {
        y.par_chunks_mut(PIECE).zip(x.par_chunks(PIECE)).for_each(|(y, x)| y.copy_from_slice(x));
        black_box(&mut y);
    });
    progress("read bandwidth", 1, 3);
    let read = best(effort, &mut || {
        let sum = |piece: &[u64]| piece.iter().fold(0_u64, |sum, &x| sum.wrapping_add(x));
        black_box(x.par_chunks(PIECE).map(sum).reduce(|| 0, u64::wrapping_add));
    });
    progress("f32 multiply-adds", 2, 3);
    let turns = 1 << 20;
    let (chain, lanes) = fastest();
    let arithmetic = best(effort, &mut || {
        black_box(rayon::broadcast(|_| chain(turns, black_box(1.0), black_box(1e-6))));
    });
    let flops = 2.0 * (turns * SUMS * lanes * rayon::current_num_threads()) as f64;
    progress("", 3, 3);
    let missing = |reason: &str| Rate::Missing { reason: reason.into() };
    Ceilings {
        name,
        backend,
        driver,
        effort,
        copy_gb_per_s: 2.0 * bytes / copy / 1e9,
        read_gb_per_s: bytes / read / 1e9,
        fma_f32: Rate::Measured { gflops: flops / arithmetic / 1e9, what: "f32".into() },
        fma_f16: missing("the CPU's reference computes in f32"),
        cooperative: missing("a CPU has none"),
    }
}

/// Seconds of one run, the best of several times of as many runs as it takes to be measured.
fn best(effort: Effort, work: &mut dyn FnMut()) -> f64 {
    let mut shortest = f64::INFINITY;
    for _ in 0..=effort.times() {
        let start = Instant::now();
        let mut runs = 0;
        while runs == 0 || start.elapsed() < effort.least() {
            work();
            runs += 1;
        }
        shortest = shortest.min(start.elapsed().as_secs_f64() / f64::from(runs));
    }
    shortest
}

type Chain = fn(usize, f32, f32) -> f32;

/// `turns` multiply-adds in each of SUMS vectors of `LANES`, by `step`.
#[inline(always)]
fn chains<const LANES: usize>(turns: usize, a: f32, b: f32, step: impl Fn(f32, f32, f32) -> f32) -> f32 {
    let mut sums = [[0.0_f32; LANES]; SUMS];
    for _ in 0..turns {
        for sum in &mut sums {
            for x in sum {
                *x = step(*x, a, b);
            }
        }
    }
    sums.iter().flatten().sum()
}

/// The widest multiply-add that this CPU has, and its lanes.
fn fastest() -> (Chain, usize) {
    #[cfg(target_arch = "x86_64")]
    {
        #[target_feature(enable = "avx512f")]
        fn wide(turns: usize, a: f32, b: f32) -> f32 {
            chains::<16>(turns, a, b, f32::mul_add)
        }
        #[target_feature(enable = "avx2,fma")]
        fn fused(turns: usize, a: f32, b: f32) -> f32 {
            chains::<8>(turns, a, b, f32::mul_add)
        }
        if is_x86_feature_detected!("avx512f") {
            // Safety: the CPU has it.
            return (|turns, a, b| unsafe { wide(turns, a, b) }, 16);
        }
        if is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma") {
            // Safety: the CPU has both.
            return (|turns, a, b| unsafe { fused(turns, a, b) }, 8);
        }
    }
    if cfg!(target_arch = "aarch64") {
        // Every one of them fuses.
        return (|turns, a, b| chains::<4>(turns, a, b, f32::mul_add), 4);
    }
    (|turns, a, b| chains::<4>(turns, a, b, |x, a, b| x * a + b), 4)
}
