//! The plan: kernel variants, an arena in which dead buffers are reused, bind groups and order, fixed once.

use super::{
    Engine, GraphError,
    arena::{self, Need},
    engine::{Stored, Variable, device_bytes, from_device_bytes},
    host::{evaluate_watched, live_nodes},
    lowered::{Lowered, Step},
    profile::{self, Profiled, Profiler},
    reader::{Of, Place, Reader},
    record::{Graph, Leaf, Source},
};
use crate::{
    gpu::{Access, Bound, Buffer, BufferSlice, Gpu, Kernel, ReadBack, timing},
    ops::{DType, HostData, HostTensor, Packing, Precision, Recorder, Storage, Tensor, TensorType},
};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// How to plan.
#[derive(Debug, Clone, Default)]
pub struct PlanOptions {
    /// What the plan is for, in a profile.
    pub name: &'static str,
    /// Bytes of a known pattern around every planned buffer, for tests; 0 for none.
    pub sentinel: u64,
    /// Leave every operation its own dispatches.
    pub no_fusion: bool,
    /// What may be rounded.
    pub precision: Precision,
    /// Inputs that a mixed plan keeps in 16-bit floats, where all kernels that read them take them so.
    pub halves: Vec<Tensor>,
    /// The kernels to take, for measuring: one for each operation that has a choice, in order, and the last for all that follow.
    /// None where the rule and earlier measurements are to decide.
    pub choices: Vec<usize>,
    /// Variables in narrow storage, by name. An engine adds its own.
    pub packed: HashMap<String, Packing>,
}

impl PlanOptions {
    /// The usual options, with a name for a profile.
    pub fn named(name: &'static str) -> Self {
        Self { name, ..Self::default() }
    }
}

/// Sizes of a plan.
#[derive(Debug, Clone, Copy, Default)]
pub struct PlanStats {
    /// Dispatches in one run.
    pub dispatches: usize,
    /// Submissions in one run.
    pub submissions: usize,
    /// Bytes of all planned tensors, were none to share memory.
    pub planned_bytes: u64,
    /// Bytes of the arena in which they do share it.
    pub peak_bytes: u64,
    /// Bytes of variables that the plan uses.
    pub variable_bytes: u64,
    /// Floating-point operations in one run.
    pub flops: u64,
}

/// The byte that fills sentinels.
const SENTINEL: u8 = 0xA5;
/// A submission is cut after this many floating-point operations, so that no watchdog takes it for hung: on a software adapter, and on
/// a GPU, the slowest of which do them in half a second.
const FLOPS_A_SUBMISSION: [u64; 2] = [50_000_000_000, 200_000_000_000];
/// And after this many dispatches.
const DISPATCHES_A_SUBMISSION: usize = 4096;

/// A plan on an adapter.
pub struct GpuPlan {
    gpu: Arc<Gpu>,
    bound: Vec<Bound>,
    /// Of each dispatch, the number and the name of its operation.
    operations: Vec<(usize, &'static str)>,
    /// Ends of the submissions, as counts of dispatches.
    cuts: Vec<usize>,
    inputs: HashMap<Tensor, (BufferSlice, TensorType, Storage)>,
    outputs: HashMap<Tensor, (Buffer, u64, TensorType)>,
    sentinels: Vec<(Buffer, u64, u64)>,
    profiled: Option<Profiled>,
    stats: PlanStats,
    /// What encoding took, nanoseconds.
    encoding: AtomicU64,
    // Parameters of all kernels; bind groups refer to it.
    _params: Buffer,
}

impl GpuPlan {
    pub(super) fn new(
        gpu: Arc<Gpu>,
        g: &Graph,
        wanted: &[Tensor],
        lowered: &Lowered,
        variables: &HashMap<String, Variable>,
        options: &PlanOptions,
        profiler: Option<&Arc<Profiler>>,
    ) -> Result<Self, GraphError> {
        let Lowered { nodes, steps, roots, operands, .. } = lowered;
        let mut stats = PlanStats { dispatches: steps.len(), ..PlanStats::default() };

        // Liveness, and the arena.
        let mut life: Vec<Option<(usize, usize)>> = vec![None; roots.len()];
        for (at, step) in steps.iter().enumerate() {
            for (window, _) in &step.dispatch.bindings {
                let span = life[window.root].get_or_insert((at, at));
                span.1 = at;
            }
        }
        for tensor in wanted {
            let span = life[operands[tensor].root].get_or_insert((0, 0));
            span.1 = steps.len();
        }
        let temporary: Vec<_> = (0..roots.len()).filter(|&r| roots[r].leaf.is_none() && life[r].is_some()).collect();
        let needs: Vec<_> = temporary
            .iter()
            .map(|&r| {
                let (first, last) = life[r].unwrap_or_default();
                Need { bytes: roots[r].bytes(), first, last }
            })
            .collect();
        // With sentinels every tensor has memory of its own, so that an overrun meets a sentinel and not a neighbour.
        let layout = if options.sentinel > 0 {
            arena::Layout {
                place: (0..needs.len()).collect(),
                buffers: needs.iter().map(|n| n.bytes.next_multiple_of(256) + 2 * options.sentinel).collect(),
            }
        } else {
            arena::lay_out(&needs)
        };
        stats.planned_bytes = needs.iter().map(|n| n.bytes).sum();
        stats.peak_bytes = layout.buffers.iter().sum();
        let mut arena_buffers = Vec::new();
        for &bytes in &layout.buffers {
            arena_buffers.push(gpu.buffer("activations", bytes)?);
        }
        let mut memory: Vec<Option<(Buffer, u64)>> = vec![None; roots.len()];
        let mut sentinels = Vec::new();
        for (i, &root) in temporary.iter().enumerate() {
            let buffer = arena_buffers[layout.place[i]].clone();
            if options.sentinel > 0 {
                gpu.write(&buffer, 0, &vec![SENTINEL; buffer.bytes as usize])?;
                sentinels.push((buffer.clone(), options.sentinel, needs[i].bytes));
            }
            memory[root] = Some((buffer, options.sentinel));
        }
        for (index, root) in roots.iter().enumerate() {
            let bytes = root.bytes();
            memory[index] = match &root.leaf {
                None => continue,
                Some(Leaf::Variable(name)) => {
                    stats.variable_bytes += bytes;
                    match variables.get(name).map(|v| &v.data) {
                        Some(Stored::Gpu(buffer)) => Some((buffer.clone(), 0)),
                        _ => continue,
                    }
                }
                Some(Leaf::Input(name)) => Some((gpu.buffer(name, bytes)?, 0)),
                Some(Leaf::Constant(value)) => {
                    let buffer = gpu.buffer("constant", bytes)?;
                    if *value != 0.0 {
                        // Constants are filled once; the element type decides what the value means.
                        let uint = operands.values().any(|o| o.root == index && o.ty.dtype == DType::U32);
                        let word = if uint { *value as u32 } else { value.to_bits() };
                        gpu.write(&buffer, 0, bytemuck::cast_slice(&vec![word; root.elements]))?;
                    }
                    Some((buffer, 0))
                }
            };
        }

        // Parameters, pipelines, bind groups.
        let stride = 256;
        let mut words = vec![0u8; steps.len() * stride];
        for (step, slot) in steps.iter().zip(words.chunks_mut(stride)) {
            let bytes: &[u8] = bytemuck::cast_slice(&step.dispatch.params);
            slot[..bytes.len()].copy_from_slice(bytes);
        }
        let params = gpu.uniform(&words)?;
        let variants: Vec<(&Kernel, Vec<Access>)> = steps
            .iter()
            .map(|step| (&step.dispatch.kernel, step.dispatch.bindings.iter().map(|binding| binding.1).collect()))
            .collect();
        let pipelines = gpu.pipelines(&variants)?;
        let mut bound = Vec::with_capacity(steps.len());
        for (i, (step, pipeline)) in steps.iter().zip(&pipelines).enumerate() {
            let mut slices = Vec::new();
            for (window, _) in &step.dispatch.bindings {
                let Some((buffer, base)) = &memory[window.root] else {
                    return Err(GraphError::NotPlanned(window.root as u32, "memory"));
                };
                let size = window.storage.bytes();
                let start = window.start as u64 * size;
                let aligned = start - start % gpu.caps.alignment;
                let end = (start + window.len as u64 * size).next_multiple_of(16);
                let bytes = (end - aligned).min(buffer.bytes - base - aligned);
                slices.push(BufferSlice { buffer: buffer.clone(), offset: base + aligned, bytes });
            }
            let groups = step.dispatch.groups;
            let x = groups.min(gpu.caps.max_groups);
            let param_bytes = (step.dispatch.params.len() as u64 * 4).next_multiple_of(16);
            bound.push(gpu.bind(
                pipeline,
                (&params, (i * stride) as u64, param_bytes),
                &slices,
                [x, groups.div_ceil(x)],
            )?);
        }

        // Cut long plans into submissions. A dispatch has a share of its operation's FLOPs, by its workgroups.
        let mut groups_of = vec![0u64; nodes.len()];
        for step in steps.iter().filter(|step| step.dispatch.counts) {
            groups_of[step.node] += u64::from(step.dispatch.groups);
        }
        let flops: Vec<_> = nodes
            .iter()
            .map(|n| {
                let types = |tensors: &[Tensor]| tensors.iter().map(|&t| g.ty(t).clone()).collect::<Vec<_>>();
                n.op.flops(&types(&n.inputs), &types(&n.outputs))
            })
            .collect();
        stats.flops = flops.iter().zip(&groups_of).filter(|(_, groups)| **groups > 0).map(|(f, _)| f).sum();
        let share = |step: &Step| {
            if !step.dispatch.counts {
                return 0;
            }
            let part = f64::from(step.dispatch.groups) / groups_of[step.node] as f64;
            (flops[step.node] as f64 * part).round() as u64
        };
        let shares: Vec<_> = steps.iter().map(share).collect();
        let most = FLOPS_A_SUBMISSION[usize::from(!gpu.caps.software)];
        let (mut cuts, mut work, mut since) = (Vec::new(), 0, 0);
        for (i, flops) in shares.iter().enumerate() {
            work += flops;
            if work > most || i - since >= DISPATCHES_A_SUBMISSION {
                cuts.push(i + 1);
                (work, since) = (0, i + 1);
            }
        }
        if cuts.last() != Some(&steps.len()) {
            cuts.push(steps.len());
        }
        stats.submissions = cuts.len();
        let profiled =
            profiler.map(|profiler| Profiled::new(profiler, options.name, profile::dispatches(lowered, g, &shares)));

        let mut inputs = HashMap::new();
        for (&tensor, operand) in operands {
            if let Source::Leaf(Leaf::Input(_)) = g.source(tensor)
                && let Some((buffer, offset)) = &memory[operand.root]
            {
                let slice = BufferSlice { buffer: buffer.clone(), offset: *offset, bytes: operand.ty.bytes() };
                inputs.insert(tensor, (slice, operand.ty.clone(), operand.storage));
            }
        }
        let mut outputs = HashMap::new();
        for &tensor in wanted {
            let operand = &operands[&tensor];
            if let Some((buffer, base)) = &memory[operand.root] {
                outputs.insert(tensor, (buffer.clone(), base + operand.at as u64 * 4, operand.ty.clone()));
            }
        }
        let operations = steps.iter().map(|step| (step.node, nodes[step.node].op.name())).collect();
        let encoding = AtomicU64::new(0);
        Ok(Self { gpu, bound, operations, cuts, inputs, outputs, sentinels, profiled, stats, encoding, _params: params })
    }

    /// Submits `times` runs; with `read` the last submission ends with a copy of a variable.
    fn run(&self, times: usize, mut read: Option<(&Buffer, u64, &mut ReadBack)>) -> Result<(), GraphError> {
        if self.cuts.len() == 1 {
            // Whole runs, as many as fit, in one pass.
            let most = (DISPATCHES_A_SUBMISSION / self.bound.len().max(1)).max(1);
            let mut done = 0;
            while done < times || (times == 0 && done == 0) {
                let now = most.min(times - done);
                self.submit(0..self.bound.len(), now, [done == 0, done + now == times], &mut read)?;
                done += now.max(1);
            }
            return Ok(());
        }
        for time in 0..times {
            let mut start = 0;
            for &end in &self.cuts {
                let last = time + 1 == times && end == self.bound.len();
                self.submit(start..end, 1, [time == 0 && start == 0, last], &mut read)?;
                start = end;
            }
        }
        Ok(())
    }

    /// One submission: the dispatches `part`, `times` times over. Is it the first of a run, and the last?
    fn submit(
        &self,
        part: Range<usize>,
        times: usize,
        [first, last]: [bool; 2],
        read: &mut Option<(&Buffer, u64, &mut ReadBack)>,
    ) -> Result<(), GraphError> {
        let begin = Instant::now();
        let mut encoder = self.gpu.encoder();
        {
            let mut pass = encoder.begin_compute_pass(&wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: read.as_ref().and_then(|(_, _, read)| read.timestamps(first, last)),
            });
            for _ in 0..times {
                self.bound[part.clone()].iter().for_each(|bound| bound.dispatch(&mut pass));
            }
        }
        let mut read = read.as_mut().filter(|_| last);
        if let Some((buffer, offset, read)) = &read {
            read.record(&mut encoder, buffer, *offset);
        }
        let commands = encoder.finish();
        self.encoding.fetch_add(begin.elapsed().as_nanos() as u64, Ordering::Relaxed);
        let index = self.gpu.submit_commands(commands)?;
        if let Some((_, _, read)) = &mut read {
            read.submitted(index);
        }
        Ok(())
    }

    /// [`run`](Self::run), of which the runs that a profile wants are measured.
    fn run_profiled(&mut self, times: usize) -> Result<(), GraphError> {
        let mut left = times;
        if let Some(profiled) = &mut self.profiled {
            while left > 0
                && let Some(number) = profiled.begin()
            {
                profiled.run(number, &self.gpu, &self.bound, &self.cuts)?;
                left -= 1;
            }
            profiled.count(left);
        }
        if left > 0 { self.run(left, None) } else { Ok(()) }
    }

    fn sentinels_hold(&self) -> Result<bool, GraphError> {
        for (buffer, guard, bytes) in &self.sentinels {
            let data = self.gpu.read(buffer, 0, buffer.bytes)?;
            let (guard, end) = (*guard as usize, (*guard + *bytes) as usize);
            if data[..guard].iter().chain(&data[end..]).any(|&b| b != SENTINEL) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// A graph on the CPU.
pub struct CpuPlan {
    graph: Graph,
    wanted: Vec<Tensor>,
    fed: HashMap<Tensor, HostTensor<f32>>,
    results: HashMap<Tensor, HostTensor<f32>>,
    profiled: Option<Profiled>,
}

enum Inner {
    Gpu(GpuPlan),
    Cpu(Box<CpuPlan>),
}

/// A planned graph. Running it allocates and compiles nothing.
pub struct Plan(Inner);

/// Checks that a value can be fed to an input.
fn fits(ty: &TensorType, value: &HostTensor<f32>) -> Result<(), GraphError> {
    let found = value.ty();
    if found == *ty {
        return Ok(());
    }
    let words = |ty: &TensorType| format!("{:?} {}", ty.dtype, ty.shape);
    Err(GraphError::Input { found: words(&found), expected: words(ty) })
}

impl Plan {
    pub(super) fn on_gpu(plan: GpuPlan) -> Self {
        Self(Inner::Gpu(plan))
    }

    pub(super) fn on_cpu(graph: Graph, wanted: &[Tensor], options: &PlanOptions, profiler: Option<&Arc<Profiler>>) -> Self {
        let profiled = profiler.map(|profiler| {
            Profiled::new(profiler, options.name, profile::operations(&graph, &live_nodes(&graph, wanted)))
        });
        let (fed, results) = (HashMap::new(), HashMap::new());
        Self(Inner::Cpu(Box::new(CpuPlan { graph, wanted: wanted.to_vec(), fed, results, profiled })))
    }

    fn profiled(&mut self) -> Option<&mut Profiled> {
        match &mut self.0 {
            Inner::Gpu(plan) => plan.profiled.as_mut(),
            Inner::Cpu(plan) => plan.profiled.as_mut(),
        }
    }

    /// Writes an input. One that nothing depends on is ignored.
    ///
    /// # Errors
    /// The value's type is another one, or a fault of the device.
    pub fn set(&mut self, tensor: Tensor, value: HostTensor<f32>) -> Result<(), GraphError> {
        let begin = self.profiled().is_some().then(Instant::now);
        match &mut self.0 {
            Inner::Gpu(plan) => {
                let Some((slice, ty, storage)) = plan.inputs.get(&tensor) else { return Ok(()) };
                fits(ty, &value)?;
                match (storage, &value.data) {
                    (Storage::F16, HostData::Float(data)) => {
                        let halves: Vec<_> = data.iter().map(|&x| half::f16::from_f32(x)).collect();
                        let mut bytes = bytemuck::cast_slice(&halves).to_vec();
                        // Buffers are written in whole words.
                        bytes.resize(bytes.len().next_multiple_of(4), 0u8);
                        plan.gpu.write(&slice.buffer, slice.offset, &bytes)?;
                    }
                    _ => plan.gpu.write(&slice.buffer, slice.offset, device_bytes(&value))?,
                }
            }
            Inner::Cpu(plan) => {
                fits(plan.graph.ty(tensor), &value)?;
                plan.fed.insert(tensor, value);
            }
        }
        if let (Some(begin), Some(profiled)) = (begin, self.profiled()) {
            profiled.fed(begin);
        }
        Ok(())
    }

    /// Runs the plan once. On an adapter it returns as soon as the work is queued.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn run(&mut self, engine: &mut Engine) -> Result<(), GraphError> {
        self.run_times(engine, 1)
    }

    /// Runs the plan `times` times, in one submission where it is short: decoding queues several tokens so.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn run_times(&mut self, engine: &mut Engine, times: usize) -> Result<(), GraphError> {
        match &mut self.0 {
            Inner::Gpu(plan) if plan.profiled.is_some() => plan.run_profiled(times),
            Inner::Gpu(plan) => plan.run(times, None),
            Inner::Cpu(plan) => {
                let mut variables: HashMap<_, _> = engine
                    .variables
                    .drain()
                    .filter_map(|(name, variable)| match variable.data {
                        Stored::Cpu(tensor) => Some((name, tensor)),
                        Stored::Gpu(_) => None,
                    })
                    .collect();
                let CpuPlan { graph, wanted, fed, results, profiled } = &mut **plan;
                for _ in 0..times {
                    let number = profiled.as_mut().and_then(Profiled::begin);
                    let mut evaluate = |watch: Option<&mut dyn FnMut(Instant, Instant)>| {
                        evaluate_watched(graph, fed, &mut variables, wanted, watch)
                    };
                    *results = match (number, profiled.as_mut()) {
                        (Some(number), Some(profiled)) => profiled.run_on_host(number, |watch| evaluate(Some(watch))),
                        (None, Some(profiled)) => {
                            profiled.count(1);
                            evaluate(None)
                        }
                        (_, None) => evaluate(None),
                    };
                }
                engine.variables = variables
                    .into_iter()
                    .map(|(name, tensor)| {
                        let dtype = match tensor.data {
                            crate::ops::HostData::Float(_) => DType::F32,
                            crate::ops::HostData::Uint(_) => DType::U32,
                        };
                        let ty = TensorType { dtype, shape: tensor.shape.clone() };
                        (name, Variable { ty, data: Stored::Cpu(tensor), packing: None })
                    })
                    .collect();
                Ok(())
            }
        }
    }

    /// A reader for the output `tensor`. `timed`: it tells what a run took, too.
    ///
    /// # Errors
    /// `tensor` is no output of the plan, or there is no memory.
    pub fn reader(&self, tensor: Tensor, timed: bool) -> Result<Reader, GraphError> {
        let missing = || GraphError::NotPlanned(tensor.0, "an output");
        match &self.0 {
            Inner::Gpu(plan) => {
                let (buffer, offset, ty) = plan.outputs.get(&tensor).ok_or_else(missing)?;
                let place = Place::Gpu(buffer.clone(), *offset, plan.gpu.read_back(ty.bytes(), timed)?);
                Ok(Reader { of: Of::Output(tensor), ty: ty.clone(), place })
            }
            Inner::Cpu(plan) => Ok(Reader { of: Of::Output(tensor), ty: plan.graph.ty(tensor).clone(), place: Place::Cpu(None) }),
        }
    }

    /// [`run_times`](Self::run_times), and has `reader` take what its variable or output is then. Returns as soon as the work is queued.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn run_and_read(&mut self, engine: &mut Engine, times: usize, reader: &mut Reader) -> Result<(), GraphError> {
        match (&mut self.0, &mut reader.place) {
            (Inner::Gpu(plan), Place::Gpu(buffer, offset, read)) => {
                let times = match &mut plan.profiled {
                    Some(profiled) if profiled.over() => {
                        profiled.count(times);
                        times
                    }
                    Some(_) => {
                        plan.run_profiled(times)?;
                        0
                    }
                    None => times,
                };
                plan.run(times, Some((buffer, *offset, read)))
            }
            _ => {
                self.run_times(engine, times)?;
                reader.place = Place::Cpu(match &reader.of {
                    Of::Variable(name) => engine.get(name)?,
                    Of::Output(tensor) => Some(self.get(*tensor)?),
                });
                Ok(())
            }
        }
    }

    /// Runs the plan once and waits: how long each operation called `name` took, in order, by the device's timestamps; `None` where it
    /// has none.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn time_operations(&self, name: &str) -> Result<Option<Vec<Duration>>, GraphError> {
        let Inner::Gpu(plan) = &self.0 else { return Ok(None) };
        let pieces = timing::pieces(&plan.cuts);
        let Some(watches) = plan.gpu.stopwatches(&pieces)? else { return Ok(None) };
        for (piece, watch) in pieces.into_iter().zip(&watches) {
            let mut encoder = plan.gpu.encoder();
            watch.record(&mut encoder, plan.bound[piece].iter());
            plan.gpu.submit(encoder)?;
        }
        let mut times: Vec<(usize, u64)> = Vec::new();
        let mut operations = plan.operations.iter();
        for watch in &watches {
            for ((begin, end), &(node, operation)) in watch.times(&plan.gpu)?.into_iter().zip(operations.by_ref()) {
                match times.last_mut() {
                    _ if operation != name => {}
                    Some((last, sum)) if *last == node => *sum += end - begin,
                    _ => times.push((node, end - begin)),
                }
            }
        }
        Ok(Some(times.into_iter().map(|(_, nanoseconds)| Duration::from_nanos(nanoseconds)).collect()))
    }

    /// Reads an output, waiting for the device.
    ///
    /// # Errors
    /// `tensor` is no output of the plan, or a fault of the device.
    pub fn get(&self, tensor: Tensor) -> Result<HostTensor<f32>, GraphError> {
        let missing = || GraphError::NotPlanned(tensor.0, "an output");
        match &self.0 {
            Inner::Gpu(plan) => {
                let (buffer, offset, ty) = plan.outputs.get(&tensor).ok_or_else(missing)?;
                let begin = plan.profiled.as_ref().map(|_| Instant::now());
                let value = from_device_bytes(ty, &plan.gpu.read(buffer, *offset, ty.bytes())?);
                if let (Some(begin), Some(profiled)) = (begin, &plan.profiled) {
                    profiled.read(begin);
                }
                Ok(value)
            }
            Inner::Cpu(plan) => plan.results.get(&tensor).cloned().ok_or_else(missing),
        }
    }

    /// Waits until everything queued has run.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn wait(&self) -> Result<(), GraphError> {
        match &self.0 {
            Inner::Gpu(plan) => Ok(plan.gpu.wait()?),
            Inner::Cpu(_) => Ok(()),
        }
    }

    /// What the host has taken so far to encode runs, without what submitting them takes; nothing on the CPU.
    pub fn encoding(&self) -> Duration {
        match &self.0 {
            Inner::Gpu(plan) => Duration::from_nanos(plan.encoding.load(Ordering::Relaxed)),
            Inner::Cpu(_) => Duration::ZERO,
        }
    }

    /// Sizes of the plan; zeros on the CPU, which plans nothing.
    pub fn stats(&self) -> PlanStats {
        match &self.0 {
            Inner::Gpu(plan) => plan.stats,
            Inner::Cpu(_) => PlanStats::default(),
        }
    }

    /// Whether the sentinels of [`PlanOptions::sentinel`] are untouched.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn sentinels_hold(&self) -> Result<bool, GraphError> {
        match &self.0 {
            Inner::Gpu(plan) => plan.sentinels_hold(),
            Inner::Cpu(_) => Ok(true),
        }
    }
}
