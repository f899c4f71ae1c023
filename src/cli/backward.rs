//! `shaderlm backward`

use super::{
    CliResult,
    common::DeviceArgs,
    forward::{chosen_head, feed},
    io,
    profile::ProfileArgs,
};
use shaderlm::{
    graph::{Graph, GraphError, PlanOptions, gradients},
    models::{Config, Missing, Mode, Model},
    ops::{HostTensor, TensorType},
    train::next_tokens,
};
use std::path::PathBuf;

/// Run a model forward and backward and write its loss and gradients
///
/// IN holds `input_ids` [batch, time], what `forward` takes besides, and the labels of the model's head by transformers' names:
/// `labels` (-100 is not counted; a GPT-2's are aligned with the ids and shifted inside the model), `next_sentence_label` or
/// `sentence_order_label`, `start_positions` and `end_positions`. OUT gets `loss` and `grad.NAME` for every parameter by its
/// Hugging Face name; a shared parameter once, with the sum.
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
    /// Another head than config.json names: masked-lm, pretraining, next-sentence, sequence, tokens, qa, choice or
    /// replaced (of an ELECTRA's discriminator)
    #[arg(long, value_name = "NAME")]
    head: Option<String>,
    /// Recompute each block's activations instead of keeping them
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

impl Backward {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        let model = Model::open(&self.model)?;
        let head = chosen_head(&model, self.head.as_deref())?;
        let input = io::Input::read(&self.input, &model, head)?;

        let mut g = Graph::new();
        let mode = Mode { recompute: self.recompute, ..Mode::default() };
        let recording = model.record(&mut g, head, input.inputs(), mode)?;
        let (labels, loss) = recording.loss(&mut g, &model.config, head)?;
        let mut feeds = Vec::new();
        for (name, tensor) in labels {
            let mut values = input.labels(name, &model.config, head)?;
            if let Config::Gpt2(_) = model.config {
                values = HostTensor::uints(values.shape.clone(), next_tokens(values.u(), values.shape.width()));
            }
            feeds.push((tensor, values));
        }
        let parameters = model.parameters(head)?;
        let mut engine = self.device.engine()?;
        model.upload(&mut engine, &parameters, Missing::Refuse)?;
        let variables =
            parameters.iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone()))).collect::<Result<Vec<_>, _>>()?;
        let grads = gradients(&mut g, loss, &variables)?;
        let mut wanted = vec![("loss".to_owned(), loss)];
        wanted.extend(parameters.iter().zip(&grads).filter_map(|(p, grad)| Some((format!("grad.{}", p.name), (*grad)?))));
        let outputs: Vec<_> = wanted.iter().map(|w| w.1).collect();
        let mut plan = engine.compile(g, &outputs, &PlanOptions::named("backward"))?;
        feed(&mut plan, &recording, &input)?;
        for (tensor, values) in feeds {
            plan.set(tensor, values)?;
        }
        plan.run(&mut engine)?;
        let results = wanted.into_iter().map(|(name, t)| Ok((name, plan.get(t)?))).collect::<Result<Vec<_>, GraphError>>()?;
        io::write_output(&self.output, &results)?;
        engine.save_pipelines();
        Ok(())
    }
}
