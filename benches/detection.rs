//! How well an ELECTRA's discriminator finds the generator's replacements in held-out text, beside what needs no network:
//! `cargo bench --bench detection -- --model DIR --data FILE...`, where DIR is what `train electra` wrote from FILE.
//!
//! The baseline is a bigram model of the training text with Witten and Bell's interpolation (1991): a token is suspect if
//! it is unlikely after the one before it, and the one after it unlikely after it. Thresholds are those that are best on
//! replacements in training text, so that none is fitted to what it is judged on.

use clap::Parser;
use shaderlm::{
    gpu::Autotune,
    graph::{Engine, EngineOptions, Graph, Plan, PlanOptions},
    models::{Config, ElectraConfig, Model, ReplacedBatch, ReplacedObjective, ReplacedOutputs, ReplacedTokens, Tie},
    ops::{IGNORE, Tensor},
    train::{Detection, Documents, PretrainSettings, Pretraining},
};
use std::{collections::HashMap, error::Error, path::PathBuf};

#[derive(Parser)]
#[command(about = "ELECTRA's discriminator beside a bigram model on replaced tokens")]
struct Args {
    /// What `train electra` wrote
    #[arg(long)]
    model: PathBuf,
    /// Text files, those of the training
    #[arg(long, required = true, num_args = 1..)]
    data: Vec<PathBuf>,
    /// Held-out text files; by default a part of --data, as in training
    #[arg(long, num_args = 1..)]
    held_out: Vec<PathBuf>,
    /// Part of the data, at its end, that was held out
    #[arg(long, default_value_t = 0.1)]
    eval_fraction: f64,
    #[arg(long, default_value_t = 1337)]
    seed: u32,
    /// Rows of a batch
    #[arg(long, default_value_t = 32)]
    batch: usize,
    /// Examples of either text that are looked at
    #[arg(long, default_value_t = 2000)]
    examples: usize,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

/// Counts of tokens and of pairs of neighbours.
struct Bigrams {
    pairs: HashMap<(u32, u32), f64>,
    /// How often a token has a follower, and how many different ones.
    firsts: HashMap<u32, (f64, f64)>,
    tokens: HashMap<u32, f64>,
    total: f64,
    vocab: f64,
}

impl Bigrams {
    fn of(documents: &Documents, vocab: usize) -> Self {
        let mut model =
            Self { pairs: HashMap::new(), firsts: HashMap::new(), tokens: HashMap::new(), total: 0.0, vocab: vocab as f64 };
        for document in 0..documents.len() {
            let sentences = documents.document(document);
            let text = documents.sentence(sentences.start).start..documents.sentence(sentences.end - 1).end;
            let text = &documents.tokens()[text];
            for &token in text {
                *model.tokens.entry(token).or_default() += 1.0;
                model.total += 1.0;
            }
            for pair in text.windows(2) {
                let seen = model.pairs.entry((pair[0], pair[1])).or_default();
                let first = model.firsts.entry(pair[0]).or_default();
                first.0 += 1.0;
                first.1 += f64::from(u8::from(*seen == 0.0));
                *seen += 1.0;
            }
        }
        model
    }

    /// -log p(token | before), nats.
    fn surprise(&self, before: u32, token: u32) -> f64 {
        let alone = (self.tokens.get(&token).unwrap_or(&0.0) + 1.0) / (self.total + self.vocab);
        let (count, kinds) = self.firsts.get(&before).copied().unwrap_or((0.0, 1.0));
        let pair = self.pairs.get(&(before, token)).unwrap_or(&0.0);
        -((pair + kinds * alone) / (count + kinds)).ln()
    }
}

fn electra(model: &Model) -> Result<ElectraConfig, Box<dyn Error>> {
    match &model.config {
        Config::Electra(config) => Ok(config.clone()),
        _ => Err(format!("{}: it is no electra", model.place()).into()),
    }
}

/// What is found in a text.
struct Judges<'a> {
    plan: Plan,
    inputs: Vec<Tensor>,
    others: Vec<Tensor>,
    outputs: ReplacedOutputs,
    step: &'a ReplacedTokens,
    bigrams: &'a Bigrams,
    special: shaderlm::text::SpecialTokens,
}

impl Judges<'_> {
    /// The discriminator's and the bigram model's decisions by these thresholds.
    fn judge(
        &mut self,
        engine: &mut Engine,
        data: &Pretraining,
        args: &Args,
        thresholds: [f32; 2],
    ) -> Result<[Detection; 2], Box<dyn Error>> {
        let mut found = [Detection::default(), Detection::default()];
        let (rows, context) = (args.batch, data.settings().context);
        for number in 0..args.examples.min(data.epoch_length() as usize).div_ceil(rows) {
            let batch = data.batch((number * rows) as u64, rows);
            let values = self.step.values(batch, context, [args.seed, number as u32]);
            for (&input, value) in self.inputs.iter().zip(values) {
                self.plan.set(input, value)?;
            }
            self.plan.run(engine)?;
            let Some([corrupted, replaced]) = self.outputs.replaced else { return Err("there is no generator".into()) };
            let read = |place: usize| self.plan.get(self.others[place]);
            let (scores, ids, labels) = (read(self.outputs.found)?, read(corrupted)?, read(replaced)?);
            for (row, ids) in ids.u().chunks(context).enumerate() {
                for (at, &id) in ids.iter().enumerate() {
                    let place = row * context + at;
                    // Special tokens are never replaced, and everybody knows it.
                    if labels.u()[place] == IGNORE || self.special.contains(id) {
                        continue;
                    }
                    let replaced = labels.u()[place] == 1;
                    found[0].add(scores.f()[place], thresholds[0], replaced);
                    let neighbour = |other: Option<&u32>| other.copied().filter(|&other| !self.special.contains(other));
                    let before = neighbour(at.checked_sub(1).and_then(|before| ids.get(before)));
                    let after = neighbour(ids.get(at + 1));
                    let surprise = before.map_or(0.0, |before| self.bigrams.surprise(before, id))
                        + after.map_or(0.0, |after| self.bigrams.surprise(id, after));
                    found[1].add(surprise as f32, thresholds[1], replaced);
                }
            }
        }
        Ok(found)
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let open = |network: &str| Model::open(&args.model.join(network).display().to_string());
    let (generator, discriminator) = (open("generator")?, open("discriminator")?);
    let tokenizer = discriminator.tokenizer()?;
    let step = ReplacedTokens {
        generator: electra(&generator)?,
        discriminator: electra(&discriminator)?,
        // Both files have their own copy of what was tied.
        tie: Tie::None,
        objective: ReplacedObjective::Electra,
        temperature: 1.0,
        generator_weight: 1.0,
        discriminator_weight: 50.0,
    };
    let context = step.discriminator.max_position_embeddings;
    let settings = PretrainSettings::electra(context, 0.15, args.seed);
    let all = Documents::read(&args.data, &tokenizer, |_| {})?;
    let (train, held_out) = if args.held_out.is_empty() {
        all.split(args.eval_fraction)
    } else {
        (all, Documents::read(&args.held_out, &tokenizer, |_| {})?)
    };
    let bigrams = Bigrams::of(&train, tokenizer.vocab_size());
    let (train, held_out) = (Pretraining::new(train, &tokenizer, settings)?, Pretraining::new(held_out, &tokenizer, settings)?);

    let device = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into()).parse()?;
    let mut engine = Engine::new(&EngineOptions { device, notice: true, autotune: Autotune::default() })?;
    eprintln!("{}", engine.device_name());
    step.load(Some(&generator), &discriminator, &mut engine, 0)?;
    let sizes =
        ReplacedBatch { rows: args.batch, context, predictions: settings.max_predictions, dropout: 0.0, recompute: false };
    let mut g = Graph::new();
    let inputs: Vec<_> = step.inputs(&sizes).into_iter().map(|(name, ty)| g.input(name, ty)).collect();
    let (loss, outputs) = step.loss(&mut g, &inputs, None, &sizes)?;
    let plan = engine.compile(g, &loss.others, &PlanOptions::default())?;
    let mut judges = Judges {
        plan,
        inputs,
        others: loss.others,
        outputs,
        step: &step,
        bigrams: &bigrams,
        special: tokenizer.special_tokens()?,
    };

    let fitted = judges.judge(&mut engine, &train, &args, [0.0, 0.0])?;
    let thresholds = [0, 1].map(|judge| fitted[judge].best_threshold().0);
    let found = judges.judge(&mut engine, &held_out, &args, thresholds)?;
    let plain = judges.judge(&mut engine, &held_out, &args, [0.0, thresholds[1]])?;
    let share = found[0].replaced();
    println!("{} held-out tokens, {:.2} % of them replaced", found[0].tokens(), 100.0 * share);
    println!("| judge | threshold | accuracy | precision | recall | F1 | AUC |\n|---|---|---|---|---|---|---|");
    let line = |name: &str, threshold: String, d: &Detection| {
        let figures = [d.accuracy(), d.precision(), d.recall(), d.f1(), d.auc()].map(|x| format!("{x:.4}")).join(" | ");
        println!("| {name} | {threshold} | {figures} |");
    };
    println!("| the majority: nothing was replaced | | {:.4} | 0 | 0 | 0 | 0.5 |", 1.0 - share);
    println!("| everything was replaced | | {share:.4} | {share:.4} | 1 | {:.4} | 0.5 |", 2.0 * share / (1.0 + share));
    line("bigrams", format!("{:.2} nats", thresholds[1]), &found[1]);
    line("discriminator", "0 (as likely as not)".into(), &plain[0]);
    line("discriminator", format!("{:.2} (best on training text)", thresholds[0]), &found[0]);
    Ok(())
}
