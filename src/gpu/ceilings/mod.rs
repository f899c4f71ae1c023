//! What a device can reach at best: bandwidth and arithmetic, measured by kernels that do nothing else.

mod host;
mod kernels;

use super::{Capabilities, DeviceChoice, Gpu, GpuError, GpuOptions, Kernel, cache};
use serde::{Deserialize, Serialize};
use std::{path::PathBuf, time::Duration};

/// A rate, or why there is none.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Rate {
    /// The best that was measured.
    Measured {
        /// GFLOP/s.
        gflops: f64,
        /// The element types, and the matrix's sizes.
        what: String,
    },
    /// It cannot be measured there.
    Missing {
        /// The reason, in words.
        reason: String,
    },
}

impl Rate {
    /// GFLOP/s, if it was measured.
    pub fn gflops(&self) -> Option<f64> {
        match self {
            Self::Measured { gflops, .. } => Some(*gflops),
            Self::Missing { .. } => None,
        }
    }
}

/// How long to measure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Effort {
    /// A second or two: fewer sizes and repeats.
    Brief,
    /// Every candidate, several times.
    Full,
}

impl Effort {
    /// What is timed takes no less than this at a time.
    fn least(self) -> Duration {
        Duration::from_millis(if self == Self::Brief { 10 } else { 50 })
    }
    /// How often each candidate is timed.
    fn times(self) -> usize {
        if self == Self::Brief { 2 } else { 5 }
    }
}

/// The best rates of a device.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Ceilings {
    /// The adapter's name, or `cpu`.
    pub name: String,
    /// Vulkan, Metal or DX12; `host` for the CPU.
    pub backend: String,
    /// The driver and its version.
    pub driver: String,
    /// How carefully it was measured.
    pub effort: Effort,
    /// A copy in the device's memory, GB/s (10^9 bytes), bytes read and bytes written together.
    pub copy_gb_per_s: f64,
    /// Reading the device's memory, GB/s.
    pub read_gb_per_s: f64,
    /// Fused multiply-adds in f32, two operations each.
    pub fma_f32: Rate,
    /// The same in f16, where shaders have it.
    pub fma_f16: Rate,
    /// Products of cooperative matrices (tensor cores), where wgpu has them on this adapter.
    pub cooperative: Rate,
}

/// Told before each measurement: what is measured, how many are done, and how many there are.
pub type Progress<'a> = dyn FnMut(&str, usize, usize) + 'a;

impl Ceilings {
    /// Measures the device that `choice` names.
    ///
    /// # Errors
    /// No such adapter, no memory, a fault of the device, or an adapter that computes wrongly.
    pub fn measure(choice: &DeviceChoice, effort: Effort, progress: &mut Progress<'_>) -> Result<Self, GpuError> {
        if *choice == DeviceChoice::Cpu {
            return Ok(host::measure(effort, progress));
        }
        let gpu = Gpu::open(&GpuOptions::new(choice.clone()))?;
        let found = kernels::measure(&gpu, effort, progress);
        gpu.save_pipelines();
        found
    }

    /// What was measured on this device before; `None` for the capabilities stands for the CPU.
    pub fn remembered(caps: Option<&Capabilities>) -> Option<Self> {
        let (name, backend, driver) = caps.map_or_else(host::identity, |c| (c.name.clone(), c.backend.clone(), c.driver.clone()));
        let text = std::fs::read(path(&name, &backend, &driver)?).ok()?;
        let found: Self = serde_json::from_slice(&text).ok()?;
        let numbers = [found.copy_gb_per_s, found.read_gb_per_s, found.fma_f32.gflops().unwrap_or(f64::NAN)];
        let sound = numbers.iter().all(|n| n.is_finite() && *n > 0.0);
        // Names that differ may share a file's name.
        ((found.name.as_str(), found.backend.as_str(), found.driver.as_str()) == (&name, &backend, &driver) && sound)
            .then_some(found)
    }

    /// Keeps it in the user's cache folder.
    pub fn remember(&self) {
        if let (Some(path), Ok(text)) = (path(&self.name, &self.backend, &self.driver), serde_json::to_vec_pretty(self)) {
            cache::write(&path, &text);
        }
    }

    /// Every kernel that measures one, in all that its variants differ in: for tests.
    pub fn kernels() -> Vec<Kernel> {
        kernels::variants()
    }

    /// The arithmetic rate that a kernel is held against, GFLOP/s: that of cooperative matrices for one that says in its label
    /// that it uses them, else that of f32, in which all others add up.
    pub fn arithmetic(&self, kernel: &str) -> Option<f64> {
        let cooperative = kernel.contains("coop").then(|| self.cooperative.gflops()).flatten();
        cooperative.or_else(|| self.fma_f32.gflops())
    }
}

/// Where a device's ceilings are kept.
fn path(name: &str, backend: &str, driver: &str) -> Option<PathBuf> {
    let words = format!("{backend} {name} {driver}").to_lowercase();
    let words: Vec<_> = words.split(|c: char| !c.is_ascii_alphanumeric()).filter(|w| !w.is_empty()).collect();
    let mut file = words.join("-");
    file.truncate(150);
    Some(cache::folder()?.join(format!("ceilings-{file}.json")))
}
