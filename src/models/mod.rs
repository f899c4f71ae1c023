//! Models: each file reads like its paper, and names its weights as Hugging Face does.

mod config;
pub mod generate;
pub mod gpt2;
mod load;

pub use config::{ConfigError, Gpt2Config};
pub use load::{Model, ModelError, initialise, save};
