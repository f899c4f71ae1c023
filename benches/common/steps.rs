//! What the benchmarks of whole models share: a forward pass and a training step at several batches.

use super::{
    measure::{Case, Run},
    pace, print_profile,
    report::{Figure, Output, Report},
};
use clap::{Args, ValueEnum};
use shaderlm::{
    gpu::Ceilings,
    graph::{Engine, PlanOptions, Profiler},
    ops::Precision,
    train::{Batch, Settings, Trainer},
};
use std::error::Error;

/// What is timed.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum Mode {
    Forward,
    Train,
    All,
}

impl Mode {
    pub fn forward(self) -> bool {
        self != Self::Train
    }
    pub fn train(self) -> bool {
        self != Self::Forward
    }
}

/// The flags that say what is run, and how.
#[derive(Args)]
pub struct Steps {
    #[arg(long, default_value_t = 128)]
    pub context: usize,
    #[arg(long, value_enum, default_value = "all")]
    pub mode: Mode,
    /// What may be rounded
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Wait for a line on standard input before each repetition, so that a caller can alternate engines within one run;
    /// ends at end of input. A line {"what":..,"ready":true} follows the warm-up.
    #[arg(long)]
    paced: bool,
    /// Print where the time goes, by kernel, instead of timing it.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    output: Output,
}

/// The cases of one batch.
type Cases<'a> = Result<Vec<Case<'a>>, Box<dyn Error>>;

impl Steps {
    /// A profiler, if one is wanted; plans that are compiled after it are profiled.
    pub fn profiler(&self, engine: &mut Engine) -> Option<std::sync::Arc<Profiler>> {
        self.profile.then(|| engine.profile())
    }

    /// How a forward pass is planned.
    pub fn options(&self) -> PlanOptions {
        PlanOptions { precision: self.precision, ..PlanOptions::named("forward") }
    }

    /// Settings of a training step.
    pub fn settings(&self, batch: usize) -> Settings {
        Settings { precision: self.precision, ..super::settings(batch, self.context) }
    }

    pub fn case<'a>(&self, mode: &str, batch: usize, flops: u64, run: Run<'a>) -> Case<'a> {
        let tokens = batch * self.context;
        Case {
            series: mode.into(),
            name: format!("{batch} x {} tokens", self.context),
            size: tokens as f64,
            flops: flops as f64,
            bytes: 0.0,
            run,
        }
    }

    /// Times the cases of each batch, or as the flags say those of the first.
    pub fn go<'a>(
        &self,
        bench: &'static str,
        engine: &mut Engine,
        batches: &[usize],
        profiler: Option<&Profiler>,
        mut cases: impl FnMut(&mut Engine, usize) -> Cases<'a>,
    ) -> Result<(), Box<dyn Error>> {
        if self.paced || profiler.is_some() {
            for mut case in cases(engine, batches[0])? {
                match profiler {
                    Some(profiler) => print_profile(engine, profiler, |engine| (case.run)(engine, 1))?,
                    None => pace(&case.series, engine, &mut case.run)?,
                }
            }
            return Ok(());
        }
        let mut report = Report::new(bench, &self.output, engine, Ceilings::remembered(engine.capabilities()));
        for &batch in batches {
            let group = cases(engine, batch)?;
            report.group(engine, group)?;
        }
        report.finish("tokens at once", Figure::Milliseconds)
    }
}

/// Steps of training on one batch, again and again.
pub fn run_trainer<'a>(mut trainer: Trainer, feed: Batch) -> Run<'a> {
    let mut step = 0;
    Box::new(move |engine, runs| {
        for _ in 0..runs {
            trainer.step(engine, step, std::slice::from_ref(&feed))?;
            step += 1;
        }
        Ok(())
    })
}
