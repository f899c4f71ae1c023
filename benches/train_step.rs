//! Times GPT-2's forward pass and training step (forward, loss, backward, clipping, AdamW) with random weights, a JSON line
//! a repetition: `cargo bench --bench train_step -- [--mode forward|train|all] [--vocab 4096] [--paced] ...`.

use clap::{Parser, ValueEnum};
use shaderlm::{
    graph::{DispatchTime, Engine, EngineOptions, Graph, PlanOptions},
    models::{Gpt2Config, Parameter, gpt2::{Context, Gpt2, parameters}, initialise},
    ops::{HostTensor, Tensor, TensorType},
    train::{Objective, Optimizer, Schedule, ScheduleShape, Settings, TokenBatch, Trainer},
};
use std::{collections::BTreeMap, error::Error, io::BufRead, time::Instant};

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
    /// Print where the time of a step goes, by kernel, instead of timing it.
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

    /// Runs `work` twice untimed, then once a repetition.
    fn time(&self, what: &str, mut work: impl FnMut() -> Result<(), Box<dyn Error>>) -> Result<(), Box<dyn Error>> {
        for _ in 0..2 {
            work()?;
        }
        if self.paced {
            println!("{}", serde_json::json!({ "what": what, "ready": true }));
        }
        let mut lines = std::io::stdin().lock().lines();
        for repetition in 0.. {
            if self.paced {
                if lines.next().transpose()?.is_none() {
                    break;
                }
            } else if repetition == self.repeats {
                break;
            }
            let start = Instant::now();
            work()?;
            println!("{}", serde_json::json!({ "what": what, "ms": start.elapsed().as_secs_f64() * 1e3 }));
        }
        Ok(())
    }
}

/// A row a kernel variant, the longest first. Short dispatches are overstated: each is submitted and waited for by itself.
fn print_profile(times: &[DispatchTime]) {
    let mut rows: BTreeMap<&str, (usize, f64, u64)> = BTreeMap::new();
    for t in times {
        let row = rows.entry(&t.kernel).or_default();
        *row = (row.0 + 1, row.1 + t.time.as_secs_f64() * 1e3, row.2 + t.flops);
    }
    let total: f64 = rows.values().map(|row| row.1).sum();
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    println!("{:>6} {:>9} {:>6} {:>9}  kernel", "calls", "ms", "share", "GFLOP/s");
    for (kernel, (calls, ms, flops)) in rows {
        println!("{calls:>6} {ms:>9.2} {:>5.1}% {:>9.2}  {kernel}", 100.0 * ms / total, flops as f64 / ms / 1e6);
    }
    println!("{:>6} {total:>9.2}", times.len());
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let device = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into()).parse()?;
    let mut engine = Engine::new(&EngineOptions { device, notice: true })?;
    eprintln!("{}", engine.device_name());
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
        let mut plan = engine.compile(g, &[logits], &PlanOptions::default())?;
        plan.set(input, HostTensor::uints(shape, ids.clone()))?;
        eprintln!("forward: {:?}", plan.stats());
        args.time("forward", || {
            plan.run(&mut engine)?;
            plan.wait()?;
            Ok(())
        })?;
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
        if args.profile {
            for step in 0..2 {
                trainer.step(&mut engine, step, &batch)?;
            }
            print_profile(&trainer.profile()?);
            return Ok(());
        }
        args.time("train", || {
            trainer.step(&mut engine, step, &batch)?;
            step += 1;
            Ok(())
        })?;
    }
    Ok(())
}
