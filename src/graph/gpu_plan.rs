//! A plan on an adapter: memory, pipelines, bind groups and submissions, fixed once.

use super::{
    GraphError, PlanOptions, PlanStats,
    engine::{Stored, Variable},
    lowered::{Lowered, Step},
    memory::{Arena, Memory, Shared},
    profile::{self, Profiled, Profiler},
    record::{Graph, Leaf, Node, Source},
};
use crate::{
    gpu::{self, Access, Bound, Buffer, BufferSlice, Gpu, Image, ImageCopy, Kernel, ReadBack, Resource},
    ops::{DType, Recorder, Storage, Tensor, TensorType, Window},
};
use std::{
    collections::HashMap,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

/// The byte that fills sentinels.
const SENTINEL: u8 = 0xA5;
/// A submission is cut after this many floating-point operations, so that no watchdog takes it for hung, until it is known how long
/// they take ([`GpuPlan::cut`]): on a GPU, the slowest of which do them in half a second, and for each thread of a software adapter, in
/// a quarter of one.
const FLOPS_A_SUBMISSION: u64 = 200_000_000_000;
const FLOPS_A_THREAD: u64 = 2_500_000_000;
/// And after this many dispatches.
const DISPATCHES_A_SUBMISSION: usize = 4096;

/// A plan on an adapter.
pub(super) struct GpuPlan {
    pub(super) gpu: Arc<Gpu>,
    pub(super) bound: Vec<Bound>,
    /// Of each dispatch, the number and the name of its operation.
    pub(super) operations: Vec<(usize, &'static str)>,
    /// The floating-point operations of each dispatch.
    shares: Vec<u64>,
    /// Ends of the submissions, as counts of dispatches.
    pub(super) cuts: Vec<usize>,
    pub(super) inputs: HashMap<Tensor, (BufferSlice, TensorType, Storage)>,
    pub(super) outputs: HashMap<Tensor, (Buffer, u64, TensorType)>,
    pub(super) sentinels: Vec<(Buffer, u64, u64)>,
    pub(super) profiled: Option<Profiled>,
    pub(super) stats: PlanStats,
    /// What encoding took, nanoseconds.
    pub(super) encoding: AtomicU64,
    // Parameters of all kernels; bind groups refer to it.
    _params: Buffer,
}

/// The floating-point operations of each dispatch, a share of its operation's by its workgroups, and their sum.
fn shares(g: &Graph, nodes: &[Node], steps: &[Step]) -> (Vec<u64>, u64) {
    let mut groups_of = vec![0u64; nodes.len()];
    for step in steps.iter().filter(|step| step.dispatch.counts) {
        groups_of[step.node] += u64::from(step.dispatch.groups);
    }
    let types = |tensors: &[Tensor]| tensors.iter().map(|&t| g.ty(t).clone()).collect::<Vec<_>>();
    let flops: Vec<_> = nodes.iter().map(|n| n.op.flops(&types(&n.inputs), &types(&n.outputs))).collect();
    let all = flops.iter().zip(&groups_of).filter(|(_, groups)| **groups > 0).map(|(f, _)| f).sum();
    let share = |step: &Step| {
        if !step.dispatch.counts {
            return 0;
        }
        let part = f64::from(step.dispatch.groups) / groups_of[step.node] as f64;
        (flops[step.node] as f64 * part).round() as u64
    };
    (steps.iter().map(share).collect(), all)
}

/// What a submission may be before it is known how long it takes, floating-point operations.
fn flops_a_submission(software: bool) -> u64 {
    if !software {
        return FLOPS_A_SUBMISSION;
    }
    std::thread::available_parallelism().map_or(1, usize::from) as u64 * FLOPS_A_THREAD
}

/// Ends of the submissions that long plans are cut into, each of at most `most` floating-point operations, or of one dispatch that has
/// more.
fn cuts(shares: &[u64], most: u64) -> Vec<usize> {
    let (mut cuts, mut work, mut since) = (Vec::new(), 0, 0);
    for (i, &flops) in shares.iter().enumerate() {
        let full = work > 0 && flops > 0 && work + flops > most;
        if full || i - since >= DISPATCHES_A_SUBMISSION {
            cuts.push(i);
            (work, since) = (0, i);
        }
        work += flops;
    }
    cuts.push(shares.len());
    cuts
}

/// An image for each of the roots that share them.
fn images(gpu: &Gpu, shared: &Shared) -> Result<HashMap<usize, Image>, GraphError> {
    let images: Vec<_> = shared.layout.buffers.iter().map(|&bytes| gpu.image("operands", bytes)).collect::<Result<_, _>>()?;
    Ok(shared.roots.iter().zip(&shared.layout.place).map(|(&root, &place)| (root, images[place].clone())).collect())
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
        let arena = Arena::of(lowered, wanted, options.sentinel);
        let Memory { arena: peak_bytes, planned: planned_bytes, images: image_bytes, variables: variable_bytes } =
            arena.memory(lowered);

        let mut images = images(&gpu, &arena.images)?;
        let mut buffers = Vec::new();
        for &bytes in &arena.buffers.layout.buffers {
            buffers.push(gpu.buffer("activations", bytes)?);
        }
        let mut memory: Vec<Option<(Buffer, u64)>> = vec![None; roots.len()];
        let mut sentinels = Vec::new();
        let Shared { roots: temporary, needs, layout } = &arena.buffers;
        for ((&root, need), &place) in temporary.iter().zip(needs).zip(&layout.place) {
            let buffer = buffers[place].clone();
            if options.sentinel > 0 {
                gpu.write(&buffer, 0, &vec![SENTINEL; buffer.bytes as usize])?;
                sentinels.push((buffer.clone(), options.sentinel, need.bytes));
            }
            memory[root] = Some((buffer, options.sentinel));
        }
        for (index, root) in roots.iter().enumerate() {
            let bytes = root.bytes();
            memory[index] = match &root.leaf {
                None => continue,
                Some(Leaf::Variable(name)) => {
                    let variable = variables.get(name);
                    if let Some(image) = variable.and_then(|v| v.image.clone()) {
                        images.insert(index, image);
                    }
                    match variable.map(|v| &v.data) {
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
        let image =
            |window: &Window| images.get(&window.root).cloned().ok_or(GraphError::NotPlanned(window.root as u32, "an image"));
        // A window's memory, from a multiple of `unit` bytes on.
        let slice = |window: &Window, unit: u64| {
            let Some((buffer, base)) = &memory[window.root] else {
                return Err(GraphError::NotPlanned(window.root as u32, "memory"));
            };
            let size = window.storage.bytes();
            let start = window.start as u64 * size;
            let aligned = start - start % unit;
            let end = (start + window.len as u64 * size).next_multiple_of(16);
            let bytes = (end - aligned).min(buffer.bytes - base - aligned);
            Ok(BufferSlice { buffer: buffer.clone(), offset: base + aligned, bytes })
        };
        for (i, (step, pipeline)) in steps.iter().zip(&pipelines).enumerate() {
            let resource = |(window, access): &(Window, Access)| match access {
                Access::ReadImage => image(window).map(Resource::Image),
                Access::Read | Access::Write => slice(window, gpu.caps.alignment).map(Resource::Slice),
            };
            let resources: Vec<_> = step.dispatch.bindings.iter().map(resource).collect::<Result<_, _>>()?;
            let copy = |(from, to): &(Window, Window)| Ok(ImageCopy { from: slice(from, 16)?, image: image(to)? });
            let copies = step.dispatch.images.iter().map(copy).collect::<Result<_, GraphError>>()?;
            let groups = step.dispatch.groups;
            let x = groups.min(gpu.caps.max_groups);
            let param_bytes = (step.dispatch.params.len() as u64 * 4).next_multiple_of(16);
            let made = gpu.bind(pipeline, (&params, (i * stride) as u64, param_bytes), &resources, [x, groups.div_ceil(x)])?;
            bound.push(made.after(copies));
        }

        let (shares, flops) = shares(g, nodes, steps);
        let cuts = cuts(&shares, flops_a_submission(gpu.caps.software));
        let (dispatches, submissions) = (steps.len(), cuts.len());
        let stats = PlanStats { dispatches, submissions, planned_bytes, peak_bytes, image_bytes, variable_bytes, flops };
        let profiled = profiler.map(|profiler| Profiled::new(profiler, options.name, profile::dispatches(lowered, g, &shares)));

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
        Ok(Self { gpu, bound, operations, shares, cuts, inputs, outputs, sentinels, profiled, stats, encoding, _params: params })
    }

    /// Cuts runs into submissions of at most `most` floating-point operations, or of one dispatch that has more.
    pub(super) fn cut(&mut self, most: u64) {
        self.cuts = cuts(&self.shares, most);
        self.stats.submissions = self.cuts.len();
    }

    /// Submits `times` runs; with `read` the last submission ends with a copy of a variable.
    pub(super) fn run(&self, times: usize, mut read: Option<(&Buffer, u64, &mut ReadBack)>) -> Result<(), GraphError> {
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
        let runs = (0..times).flat_map(|_| &self.bound[part.clone()]);
        gpu::record(&mut encoder, runs, read.as_ref().and_then(|(_, _, read)| read.timestamps(first, last)));
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
    pub(super) fn run_profiled(&mut self, times: usize) -> Result<(), GraphError> {
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

    pub(super) fn sentinels_hold(&self) -> Result<bool, GraphError> {
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

#[cfg(test)]
mod tests {
    use super::{DISPATCHES_A_SUBMISSION, cuts};

    #[test]
    fn submissions_are_no_longer_than_the_bound_or_a_dispatch() {
        assert_eq!(cuts(&[1, 2, 3, 4], 100), [4]);
        assert_eq!(cuts(&[1, 2, 3, 4], 10), [4]);
        assert_eq!(cuts(&[1, 2, 3, 4], 3), [2, 3, 4]);
        assert_eq!(cuts(&[9, 1, 1, 1], 3), [1, 4]);
        assert_eq!(cuts(&[1, 2, 3, 4], 0), [1, 2, 3, 4]);
        assert_eq!(cuts(&[0, 0, 9, 0], 0), [4], "what takes no time makes no submission longer");
        assert_eq!(cuts(&[], 5), [0]);
        assert_eq!(cuts(&vec![0; 10_000], 5).len(), 10_000 / DISPATCHES_A_SUBMISSION + 1);
    }
}
