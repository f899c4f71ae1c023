//! Pipelines: compiled once a process for each variant, and kept on disk where the backend can.

use super::{Buffer, BufferSlice, Gpu, GpuError, Image, ImageCopy, Kernel, cache};
use std::{
    collections::{HashMap, HashSet},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};

/// How a kernel uses a storage binding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// `var<storage, read>`
    Read,
    /// `var<storage, read_write>`
    Write,
    /// `texture_storage_2d<rgba32uint, read>`
    ReadImage,
}

impl Access {
    /// The layout's entry.
    fn binding(self) -> wgpu::BindingType {
        match self {
            Self::Read => buffer(wgpu::BufferBindingType::Storage { read_only: true }),
            Self::Write => buffer(wgpu::BufferBindingType::Storage { read_only: false }),
            Self::ReadImage => wgpu::BindingType::StorageTexture {
                access: wgpu::StorageTextureAccess::ReadOnly,
                format: wgpu::TextureFormat::Rgba32Uint,
                view_dimension: wgpu::TextureViewDimension::D2,
            },
        }
    }
}

fn buffer(ty: wgpu::BufferBindingType) -> wgpu::BindingType {
    wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None }
}

/// What is bound.
#[derive(Debug, Clone)]
pub enum Resource {
    /// A range of a buffer.
    Slice(BufferSlice),
    /// An image.
    Image(Image),
}

/// A compiled kernel.
pub struct Pipeline {
    raw: wgpu::ComputePipeline,
    layout: wgpu::BindGroupLayout,
}

/// A bind group, ready to be dispatched any number of times.
pub struct Bound {
    pipeline: Arc<Pipeline>,
    group: wgpu::BindGroup,
    groups: [u32; 2],
    copies: Vec<ImageCopy>,
}

impl Bound {
    /// The same with copies that are made first, outside of a pass.
    #[must_use]
    pub fn after(mut self, copies: Vec<ImageCopy>) -> Self {
        self.copies = copies;
        self
    }

    /// Whether something is copied first.
    pub fn copies(&self) -> bool {
        !self.copies.is_empty()
    }

    /// Records what is copied first.
    pub fn prepare(&self, encoder: &mut wgpu::CommandEncoder) {
        self.copies.iter().for_each(|copy| copy.record(encoder));
    }

    /// Records the dispatch.
    pub fn dispatch(&self, pass: &mut wgpu::ComputePass<'_>) {
        pass.set_pipeline(&self.pipeline.raw);
        pass.set_bind_group(0, &self.group, &[]);
        pass.dispatch_workgroups(self.groups[0], self.groups[1], 1);
    }
}

type Made = HashMap<(Kernel, Vec<Access>), Arc<Pipeline>>;

pub(super) struct PipelineStore {
    made: Mutex<Made>,
    disk: Option<(wgpu::PipelineCache, PathBuf)>,
}

impl PipelineStore {
    pub(super) fn new(device: &wgpu::Device, info: &wgpu::AdapterInfo, features: wgpu::Features) -> Self {
        let disk = features
            .contains(wgpu::Features::PIPELINE_CACHE)
            .then(|| wgpu::util::pipeline_cache_key(info))
            .flatten()
            .zip(cache::folder())
            .map(|(key, folder)| {
                let path = folder.join(key);
                let data = std::fs::read(&path).ok();
                // Safety: the file was written by this program from `get_data`; wgpu checks the header against the
                // adapter and driver, and `fallback` starts empty where it does not fit.
                let cache = unsafe {
                    device.create_pipeline_cache(&wgpu::PipelineCacheDescriptor {
                        label: Some("shaderlm"),
                        data: data.as_deref(),
                        fallback: true,
                    })
                };
                (cache, path)
            });
        Self { made: Mutex::new(HashMap::new()), disk }
    }

    /// A cache that cannot be written costs only time at the next start, so failures are not reported.
    pub(super) fn save(&self) {
        let Some((cache, path)) = &self.disk else { return };
        let Some(data) = cache.get_data() else { return };
        if std::fs::metadata(path).is_ok_and(|m| m.len() == data.len() as u64) {
            return;
        }
        cache::write(path, &data);
    }
}

/// Stack of a thread that compiles: naga and drivers go deep into what a template unrolls.
const STACK: usize = 16 << 20;

impl Gpu {
    /// [`pipeline`](Self::pipeline) for each of `variants`; those that are not there yet are compiled at the same time.
    ///
    /// # Errors
    /// Those of the first that is not to be had.
    pub fn pipelines(&self, variants: &[(&Kernel, Vec<Access>)]) -> Result<Vec<Arc<Pipeline>>, GpuError> {
        let mut missing: HashSet<_> = variants.iter().collect();
        if let Ok(made) = self.pipelines.made.lock() {
            missing.retain(|(kernel, access)| !made.contains_key(&((*kernel).clone(), access.clone())));
        }
        let missing: Vec<_> = missing.into_iter().collect();
        let next = AtomicUsize::new(0);
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(missing.len());
        if threads > 1 {
            std::thread::scope(|scope| {
                for _ in 0..threads {
                    // A thread that does not start leaves its work to the others, or to the end. So do errors: they are found again there.
                    let _ = std::thread::Builder::new().stack_size(STACK).spawn_scoped(scope, || {
                        while let Some((kernel, access)) = missing.get(next.fetch_add(1, Ordering::Relaxed)) {
                            let _ = self.pipeline(kernel, access);
                        }
                    });
                }
            });
        }
        variants.iter().map(|(kernel, access)| self.pipeline(kernel, access)).collect()
    }

    /// The compiled `kernel`, whose storage bindings are used as `access` says.
    ///
    /// # Errors
    /// The shader does not validate, or the driver does not compile it.
    pub fn pipeline(&self, kernel: &Kernel, access: &[Access]) -> Result<Arc<Pipeline>, GpuError> {
        let key = (kernel.clone(), access.to_vec());
        if let Some(made) = self.pipelines.made.lock().ok().and_then(|m| m.get(&key).cloned()) {
            return Ok(made);
        }
        let source = kernel.wgsl()?;
        let label = kernel.label();
        let made = self.guarded(&format!("shader {label}"), 0, || {
            // Safety: every kernel guards its own bounds and bounds its own loops; the kernel tests run each on
            // awkward shapes with sentinels around the outputs.
            let module = unsafe {
                self.device.create_shader_module_trusted(
                    wgpu::ShaderModuleDescriptor { label: Some(&label), source: wgpu::ShaderSource::Wgsl(source.into()) },
                    wgpu::ShaderRuntimeChecks::unchecked(),
                )
            };
            let entry =
                |binding, ty| wgpu::BindGroupLayoutEntry { binding, visibility: wgpu::ShaderStages::COMPUTE, ty, count: None };
            let mut entries = vec![entry(0, buffer(wgpu::BufferBindingType::Uniform))];
            for (i, access) in access.iter().enumerate() {
                entries.push(entry(i as u32 + 1, access.binding()));
            }
            let layout =
                self.device.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(&label), entries: &entries });
            let pipeline_layout = self.device.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: Some(&label),
                bind_group_layouts: &[Some(&layout)],
                immediate_size: 0,
            });
            let raw = self.device.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: Some(&label),
                layout: Some(&pipeline_layout),
                module: &module,
                entry_point: Some("main"),
                compilation_options: wgpu::PipelineCompilationOptions {
                    // Every kernel writes workgroup memory before it reads it.
                    zero_initialize_workgroup_memory: false,
                    ..Default::default()
                },
                cache: self.pipelines.disk.as_ref().map(|(cache, _)| cache),
            });
            Arc::new(Pipeline { raw, layout })
        })?;
        if let Ok(mut store) = self.pipelines.made.lock() {
            store.insert(key, made.clone());
        }
        Ok(made)
    }

    /// Binds `params` (a range of a uniform buffer) and `bindings` to `pipeline` for a dispatch of `groups` workgroups,
    /// laid out over two dimensions: a kernel's linear index is `id.x + id.y * groups.x`.
    ///
    /// # Errors
    /// A binding does not fit the pipeline.
    pub fn bind(
        &self,
        pipeline: &Arc<Pipeline>,
        params: (&Buffer, u64, u64),
        bindings: &[Resource],
        groups: [u32; 2],
    ) -> Result<Bound, GpuError> {
        fn resource(buffer: &Buffer, offset: u64, bytes: u64) -> wgpu::BindingResource<'_> {
            let size = std::num::NonZeroU64::new(bytes);
            wgpu::BindingResource::Buffer(wgpu::BufferBinding { buffer: &buffer.raw, offset, size })
        }
        let mut entries = vec![wgpu::BindGroupEntry { binding: 0, resource: resource(params.0, params.1, params.2) }];
        for (i, bound) in bindings.iter().enumerate() {
            let resource = match bound {
                Resource::Slice(slice) => resource(&slice.buffer, slice.offset, slice.bytes),
                Resource::Image(image) => wgpu::BindingResource::TextureView(&image.view),
            };
            entries.push(wgpu::BindGroupEntry { binding: i as u32 + 1, resource });
        }
        let group = self.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: None,
            layout: &pipeline.layout,
            entries: &entries,
        });
        self.check()?;
        Ok(Bound { pipeline: pipeline.clone(), group, groups, copies: Vec::new() })
    }
}
