//! Flags that all kinds of training take.

use crate::cli::{
    CliResult,
    common::{DeviceArgs, number_in, refuse},
    data::read_documents,
    profile::ProfileArgs,
};
use clap::{ArgAction, ValueEnum};
use shaderlm::{
    checkpoint::StoredType,
    models::{Config, Model},
    ops::Precision,
    text::Tokenizer,
    train::{Documents, Optimizer, Pretraining, Schedule, ScheduleShape, Settings},
};
use std::path::{Path, PathBuf};

/// How weights are stored.
#[derive(Clone, Copy, ValueEnum)]
pub enum Stored {
    F32,
    F16,
    Bf16,
}

impl From<Stored> for StoredType {
    fn from(stored: Stored) -> Self {
        match stored {
            Stored::F32 => Self::F32,
            Stored::F16 => Self::F16,
            Stored::Bf16 => Self::BF16,
        }
    }
}

/// All micro-batches of a step are in its plan.
const MOST_PARTS: usize = 1024;

/// What is the same for every model.
#[derive(clap::Args)]
pub struct Flags {
    /// Text files, one after another
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    pub data: Vec<PathBuf>,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
    /// Begin with this model (a folder, or a repository of the Hub) and its tokenizer
    #[arg(long, value_name = "DIR|REPO", conflicts_with_all = ["layers", "heads", "width", "vocab", "size"])]
    pub init: Option<String>,
    /// Give the --init model so many layers, its own again and again: a deep model learns sooner from a shallow one that has
    /// begun to (Gong et al. 2019, "Efficient training of BERT by progressively stacking")
    #[arg(long, value_name = "N", requires = "init")]
    pub depth: Option<usize>,
    /// Blocks
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub layers: usize,
    /// Attention heads a block
    #[arg(long, value_name = "N", default_value_t = 4)]
    pub heads: usize,
    /// Width of the residual stream
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub width: usize,
    /// Tokens of a row; the context of the --init model by default, else 64 for a GPT-2 and 128 for the others
    #[arg(long, value_name = "N")]
    pub context: Option<usize>,
    /// Rows of the token table; the tokenizer's number of tokens by default
    #[arg(long, value_name = "N")]
    pub vocab: Option<usize>,
    /// Rows at once
    #[arg(long, value_name = "N", default_value_t = 12)]
    pub batch: usize,
    /// Batches whose gradients are summed before a step
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub accumulate: usize,
    /// Steps
    #[arg(long, value_name = "N", default_value_t = 2000)]
    pub steps: usize,
    /// The rule that moves the weights
    #[arg(long, value_enum, default_value_t = Optimizer::Adamw)]
    pub optimizer: Optimizer,
    /// Highest learning rate; by default 1e-3, and 5e-4 for an ELECTRA
    #[arg(long, value_name = "RATE", value_parser = number_in(0.0, 100.0))]
    pub lr: Option<f32>,
    /// Last learning rate; by default a tenth of --lr, and 0 for an ELECTRA
    #[arg(long, value_name = "RATE", value_parser = number_in(0.0, 100.0))]
    pub min_lr: Option<f32>,
    /// Steps in which the rate rises from 0
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub warmup: usize,
    /// What follows the warm-up; by default cosine, and linear for an ELECTRA
    #[arg(long, value_enum)]
    pub schedule: Option<ScheduleShape>,
    /// Decoupled decay of matrices and embeddings; by default 0.1 for a GPT-2 and 0.01 for the others
    #[arg(long, value_name = "X", value_parser = number_in(0.0, 10.0))]
    pub weight_decay: Option<f32>,
    /// Decay of Adam's first moment; SGD's momentum
    #[arg(long, value_name = "X", default_value_t = 0.9, value_parser = number_in(0.0, 0.999_999))]
    pub beta1: f32,
    /// Decay of Adam's second moment; by default 0.99 for a GPT-2 and 0.999 for the others
    #[arg(long, value_name = "X", value_parser = number_in(0.0, 0.999_999))]
    pub beta2: Option<f32>,
    /// Added to the root of Adam's second moment; by default 1e-8 for a GPT-2 and 1e-6 for the others
    #[arg(long, value_name = "X", value_parser = number_in(0.0, 1.0))]
    pub eps: Option<f32>,
    /// Largest global norm of the gradient; 0 for no clipping
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = number_in(0.0, 1e9))]
    pub clip: f32,
    /// What a step may round. Mixed is for GPUs with 16-bit floats: half the memory for activations, and products on tensor cores
    /// where there are some; the loss is scaled so that small gradients do not vanish, and steps that overflow are skipped
    #[arg(long, value_enum, default_value_t)]
    pub precision: Precision,
    /// Dropout on embeddings and on what is added to the residual stream
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = number_in(0.0, 0.95))]
    pub dropout: f32,
    /// Seed of weights, data order and dropout
    #[arg(long, value_name = "N", default_value_t = 1337)]
    pub seed: u32,
    /// Recompute each block's activations in the backward pass: less memory, about a third more time
    #[arg(long)]
    pub recompute: bool,
    /// Steps between evaluations on the held-out text; 0 for one at the end
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub eval_every: usize,
    /// Held-out text files, instead of a part of --data
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "eval_fraction")]
    pub eval_data: Vec<PathBuf>,
    /// Part of the data, at its end, that is held out
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = number_in(0.0, 0.9))]
    pub eval_fraction: f32,
    /// Steps between checkpoints; 0 for one at the end
    #[arg(long, value_name = "N", default_value_t = 250)]
    pub save_every: usize,
    /// How model.safetensors stores the weights; state.safetensors always has f32
    #[arg(long, value_enum, default_value = "f32")]
    pub dtype: Stored,
    /// Go on from the state in --out
    #[arg(long)]
    pub resume: bool,
    /// Replace a run that --out holds
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "resume")]
    pub overwrite: bool,
    /// Write a JSON line a step here
    #[arg(long, value_name = "FILE.jsonl")]
    pub log: Option<PathBuf>,
    /// Print the plan's size at the start
    #[arg(long)]
    pub stats: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
    #[command(flatten)]
    pub profile: ProfileArgs,
}

/// What encoders take besides: how examples are made and looked at.
#[derive(clap::Args)]
pub struct ExampleFlags {
    /// Share of the rows that are cut to a random shorter length
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = number_in(0.0, 1.0))]
    pub short_probability: f32,
    /// Standard deviation of the initial weights; the papers' 0.02 is for a width of 768, and narrow models begin to learn
    /// sooner with more
    #[arg(long, value_name = "X", default_value_t = 0.02, value_parser = number_in(1e-6, 1.0), conflicts_with = "init")]
    pub initializer_range: f32,
    /// Held-out examples that an evaluation takes, at most
    #[arg(long, value_name = "N", default_value_t = 1000)]
    eval_examples: usize,
}

impl ExampleFlags {
    pub fn check(&self) -> CliResult {
        if self.eval_examples == 0 {
            return refuse("--eval-examples 0: must be at least 1; --eval-fraction 0 holds nothing out");
        }
        Ok(())
    }

    /// Whole batches of `batch` that hold the held-out examples of an evaluation, or as many as there are; one at least.
    pub fn eval_batches(&self, held_out: Option<&Pretraining>, batch: usize) -> usize {
        let Some(data) = held_out else { return 0 };
        let there = data.epoch_length() as usize;
        let batches = there.min(self.eval_examples).div_ceil(batch);
        if batches * batch > there { (there / batch).max(1) } else { batches }
    }
}

/// Settings whose defaults differ from model to model.
pub struct Defaults {
    pub lr: f32,
    /// The last learning rate as a part of the highest.
    pub last: f32,
    pub schedule: ScheduleShape,
    pub weight_decay: f32,
    pub beta2: f32,
    pub eps: f32,
    pub bias_correction: bool,
}

impl Defaults {
    pub const GPT2: Self = Self {
        lr: 1e-3,
        last: 0.1,
        schedule: ScheduleShape::Cosine,
        weight_decay: 0.1,
        beta2: 0.99,
        eps: 1e-8,
        bias_correction: true,
    };
}

impl Flags {
    /// Refuses zeros where there must be something, and a folder that holds another run. `model` is the model's folder below
    /// --out.
    pub fn check(&self, model: &str) -> CliResult {
        for (flag, value) in [("--batch", self.batch), ("--accumulate", self.accumulate), ("--steps", self.steps)] {
            if value == 0 {
                return refuse(format!("{flag} 0: must be at least 1"));
            }
        }
        if self.accumulate > MOST_PARTS {
            return refuse(format!("--accumulate {}: must be at most {MOST_PARTS}", self.accumulate));
        }
        // A run of one kind within, or over, one of another would leave files of both.
        let inner = self.out.join("discriminator").join("model.safetensors");
        let stray = if model.is_empty() { inner } else { self.out.join("model.safetensors") };
        if stray.exists() {
            return refuse(format!(
                "--out {}: it holds another model, {}; give another folder",
                self.out.display(),
                stray.display()
            ));
        }
        // clap does not tell, since --tokenizer excludes --init.
        if self.depth.is_some() && self.init.is_none() {
            return refuse("--depth goes with --init; give --layers");
        }
        self.profile.begin()?;
        self.check_folder(&self.state_file(), &self.out.join(model).join("model.safetensors"))
    }

    /// Where the state of the run is kept.
    pub fn state_file(&self) -> PathBuf {
        self.out.join("state.safetensors")
    }

    /// Refuses to write over what --out holds.
    fn check_folder(&self, state_file: &Path, model: &Path) -> CliResult {
        let place = self.out.display();
        if self.overwrite {
            return Ok(());
        }
        match (state_file.exists(), model.exists()) {
            (true, _) if !self.resume => refuse(format!(
                "--out {place}: it holds a run already; give --resume to go on with it, --overwrite to replace it, or another folder"
            )),
            (false, true) if self.resume => refuse(format!(
                "--resume: {place} holds a model but no state.safetensors to go on from; give --init {place} and another --out"
            )),
            (false, true) => {
                refuse(format!("--out {place}: it holds a model already; give --overwrite to replace it, or another folder"))
            }
            _ => Ok(()),
        }
    }

    /// The --init model.
    pub fn init(&self) -> Result<Option<Model>, Box<dyn std::error::Error>> {
        self.init.as_deref().map(|place| self.deepened(Model::open(place)?)).transpose()
    }

    /// A model of --init with --depth layers.
    pub fn deepened(&self, model: Model) -> Result<Model, Box<dyn std::error::Error>> {
        Ok(match self.depth {
            Some(depth) => model.stack(depth)?,
            None => model,
        })
    }

    /// Training and held-out text, for encoders.
    pub fn documents(&self, tokenizer: &Tokenizer) -> Result<(Documents, Option<Documents>), Box<dyn std::error::Error>> {
        let all = read_documents(&self.data, tokenizer)?;
        if !self.eval_data.is_empty() {
            return Ok((all, Some(read_documents(&self.eval_data, tokenizer)?)));
        }
        if self.eval_fraction == 0.0 {
            return Ok((all, None));
        }
        let (train, held_out) = all.split(f64::from(self.eval_fraction));
        Ok((train, Some(held_out)))
    }

    /// Rows of the token table.
    pub fn vocab(&self, tokenizer: &Tokenizer) -> Result<usize, Box<dyn std::error::Error>> {
        let vocab = self.vocab.unwrap_or(tokenizer.vocab_size());
        if vocab < tokenizer.vocab_size() {
            return refuse(format!("--vocab {vocab}: the tokenizer has {} tokens", tokenizer.vocab_size()));
        }
        Ok(vocab)
    }

    /// The context, at most that of the model.
    pub fn context(&self, config: &Config) -> Result<usize, Box<dyn std::error::Error>> {
        let most = config.positions();
        match self.context {
            Some(c) if c == 0 || c > most => refuse(format!("--context {c}: the model's is {most}")),
            Some(c) => Ok(c),
            None => Ok(most),
        }
    }

    pub fn settings(&self, context: usize, defaults: &Defaults) -> Settings {
        let peak = self.lr.unwrap_or(defaults.lr);
        Settings {
            batch: self.batch,
            accumulate: self.accumulate,
            context,
            optimizer: self.optimizer,
            schedule: Schedule {
                shape: self.schedule.unwrap_or(defaults.schedule),
                peak,
                min: self.min_lr.unwrap_or(peak * defaults.last),
                warmup: self.warmup,
                steps: self.steps,
            },
            weight_decay: self.weight_decay.unwrap_or(defaults.weight_decay),
            beta1: self.beta1,
            beta2: self.beta2.unwrap_or(defaults.beta2),
            eps: self.eps.unwrap_or(defaults.eps),
            clip: self.clip,
            precision: self.precision,
            bias_correction: defaults.bias_correction,
            seed: self.seed,
        }
    }
}
