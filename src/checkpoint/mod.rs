//! Checkpoints: safetensors files, Hugging Face folders, and the Hub.

mod atomic;
mod error;
mod folder;
mod gguf;
mod header;
mod hub;
mod tensors;
mod weights;

pub use atomic::{check_writable, remove_leftovers, write_atomic};
pub use error::CheckpointError;
pub use folder::{read_config, save_folder};
pub use gguf::{BlockType, Gguf, GgufTensor, Value as GgufValue};
pub use hub::resolve_model;
/// Element types as safetensors has them.
pub use safetensors::Dtype as StoredType;
pub use tensors::{SafeTensorsFile, StoredTensor, TensorRef, write_safetensors};
pub use weights::Weights;
