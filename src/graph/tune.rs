//! Kernels chosen by measuring: where an operation can be done by several, each is run on its sizes, checked against the
//! simplest, and timed.

use super::{
    Engine, GraphError, Plan, PlanOptions,
    lowered::{Lowered, lower},
    record::{Graph, Node},
};
use crate::{
    gpu::{Autotune, GpuError, Timings},
    ops::{
        self, DType, Decision, HostTensor, OpError, Packed, Precision, Recorder, Storage, Tensor, TensorType, random::threefry,
    },
};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// Work below this many floating-point operations is not measured unasked: any kernel will do.
const WORTH: u64 = 500_000_000;
/// How long measuring may take unasked, in all.
const UNASKED: Duration = Duration::from_secs(3);
/// The same for a mixed plan, whose kernels with cooperative matrices may only be taken once they have been checked.
const UNASKED_MIXED: Duration = Duration::from_secs(30);
/// Kernels are run in turn until each has taken this long, or this often.
const ENOUGH: Duration = Duration::from_millis(20);
const RUNS: usize = 20;
/// How long a GPU is kept busy before kernels are timed: one that idled while they were compiled is slow (an H100 by a factor of
/// three), and takes its time to wake.
const WAKING: Duration = Duration::from_millis(300);

/// What a measurement found.
#[derive(Debug, Clone)]
pub struct Tuned {
    /// The kind of work.
    pub work: String,
    /// The kernels, with what each took.
    pub timings: Timings,
    /// The one that is taken without measuring.
    pub rule: String,
}

impl Tuned {
    /// The fastest.
    pub fn best(&self) -> Option<(&str, f64)> {
        let right = self.timings.iter().filter_map(|(name, time)| time.map(|time| (name.as_str(), time)));
        right.min_by(|a, b| a.1.total_cmp(&b.1))
    }
}

/// Standard normal numbers would do as well: anything but zeros, whose products no error shows in. They are multiples of 1/1024,
/// which 16 bits hold: a kernel that rounds operands has no excuse for another result than one that does not. They repeat after
/// a prime number of them, so that no two rows are alike and making them takes no longer than measuring.
fn noise(ty: &TensorType, seed: u32) -> HostTensor<f32> {
    let n = ty.elements();
    match ty.dtype {
        DType::F32 => {
            let value = |i: u32| (threefry([seed, 0x7E57], [i, 0])[0] >> 21) as f32 / 1024.0 - 1.0;
            let some: Vec<_> = (0..32_771.min(n as u32)).map(value).collect();
            let mut data = Vec::with_capacity(n);
            while data.len() < n {
                data.extend_from_slice(&some[..some.len().min(n - data.len())]);
            }
            HostTensor::floats(ty.shape.clone(), data)
        }
        // Masks of keys: some are to be left out.
        DType::U32 => HostTensor::uints(ty.shape.clone(), (0..n).map(|i| u32::from(i % 7 != 3)).collect()),
    }
}

/// Elements in a row of what is compared, where that is not all.
const ROW: usize = 64;

/// Numbers of the rows that stand for a large tensor of `rows` rows: its beginning, its end, where tiles are cut off, and some from
/// everywhere.
fn sample(rows: usize) -> Vec<u32> {
    let part = 512.min(rows);
    let spread = (0..part).map(|i| i * (rows / part) + (threefry([1, 2], [i as u32, 0])[0] as usize) % (rows / part));
    (0..part).chain(rows - part..rows).chain(spread).map(|row| row as u32).collect()
}

/// An input, and the numbers of the rows that it is fed.
type Sampled = (Tensor, Vec<u32>);

/// What of `output` is compared: all of it, or a sample, with the input that says which.
fn compared(g: &mut Graph, output: Tensor) -> Result<(Tensor, Option<Sampled>), OpError> {
    let n = g.ty(output).elements();
    if n <= 1 << 18 || n % ROW != 0 || g.ty(output).dtype != DType::F32 {
        return Ok((output, None));
    }
    let rows = sample(n / ROW);
    let ids = g.input("rows", TensorType::u32([rows.len()]));
    let table = ops::reshape(g, output, [n / ROW, ROW])?;
    Ok((ops::embedding(g, table, ids)?, Some((ids, rows))))
}

/// The variable that stands for a packed input while kernels are measured.
fn packed_name(input: usize) -> String {
    format!("tune.{input}")
}

/// The squared error of `found` as a part of the squared size of `expected`.
fn error(found: &[HostTensor<f32>], expected: &[HostTensor<f32>]) -> f64 {
    let (mut off, mut size) = (0.0, 0.0);
    for (f, e) in found.iter().zip(expected).flat_map(|(f, e)| f.f().iter().zip(e.f())) {
        off += f64::from(f - e).powi(2);
        size += f64::from(*e).powi(2);
    }
    // What is no number is wrong, too.
    if off <= size * f64::MAX { off / size.max(f64::MIN_POSITIVE) } else { f64::INFINITY }
}

impl Engine {
    /// Measures the kernels of every choice in the plan of `graph` by `options` that was not measured before, and returns what it found.
    /// `progress` is told how many are done, and of how many. Nothing on the CPU.
    ///
    /// # Errors
    /// An operation does not fit the adapter, or the device fails.
    pub fn tune(
        &mut self,
        graph: &Graph,
        outputs: &[Tensor],
        options: &PlanOptions,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Tuned>, GraphError> {
        let Some(gpu) = &self.gpu else { return Ok(Vec::new()) };
        let options = &self.with_packed(options);
        let lowered = lower(&gpu.caps, graph, outputs, options)?;
        self.tune_within(graph, &lowered, options, None, progress)
    }

    /// What [`compile`](Self::compile) does by the policy, and whether anything was found.
    pub(super) fn tune_unasked(&mut self, graph: &Graph, lowered: &Lowered, options: &PlanOptions) -> Result<bool, GraphError> {
        let Some(gpu) = &self.gpu else { return Ok(false) };
        let budget = match gpu.caps.tuning.policy {
            Autotune::Off => return Ok(false),
            // Compiling the candidates takes seconds there.
            Autotune::On if gpu.caps.software => return Ok(false),
            Autotune::On => {
                let most = if options.precision == Precision::Mixed { UNASKED_MIXED } else { UNASKED };
                Some(most.saturating_sub(self.tuned))
            }
            Autotune::Full => None,
        };
        let begin = Instant::now();
        let found = self.tune_within(graph, lowered, options, budget, &mut |_, _| {})?;
        self.tuned += begin.elapsed();
        Ok(!found.is_empty())
    }

    fn tune_within(
        &mut self,
        graph: &Graph,
        lowered: &Lowered,
        options: &PlanOptions,
        budget: Option<Duration>,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Vec<Tuned>, GraphError> {
        let Some(gpu) = self.gpu.clone() else { return Ok(Vec::new()) };
        let mut open: Vec<(&Decision, usize)> = Vec::new();
        for (decision, node) in &lowered.decisions {
            let known = open.iter().any(|(other, _)| other.work == decision.work);
            if decision.measured.is_none() && !known && (budget.is_none() || decision.flops >= WORTH) {
                open.push((decision, *node));
            }
        }
        // The largest first, since time may run out.
        open.sort_by_key(|(decision, _)| std::cmp::Reverse(decision.flops));
        let begin = Instant::now();
        let mut found = Vec::new();
        let all = open.len();
        for (done, (decision, node)) in open.into_iter().enumerate() {
            if budget.is_some_and(|budget| begin.elapsed() >= budget) {
                break;
            }
            let timings = self.measure(graph, &lowered.nodes[node], decision, options);
            (0..lowered.nodes[node].inputs.len()).for_each(|input| self.remove(&packed_name(input)));
            let timings = timings?;
            gpu.caps.tuning.remember(&decision.work, timings.clone());
            let rule = decision.kernels[decision.rule].clone();
            found.push(Tuned { work: decision.work.clone(), timings, rule });
            progress(done + 1, all);
        }
        Ok(found)
    }

    /// Times each kernel of a choice on an operation of these sizes.
    fn measure(&mut self, graph: &Graph, node: &Node, decision: &Decision, options: &PlanOptions) -> Result<Timings, GraphError> {
        let mut fit: Vec<usize> = (0..decision.kernels.len()).collect();
        let times = match self.race(graph, node, decision, options.precision, &fit) {
            Err(GraphError::Gpu(GpuError::Validation { .. })) => {
                fit = self.compiled(graph, node, decision, options.precision)?;
                self.race(graph, node, decision, options.precision, &fit)?
            }
            times => times?,
        };
        let mut timings: Timings = decision.kernels.iter().map(|kernel| (kernel.clone(), None)).collect();
        for (choice, time) in fit.into_iter().zip(times) {
            timings.insert(decision.kernels[choice].clone(), time.map(|time| time.as_secs_f64() * 1e3));
        }
        Ok(timings)
    }

    /// The kernels that the driver compiles: others are no better than what is wrong. Without the simplest there is nothing to do.
    fn compiled(
        &mut self,
        graph: &Graph,
        node: &Node,
        decision: &Decision,
        precision: Precision,
    ) -> Result<Vec<usize>, GraphError> {
        let mut fit = Vec::new();
        for choice in 0..decision.kernels.len() {
            match Contest::new(self, graph, node, decision, precision, &[choice]) {
                Err(GraphError::Gpu(GpuError::Validation { .. })) if choice > 0 => {}
                contest => drop(contest.map(|_| fit.push(choice))?),
            }
        }
        Ok(fit)
    }

    /// Times the kernels of `choices` in turn, all in one plan, so that none meets a device in another state than the others do;
    /// `None` for one whose results are not those of the first.
    fn race(
        &mut self,
        graph: &Graph,
        node: &Node,
        decision: &Decision,
        precision: Precision,
        choices: &[usize],
    ) -> Result<Vec<Option<Duration>>, GraphError> {
        let mut contest = Contest::new(self, graph, node, decision, precision, choices)?;
        contest.plan.run(self)?;
        let results = contest.results()?;
        let right: Vec<_> = results.iter().map(|found| error(found, &results[0]) <= decision.error).collect();
        let software = self.gpu.as_ref().is_some_and(|gpu| gpu.caps.software);
        let awake = Instant::now() + if software { Duration::ZERO } else { WAKING };
        while Instant::now() < awake {
            contest.plan.run(self)?;
            contest.plan.wait()?;
        }
        let mut best = vec![Duration::MAX; choices.len()];
        let begin = Instant::now();
        for _ in 0..RUNS {
            let Some(times) = contest.plan.time_operations(node.op.name())? else {
                // Without timestamps each takes its time alone.
                let mut best = Vec::new();
                for choice in choices {
                    best.push(self.time_alone(graph, node, decision, precision, *choice)?);
                }
                return Ok(best.into_iter().zip(right).map(|(time, right)| right.then_some(time)).collect());
            };
            best.iter_mut().zip(times).for_each(|(best, time)| *best = time.min(*best));
            if begin.elapsed() >= ENOUGH * choices.len() as u32 {
                break;
            }
        }
        Ok(best.into_iter().zip(right).map(|(time, right)| right.then_some(time)).collect())
    }

    /// Times a kernel by the wall clock.
    fn time_alone(
        &mut self,
        graph: &Graph,
        node: &Node,
        decision: &Decision,
        precision: Precision,
        choice: usize,
    ) -> Result<Duration, GraphError> {
        let mut contest = Contest::new(self, graph, node, decision, precision, &[choice])?;
        let (mut best, begin) = (Duration::MAX, Instant::now());
        // The first run may wait for memory.
        for run in 0..=RUNS {
            let start = Instant::now();
            contest.plan.run(self)?;
            contest.plan.wait()?;
            if run > 0 {
                best = best.min(start.elapsed());
                if begin.elapsed() >= ENOUGH {
                    break;
                }
            }
        }
        Ok(best)
    }
}

/// An operation done once by each of several kernels, on the same operands.
struct Contest {
    plan: Plan,
    /// What of each kernel's results is compared.
    compared: Vec<Vec<Tensor>>,
}

impl Contest {
    /// Plans it, on operands stored as they are in the plan that wants to know, and with results that are.
    fn new(
        engine: &mut Engine,
        graph: &Graph,
        node: &Node,
        decision: &Decision,
        precision: Precision,
        choices: &[usize],
    ) -> Result<Self, GraphError> {
        let mut g = Graph::new();
        let mut inputs = Vec::new();
        for (i, (&input, stored)) in node.inputs.iter().zip(&decision.stored).enumerate() {
            let ty = graph.ty(input).clone();
            inputs.push(match stored {
                Storage::Packed(packing) => {
                    engine.set_packed(&packed_name(i), &Packed::pack(*packing, noise(&ty, i as u32).f())?)?;
                    g.variable(&packed_name(i), ty)?
                }
                _ => g.input("x", ty),
            });
        }
        let (mut all, mut samples, mut factors) = (Vec::new(), Vec::new(), HashMap::new());
        for _ in choices {
            let mut parts = Vec::new();
            for (output, written) in g.record(node.op.clone(), &inputs)?.into_iter().zip(&decision.written) {
                // What the host reads is not in 16 bits, but what another operation reads, which no kernel takes on, can be.
                let output = if *written == Storage::F16 {
                    let width = g.ty(output).shape.width();
                    let factor = *factors.entry(width).or_insert_with(|| g.input("factor", TensorType::f32([width])));
                    ops::mul(&mut g, output, factor)?
                } else {
                    output
                };
                let (part, sample) = compared(&mut g, output)?;
                parts.push(part);
                samples.extend(sample);
            }
            all.push(parts);
        }
        let stored = inputs.iter().zip(&decision.stored).filter(|(_, stored)| **stored == Storage::F16);
        let halves = stored.map(|(&input, _)| input).collect();
        // With choices given nothing is measured.
        let options = PlanOptions { choices: choices.to_vec(), precision, halves, ..PlanOptions::default() };
        let mut plan = engine.compile(g, &all.concat(), &options)?;
        for (ids, rows) in samples {
            plan.set(ids, HostTensor::uints([rows.len()], rows))?;
        }
        for (width, factor) in factors {
            plan.set(factor, noise(&TensorType::f32([width]), inputs.len() as u32))?;
        }
        for (seed, ((&input, &original), stored)) in inputs.iter().zip(&node.inputs).zip(&decision.stored).enumerate() {
            if stored.packing().is_none() {
                plan.set(input, noise(graph.ty(original), seed as u32))?;
            }
        }
        Ok(Self { plan, compared: all })
    }

    /// The results of each kernel, once it has run.
    fn results(&self) -> Result<Vec<Vec<HostTensor<f32>>>, GraphError> {
        self.compared.iter().map(|parts| parts.iter().map(|&part| self.plan.get(part)).collect()).collect()
    }
}
