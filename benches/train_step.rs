//! Times GPT-2's forward pass and training step (forward, loss, backward, clipping, AdamW) with random weights:
//! `cargo bench --bench train_step -- [--model gpt2-124m] [--mode forward|train|all] [--batch 1,2,4] [--vocab 4096] ...`.

mod common;

use clap::Parser;
use common::{Case, Shape, Steps};
use shaderlm::{
    graph::{Engine, Graph},
    models::{
        Gpt2Config, Mode, Parameter,
        gpt2::{Context, Gpt2, parameters},
        initialise,
    },
    ops::{HostTensor, Tensor, TensorType},
    train::{Objective, TokenBatch, Trainer},
};
use std::error::Error;

#[derive(Parser)]
#[command(about = "Times a GPT-2 on the adapter (SHADERLM_DEVICE chooses another)")]
struct Args {
    /// Sizes of this GPT-2 instead of --vocab, --width, --layers and --heads
    #[arg(long, value_enum)]
    model: Option<Shape>,
    #[arg(long, default_value_t = 4096)]
    vocab: usize,
    #[arg(long, default_value_t = 256)]
    width: usize,
    #[arg(long, default_value_t = 4)]
    layers: usize,
    #[arg(long, default_value_t = 4)]
    heads: usize,
    /// Rows at once; several, for a plot
    #[arg(long, value_delimiter = ',', default_value = "4")]
    batch: Vec<usize>,
    /// Also time, in turn, the training step that keeps only what each block begins with and computes the rest again
    #[arg(long)]
    recompute: bool,
    #[command(flatten)]
    steps: Steps,
}

impl Args {
    fn config(&self) -> Result<Gpt2Config, Box<dyn Error>> {
        if let Some(other @ (Shape::AlbertBase | Shape::ElectraSmall)) = self.model {
            return Err(format!("--model {}: no GPT-2; it is the bench encoder's", other.numbers().name).into());
        }
        let own = (self.vocab, self.width, self.layers, self.heads);
        let (vocab_size, n_embd, n_layer, n_head) =
            self.model.map(Shape::numbers).map_or(own, |s| (s.vocab, s.width, s.layers, s.heads));
        Ok(Gpt2Config { vocab_size, n_positions: self.steps.context, n_embd, n_layer, n_head, ..Gpt2Config::default() })
    }
}

/// The logits of a batch.
fn forward<'a>(args: &Args, engine: &mut Engine, config: &Gpt2Config, batch: usize) -> Result<Case<'a>, Box<dyn Error>> {
    let shape = [batch, args.steps.context];
    let mut g = Graph::new();
    let input = g.input("ids", TensorType::u32(shape));
    let gpt2 = Gpt2::new(config);
    let states = gpt2.hidden_states(&mut g, input, Context::Whole { keys: None })?;
    let logits = gpt2.whole_head(&mut g, states[states.len() - 1])?.tensor;
    let mut plan = engine.compile(g, &[logits], &args.steps.options())?;
    plan.set(input, HostTensor::uints(shape, ids(args, config, batch)))?;
    eprintln!("forward: {:?}", plan.stats());
    let flops = plan.stats().flops;
    Ok(args.steps.case("forward", batch, flops, common::run_plan(plan)))
}

fn ids(args: &Args, config: &Gpt2Config, batch: usize) -> Vec<u32> {
    (0..batch * args.steps.context).map(|i| (i * 7919 % config.vocab_size) as u32).collect()
}

/// A step of its training.
fn train<'a>(
    args: &Args,
    engine: &mut Engine,
    config: &Gpt2Config,
    (batch, recompute): (usize, bool),
) -> Result<Case<'a>, Box<dyn Error>> {
    let shape = [batch, args.steps.context];
    let types: Vec<_> = parameters(config).iter().map(Parameter::trained).collect();
    let model = Gpt2 { mode: Mode { recompute, ..Mode::default() }, ..Gpt2::new(config) };
    let loss = |g: &mut Graph, inputs: &[Tensor], _: Option<Tensor>| Ok(model.loss(g, inputs[0], inputs[1], None)?.into());
    let name = if recompute { "train, recomputing" } else { "train" };
    let inputs = ["ids", "targets"].map(|name| (name, TensorType::u32(shape))).to_vec();
    let trainer = Trainer::new(engine, &types, &Objective { inputs, loss: &loss }, args.steps.settings(batch))?;
    eprintln!("{name}: {:?}", trainer.stats());
    let ids = ids(args, config, batch);
    let targets = ids.iter().map(|id| (id + 7919) % config.vocab_size as u32).collect();
    let feed = TokenBatch { ids, targets }.feed(args.steps.context);
    let flops = trainer.stats().flops;
    Ok(args.steps.case(name, batch, flops, common::run_trainer(trainer, feed)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    eprintln!("{}", engine.device_name());
    let profiler = args.steps.profiler(&mut engine);
    let config = args.config()?;
    config.check()?;
    initialise(&parameters(&config), &mut engine, 1)?;
    args.steps.go("train_step", &mut engine, &args.batch, profiler.as_deref(), |engine, batch| {
        let mut cases = Vec::new();
        if args.steps.mode.forward() {
            cases.push(forward(&args, engine, &config, batch)?);
        }
        if args.steps.mode.train() {
            cases.push(train(&args, engine, &config, (batch, false))?);
        }
        if args.recompute {
            cases.push(train(&args, engine, &config, (batch, true))?);
        }
        Ok(cases)
    })
}
