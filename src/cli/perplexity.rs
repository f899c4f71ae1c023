//! `shaderlm perplexity`

use super::{
    CliResult,
    common::{DeviceArgs, progress_bar, refuse},
    profile::ProfileArgs,
};
use shaderlm::{
    models::{
        Model, SHAKESPEARE, WeightFormat,
        perplexity::{Cut, text_loss},
    },
    train::read_texts,
};
use std::{io::Write, path::PathBuf};

/// Measure how well a model predicts a text
///
/// The text is cut into windows of the model's context that start --stride tokens apart; each token is predicted once, in
/// the first window that holds it. A shorter stride gives more context and takes longer.
#[derive(clap::Args)]
pub struct Perplexity {
    /// A folder, a repository of the Hub, or a GGUF file; by default the model in this program
    #[arg(long, value_name = "DIR|REPO|GGUF")]
    model: Option<String>,
    /// Store weights so on the device; by default as they are in the file
    #[arg(long, value_enum, value_name = "FORMAT")]
    weights: Option<WeightFormat>,
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
        let mut engine = self.device.engine()?;
        model.upload_narrow(&mut engine, config, self.weights.map(|format| format.of(32)))?;
        let bar = progress_bar(0, "{bar:30} {pos}/{len} windows, {eta} left")?;
        let found = text_loss(&mut engine, config, &tokens, Cut { stride, batch: self.batch }, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        engine.save_pipelines();
        let (loss, count) = (found.mean(), found.tokens);
        let per_byte = found.sum / std::f64::consts::LN_2 / text.len() as f64;
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
