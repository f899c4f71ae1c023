//! Downstream tasks: their files, their examples as tokens, and how well predictions do. Nothing here knows a model.

mod answer;
mod data;
mod encode;
mod error;
pub mod metrics;
mod table;

pub use answer::{Prediction, best_answer};
pub use data::{Answer, Columns, Target, Task, TaskData, TaskExample, TaskInput, read_inputs};
pub use encode::{ContextWindow, EncodedExample, EncodedTask, Encoder, Sequence, WordSequence};
pub use error::{TaskError, TaskFault};
