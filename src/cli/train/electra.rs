//! `shaderlm train electra`

use super::{
    flags::{Defaults, ExampleFlags, Flags},
    run::{Figures, Kept, Run, Task, ratio},
};
use crate::cli::{
    CliResult,
    common::{number_in, refuse, say},
};
use shaderlm::{
    checkpoint::resolve_model,
    graph::{Engine, Graph},
    models::{
        Config, ElectraConfig, Model, ReplacedBatch, ReplacedObjective, ReplacedOutputs, ReplacedTokens, Tie, with_article,
    },
    ops::{HostTensor, IGNORE, Tensor, random::threefry},
    text::Tokenizer,
    train::{
        Batch, Detection, Documents, MaskRule, Objective, Outcome, PretrainSettings, Pretraining, ScheduleShape, TrainError,
        Trainer,
    },
};
use std::{cell::Cell, error::Error, path::PathBuf};

/// As the reference's `configure_pretraining.py`, but for the batch.
const DEFAULTS: Defaults = Defaults {
    lr: 5e-4,
    last: 0.0,
    schedule: ScheduleShape::Linear,
    weight_decay: 0.01,
    beta2: 0.999,
    eps: 1e-6,
    bias_correction: false,
};

/// Keeps the sample's random numbers apart from others of the same seed.
const NOISE: u32 = 0xE1EC;
/// Added to the running number of a batch for evaluation, so that it is none of training.
const HELD_OUT: u64 = 1 << 48;

/// Train an ELECTRA: a generator that fills in masked tokens, and a discriminator that finds out which were filled in
///
/// A line of the text files is a sentence or a paragraph; blank lines stand between documents. DIR gets generator/ and
/// discriminator/, which transformers loads, and state.safetensors for --resume. `detect` runs the discriminator, `fill` the
/// generator, and `finetune` teaches the discriminator a task.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm tokenizer train --kind wordpiece --data *.txt --vocab 4096 --out tok.json\n  \
    shaderlm train electra --data *.txt --out mine --tokenizer tok.json --layers 4 --heads 4 --width 256\n  \
    shaderlm detect \"In the beginning God cooked the heaven and the earth.\" --model mine/discriminator\n  \
    shaderlm train electra --data *.txt --out bert --tokenizer tok.json --layers 4 --width 256 --objective mlm")]
pub struct TrainElectra {
    #[command(flatten)]
    flags: Flags,
    /// A tokenizer.json with [CLS], [SEP], [MASK] and [PAD]; `tokenizer train --kind wordpiece` makes one
    #[arg(long, value_name = "FILE", conflicts_with = "init")]
    tokenizer: Option<PathBuf>,
    /// What the second network learns; all but the first are what the paper compares ELECTRA with
    #[arg(long, value_enum, default_value_t = ReplacedObjective::Electra)]
    objective: ReplacedObjective,
    /// A size of the paper instead of --layers, --heads and --width: small, base or large
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["layers", "heads", "width", "embedding_width"])]
    size: Option<String>,
    /// Width of the embeddings
    #[arg(long, value_name = "E", default_value_t = 128, conflicts_with = "init")]
    embedding_width: usize,
    /// The generator's width as a part of the discriminator's; by default 1/4, and 1/3 for --size base
    #[arg(long, value_name = "X", value_parser = number_in(0.0, 4.0))]
    generator_fraction: Option<f32>,
    /// What the generator shares with the discriminator
    #[arg(long, value_enum, default_value_t = Tie::All)]
    tie: Tie,
    /// Divides the generator's logits before a token is drawn
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = number_in(0.0, 100.0))]
    temperature: f32,
    /// Weight of the generator's loss
    #[arg(long, value_name = "X", default_value_t = 1.0, value_parser = number_in(0.0, 1e6))]
    generator_weight: f32,
    /// Weight of the second network's loss; by default 50 for electra and electra-15, and 1 for the others
    #[arg(long, value_name = "X", value_parser = number_in(0.0, 1e6))]
    discriminator_weight: Option<f32>,
    /// Share of the tokens that are masked; by default 0.15, and 0.25 for --size large
    #[arg(long, value_name = "P", value_parser = number_in(0.0, 1.0))]
    mask_probability: Option<f32>,
    /// Draw each masked token once only; the reference may draw it again, and predicts it twice then
    #[arg(long)]
    mask_without_replacement: bool,
    /// Divide Adam's moments by 1 - beta^step, which the reference does not
    #[arg(long)]
    bias_correction: bool,
    #[command(flatten)]
    examples: ExampleFlags,
}

/// The networks of --init; without a generator there where `--objective mlm` made it.
struct Init {
    generator: Option<Model>,
    discriminator: Model,
}

fn electra(model: &Model) -> Result<&ElectraConfig, Box<dyn Error>> {
    match &model.config {
        Config::Electra(config) => Ok(config),
        other => refuse(format!("--init {}: it is {}, not an electra", model.place(), with_article(other.kind()))),
    }
}

impl Init {
    fn open(place: &str, flags: &Flags, generates: bool) -> Result<Self, Box<dyn Error>> {
        let folder = resolve_model(place)?;
        let part = |name: &str| -> Result<Option<Model>, Box<dyn Error>> {
            let part = folder.join(name);
            part.is_dir().then(|| flags.deepened(Model::open(&part.display().to_string())?)).transpose()
        };
        let Some(discriminator) = part("discriminator")? else {
            return refuse(format!("--init {place}: there is no discriminator/ in it; it must hold what `train electra` writes"));
        };
        Ok(Self { generator: if generates { part("generator")? } else { None }, discriminator })
    }

    /// The tokenizer, which both must have.
    fn tokenizer(&self) -> Result<Tokenizer, Box<dyn Error>> {
        let tokenizer = self.discriminator.tokenizer()?;
        if let Some(generator) = &self.generator {
            let other = generator.tokenizer()?;
            let ids = 0..tokenizer.vocab_size().max(other.vocab_size()) as u32;
            if let Some(id) = ids.into_iter().find(|&id| tokenizer.id_to_token(id) != other.id_to_token(id)) {
                return refuse(format!(
                    "--init: {} and {} do not fit together: token {id} is {:?} in one and {:?} in the other",
                    generator.place(),
                    self.discriminator.place(),
                    other.id_to_token(id).unwrap_or_default(),
                    tokenizer.id_to_token(id).unwrap_or_default(),
                ));
            }
        }
        Ok(tokenizer)
    }
}

impl TrainElectra {
    pub fn run(self) -> CliResult {
        let flags = &self.flags;
        flags.check("discriminator")?;
        self.examples.check()?;
        let init = flags.init.as_deref().map(|place| Init::open(place, flags, self.objective.generates())).transpose()?;
        let tokenizer = match (&init, &self.tokenizer) {
            (Some(init), _) => init.tokenizer()?,
            (None, Some(file)) => Tokenizer::from_file(file)?,
            (None, None) => return refuse("give --tokenizer FILE, or --init"),
        };
        // Before the text is read, which may take long.
        tokenizer.special_tokens()?;
        let step = self.networks(init.as_ref(), &tokenizer)?;
        let configs = step.configs(&flags.out)?;
        let context = flags.context(&configs[1])?;
        let settings = self.data_settings(context);

        let (train, held_out) = flags.documents(&tokenizer)?;
        let data = format!(
            "{:016x}+{:016x}, {settings:?}, {:?}, {:?}, {} {} {}",
            train.fingerprint(),
            held_out.as_ref().map_or(0, Documents::fingerprint),
            self.objective,
            self.tie,
            step.temperature,
            step.generator_weight,
            step.discriminator_weight,
        );
        let train = Pretraining::new(train, &tokenizer, settings)?;
        let held_out = held_out.map(|documents| Pretraining::new(documents, &tokenizer, settings)).transpose()?;
        let eval_batches = self.examples.eval_batches(held_out.as_ref(), flags.batch);
        say!("{} examples an epoch; held out {}", train.epoch_length(), eval_batches * flags.batch);

        let mut engine = flags.device.engine()?;
        match &init {
            Some(init) => {
                let fresh = step.load(init.generator.as_ref(), &init.discriminator, &mut engine, flags.seed)?;
                if !fresh.is_empty() {
                    say!("not in {} and begun afresh: {}", flags.init.as_deref().unwrap_or_default(), fresh.join(", "));
                }
            }
            None => step.initialise(&mut engine, flags.seed)?,
        }

        let batch = ReplacedBatch {
            rows: flags.batch,
            context,
            predictions: settings.max_predictions,
            dropout: flags.dropout,
            recompute: flags.recompute,
        };
        let places = Cell::new(ReplacedOutputs::default());
        let loss = |g: &mut Graph, inputs: &[Tensor], rng: Option<Tensor>| {
            let (loss, outputs) = step.loss(g, inputs, rng, &batch)?;
            places.set(outputs);
            Ok(loss)
        };
        let (generator, discriminator) = (step.generator_parameters()?, step.discriminator_parameters()?);
        let (in_generator, in_discriminator) = (step.generator_variable(), step.discriminator_variable());
        let mut models =
            vec![Kept { folder: "discriminator", config: &configs[1], parameters: &discriminator, variable: &in_discriminator }];
        if self.objective.generates() {
            let (config, parameters) = (&configs[0], &generator[..]);
            models.push(Kept { folder: "generator", config, parameters, variable: &in_generator });
        }
        let task = Replacing { step: &step, flags, train: &train, held_out: held_out.as_ref(), eval_batches, places: &places };
        let defaults = Defaults { bias_correction: self.bias_correction, ..DEFAULTS };
        let run = Run {
            flags,
            models,
            parameters: &step.parameters()?,
            tokenizer: &tokenizer,
            settings: flags.settings(context, &defaults),
            data,
        };
        run.go(&mut engine, &Objective { inputs: step.inputs(&batch), loss: &loss }, &task)
    }

    /// Both networks' shapes, and how they learn.
    fn networks(&self, init: Option<&Init>, tokenizer: &Tokenizer) -> Result<ReplacedTokens, Box<dyn Error>> {
        let flags = &self.flags;
        let discriminator = match init {
            Some(init) => electra(&init.discriminator)?.clone(),
            None => {
                let sized = match self.size.as_deref().map(ElectraConfig::named) {
                    Some(Some(config)) => config,
                    Some(None) => return refuse("--size: there are small, base and large"),
                    None => ElectraConfig {
                        num_hidden_layers: flags.layers,
                        num_attention_heads: flags.heads,
                        hidden_size: flags.width,
                        embedding_size: self.embedding_width,
                        intermediate_size: 4 * flags.width,
                        ..ElectraConfig::default()
                    },
                };
                ElectraConfig {
                    vocab_size: flags.vocab(tokenizer)?,
                    max_position_embeddings: flags.context.unwrap_or(128),
                    pad_token_id: tokenizer.special_tokens()?.pad,
                    initializer_range: self.examples.initializer_range,
                    ..sized
                }
            }
        };
        let trained = |config| ElectraConfig { hidden_dropout_prob: flags.dropout, attention_probs_dropout_prob: 0.0, ..config };
        let discriminator = trained(discriminator);
        discriminator.check().map_err(|e| format!("{e} (--layers, --heads, --width, --embedding-width, --context, --vocab)"))?;
        let generator = match init.and_then(|init| init.generator.as_ref()) {
            Some(model) if self.generator_fraction.is_some() => {
                return refuse(format!("--generator-fraction: {} has its width already", model.place()));
            }
            Some(model) => trained(electra(model)?.clone()),
            None => {
                let base = self.size.as_deref() == Some("base");
                let fraction = self.generator_fraction.unwrap_or(if base { 1.0 / 3.0 } else { 0.25 });
                discriminator.generator(fraction).map_err(|e| format!("--generator-fraction: {e}"))?
            }
        };
        let weight = if self.objective.discriminates() { 50.0 } else { 1.0 };
        let step = ReplacedTokens {
            generator,
            discriminator,
            tie: self.tie,
            objective: self.objective,
            temperature: self.temperature,
            generator_weight: self.generator_weight,
            discriminator_weight: self.discriminator_weight.unwrap_or(weight),
        };
        step.check().map_err(|e| match &flags.init {
            Some(place) => format!("--init {place}: {e}"),
            None => e,
        })?;
        Ok(step)
    }

    fn data_settings(&self, context: usize) -> PretrainSettings {
        let large = self.size.as_deref() == Some("large");
        let probability = self.mask_probability.unwrap_or(if large { 0.25 } else { 0.15 });
        PretrainSettings {
            mask_rule: MaskRule::Electra { replacement: !self.mask_without_replacement },
            short_probability: self.examples.short_probability,
            ..PretrainSettings::electra(context, probability, self.flags.seed)
        }
    }
}

/// Batches, and what is found in them.
struct Replacing<'a> {
    step: &'a ReplacedTokens,
    flags: &'a Flags,
    train: &'a Pretraining,
    held_out: Option<&'a Pretraining>,
    eval_batches: usize,
    /// Where the outputs are.
    places: &'a Cell<ReplacedOutputs>,
}

/// Sums over batches.
#[derive(Default)]
struct Tally {
    /// Losses times what they are means of, and how many that is.
    generator_loss: (f64, f64),
    loss: (f64, f64),
    /// Right predictions, and all.
    generator: (f64, f64),
    second: (f64, f64),
    detection: Detection,
    replaced: (f64, f64),
}

fn add(sum: &mut (f64, f64), part: f64, whole: f64) {
    *sum = (sum.0 + part, sum.1 + whole);
}

impl Replacing<'_> {
    fn feed(&self, data: &Pretraining, batch: u64, first: u64) -> Batch {
        let (rows, context) = (self.flags.batch, data.settings().context);
        let number = first + batch;
        let noise = threefry([self.flags.seed, NOISE], [number as u32, (number >> 32) as u32]);
        self.step.values(data.batch(batch * rows as u64, rows), context, noise)
    }

    fn add(&self, tally: &mut Tally, batch: &Batch, others: &[HostTensor<f32>]) {
        let outputs = self.places.get();
        let (mask, positions, labels) = (batch[3].u(), batch[4].u(), batch[5].u());
        let slots = || positions.iter().zip(labels).enumerate().filter(|(_, (_, label))| **label != IGNORE);
        let masked = slots().count() as f64;
        let tokens = mask.iter().filter(|m| **m != 0).count() as f64;
        if let Some([loss, found]) = outputs.generator {
            let right = slots().filter(|(slot, (_, label))| others[found].u()[*slot] == **label).count();
            add(&mut tally.generator, right as f64, masked);
            add(&mut tally.generator_loss, f64::from(others[loss].f()[0]) * masked, masked);
        }
        if let Some([_, replaced]) = outputs.replaced {
            let replaced = others[replaced].u();
            add(&mut tally.replaced, replaced.iter().filter(|r| **r == 1).count() as f64, tokens);
        }
        let loss = f64::from(others[outputs.loss].f()[0]);
        let found = &others[outputs.found];
        match (self.step.objective, outputs.replaced) {
            (ReplacedObjective::Electra | ReplacedObjective::MaskedOnly, Some([_, replaced])) => {
                let counted = if self.step.objective == ReplacedObjective::Electra { tokens } else { masked };
                add(&mut tally.loss, loss * counted, counted);
                for (&score, &replaced) in found.f().iter().zip(others[replaced].u()).filter(|(_, r)| **r != IGNORE) {
                    tally.detection.add(score, 0.0, replaced == 1);
                }
            }
            (objective, _) => {
                // With all tokens the predictions are by place, else by slot.
                let all = objective == ReplacedObjective::AllTokensMlm;
                let counted = if all { tokens } else { masked };
                add(&mut tally.loss, loss * counted, counted);
                let at = |slot: usize, place: u32| found.u()[if all { place as usize } else { slot }];
                let right = slots().filter(|(slot, (place, label))| at(*slot, **place) == **label).count();
                add(&mut tally.second, right as f64, masked);
            }
        }
    }

    /// `whole`: figures of an evaluation, which has the area under the curve too.
    fn figures_of(&self, tally: &Tally, whole: bool) -> Figures {
        let mut figures = Figures::new();
        let mut put = |name: &str, value| {
            figures.insert(name.to_owned(), value);
        };
        if self.step.objective.generates() {
            put("generator_loss", ratio(tally.generator_loss));
            put("generator_accuracy", ratio(tally.generator));
            put("replaced", ratio(tally.replaced));
        }
        let found = &tally.detection;
        if self.step.objective.discriminates() {
            put("discriminator_loss", ratio(tally.loss));
            put("accuracy", found.accuracy());
            put("precision", found.precision());
            put("recall", found.recall());
            if whole {
                put("f1", found.f1());
                put("auc", found.auc());
            }
        } else {
            put("mlm_loss", ratio(tally.loss));
            put("masked_accuracy", ratio(tally.second));
        }
        figures
    }
}

impl Task for Replacing<'_> {
    fn batches(&self, step: usize) -> Vec<Batch> {
        let parts = self.flags.accumulate as u64;
        (0..parts).map(|part| self.feed(self.train, step as u64 * parts + part, 0)).collect()
    }

    fn figures(&self, batches: &[Batch], outcome: &Outcome) -> Figures {
        let mut tally = Tally::default();
        batches.iter().zip(&outcome.others).for_each(|(batch, others)| self.add(&mut tally, batch, others));
        self.figures_of(&tally, false)
    }

    fn evaluate(
        &self,
        engine: &mut Engine,
        trainer: &mut Trainer,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Option<(f64, Figures)>, TrainError> {
        let Some(data) = self.held_out else { return Ok(None) };
        let mut tally = Tally::default();
        for i in 0..self.eval_batches {
            let batch = self.feed(data, i as u64, HELD_OUT);
            let (_, others) = trainer.evaluate(engine, &batch)?;
            self.add(&mut tally, &batch, &others);
            progress(i + 1, self.eval_batches);
        }
        let s = self.step;
        let generator = f64::from(s.generator_weight) * ratio(tally.generator_loss);
        let loss = generator + f64::from(s.discriminator_weight) * ratio(tally.loss);
        Ok(Some((loss, self.figures_of(&tally, true))))
    }
}
