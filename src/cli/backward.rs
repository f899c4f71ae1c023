//! `shaderlm backward`

use super::{CliResult, common::{DeviceArgs, refuse}, io};
use shaderlm::{
    graph::{Graph, GraphError, PlanOptions, gradients},
    models::{Model, gpt2::{Gpt2, parameters}},
    ops::{HostTensor, TensorType},
    train::next_tokens,
};
use std::path::PathBuf;

/// Run a model forward and backward and write its loss and gradients
///
/// IN holds `input_ids` and `labels` [batch, time], aligned as in transformers (shifted inside the model, -100 ignored), and
/// optionally `attention_mask`; OUT gets `loss` and `grad.NAME` for every parameter by its Hugging Face name.
#[derive(clap::Args)]
pub struct Backward {
    /// A folder with config.json and model.safetensors, or a repository of the Hub
    #[arg(long, value_name = "DIR|REPO")]
    model: String,
    /// A safetensors file with input_ids and labels
    #[arg(long, value_name = "IN.safetensors")]
    input: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Recompute each block's activations instead of keeping them
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Backward {
    pub fn run(self) -> CliResult {
        let model = Model::open(&self.model)?;
        let config = &model.config;
        let input = io::read_input(&self.input, config.vocab_size, config.n_positions)?;
        let Some(labels) = &input.labels else {
            return refuse(format!("{}: there is no tensor labels, which backward needs", self.input.display()));
        };
        let shape = [input.batch, input.time];
        let targets_data = next_tokens(labels, input.time);
        let mut engine = self.device.engine()?;
        model.upload(&mut engine)?;

        let mut g = Graph::new();
        let ids = g.input("input_ids", TensorType::u32(shape));
        let targets = g.input("targets", TensorType::u32(shape));
        let keys = input.mask.as_ref().map(|_| g.input("attention_mask", TensorType::u32(shape)));
        let gpt2 = Gpt2 { recompute: self.recompute, ..Gpt2::new(config) };
        let loss = gpt2.loss(&mut g, ids, targets, keys)?;
        let names: Vec<_> = parameters(config).into_iter().map(|p| (p.name, p.shape)).collect();
        let variables = names
            .iter()
            .map(|(name, shape)| g.variable(name, TensorType::f32(shape.clone())))
            .collect::<Result<Vec<_>, _>>()?;
        let grads = gradients(&mut g, loss, &variables)?;
        let mut wanted = vec![("loss".to_owned(), loss)];
        wanted.extend(names.iter().zip(&grads).filter_map(|((name, _), grad)| Some((format!("grad.{name}"), (*grad)?))));
        let outputs: Vec<_> = wanted.iter().map(|w| w.1).collect();
        let mut plan = engine.compile(g, &outputs, &PlanOptions::default())?;
        plan.set(ids, HostTensor::uints(shape, input.ids))?;
        plan.set(targets, HostTensor::uints(shape, targets_data))?;
        if let (Some(keys), Some(mask)) = (keys, input.mask) {
            plan.set(keys, HostTensor::uints(shape, mask))?;
        }
        plan.run(&mut engine)?;
        let results =
            wanted.into_iter().map(|(name, t)| Ok((name, plan.get(t)?))).collect::<Result<Vec<_>, GraphError>>()?;
        io::write_output(&self.output, &results)?;
        engine.save_pipelines();
        Ok(())
    }
}
