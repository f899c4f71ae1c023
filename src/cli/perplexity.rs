//! `shaderlm perplexity`

use super::{
    CliResult,
    common::{DeviceArgs, progress_bar, refuse},
    profile::ProfileArgs,
};
use shaderlm::{
    graph::{Graph, PlanOptions},
    models::{
        Missing, Model, SHAKESPEARE,
        gpt2::{Gpt2, parameters},
    },
    ops::{HostTensor, IGNORE, TensorType},
    train::{read_texts, windows},
};
use std::{io::Write, path::PathBuf};

/// Measure how well a model predicts a text
///
/// The text is cut into windows of the model's context that start --stride tokens apart; each token is predicted once, in
/// the first window that holds it. A shorter stride gives more context and takes longer.
#[derive(clap::Args)]
pub struct Perplexity {
    /// A folder, or a repository of the Hub; by default the model in this program
    #[arg(long, value_name = "DIR|REPO")]
    model: Option<String>,
    /// A text file
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// Tokens between the starts of windows; the whole context by default
    #[arg(long, value_name = "N")]
    stride: Option<usize>,
    /// Windows at once
    #[arg(long, value_name = "N", default_value_t = 4)]
    batch: usize,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

impl Perplexity {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        let model = Model::chosen(self.model.as_deref(), &SHAKESPEARE)?;
        let config = model.gpt2()?;
        let context = config.n_positions;
        let stride = self.stride.unwrap_or(context);
        if stride == 0 || stride > context {
            return refuse(format!("--stride {stride}: must be from 1 to the model's context of {context}"));
        }
        if self.batch == 0 {
            return refuse("--batch 0: must be at least 1");
        }
        let text = read_texts(std::slice::from_ref(&self.data))?.concat();
        let tokens = model.tokenizer()?.encode(&text, false)?;
        if tokens.len() < 2 {
            return refuse(format!("{}: {} token is too little to predict anything", self.data.display(), tokens.len()));
        }
        let time = context.min(tokens.len() - 1);
        let stride_of_windows = stride.min(time);
        // A short text has fewer windows than --batch; rows without text would be computed for nothing.
        let batch = self.batch.min((tokens.len() - 1).div_ceil(stride_of_windows));
        let batches = windows(&tokens, time, stride_of_windows, batch);

        let mut engine = self.device.engine()?;
        model.upload(&mut engine, &parameters(config), Missing::Refuse)?;
        let shape = [batch, time];
        let mut g = Graph::new();
        let ids = g.input("ids", TensorType::u32(shape));
        let targets = g.input("targets", TensorType::u32(shape));
        let loss = Gpt2::new(config).loss(&mut g, ids, targets, None)?;
        let mut plan = engine.compile(g, &[loss], &PlanOptions::named("perplexity"))?;

        let bar = progress_bar(batches.len(), "{bar:30} {pos}/{len} windows, {eta} left")?;
        let (mut sum, mut count) = (0.0, 0usize);
        for batch in batches {
            let counted = batch.targets.iter().filter(|&&t| t != IGNORE).count();
            plan.set(ids, HostTensor::uints(shape, batch.ids))?;
            plan.set(targets, HostTensor::uints(shape, batch.targets))?;
            plan.run(&mut engine)?;
            sum += f64::from(plan.get(loss)?.f()[0]) * counted as f64;
            count += counted;
            bar.inc(1);
        }
        bar.finish_and_clear();
        engine.save_pipelines();
        let loss = sum / count as f64;
        let per_byte = sum / std::f64::consts::LN_2 / text.len() as f64;
        let mut out = std::io::stdout().lock();
        if self.json {
            let object = serde_json::json!({
                "loss": loss, "perplexity": loss.exp(), "bits_per_byte": per_byte, "tokens": count, "stride": stride,
            });
            writeln!(out, "{object}")?;
        } else {
            writeln!(
                out,
                "perplexity {:.3} ({loss:.4} nats a token, {per_byte:.4} bits a byte) over {count} tokens",
                loss.exp()
            )?;
        }
        Ok(())
    }
}
