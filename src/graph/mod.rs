//! The graph runtime: recording, autodiff, planning, and running on an adapter or on the CPU.
//!
//! Nothing here knows a model. A model function records nodes with static shapes; [`gradients`] adds the backward pass
//! to the same graph; [`Engine::compile`] plans it; [`Plan::run`] runs it, allocating and compiling nothing.

mod arena;
mod autodiff;
mod copy;
mod engine;
mod error;
mod fuse;
mod gpu_plan;
mod half;
mod host;
mod lowered;
mod memory;
mod pair;
mod plan;
mod profile;
mod reader;
mod record;
mod report;
mod tune;
mod unpacked;

pub use autodiff::gradients;
pub use engine::{Engine, EngineOptions};
pub use error::GraphError;
pub use host::{Evaluate, evaluate};
pub use memory::Memory;
pub use plan::{Plan, PlanOptions, PlanStats};
pub use profile::{About, Clock, PlanProfile, Profile, Profiler, RunTimes, Span};
pub use reader::Reader;
pub use record::{Graph, Leaf, Node, Source};
pub use report::{Row, decisions, dot, kernels, memory, rows};
pub use tune::Tuned;
