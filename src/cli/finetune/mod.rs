//! `shaderlm finetune`

mod run;

use super::{
    CliResult,
    common::{DeviceArgs, number_in, refuse, say},
    profile::ProfileArgs,
    train::Stored,
};
use run::{HeldOut, Run};
use shaderlm::{
    models::{Config, FineTuning, Mode, Model},
    ops::Precision,
    train::{
        Optimizer, Schedule, ScheduleShape, Settings,
        tasks::{Columns, Encoder, Target, Task, TaskData},
    },
};
use std::{error::Error, path::PathBuf};

/// Teach a BERT, DistilBERT, ALBERT or ELECTRA a task from examples
///
/// FILE has a header and an example a line: `text` and `label` for classify and regress (`sentence1`, `sentence2` and so on for
/// pairs, as in GLUE); for tokens a word and its label a line, or `tokens` and `labels` in JSON lines; for qa `question`,
/// `context`, `answer_text` and `answer_start`, or SQuAD's own file; for choice `prompt`, `choice0`, `choice1`, ... and `label`.
/// The checkpoint that does best on held-out examples is kept in DIR, which `classify` and transformers load.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm finetune --model google-bert/bert-base-uncased --task classify --out sst \\\n      \
        --data SST-2/train.tsv --eval-data SST-2/dev.tsv\n  \
    shaderlm finetune --model my-albert --task tokens --data train.conll --out names --epochs 5 --lr 5e-5 --patience 3\n  \
    shaderlm finetune --model my-bert --task qa --data train-v2.0.json --out answers --context 384 --metric exact_match")]
pub struct Finetune {
    /// Begin with this encoder: a folder, or a repository of the Hub
    #[arg(long, value_name = "DIR|REPO")]
    model: String,
    /// What is to be learnt: classify, regress, tokens, qa or choice
    #[arg(long, value_name = "TASK")]
    task: Task,
    /// Examples: .tsv, .csv or .jsonl; also .conll for tokens and .json for qa
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// The folder to write
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Examples to evaluate on, instead of a part of --data
    #[arg(long, value_name = "FILE", conflicts_with = "eval_fraction")]
    eval_data: Option<PathBuf>,
    /// Part of the examples that is held out for evaluation
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = number_in(1e-6, 0.9))]
    eval_fraction: f32,
    /// The column of the text (the question, the prompt, the words), where it has an unusual name
    #[arg(long, value_name = "NAME")]
    text_column: Option<String>,
    /// The column of the second text (the context)
    #[arg(long, value_name = "NAME")]
    pair_column: Option<String>,
    /// The column of the label
    #[arg(long, value_name = "NAME")]
    label_column: Option<String>,
    /// How often each example is seen
    #[arg(long, value_name = "N", default_value_t = 3.0, value_parser = number_in(0.001, 1e6))]
    epochs: f32,
    /// Examples at once
    #[arg(long, value_name = "N", default_value_t = 16)]
    batch: usize,
    /// Batches whose gradients are summed before a step
    #[arg(long, value_name = "N", default_value_t = 1)]
    accumulate: usize,
    /// Tokens of a row, to which texts are cut; by default as many as the longest text has, at most the model's context
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Tokens from one window of a question's context to the next
    #[arg(long, value_name = "N", default_value_t = 128)]
    doc_stride: usize,
    /// The rule that moves the weights
    #[arg(long, value_enum, default_value_t = Optimizer::Adamw)]
    optimizer: Optimizer,
    /// Highest learning rate
    #[arg(long, value_name = "RATE", default_value_t = 2e-5, value_parser = number_in(0.0, 100.0))]
    lr: f32,
    /// Part of the steps in which the rate rises from 0; then it falls to 0 in a straight line
    #[arg(long, value_name = "X", default_value_t = 0.1, value_parser = number_in(0.0, 1.0))]
    warmup_fraction: f32,
    /// Decoupled decay of matrices and embeddings
    #[arg(long, value_name = "X", default_value_t = 0.01, value_parser = number_in(0.0, 10.0))]
    weight_decay: f32,
    /// How much slower each layer learns than the next: 0.8 for small ELECTRAs, 0.9 for large ones as their paper has it, 1 for
    /// others by default
    #[arg(long, value_name = "X", value_parser = number_in(0.01, 1.0))]
    layer_decay: Option<f32>,
    /// Decay of Adam's first moment; SGD's momentum
    #[arg(long, value_name = "X", default_value_t = 0.9, value_parser = number_in(0.0, 0.999_999))]
    beta1: f32,
    /// Decay of Adam's second moment
    #[arg(long, value_name = "X", default_value_t = 0.999, value_parser = number_in(0.0, 0.999_999))]
    beta2: f32,
    /// Added to the root of Adam's second moment
    #[arg(long, value_name = "X", default_value_t = 1e-6, value_parser = number_in(0.0, 1.0))]
    eps: f32,
    /// What a step may round; mixed is for GPUs with 16-bit floats (see `shaderlm train gpt2 --help`)
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    /// Largest global norm of the gradient; 0 for no clipping
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = number_in(0.0, 1e9))]
    clip: f32,
    /// Dropout on embeddings and on what is added to the residual stream
    #[arg(long, value_name = "P", default_value_t = 0.1, value_parser = number_in(0.0, 0.95))]
    dropout: f32,
    /// Seed of the new head, the split, the order of examples and dropout
    #[arg(long, value_name = "N", default_value_t = 1337)]
    seed: u32,
    /// Steps between evaluations, by default an epoch; 0 for one at the end
    #[arg(long, value_name = "N")]
    eval_every: Option<usize>,
    /// What the best checkpoint is best at (of equals, the one with the lower loss): accuracy, f1, matthews, pearson, spearman,
    /// exact_match or loss; by default accuracy for classify and choice, f1 for tokens and qa, pearson for regress
    #[arg(long, value_name = "NAME")]
    metric: Option<String>,
    /// Stop after so many evaluations without a better one
    #[arg(long, value_name = "N")]
    patience: Option<usize>,
    /// How model.safetensors stores the weights
    #[arg(long, value_enum, default_value = "f32")]
    dtype: Stored,
    /// Replace a model that --out holds
    #[arg(long)]
    overwrite: bool,
    /// Write a JSON line a step here
    #[arg(long, value_name = "FILE.jsonl")]
    log: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

impl Finetune {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        let metric = self.check()?;
        let model = Model::open(&self.model)?;
        // Another kind of model is told before anything is read.
        drop(model.encoder(Mode::default())?);
        let tokenizer = model.tokenizer()?;
        let special = tokenizer.special_tokens()?;
        let (train, held_out) = self.examples()?;
        print_counts(&train, &held_out);

        let positions = model.config.positions();
        let most = match self.context {
            Some(context) if context > positions => {
                return refuse(format!("--context {context}: the model's is {positions}"));
            }
            Some(context) => context,
            None => positions,
        };
        let encoded = Encoder::new(&tokenizer, special.cls, special.sep, most)?.task(&train, self.doc_stride)?;
        let truncated = encoded.truncated;
        let rows = encoded.into_rows();
        let longest = rows.iter().flat_map(|row| &row.sequences).map(|sequence| sequence.ids.len()).max().unwrap_or(0);
        let time = self.context.unwrap_or(longest.next_multiple_of(8).min(positions));
        let inputs: Vec<_> = held_out.examples.iter().map(|example| &example.input).collect();
        let inputs = Encoder::new(&tokenizer, special.cls, special.sep, time)?.inputs(&inputs, self.doc_stride)?;
        say!(
            "rows of {time} tokens; truncated: {truncated} of {} training texts, {} of {} evaluation texts",
            train.examples.len(),
            inputs.iter().filter(|input| input.is_cut()).count(),
            inputs.len()
        );

        let config = model.config.for_task(self.task, &train.labels);
        let choices = rows.iter().map(|row| row.sequences.len()).max().unwrap_or(1);
        let Self { task, batch, dropout, .. } = self;
        let tuning = FineTuning { config: &config, task, rows: batch, choices, time, dropout, pad: special.pad };
        let mut engine = self.device.engine()?;
        let parameters = tuning.parameters().map_err(|e| e.to_string())?;
        let decay = self.layer_decay.unwrap_or_else(|| default_layer_decay(&config));
        let rates = parameters.iter().map(|p| tuning.layer_rate(&p.name, decay)).collect::<Result<Vec<_>, _>>();
        let rates = rates.map_err(|e| format!("--layer-decay {decay}: {e}"))?;
        let fresh = tuning.load(&model, &parameters, &mut engine, self.seed)?;
        if !fresh.is_empty() {
            say!("not in {} (or for other labels) and begun afresh: {}", model.place(), fresh.join(", "));
        }
        // Only a model that has seen questions without an answer may give none.
        let unanswerable = without_answer(&train) > 0;
        let held_out = HeldOut { data: held_out, inputs, null_threshold: unanswerable.then_some(0.0) };
        let settings = self.settings(rows.len(), time);
        let run = Run { flags: &self, metric, tuning, parameters, rates, tokenizer: &tokenizer, rows, held_out, settings };
        run.go(&mut engine)?;
        engine.save_pipelines();
        Ok(())
    }

    /// Checks flags against each other; gives the metric.
    fn check(&self) -> Result<&str, Box<dyn Error>> {
        for (flag, value) in [("--batch", self.batch), ("--accumulate", self.accumulate), ("--doc-stride", self.doc_stride)] {
            if value == 0 {
                return refuse(format!("{flag} 0: must be at least 1"));
            }
        }
        if self.patience == Some(0) {
            return refuse("--patience 0: must be at least 1");
        }
        let metrics = self.task.metrics();
        let metric = self.metric.as_deref().unwrap_or(metrics[0]);
        if metric != "loss" && !metrics.contains(&metric) {
            return refuse(format!("--metric {metric}: for --task {} there are {} and loss", self.task, metrics.join(", ")));
        }
        if !self.overwrite && self.out.join("model.safetensors").exists() {
            let place = self.out.display();
            let advice = "give --overwrite to replace it, or another folder";
            return refuse(format!("--out {place}: it holds a model already; {advice}"));
        }
        Ok(metric)
    }

    /// Training and evaluation examples.
    fn examples(&self) -> Result<(TaskData, TaskData), Box<dyn Error>> {
        let columns =
            Columns { text: self.text_column.clone(), pair: self.pair_column.clone(), label: self.label_column.clone() };
        let all = TaskData::read(&self.data, self.task, &columns)?;
        Ok(match &self.eval_data {
            Some(path) => {
                let held_out = TaskData::read_against(path, self.task, &columns, &all.labels)?;
                (all, held_out)
            }
            None => all.split(f64::from(self.eval_fraction), self.seed, &self.data)?,
        })
    }

    fn settings(&self, rows: usize, time: usize) -> Settings {
        let a_step = (self.batch * self.accumulate) as f64;
        let steps = (f64::from(self.epochs) * rows as f64 / a_step).ceil().max(1.0) as usize;
        Settings {
            batch: self.batch,
            accumulate: self.accumulate,
            context: time,
            optimizer: self.optimizer,
            schedule: Schedule {
                shape: ScheduleShape::Linear,
                peak: self.lr,
                min: 0.0,
                warmup: (f64::from(self.warmup_fraction) * steps as f64).round() as usize,
                steps,
            },
            weight_decay: self.weight_decay,
            beta1: self.beta1,
            beta2: self.beta2,
            eps: self.eps,
            bias_correction: true,
            clip: self.clip,
            precision: self.precision,
            seed: self.seed,
        }
    }
}

/// The decay of learning rates from layer to layer: what the ELECTRA paper found best (appendix B), and none for others.
fn default_layer_decay(config: &Config) -> f32 {
    match config {
        Config::Electra(config) if config.num_hidden_layers > 12 => 0.9,
        Config::Electra(_) => 0.8,
        _ => 1.0,
    }
}

/// How many questions their contexts do not answer.
fn without_answer(data: &TaskData) -> usize {
    data.examples.iter().filter(|e| matches!(&e.target, Target::Answers(answers) if answers.is_empty())).count()
}

/// How many examples there are of each class, and of what range numbers are.
fn print_counts(train: &TaskData, held_out: &TaskData) {
    say!("{} training and {} evaluation examples", train.examples.len(), held_out.examples.len());
    let counts = train.class_counts();
    let all = counts.iter().map(|c| c.1).sum::<usize>().max(1);
    let width = counts.iter().map(|c| c.0.chars().count()).max().unwrap_or(0);
    for (name, count) in &counts {
        say!("  {name:width$}  {count:>7}  {:5.1} %", 100.0 * *count as f64 / all as f64);
    }
    let number = |target: &Target| if let Target::Number(x) = target { Some(f64::from(*x)) } else { None };
    let numbers: Vec<f64> = train.examples.iter().filter_map(|e| number(&e.target)).collect();
    if !numbers.is_empty() {
        let (low, high) = numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), &x| (a.min(x), b.max(x)));
        say!("  numbers from {low:.4} to {high:.4}, mean {:.4}", numbers.iter().sum::<f64>() / numbers.len() as f64);
    }
    if train.task == Task::QuestionAnswering {
        say!("  {} training questions have no answer", without_answer(train));
    }
}
