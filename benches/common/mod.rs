//! What the benchmarks share: contenders in turn, a table, JSON and a plot.
#![allow(dead_code, unused_imports, reason = "each benchmark is a program of its own and takes what it needs")]

pub mod kernels;
mod measure;
mod report;
mod shapes;
mod steps;

pub use measure::{Case, Run};
pub use report::{Figure, Output, Report};
pub use shapes::{Numbers, Shape};
pub use steps::{Mode, Steps, run_trainer};

use clap::ValueEnum;
use shaderlm::{
    gpu::{Autotune, Ceilings, DeviceChoice, Effort},
    graph::{Engine, EngineOptions, Plan, Profiler},
    train::{Optimizer, Schedule, ScheduleShape, Settings},
};
use std::{error::Error, io::BufRead, time::Instant};

/// The device that `SHADERLM_DEVICE` names, else the first adapter.
pub fn device() -> Result<DeviceChoice, Box<dyn Error>> {
    Ok(std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into()).parse()?)
}

/// An engine on that device, which chooses kernels as `SHADERLM_AUTOTUNE` says: off, on or full.
pub fn engine() -> Result<Engine, Box<dyn Error>> {
    let autotune = match std::env::var("SHADERLM_AUTOTUNE") {
        Ok(word) => Autotune::from_str(&word, true).map_err(|e| format!("SHADERLM_AUTOTUNE: {e}"))?,
        Err(_) => Autotune::default(),
    };
    Ok(Engine::new(&EngineOptions { device: device()?, notice: true, autotune })?)
}

/// The device's ceilings: what `shaderlm bench ceilings` has measured, else a brief measurement now.
pub fn ceilings(engine: &Engine) -> Result<Ceilings, Box<dyn Error>> {
    if let Some(known) = Ceilings::remembered(engine.capabilities()) {
        return Ok(known);
    }
    eprintln!("measuring the device's ceilings briefly (`shaderlm bench ceilings` does it with care, once)");
    let choice = if engine.capabilities().is_some() { device()? } else { DeviceChoice::Cpu };
    Ok(Ceilings::measure(&choice, Effort::Brief, &mut |_, _, _| {})?)
}

/// Runs a plan so many times and waits once.
pub fn run_plan<'a>(mut plan: Plan) -> Run<'a> {
    Box::new(move |engine, runs| {
        for _ in 0..runs {
            plan.run(engine)?;
        }
        Ok(plan.wait()?)
    })
}

/// The same in multiples of 1/1024, which 16 bits hold: where operands are rounded, only a kernel that is wrong differs from others.
pub fn round_noise(count: usize, seed: u32) -> Vec<f32> {
    noise(count, seed).into_iter().map(|x| (x * 1024.0).round() / 1024.0).collect()
}

/// `count` numbers that look random, between -1 and 1.
pub fn noise(count: usize, seed: u32) -> Vec<f32> {
    let mut state = seed.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 23) as f32 - 1.0
        })
        .collect()
}

/// Runs `work` twice untimed, then prints a line {"what":..,"ready":true}; from then on each line on standard input asks for one
/// timed repetition, a JSON line each. Ends at end of input. So a caller can alternate engines within one run.
pub fn pace(what: &str, engine: &mut Engine, run: &mut Run<'_>) -> Result<(), Box<dyn Error>> {
    for _ in 0..2 {
        run(engine, 1)?;
    }
    println!("{}", serde_json::json!({ "what": what, "ready": true, "device": engine.device_name() }));
    for line in std::io::stdin().lock().lines() {
        line?;
        let start = Instant::now();
        run(engine, 1)?;
        println!("{}", serde_json::json!({ "what": what, "ms": start.elapsed().as_secs_f64() * 1e3 }));
    }
    Ok(())
}

/// Settings of a training step: AdamW with clipping, no dropout.
pub fn settings(batch: usize, context: usize) -> Settings {
    Settings {
        batch,
        accumulate: 1,
        context,
        optimizer: Optimizer::Adamw,
        schedule: Schedule { shape: ScheduleShape::Constant, peak: 1e-4, min: 0.0, warmup: 0, steps: 1000 },
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-8,
        bias_correction: true,
        clip: 1.0,
        precision: shaderlm::ops::Precision::F32,
        seed: 1,
    }
}

/// Runs `work` as often as a profile wants, and prints its table, with the ceilings if `shaderlm bench ceilings` has measured them.
pub fn print_profile(
    engine: &mut Engine,
    profiler: &Profiler,
    mut work: impl FnMut(&mut Engine) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..5 {
        work(engine)?;
    }
    print!("{}", profiler.collected().table(Ceilings::remembered(engine.capabilities()).as_ref()));
    Ok(())
}
