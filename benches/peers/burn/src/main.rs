//! Times burn on the GPT-2 and BERT shapes that shaderlm's benchmarks use, one JSON line a repetition.

mod encoder;
mod generate;
mod model;
#[path = "../../paced.rs"]
mod paced;
mod weights;

use std::path::PathBuf;

use burn::nn::loss::CrossEntropyLossConfig;
use burn::optim::{AdamWConfig, GradientsParams, ModuleOptimizer};
use burn::tensor::{Bool, Device, DeviceConfig, DeviceKind, Distribution, FloatDType, Int, Tensor, TensorData};
use clap::{Parser, ValueEnum};
use serde_json::{Value, json};

use encoder::Bert;
use model::{Attention, Config, Gelu, Gpt2};
use paced::{Outcome, Pace};

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Forward,
    Train,
    Matmul,
    /// The GPT-2's two and the product.
    All,
    /// A BERT's last hidden states.
    EncoderForward,
    /// A step of masked-LM training of that BERT.
    EncoderTrain,
    /// A prompt and what a GPT-2 writes after it, with a cache of keys and values.
    Generate,
}

/// What floating-point tensors are made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Precision {
    F32,
    F16,
}

impl Precision {
    fn name(self) -> &'static str {
        match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
        }
    }
}

#[derive(Parser, Debug)]
#[command(about = "Times burn on a GPT-2 and on a matrix product, a JSON line a repetition")]
struct Args {
    #[arg(long, default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..))]
    vocab: u32,
    #[arg(long, default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    context: u32,
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    width: u32,
    #[arg(long, default_value_t = 4)]
    layers: u32,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    heads: u32,
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..))]
    batch: u32,
    /// Places of each row that --mode encoder-train predicts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    predictions: u32,
    #[arg(long, value_enum, default_value = "all")]
    mode: Mode,
    /// Side of the square matrices of --mode matmul.
    #[arg(long, default_value_t = 768, value_parser = clap::value_parser!(u32).range(1..))]
    size: u32,
    #[arg(long, value_enum, default_value = "plain")]
    attention: Attention,
    #[arg(long, value_enum, default_value = "erf")]
    gelu: Gelu,
    #[arg(long = "type", value_enum, default_value = "f32")]
    precision: Precision,
    /// Tokens of the prompt of --mode generate.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..))]
    prompt_tokens: u32,
    /// Tokens that --mode generate writes, the one that comes with the prompt included.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    tokens: u32,
    /// Weights of --mode generate: safetensors with transformers' names; random ones by default.
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    #[command(flatten)]
    pace: Pace,
}

/// Times `work`, which returns only when the device has finished, and gives fields to add to the line.
fn time(args: &Args, device: &Device, what: &str, work: impl FnMut() -> Outcome<Value>) -> Outcome<()> {
    let adapter = device.identity().map_or_else(|| "unknown".to_owned(), |known| known.name);
    let mut about = json!({ "engine": "burn 0.22.1", "adapter": adapter, "fusion": cfg!(feature = "fusion"), "what": what });
    if what.starts_with("matmul") {
        about["flops"] = json!(2.0 * f64::from(args.size).powi(3));
    }
    args.pace.time(about, work)
}

/// Waits until the device has done everything that was queued.
fn wait(device: &Device) -> Outcome<()> {
    device.sync().map_err(|error| format!("the device failed: {error:?}").into())
}

/// Reads the first value of a tensor, which waits for the work behind it.
fn first(tensor: Tensor<1>) -> Outcome<f32> {
    let values = tensor
        .try_into_vec_as::<f32>()
        .map_err(|error| format!("could not read the result: {error:?}"))?;
    values.first().copied().ok_or_else(|| "the result is empty".into())
}

/// `count` ids below `vocab` from a fixed linear congruential generator.
fn random_ids(count: usize, vocab: u32, mut state: u64) -> Vec<i32> {
    (0..count)
        .map(|_| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            ((state >> 33) % u64::from(vocab)) as i32
        })
        .collect()
}

/// [1, 1, time, time], true where the key lies after the query.
fn causal_mask(time: usize, device: &Device) -> Tensor<4, Bool> {
    let mask: Vec<bool> = (0..time * time).map(|at| at % time > at / time).collect();
    Tensor::from_data(TensorData::new(mask, [1, 1, time, time]), device)
}

/// A batch: ids [batch, context], positions [1, context], labels [batch * context], causal mask.
struct Batch {
    ids: Tensor<2, Int>,
    positions: Tensor<2, Int>,
    labels: Tensor<1, Int>,
    mask: Tensor<4, Bool>,
}

impl Batch {
    fn new(args: &Args, device: &Device) -> Self {
        let (batch, time) = (args.batch as usize, args.context as usize);
        let tokens = |seed| random_ids(batch * time, args.vocab, seed);
        let positions: Vec<i32> = (0..time as i32).collect();
        Self {
            ids: Tensor::from_data(TensorData::new(tokens(1), [batch, time]), device),
            positions: Tensor::from_data(TensorData::new(positions, [1, time]), device),
            labels: Tensor::from_data(TensorData::new(tokens(2), [batch * time]), device),
            mask: causal_mask(time, device),
        }
    }
}

fn run_forward(args: &Args, config: &Config, device: &Device) -> Outcome<()> {
    let model = Gpt2::new(config, device);
    let batch = Batch::new(args, device);
    wait(device)?;
    time(args, device, "forward", || {
        let logits =
            model.forward(batch.ids.clone(), batch.positions.clone(), &batch.mask, config);
        let value = first(logits.slice([0..1, 0..1]).reshape([1]))?;
        Ok(json!({ "logit": value }))
    })
}

fn run_train(args: &Args, config: &Config, device: &Device) -> Outcome<()> {
    let device = device.clone().autodiff();
    let mut model = Gpt2::new(config, &device);
    let mut optimizer: ModuleOptimizer = AdamWConfig::new().with_weight_decay(0.1).init();
    let batch = Batch::new(args, &device);
    let criterion = CrossEntropyLossConfig::new().init(&device);
    wait(&device)?;
    time(args, &device, "train", || {
        let logits =
            model.forward(batch.ids.clone(), batch.positions.clone(), &batch.mask, config);
        let loss = criterion.forward(logits, batch.labels.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model.clone(), gradients);
        let value = first(loss.inner())?;
        wait(&device)?;
        Ok(json!({ "loss": value }))
    })
}

fn encoder_batch(args: &Args, device: &Device) -> encoder::Batch {
    let shape = [args.batch as usize, args.context as usize];
    let step = (args.context / args.predictions).max(1);
    let places: Vec<i32> = (0..args.batch)
        .flat_map(|row| (0..args.predictions).map(move |i| (row * args.context + i * step % args.context) as i32))
        .collect();
    let labels = random_ids(places.len(), args.vocab, 2);
    encoder::Batch::new(random_ids(shape[0] * shape[1], args.vocab, 1), shape, places, labels, device)
}

fn run_encoder_forward(args: &Args, config: &Config, device: &Device) -> Outcome<()> {
    let model = Bert::new(config, device);
    let batch = encoder_batch(args, device);
    wait(device)?;
    time(args, device, "forward", || {
        let last = model.forward(&batch);
        let value = first(last.slice([0..1, 0..1, 0..1]).reshape([1]))?;
        Ok(json!({ "state": value }))
    })
}

fn run_encoder_train(args: &Args, config: &Config, device: &Device) -> Outcome<()> {
    let device = device.clone().autodiff();
    let mut model = Bert::new(config, &device);
    let mut optimizer: ModuleOptimizer = AdamWConfig::new().with_weight_decay(0.1).init();
    let batch = encoder_batch(args, &device);
    let criterion = CrossEntropyLossConfig::new().init(&device);
    wait(&device)?;
    time(args, &device, "train", || {
        let loss = criterion.forward(model.masked_lm(&batch), batch.labels.clone());
        let gradients = GradientsParams::from_grads(loss.backward(), &model);
        model = optimizer.step(1e-3, model.clone(), gradients);
        let value = first(loss.inner())?;
        wait(&device)?;
        Ok(json!({ "loss": value }))
    })
}

fn run_matmul(args: &Args, device: &Device) -> Outcome<()> {
    let side = args.size as usize;
    let a = Tensor::<2>::random([side, side], Distribution::Default, device);
    let b = Tensor::<2>::random([side, side], Distribution::Default, device);
    wait(device)?;
    time(args, device, &format!("matmul {side}"), || {
        let product = a.clone().matmul(b.clone());
        first(product.slice([0..1, 0..1]).reshape([1]))?;
        Ok(json!({}))
    })
}

fn run(args: &Args) -> Outcome<()> {
    if args.width % args.heads != 0 {
        return Err(format!("--width {} is not a multiple of --heads {}", args.width, args.heads).into());
    }
    let config = Config {
        vocab: args.vocab as usize,
        context: args.context as usize,
        width: args.width as usize,
        layers: args.layers as usize,
        heads: args.heads as usize,
        attention: args.attention,
        gelu: args.gelu,
    };
    let mut device = Device::wgpu(DeviceKind::DefaultDevice);
    if args.precision == Precision::F16 {
        let floats = DeviceConfig::default().float_dtype(FloatDType::F16);
        device.configure(floats).map_err(|error| format!("f16: {error:?}"))?;
    }
    device.seed(1);
    if matches!(args.mode, Mode::Forward | Mode::All) {
        run_forward(args, &config, &device)?;
    }
    if matches!(args.mode, Mode::Train | Mode::All) {
        run_train(args, &config, &device)?;
    }
    if args.mode == Mode::EncoderForward {
        run_encoder_forward(args, &config, &device)?;
    }
    if args.mode == Mode::EncoderTrain {
        run_encoder_train(args, &config, &device)?;
    }
    if args.mode == Mode::Generate {
        generate::run(args, &config, &device)?;
    }
    if matches!(args.mode, Mode::Matmul | Mode::All) {
        run_matmul(args, &device)?;
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    paced::end("peer-burn", run(&Args::parse()))
}
