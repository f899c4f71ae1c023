//! `shaderlm train bert` and `shaderlm train albert`

use super::{
    flags::{Defaults, ExampleFlags, Flags},
    run::{Figures, Kept, Run, Task, ratio},
};
use crate::cli::{
    CliResult,
    common::{number_in, refuse, say},
    data::Objective as What,
};
use shaderlm::{
    graph::{Engine, Graph},
    models::{
        AlbertConfig, BertConfig, Config, Dropout, Head, Missing, Mode, Model, Sharing, Text, encoder, heads::parameters,
        initialise, with_article,
    },
    ops::{self, HostTensor, IGNORE, OpError, Recorder, Tensor, TensorType},
    text::{SpecialTokens, Tokenizer},
    train::{Batch, Documents, Loss, Objective, Outcome, Pairing, PretrainSettings, Pretraining, TrainError, Trainer},
};
use std::{collections::BTreeMap, path::PathBuf};

const DEFAULTS: Defaults = Defaults { weight_decay: 0.01, eps: 1e-6, beta2: 0.999, ..Defaults::GPT2 };

/// Train a BERT from scratch, or go on from a folder with --init
///
/// A line of the text files is a sentence or a paragraph; blank lines stand between documents. `data inspect` shows what
/// becomes of them. DIR gets a folder that transformers loads, and state.safetensors for --resume.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm tokenizer train --kind wordpiece --data *.txt --vocab 4096 --out tok.json\n  \
    shaderlm train bert --data *.txt --out mine --tokenizer tok.json --objective mlm+nsp --layers 6 --heads 4 --width 256\n  \
    shaderlm train bert --data notes.txt --out tuned --init google-bert/bert-base-uncased --objective mlm --lr 3e-5 --steps 500")]
pub struct TrainBert {
    #[command(flatten)]
    pretrain: Pretrain,
    /// A size of the paper or its miniatures instead of --layers, --heads and --width: tiny, mini, small, medium, base or large
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["layers", "heads", "width"])]
    size: Option<String>,
}

/// Train an ALBERT from scratch, or go on from a folder with --init
///
/// A line of the text files is a sentence or a paragraph; blank lines stand between documents. `data inspect` shows what
/// becomes of them. DIR gets a folder that transformers loads (as long as --sharing is all or none), and state.safetensors for
/// --resume.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm tokenizer train --kind unigram --data *.txt --vocab 4096 --out tok.json\n  \
    shaderlm train albert --data *.txt --out mine --tokenizer tok.json --objective mlm+sop \\\n      \
        --layers 6 --heads 4 --width 256 --embedding-width 64 --optimizer lamb --lr 2e-3")]
pub struct TrainAlbert {
    #[command(flatten)]
    pretrain: Pretrain,
    /// A size of the paper instead of --layers, --heads and --width: base, large, xlarge or xxlarge
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["layers", "heads", "width"])]
    size: Option<String>,
    /// Width of the embeddings
    #[arg(long, value_name = "E", default_value_t = 128, conflicts_with = "init")]
    embedding_width: usize,
    /// Parameters that the layers share
    #[arg(long, value_enum, default_value = "all", conflicts_with = "init")]
    sharing: Sharing,
    /// Groups of layers that share their parameters
    #[arg(long, value_name = "N", default_value_t = 1, conflicts_with = "init")]
    groups: usize,
}

/// What both take.
#[derive(clap::Args)]
struct Pretrain {
    #[command(flatten)]
    flags: Flags,
    /// A tokenizer.json with [CLS], [SEP], [MASK] and [PAD]; `tokenizer train --kind wordpiece|unigram` makes one
    #[arg(long, value_name = "FILE", conflicts_with = "init", required_unless_present = "init")]
    tokenizer: Option<PathBuf>,
    /// What is to be learnt
    #[arg(long, value_enum)]
    objective: What,
    /// Share of the tokens that are predicted
    #[arg(long, value_name = "P", default_value_t = 0.15, value_parser = number_in(0.001, 0.9))]
    mask_probability: f32,
    /// Most tokens that are predicted in a row
    #[arg(long, value_name = "N", default_value_t = 20)]
    max_predictions: usize,
    /// Longest n-gram that is masked as one; 3 with mlm+sop, as in ALBERT, else 1
    #[arg(long, value_name = "N")]
    ngrams: Option<usize>,
    /// Mask whole words; mlm+sop always does
    #[arg(long)]
    whole_words: bool,
    #[command(flatten)]
    examples: ExampleFlags,
}

impl TrainBert {
    pub fn run(self) -> CliResult {
        let p = &self.pretrain;
        let (flags, init, tokenizer) = p.begin()?;
        let config = match &init {
            Some(Model { config: Config::Bert(config), .. }) => config.clone(),
            Some(other) => {
                return refuse(format!("--init {}: it is {}, not a bert", other.place(), with_article(other.config.kind())));
            }
            None => {
                let sized = match self.size.as_deref().map(BertConfig::named) {
                    Some(Some(config)) => config,
                    Some(None) => return refuse("--size: there are tiny, mini, small, medium, base and large"),
                    None => BertConfig {
                        num_hidden_layers: flags.layers,
                        num_attention_heads: flags.heads,
                        hidden_size: flags.width,
                        intermediate_size: 4 * flags.width,
                        ..BertConfig::default()
                    },
                };
                BertConfig {
                    vocab_size: flags.vocab(&tokenizer)?,
                    max_position_embeddings: flags.context.unwrap_or(128),
                    pad_token_id: tokenizer.special_tokens()?.pad,
                    initializer_range: p.examples.initializer_range,
                    ..sized
                }
            }
        };
        let config = BertConfig { hidden_dropout_prob: flags.dropout, attention_probs_dropout_prob: 0.0, ..config };
        p.run(init.as_ref(), &tokenizer, Config::Bert(config))
    }
}

impl TrainAlbert {
    pub fn run(self) -> CliResult {
        let p = &self.pretrain;
        let (flags, init, tokenizer) = p.begin()?;
        if p.objective == What::NextSentence {
            return refuse("--objective mlm+nsp: an ALBERT learns sentence order instead, mlm+sop");
        }
        let config = match &init {
            Some(Model { config: Config::Albert(config), .. }) => config.clone(),
            Some(other) => {
                return refuse(format!("--init {}: it is {}, not an albert", other.place(), with_article(other.config.kind())));
            }
            None => {
                let sized = match self.size.as_deref().map(AlbertConfig::named) {
                    Some(Some(config)) => config,
                    Some(None) => return refuse("--size: there are base, large, xlarge and xxlarge"),
                    None => AlbertConfig {
                        num_hidden_layers: flags.layers,
                        num_attention_heads: flags.heads,
                        hidden_size: flags.width,
                        intermediate_size: 4 * flags.width,
                        ..AlbertConfig::default()
                    },
                };
                if self.sharing != Sharing::All && self.groups != 1 {
                    return refuse("--groups goes with --sharing all");
                }
                AlbertConfig {
                    vocab_size: flags.vocab(&tokenizer)?,
                    embedding_size: self.embedding_width,
                    num_hidden_groups: self.groups,
                    max_position_embeddings: flags.context.unwrap_or(128),
                    pad_token_id: tokenizer.special_tokens()?.pad,
                    initializer_range: p.examples.initializer_range,
                    ..sized
                }
                .shared(self.sharing)
            }
        };
        let config = AlbertConfig { hidden_dropout_prob: flags.dropout, attention_probs_dropout_prob: 0.0, ..config };
        p.run(init.as_ref(), &tokenizer, Config::Albert(config))
    }
}

/// Examples of pre-training, and the places of their parts among the inputs and outputs.
struct Examples<'a> {
    flags: &'a Flags,
    train: &'a Pretraining,
    held_out: Option<&'a Pretraining>,
    eval_batches: usize,
    pair: Option<&'static str>,
}

/// Sums over examples.
#[derive(Default)]
struct Tally {
    mlm: (f64, f64),
    masked: (f64, f64),
    pair_loss: (f64, f64),
    pairs: (f64, f64),
}

impl Tally {
    /// Adds one micro-batch: its labels, and what the loss function let the host read.
    fn add(&mut self, batch: &Batch, others: &[HostTensor<f32>]) {
        let hits = |labels: &[u32], found: &[u32]| {
            let counted = labels.iter().zip(found).filter(|(l, _)| **l != IGNORE);
            counted.fold((0.0, 0.0), |(right, all), (l, f)| (right + f64::from(u32::from(l == f)), all + 1.0))
        };
        let add = |sum: &mut (f64, f64), more: (f64, f64)| *sum = (sum.0 + more.0, sum.1 + more.1);
        let masked = hits(batch[4].u(), others[0].u());
        add(&mut self.masked, masked);
        add(&mut self.mlm, (f64::from(others[1].f()[0]) * masked.1, masked.1));
        if let (Some(labels), Some(found), Some(loss)) = (batch.get(5), others.get(2), others.get(3)) {
            let pairs = hits(labels.u(), found.u());
            add(&mut self.pairs, pairs);
            add(&mut self.pair_loss, (f64::from(loss.f()[0]) * pairs.1, pairs.1));
        }
    }

    fn figures(&self, pair: Option<&str>) -> Figures {
        let mut figures =
            BTreeMap::from([("mlm_loss".to_owned(), ratio(self.mlm)), ("masked_accuracy".to_owned(), ratio(self.masked))]);
        if let Some(pair) = pair {
            figures.insert(format!("{pair}_loss"), ratio(self.pair_loss));
            figures.insert(format!("{pair}_accuracy"), ratio(self.pairs));
        }
        figures
    }

    fn loss(&self) -> f64 {
        ratio(self.mlm) + ratio(self.pair_loss)
    }
}

impl Examples<'_> {
    fn feed(&self, data: &Pretraining, first: u64) -> Batch {
        let (rows, context) = (self.flags.batch, data.settings().context);
        let batch = data.batch(first, rows);
        let (text, slots) = ([rows, context], [batch.masked_positions.len()]);
        let mut values = vec![
            HostTensor::uints(text, batch.ids),
            HostTensor::uints(text, batch.token_types),
            HostTensor::uints(text, batch.attention_mask),
            HostTensor::uints(slots, batch.masked_positions),
            HostTensor::uints(slots, batch.masked_labels),
        ];
        if self.pair.is_some() {
            values.push(HostTensor::uints([rows], batch.pair_labels));
        }
        values
    }
}

impl Task for Examples<'_> {
    fn batches(&self, step: usize) -> Vec<Batch> {
        let (rows, parts) = (self.flags.batch as u64, self.flags.accumulate as u64);
        (0..parts).map(|part| self.feed(self.train, (step as u64 * parts + part) * rows)).collect()
    }

    fn figures(&self, batches: &[Batch], outcome: &Outcome) -> Figures {
        let mut tally = Tally::default();
        batches.iter().zip(&outcome.others).for_each(|(batch, others)| tally.add(batch, others));
        tally.figures(self.pair)
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
            let batch = self.feed(data, (i * self.flags.batch) as u64);
            let (_, others) = trainer.evaluate(engine, &batch)?;
            tally.add(&batch, &others);
            progress(i + 1, self.eval_batches);
        }
        Ok(Some((tally.loss(), tally.figures(self.pair))))
    }
}

/// Share of the commonest token among those that are to be predicted: what guessing it always would get right.
fn guessing(data: &Pretraining, examples: u64) -> f64 {
    let mut counts: BTreeMap<u32, usize> = BTreeMap::new();
    for index in 0..examples {
        for label in data.example(index).masked_labels {
            *counts.entry(label).or_default() += 1;
        }
    }
    *counts.values().max().unwrap_or(&0) as f64 / counts.values().sum::<usize>().max(1) as f64
}

impl Pretrain {
    fn begin(&self) -> Result<(&Flags, Option<Model>, Tokenizer), Box<dyn std::error::Error>> {
        self.flags.check("")?;
        self.examples.check()?;
        let init = self.flags.init()?;
        let tokenizer = match (&init, &self.tokenizer) {
            (Some(model), _) => model.tokenizer()?,
            (None, Some(file)) => Tokenizer::from_file(file)?,
            (None, None) => return refuse("give --tokenizer FILE, or --init"),
        };
        // Before the text is read, which may take long.
        let _: SpecialTokens = tokenizer.special_tokens()?;
        Ok((&self.flags, init, tokenizer))
    }

    fn run(&self, init: Option<&Model>, tokenizer: &Tokenizer, mut config: Config) -> CliResult {
        let flags = &self.flags;
        let head = if self.objective == What::Masked { Head::MaskedLm } else { Head::PreTraining };
        let architecture = head.architecture(&config);
        if let Some(rest) = config.rest_mut() {
            rest.architectures = vec![architecture];
        }
        config.check().map_err(|e| format!("{e} (--layers, --heads, --width, --context, --vocab)"))?;
        let context = flags.context(&config)?;
        let pairing = self.objective.pairing();
        let paper = PretrainSettings::of_paper(pairing, context, flags.seed);
        let settings = PretrainSettings {
            mask_probability: self.mask_probability,
            max_predictions: self.max_predictions,
            ngrams: self.ngrams.unwrap_or(paper.ngrams),
            whole_words: self.whole_words || paper.whole_words,
            short_probability: self.examples.short_probability,
            ..paper
        };
        let (train, held_out) = flags.documents(tokenizer)?;
        let data =
            format!("{:016x}+{:016x}, {settings:?}", train.fingerprint(), held_out.as_ref().map_or(0, Documents::fingerprint));
        let train = Pretraining::new(train, tokenizer, settings)?;
        let held_out = held_out.map(|documents| Pretraining::new(documents, tokenizer, settings)).transpose()?;
        let eval_batches = self.examples.eval_batches(held_out.as_ref(), flags.batch);
        if let Some(held_out) = &held_out {
            say!(
                "{} examples an epoch; held out {}, of which guessing the commonest token gets {:.4}",
                train.epoch_length(),
                eval_batches * flags.batch,
                guessing(held_out, (eval_batches * flags.batch) as u64)
            );
        }

        let mut engine = flags.device.engine()?;
        let bare = encoder(&config, Mode::default()).ok_or("it is no encoder")?;
        let list = parameters(&*bare, head, 2, true)?;
        match init {
            Some(model) => {
                let fresh = model.upload(&mut engine, &list, Missing::Initialise(flags.seed))?;
                if !fresh.is_empty() {
                    say!("not in {} and begun afresh: {}", model.place(), fresh.join(", "));
                }
            }
            None => initialise(&list, &mut engine, flags.seed)?,
        }
        let pair = match pairing {
            Pairing::Single | Pairing::Consecutive => None,
            Pairing::NextSentence => Some("nsp"),
            Pairing::SentenceOrder => Some("sop"),
        };
        let loss = |g: &mut Graph, i: &[Tensor], rng: Option<Tensor>| {
            let mode = Mode {
                dropout: rng.map(|rng| Dropout { rate: flags.dropout, rng }),
                recompute: flags.recompute && rng.is_some(),
                ..Mode::default()
            };
            let encoder = encoder(&config, mode).ok_or_else(|| OpError::new("it is no encoder"))?;
            let states = encoder.hidden_states(g, &Text { ids: i[0], types: Some(i[1]), keys: Some(i[2]) })?;
            let last = states[states.len() - 1];
            // Only the places where something is predicted go through the head.
            let shape = g.ty(last).shape.clone();
            let rows = ops::reshape(g, last, [shape.rows(), shape.width()])?;
            let picked = ops::embedding(g, rows, i[3])?;
            let logits = encoder.whole_masked_lm(g, picked)?;
            let mlm = ops::cross_entropy(g, logits, i[4], IGNORE)?;
            let mut others = vec![ops::likeliest(g, logits)?, mlm];
            if pair.is_none() {
                return Ok(Loss { loss: mlm, others });
            }
            let pooled = encoder.summary(g, last, None)?;
            let logits = encoder.pair(g, pooled)?;
            let order = ops::cross_entropy(g, logits, i[5], IGNORE)?;
            others.extend([ops::likeliest(g, logits)?, order]);
            Ok(Loss { loss: ops::add(g, mlm, order)?, others })
        };
        let text = TensorType::u32([flags.batch, context]);
        let slots = TensorType::u32([flags.batch * self.max_predictions]);
        let mut inputs = vec![
            ("ids", text.clone()),
            ("token_types", text.clone()),
            ("attention_mask", text),
            ("masked_positions", slots.clone()),
            ("masked_labels", slots),
        ];
        if pair.is_some() {
            inputs.push(("pair_labels", TensorType::u32([flags.batch])));
        }
        let task = Examples { flags, train: &train, held_out: held_out.as_ref(), eval_batches, pair };
        let model = Kept { folder: "", config: &config, parameters: &list, variable: &str::to_owned };
        let settings = flags.settings(context, &DEFAULTS);
        Run { flags, models: vec![model], parameters: &list, tokenizer, settings, data }.go(
            &mut engine,
            &Objective { inputs, loss: &loss },
            &task,
        )
    }
}
