//! What can go wrong between the host and an adapter.

/// A fault of the adapter, its driver, or of what was asked of it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum GpuError {
    /// No adapter that runs compute shaders was found.
    #[error(
        "no GPU adapter was found; install a Vulkan, Metal or DX12 driver (Debian's software one: `apt-get install mesa-vulkan-drivers`) or use --device cpu"
    )]
    NoAdapter,
    /// `--device` named an adapter that is not there.
    #[error("--device {wanted}: no such adapter; there are: {present}")]
    UnknownAdapter {
        /// What was asked for.
        wanted: String,
        /// The adapters that there are.
        present: String,
    },
    /// The driver refused to open a device.
    #[error("adapter {adapter}: the driver refused a device: {reason}")]
    Open {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// The device stopped working: reset, unplugged, or killed by a watchdog.
    #[error("adapter {adapter}: the device was lost: {reason}; run again, with a smaller batch or context if it repeats")]
    Lost {
        /// The adapter's name.
        adapter: String,
        /// The driver's words.
        reason: String,
    },
    /// The device has not the memory for a buffer.
    #[error("{what} needs {bytes} bytes, and adapter {adapter} {reason}; use a smaller batch, context or model, or --device cpu")]
    OutOfMemory {
        /// What the buffer is for.
        what: String,
        /// Its size.
        bytes: u64,
        /// The adapter's name.
        adapter: String,
        /// Which limit was met.
        reason: String,
    },
    /// wgpu's validation refused something, which is an error in shaderlm itself, or the driver did.
    #[error("wgpu refused {what}: {reason}")]
    Validation {
        /// What was being made or run.
        what: String,
        /// wgpu's words.
        reason: String,
    },
    /// A shader's template or WGSL is wrong: an error in shaderlm itself.
    #[error("shader {shader}: {reason}")]
    Shader {
        /// The kernel's name with its variant.
        shader: String,
        /// What the template engine or naga said.
        reason: String,
    },
    /// A kernel whose result is known computed another.
    #[error(
        "adapter {adapter}: kernel {kernel} computes wrongly ({reason}): a fault of the driver; another version of it may do better"
    )]
    Wrong {
        /// The adapter's name.
        adapter: String,
        /// The kernel's name with its variant.
        kernel: String,
        /// What came out, and what should have.
        reason: String,
    },
}
