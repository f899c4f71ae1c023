//! Measured runs.

use super::{About, Clock, PlanProfile, Profiler, RUNS, RunTimes, Span};
use crate::{
    gpu::{Access, Bound, Gpu, timing},
    graph::{
        GraphError,
        lowered::Lowered,
        record::{Graph, Node},
    },
    ops::{Recorder, Tensor, TensorType},
};
use std::{sync::Arc, time::Instant};

/// What the dispatches of a lowered graph are.
pub fn dispatches(lowered: &Lowered, g: &Graph, shares: &[u64]) -> Vec<About> {
    let each = lowered.steps.iter().zip(shares).map(|(step, &flops)| {
        let node = &lowered.nodes[step.node];
        let types = |tensors: &[Tensor]| tensors.iter().map(|&t| g.ty(t).clone()).collect::<Vec<_>>();
        let (inputs, outputs) = (types(&node.inputs), types(&node.outputs));
        let updates = node.op.updates();
        let bytes = |window: &crate::ops::Window, access: Access| {
            let bytes = window.len as u64 * window.storage.bytes();
            let input = (0..node.inputs.len()).find(|&i| lowered.operands[&node.inputs[i]].root == window.root);
            match input {
                // Read and written.
                Some(i) if access == Access::Write && updates.contains(&i) => 2 * bytes,
                Some(i) if access == Access::Read => {
                    node.op.picks(i, &inputs, &outputs).map_or(bytes, |picked| bytes.min(picked))
                }
                _ => bytes,
            }
        };
        About {
            kernel: step.dispatch.kernel.label(),
            flops,
            bytes: step.dispatch.bindings.iter().map(|(window, access)| bytes(window, *access)).sum(),
            workgroups: step.dispatch.groups,
            ..about(node, &inputs, &outputs)
        }
    });
    each.collect()
}

/// What the operations are that the CPU runs: `live` of the graph's nodes.
pub fn operations(g: &Graph, live: &[usize]) -> Vec<About> {
    let each = live.iter().map(|&index| {
        let node = &g.nodes()[index];
        let types = |tensors: &[Tensor]| tensors.iter().map(|&t| g.ty(t).clone()).collect::<Vec<_>>();
        let (inputs, outputs) = (types(&node.inputs), types(&node.outputs));
        let updates = node.op.updates();
        let read = inputs.iter().enumerate().map(|(i, input)| {
            let times = if updates.contains(&i) { 2 } else { 1 };
            node.op.picks(i, &inputs, &outputs).unwrap_or_else(|| times * input.bytes())
        });
        About {
            kernel: node.op.name().into(),
            flops: node.op.flops(&inputs, &outputs),
            bytes: read.sum::<u64>() + outputs.iter().map(TensorType::bytes).sum::<u64>(),
            workgroups: 0,
            ..about(node, &inputs, &outputs)
        }
    });
    each.collect()
}

fn about(node: &Node, inputs: &[TensorType], outputs: &[TensorType]) -> About {
    let words = |types: &[TensorType]| types.iter().map(|ty| ty.shape.to_string()).collect::<Vec<_>>().join(" ");
    About {
        operation: node.op.name(),
        layer: node.layer.to_string(),
        shapes: format!("{} -> {}", words(inputs), words(outputs)),
        ..About::default()
    }
}

/// A plan's place in a profiler.
pub struct Profiled {
    profiler: Arc<Profiler>,
    plan: usize,
    /// What the host did since the last run, for the next one that is measured.
    before: Vec<(&'static str, Span)>,
    /// Whether the last run was measured.
    measured: bool,
    /// Whether there was room for what its dispatches are, and so for their times.
    room: bool,
}

impl Profiled {
    pub fn new(profiler: &Arc<Profiler>, name: &'static str, about: Vec<About>) -> Self {
        let mut state = profiler.state();
        let room = state.events() + about.len() <= profiler.events;
        // Thousands of plans (a text at a time) are counted, but not all described.
        let about = if room { about } else { Vec::new() };
        state.plans.push(PlanProfile { name, about: about.into(), runs: Vec::new(), count: 0 });
        let plan = state.plans.len() - 1;
        drop(state);
        Self { profiler: profiler.clone(), plan, before: Vec::new(), measured: false, room }
    }

    /// The number of the run that begins now, if it is to be measured; then it is counted.
    pub fn begin(&mut self) -> Option<usize> {
        let mut state = self.profiler.state();
        let number = state.plans[self.plan].count + 1;
        self.measured =
            number <= RUNS.1 && self.room && state.events() + state.plans[self.plan].about.len() <= self.profiler.events;
        if self.measured {
            state.plans[self.plan].count = number;
        }
        self.measured.then_some(number)
    }

    /// Counts runs that are not measured: too late, or the trace is full.
    pub fn count(&mut self, runs: usize) {
        if runs > 0 {
            let mut state = self.profiler.state();
            let count = state.plans[self.plan].count;
            state.left_out += RUNS.1.saturating_sub(count).min(runs);
            state.plans[self.plan].count = count + runs;
            self.measured = false;
            self.before.clear();
        }
    }

    /// Whether no later run will be measured.
    pub fn over(&self) -> bool {
        self.profiler.state().plans[self.plan].count >= RUNS.1
    }

    /// The host fed the plan.
    pub fn fed(&mut self, begin: Instant) {
        if !self.over() {
            self.before.push(("upload", self.profiler.span(begin, Instant::now())));
        }
    }

    /// The host read an output.
    pub fn read(&self, begin: Instant) {
        if self.measured {
            let span = self.profiler.span(begin, Instant::now());
            if let Some(run) = self.profiler.state().plans[self.plan].runs.last_mut() {
                run.host.push(("read back", span));
            }
        }
    }

    fn keep(&mut self, clock: Clock, mut run: RunTimes) {
        let mut host = std::mem::take(&mut self.before);
        host.append(&mut run.host);
        run.host = host;
        let mut state = self.profiler.state();
        state.clock = Some(clock);
        let plan = &mut state.plans[self.plan];
        if run.number >= RUNS.0 {
            plan.runs.retain(|known| known.number >= RUNS.0);
        }
        plan.runs.push(run);
    }

    /// Run `number` on the adapter; `cuts` are the ends of its submissions. Waits for it.
    pub fn run(&mut self, number: usize, gpu: &Gpu, bound: &[Bound], cuts: &[usize]) -> Result<(), GraphError> {
        let pieces = timing::pieces(cuts);
        let Some(watches) = gpu.stopwatches(&pieces)? else { return self.run_alone(number, gpu, bound) };
        let profiler = self.profiler.clone();
        let mut host = Vec::new();
        let begin = Instant::now();
        for (piece, watch) in pieces.into_iter().zip(&watches) {
            let before = Instant::now();
            let mut encoder = gpu.encoder();
            watch.record(&mut encoder, bound[piece].iter());
            let encoded = Instant::now();
            gpu.submit(encoder)?;
            host.push(("encode", profiler.span(before, encoded)));
            host.push(("submit", profiler.span(encoded, Instant::now())));
        }
        let before = Instant::now();
        gpu.wait()?;
        let end = Instant::now();
        host.push(("wait", profiler.span(before, end)));
        let mut ticks = Vec::new();
        for watch in &watches {
            ticks.extend(watch.times(gpu)?);
        }
        // The device's clock has an origin of its own: its last dispatch is taken to end when the wait for it does.
        let wall = profiler.span(begin, end);
        let last = ticks.last().map_or(0, |last| last.1);
        let at = |nanoseconds: u64| wall.end - last.saturating_sub(nanoseconds) as f64 / 1e3;
        let device = ticks.into_iter().map(|(begin, end)| Span { begin: at(begin), end: at(end) }).collect();
        self.keep(Clock::Timestamps, RunTimes { number, wall, device, host });
        Ok(())
    }

    /// Without timestamps: each dispatch by itself.
    fn run_alone(&mut self, number: usize, gpu: &Gpu, bound: &[Bound]) -> Result<(), GraphError> {
        let profiler = self.profiler.clone();
        let (mut device, mut host) = (Vec::new(), Vec::new());
        let begin = Instant::now();
        for bound in bound {
            let before = Instant::now();
            let mut encoder = gpu.encoder();
            bound.prepare(&mut encoder);
            bound.dispatch(&mut encoder.begin_compute_pass(&wgpu::ComputePassDescriptor::default()));
            let encoded = Instant::now();
            gpu.submit(encoder)?;
            let submitted = Instant::now();
            gpu.wait()?;
            let end = Instant::now();
            host.push(("encode", profiler.span(before, encoded)));
            host.push(("submit", profiler.span(encoded, submitted)));
            host.push(("wait", profiler.span(submitted, end)));
            device.push(profiler.span(encoded, end));
        }
        let wall = profiler.span(begin, Instant::now());
        self.keep(Clock::Alone, RunTimes { number, wall, device, host });
        Ok(())
    }

    /// Run `number` on the CPU: `evaluate` calls its argument with each operation's begin and end.
    pub fn run_on_host<T>(&mut self, number: usize, evaluate: impl FnOnce(&mut dyn FnMut(Instant, Instant)) -> T) -> T {
        let profiler = self.profiler.clone();
        let mut device = Vec::new();
        let begin = Instant::now();
        let result = evaluate(&mut |begin, end| device.push(profiler.span(begin, end)));
        let wall = profiler.span(begin, Instant::now());
        self.keep(Clock::Host, RunTimes { number, wall, device, host: vec![("evaluate", wall)] });
        result
    }
}
