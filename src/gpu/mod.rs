//! The adapter, its device, buffers, pipelines, submission and read-back.
//!
//! Nothing here knows an operation: a caller brings WGSL and bindings, and gets bytes back.

mod adapter;
mod buffer;
mod cache;
mod ceilings;
mod cooperative;
mod device;
mod error;
mod image;
mod pipeline;
mod read_back;
mod recording;
mod shader;
pub(crate) mod timing;
mod tuning;

pub use adapter::{AdapterDescription, DeviceChoice, adapters};
pub use buffer::{Buffer, BufferSlice};
pub use ceilings::{Ceilings, Effort, Progress, Rate};
pub use cooperative::{Cooperative, Scalar};
pub use device::{Capabilities, Gpu, GpuOptions};
pub use error::GpuError;
pub use image::{Image, ImageCopy};
pub use pipeline::{Access, Bound, Pipeline, Resource};
pub use read_back::ReadBack;
pub use recording::record;
pub use shader::{Define, ELEMENT_TYPES, Kernel};
pub use timing::Timestamps;
pub use tuning::{Autotune, Timings, Tuning};
