//! Downstream tasks: their files, their examples as tokens, and how well predictions do. Nothing here knows a model.

mod answer;
mod batch;
mod data;
mod encode;
mod error;
pub mod metrics;
mod predict;
mod read;
mod rows;
mod score;
mod table;

pub use answer::{Prediction, best_answer};
pub use batch::{Lengths, RowLogits, RunBatch, SequenceLogits, TextBatch, row_logits};
pub use data::{Answer, Columns, Target, Task, TaskData, TaskExample, TaskInput, read_inputs};
pub use encode::{ContextWindow, EncodedExample, EncodedTask, Encoder, Sequence, WordSequence};
pub use error::{TaskError, TaskFault};
pub use predict::{EncodedInput, Found, input_logits};
pub use rows::{Order, RowTarget, TrainingRow};
pub use score::{judge, task_figures};
