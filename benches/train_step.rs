//! Times GPT-2's forward pass and training step (forward, loss, backward, clipping, AdamW) with random weights, a JSON line
//! a repetition: `cargo bench --bench train_step -- [--mode forward|train|all] [--vocab 4096] [--paced] ...`.

mod common;

use clap::{Parser, ValueEnum};
use shaderlm::{
    gpu::Autotune,
    graph::{Engine, EngineOptions, Graph, PlanOptions},
    models::{Gpt2Config, Parameter, gpt2::{Context, Gpt2, parameters}, initialise},
    ops::{HostTensor, Tensor, TensorType},
    train::{Objective, Optimizer, Schedule, ScheduleShape, Settings, TokenBatch, Trainer},
};
use std::error::Error;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Forward,
    Train,
    All,
}

#[derive(Parser)]
#[command(about = "Times a GPT-2 on the adapter, a JSON line a repetition")]
struct Args {
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
    #[arg(long, default_value_t = 4)]
    batch: usize,
    #[arg(long, default_value_t = 5)]
    repeats: usize,
    #[arg(long, value_enum, default_value = "all")]
    mode: Mode,
    /// Wait for a line on standard input before each repetition, so that a caller can alternate engines within one run;
    /// ends at end of input. A line {"what":..,"ready":true} follows the warm-up.
    #[arg(long)]
    paced: bool,
    /// Print where the time goes, by kernel, instead of timing it.
    #[arg(long)]
    profile: bool,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Args {
    fn config(&self) -> Gpt2Config {
        Gpt2Config {
            vocab_size: self.vocab,
            n_positions: self.context,
            n_embd: self.width,
            n_layer: self.layers,
            n_head: self.heads,
            ..Gpt2Config::default()
        }
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let device = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into()).parse()?;
    let mut engine = Engine::new(&EngineOptions { device, notice: true, autotune: Autotune::default() })?;
    eprintln!("{}", engine.device_name());
    let profiler = args.profile.then(|| engine.profile());
    let config = args.config();
    initialise(&parameters(&config), &mut engine, 1)?;
    let shape = [args.batch, args.context];
    let ids: Vec<u32> = (0..args.batch * args.context).map(|i| (i * 7919 % args.vocab) as u32).collect();

    if args.mode != Mode::Train {
        let mut g = Graph::new();
        let input = g.input("ids", TensorType::u32(shape));
        let gpt2 = Gpt2::new(&config);
        let states = gpt2.hidden_states(&mut g, input, Context::Whole { keys: None })?;
        let logits = gpt2.head(&mut g, states[states.len() - 1])?;
        let mut plan = engine.compile(g, &[logits], &PlanOptions::named("forward"))?;
        plan.set(input, HostTensor::uints(shape, ids.clone()))?;
        eprintln!("forward: {:?}", plan.stats());
        let mut run = |engine: &mut Engine| -> Result<(), Box<dyn Error>> {
            plan.run(engine)?;
            Ok(plan.wait()?)
        };
        match &profiler {
            Some(profiler) => common::print_profile(&mut engine, profiler, run)?,
            None => common::time("forward", args.repeats, args.paced, || run(&mut engine))?,
        }
    }
    if args.mode != Mode::Forward {
        let types: Vec<_> = parameters(&config).iter().map(Parameter::trained).collect();
        let schedule = Schedule { shape: ScheduleShape::Constant, peak: 1e-4, min: 0.0, warmup: 0, steps: 1000 };
        let settings = Settings {
            batch: args.batch,
            accumulate: 1,
            context: args.context,
            optimizer: Optimizer::Adamw,
            schedule,
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            bias_correction: true,
            clip: 1.0,
            seed: 1,
        };
        let loss = |g: &mut Graph, inputs: &[Tensor], _: Option<Tensor>| {
            Ok(Gpt2::new(&config).loss(g, inputs[0], inputs[1], None)?.into())
        };
        let inputs = ["ids", "targets"].map(|name| (name, TensorType::u32(shape))).to_vec();
        let mut trainer = Trainer::new(&mut engine, &types, &Objective { inputs, loss: &loss }, settings)?;
        eprintln!("train: {:?}", trainer.stats());
        let targets = ids.iter().map(|id| (id + 7919) % args.vocab as u32).collect();
        let batch = [TokenBatch { ids, targets }.feed(args.context)];
        let mut step = 0;
        let mut run = |engine: &mut Engine| -> Result<(), Box<dyn Error>> {
            trainer.step(engine, step, &batch)?;
            step += 1;
            Ok(())
        };
        match &profiler {
            Some(profiler) => common::print_profile(&mut engine, profiler, run)?,
            None => common::time("train", args.repeats, args.paced, || run(&mut engine))?,
        }
    }
    Ok(())
}
