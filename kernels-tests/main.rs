//! The tests that decide: every operation against its f64 reference on the adapter at hand, every backward rule by
//! finite differences, and whole models against their reference implementation.

// Cases are tables of tuples.
#![allow(clippy::type_complexity)]

mod harness;

mod activation;
mod attention;
mod bad_input;
mod binary_cross_entropy;
mod cache;
mod checkpoint;
mod cli;
mod cooperative;
mod copy_mixture;
mod cross_entropy;
mod dropout;
mod electra;
mod electra_cli;
mod electra_data;
mod elementwise;
mod embed;
mod embedding;
mod encoder_cli;
mod encoders;
mod finetune;
mod gelu;
mod generate;
mod gguf;
mod gpt2;
mod graph;
mod hub;
mod lamb;
mod layer_norm;
mod matmul;
mod memory;
mod metrics;
mod mixed;
mod mixed_cli;
mod mse;
mod optimizer;
mod packed;
mod pretrain;
mod pretrain_data;
mod profile;
mod quantize;
mod reduce;
mod sample;
mod shaders;
mod skinny;
mod softmax;
mod tasks;
mod text;
mod tokens;
mod trainer;
mod tune;
mod view;
mod whole_vocabulary;
