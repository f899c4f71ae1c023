//! Contenders take turns, so that a slow minute hits all of them; their times become a median and a spread.

use serde::Serialize;
use shaderlm::graph::Engine;
use std::{error::Error, time::Instant};

/// What is timed takes no less than this at a time, seconds: short work is run several times over and waited for once.
const LEAST: f64 = 0.01;
/// How long a GPU works before anything is timed, seconds: one that idled is slow, and takes its time to wake.
const WAKING: f64 = 0.3;

/// Queues the work so many times over and returns when the device has done it.
pub type Run<'a> = Box<dyn FnMut(&mut Engine, usize) -> Result<(), Box<dyn Error>> + 'a>;

/// Something to time.
pub struct Case<'a> {
    /// The line that it belongs to in a plot: what stays the same from size to size.
    pub series: String,
    /// What it is, within its series.
    pub name: String,
    /// Its place on the axis of sizes.
    pub size: f64,
    /// Floating-point operations of the work; 0 where they do not count.
    pub flops: f64,
    /// Bytes that the work must read and write at least; 0 where they do not count.
    pub bytes: f64,
    pub run: Run<'a>,
}

/// What a case took.
#[derive(Debug, Clone, Serialize)]
pub struct Measured {
    pub series: String,
    pub name: String,
    pub size: f64,
    /// Milliseconds of each repetition, in order.
    pub times_ms: Vec<f64>,
    /// How often the work was done in a repetition; times are of one.
    pub runs_a_repetition: usize,
    pub median_ms: f64,
    pub first_quartile_ms: f64,
    pub third_quartile_ms: f64,
    /// At the median; `None` where FLOPs do not count.
    pub gflops: Option<f64>,
    /// At the median; `None` where bytes do not count.
    pub gb_per_s: Option<f64>,
}

impl Measured {
    /// The interquartile range as a share of the median.
    pub fn spread(&self) -> f64 {
        (self.third_quartile_ms - self.first_quartile_ms) / self.median_ms
    }
}

/// The value below which the share `q` of the sorted values lies, linear between neighbours.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let place = q * (sorted.len() - 1) as f64;
    let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
    below + (above - below) * place.fract()
}

/// Runs each case twice untimed (pipelines compile, caches fill), more on a GPU, then `repeats` rounds of all cases in turn.
///
/// # Errors
/// Whatever a case returns.
pub fn alternate(engine: &mut Engine, cases: Vec<Case<'_>>, repeats: usize) -> Result<Vec<Measured>, Box<dyn Error>> {
    let mut prepared = Vec::with_capacity(cases.len());
    for mut case in cases {
        (case.run)(engine, 1)?;
        let start = Instant::now();
        (case.run)(engine, 1)?;
        let runs = (LEAST / start.elapsed().as_secs_f64()).ceil().clamp(1.0, 1000.0) as usize;
        prepared.push((case, runs, Vec::with_capacity(repeats)));
    }
    let gpu = engine.capabilities().is_some_and(|caps| !caps.software);
    let begin = Instant::now();
    while gpu && begin.elapsed().as_secs_f64() < WAKING {
        for (case, runs, _) in &mut prepared {
            (case.run)(engine, *runs)?;
        }
    }
    for _ in 0..repeats {
        for (case, runs, times) in &mut prepared {
            let start = Instant::now();
            (case.run)(engine, *runs)?;
            times.push(start.elapsed().as_secs_f64() * 1e3 / *runs as f64);
        }
    }
    Ok(prepared.into_iter().map(|(case, runs, times)| summary(case, runs, times)).collect())
}

fn summary(case: Case<'_>, runs: usize, times_ms: Vec<f64>) -> Measured {
    let mut sorted = times_ms.clone();
    sorted.sort_by(f64::total_cmp);
    let [first, median, third] = [0.25, 0.5, 0.75].map(|q| quantile(&sorted, q));
    let rate = |work: f64| (work > 0.0).then(|| work / median / 1e6);
    Measured {
        series: case.series,
        name: case.name,
        size: case.size,
        times_ms,
        runs_a_repetition: runs,
        median_ms: median,
        first_quartile_ms: first,
        third_quartile_ms: third,
        gflops: rate(case.flops),
        gb_per_s: rate(case.bytes),
    }
}
