//! Times an encoder with random weights: `cargo bench --bench encoder -- [--model albert-base|electra-small] [--mode ...] ...`;
//! without --model a BERT of the given sizes. `forward` ends at the last hidden states; `train` is a step of masked-LM training
//! (forward, the head on the predicted places only, loss, backward, clipping, AdamW), without dropout; of an ELECTRA
//! it is the discriminator's (every token judged), and its whole step is the bench `electra`.

mod common;

use clap::{Parser, ValueEnum};
use common::{Case, Figure, Output, Report, Run, Shape};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions},
    models::{
        AlbertConfig, BertConfig, Config, ElectraConfig, Encoder, Head, Mode as Recorded, Parameter, Text, encoder,
        heads::parameters, initialise,
    },
    ops::{self, HostTensor, Tensor, TensorType},
    train::{Objective, Trainer},
};
use std::error::Error;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Forward,
    Train,
    All,
}

#[derive(Parser)]
#[command(about = "Times an encoder on the adapter (SHADERLM_DEVICE chooses another)")]
struct Args {
    /// This model instead of a BERT of --vocab, --width, --layers and --heads
    #[arg(long, value_enum)]
    model: Option<Shape>,
    #[arg(long, default_value_t = 4096)]
    vocab: usize,
    #[arg(long, default_value_t = 128)]
    context: usize,
    #[arg(long, default_value_t = 256)]
    width: usize,
    #[arg(long, default_value_t = 4)]
    layers: usize,
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Rows at once; several, for a plot
    #[arg(long, value_delimiter = ',', default_value = "8")]
    batch: Vec<usize>,
    /// Places of each row that are predicted in training.
    #[arg(long, default_value_t = 20)]
    predictions: usize,
    #[arg(long, value_enum, default_value = "all")]
    mode: Mode,
    /// Wait for a line on standard input before each repetition, so that a caller can alternate engines within one run;
    /// ends at end of input. A line {"what":..,"ready":true} follows the warm-up.
    #[arg(long)]
    paced: bool,
    /// Print where the time goes, by kernel, instead of timing it.
    #[arg(long)]
    profile: bool,
    #[command(flatten)]
    output: Output,
}

impl Args {
    fn config(&self) -> Result<Config, Box<dyn Error>> {
        Ok(match self.model {
            None => Config::Bert(BertConfig {
                vocab_size: self.vocab,
                hidden_size: self.width,
                num_hidden_layers: self.layers,
                num_attention_heads: self.heads,
                intermediate_size: 4 * self.width,
                max_position_embeddings: self.context,
                ..BertConfig::default()
            }),
            Some(Shape::AlbertBase) => Config::Albert(AlbertConfig::named("base").ok_or("no albert base")?),
            Some(Shape::ElectraSmall) => Config::Electra(ElectraConfig::named("small").ok_or("no electra small")?),
            Some(other) => return Err(format!("--model {}: no encoder; it is the bench train_step's", other.numbers().name).into()),
        })
    }

    fn case<'a>(&self, mode: &str, batch: usize, flops: u64, run: Run<'a>) -> Case<'a> {
        let tokens = batch * self.context;
        Case {
            series: mode.into(),
            name: format!("{batch} x {} tokens", self.context),
            size: tokens as f64,
            flops: flops as f64,
            bytes: 0.0,
            run,
        }
    }
}

fn ids(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// The last hidden states of a batch.
fn forward<'a>(args: &Args, engine: &mut Engine, network: &dyn Encoder, batch: usize) -> Result<Case<'a>, Box<dyn Error>> {
    let shape = [batch, args.context];
    let mut g = Graph::new();
    let input = g.input("ids", TensorType::u32(shape));
    let states = network.hidden_states(&mut g, &Text { ids: input, types: None, keys: None })?;
    let mut plan = engine.compile(g, &[states[states.len() - 1]], &PlanOptions::named("forward"))?;
    plan.set(input, HostTensor::uints(shape, ids(batch * args.context, network.sizes()?.vocab)))?;
    eprintln!("forward: {:?}", plan.stats());
    let flops = plan.stats().flops;
    Ok(args.case("forward", batch, flops, common::run_plan(plan)))
}

/// A step of its training.
fn train<'a>(
    args: &Args,
    engine: &mut Engine,
    network: &dyn Encoder,
    list: &[Parameter],
    batch: usize,
) -> Result<Case<'a>, Box<dyn Error>> {
    let detects = args.model == Some(Shape::ElectraSmall);
    let (shape, count, sizes) = ([batch, args.context], batch * args.context, network.sizes()?);
    let types: Vec<_> = list.iter().map(Parameter::trained).collect();
    let loss = |g: &mut Graph, inputs: &[Tensor], _: Option<Tensor>| {
        let states = network.hidden_states(g, &Text { ids: inputs[0], types: None, keys: None })?;
        let last = states[states.len() - 1];
        if detects {
            let logits = network.replaced(g, last)?;
            return Ok(ops::binary_cross_entropy(g, logits, inputs[1])?.into());
        }
        let rows = ops::reshape(g, last, [count, sizes.hidden])?;
        let picked = ops::embedding(g, rows, inputs[1])?;
        let logits = network.masked_lm(g, picked)?;
        Ok(ops::cross_entropy(g, logits, inputs[2], ops::IGNORE)?.into())
    };
    let ids = HostTensor::uints(shape, ids(count, sizes.vocab));
    let (inputs, feed) = if detects {
        let replaced = (0..count).map(|i| u32::from(i % 10 == 0)).collect();
        let inputs = ["ids", "replaced"].map(|name| (name, TensorType::u32(shape))).to_vec();
        (inputs, vec![ids, HostTensor::uints(shape, replaced)])
    } else {
        let slots = [batch * args.predictions];
        // Every sixth place of a row or so, from its beginning.
        let step = (args.context / args.predictions).max(1);
        let places: Vec<u32> = (0..batch)
            .flat_map(|row| (0..args.predictions).map(move |i| (row * args.context + i * step % args.context) as u32))
            .collect();
        let labels = places.iter().map(|&place| (place as usize * 31 % sizes.vocab) as u32).collect();
        let inputs = vec![("ids", TensorType::u32(shape)), ("places", TensorType::u32(slots)), ("labels", TensorType::u32(slots))];
        (inputs, vec![ids, HostTensor::uints(slots, places), HostTensor::uints(slots, labels)])
    };
    let mut trainer = Trainer::new(engine, &types, &Objective { inputs, loss: &loss }, common::settings(batch, args.context))?;
    eprintln!("train: {:?}", trainer.stats());
    let feed = [feed];
    let (mut step, flops) = (0, trainer.stats().flops);
    let run: Run<'a> = Box::new(move |engine, runs| {
        for _ in 0..runs {
            trainer.step(engine, step, &feed)?;
            step += 1;
        }
        Ok(())
    });
    Ok(args.case("train", batch, flops, run))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    eprintln!("{}", engine.device_name());
    let profiler = args.profile.then(|| engine.profile());
    let config = args.config()?;
    let network = encoder(&config, Recorded::default()).ok_or("no encoder")?;
    let head = if args.model == Some(Shape::ElectraSmall) { Head::Replaced } else { Head::MaskedLm };
    let list = parameters(network.as_ref(), head, 2, false)?;
    initialise(&list, &mut engine, 1)?;
    let cases = |engine: &mut Engine, batch: usize| -> Result<Vec<Case<'static>>, Box<dyn Error>> {
        let mut cases = Vec::new();
        if args.mode != Mode::Train {
            cases.push(forward(&args, engine, network.as_ref(), batch)?);
        }
        if args.mode != Mode::Forward {
            cases.push(train(&args, engine, network.as_ref(), &list, batch)?);
        }
        Ok(cases)
    };
    if args.paced || args.profile {
        let cases = cases(&mut engine, args.batch[0])?;
        return common::one_by_one(&mut engine, cases, profiler.as_deref());
    }
    let mut report = Report::new("encoder", &args.output, &engine, shaderlm::gpu::Ceilings::remembered(engine.capabilities()));
    for &batch in &args.batch {
        let group = cases(&mut engine, batch)?;
        report.group(&mut engine, group)?;
    }
    report.finish("tokens at once", Figure::Milliseconds)
}
