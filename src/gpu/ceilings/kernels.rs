//! Ceilings of an adapter. Each kernel is checked against the host before its time counts.

use super::{Ceilings, Effort, Progress, Rate};
use crate::{
    gpu::{Access, Bound, Buffer, BufferSlice, Cooperative, Gpu, GpuError, Kernel, Resource, Scalar, timing::Stopwatch},
    kernel,
};
use half::f16;
use std::time::Instant;

/// Bytes of the buffers that are copied and read: beyond what caches hold.
const SIZES: [u64; 3] = [256 << 20, 128 << 20, 64 << 20];
/// Lanes of a workgroup that goes through memory.
const LANES: usize = 256;
/// Workgroups that do arithmetic: doubled from the first to the last until they take long enough.
const GROUPS: (usize, usize) = (32, 16_384);
/// Turns of the loop in which arithmetic is timed, and in which it is checked. (Mesa's software adapter ends loops after
/// 65,535 turns.)
const TURNS: (u32, u32) = (512, 4);
/// Multiply-adds of a sum in a turn of `bench_fma`.
const STEPS: u32 = 8;
/// Matrices on each side of `bench_cooperative`.
const MATRICES: usize = 8;

fn copying(items: u32) -> Kernel {
    kernel!("bench_copy").with("WG", LANES as u32).with("ITEMS", items)
}

fn reading(items: u32, turns: u32, image: bool) -> Kernel {
    kernel!("bench_read").with("IMAGE", image).with("WG", LANES as u32).with("ITEMS", items).with("TURNS", turns)
}

fn chaining(ty: &'static str, lanes: u32, sums: u32) -> Kernel {
    kernel!("bench_fma").with("T", ty).with("WG", lanes).with("SUMS", sums)
}

/// Of products of `side` x `side` matrices of the first type, added up in the second.
fn multiplying(types: (&'static str, &'static str), (lanes, side): (u32, u32), sums: u32, fresh: bool) -> Kernel {
    kernel!("bench_cooperative")
        .with("T", types.0)
        .with("SUM", types.1)
        .with("WG", lanes)
        .with("SIDE", side)
        .with("SUMS", sums)
        .with("FRESH", fresh)
}

/// Every kernel that measures a ceiling, in all that its variants differ in: for tests.
pub fn variants() -> Vec<Kernel> {
    let mut all = vec![copying(1), copying(4), reading(8, 1, false), reading(8, 8, false), reading(8, 8, true)];
    for ty in ["f32", "f16"] {
        all.extend([2, 3, 4, 8].map(|sums| chaining(ty, 64, sums)));
    }
    for types in [("f16", "f32"), ("f16", "f16"), ("f32", "f32")] {
        for fresh in [false, true] {
            all.extend([(8, 8), (32, 8), (32, 16)].map(|sizes| multiplying(types, sizes, 4, fresh)));
        }
    }
    all
}

pub fn measure(gpu: &Gpu, effort: Effort, progress: &mut Progress<'_>) -> Result<Ceilings, GpuError> {
    let caps = &gpu.caps;
    let mut told = |what: &str, done| progress(what, done, 5);
    told("copy bandwidth", 0);
    let (copy, read) = bandwidth(gpu, effort, &mut || told("read bandwidth", 1))?;
    told("f32 multiply-adds", 2);
    let fma_f32 = chains(gpu, effort, "f32")?;
    told("f16 multiply-adds", 3);
    let fma_f16 = if caps.f16 {
        // A driver that gets f16 wrong is no reason to do without all other figures.
        chains(gpu, effort, "f16").or_else(missing)?
    } else {
        Rate::Missing { reason: "the adapter has no 16-bit floats in shaders".into() }
    };
    told("cooperative matrices", 4);
    let cooperative = cooperative(gpu, effort)?;
    told("", 5);
    Ok(Ceilings {
        name: caps.name.clone(),
        backend: caps.backend.clone(),
        driver: caps.driver.clone(),
        effort,
        copy_gb_per_s: copy,
        read_gb_per_s: read,
        fma_f32,
        fma_f16,
        cooperative,
    })
}

fn missing(error: GpuError) -> Result<Rate, GpuError> {
    match error {
        GpuError::Wrong { .. } | GpuError::Validation { .. } => Ok(Rate::Missing { reason: error.to_string() }),
        other => Err(other),
    }
}

fn wrong<T>(gpu: &Gpu, kernel: &Kernel, found: impl std::fmt::Debug, expected: impl std::fmt::Debug) -> Result<T, GpuError> {
    Err(GpuError::Wrong {
        adapter: gpu.caps.name.clone(),
        kernel: kernel.label(),
        reason: format!("{found:?} instead of {expected:?}"),
    })
}

/// A kernel with its buffers, ready to run.
fn bind(gpu: &Gpu, kernel: &Kernel, words: &[u32], bindings: &[(Resource, Access)]) -> Result<Bound, GpuError> {
    let (resources, access): (Vec<_>, Vec<_>) = bindings.iter().cloned().unzip();
    let pipeline = gpu.pipeline(kernel, &access)?;
    let params = gpu.uniform(bytemuck::cast_slice(words))?;
    let x = words[0].min(gpu.caps.max_groups);
    gpu.bind(&pipeline, (&params, 0, 16), &resources, [x, words[0].div_ceil(x)])
}

/// To be bound whole.
fn whole(buffer: &Buffer) -> Resource {
    Resource::Slice(BufferSlice { buffer: buffer.clone(), offset: 0, bytes: buffer.bytes })
}

/// Seconds of `repeats` runs: by the device's clock where it has one.
fn seconds(gpu: &Gpu, bound: &Bound, repeats: usize) -> Result<f64, GpuError> {
    let repeated = std::iter::repeat_n(bound, repeats);
    let mut encoder = gpu.encoder();
    if let Some(watch) = gpu.stopwatch(repeats)? {
        watch.record(&mut encoder, repeated);
        gpu.submit(encoder)?;
        let times = watch.times(gpu)?;
        return Ok(times.last().map_or(0, |last| last.1 - times[0].0) as f64 * 1e-9);
    }
    {
        let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default());
        repeated.for_each(|bound| bound.dispatch(&mut pass));
    }
    let start = Instant::now();
    gpu.submit(encoder)?;
    gpu.wait()?;
    Ok(start.elapsed().as_secs_f64())
}

/// Seconds of one run, the best of several times, each of as many runs as it takes to be measured.
fn best(gpu: &Gpu, bound: &Bound, effort: Effort) -> Result<f64, GpuError> {
    let least = effort.least().as_secs_f64();
    // The first one also compiles, on some drivers.
    seconds(gpu, bound, 1)?;
    let mut repeats = 1;
    let mut shortest = seconds(gpu, bound, repeats)?;
    while shortest * (repeats as f64) < least && repeats < Stopwatch::MOST / 2 {
        repeats *= 2;
        shortest = seconds(gpu, bound, repeats)? / repeats as f64;
    }
    for _ in 1..effort.times() {
        shortest = shortest.min(seconds(gpu, bound, repeats)? / repeats as f64);
    }
    Ok(shortest)
}

/// The number at place `i` of what is copied.
fn pattern(i: usize) -> u32 {
    (i as u32).wrapping_mul(2_654_435_761)
}

/// GB/s of a copy and of reading. `next` is called in between.
fn bandwidth(gpu: &Gpu, effort: Effort, next: &mut dyn FnMut()) -> Result<(f64, f64), GpuError> {
    let most = gpu.caps.max_binding.min(gpu.caps.max_buffer);
    // A third of the memory at most: two such buffers, and the rest of the world.
    let most = gpu.memory().map_or(most, |memory| most.min(memory / 3));
    let mut sizes: Vec<u64> = SIZES.into_iter().filter(|&size| size <= most).take(2).collect();
    if sizes.is_empty() {
        sizes.push(1 << most.max(1 << 20).ilog2());
    }
    if effort == Effort::Brief {
        sizes.drain(..sizes.len() - 1);
    }
    let words: Vec<u32> = (0..sizes[0] as usize / 4).map(pattern).collect();
    let (mut copies, mut reads) = (Vec::new(), Vec::new());
    for &bytes in &sizes {
        let units = bytes as usize / 16;
        let (x, y) = (gpu.buffer("bandwidth", bytes)?, gpu.buffer("bandwidth", bytes)?);
        gpu.write(&x, 0, bytemuck::cast_slice(&words[..units * 4]))?;
        for items in [1, 4] {
            let kernel = copying(items as u32);
            let groups = units.div_ceil(LANES * items);
            let add = items as u32;
            let bound = bind(
                gpu,
                &kernel,
                &[groups as u32, units as u32, add],
                &[(whole(&x), Access::Read), (whole(&y), Access::Write)],
            )?;
            copies.push((bytes * 2) as f64 / best(gpu, &bound, effort)? / 1e9);
            let size = bytes.min(1 << 20);
            for at in [0, bytes - size] {
                let found: Vec<u32> = bytemuck::pod_collect_to_vec(&gpu.read(&y, at, size)?);
                for (i, found) in found.into_iter().enumerate() {
                    let expected = pattern(at as usize / 4 + i).wrapping_add(add);
                    if found != expected {
                        return wrong(gpu, &kernel, found, expected);
                    }
                }
            }
        }
    }
    next();
    for &bytes in &sizes {
        let units = bytes as usize / 16;
        let x = gpu.buffer("bandwidth", bytes)?;
        gpu.write(&x, 0, bytemuck::cast_slice(&words[..units * 4]))?;
        let buffer = (whole(&x), Access::Read);
        let mut ways = vec![(buffer.clone(), 1), (buffer, 8)];
        if gpu.caps.images && bytes <= gpu.caps.max_image {
            let image = gpu.image("bandwidth", bytes)?;
            gpu.copy_to_image(&x, bytes, &image)?;
            ways.push(((Resource::Image(image), Access::ReadImage), 8));
        }
        let items = 8;
        for (from, turns) in ways {
            let kernel = reading(items as u32, turns as u32, from.1 == Access::ReadImage);
            let each = LANES * items * turns;
            let groups = (units / each).max(1);
            let sums = gpu.buffer("sums", (groups * LANES * 4) as u64)?;
            let add = turns as u32;
            let bound = bind(gpu, &kernel, &[groups as u32, units as u32, add], &[from, (whole(&sums), Access::Write)])?;
            reads.push((groups * each * 16) as f64 / best(gpu, &bound, effort)? / 1e9);
            for group in [0, groups - 1] {
                let bytes = gpu.read(&sums, (group * LANES * 4) as u64, LANES as u64 * 4)?;
                for (lane, found) in bytemuck::pod_collect_to_vec::<u8, u32>(&bytes).into_iter().enumerate() {
                    let places = (0..items * turns).map(|i| (group * each + i * LANES + lane) * 4);
                    let expected = places.flat_map(|at| (at..at + 4).map(pattern)).fold(add.wrapping_mul(4), u32::wrapping_add);
                    if found != expected {
                        return wrong(gpu, &kernel, found, expected);
                    }
                }
            }
        }
    }
    let largest = |rates: Vec<f64>| rates.into_iter().fold(0.0, f64::max);
    Ok((largest(copies), largest(reads)))
}

/// The best over workgroups (doubled until they take long enough) and the candidates that `make` binds: FLOPs a workgroup, and
/// the kernel for a number of workgroups.
fn fill(gpu: &Gpu, effort: Effort, flops: f64, make: &mut dyn FnMut(usize) -> Result<Bound, GpuError>) -> Result<f64, GpuError> {
    let mut groups = GROUPS.0;
    loop {
        let bound = make(groups)?;
        seconds(gpu, &bound, 1)?;
        if groups >= GROUPS.1 || seconds(gpu, &bound, 1)? >= effort.least().as_secs_f64() / 4.0 {
            return Ok(flops * groups as f64 / best(gpu, &bound, effort)? / 1e9);
        }
        groups *= 2;
    }
}

/// GFLOP/s of fused multiply-adds.
fn chains(gpu: &Gpu, effort: Effort, ty: &'static str) -> Result<Rate, GpuError> {
    let mut most = 0.0_f64;
    let lanes: &[u32] = if gpu.caps.max_invocations >= 256 && !gpu.caps.software { &[64, 256] } else { &[64] };
    let sums: &[u32] = if effort == Effort::Brief { &[2, 4] } else { &[2, 3, 4, 8] };
    for &lanes in lanes {
        for &sums in sums {
            let kernel = chaining(ty, lanes, sums);
            let run = |groups: usize, turns| -> Result<(Bound, Buffer), GpuError> {
                let y = gpu.buffer("sums", groups as u64 * u64::from(lanes) * 4)?;
                let words = [groups as u32, turns, 1.0_f32.to_bits(), 1.0_f32.to_bits()];
                Ok((bind(gpu, &kernel, &words, &[(whole(&y), Access::Write)])?, y))
            };
            // All numbers are whole, and small enough to be exact.
            let check = |y: &Buffer, turns: u32, groups: usize| -> Result<(), GpuError> {
                let bytes = gpu.read(y, 0, groups as u64 * u64::from(lanes) * 4)?;
                for (i, found) in bytemuck::pod_collect_to_vec::<u8, f32>(&bytes).into_iter().enumerate() {
                    let lane = i as u32 % lanes;
                    let start: u32 = (0..sums).flat_map(|sum| (0..4).map(move |part| lane + part + sum)).sum();
                    let expected = (start + sums * 4 * turns * STEPS) as f32;
                    // f16 counts by ones up to 2048 only; what is longer on the way may be kept in f32.
                    let far = ty == "f16" && turns == TURNS.0 && found >= (sums * 4 * 2048) as f32;
                    if found != expected && !far {
                        return wrong(gpu, &kernel, found, expected);
                    }
                }
                Ok(())
            };
            let (bound, y) = run(3, TURNS.1)?;
            seconds(gpu, &bound, 1)?;
            check(&y, TURNS.1, 3)?;
            let flops = f64::from(lanes * sums * 4 * TURNS.0 * STEPS) * 2.0;
            let mut last = y;
            let rate = fill(gpu, effort, flops, &mut |groups| {
                let (bound, y) = run(groups, TURNS.0)?;
                last = y;
                Ok(bound)
            })?;
            check(&last, TURNS.0, 1)?;
            most = most.max(rate);
        }
    }
    Ok(Rate::Measured { gflops: most, what: ty.into() })
}

/// GFLOP/s of cooperative matrices, over all sizes and types that the adapter has and WGSL can say.
fn cooperative(gpu: &Gpu, effort: Effort) -> Result<Rate, GpuError> {
    let reason = |reason: &str| Ok(Rate::Missing { reason: reason.into() });
    if gpu.caps.cooperative.is_empty() {
        return reason("wgpu has no cooperative matrices on this adapter");
    }
    let Some(lanes) = gpu.caps.subgroup else {
        return reason("the adapter's subgroups are not all of one size");
    };
    let mut found: Vec<(f64, String)> = Vec::new();
    let mut failed = None;
    for &c in &gpu.caps.cooperative {
        let halves = [c.operands, c.sums].contains(&Scalar::F16);
        if (c.operands, c.sums) == (Scalar::F32, Scalar::F16) || (halves && !gpu.caps.f16) {
            continue;
        }
        match products(gpu, effort, lanes, c) {
            Ok(gflops) => found.push((gflops, c.to_string())),
            Err(error @ (GpuError::Wrong { .. } | GpuError::Validation { .. })) => failed = Some(error.to_string()),
            Err(other) => return Err(other),
        }
    }
    found.sort_by(|a, b| a.0.total_cmp(&b.0));
    Ok(match (found.pop(), failed) {
        (Some((gflops, what)), _) => Rate::Measured { gflops, what },
        (None, Some(reason)) => Rate::Missing { reason },
        (None, None) => Rate::Missing { reason: "its cooperative matrices are of sizes or types that WGSL does not have".into() },
    })
}

/// GFLOP/s of products of such matrices by subgroups of `lanes`.
fn products(gpu: &Gpu, effort: Effort, lanes: u32, matrices: Cooperative) -> Result<f64, GpuError> {
    let (side, types) = (matrices.size, (matrices.operands.word(), matrices.sums.word()));
    let n = side as usize;
    // Element of matrix m of either side.
    let (a, b) = (|m: usize, i: usize, k: usize| (i + 2 * k + m) % 3, |m: usize, k: usize, j: usize| (3 * k + j + m) % 4);
    let all = |number: &dyn Fn(usize, usize, usize) -> usize| -> Vec<usize> {
        (0..MATRICES * n * n).map(|at| number(at / (n * n), at / n % n, at % n)).collect()
    };
    let numbers = [all(&a), all(&b)].concat();
    let bytes: Vec<u8> = if types.0 == "f16" {
        numbers.iter().flat_map(|&x| f16::from_f32(x as f32).to_le_bytes()).collect()
    } else {
        numbers.iter().flat_map(|&x| (x as f32).to_le_bytes()).collect()
    };
    let x = gpu.buffer("matrices", bytes.len() as u64)?;
    gpu.write(&x, 0, &bytes)?;
    let width = if types.1 == "f16" { 2 } else { 4 };
    let fresh = gpu.caps.software;
    let steps = if fresh { 1 } else { 4 };
    let mut most = 0.0_f64;
    for sums in [2_usize, 4, 8, 16] {
        let kernel = multiplying(types, (lanes, side), sums as u32, fresh);
        let run = |groups: usize, turns| -> Result<(Bound, Buffer), GpuError> {
            let y = gpu.buffer("products", (groups * sums * n * n * width) as u64)?;
            Ok((bind(gpu, &kernel, &[groups as u32, turns], &[(whole(&x), Access::Read), (whole(&y), Access::Write)])?, y))
        };
        let (bound, y) = run(3, TURNS.1)?;
        seconds(gpu, &bound, 1)?;
        let bytes = gpu.read(&y, 0, (3 * sums * n * n * width) as u64)?;
        let found: Vec<f32> = if types.1 == "f16" {
            bytemuck::pod_collect_to_vec::<u8, u16>(&bytes).into_iter().map(|x| f16::from_bits(x).to_f32()).collect()
        } else {
            bytemuck::pod_collect_to_vec(&bytes)
        };
        for (at, found) in found.into_iter().enumerate() {
            let (sum, i, j) = (at / (n * n) % sums, at / n % n, at % n);
            let (row, column) = (sum / (sums / 2), sum % (sums / 2));
            let product = |turn: usize| {
                let row = if fresh { (turn + row) % MATRICES } else { row };
                (0..n).map(|k| a(row, i, k) * b(column, k, j)).sum::<usize>()
            };
            // Whole numbers below 2048, so exact in f16 too.
            let expected = (steps * (0..TURNS.1 as usize).map(product).sum::<usize>()) as f32;
            if found != expected {
                return wrong(gpu, &kernel, found, expected);
            }
        }
        let flops = 2.0 * f64::from(side).powi(3) * (sums * steps) as f64 * f64::from(TURNS.0);
        let rate = fill(gpu, effort, flops, &mut |groups| Ok(run(groups, TURNS.0)?.0))?;
        most = most.max(rate);
    }
    Ok(most)
}
