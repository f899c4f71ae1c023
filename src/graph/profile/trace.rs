//! The trace: Chrome's trace event format, which chrome://tracing and Perfetto open.
//! <https://docs.google.com/document/d/1CvAClvFfyA5R-PhYUmn5OOQtYMH4h6I0nSsKchNAySU>

use super::{Clock, PlanProfile, Profile, RunTimes, Span};
use serde_json::{Value, json};
use std::io::{self, Write};

/// The tracks.
const HOST: u32 = 1;
const DEVICE: u32 = 2;

/// A complete event. Times are whole nanoseconds, so that neighbours meet exactly: `dur` is what lies between two such.
fn event(name: &str, category: &str, track: u32, span: Span, args: Value) -> Value {
    let nanoseconds = |micros: f64| (micros * 1e3).round();
    let (begin, end) = (nanoseconds(span.begin), nanoseconds(span.end));
    json!({
        "name": name, "cat": category, "ph": "X", "pid": 1, "tid": track, "ts": begin / 1e3, "dur": (end - begin) / 1e3,
        "args": args,
    })
}

impl Profile {
    /// Writes the trace.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_trace(&self, out: &mut impl Write) -> io::Result<()> {
        write!(out, "{{\"displayTimeUnit\":\"ms\",\"otherData\":{},\n\"traceEvents\":[", self.other())?;
        let named = |track: u32, name: &str, sort: u32| {
            [
                json!({"name": "thread_name", "ph": "M", "pid": 1, "tid": track, "args": {"name": name}}),
                json!({"name": "thread_sort_index", "ph": "M", "pid": 1, "tid": track, "args": {"sort_index": sort}}),
            ]
        };
        let process = json!({"name": "process_name", "ph": "M", "pid": 1, "args": {"name": "shaderlm"}});
        write!(out, "\n{process}")?;
        for meta in named(HOST, "host", 1).into_iter().chain(named(DEVICE, &self.device, 2)) {
            write!(out, ",\n{meta}")?;
        }
        let plans = self.plans.iter().enumerate();
        let mut runs: Vec<_> = plans.flat_map(|(id, plan)| plan.runs.iter().map(move |run| (id, plan, run))).collect();
        runs.sort_by(|a, b| a.2.wall.begin.total_cmp(&b.2.wall.begin));
        for (id, plan, run) in runs {
            for (name, span) in &run.host {
                let args = json!({"plan": plan.name, "plan_id": id, "run": run.number});
                write!(out, ",\n{}", event(name, "host", HOST, *span, args))?;
            }
            for (about, span) in plan.about.iter().zip(&run.device) {
                let mut args = json!({
                    "kernel": about.kernel, "layer": about.layer, "operation": about.operation, "shapes": about.shapes,
                    "flops": about.flops, "bytes": about.bytes, "plan": plan.name, "plan_id": id, "run": run.number,
                });
                if about.workgroups > 0 {
                    args["workgroups"] = about.workgroups.into();
                }
                write!(out, ",\n{}", event(&about.kernel, about.operation, DEVICE, *span, args))?;
            }
        }
        writeln!(out, "\n]}}")
    }

    /// What the trace covers.
    fn other(&self) -> Value {
        let clock = match self.clock {
            Some(Clock::Timestamps) => "timestamps of the device",
            Some(Clock::Alone) => "wall clock, each dispatch alone",
            Some(Clock::Host) => "wall clock, each operation",
            None => "none",
        };
        let run = |run: &RunTimes| {
            let busy: f64 = run.device.iter().map(|span| span.length()).sum();
            json!({"number": run.number, "wall_us": run.wall.length(), "device_us": busy})
        };
        let plan = |(id, plan): (usize, &PlanProfile)| {
            json!({
                "id": id, "name": plan.name, "dispatches": plan.about.len(), "runs": plan.count,
                "measured": plan.runs.iter().map(run).collect::<Vec<_>>(),
            })
        };
        json!({
            "device": self.device, "clock": clock, "covered": self.covered(), "left_out_runs": self.left_out,
            "plans": self.plans.iter().enumerate().filter(|(_, p)| !p.runs.is_empty()).map(plan).collect::<Vec<_>>(),
        })
    }
}
