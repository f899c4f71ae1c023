//! `shaderlm devices`

use super::{CliResult, bench};
use shaderlm::gpu::{Ceilings, DeviceChoice, Gpu, GpuOptions, adapters};
use std::io::Write;

/// List the adapters: backend, driver, features and limits that matter, and the kernels that would be chosen
#[derive(clap::Args)]
pub struct Devices {
    /// One JSON object a line
    #[arg(long)]
    json: bool,
}

impl Devices {
    pub fn run(self) -> CliResult {
        let mut out = std::io::stdout().lock();
        let found = adapters();
        if found.is_empty() && !self.json {
            writeln!(out, "no GPU adapter; --device cpu always works")?;
        }
        for (index, adapter) in found.iter().enumerate() {
            let gpu = match Gpu::open(&GpuOptions::new(DeviceChoice::Index(index))) {
                Ok(gpu) => gpu,
                Err(error) => {
                    writeln!(out, "{index}: {}: {error}", adapter.info.name)?;
                    continue;
                }
            };
            let c = &gpu.caps;
            let features = adapter.adapter.features();
            let memory = gpu.memory();
            let kernels = kernels(c);
            let ceilings = Ceilings::remembered(Some(c));
            if self.json {
                let object = serde_json::json!({
                    "index": index, "name": c.name, "backend": c.backend, "driver": c.driver,
                    "kind": format!("{:?}", adapter.info.device_type), "memory_bytes": memory,
                    "f16": c.f16, "subgroup": c.subgroup,
                    "timestamps": features.contains(wgpu::Features::TIMESTAMP_QUERY),
                    "cooperative_matrices": c.cooperative, "images": c.images,
                    "max_binding_bytes": c.max_binding, "max_buffer_bytes": c.max_buffer,
                    "max_workgroups": c.max_groups, "kernels": kernels, "ceilings": ceilings,
                });
                writeln!(out, "{object}")?;
                continue;
            }
            writeln!(out, "{index}: {}", c.name)?;
            writeln!(out, "   backend   {} ({:?})", c.backend, adapter.info.device_type)?;
            writeln!(out, "   driver    {}", c.driver)?;
            match memory {
                Some(bytes) => writeln!(out, "   memory    {:.1} GiB", bytes as f64 / f64::from(1 << 30))?,
                None => writeln!(out, "   memory    not told by the driver")?,
            }
            let yes = |on: bool| if on { "yes" } else { "no" };
            let subgroup = c.subgroup.map_or("no".to_owned(), |n| format!("{n} lanes"));
            writeln!(
                out,
                "   features  f16 {}, subgroups {subgroup}, timestamps {}, pipeline cache {}",
                yes(c.f16),
                yes(features.contains(wgpu::Features::TIMESTAMP_QUERY)),
                yes(features.contains(wgpu::Features::PIPELINE_CACHE)),
            )?;
            let matrices: Vec<_> = c.cooperative.iter().map(ToString::to_string).collect();
            let matrices = if matrices.is_empty() { "none that wgpu and WGSL have".into() } else { matrices.join(", ") };
            writeln!(out, "   matrices  {matrices}")?;
            writeln!(
                out,
                "   limits    binding {} MiB, buffer {} MiB, {} workgroups a dimension, workgroup {} lanes and {} KiB",
                c.max_binding >> 20,
                c.max_buffer >> 20,
                c.max_groups,
                c.max_invocations,
                c.workgroup_memory >> 10,
            )?;
            writeln!(out, "   kernels   {}", kernels.join(", "))?;
            if let Some(ceilings) = &ceilings {
                writeln!(out, "   ceilings  {}", bench::summary(ceilings))?;
            }
        }
        if !self.json {
            writeln!(out, "cpu: the reference on the CPU (--device cpu)")?;
            if let Some(ceilings) = Ceilings::remembered(None) {
                writeln!(out, "   ceilings  {}", bench::summary(&ceilings))?;
            }
        }
        Ok(())
    }
}

/// The kernels that carry the work there.
fn kernels(c: &shaderlm::gpu::Capabilities) -> Vec<String> {
    let reduction = match c.subgroup {
        Some(lanes) => format!("reductions in subgroups of {lanes}"),
        None => "reductions in workgroup memory".into(),
    };
    if c.software {
        let from = if c.images { "images" } else { "buffers" };
        vec![format!("matmul_direct (from {from})"), format!("matmul_packed (a token at a time, from {from})"), reduction]
    } else {
        vec![
            "matmul_tiled (64x64 in workgroup memory)".into(),
            "matmul_packed (up to 16 tokens at a time)".into(),
            "matmul_rows and matmul_dot (up to 8 rows)".into(),
            reduction,
        ]
    }
}
