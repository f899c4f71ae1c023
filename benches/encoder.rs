//! Times an encoder with random weights: `cargo bench --bench encoder -- [--model albert-base|electra-small] [--mode ...] ...`;
//! without --model a BERT of the given sizes. `forward` ends at the last hidden states; `train` is a step of masked-LM training
//! (forward, the head on the predicted places only, loss, backward, clipping, AdamW), without dropout; of an ELECTRA
//! it is the discriminator's (every token judged), and its whole step is the bench `electra`.

mod common;

use clap::Parser;
use common::{Case, Shape, Steps};
use shaderlm::{
    graph::{Engine, Graph},
    models::{
        AlbertConfig, BertConfig, Config, ElectraConfig, Encoder, Head, Mode as Recorded, Parameter, Text, encoder,
        heads::parameters, initialise,
    },
    ops::{self, HostTensor, Tensor, TensorType},
    train::{Objective, Trainer},
};
use std::error::Error;

#[derive(Parser)]
#[command(about = "Times an encoder on the adapter (SHADERLM_DEVICE chooses another)")]
struct Args {
    /// This model instead of a BERT of --vocab, --width, --layers and --heads
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
    #[arg(long, value_delimiter = ',', default_value = "8")]
    batch: Vec<usize>,
    /// Places of each row that are predicted in training.
    #[arg(long, default_value_t = 20)]
    predictions: usize,
    #[command(flatten)]
    steps: Steps,
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
                max_position_embeddings: self.steps.context,
                ..BertConfig::default()
            }),
            Some(Shape::AlbertBase) => Config::Albert(AlbertConfig::named("base").ok_or("no albert base")?),
            Some(Shape::ElectraSmall) => Config::Electra(ElectraConfig::named("small").ok_or("no electra small")?),
            Some(other) => {
                return Err(format!("--model {}: no encoder; it is the bench train_step's", other.numbers().name).into());
            }
        })
    }
}

fn ids(count: usize, vocab: usize) -> Vec<u32> {
    (0..count).map(|i| (i * 7919 % vocab) as u32).collect()
}

/// The last hidden states of a batch.
fn forward<'a>(args: &Args, engine: &mut Engine, network: &dyn Encoder, batch: usize) -> Result<Case<'a>, Box<dyn Error>> {
    let shape = [batch, args.steps.context];
    let mut g = Graph::new();
    let input = g.input("ids", TensorType::u32(shape));
    let states = network.hidden_states(&mut g, &Text { ids: input, types: None, keys: None })?;
    let mut plan = engine.compile(g, &[states[states.len() - 1]], &args.steps.options())?;
    plan.set(input, HostTensor::uints(shape, ids(batch * args.steps.context, network.sizes()?.vocab)))?;
    eprintln!("forward: {:?}", plan.stats());
    let flops = plan.stats().flops;
    Ok(args.steps.case("forward", batch, flops, common::run_plan(plan)))
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
    let (shape, count, sizes) = ([batch, args.steps.context], batch * args.steps.context, network.sizes()?);
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
        let logits = network.whole_masked_lm(g, picked)?;
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
        let step = (args.steps.context / args.predictions).max(1);
        let places: Vec<u32> = (0..batch)
            .flat_map(|row| (0..args.predictions).map(move |i| (row * args.steps.context + i * step % args.steps.context) as u32))
            .collect();
        let labels = places.iter().map(|&place| (place as usize * 31 % sizes.vocab) as u32).collect();
        let inputs =
            vec![("ids", TensorType::u32(shape)), ("places", TensorType::u32(slots)), ("labels", TensorType::u32(slots))];
        (inputs, vec![ids, HostTensor::uints(slots, places), HostTensor::uints(slots, labels)])
    };
    let trainer = Trainer::new(engine, &types, &Objective { inputs, loss: &loss }, args.steps.settings(batch))?;
    eprintln!("train: {:?}", trainer.stats());
    let flops = trainer.stats().flops;
    Ok(args.steps.case("train", batch, flops, common::run_trainer(trainer, feed)))
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    eprintln!("{}", engine.device_name());
    let profiler = args.steps.profiler(&mut engine);
    let config = args.config()?;
    let network = encoder(&config, Recorded::default()).ok_or("no encoder")?;
    let head = if args.model == Some(Shape::ElectraSmall) { Head::Replaced } else { Head::MaskedLm };
    let list = parameters(network.as_ref(), head, 2, false)?;
    initialise(&list, &mut engine, 1)?;
    args.steps.go("encoder", &mut engine, &args.batch, profiler.as_deref(), |engine, batch| {
        let mut cases = Vec::new();
        if args.steps.mode.forward() {
            cases.push(forward(&args, engine, network.as_ref(), batch)?);
        }
        if args.steps.mode.train() {
            cases.push(train(&args, engine, network.as_ref(), &list, batch)?);
        }
        Ok(cases)
    })
}
