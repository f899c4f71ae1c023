//! Times forge-ml's GPT-2, one JSON line a repetition. Its operations take one sequence: a batch is one sequence after another,
//! their gradients added up, as its own training example does.

#[path = "../../paced.rs"]
mod paced;

use clap::{Parser, ValueEnum};
use forge::{
    Device, Gpt2, Gpt2Config, Tensor, ops,
    optim::{AdamW, AdamWOpts},
};
use paced::{Outcome, Pace};
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Forward,
    Train,
}

#[derive(Parser, Debug)]
#[command(about = "Times forge-ml's GPT-2 on the adapter, a JSON line a repetition")]
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
    #[arg(long, value_enum, default_value = "forward")]
    mode: Mode,
    #[command(flatten)]
    pace: Pace,
}

/// Times `work`, whose result is a number that depends on all of it.
fn time(args: &Args, device: &str, what: &str, mut work: impl FnMut() -> Outcome<f32>) -> Outcome<()> {
    let about = json!({ "engine": "forge-ml 0.3.0", "device": device, "what": what });
    args.pace.time(about, || Ok(json!({ "value": work()? })))
}

fn run(args: &Args) -> Outcome<()> {
    let device = Device::wgpu()?;
    let config = Gpt2Config {
        n_layer: args.layers,
        n_head: args.heads,
        n_embd: args.width,
        n_ctx: args.context,
        vocab_size: args.vocab,
        layer_norm_epsilon: 1e-5,
        eos_token_id: None,
    };
    let mut model = Gpt2::init_random(config, &device, 1)?;
    let row = |n: usize, shift: usize| -> Vec<u32> {
        (0..args.context).map(|i| (((n * args.context + i) * 7919 + shift) % args.vocab) as u32).collect()
    };
    let rows: Vec<_> = (0..args.batch).map(|n| (row(n, 0), row(n, 7919))).collect();
    if args.mode == Mode::Forward {
        return time(args, &device.describe(), "forward", || {
            let logits = rows.iter().map(|(ids, _)| model.forward(ids)).collect::<Result<Vec<_>, _>>()?;
            // Small, and read back only when all before it is done: a whole row's logits would be timed as a copy.
            let last = logits.last().ok_or("no rows")?;
            let zero = Tensor::from_u32(&vec![0; args.context], [args.context], &device)?;
            Ok(ops::gather_nll(last, &zero)?.to_vec_f32()?[0])
        });
    }
    let decays: Vec<bool> = model.params()?.iter().map(|p| p.shape().dims().len() > 1).collect();
    let opts = AdamWOpts { lr: 1e-4, beta2: 0.999, ..AdamWOpts::default() };
    let mut optimizer = {
        let parameters = model.params()?;
        let listed: Vec<_> = parameters.iter().copied().zip(decays).collect();
        AdamW::new(&listed, opts)?
    };
    time(args, &device.describe(), "train", || {
        let (mut total, mut sums): (f32, Option<Vec<Tensor>>) = (0.0, None);
        for (ids, targets) in &rows {
            let (loss, grads) = model.loss_grads(ids, targets, 0.0, 1)?;
            total += loss / rows.len() as f32;
            sums = Some(match sums {
                None => grads,
                Some(sums) => sums.iter().zip(&grads).map(|(a, b)| ops::add(a, b)).collect::<Result<_, _>>()?,
            });
        }
        let sums = sums.ok_or("no rows")?;
        let grads = sums.iter().map(|g| ops::scale(g, 1.0 / rows.len() as f32)).collect::<Result<Vec<_>, _>>()?;
        optimizer.step(&mut model.params_mut()?, &grads)?;
        // Reading a parameter waits for the step.
        model.params()?.last().ok_or("no parameters")?.to_vec_f32()?;
        Ok(total)
    })
}

fn main() -> std::process::ExitCode {
    paced::end("peer-forge-ml", run(&Args::parse()))
}
