//! Where the time goes: what each dispatch of a few runs of each plan takes, collected while the program does its work.
//!
//! Only plans that are compiled after [`Engine::profile`](super::Engine::profile) are measured; others know nothing of it.

mod run;
mod table;
mod trace;

pub(super) use run::{Profiled, dispatches, operations};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

/// Runs of a plan that are measured, counted from 1. Those before it warm up, and count only for a plan that has no others.
const RUNS: (usize, usize) = (3, 5);
/// The most events of a device that are kept, over all plans, so that the trace stays small.
pub(super) const EVENTS: usize = 50_000;

/// What a dispatch (on the CPU: an operation) is.
#[derive(Debug, Clone, Default)]
pub struct About {
    /// The kernel in its variant; the operation on the CPU.
    pub kernel: String,
    /// The operation.
    pub operation: &'static str,
    /// The model's layer.
    pub layer: String,
    /// Shapes of the operation's inputs and outputs.
    pub shapes: String,
    /// Its share of the operation's floating-point operations.
    pub flops: u64,
    /// Bytes that it reads and writes, each once (what is updated in place: twice).
    pub bytes: u64,
    /// Workgroups; 0 on the CPU.
    pub workgroups: u32,
}

/// How times were taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// By the device, in the stream in which the dispatches run.
    Timestamps,
    /// By the host, each dispatch submitted and waited for by itself: short ones are overstated.
    Alone,
    /// By the host, each operation of the CPU's reference.
    Host,
}

/// Begin and end, microseconds since the profiler began.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Span {
    /// Begin.
    pub begin: f64,
    /// End.
    pub end: f64,
}

impl Span {
    /// How long it is.
    pub fn length(self) -> f64 {
        self.end - self.begin
    }
}

/// One measured run of a plan.
#[derive(Debug, Clone)]
pub struct RunTimes {
    /// Which run of its plan, from 1.
    pub number: usize,
    /// From the first command's encoding to the end of the wait.
    pub wall: Span,
    /// Of each dispatch, in order; none overlaps another.
    pub device: Vec<Span>,
    /// What the host did.
    pub host: Vec<(&'static str, Span)>,
}

/// What is known of a plan.
#[derive(Debug, Clone)]
pub struct PlanProfile {
    /// What the plan is for.
    pub name: &'static str,
    /// Its dispatches.
    pub about: Arc<[About]>,
    /// Measured runs.
    pub runs: Vec<RunTimes>,
    /// All runs.
    pub count: usize,
}

impl PlanProfile {
    /// Whether the measured runs are the first ones, which warm up.
    pub fn cold(&self) -> bool {
        self.runs.first().is_some_and(|run| run.number < RUNS.0)
    }
}

/// What has been collected.
#[derive(Debug, Clone, Default)]
pub struct Profile {
    /// The device.
    pub device: String,
    /// How times were taken; `None` before the first.
    pub clock: Option<Clock>,
    /// Plans, in the order in which they were compiled.
    pub plans: Vec<PlanProfile>,
    /// Runs that would have been measured, were the trace not full.
    pub left_out: usize,
}

/// Collects times from the plans of an engine.
pub struct Profiler {
    start: Instant,
    events: usize,
    state: Mutex<Profile>,
}

impl Profiler {
    /// A profiler for an engine on `device` that keeps so many events.
    pub(super) fn new(device: String, events: usize) -> Self {
        Self { start: Instant::now(), events, state: Mutex::new(Profile { device, ..Profile::default() }) }
    }

    /// What has been collected so far.
    pub fn collected(&self) -> Profile {
        self.state().clone()
    }

    fn state(&self) -> MutexGuard<'_, Profile> {
        // Figures are whole between any two statements that could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Microseconds from the profiler's begin to `at`.
    fn micros(&self, at: Instant) -> f64 {
        at.duration_since(self.start).as_secs_f64() * 1e6
    }

    fn span(&self, begin: Instant, end: Instant) -> Span {
        Span { begin: self.micros(begin), end: self.micros(end) }
    }
}

impl Profile {
    /// Events that the trace has of the device.
    fn events(&self) -> usize {
        self.plans.iter().flat_map(|plan| &plan.runs).map(|run| run.device.len()).sum()
    }

    /// Whether anything was measured.
    pub fn is_empty(&self) -> bool {
        self.events() == 0
    }

    /// Names of the plans, each once, in the order in which they came.
    fn names(&self) -> Vec<&'static str> {
        let mut names = Vec::new();
        for plan in &self.plans {
            if !names.contains(&plan.name) {
                names.push(plan.name);
            }
        }
        names
    }

    /// What was measured and what was not, a line for all plans of a name.
    pub fn covered(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for name in self.names() {
            let plans: Vec<_> = self.plans.iter().filter(|plan| plan.name == name).collect();
            let runs: usize = plans.iter().map(|plan| plan.count).sum();
            let measured: Vec<_> = plans.iter().filter(|plan| !plan.runs.is_empty()).collect();
            if runs == 0 {
                continue;
            }
            let which = match measured[..] {
                [] => "none".to_owned(),
                [plan] => {
                    let (first, last) = (plan.runs[0].number, plan.runs[plan.runs.len() - 1].number);
                    if first == last { format!("run {first}") } else { format!("runs {first} to {last}") }
                }
                _ => {
                    let runs: usize = measured.iter().map(|plan| plan.runs.len()).sum();
                    format!("{runs} runs of {} plans", measured.len())
                }
            };
            let cold = measured.iter().filter(|plan| plan.cold()).count();
            let cold = match cold {
                0 => "",
                _ if cold == measured.len() => " (the first: warm-up counts)",
                _ => " (of some the first: warm-up counts)",
            };
            lines.push(format!("{name}: {which} of {runs}{cold}"));
        }
        if self.left_out > 0 {
            lines.push(format!("{} more runs were left out: the trace is full with {} events", self.left_out, self.events()));
        }
        lines
    }
}
