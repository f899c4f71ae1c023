//! The table: time by kernel and by operation, beside what the device can reach.

use super::{About, Clock, PlanProfile, Profile};
use crate::gpu::Ceilings;
use std::{collections::BTreeMap, fmt::Write};

/// The most rows of a table; what follows is summed up.
const ROWS: usize = 24;

/// The sum over dispatches of one kind.
#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    calls: usize,
    micros: f64,
    flops: f64,
    bytes: f64,
    /// The least time that the device could take, by its ceilings: for arithmetic, and for memory.
    least: (f64, f64),
}

impl Sum {
    fn add(&mut self, about: &About, micros: f64, ceilings: Option<&Ceilings>) {
        self.calls += 1;
        self.micros += micros;
        self.flops += about.flops as f64;
        self.bytes += about.bytes as f64;
        if let Some(ceilings) = ceilings {
            let arithmetic = ceilings.arithmetic(&about.kernel).map_or(0.0, |gflops| about.flops as f64 / gflops / 1e3);
            // Some of it is written, so the better of both rates is what no kernel passes.
            let memory = about.bytes as f64 / ceilings.copy_gb_per_s.max(ceilings.read_gb_per_s) / 1e3;
            self.least = (self.least.0 + arithmetic, self.least.1 + memory);
        }
    }

    fn join(&mut self, other: &Self) {
        self.calls += other.calls;
        self.micros += other.micros;
        self.flops += other.flops;
        self.bytes += other.bytes;
        self.least = (self.least.0 + other.least.0, self.least.1 + other.least.1);
    }

    /// The part of its ceiling that it reaches, by the nearer of the two.
    fn reached(&self) -> String {
        let (arithmetic, memory) = (self.least.0 / self.micros, self.least.1 / self.micros);
        if self.micros <= 0.0 || arithmetic.max(memory) <= 0.0 {
            return String::new();
        }
        let (part, of) = if arithmetic >= memory { (arithmetic, "fma") } else { (memory, "mem") };
        format!("{:.1}% {of}", 100.0 * part)
    }

    fn row(&self, total: f64, runs: f64, name: &str, text: &mut String) {
        let rate = |amount: f64| if self.micros > 0.0 { amount / self.micros / 1e3 } else { 0.0 };
        let _ = writeln!(
            text,
            "{:>7} {:>10.3} {:>6.1}% {:>9.2} {:>8.2} {:>11}  {name}",
            (self.calls as f64 / runs).round(),
            self.micros / runs / 1e3,
            100.0 * self.micros / total.max(f64::MIN_POSITIVE),
            rate(self.flops),
            rate(self.bytes),
            self.reached()
        );
    }
}

impl Profile {
    /// Tables by kernel and by operation, for each kind of plan, for a terminal.
    pub fn table(&self, ceilings: Option<&Ceilings>) -> String {
        let mut text = format!("profile on {}\n", self.device);
        text.push_str(match self.clock {
            Some(Clock::Timestamps) => "times by the device's timestamps, in the stream\n",
            Some(Clock::Alone) => {
                "the device has no timestamps: each dispatch was submitted and waited for by itself, which overstates short ones\n"
            }
            Some(Clock::Host) => "times by the wall clock, each operation of the CPU's reference\n",
            None => "nothing ran\n",
        });
        if let Some(c) = ceilings {
            let best = c.copy_gb_per_s.max(c.read_gb_per_s);
            let fma = c.fma_f32.gflops().unwrap_or(0.0);
            let _ = writeln!(text, "ceilings of the device: {fma:.1} GFLOP/s (fma, f32), {best:.1} GB/s (mem)");
        }
        for line in self.covered() {
            let _ = writeln!(text, "covers {line}");
        }
        for name in self.names() {
            let plans: Vec<_> = self.plans.iter().filter(|plan| plan.name == name && !plan.runs.is_empty()).collect();
            if !plans.is_empty() {
                self.section(name, &plans, ceilings, &mut text);
            }
        }
        text
    }

    /// The tables of the plans of one name.
    fn section(&self, name: &str, plans: &[&PlanProfile], ceilings: Option<&Ceilings>, text: &mut String) {
        let mut kernels: BTreeMap<&str, Sum> = BTreeMap::new();
        let mut operations: BTreeMap<&str, Sum> = BTreeMap::new();
        let (mut all, mut wall, mut runs) = (Sum::default(), 0.0, 0);
        for plan in plans {
            for run in &plan.runs {
                runs += 1;
                wall += run.wall.length();
                for (about, span) in plan.about.iter().zip(&run.device) {
                    for sum in
                        [kernels.entry(&about.kernel).or_default(), operations.entry(about.operation).or_default(), &mut all]
                    {
                        sum.add(about, span.length(), ceilings);
                    }
                }
            }
        }
        let runs = f64::from(runs);
        let _ = writeln!(
            text,
            "\n{name}: a run takes {:.3} ms, {:.3} of them on the device ({:.1}%)",
            wall / runs / 1e3,
            all.micros / runs / 1e3,
            100.0 * all.micros / wall.max(f64::MIN_POSITIVE)
        );
        let mut tables = vec![("kernel", kernels)];
        if self.clock != Some(Clock::Host) {
            tables.push(("operation", operations));
        }
        for (heading, sums) in tables {
            let mut rows: Vec<_> = sums.into_iter().collect();
            rows.sort_by(|a, b| b.1.micros.total_cmp(&a.1.micros));
            let _ = writeln!(
                text,
                "{:>7} {:>10} {:>7} {:>9} {:>8} {:>11}  {heading}",
                "calls", "ms", "share", "GFLOP/s", "GB/s", "of ceiling"
            );
            let (shown, rest) = rows.split_at(rows.len().min(ROWS));
            for (name, sum) in shown {
                sum.row(all.micros, runs, name, text);
            }
            if !rest.is_empty() {
                let mut others = Sum::default();
                rest.iter().for_each(|(_, sum)| others.join(sum));
                others.row(all.micros, runs, &format!("{} others", rest.len()), text);
            }
        }
        all.row(all.micros, runs, "all", text);
    }
}
