//! The engine: an adapter (or the CPU), and the variables that plans share by name.

use super::{
    GraphError,
    gpu_plan::GpuPlan,
    lowered::{Lowered, lower},
    plan::{Plan, PlanOptions},
    profile::{self, Profiler},
    record::Graph,
};
use crate::{
    gpu::{Autotune, Buffer, Capabilities, DeviceChoice, Gpu, GpuError, GpuOptions, Image},
    ops::{DType, HostData, HostTensor, Packed, Packing, Precision, Tensor, TensorType},
};
use std::{collections::HashMap, sync::Arc, time::Duration};

/// How to make an engine.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// The adapter, or the CPU.
    pub device: DeviceChoice,
    /// Say on stderr when `auto` falls back to the CPU.
    pub notice: bool,
    /// Whether kernels are chosen by measuring.
    pub autotune: Autotune,
}

pub(super) enum Stored {
    Gpu(Buffer),
    Cpu(HostTensor<f32>),
}

pub(super) struct Variable {
    pub ty: TensorType,
    pub data: Stored,
    /// How the device has it, if it is in narrow storage.
    pub packing: Option<Packing>,
    /// One in narrow storage once more, where kernels want them so.
    pub image: Option<Image>,
}

/// An adapter or the CPU, with variables.
pub struct Engine {
    pub(super) gpu: Option<Arc<Gpu>>,
    pub(super) variables: HashMap<String, Variable>,
    /// How long kernels were measured unasked.
    pub(super) tuned: Duration,
    profiler: Option<Arc<Profiler>>,
}

/// The bytes of a tensor as the device sees them.
pub(super) fn device_bytes(tensor: &HostTensor<f32>) -> &[u8] {
    match &tensor.data {
        HostData::Float(data) => bytemuck::cast_slice(data),
        HostData::Uint(data) => bytemuck::cast_slice(data),
    }
}

/// The tensor that the device's bytes stand for.
pub(super) fn from_device_bytes(ty: &TensorType, bytes: &[u8]) -> HostTensor<f32> {
    match ty.dtype {
        DType::F32 => HostTensor::floats(ty.shape.clone(), bytemuck::pod_collect_to_vec(bytes)),
        DType::U32 => HostTensor::uints(ty.shape.clone(), bytemuck::pod_collect_to_vec(bytes)),
    }
}

impl Engine {
    /// Opens the device that `options` name. `auto` falls back to the CPU when there is no adapter.
    ///
    /// # Errors
    /// The named adapter does not exist, or its driver refuses.
    pub fn new(options: &EngineOptions) -> Result<Self, GraphError> {
        if options.device == DeviceChoice::Cpu {
            return Ok(Self::cpu());
        }
        match Gpu::open(&GpuOptions { autotune: options.autotune, ..GpuOptions::new(options.device.clone()) }) {
            Ok(gpu) => Ok(Self::on(Arc::new(gpu))),
            Err(GpuError::NoAdapter) if options.device == DeviceChoice::Auto => {
                if options.notice {
                    eprintln!("shaderlm: no GPU adapter found; running on the CPU");
                }
                Ok(Self::cpu())
            }
            Err(error) => Err(error.into()),
        }
    }

    /// An engine on an open device.
    pub fn on(gpu: Arc<Gpu>) -> Self {
        Self { gpu: Some(gpu), variables: HashMap::new(), tuned: Duration::ZERO, profiler: None }
    }

    /// An engine on the CPU reference.
    pub fn cpu() -> Self {
        Self { gpu: None, variables: HashMap::new(), tuned: Duration::ZERO, profiler: None }
    }

    /// What the adapter can do; `None` on the CPU.
    pub fn capabilities(&self) -> Option<&Capabilities> {
        self.gpu.as_ref().map(|gpu| &gpu.caps)
    }

    /// Measures what the dispatches of plans take that are compiled from now on, in a few runs of each.
    pub fn profile(&mut self) -> Arc<Profiler> {
        self.profile_at_most(profile::EVENTS)
    }

    /// [`profile`](Self::profile), keeping no more than so many events of the device. The first call decides.
    pub fn profile_at_most(&mut self, events: usize) -> Arc<Profiler> {
        let device = self.device_name();
        self.profiler.get_or_insert_with(|| Arc::new(Profiler::new(device, events))).clone()
    }

    /// The adapter's name and driver, or `cpu`.
    pub fn device_name(&self) -> String {
        self.capabilities().map_or_else(|| "cpu".into(), |c| format!("{} ({}, {})", c.name, c.backend, c.driver))
    }

    /// Makes the variable, or overwrites the one of that name. One in narrow storage becomes one of 32 bits.
    ///
    /// # Errors
    /// It exists with another type, or there is no memory for it.
    pub fn set(&mut self, name: &str, value: &HostTensor<f32>) -> Result<(), GraphError> {
        if self.variables.get(name).is_some_and(|known| known.packing.is_some()) {
            self.remove(name);
        }
        let dtype = match value.data {
            HostData::Float(_) => DType::F32,
            HostData::Uint(_) => DType::U32,
        };
        let ty = TensorType { dtype, shape: value.shape.clone() };
        self.ensure(name, &ty)?;
        match (&self.gpu, self.variables.get_mut(name).map(|v| &mut v.data)) {
            (Some(gpu), Some(Stored::Gpu(buffer))) => gpu.write(buffer, 0, device_bytes(value))?,
            (_, Some(Stored::Cpu(tensor))) => *tensor = value.clone(),
            _ => {}
        }
        Ok(())
    }

    /// Makes the variable in narrow storage, or puts it in the place of the one of that name. The CPU keeps what it stands for in 32
    /// bits.
    ///
    /// # Errors
    /// It exists with another type, or there is no memory for it.
    pub fn set_packed(&mut self, name: &str, value: &Packed) -> Result<(), GraphError> {
        let packing = value.packing();
        let ty = TensorType::f32(packing.shape());
        let known = self.variables.get(name);
        if known.is_none_or(|known| known.ty == ty && known.packing != Some(packing)) {
            let data = match &self.gpu {
                Some(gpu) => Stored::Gpu(gpu.buffer(name, packing.bytes())?),
                None => Stored::Cpu(HostTensor::zeros(&ty)),
            };
            let packing = self.gpu.is_some().then_some(packing);
            self.variables.insert(name.into(), Variable { ty: ty.clone(), data, packing, image: None });
        }
        self.ensure(name, &ty)?;
        match (&self.gpu, self.variables.get_mut(name)) {
            (Some(gpu), Some(Variable { data: Stored::Gpu(buffer), image, .. })) => {
                gpu.write(buffer, 0, bytemuck::cast_slice(value.words()))?;
                if let Some(image) = image {
                    gpu.copy_to_image(buffer, packing.vector_bytes(), image)?;
                }
            }
            (_, Some(Variable { data: Stored::Cpu(tensor), .. })) => *tensor = HostTensor::floats(ty.shape, value.unpack()),
            _ => {}
        }
        Ok(())
    }

    /// Makes the images of variables that `lowered` wants and that are not there yet.
    fn make_images(&mut self, lowered: &Lowered) -> Result<(), GraphError> {
        let Some(gpu) = &self.gpu else { return Ok(()) };
        for name in lowered.imaged_variables() {
            if let Some(Variable { data: Stored::Gpu(buffer), packing: Some(packing), image: image @ None, .. }) =
                self.variables.get_mut(name)
            {
                let made = gpu.image(name, packing.vector_bytes())?;
                gpu.copy_to_image(buffer, packing.vector_bytes(), &made)?;
                *image = Some(made);
            }
        }
        Ok(())
    }

    /// The value of a variable, waiting for the device; `None` if there is none of that name.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn get(&self, name: &str) -> Result<Option<HostTensor<f32>>, GraphError> {
        let Some(variable) = self.variables.get(name) else { return Ok(None) };
        Ok(Some(match (&variable.data, &self.gpu) {
            (Stored::Gpu(buffer), Some(gpu)) if let Some(packing) = variable.packing => {
                let words = bytemuck::pod_collect_to_vec(&gpu.read(buffer, 0, packing.bytes())?);
                HostTensor::floats(variable.ty.shape.clone(), Packed::from_words(packing, words)?.unpack())
            }
            (Stored::Gpu(buffer), Some(gpu)) => from_device_bytes(&variable.ty, &gpu.read(buffer, 0, variable.ty.bytes())?),
            (Stored::Cpu(tensor), _) => tensor.clone(),
            (Stored::Gpu(_), None) => return Ok(None),
        }))
    }

    /// Frees a variable. A plan that uses it keeps its memory until the plan is dropped.
    pub fn remove(&mut self, name: &str) {
        self.variables.remove(name);
    }

    /// Makes the variable, zeroed, if there is none of that name.
    ///
    /// # Errors
    /// It exists with another type, or there is no memory for it.
    pub fn ensure(&mut self, name: &str, ty: &TensorType) -> Result<(), GraphError> {
        if let Some(known) = self.variables.get(name) {
            if known.ty == *ty {
                return Ok(());
            }
            return Err(GraphError::Variable {
                name: name.into(),
                found: format!("{:?} {}", known.ty.dtype, known.ty.shape),
                expected: format!("{:?} {}", ty.dtype, ty.shape),
            });
        }
        let data = match &self.gpu {
            Some(gpu) => Stored::Gpu(gpu.buffer(name, ty.whole().bytes())?),
            None => Stored::Cpu(HostTensor::zeros(ty)),
        };
        self.variables.insert(name.into(), Variable { ty: ty.clone(), data, packing: None, image: None });
        Ok(())
    }

    /// Plans `graph` for this device; the host will read `outputs`. Variables that do not exist yet are made, zeroed. Kernels
    /// are measured first, as far as [`EngineOptions::autotune`] wants it.
    ///
    /// # Errors
    /// An operation does not fit the adapter's limits, or there is no memory.
    pub fn compile(&mut self, graph: Graph, outputs: &[Tensor], options: &PlanOptions) -> Result<Plan, GraphError> {
        use crate::ops::Recorder;
        for (name, tensor) in graph.variables() {
            self.ensure(name, graph.ty(tensor))?;
        }
        let options = &self.with_packed(options);
        Ok(match self.gpu.clone() {
            Some(gpu) => {
                let mut lowered = lower(&gpu.caps, &graph, outputs, options)?;
                // What is run only to choose a kernel is no part of the work.
                let measuring = !options.choices.is_empty();
                if !measuring && self.tune_unasked(&graph, &lowered, options)? {
                    lowered = lower(&gpu.caps, &graph, outputs, options)?;
                }
                self.make_images(&lowered)?;
                let profiler = self.profiler.as_ref().filter(|_| !measuring);
                Plan::on_gpu(GpuPlan::new(gpu, &graph, outputs, &lowered, &self.variables, options, profiler)?)
            }
            None if options.precision == Precision::Mixed => return Err(GraphError::Precision("the CPU".into())),
            None => Plan::on_cpu(graph, outputs, options, self.profiler.as_ref()),
        })
    }

    /// `options` with the variables that are in narrow storage here.
    pub(super) fn with_packed(&self, options: &PlanOptions) -> PlanOptions {
        let mut options = options.clone();
        let packed = self.variables.iter().filter_map(|(name, variable)| Some((name.clone(), variable.packing?)));
        options.packed.extend(packed);
        options
    }

    /// Keeps the compiled pipelines for the next start, where the backend can.
    pub fn save_pipelines(&self) {
        if let Some(gpu) = &self.gpu {
            gpu.save_pipelines();
        }
    }
}
