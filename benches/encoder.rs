//! Times a BERT with random weights, a JSON line a repetition: `cargo bench --bench encoder -- [--mode forward|train|all] ...`.
//! `forward` ends at the last hidden states; `train` is a step of masked-LM training (forward, the head on the predicted
//! places only, loss, backward, clipping, AdamW), without dropout.

mod common;

use clap::{Parser, ValueEnum};
use shaderlm::{
    gpu::Autotune,
    graph::{Engine, EngineOptions, Graph, PlanOptions},
    models::{Bert, BertConfig, Encoder, Head, Mode as Recorded, Parameter, Text, heads::parameters, initialise},
    ops::{self, HostTensor, Tensor, TensorType},
    train::{Objective, Optimizer, Schedule, ScheduleShape, Settings, Trainer},
};
use std::error::Error;

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum Mode {
    Forward,
    Train,
    All,
}

#[derive(Parser)]
#[command(about = "Times a BERT on the adapter, a JSON line a repetition")]
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
    #[arg(long, default_value_t = 8)]
    batch: usize,
    /// Places of each row that are predicted in training.
    #[arg(long, default_value_t = 20)]
    predictions: usize,
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
    fn config(&self) -> BertConfig {
        BertConfig {
            vocab_size: self.vocab,
            hidden_size: self.width,
            num_hidden_layers: self.layers,
            num_attention_heads: self.heads,
            intermediate_size: 4 * self.width,
            max_position_embeddings: self.context,
            ..BertConfig::default()
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
    let bert = Bert { config: &config, mode: Recorded::default() };
    let list = parameters(&bert, Head::MaskedLm, 2, false)?;
    initialise(&list, &mut engine, 1)?;
    let shape = [args.batch, args.context];
    let ids: Vec<u32> = (0..args.batch * args.context).map(|i| (i * 7919 % args.vocab) as u32).collect();

    if args.mode != Mode::Train {
        let mut g = Graph::new();
        let input = g.input("ids", TensorType::u32(shape));
        let states = bert.hidden_states(&mut g, &Text { ids: input, types: None, keys: None })?;
        let mut plan = engine.compile(g, &[states[states.len() - 1]], &PlanOptions::named("forward"))?;
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
        let types: Vec<_> = list.iter().map(Parameter::trained).collect();
        let settings = Settings {
            batch: args.batch,
            accumulate: 1,
            context: args.context,
            optimizer: Optimizer::Adamw,
            schedule: Schedule { shape: ScheduleShape::Constant, peak: 1e-4, min: 0.0, warmup: 0, steps: 1000 },
            weight_decay: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
            bias_correction: true,
            clip: 1.0,
            seed: 1,
        };
        let loss = |g: &mut Graph, inputs: &[Tensor], _: Option<Tensor>| {
            let states = bert.hidden_states(g, &Text { ids: inputs[0], types: None, keys: None })?;
            let rows = ops::reshape(g, states[states.len() - 1], [args.batch * args.context, args.width])?;
            let picked = ops::embedding(g, rows, inputs[1])?;
            let encoder: &dyn Encoder = &bert;
            let logits = encoder.masked_lm(g, picked)?;
            Ok(ops::cross_entropy(g, logits, inputs[2], ops::IGNORE)?.into())
        };
        let slots = TensorType::u32([args.batch * args.predictions]);
        let inputs = vec![("ids", TensorType::u32(shape)), ("places", slots.clone()), ("labels", slots)];
        let mut trainer = Trainer::new(&mut engine, &types, &Objective { inputs, loss: &loss }, settings)?;
        eprintln!("train: {:?}", trainer.stats());
        // Every sixth place of a row or so, from its beginning.
        let step = (args.context / args.predictions).max(1);
        let places: Vec<u32> = (0..args.batch)
            .flat_map(|row| (0..args.predictions).map(move |i| (row * args.context + i * step % args.context) as u32))
            .collect();
        let labels = places.iter().map(|&place| (place as usize * 31 % args.vocab) as u32).collect();
        let slots = [places.len()];
        let batch = [vec![HostTensor::uints(shape, ids), HostTensor::uints(slots, places), HostTensor::uints(slots, labels)]];
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
