//! Times ELECTRA's training step against its parts: `cargo bench --bench electra -- [--context N ...]`. The whole is the
//! generator's prediction, the draw, the discriminator, both losses and one optimizer; the parts are a step of the generator
//! alone (a masked LM) and a step of the discriminator alone (on text that is corrupted already), each with an optimizer of
//! its own. They alternate, and the last line is the ratio of the medians.

mod common;

use clap::Parser;
use shaderlm::{
    graph::Graph,
    models::{Electra, ElectraConfig, Encoder, Mode, Parameter, ReplacedBatch, ReplacedObjective, ReplacedTokens, Text, Tie},
    ops::{self, HostTensor, IGNORE, OpError, Tensor, TensorType},
    train::{Batch, Loss, Objective, ParameterType, Schedule, ScheduleShape, Settings, Trainer},
};
use std::{error::Error, time::Instant};

#[derive(Parser)]
#[command(about = "Times ELECTRA's training step and its parts, a JSON line a repetition")]
struct Args {
    #[arg(long, default_value_t = 4096)]
    vocab: usize,
    #[arg(long, default_value_t = 128)]
    context: usize,
    #[arg(long, default_value_t = 256)]
    width: usize,
    #[arg(long, default_value_t = 128)]
    embedding_width: usize,
    #[arg(long, default_value_t = 4)]
    layers: usize,
    #[arg(long, default_value_t = 4)]
    heads: usize,
    #[arg(long, default_value_t = 0.25)]
    generator_fraction: f32,
    #[arg(long, default_value_t = 8)]
    batch: usize,
    #[arg(long, default_value_t = 7)]
    repeats: usize,
    /// Print where the whole step's time goes, by kernel, instead of timing it.
    #[arg(long)]
    profile: bool,
    /// Given by cargo bench.
    #[arg(long, hide = true)]
    bench: bool,
}

fn settings(args: &Args) -> Settings {
    Settings {
        schedule: Schedule { shape: ScheduleShape::Constant, peak: 1e-5, min: 1e-5, warmup: 0, steps: 1000 },
        weight_decay: 0.01,
        eps: 1e-6,
        bias_correction: false,
        ..common::settings(args.batch, args.context)
    }
}

/// A trained thing, and the values that it is fed.
struct Contender {
    name: &'static str,
    trainer: Trainer,
    values: Batch,
    times: Vec<f64>,
}

/// A network's last hidden state, by the names that `rename` gives its variables.
fn last(g: &mut Graph, network: &Electra<'_>, ids: Tensor, types: Tensor, keys: Tensor) -> Result<Tensor, OpError> {
    let states = network.hidden_states(g, &Text { ids, types: Some(types), keys: Some(keys) })?;
    Ok(states[states.len() - 1])
}

fn named(list: Vec<Parameter>, rename: &dyn Fn(&str) -> String) -> Vec<ParameterType> {
    list.iter().map(|p| ParameterType { name: rename(&p.name), ..p.trained() }).collect()
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    eprintln!("{}", engine.device_name());
    let profiler = args.profile.then(|| engine.profile());
    let discriminator = ElectraConfig {
        vocab_size: args.vocab,
        hidden_size: args.width,
        embedding_size: args.embedding_width,
        num_hidden_layers: args.layers,
        num_attention_heads: args.heads,
        intermediate_size: 4 * args.width,
        max_position_embeddings: args.context,
        ..ElectraConfig::default()
    };
    discriminator.check()?;
    let step = ReplacedTokens {
        generator: discriminator.generator(args.generator_fraction)?,
        discriminator,
        tie: Tie::All,
        objective: ReplacedObjective::Electra,
        temperature: 1.0,
        generator_weight: 1.0,
        discriminator_weight: 50.0,
    };
    step.initialise(&mut engine, 1)?;
    let predictions = ((0.155 * args.context as f32) as usize).max(1);
    let sizes = ReplacedBatch { rows: args.batch, context: args.context, predictions, dropout: 0.0, recompute: false };

    // Text of no meaning: times do not depend on it.
    let (shape, slots) = ([args.batch, args.context], [args.batch * predictions]);
    let ids: Vec<u32> = (0..args.batch * args.context).map(|i| (i * 7919 % args.vocab) as u32).collect();
    let stride = args.context / predictions;
    let places: Vec<u32> =
        (0..args.batch).flat_map(|row| (0..predictions).map(move |i| (row * args.context + i * stride) as u32)).collect();
    let labels: Vec<u32> = places.iter().map(|&place| ids[place as usize]).collect();
    let text = |values: Vec<u32>| HostTensor::uints(shape, values);
    let (none, all) = (text(vec![0; ids.len()]), text(vec![1; ids.len()]));
    let (places, labels) = (HostTensor::uints(slots, places), HostTensor::uints(slots, labels));
    let ids = text(ids);
    let replaced = text((0..args.batch * args.context).map(|i| u32::from(i % 10 == 0)).collect());

    let whole = |g: &mut Graph, i: &[Tensor], rng: Option<Tensor>| Ok(step.loss(g, i, rng, &sizes)?.0);
    let types: Vec<_> = step.parameters()?.iter().map(Parameter::trained).collect();
    let objective = Objective { inputs: step.inputs(&sizes), loss: &whole };
    let values = vec![
        ids.clone(),
        ids.clone(),
        none.clone(),
        all.clone(),
        places.clone(),
        labels.clone(),
        HostTensor::uints([2], vec![1, 2]),
    ];
    let mut contenders = vec![Contender {
        name: "whole",
        trainer: Trainer::new(&mut engine, &types, &objective, settings(&args))?,
        values,
        times: Vec::new(),
    }];

    let generator = |g: &mut Graph, i: &[Tensor], _: Option<Tensor>| -> Result<Loss, OpError> {
        g.renamed(step.generator_variable(), |g| {
            let network = Electra { config: &step.generator, mode: Mode::default() };
            let state = last(g, &network, i[0], i[1], i[2])?;
            let rows = ops::reshape(g, state, [args.batch * args.context, step.generator.hidden_size])?;
            let picked = ops::embedding(g, rows, i[3])?;
            let logits = (&network as &dyn Encoder).whole_masked_lm(g, picked)?;
            Ok(ops::cross_entropy(g, logits, i[4], IGNORE)?.into())
        })
    };
    let (t, s) = (TensorType::u32(shape), TensorType::u32(slots));
    let inputs = vec![("ids", t.clone()), ("types", t.clone()), ("mask", t.clone()), ("places", s.clone()), ("labels", s)];
    let types = named(step.generator_parameters()?, &step.generator_variable());
    contenders.push(Contender {
        name: "generator",
        trainer: Trainer::new(&mut engine, &types, &Objective { inputs, loss: &generator }, settings(&args))?,
        values: vec![ids.clone(), none.clone(), all.clone(), places, labels],
        times: Vec::new(),
    });

    let detector = |g: &mut Graph, i: &[Tensor], _: Option<Tensor>| -> Result<Loss, OpError> {
        g.renamed(step.discriminator_variable(), |g| {
            let network = Electra { config: &step.discriminator, mode: Mode::default() };
            let state = last(g, &network, i[0], i[1], i[2])?;
            let logits = (&network as &dyn Encoder).replaced(g, state)?;
            Ok(ops::binary_cross_entropy(g, logits, i[3])?.into())
        })
    };
    let inputs = vec![("ids", t.clone()), ("types", t.clone()), ("mask", t.clone()), ("replaced", t)];
    let types = named(step.discriminator_parameters()?, &step.discriminator_variable());
    contenders.push(Contender {
        name: "discriminator",
        trainer: Trainer::new(&mut engine, &types, &Objective { inputs, loss: &detector }, settings(&args))?,
        values: vec![ids, none, all, replaced],
        times: Vec::new(),
    });

    if let Some(profiler) = profiler {
        let (whole, mut step) = (&mut contenders[0], 0);
        return common::print_profile(&mut engine, &profiler, |engine| {
            whole.trainer.step(engine, step, std::slice::from_ref(&whole.values))?;
            step += 1;
            Ok(())
        });
    }
    // Two of each unmeasured: pipelines are compiled and caches filled.
    for repetition in 0..args.repeats + 2 {
        for contender in &mut contenders {
            let begin = Instant::now();
            contender.trainer.step(&mut engine, repetition, std::slice::from_ref(&contender.values))?;
            if repetition >= 2 {
                let ms = begin.elapsed().as_secs_f64() * 1e3;
                println!("{}", serde_json::json!({ "what": contender.name, "ms": ms }));
                contender.times.push(ms);
            }
        }
    }
    let median = |times: &[f64]| {
        let mut sorted = times.to_vec();
        sorted.sort_by(f64::total_cmp);
        sorted[sorted.len() / 2]
    };
    let medians: Vec<_> = contenders.iter().map(|c| median(&c.times)).collect();
    let ratio = medians[0] / (medians[1] + medians[2]);
    println!(
        "{}",
        serde_json::json!({ "whole": medians[0], "generator": medians[1], "discriminator": medians[2], "ratio": ratio })
    );
    Ok(())
}
