//! `shaderlm forward`

use super::{CliResult, common::DeviceArgs, io};
use shaderlm::{
    graph::{Graph, PlanOptions},
    models::{Model, gpt2::{Context, Gpt2}},
    ops::{HostTensor, TensorType},
};
use std::path::PathBuf;

/// Run a model on token ids and write its logits
///
/// IN holds `input_ids` [batch, time] (I64, I32 or U32) and optionally `attention_mask`; OUT gets `logits` F32
/// [batch, time, vocabulary].
#[derive(clap::Args)]
pub struct Forward {
    /// A folder with config.json and model.safetensors, or a repository of the Hub
    #[arg(long, value_name = "DIR|REPO")]
    model: String,
    /// A safetensors file with input_ids
    #[arg(long, value_name = "IN.safetensors")]
    input: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Also write hidden_states.N: the embeddings, each block's output, and the last one after the final layer norm
    #[arg(long)]
    hidden_states: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Forward {
    pub fn run(self) -> CliResult {
        let model = Model::open(&self.model)?;
        let config = &model.config;
        let input = io::read_input(&self.input, config.vocab_size, config.n_positions)?;
        let shape = [input.batch, input.time];
        let mut engine = self.device.engine()?;
        model.upload(&mut engine)?;

        let mut g = Graph::new();
        let ids = g.input("input_ids", TensorType::u32(shape));
        let keys = input.mask.as_ref().map(|_| g.input("attention_mask", TensorType::u32(shape)));
        let gpt2 = Gpt2::new(config);
        let states = gpt2.hidden_states(&mut g, ids, Context::Whole { keys })?;
        let logits = gpt2.head(&mut g, states[states.len() - 1])?;
        let mut wanted = vec![("logits".to_owned(), logits)];
        if self.hidden_states {
            wanted.extend(states.iter().enumerate().map(|(i, &s)| (format!("hidden_states.{i}"), s)));
        }
        let outputs: Vec<_> = wanted.iter().map(|w| w.1).collect();
        let mut plan = engine.compile(g, &outputs, &PlanOptions::default())?;
        plan.set(ids, HostTensor::uints(shape, input.ids))?;
        if let (Some(keys), Some(mask)) = (keys, input.mask) {
            plan.set(keys, HostTensor::uints(shape, mask))?;
        }
        plan.run(&mut engine)?;
        let results = wanted.into_iter().map(|(name, t)| Ok((name, plan.get(t)?))).collect::<Result<Vec<_>, shaderlm::graph::GraphError>>()?;
        io::write_output(&self.output, &results)?;
        engine.save_pipelines();
        Ok(())
    }
}
