//! Times GPT-2's forward pass and training step (forward, loss, backward, clipping, AdamW) with random weights:
//! `cargo bench --bench train_step -- [--model gpt2-124m] [--mode forward|train|all] [--batch 1,2,4] [--vocab 4096] ...`.

mod common;

use clap::{Parser, ValueEnum};
use common::{Case, Figure, Output, Report, Run, Shape};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions},
    models::{Gpt2Config, Parameter, gpt2::{Context, Gpt2, parameters}, initialise},
    ops::{HostTensor, Tensor, TensorType},
    train::{Objective, TokenBatch, Trainer},
};
use std::error::Error;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Forward,
    Train,
    All,
}

#[derive(Parser)]
#[command(about = "Times a GPT-2 on the adapter (SHADERLM_DEVICE chooses another)")]
struct Args {
    /// Sizes of this GPT-2 instead of --vocab, --width, --layers and --heads
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
    #[arg(long, value_delimiter = ',', default_value = "4")]
    batch: Vec<usize>,
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
    fn config(&self) -> Result<Gpt2Config, Box<dyn Error>> {
        if let Some(other @ (Shape::AlbertBase | Shape::ElectraSmall)) = self.model {
            return Err(format!("--model {}: no GPT-2; it is the bench encoder's", other.numbers().name).into());
        }
        let own = (self.vocab, self.width, self.layers, self.heads);
        let (vocab_size, n_embd, n_layer, n_head) =
            self.model.map(Shape::numbers).map_or(own, |s| (s.vocab, s.width, s.layers, s.heads));
        Ok(Gpt2Config { vocab_size, n_positions: self.context, n_embd, n_layer, n_head, ..Gpt2Config::default() })
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

/// The logits of a batch.
fn forward<'a>(args: &Args, engine: &mut Engine, config: &Gpt2Config, batch: usize) -> Result<Case<'a>, Box<dyn Error>> {
    let shape = [batch, args.context];
    let mut g = Graph::new();
    let input = g.input("ids", TensorType::u32(shape));
    let gpt2 = Gpt2::new(config);
    let states = gpt2.hidden_states(&mut g, input, Context::Whole { keys: None })?;
    let logits = gpt2.head(&mut g, states[states.len() - 1])?;
    let mut plan = engine.compile(g, &[logits], &PlanOptions::named("forward"))?;
    plan.set(input, HostTensor::uints(shape, ids(args, config, batch)))?;
    eprintln!("forward: {:?}", plan.stats());
    let flops = plan.stats().flops;
    Ok(args.case("forward", batch, flops, common::run_plan(plan)))
}

fn ids(args: &Args, config: &Gpt2Config, batch: usize) -> Vec<u32> {
    (0..batch * args.context).map(|i| (i * 7919 % config.vocab_size) as u32).collect()
}

/// A step of its training.
fn train<'a>(args: &Args, engine: &mut Engine, config: &Gpt2Config, batch: usize) -> Result<Case<'a>, Box<dyn Error>> {
    let shape = [batch, args.context];
    let types: Vec<_> = parameters(config).iter().map(Parameter::trained).collect();
    let settings = common::settings(batch, args.context);
    let loss =
        |g: &mut Graph, inputs: &[Tensor], _: Option<Tensor>| Ok(Gpt2::new(config).loss(g, inputs[0], inputs[1], None)?.into());
    let inputs = ["ids", "targets"].map(|name| (name, TensorType::u32(shape))).to_vec();
    let mut trainer = Trainer::new(engine, &types, &Objective { inputs, loss: &loss }, settings)?;
    eprintln!("train: {:?}", trainer.stats());
    let ids = ids(args, config, batch);
    let targets = ids.iter().map(|id| (id + 7919) % config.vocab_size as u32).collect();
    let feed = [TokenBatch { ids, targets }.feed(args.context)];
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
    config.check()?;
    initialise(&parameters(&config), &mut engine, 1)?;
    let cases = |engine: &mut Engine, batch: usize| -> Result<Vec<Case<'static>>, Box<dyn Error>> {
        let mut cases = Vec::new();
        if args.mode != Mode::Train {
            cases.push(forward(&args, engine, &config, batch)?);
        }
        if args.mode != Mode::Forward {
            cases.push(train(&args, engine, &config, batch)?);
        }
        Ok(cases)
    };
    if args.paced || args.profile {
        let cases = cases(&mut engine, args.batch[0])?;
        return common::one_by_one(&mut engine, cases, profiler.as_deref());
    }
    let mut report = Report::new("train_step", &args.output, &engine, shaderlm::gpu::Ceilings::remembered(engine.capabilities()));
    for &batch in &args.batch {
        let group = cases(&mut engine, batch)?;
        report.group(&mut engine, group)?;
    }
    report.finish("tokens at once", Figure::Milliseconds)
}
