//! What a benchmark says: a table on the terminal, JSON, a plot.

use super::measure::{Case, Measured, alternate};
use clap::{Args, builder::TypedValueParser};
use shaderlm::{
    gpu::Ceilings,
    graph::Engine,
    plot::{Axes, Line, svg},
};
use std::{collections::BTreeMap, error::Error, path::PathBuf};

/// The flags that all benchmarks have.
#[derive(Args, Clone)]
pub struct Output {
    /// Timed repetitions of each contender
    #[arg(long, default_value_t = 9, value_parser = clap::value_parser!(u64).range(1..).map(|n| n as usize))]
    pub repeats: usize,
    /// Write everything that was measured as one JSON object to this file; - is standard output, without the table
    #[arg(long, value_name = "FILE|-")]
    json: Option<PathBuf>,
    /// Draw it against size as an SVG
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
    /// Given by cargo bench
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a plot shows.
#[derive(Clone, Copy)]
pub enum Figure {
    Gflops,
    GbPerS,
    Milliseconds,
}

impl Figure {
    fn of(self, m: &Measured) -> Option<f64> {
        match self {
            Self::Gflops => m.gflops,
            Self::GbPerS => m.gb_per_s,
            Self::Milliseconds => Some(m.median_ms),
        }
    }
    fn unit(self) -> &'static str {
        match self {
            Self::Gflops => "GFLOP/s",
            Self::GbPerS => "GB/s",
            Self::Milliseconds => "milliseconds",
        }
    }
}

/// Collects what groups of contenders took, and prints it as it comes.
pub struct Report {
    bench: &'static str,
    output: Output,
    device: String,
    ceilings: Option<Ceilings>,
    found: Vec<Measured>,
}

impl Report {
    pub fn new(bench: &'static str, output: &Output, engine: &Engine, ceilings: Option<Ceilings>) -> Self {
        let report = Self { bench, output: output.clone(), device: engine.device_name(), ceilings, found: Vec::new() };
        report.say(&format!("{}; {} repetitions, contenders in turn", report.device, output.repeats));
        if let Some(c) = &report.ceilings {
            let f32_rate = c.fma_f32.gflops().map(|rate| format!(", f32 multiply-add {rate:.1} GFLOP/s")).unwrap_or_default();
            report.say(&format!("ceilings: copy {:.2} GB/s{f32_rate}", c.copy_gb_per_s));
        }
        report.say(&format!(
            "{:<26} {:<44} {:>10} {:>8} {:>10} {:>9} {:>7}",
            "series", "case", "median ms", "IQR", "GFLOP/s", "GB/s", "of copy"
        ));
        report
    }

    fn say(&self, line: &str) {
        if self.output.json.as_ref().is_none_or(|path| path.as_os_str() != "-") {
            println!("{line}");
        }
    }

    /// Times a group of contenders against each other.
    ///
    /// # Errors
    /// Whatever a contender returns.
    pub fn group(&mut self, engine: &mut Engine, cases: Vec<Case<'_>>) -> Result<(), Box<dyn Error>> {
        for m in alternate(engine, cases, self.output.repeats)? {
            let number = |value: Option<f64>| value.map(|v| format!("{v:.1}")).unwrap_or_default();
            let share = self.ceilings.as_ref().and_then(|c| Some(100.0 * m.gb_per_s? / c.copy_gb_per_s));
            let share = share.map(|s| format!("{s:.0} %")).unwrap_or_default();
            let spread = format!("{:.1} %", 100.0 * m.spread());
            self.say(&format!(
                "{:<26} {:<44} {:>10.3} {spread:>8} {:>10} {:>9} {share:>7}",
                m.series,
                m.name,
                m.median_ms,
                number(m.gflops),
                number(m.gb_per_s)
            ));
            self.found.push(m);
        }
        Ok(())
    }

    /// A line for a contender that has no time, with the reason.
    pub fn failed(&self, series: &str, name: &str, reason: &str) {
        self.say(&format!("{series:<26} {name:<44} {reason}"));
    }

    /// Writes JSON and plot, where they are wanted.
    ///
    /// # Errors
    /// A file cannot be written; nothing was measured that can be drawn.
    pub fn finish(self, size: &str, figure: Figure) -> Result<(), Box<dyn Error>> {
        if let Some(path) = &self.output.json {
            let document = serde_json::json!({
                "bench": self.bench,
                "device": self.device,
                "version": env!("CARGO_PKG_VERSION"),
                "size": size,
                "ceilings": self.ceilings,
                "measured": self.found,
            });
            let text = serde_json::to_string_pretty(&document)?;
            if path.as_os_str() == "-" {
                println!("{text}");
            } else {
                std::fs::write(path, text).map_err(|e| format!("--json {}: {e}", path.display()))?;
            }
        }
        if let Some(path) = &self.output.plot {
            let mut series: BTreeMap<&str, Vec<[f64; 2]>> = BTreeMap::new();
            for m in &self.found {
                if let Some(value) = figure.of(m) {
                    series.entry(&m.series).or_default().push([m.size, value]);
                }
            }
            let mut lines: Vec<_> = series
                .into_iter()
                .map(|(name, mut points)| {
                    points.sort_by(|a, b| a[0].total_cmp(&b[0]));
                    Line { name: name.into(), points }
                })
                .collect();
            let ceiling = self.ceilings.as_ref().and_then(|c| match figure {
                Figure::Gflops => c.fma_f32.gflops().map(|rate| ("f32 multiply-add ceiling", rate)),
                Figure::GbPerS => Some(("copy ceiling", c.copy_gb_per_s)),
                Figure::Milliseconds => None,
            });
            let sizes = || lines.iter().flat_map(|l| &l.points).map(|p| p[0]);
            let ends = [sizes().fold(f64::INFINITY, f64::min), sizes().fold(0.0, f64::max)];
            if let Some((name, rate)) = ceiling {
                lines.push(Line { name: name.into(), points: ends.map(|at| [at, rate]).to_vec() });
            }
            let title = format!("{} on {}", self.bench, self.device);
            let axes = Axes { title: &title, x: size, y: figure.unit() };
            std::fs::write(path, svg(&axes, &lines)?).map_err(|e| format!("--plot {}: {e}", path.display()))?;
        }
        Ok(())
    }
}
