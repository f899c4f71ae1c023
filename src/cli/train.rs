//! `shaderlm train`

use super::{
    CliResult,
    common::{say, DeviceArgs, number_in, refuse},
};
use clap::{ArgAction, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use shaderlm::{
    checkpoint::{StoredType, remove_leftovers},
    graph::Engine,
    models::{
        Gpt2Config, Model,
        gpt2::{Dropout, Gpt2, parameters},
        initialise, save,
    },
    text::Tokenizer,
    train::{
        Batch, Corpus, Log, LossInputs, Optimizer, ParameterType, Record, Schedule, ScheduleShape, Settings, Trainer,
        load_state, read_texts, save_state, windows,
    },
};
use std::{
    io::IsTerminal,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

/// Train a model on text files
#[derive(clap::Args)]
pub struct Train {
    #[command(subcommand)]
    model: What,
}

#[derive(clap::Subcommand)]
enum What {
    Gpt2(Box<TrainGpt2>),
}

/// How weights are stored.
#[derive(Clone, Copy, ValueEnum)]
enum Stored {
    F32,
    F16,
    Bf16,
}

/// Train a GPT-2 from scratch, or go on from a folder with --init
///
/// DIR gets config.json, model.safetensors and tokenizer.json, which `shaderlm generate --model DIR` and transformers load,
/// and state.safetensors, from which --resume goes on as if nothing had happened. Ctrl-C saves and stops.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm train gpt2 --data shakespeare.txt --out play --tokenizer chars\n  \
    shaderlm tokenizer train --data *.txt --vocab 2048 --out tok.json\n  \
    shaderlm train gpt2 --data *.txt --out mine --tokenizer tok.json --layers 6 --heads 6 --width 384 --context 256\n  \
    shaderlm train gpt2 --data letters.txt --out tuned --init openai-community/gpt2 --lr 3e-5 --steps 500")]
struct TrainGpt2 {
    /// Text files, one after another
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// bytes, chars (those of the data), gpt2 (its 50,257 tokens), or a tokenizer.json
    #[arg(long, value_name = "bytes|chars|gpt2|FILE", conflicts_with = "init")]
    tokenizer: Option<String>,
    /// Begin with this model (a folder, or a repository of the Hub) and its tokenizer
    #[arg(long, value_name = "DIR|REPO", conflicts_with_all = ["layers", "heads", "width", "vocab", "size"])]
    init: Option<String>,
    /// A size of the paper instead of --layers, --heads and --width: 124m, 355m, 774m or 1.5b
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["layers", "heads", "width"])]
    size: Option<String>,
    /// Blocks
    #[arg(long, value_name = "N", default_value_t = 4)]
    layers: usize,
    /// Attention heads a block
    #[arg(long, value_name = "N", default_value_t = 4)]
    heads: usize,
    /// Width of the residual stream
    #[arg(long, value_name = "N", default_value_t = 128)]
    width: usize,
    /// Tokens of a window; 64, or the context of the --init model, by default
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Rows of the token table; the tokenizer's number of tokens by default
    #[arg(long, value_name = "N")]
    vocab: Option<usize>,
    /// Windows at once
    #[arg(long, value_name = "N", default_value_t = 12)]
    batch: usize,
    /// Batches whose gradients are summed before a step
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,
    /// Steps
    #[arg(long, value_name = "N", default_value_t = 2000)]
    steps: usize,
    /// The rule that moves the weights
    #[arg(long, value_enum, default_value_t = Optimizer::Adamw)]
    optimizer: Optimizer,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 1e-3, value_parser = number_in(0.0, 100.0))]
    lr: f32,
    /// Last learning rate; a tenth of --lr by default
    #[arg(long, value_name = "RATE", value_parser = number_in(0.0, 100.0))]
    min_lr: Option<f32>,
    /// Steps in which the rate rises from 0
    #[arg(long, value_name = "N", default_value_t = 100)]
    warmup: usize,
    /// What follows the warm-up
    #[arg(long, value_enum, default_value_t = ScheduleShape::Cosine)]
    schedule: ScheduleShape,
    /// Decoupled decay of matrices and embeddings
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = number_in(0.0, 10.0))]
    weight_decay: f32,
    /// Decay of Adam's first moment; SGD's momentum
    #[arg(long, value_name = "X", default_value_t = 0.9, value_parser = number_in(0.0, 0.999_999))]
    beta1: f32,
    /// Decay of Adam's second moment
    #[arg(long, value_name = "X", default_value_t = 0.99, value_parser = number_in(0.0, 0.999_999))]
    beta2: f32,
    /// Added to the root of Adam's second moment
    #[arg(long, value_name = "X", default_value_t = 1e-8, value_parser = number_in(0.0, 1.0))]
    eps: f32,
    /// Largest global norm of the gradient; 0 for no clipping
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = number_in(0.0, 1e9))]
    clip: f32,
    /// Dropout on embeddings and residuals
    #[arg(long, value_name = "P", default_value_t = 0.0, value_parser = number_in(0.0, 0.95))]
    dropout: f32,
    /// Seed of weights, data order and dropout
    #[arg(long, value_name = "N", default_value_t = 1337)]
    seed: u32,
    /// Recompute each block's activations in the backward pass: less memory, about a third more time
    #[arg(long)]
    recompute: bool,
    /// Steps between evaluations on the whole held-out text; 0 for one at the end
    #[arg(long, value_name = "N", default_value_t = 250)]
    eval_every: usize,
    /// Held-out text files, instead of a part of --data
    #[arg(long, num_args = 1.., value_name = "FILE", conflicts_with = "eval_fraction")]
    eval_data: Vec<PathBuf>,
    /// Part of the data, at its end, that is held out
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = number_in(0.0, 0.9))]
    eval_fraction: f32,
    /// Steps between checkpoints; 0 for one at the end
    #[arg(long, value_name = "N", default_value_t = 250)]
    save_every: usize,
    /// How model.safetensors stores the weights; state.safetensors always has f32
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Stored,
    /// Go on from the state in --out
    #[arg(long)]
    resume: bool,
    /// Replace a run that --out holds
    #[arg(long, action = ArgAction::SetTrue, conflicts_with = "resume")]
    overwrite: bool,
    /// Write a JSON line a step here
    #[arg(long, value_name = "FILE.jsonl")]
    log: Option<PathBuf>,
    /// Print the plan's size at the start
    #[arg(long)]
    stats: bool,
    #[command(flatten)]
    device: DeviceArgs,
}

impl Train {
    pub fn run(self) -> CliResult {
        let What::Gpt2(args) = self.model;
        args.run()
    }
}

/// Text between files, where the tokenizer has a token for it.
fn encode_all(tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let mut tokens = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        if i > 0 {
            tokens.extend(tokenizer.end_of_text());
        }
        tokens.extend(tokenizer.encode(text, false)?);
    }
    Ok(tokens)
}

impl TrainGpt2 {
    fn run(self) -> CliResult {
        for (flag, value) in [("--batch", self.batch), ("--accumulate", self.accumulate), ("--steps", self.steps)] {
            if value == 0 {
                return refuse(format!("{flag} 0: must be at least 1"));
            }
        }
        let state_file = self.out.join("state.safetensors");
        self.check_folder(&state_file)?;
        let init = self.init.as_deref().map(Model::open).transpose()?;
        let texts = read_texts(&self.data)?;
        let eval_texts = read_texts(&self.eval_data)?;
        let tokenizer = self.make_tokenizer(init.as_ref(), &texts, &eval_texts)?;
        let config = self.config(init.as_ref(), &tokenizer)?;
        let context = self.context.unwrap_or(config.n_positions);
        let tokens = encode_all(&tokenizer, &texts)?;
        let eval_tokens = if eval_texts.is_empty() { None } else { Some(encode_all(&tokenizer, &eval_texts)?) };
        let corpus = Corpus::new(tokens, eval_tokens, f64::from(self.eval_fraction), context, &self.data[0])?;

        let mut engine = self.device.engine()?;
        match &init {
            Some(model) => model.upload(&mut engine)?,
            None => initialise(&config, &mut engine, self.seed)?,
        }
        let settings = self.settings(context);
        let fingerprint = self.fingerprint(&config, &settings, &corpus);
        let types: Vec<_> =
            parameters(&config).into_iter().map(|p| ParameterType { name: p.name, shape: p.shape }).collect();
        let loss = |g: &mut shaderlm::graph::Graph, inputs: &LossInputs| {
            let dropout = inputs.rng.map(|rng| Dropout { rate: self.dropout, rng });
            let recompute = self.recompute && inputs.rng.is_some();
            Gpt2 { config: &config, dropout, recompute }.loss(g, inputs.ids, inputs.targets, None)
        };
        let mut trainer = Trainer::new(&mut engine, &types, &loss, settings.clone())?;
        let mut first = 0;
        if self.overwrite && state_file.exists() {
            // Gone before the new run's first checkpoint, so that --resume never mixes two runs.
            std::fs::remove_file(&state_file).map_err(|e| format!("{}: {e}", state_file.display()))?;
        }
        if self.resume && state_file.exists() {
            first = load_state(&state_file, &mut engine, trainer.state(), &fingerprint)?;
        } else if self.resume {
            eprintln!("shaderlm: {} is not there yet; beginning at step 1", state_file.display());
        }
        let mut run = Run { args: &self, config: &config, tokenizer: &tokenizer, fingerprint, settings };
        // A folder that cannot be written is found now, not after an hour.
        std::fs::create_dir_all(&self.out).map_err(|e| format!("--out {}: {e}", self.out.display()))?;
        remove_leftovers(&self.out);
        if first == 0 {
            run.save_state(&engine, &trainer, 0)?;
        }
        run.save_model(&engine)?;
        if self.stats {
            let s = trainer.stats();
            eprintln!(
                "{} on {}: {} parameters, {} dispatches in {} submissions a step, {:.3} GFLOP; {} bytes of activations planned, \
                 {} bytes in the arena, {} bytes of parameters and optimizer state",
                config.model_type,
                engine.device_name(),
                config.parameters(),
                s.dispatches,
                s.submissions,
                s.flops as f64 / 1e9,
                s.planned_bytes,
                s.peak_bytes,
                s.variable_bytes
            );
        }
        run.steps(&mut engine, &mut trainer, &corpus, first)?;
        engine.save_pipelines();
        Ok(())
    }

    /// Refuses to write over what --out holds.
    fn check_folder(&self, state_file: &Path) -> CliResult {
        let place = self.out.display();
        if self.overwrite {
            return Ok(());
        }
        match (state_file.exists(), self.out.join("model.safetensors").exists()) {
            (true, _) if !self.resume => refuse(format!(
                "--out {place}: it holds a run already; give --resume to go on with it, --overwrite to replace it, or another folder"
            )),
            (false, true) if self.resume => refuse(format!(
                "--resume: {place} holds a model but no state.safetensors to go on from; give --init {place} and another --out"
            )),
            (false, true) => refuse(format!("--out {place}: it holds a model already; give --overwrite to replace it, or another folder")),
            _ => Ok(()),
        }
    }

    fn make_tokenizer(
        &self,
        init: Option<&Model>,
        texts: &[String],
        eval_texts: &[String],
    ) -> Result<Tokenizer, Box<dyn std::error::Error>> {
        if let Some(model) = init {
            return Ok(model.tokenizer()?);
        }
        Ok(match self.tokenizer.as_deref().unwrap_or("bytes") {
            "bytes" => Tokenizer::bytes()?,
            "chars" => Tokenizer::chars(&[texts, eval_texts].concat().concat())?,
            "gpt2" => Tokenizer::gpt2()?,
            file => Tokenizer::from_file(Path::new(file))?,
        })
    }

    fn config(&self, init: Option<&Model>, tokenizer: &Tokenizer) -> Result<Gpt2Config, Box<dyn std::error::Error>> {
        if let Some(model) = init {
            if self.context.is_some_and(|c| c == 0 || c > model.config.n_positions) {
                return refuse(format!("--context: the --init model's is {}", model.config.n_positions));
            }
            return Ok(Gpt2Config { embd_pdrop: self.dropout, resid_pdrop: self.dropout, attn_pdrop: 0.0, ..model.config.clone() });
        }
        let vocab = self.vocab.unwrap_or(tokenizer.vocab_size());
        if vocab < tokenizer.vocab_size() {
            return refuse(format!("--vocab {vocab}: the tokenizer has {} tokens", tokenizer.vocab_size()));
        }
        let sized = match &self.size {
            Some(size) => match Gpt2Config::named(size) {
                Some(config) => config,
                None => return refuse(format!("--size {size}: there are 124m, 355m, 774m and 1.5b")),
            },
            None => Gpt2Config { n_layer: self.layers, n_head: self.heads, n_embd: self.width, ..Gpt2Config::default() },
        };
        let config = Gpt2Config {
            vocab_size: vocab,
            n_positions: self.context.unwrap_or(64),
            embd_pdrop: self.dropout,
            resid_pdrop: self.dropout,
            attn_pdrop: 0.0,
            bos_token_id: tokenizer.end_of_text(),
            eos_token_id: tokenizer.end_of_text(),
            ..sized
        };
        config.check().map_err(|e| format!("{e} (--layers, --heads, --width, --context, --vocab)"))?;
        Ok(config)
    }

    fn settings(&self, context: usize) -> Settings {
        Settings {
            batch: self.batch,
            accumulate: self.accumulate,
            context,
            optimizer: self.optimizer,
            schedule: Schedule {
                shape: self.schedule,
                peak: self.lr,
                min: self.min_lr.unwrap_or(self.lr / 10.0),
                warmup: self.warmup,
                steps: self.steps,
            },
            weight_decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            clip: self.clip,
            seed: self.seed,
        }
    }

    /// Everything that the losses depend on; a resumed run must have the same.
    fn fingerprint(&self, config: &Gpt2Config, settings: &Settings, corpus: &Corpus) -> String {
        // FNV-1a over the tokens: another text, or another tokenizer, is another run.
        let hash = corpus.train.iter().chain(&corpus.held_out).fold(0xcbf2_9ce4_8422_2325_u64, |hash, &token| {
            (hash ^ u64::from(token)).wrapping_mul(0x100_0000_01b3)
        });
        format!(
            "{} layers, {} heads, width {}, positions {}, vocabulary {}, dropout {}, data {}+{} tokens {hash:016x}, {settings:?}",
            config.n_layer,
            config.n_head,
            config.n_embd,
            config.n_positions,
            config.vocab_size,
            self.dropout,
            corpus.train.len(),
            corpus.held_out.len(),
        )
    }
}

/// A run under way.
struct Run<'a> {
    args: &'a TrainGpt2,
    config: &'a Gpt2Config,
    tokenizer: &'a Tokenizer,
    fingerprint: String,
    settings: Settings,
}

impl Run<'_> {
    fn steps(&mut self, engine: &mut Engine, trainer: &mut Trainer, corpus: &Corpus, first: usize) -> CliResult {
        let args = self.args;
        let s = self.settings.clone();
        let stop = Arc::new(AtomicBool::new(false));
        let flag = stop.clone();
        ctrlc::set_handler(move || {
            // A second Ctrl-C does not wait.
            if flag.swap(true, Ordering::SeqCst) {
                std::process::exit(130);
            }
        })?;
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(args.steps as u64) } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{bar:24} {pos}/{len}  {msg}  {eta} left")?);
        bar.set_position(first as u64);
        let mut log = Log::open(args.log.as_deref(), first)?;
        let eval_batches = windows(&corpus.held_out, s.context, s.context, s.batch);
        let tokens_a_step = s.batch * s.accumulate * s.context;
        let mut held_out = None;
        let mut saved = None;
        let mut done = first;
        let mut last_loss = f32::NAN;
        for step in first..args.steps {
            let begin = Instant::now();
            let batches: Vec<Batch> =
                (0..s.accumulate).map(|m| corpus.batch(s.seed, step, m, s.batch, s.context)).collect();
            let outcome = trainer.step(engine, step, &batches)?;
            done = step + 1;
            last_loss = outcome.loss;
            let speed = tokens_a_step as f64 / begin.elapsed().as_secs_f64();
            let due = |every: usize| done == args.steps || (every > 0 && done % every == 0);
            let mut record = Record {
                step: done,
                loss: Some(outcome.loss),
                grad_norm: Some(outcome.grad_norm),
                lr: Some(outcome.rate),
                eval_loss: None,
                tokens_per_second: Some(speed),
            };
            if due(args.eval_every) && !eval_batches.is_empty() {
                held_out = Some(trainer.evaluate(engine, &eval_batches, |i| {
                    bar.set_message(format!("evaluating {i}/{}", eval_batches.len()));
                })?);
                record.eval_loss = held_out;
                bar.suspend(|| {
                    say!("step {done}: loss {:.4}, held-out loss {:.4}", outcome.loss, held_out.unwrap_or_default());
                });
            }
            log.write(&record)?;
            bar.set_position(done as u64);
            bar.set_message(format!(
                "loss {:.4}{}  {speed:.0} tokens/s  lr {:.2e}",
                outcome.loss,
                held_out.map(|e| format!(" (held out {e:.4})")).unwrap_or_default(),
                outcome.rate
            ));
            let stopping = stop.load(Ordering::SeqCst);
            if due(args.save_every) || stopping {
                self.save_state(engine, trainer, done)?;
                self.save_model(engine)?;
                saved = Some(done);
            }
            if stopping {
                break;
            }
        }
        bar.finish_and_clear();
        if saved.is_none() && done == first {
            say!("nothing to do: {} steps are done already", first);
        } else if done < args.steps {
            say!("stopped and saved at step {done} of {}; --resume goes on", args.steps);
        } else {
            say!(
                "{} steps done: loss {last_loss:.4}{}; model in {}",
                args.steps,
                held_out.map(|e| format!(", held-out loss {e:.4}")).unwrap_or_default(),
                args.out.display()
            );
        }
        Ok(())
    }

    fn save_state(&self, engine: &Engine, trainer: &Trainer, step: usize) -> CliResult {
        let names: Vec<_> = trainer.state().iter().map(|(name, _)| name.clone()).collect();
        Ok(save_state(&self.args.out.join("state.safetensors"), engine, &names, step, &self.fingerprint)?)
    }

    fn save_model(&self, engine: &Engine) -> CliResult {
        let dtype = match self.args.dtype {
            Stored::F32 => StoredType::F32,
            Stored::F16 => StoredType::F16,
            Stored::Bf16 => StoredType::BF16,
        };
        Ok(save(&self.args.out, self.config, engine, Some(self.tokenizer), dtype)?)
    }
}
