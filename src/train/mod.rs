//! Training: data, schedules, the training step as one plan, and state that survives a kill.
//!
//! Nothing here knows a model: it hands a function that records a loss to [`Trainer::new`].

mod data;
mod detection;
mod error;
mod log;
mod pretrain;
mod schedule;
mod state;
pub mod tasks;
mod trainer;

pub use data::{Corpus, TokenBatch, next_tokens, read_texts, windows};
pub use detection::Detection;
pub use error::TrainError;
pub use log::{Log, Record};
pub use pretrain::{Documents, Example, MaskRule, Pairing, PretrainBatch, PretrainSettings, Pretraining, Stream};
pub use schedule::{Schedule, Shape as ScheduleShape};
pub use state::{load_state, save_state};
pub use trainer::{Batch, Loss, LossFn, Objective, Optimizer, Outcome, ParameterType, Settings, Trainer};
