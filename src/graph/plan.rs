//! What graphs become: plans for an adapter, which fix everything once, or for the CPU, which evaluates.

use super::{
    Engine, GraphError,
    engine::{Stored, Variable, device_bytes, from_device_bytes},
    gpu_plan::GpuPlan,
    host::{evaluate_watched, live_nodes},
    profile::{self, Profiled, Profiler},
    reader::{Of, Place, Reader},
    record::Graph,
};
use crate::{
    gpu::timing,
    ops::{DType, HostData, HostTensor, Packing, Precision, Recorder, Storage, Tensor, TensorType},
};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::Ordering},
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
    /// Bytes of images, which products read their operands from where that is faster, those of variables among them.
    pub image_bytes: u64,
    /// Bytes of variables that the plan uses.
    pub variable_bytes: u64,
    /// Floating-point operations in one run.
    pub flops: u64,
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
    Gpu(Box<GpuPlan>),
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
        Self(Inner::Gpu(Box::new(plan)))
    }

    pub(super) fn on_cpu(graph: Graph, wanted: &[Tensor], options: &PlanOptions, profiler: Option<&Arc<Profiler>>) -> Self {
        let profiled = profiler
            .map(|profiler| Profiled::new(profiler, options.name, profile::operations(&graph, &live_nodes(&graph, wanted))));
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
                        (name, Variable { ty, data: Stored::Cpu(tensor), packing: None, image: None })
                    })
                    .collect();
                Ok(())
            }
        }
    }

    /// From now on a run is cut into submissions of at most `most` floating-point operations each, or of one dispatch that has more.
    pub fn cut(&mut self, most: u64) {
        if let Inner::Gpu(plan) = &mut self.0 {
            plan.cut(most);
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
