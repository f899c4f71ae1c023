//! `shaderlm bench ceilings`

use crate::cli::{
    CliResult,
    common::{DeviceArgs, progress_bar},
};
use shaderlm::gpu::{Ceilings, DeviceChoice, Effort, Rate, adapters};
use std::io::Write;

/// Measure what a device can reach: copying, reading, multiply-adds in f32 and f16, cooperative matrices
///
/// Kernels that do nothing else, each checked against the host. The best of several sizes and repeats is kept in the user's
/// cache folder, for `shaderlm devices` and for the table of --profile.
#[derive(clap::Args)]
pub struct BenchCeilings {
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl BenchCeilings {
    pub fn run(self) -> CliResult {
        let choice = match self.device.device {
            DeviceChoice::Auto if adapters().is_empty() => {
                eprintln!("shaderlm: no GPU adapter found; measuring the CPU");
                DeviceChoice::Cpu
            }
            choice => choice,
        };
        let bar = progress_bar(1, "{bar:24} {pos}/{len}  {msg}")?;
        let found = Ceilings::measure(&choice, Effort::Full, &mut |what, done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
            bar.set_message(what.to_owned());
        });
        bar.finish_and_clear();
        let found = found?;
        found.remember();
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&found)?)?;
            return Ok(());
        }
        writeln!(out, "{} ({}, {})", found.name, found.backend, found.driver)?;
        for (name, figure) in lines(&found) {
            writeln!(out, "   {name:<22} {figure}")?;
        }
        Ok(())
    }
}

/// Names and figures.
fn lines(c: &Ceilings) -> [(&'static str, String); 5] {
    let rate = |rate: &Rate| match rate {
        Rate::Measured { gflops, what } => format!("{gflops:>10.1} GFLOP/s  ({what})"),
        Rate::Missing { reason } => format!("none: {reason}"),
    };
    [
        ("copy (read + write)", format!("{:>10.2} GB/s", c.copy_gb_per_s)),
        ("read", format!("{:>10.2} GB/s", c.read_gb_per_s)),
        ("multiply-add f32", rate(&c.fma_f32)),
        ("multiply-add f16", rate(&c.fma_f16)),
        ("cooperative matrices", rate(&c.cooperative)),
    ]
}

/// The figures in one line, for `shaderlm devices`.
pub fn summary(c: &Ceilings) -> String {
    let rate = |name: &str, rate: &Rate| rate.gflops().map(|gflops| format!("{name} {gflops:.1} GFLOP/s"));
    let memory = format!("copy {:.2} GB/s, read {:.2} GB/s", c.copy_gb_per_s, c.read_gb_per_s);
    let rates = [rate("f32", &c.fma_f32), rate("f16", &c.fma_f16), rate("cooperative", &c.cooperative)];
    std::iter::once(memory).chain(rates.into_iter().flatten()).collect::<Vec<_>>().join(", ")
}
