//! Times candle's CPU on the shapes that shaderlm's benchmarks use, one JSON line a repetition.

mod model;
#[path = "../../paced.rs"]
mod paced;

use candle_core::{D, Device, Tensor};
use candle_nn::{AdamW, Optimizer, ParamsAdamW};
use clap::{Parser, ValueEnum};
use model::{Gpt2, Sizes, causal_mask, softmax_attention};
use paced::{Outcome, Pace};
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    /// GPT-2's logits.
    Forward,
    /// A step of GPT-2's training: forward, loss, backward, AdamW.
    Train,
    /// A product, --shape M,N,K,nn|nt|tn.
    Matmul,
    /// Attention's forward pass on q, k and v.
    Attention,
}

#[derive(Parser, Debug)]
#[command(about = "Times candle's CPU, a JSON line a repetition")]
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
    /// M,N,K and nn, nt or tn: which of the factors is stored transposed.
    #[arg(long, default_value = "768,768,768,nn")]
    shape: String,
    /// --mode attention: a query sees only keys up to its own place.
    #[arg(long)]
    causal: bool,
    #[command(flatten)]
    pace: Pace,
}

/// Times `work`, whose result is a number that depends on all of it.
fn time(args: &Args, what: &str, mut work: impl FnMut() -> Outcome<f32>) -> Outcome<()> {
    args.pace.time(json!({ "engine": "candle 0.11.1", "what": what }), || Ok(json!({ "value": work()? })))
}

fn product(args: &Args) -> Outcome<()> {
    let ([m, n, k], layout) = paced::product(&args.shape)?;
    let random = |rows, columns| Tensor::randn(0f32, 1.0, (rows, columns), &Device::Cpu);
    let (a, b) = match layout {
        "nn" => (random(m, k)?, random(k, n)?),
        "nt" => (random(m, k)?, random(n, k)?.t()?),
        _ => (random(k, m)?.t()?, random(k, n)?),
    };
    time(args, "matmul", || Ok(a.matmul(&b)?.get(0)?.get(0)?.to_scalar()?))
}

fn attention(args: &Args) -> Outcome<()> {
    let (batch, time_steps, width) = (args.batch, args.context, args.width);
    let qkv = Tensor::randn(0f32, 1.0, (batch, time_steps, 3 * width), &Device::Cpu)?;
    let mask = if args.causal { Some(causal_mask(time_steps)?) } else { None };
    time(args, "attention", || {
        let y = softmax_attention(&qkv, args.heads, mask.as_ref(), false)?;
        Ok(y.flatten_all()?.get(0)?.to_scalar()?)
    })
}

fn ids(args: &Args, step: usize) -> Outcome<Tensor> {
    let (batch, context) = (args.batch, args.context);
    let ids: Vec<u32> = (0..batch * context).map(|i| ((i * 7919 + step) % args.vocab) as u32).collect();
    Ok(Tensor::from_vec(ids, (batch, context), &Device::Cpu)?)
}

fn gpt2(args: &Args) -> Outcome<()> {
    let sizes = Sizes { vocab: args.vocab, context: args.context, width: args.width, layers: args.layers, heads: args.heads };
    let model = Gpt2::new(sizes)?;
    let ids_now = ids(args, 0)?;
    if args.mode == Mode::Forward {
        return time(args, "forward", || Ok(model.logits(&ids_now, false)?.get(0)?.get(0)?.to_scalar()?));
    }
    let targets = ids(args, 7919)?.flatten_all()?;
    let mut optimizer =
        AdamW::new(model.variables(), ParamsAdamW { lr: 1e-4, weight_decay: 0.1, ..ParamsAdamW::default() })?;
    time(args, "train", || {
        let log = candle_nn::ops::log_softmax(&model.logits(&ids_now, true)?, D::Minus1)?;
        let loss = candle_nn::loss::nll(&log, &targets)?;
        optimizer.backward_step(&loss)?;
        Ok(loss.to_scalar()?)
    })
}

fn main() -> std::process::ExitCode {
    let args = Args::parse();
    let done = match args.mode {
        Mode::Matmul => product(&args),
        Mode::Attention => attention(&args),
        Mode::Forward | Mode::Train => gpt2(&args),
    };
    paced::end("peer-candle", done)
}
