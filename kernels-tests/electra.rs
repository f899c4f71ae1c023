//! ELECTRA's pre-training step against an independent implementation in PyTorch: the fixtures in `fixtures/electra`, made by
//! its `make.py`. (Both networks by themselves are compared with transformers in `encoders.rs`.)

use crate::harness::{engine, nmse};
use serde_json::Value;
use shaderlm::{
    checkpoint::{SafeTensorsFile, StoredType},
    graph::{Engine, Graph, PlanOptions, gradients},
    models::{Config, ElectraConfig, Model, Parameter, ReplacedBatch, ReplacedObjective, ReplacedOutputs, ReplacedTokens, Tie},
    ops::{HostTensor, IGNORE, Tensor, TensorType},
    train::{Batch, Objective, Optimizer, Schedule, ScheduleShape, Settings, Trainer},
};
use std::{cell::Cell, path::PathBuf};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/electra").join(path)
}

/// A case: its entry in the table, its networks, and its ten steps.
struct Case {
    entry: Value,
    generator: Option<Model>,
    discriminator: Model,
    file: SafeTensorsFile,
}

fn cases() -> Vec<Case> {
    let entries: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(fixture("cases.json")).unwrap()).unwrap();
    assert!(entries.len() >= 9);
    let open = |folder: &str| Model::open(fixture(folder).to_str().unwrap()).unwrap_or_else(|e| panic!("{folder}: {e}"));
    let case = |entry: Value| {
        let name = entry["name"].as_str().unwrap().to_owned();
        Case {
            generator: (entry["objective"] != "mlm").then(|| open(&format!("{name}/generator"))),
            discriminator: open(&format!("{name}/discriminator")),
            file: SafeTensorsFile::open(&fixture(&name).join("steps.safetensors")).unwrap(),
            entry,
        }
    };
    entries.into_iter().map(case).collect()
}

fn electra(model: &Model) -> ElectraConfig {
    let Config::Electra(config) = &model.config else { panic!("{}", model.place()) };
    config.clone()
}

fn floats(file: &SafeTensorsFile, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap_or_else(|e| panic!("{e}")).to_f32().unwrap()
}

fn uints(file: &SafeTensorsFile, name: &str) -> HostTensor<f32> {
    let t = file.tensor(name).unwrap();
    assert_ne!(t.dtype, StoredType::F32);
    let values = t.to_i64().unwrap().into_iter().map(|x| if x == -100 { IGNORE } else { x as u32 });
    HostTensor::uints(t.shape.clone(), values.collect())
}

impl Case {
    fn name(&self) -> &str {
        self.entry["name"].as_str().unwrap()
    }
    fn number(&self, field: &str) -> f64 {
        self.entry[field].as_f64().unwrap()
    }
    fn step(&self) -> ReplacedTokens {
        let objective = match self.entry["objective"].as_str().unwrap() {
            "electra" => ReplacedObjective::Electra,
            "electra-15" => ReplacedObjective::MaskedOnly,
            "replace-mlm" => ReplacedObjective::ReplaceMlm,
            "all-tokens-mlm" => ReplacedObjective::AllTokensMlm,
            "mlm" => ReplacedObjective::Mlm,
            other => panic!("{other}"),
        };
        let tie = match self.entry["tie"].as_str().unwrap() {
            "all" => Tie::All,
            "tokens" => Tie::Tokens,
            "none" => Tie::None,
            other => panic!("{other}"),
        };
        let discriminator = electra(&self.discriminator);
        ReplacedTokens {
            generator: self.generator.as_ref().map_or(discriminator.clone(), electra),
            discriminator,
            tie,
            objective,
            temperature: self.number("temperature") as f32,
            generator_weight: self.number("mlm_weight") as f32,
            discriminator_weight: self.number("disc_weight") as f32,
        }
    }
    fn batch_sizes(&self) -> ReplacedBatch {
        let shape = self.file.tensor("ids.0").unwrap().shape.clone();
        let slots = self.file.tensor("masked_labels.0").unwrap().shape[0];
        ReplacedBatch { rows: shape[0], context: shape[1], predictions: slots / shape[0], dropout: 0.0, recompute: false }
    }
    fn values(&self, step: usize) -> Batch {
        let names = ["ids", "masked_ids", "token_type_ids", "attention_mask", "masked_positions", "masked_labels"];
        let mut values: Vec<_> = names.iter().map(|name| uints(&self.file, &format!("{name}.{step}"))).collect();
        let noise = format!("noise.{step}");
        values.push(if self.file.contains(&noise) { uints(&self.file, &noise) } else { HostTensor::uints([2], vec![0, 0]) });
        values
    }
    fn load(&self, step: &ReplacedTokens, engine: &mut Engine) {
        let fresh = step.load(self.generator.as_ref(), &self.discriminator, engine, 0).unwrap();
        assert!(fresh.is_empty(), "{}: {fresh:?}", self.name());
    }
}

fn close(what: &str, found: f32, expected: f32, bound: f32) {
    assert!((found / expected - 1.0).abs() <= bound, "{what}: {found} instead of {expected}");
}

#[test]
fn ten_steps_as_in_pytorch() {
    for case in cases() {
        for (device, engine) in [("GPU", engine()), ("CPU", Engine::cpu())] {
            ten_steps(&case, device, engine);
        }
    }
}

fn ten_steps(case: &Case, device: &str, mut engine: Engine) {
    let (step, sizes, file) = (case.step(), case.batch_sizes(), &case.file);
    step.check().unwrap();
    case.load(&step, &mut engine);
    let rates = floats(file, "lr");
    let schedule = Schedule { shape: ScheduleShape::Constant, peak: 1.0, min: 1.0, warmup: 0, steps: 10 };
    let settings = |rate: f32| Settings {
        batch: sizes.rows,
        accumulate: 1,
        context: sizes.context,
        optimizer: Optimizer::Adamw,
        schedule: Schedule { peak: rate, min: rate, ..schedule },
        weight_decay: 0.01,
        beta1: 0.9,
        beta2: 0.999,
        eps: 1e-6,
        clip: 1.0,
        precision: shaderlm::ops::Precision::F32,
        bias_correction: false,
        seed: 0,
    };
    let places = Cell::new(ReplacedOutputs::default());
    let loss = |g: &mut Graph, inputs: &[Tensor], rng: Option<Tensor>| {
        assert!(rng.is_some() || inputs.len() == 7);
        let (loss, outputs) = step.loss(g, inputs, None, &sizes)?;
        places.set(outputs);
        Ok(loss)
    };
    let list: Vec<_> = step.parameters().unwrap().iter().map(Parameter::trained).collect();
    assert_eq!(list.iter().map(|p| p.shape.elements()).sum::<usize>(), case.number("parameters") as usize, "{}", case.name());
    let (losses, norms) = (floats(file, "losses.f32"), floats(file, "grad_norms.f32"));
    for i in 0..10 {
        // The rates are the fixture's: a trainer for each, which goes on with the moments in the engine.
        let objective = Objective { inputs: step.inputs(&sizes), loss: &loss };
        let mut trainer = Trainer::new(&mut engine, &list, &objective, settings(rates[i])).unwrap();
        let what = format!("{} on the {device}, step {i}", case.name());
        let outcome = trainer.step(&mut engine, i, &[case.values(i)]).unwrap();
        let (others, at) = (&outcome.others[0], places.get());
        if let Some([_, replaced]) = at.replaced {
            let corrupted = uints(file, &format!("corrupted.{i}"));
            assert_eq!(others[at.replaced.unwrap()[0]].u(), corrupted.u(), "{what}: another sample");
            let (labels, mask) = (uints(file, &format!("labels.{i}")), uints(file, &format!("attention_mask.{i}")));
            let expected: Vec<u32> = labels.u().iter().zip(mask.u()).map(|(&l, &m)| if m == 0 { IGNORE } else { l }).collect();
            assert_eq!(others[replaced].u(), expected, "{what}: other labels");
        }
        if let Some([loss, _]) = at.generator {
            close(&format!("{what}: generator's loss"), others[loss].f()[0], floats(file, "mlm_losses.f32")[i], 1e-5);
        }
        close(&format!("{what}: second loss"), others[at.loss].f()[0], floats(file, "disc_losses.f32")[i], 1e-5);
        close(&format!("{what}: loss"), outcome.loss, losses[i], 1e-5);
        close(&format!("{what}: gradient norm"), outcome.grad_norm, norms[i], 1e-4);
    }
    let squares = |name: &str| engine.get(name).unwrap().unwrap().f().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
    let norm = list.iter().map(|p| squares(&p.name)).sum::<f64>().sqrt();
    close(&format!("{} on the {device}: parameters", case.name()), norm as f32, floats(file, "param_norm.f32")[0], 1e-5);
}

#[test]
fn every_gradient_as_in_pytorch() {
    for case in cases() {
        for (device, engine) in [("GPU", engine()), ("CPU", Engine::cpu())] {
            every_gradient(&case, &format!("{} on the {device}", case.name()), engine);
        }
    }
}

/// The gradients of the first step's loss, by the engine's names.
fn first_gradients(case: &Case, step: &ReplacedTokens, engine: &mut Engine) -> Vec<(String, Option<HostTensor<f32>>)> {
    case.load(step, engine);
    let sizes = case.batch_sizes();
    let mut g = Graph::new();
    let inputs: Vec<_> = step.inputs(&sizes).into_iter().map(|(name, ty)| g.input(name, ty)).collect();
    let (loss, _) = step.loss(&mut g, &inputs, None, &sizes).unwrap();
    let parameters = step.parameters().unwrap();
    let variables: Vec<_> = parameters.iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone())).unwrap()).collect();
    let grads = gradients(&mut g, loss.loss, &variables).unwrap();
    let wanted: Vec<_> = grads.iter().flatten().copied().collect();
    let mut plan = engine.compile(g, &wanted, &PlanOptions::default()).unwrap();
    inputs.iter().zip(case.values(0)).for_each(|(&input, value)| plan.set(input, value).unwrap());
    plan.run(engine).unwrap();
    parameters.iter().zip(grads).map(|(p, grad)| (p.name.clone(), grad.map(|t| plan.get(t).unwrap()))).collect()
}

fn every_gradient(case: &Case, what: &str, mut engine: Engine) {
    let found = first_gradients(case, &case.step(), &mut engine);
    let steepest = case.file.names().filter(|n| n.starts_with("grad.")).flat_map(|n| floats(&case.file, n));
    let steepest = steepest.fold(0f32, |a, x| a.max(x.abs()));
    let zero: Vec<_> = case.entry["zero_gradients"].as_array().unwrap().iter().map(|z| z.as_str().unwrap()).collect();
    let mut compared = 0;
    for (name, grad) in &found {
        let name = format!("grad.{name}");
        let expected = floats(&case.file, &name);
        let grad = grad.as_ref().unwrap_or_else(|| panic!("{what}: {name} has no gradient"));
        if zero.contains(&name.as_str()) {
            let off = grad.f().iter().fold(0f32, |a, x| a.max(x.abs()));
            assert!(off <= 1e-6 * steepest.max(1.0), "{what}: {name} should vanish, and is {off:e}");
        } else {
            let wide: Vec<f64> = expected.iter().map(|&x| f64::from(x)).collect();
            let error = nmse(grad.f(), &wide);
            assert!(error <= 1e-8, "{what}: {name}: NMSE {error:e}");
        }
        compared += 1;
    }
    assert_eq!(compared, case.file.names().filter(|n| n.starts_with("grad.")).count(), "{what}: one was not compared");
}

/// The discriminator's loss does not reach the generator, but through what they share.
#[test]
fn no_gradient_through_the_sample() {
    for case in cases().into_iter().filter(|case| case.entry["objective"] == "electra") {
        let step = ReplacedTokens { generator_weight: 0.0, ..case.step() };
        let mut shared = 0.0;
        for (name, grad) in first_gradients(&case, &step, &mut engine()) {
            let size = grad.map_or(0.0, |grad| grad.f().iter().map(|x| x.abs()).sum::<f32>());
            if name.starts_with("generator.") {
                assert_eq!(size, 0.0, "{}: {name}", case.name());
            } else if name.contains("word_embeddings") {
                shared = size;
            }
        }
        assert!(shared > 0.0, "{}: the discriminator's own embeddings learn", case.name());
    }
}

#[test]
fn networks_that_do_not_fit() {
    let case = cases().into_iter().next().unwrap();
    let step = case.step();
    let with = |change: &dyn Fn(&mut ElectraConfig), tie| {
        let mut step = ReplacedTokens { tie, ..step.clone() };
        change(&mut step.generator);
        step.check()
    };
    for (name, change) in [
        ("vocab_size", &(|c: &mut ElectraConfig| c.vocab_size += 1) as &dyn Fn(&mut ElectraConfig)),
        ("embedding_size", &|c: &mut ElectraConfig| c.embedding_size += 1),
        ("max_position_embeddings", &|c: &mut ElectraConfig| c.max_position_embeddings += 1),
        ("type_vocab_size", &|c: &mut ElectraConfig| c.type_vocab_size += 1),
    ] {
        let error = with(change, Tie::All).unwrap_err();
        assert!(error.contains(name), "{error}");
    }
    assert!(with(&|c| c.embedding_size += 1, Tie::None).is_ok());
    assert!(with(&|c| c.max_position_embeddings += 1, Tie::Tokens).is_ok());
    for (fraction, reason) in [(0.0, "no heads"), (0.001, "no heads"), (12.0, "num_attention_heads")] {
        let base = ElectraConfig { hidden_size: 300, num_attention_heads: 3, ..ElectraConfig::default() };
        let error = base.generator(fraction).map(|g| format!("{g:?}")).unwrap_err();
        assert!(error.contains(reason) || error.contains("not a multiple"), "{error}");
    }
    let base = ElectraConfig::named("base").unwrap().generator(1.0 / 3.0).unwrap();
    assert_eq!((base.hidden_size, base.num_attention_heads, base.intermediate_size, base.embedding_size), (256, 4, 1024, 768));
}
