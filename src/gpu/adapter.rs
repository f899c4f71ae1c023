//! Finding adapters and choosing one.

use super::GpuError;
use std::str::FromStr;

/// What a user may say with `--device` or `SHADERLM_DEVICE`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceChoice {
    /// The best adapter there is; the CPU if there is none.
    Auto,
    /// The CPU reference, no adapter.
    Cpu,
    /// The adapter with this number in `shaderlm devices`.
    Index(usize),
    /// The first adapter whose name or backend contains this, whatever the case.
    Name(String),
}

impl FromStr for DeviceChoice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(match text.trim() {
            "" => return Err("give auto, cpu, a number or a part of an adapter's name".into()),
            "auto" => Self::Auto,
            "cpu" => Self::Cpu,
            other => match other.parse() {
                Ok(index) => Self::Index(index),
                Err(_) => Self::Name(other.to_lowercase()),
            },
        })
    }
}

/// An adapter as the driver describes it.
pub struct AdapterDescription {
    /// The adapter itself.
    pub adapter: wgpu::Adapter,
    /// Name, driver, backend and kind.
    pub info: wgpu::AdapterInfo,
}

/// Every adapter that runs compute shaders, real GPUs first, in a stable order.
pub fn adapters() -> Vec<AdapterDescription> {
    let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
        backends: wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12,
        // Drivers that do not claim full Vulkan conformance (lavapipe on old Mesa) still compute rightly, and are tested.
        flags: wgpu::InstanceFlags::ALLOW_UNDERLYING_NONCOMPLIANT_ADAPTER,
        ..wgpu::InstanceDescriptor::new_without_display_handle()
    });
    let mut found: Vec<_> = pollster::block_on(instance.enumerate_adapters(wgpu::Backends::all()))
        .into_iter()
        .filter(|adapter| adapter.get_downlevel_capabilities().flags.contains(wgpu::DownlevelFlags::COMPUTE_SHADERS))
        .map(|adapter| AdapterDescription { info: adapter.get_info(), adapter })
        .collect();
    found.sort_by_key(|a| match a.info.device_type {
        wgpu::DeviceType::DiscreteGpu => 0,
        wgpu::DeviceType::IntegratedGpu => 1,
        wgpu::DeviceType::VirtualGpu => 2,
        wgpu::DeviceType::Other => 3,
        wgpu::DeviceType::Cpu => 4,
    });
    found
}

/// The adapter that `choice` names.
///
/// # Errors
/// [`GpuError::NoAdapter`] when there is none at all, [`GpuError::UnknownAdapter`] when none fits the choice.
pub(super) fn choose(choice: &DeviceChoice) -> Result<AdapterDescription, GpuError> {
    let mut found = adapters();
    if found.is_empty() {
        return Err(GpuError::NoAdapter);
    }
    let (place, wanted) = match choice {
        DeviceChoice::Auto | DeviceChoice::Cpu => (Some(0), String::new()),
        DeviceChoice::Index(index) => ((*index < found.len()).then_some(*index), index.to_string()),
        DeviceChoice::Name(name) => (
            found
                .iter()
                .position(|a| a.info.name.to_lowercase().contains(name) || a.info.backend.to_string().to_lowercase() == *name),
            name.clone(),
        ),
    };
    let Some(place) = place else {
        let present: Vec<_> = found.iter().enumerate().map(|(i, a)| format!("{i}: {}", a.info.name)).collect();
        return Err(GpuError::UnknownAdapter { wanted, present: present.join(", ") });
    };
    Ok(found.swap_remove(place))
}
