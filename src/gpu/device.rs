//! An open device: its capabilities, and the place where its faults arrive.

use super::{
    Autotune, Cooperative, DeviceChoice, GpuError, Scalar, Tuning, adapter, cooperative, image, pipeline::PipelineStore,
    timing::Timestamps,
};
use std::sync::{Arc, Mutex};

/// What the open device can do, as far as kernels ask.
#[derive(Debug, Clone)]
pub struct Capabilities {
    /// The adapter's name.
    pub name: String,
    /// Vulkan, Metal or DX12.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// A CPU that plays a GPU (lavapipe, WARP): uniform loads and big register tiles are fast there, workgroup memory slow.
    pub software: bool,
    /// The subgroup size, where subgroup operations exist and every subgroup has the same size.
    pub subgroup: Option<u32>,
    /// Native 16-bit floats in shaders.
    pub f16: bool,
    /// Images are faster to read than buffers.
    pub images: bool,
    /// Largest image, bytes.
    pub max_image: u64,
    /// Largest storage binding, bytes.
    pub max_binding: u64,
    /// Largest buffer, bytes.
    pub max_buffer: u64,
    /// Largest number of workgroups in one dimension of a dispatch.
    pub max_groups: u32,
    /// Alignment of a storage binding's start, bytes.
    pub alignment: u64,
    /// Most storage bindings of a kernel.
    pub max_bindings: usize,
    /// Largest workgroup.
    pub max_invocations: u32,
    /// Workgroup memory, bytes.
    pub workgroup_memory: u32,
    /// What was measured there.
    pub tuning: Arc<Tuning>,
    /// Where the device can write down the time.
    pub timestamps: Timestamps,
    /// Kinds of cooperative matrices that WGSL can say.
    pub cooperative: Vec<Cooperative>,
}

impl Capabilities {
    /// Which cooperative matrices mixed plans use: the largest of halves that add up in f32. Only through Vulkan: naga's Metal loads
    /// matrices by pointers to their elements, where shaders have vectors.
    pub fn matrices(&self) -> Option<Cooperative> {
        if self.backend != "vulkan" {
            return None;
        }
        let fits = |c: &&Cooperative| (c.operands, c.sums) == (Scalar::F16, Scalar::F32);
        self.cooperative.iter().filter(fits).max_by_key(|c| c.size).copied().filter(|_| self.f16)
    }

    /// A GPU with WebGPU's default limits and no optional feature: what the plan of a graph is shown for where there is none.
    pub fn portable() -> Self {
        let limits = wgpu::Limits::default();
        Self {
            name: "a portable GPU".into(),
            backend: "any".into(),
            driver: "none".into(),
            software: false,
            subgroup: None,
            f16: false,
            images: false,
            max_image: image::largest(limits.max_texture_dimension_2d),
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_groups: limits.max_compute_workgroups_per_dimension,
            alignment: u64::from(limits.min_storage_buffer_offset_alignment),
            max_bindings: limits.max_storage_buffers_per_shader_stage as usize,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            tuning: Arc::default(),
            timestamps: Timestamps::None,
            cooperative: Vec::new(),
        }
    }
}

/// How to open a device.
#[derive(Debug, Clone)]
pub struct GpuOptions {
    /// Which adapter.
    pub choice: DeviceChoice,
    /// Ask for no more than WebGPU's default limits, whatever the adapter offers (the tests do).
    pub default_limits: bool,
    /// Names of optional features to leave unused: `subgroup`, `f16`, `pipeline-cache`, `timestamps`, `timestamps-inside`,
    /// `cooperative-matrix`; `images`; and `software`, to choose kernels on a software adapter as on a real GPU.
    pub without: Vec<String>,
    /// Whether kernels are chosen by measuring.
    pub autotune: Autotune,
}

impl GpuOptions {
    /// The given adapter, with everything that it offers. `SHADERLM_LIMITS=webgpu` and
    /// `SHADERLM_WITHOUT=subgroup,f16` in the environment hold it back, for tests on other drivers.
    pub fn new(choice: DeviceChoice) -> Self {
        let variable = |name| std::env::var(name).unwrap_or_default();
        Self {
            choice,
            default_limits: variable("SHADERLM_LIMITS") == "webgpu",
            without: variable("SHADERLM_WITHOUT").split(',').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            autotune: Autotune::default(),
        }
    }
}

/// Whether a software adapter's driver loads storage buffers lane by lane. Mesa does up to version 23; of those measured, 22.3 reads
/// images twice as fast as buffers, and 26.1 does not.
fn loads_lane_by_lane(driver: &str) -> bool {
    let version = driver.split_once("Mesa ").and_then(|(_, rest)| rest.split('.').next()?.parse::<u32>().ok());
    version.is_some_and(|major| major <= 23)
}

/// What `request` opens with the features `wanted`, or, where the driver refuses these, with those that are `enough`; and the
/// features it was. What a driver offers as an experiment is no reason to do without the device.
fn opened<F: Copy + PartialEq, T, E>(enough: F, wanted: F, request: impl Fn(F) -> Result<T, E>) -> Result<(F, T), E> {
    match request(wanted) {
        Err(_) if wanted != enough => Ok((enough, request(enough)?)),
        answer => Ok((wanted, answer?)),
    }
}

/// An open device with its queue and pipelines.
pub struct Gpu {
    /// What it can do.
    pub caps: Capabilities,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: PipelineStore,
    fault: Arc<Mutex<Option<GpuError>>>,
}

impl Gpu {
    /// Opens the adapter that `options` choose, with the features and limits that it offers.
    ///
    /// # Errors
    /// No such adapter, or the driver refuses.
    pub fn open(options: &GpuOptions) -> Result<Self, GpuError> {
        let found = adapter::choose(&options.choice)?;
        let offered = found.adapter.features();
        let allowed = |name: &str| !options.without.iter().any(|w| w == name);
        let mut features = wgpu::Features::empty();
        for (feature, name) in [
            (wgpu::Features::SUBGROUP, "subgroup"),
            (wgpu::Features::SHADER_F16, "f16"),
            (wgpu::Features::PIPELINE_CACHE, "pipeline-cache"),
        ] {
            if allowed(name) {
                features |= offered & feature;
            }
        }
        features |= offered & Timestamps::features(allowed);
        let matrices = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        let limits = if options.default_limits { wgpu::Limits::default() } else { found.adapter.limits() };
        let request = |features: wgpu::Features| {
            pollster::block_on(found.adapter.request_device(&wgpu::DeviceDescriptor {
                label: Some("shaderlm"),
                required_features: features,
                required_limits: limits.clone(),
                memory_hints: wgpu::MemoryHints::Performance,
                experimental_features: if features.contains(matrices) {
                    // Safety: kernels that use them are chosen only where their results were checked on the adapter.
                    unsafe { wgpu::ExperimentalFeatures::enabled() }
                } else {
                    wgpu::ExperimentalFeatures::disabled()
                },
                ..Default::default()
            }))
        };
        let wanted = if allowed("cooperative-matrix") { features | (offered & matrices) } else { features };
        let (features, (device, queue)) = opened(features, wanted, request)
            .map_err(|e| GpuError::Open { adapter: found.info.name.clone(), reason: e.to_string() })?;

        let fault = Arc::new(Mutex::new(None));
        let (for_errors, for_loss) = (fault.clone(), fault.clone());
        let keep_first = |slot: &Mutex<Option<GpuError>>, error| {
            if let Ok(mut slot) = slot.lock() {
                slot.get_or_insert(error);
            }
        };
        device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            keep_first(&for_errors, GpuError::Validation { what: "a command".into(), reason: error.to_string() });
        }));
        let name = found.info.name.clone();
        device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                keep_first(&for_loss, GpuError::Lost { adapter: name.clone(), reason: message });
            }
        });

        let fixed_subgroup = found.info.subgroup_min_size == found.info.subgroup_max_size;
        let driver = format!("{} {}", found.info.driver, found.info.driver_info).trim().to_owned();
        let software = found.info.device_type == wgpu::DeviceType::Cpu && allowed("software");
        let images = software && loads_lane_by_lane(&driver) && allowed("images");
        let from = if images { ", images" } else { "" };
        let caps = Capabilities {
            backend: found.info.backend.to_string(),
            software,
            images,
            max_image: image::largest(limits.max_texture_dimension_2d),
            subgroup: (fixed_subgroup && features.contains(wgpu::Features::SUBGROUP)).then_some(found.info.subgroup_min_size),
            f16: features.contains(wgpu::Features::SHADER_F16),
            max_binding: limits.max_storage_buffer_binding_size,
            max_buffer: limits.max_buffer_size,
            max_groups: limits.max_compute_workgroups_per_dimension,
            alignment: u64::from(limits.min_storage_buffer_offset_alignment),
            max_bindings: limits.max_storage_buffers_per_shader_stage as usize,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_memory: limits.max_compute_workgroup_storage_size,
            tuning: Arc::new(Tuning::open(
                format!("{}, {}, {driver}, {features:?}{from}", found.info.name, found.info.backend),
                options.autotune,
            )),
            driver,
            timestamps: Timestamps::of(features),
            cooperative: if features.contains(matrices) { cooperative::offered(&found.adapter) } else { Vec::new() },
            name: found.info.name.clone(),
        };
        let pipelines = PipelineStore::new(&device, &found.info, features);
        Ok(Self { caps, device, queue, pipelines, fault })
    }

    /// Runs `make` under error scopes for all there is: validation, memory and the driver's own errors.
    ///
    /// # Errors
    /// What the scopes caught, or the device's loss.
    pub fn guarded<T>(&self, what: &str, bytes: u64, make: impl FnOnce() -> T) -> Result<T, GpuError> {
        let memory = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.device.push_error_scope(wgpu::ErrorFilter::Validation);
        // A driver that does not compile a shader.
        let internal = self.device.push_error_scope(wgpu::ErrorFilter::Internal);
        let made = make();
        let internal = pollster::block_on(internal.pop());
        let (validation, memory) = (pollster::block_on(validation.pop()), pollster::block_on(memory.pop()));
        if memory.is_some() {
            return Err(GpuError::OutOfMemory {
                what: what.into(),
                bytes,
                adapter: self.caps.name.clone(),
                reason: "is out of memory".into(),
            });
        }
        if let Some(error) = validation.or(internal) {
            return Err(GpuError::Validation { what: what.into(), reason: error.to_string() });
        }
        self.check()?;
        Ok(made)
    }

    /// The first fault that arrived outside any error scope, if there was one.
    ///
    /// # Errors
    /// That fault.
    pub fn check(&self) -> Result<(), GpuError> {
        match self.fault.lock() {
            Ok(slot) => slot.clone().map_or(Ok(()), Err),
            Err(_) => Ok(()),
        }
    }

    /// An encoder for commands.
    pub fn encoder(&self) -> wgpu::CommandEncoder {
        self.device.create_command_encoder(&wgpu::CommandEncoderDescriptor::default())
    }

    /// Hands commands to the device, without waiting for them.
    ///
    /// # Errors
    /// A fault that has arrived since the last look.
    pub fn submit(&self, encoder: wgpu::CommandEncoder) -> Result<wgpu::SubmissionIndex, GpuError> {
        self.submit_commands(encoder.finish())
    }

    /// The same of commands that are encoded already.
    ///
    /// # Errors
    /// A fault that has arrived since the last look.
    pub fn submit_commands(&self, commands: wgpu::CommandBuffer) -> Result<wgpu::SubmissionIndex, GpuError> {
        let index = self.queue.submit([commands]);
        self.check()?;
        Ok(index)
    }

    /// Waits until everything submitted has run.
    ///
    /// # Errors
    /// The device's loss, or any other fault.
    pub fn wait(&self) -> Result<(), GpuError> {
        let polled = self.device.poll(wgpu::PollType::wait_indefinitely());
        self.check()?;
        polled.map(|_| ()).map_err(|e| GpuError::Lost { adapter: self.caps.name.clone(), reason: e.to_string() })
    }

    /// Waits until that submission has run.
    ///
    /// # Errors
    /// The device's loss, or any other fault.
    pub fn wait_for(&self, submission: wgpu::SubmissionIndex) -> Result<(), GpuError> {
        let polled = self.device.poll(wgpu::PollType::Wait { submission_index: Some(submission), timeout: None });
        self.check()?;
        polled.map(|_| ()).map_err(|e| GpuError::Lost { adapter: self.caps.name.clone(), reason: e.to_string() })
    }

    /// Memory that the device has for itself, bytes, where the driver tells.
    pub fn memory(&self) -> Option<u64> {
        // Only Vulkan tells it through wgpu.
        // Safety: the physical device is only asked for its properties.
        unsafe {
            let hal = self.device.as_hal::<wgpu::hal::api::Vulkan>()?;
            let properties =
                hal.shared_instance().raw_instance().get_physical_device_memory_properties(hal.raw_physical_device());
            let heaps = &properties.memory_heaps[..properties.memory_heap_count as usize];
            heaps.iter().map(|heap| heap.size).max()
        }
    }

    /// Writes the compiled pipelines to the user's cache folder, where the backend can.
    pub fn save_pipelines(&self) {
        self.pipelines.save();
    }
}

#[cfg(test)]
mod tests {
    use super::{loads_lane_by_lane, opened};

    /// A driver that opens a device for any of these features, and refuses all others.
    fn driver(opens: &'static [u32]) -> impl Fn(u32) -> Result<u32, String> {
        move |features| if opens.contains(&features) { Ok(features) } else { Err(format!("not {features}")) }
    }

    #[test]
    fn drivers_that_load_lane_by_lane() {
        let drivers = [
            "llvmpipe Mesa 22.3.6 (LLVM 15.0.6)",
            "llvmpipe Mesa 26.1.6-1~bpo13+1 (LLVM 19.1.7)",
            "Microsoft Basic Render Driver",
            "",
        ];
        assert_eq!(drivers.map(loads_lane_by_lane), [true, false, false, false]);
    }

    #[test]
    fn a_driver_that_refuses_an_experiment_still_opens_the_device() {
        assert_eq!(opened(1, 3, driver(&[1, 3])), Ok((3, 3)));
        assert_eq!(opened(1, 3, driver(&[1])), Ok((1, 1)), "opened again without");
        assert_eq!(opened(1, 3, driver(&[])), Err("not 1".into()));
        assert_eq!(opened(1, 1, driver(&[])), Err("not 1".into()), "nothing to leave out");
    }
}
