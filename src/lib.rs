//! shaderlm: a GPU compute engine for GPT-2, BERT and ALBERT, with hand-written WGSL, forward and backward.
//!
//! The way of the data: text -> tokenizer -> ids -> model (builds a [`graph::Graph`]) -> autodiff -> plan -> dispatches.
//! A folder uses only those listed below it.

pub mod checkpoint;
pub mod gpu;
pub mod graph;
pub mod models;
pub mod ops;
pub mod plot;
pub mod text;
pub mod train;
