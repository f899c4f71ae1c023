//! `shaderlm tune`

use super::{
    CliResult,
    common::progress_bar,
    graph::{PlanArgs, Recorded},
};
use serde_json::json;
use std::io::Write;

/// Measure which kernels are fastest for a model on this adapter, and remember it
///
/// Each product of the model that several kernels can do is run with each of them, checked against the simplest, and timed. What
/// is found is kept in the user's cache folder ($SHADERLM_CACHE, $XDG_CACHE_HOME/shaderlm or ~/.cache/shaderlm) and used by every
/// command from then on. For training, give --backward.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm tune --model openai-community/gpt2 --context 1024\n  \
    shaderlm tune --model my-bert --batch 32 --context 128 --backward")]
pub struct Tune {
    #[command(flatten)]
    plan: PlanArgs,
    /// One JSON object a kind of work
    #[arg(long)]
    json: bool,
}

impl Tune {
    pub fn run(self) -> CliResult {
        let Recorded { graph: g, outputs, .. } = self.plan.record()?;
        let mut engine = self.plan.device.engine()?;
        let bar = progress_bar(0, "measuring  {bar:24} {pos}/{len}  {eta} left")?;
        let found = engine.tune(&g, &outputs, &self.plan.options(), &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        engine.save_pipelines();
        let mut out = std::io::stdout().lock();
        for tuned in &found {
            let wrong = tuned.timings.iter().filter(|(_, time)| time.is_none()).map(|(name, _)| name);
            for kernel in wrong.clone() {
                eprintln!("shaderlm: {kernel} gives wrong results for {} on this adapter, and is not used", tuned.work);
            }
            let (best, time) = tuned.best().ok_or("no kernel gives right results on this adapter")?;
            let before = tuned.timings.get(&tuned.rule).copied().flatten();
            if self.json {
                let object =
                    json!({ "work": tuned.work, "kernel": best, "ms": time, "rule": tuned.rule, "timings": tuned.timings });
                writeln!(out, "{object}")?;
                continue;
            }
            let gain = before.map_or("the rule of thumb's is wrong".into(), |ms| format!("{:.2}x", ms / time));
            writeln!(out, "{:<28}  {time:9.3} ms  {gain:>6}  {best}", tuned.work)?;
        }
        if found.is_empty() && !self.json {
            let why = if engine.capabilities().is_some() {
                "everything was measured before"
            } else {
                "the CPU has no kernels to choose from"
            };
            writeln!(out, "nothing to measure: {why}")?;
        }
        Ok(())
    }
}
