//! `shaderlm quantize`

use super::{
    CliResult,
    common::{DeviceArgs, progress_bar, refuse, say},
};
use shaderlm::{
    models::{
        Kept, Model, Quantized, SHAKESPEARE, WeightFormat,
        perplexity::{Cut, text_loss},
        quantize,
    },
    train::read_texts,
};
use std::path::{Path, PathBuf};

/// Store a GPT-2's weights in fewer bits
///
/// OUT becomes a folder like the model's, with the matrices in 16, 8 or 4 bits and everything else as it was. q8 and q4 are rounded in
/// blocks of the model's rows, each with a scale of its own (and q4 with a minimum); generate, perplexity and forward read them. f16
/// and bf16 are what transformers reads, too.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm quantize --model openai-community/gpt2 --out gpt2-q8 --weights q8\n  \
    shaderlm quantize --out small --weights q4 --keep head --text play.txt\n  \
    shaderlm generate \"ROMEO:\" --model small")]
pub struct Quantize {
    /// A folder, a repository of the Hub, or a GGUF file; by default the model in this program
    #[arg(long, value_name = "DIR|REPO|GGUF")]
    model: Option<String>,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What the matrices are stored as
    #[arg(long, value_enum, value_name = "FORMAT")]
    weights: WeightFormat,
    /// Numbers in a block of q8 and q4: 32 or 64
    #[arg(long, value_name = "N", default_value_t = 32)]
    group: usize,
    /// Keep these in 16 bits
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHAT")]
    keep: Vec<Kept>,
    /// A text on which the perplexity is measured before and after
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

/// Windows at once, for the perplexity.
const BATCH: usize = 4;

impl Quantize {
    pub fn run(self) -> CliResult {
        if ![32, 64].contains(&self.group) {
            return refuse(format!("--group {}: must be 32 or 64", self.group));
        }
        let model = Model::chosen(self.model.as_deref(), &SHAKESPEARE)?;
        let before = self.text.as_deref().map(|text| self.perplexity(&model, text)).transpose()?;
        let bar = progress_bar(0, "{bar:30} {pos}/{len} tensors, {eta} left")?;
        let done = quantize(&model, &self.out, self.weights.of(self.group), &self.keep, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        print(&done);
        if let (Some(before), Some(text)) = (before, &self.text) {
            let after = self.perplexity(&Model::open(&self.out.to_string_lossy())?, text)?;
            say!("perplexity {before:.3} before, {after:.3} after ({:+.2} %)", 100.0 * (after / before - 1.0));
        }
        Ok(())
    }

    /// Of the model's weights as they are stored.
    fn perplexity(&self, model: &Model, text: &Path) -> Result<f64, Box<dyn std::error::Error>> {
        let config = model.gpt2()?;
        let words = read_texts(&[text.to_owned()])?.concat();
        let tokens = model.tokenizer()?.encode(&words, false)?;
        if tokens.len() < 2 {
            return refuse(format!("--text {}: {} token is too little to predict anything", text.display(), tokens.len()));
        }
        let mut engine = self.device.engine()?;
        model.upload_narrow(&mut engine, config, None)?;
        let bar = progress_bar(0, "{bar:30} {pos}/{len} windows, {eta} left")?;
        let cut = Cut { stride: config.n_positions, batch: BATCH };
        let found = text_loss(&mut engine, config, &tokens, cut, &mut |done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        })?;
        bar.finish_and_clear();
        Ok(found.perplexity())
    }
}

/// The kind of a tensor: its name, with a star for the layer's number.
fn kind(name: &str) -> String {
    name.split('.').map(|part| if part.parse::<usize>().is_ok() { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// A line a kind of tensor, with the largest error of any: the root mean square, as a part of that of the weights.
fn print(done: &[Quantized]) {
    let mut kinds: Vec<(String, usize, Quantized)> = Vec::new();
    for tensor in done {
        let name = kind(&tensor.name);
        match kinds.iter_mut().find(|(known, _, of)| *known == name && of.format == tensor.format) {
            Some((_, count, sum)) => {
                *count += 1;
                sum.before += tensor.before;
                sum.after += tensor.after;
                sum.error = sum.error.max(tensor.error);
            }
            None => kinds.push((name, 1, tensor.clone())),
        }
    }
    let line = |name: &str, count: usize, before: u64, after: u64, format: &str, error: f64| {
        let error = if error > 0.0 { format!("{:.3} %", 100.0 * error) } else { "none".into() };
        say!("{name:<44} {count:>7} {before:>13} {after:>13}  {format:<6} {error:>13}");
    };
    say!("{:<44} {:>7} {:>13} {:>13}  {:<6} {:>13}", "tensors", "", "bytes before", "bytes after", "format", "rms error");
    for (name, count, sum) in &kinds {
        line(name, *count, sum.before, sum.after, &sum.format, sum.error);
    }
    let sum = |bytes: fn(&Quantized) -> u64| done.iter().map(bytes).sum();
    let largest = done.iter().map(|tensor| tensor.error).fold(0.0, f64::max);
    line("all", done.len(), sum(|t| t.before), sum(|t| t.after), "", largest);
}
