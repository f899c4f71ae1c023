//! `shaderlm forward`

use super::{
    CliResult,
    common::{DeviceArgs, refuse},
    io,
    profile::ProfileArgs,
};
use shaderlm::{
    graph::{Graph, GraphError, Plan, PlanOptions},
    models::{Config, Head, Missing, Mode, Model, Recording, WeightFormat, with_article},
    ops::HostTensor,
};
use std::path::PathBuf;

/// Run a model on token ids and write what it gives
///
/// IN holds `input_ids` [batch, time] (I64, I32 or U32) and optionally `attention_mask` and `token_type_ids`; OUT gets, in F32
/// and by transformers' names, what the model's head gives: `logits`, `prediction_logits` with `sop_logits` or
/// `seq_relationship_logits`, `start_logits` and `end_logits`, or `last_hidden_state` and `pooler_output`. For multiple choice
/// the inputs are [batch, choices, time].
#[derive(clap::Args)]
pub struct Forward {
    /// A folder with config.json and model.safetensors, a repository of the Hub, or a GPT-2's GGUF file
    #[arg(long, value_name = "DIR|REPO|GGUF")]
    model: String,
    /// Store a GPT-2's weights so on the device; by default as they are in the file
    #[arg(long, value_enum, value_name = "FORMAT")]
    weights: Option<WeightFormat>,
    /// A safetensors file with input_ids
    #[arg(long, value_name = "IN.safetensors")]
    input: PathBuf,
    /// The safetensors file to write
    #[arg(long, value_name = "OUT.safetensors")]
    output: PathBuf,
    /// Another head than config.json names: base, masked-lm, pretraining, next-sentence, sequence, tokens, qa, choice or
    /// replaced (of an ELECTRA's discriminator)
    #[arg(long, value_name = "NAME")]
    head: Option<String>,
    /// Also write hidden_states.N: the embeddings and each layer's output
    #[arg(long)]
    hidden_states: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// The head of `model`; a GPT-2 has but one, which is not asked about.
pub fn chosen_head(model: &Model, name: Option<&str>) -> Result<Head, Box<dyn std::error::Error>> {
    Ok(if model.gpt2().is_ok() { Head::Base } else { model.head(name)? })
}

/// Feeds ids, types and mask.
pub fn feed(plan: &mut Plan, recording: &Recording, input: &io::Input) -> Result<(), GraphError> {
    let shape = [input.inputs().rows, input.inputs().time];
    plan.set(recording.ids, HostTensor::uints(shape, input.ids.clone()))?;
    for (tensor, values) in [(recording.keys, &input.mask), (recording.types, &input.types)] {
        if let (Some(tensor), Some(values)) = (tensor, values) {
            plan.set(tensor, HostTensor::uints(shape, values.clone()))?;
        }
    }
    Ok(())
}

impl Forward {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        let model = Model::open(&self.model)?;
        let head = chosen_head(&model, self.head.as_deref())?;
        let input = io::Input::read(&self.input, &model, head)?;
        let mut engine = self.device.engine()?;
        match &model.config {
            Config::Gpt2(config) => model.upload_narrow(&mut engine, config, self.weights.map(|format| format.of(32)))?,
            other if self.weights.is_some() => {
                return refuse(format!("--weights is for a gpt2; this is {}", with_article(other.kind())));
            }
            _ => drop(model.upload(&mut engine, &model.parameters(head)?, Missing::Refuse)?),
        }

        let mut g = Graph::new();
        let recording = model.record(&mut g, head, input.inputs(), Mode::default())?;
        let outputs = &recording.outputs;
        let mut wanted: Vec<_> = outputs.named.iter().map(|(name, tensor)| ((*name).to_owned(), *tensor)).collect();
        if self.hidden_states {
            wanted.extend(outputs.hidden_states.iter().enumerate().map(|(i, &s)| (format!("hidden_states.{i}"), s)));
        }
        let tensors: Vec<_> = wanted.iter().map(|w| w.1).collect();
        let mut plan = engine.compile(g, &tensors, &PlanOptions::named("forward"))?;
        feed(&mut plan, &recording, &input)?;
        plan.run(&mut engine)?;
        let results = wanted.into_iter().map(|(name, t)| Ok((name, plan.get(t)?))).collect::<Result<Vec<_>, GraphError>>()?;
        io::write_output(&self.output, &results)?;
        engine.save_pipelines();
        Ok(())
    }
}
