//! GPT-2 against Hugging Face transformers: the fixtures in `fixtures/gpt2`, made by its `make.py`.

use crate::harness::{engine, nmse};
use serde_json::Value;
use shaderlm::{
    checkpoint::SafeTensorsFile,
    graph::{Engine, Graph, PlanOptions, gradients},
    models::{
        Gpt2Config, Missing, Model, Parameter,
        generate::{Generator, Sampling},
        gpt2::{Context, Gpt2, parameters},
    },
    ops::{HostTensor, IGNORE, StopTokens, Tensor, TensorType},
    train::{Objective, Optimizer, Schedule, ScheduleShape, Settings, TokenBatch, Trainer, next_tokens},
};
use std::{collections::HashMap, path::PathBuf};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/gpt2").join(path)
}

fn open(folder: &str) -> Model {
    Model::open(fixture(folder).to_str().unwrap()).unwrap_or_else(|e| panic!("{folder}: {e}"))
}

fn config(model: &Model) -> &Gpt2Config {
    model.gpt2().unwrap()
}

fn upload(model: &Model, engine: &mut Engine) {
    let fresh = model.upload(engine, &parameters(config(model)), Missing::Refuse).unwrap_or_else(|e| panic!("{e}"));
    assert!(fresh.is_empty());
}

/// Both ways of running the graph.
fn engines() -> [(&'static str, Engine); 2] {
    [("GPU", engine()), ("CPU", Engine::cpu())]
}

fn uints(file: &SafeTensorsFile, name: &str) -> (Vec<usize>, Vec<u32>) {
    let tensor = file.tensor(name).unwrap();
    let ids = tensor.to_i64().unwrap().into_iter().map(|x| if x < 0 { IGNORE } else { x as u32 }).collect();
    (tensor.shape.clone(), ids)
}

fn floats(file: &SafeTensorsFile, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().to_f32().unwrap()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// Largest difference over the rows that `mask` counts.
fn largest(found: &[f32], expected: &[f32], mask: &[u32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let width = found.len() / mask.len();
    let rows = found.chunks(width).zip(expected.chunks(width)).zip(mask).filter(|(_, m)| **m != 0);
    rows.flat_map(|((f, e), _)| f.iter().zip(e)).map(|(f, e)| (f - e).abs()).fold(0.0, |a, b| if b <= a { a } else { b })
}

/// Logits, hidden states, loss and every gradient of one case file, as far as it has them.
fn check_case(folder: &str, case: &str) {
    let model = open(folder);
    let file = SafeTensorsFile::open(&fixture(folder).join(case)).unwrap();
    let (shape, ids) = uints(&file, "input_ids");
    let [batch, time] = shape[..] else { panic!("{shape:?}") };
    let mask = if file.contains("attention_mask") { uints(&file, "attention_mask").1 } else { vec![1; batch * time] };
    for (device, mut engine) in engines() {
        let what = format!("{folder}/{case} on the {device}");
        upload(&model, &mut engine);
        let gpt2 = Gpt2::new(config(&model));
        let mut g = Graph::new();
        let input = g.input("ids", TensorType::u32([batch, time]));
        let keys = g.input("keys", TensorType::u32([batch, time]));
        let targets = g.input("targets", TensorType::u32([batch, time]));
        let states = gpt2.hidden_states(&mut g, input, Context::Whole { keys: Some(keys) }).unwrap();
        let logits = gpt2.head(&mut g, states[states.len() - 1]).unwrap();
        let loss = shaderlm::ops::cross_entropy(&mut g, logits, targets, IGNORE).unwrap();
        let list = parameters(config(&model));
        let variables: Vec<_> = list.iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone())).unwrap()).collect();
        let grads: Vec<_> = gradients(&mut g, loss, &variables).unwrap().into_iter().map(Option::unwrap).collect();
        let mut outputs = vec![logits, loss];
        outputs.extend(&states);
        outputs.extend(&grads);
        let mut plan = engine.compile(g, &outputs, &PlanOptions::default()).unwrap();
        plan.set(input, HostTensor::uints([batch, time], ids.clone())).unwrap();
        plan.set(keys, HostTensor::uints([batch, time], mask.clone())).unwrap();
        let labels = if file.contains("labels") { uints(&file, "labels").1 } else { vec![IGNORE; batch * time] };
        plan.set(targets, HostTensor::uints([batch, time], next_tokens(&labels, time))).unwrap();
        plan.run(&mut engine).unwrap();

        let off = largest(plan.get(logits).unwrap().f(), &floats(&file, "logits"), &mask);
        assert!(off <= 1e-4, "{what}: logits differ by {off}");
        let mut checked = 1;
        for (n, &state) in states.iter().enumerate() {
            let name = format!("hidden_states.{n}");
            if file.contains(&name) {
                let off = largest(plan.get(state).unwrap().f(), &floats(&file, &name), &mask);
                assert!(off <= 1e-4, "{what}: {name} differs by {off}");
                checked += 1;
            }
        }
        if file.contains("loss") {
            let (found, expected) = (plan.get(loss).unwrap().f()[0], floats(&file, "loss")[0]);
            assert!((found / expected - 1.0).abs() < 1e-5, "{what}: loss {found}, not {expected}");
            checked += 1;
        }
        for (parameter, &grad) in list.iter().zip(&grads) {
            let name = format!("grad.{}", parameter.name);
            if file.contains(&name) {
                let error = nmse(plan.get(grad).unwrap().f(), &wide(&floats(&file, &name)));
                assert!(error <= 1e-8, "{what}: {name}: NMSE {error:e}");
                checked += 1;
            }
        }
        let compared = file.names().filter(|n| !["input_ids", "attention_mask", "labels"].contains(n)).count();
        assert_eq!(checked, compared, "{what}: something in the file was not compared");
    }
}

#[test]
fn logits_states_loss_and_gradients() {
    for folder in ["tiny", "odd"] {
        for case in ["case.safetensors", "case_left.safetensors"] {
            check_case(folder, case);
        }
    }
}

#[test]
fn half_precision_shards_and_old_checkpoints() {
    check_case("bf16", "case.safetensors");
    check_case("f16", "case.safetensors");
    // The same weights as tiny's, stored otherwise.
    let (tiny, mut first) = (open("tiny"), engine());
    upload(&tiny, &mut first);
    for folder in ["sharded", "old"] {
        let mut second = engine();
        upload(&open(folder), &mut second);
        for p in parameters(config(&tiny)) {
            let (a, b) = (first.get(&p.name).unwrap().unwrap(), second.get(&p.name).unwrap().unwrap());
            assert_eq!(a.f(), b.f(), "{folder}: {}", p.name);
        }
    }
}

#[test]
fn ten_steps_of_adamw() {
    for folder in ["tiny", "odd"] {
        let model = open(folder);
        let file = SafeTensorsFile::open(&fixture(folder).join("steps.safetensors")).unwrap();
        let setting: Value = serde_json::from_str(&file.metadata()["settings"]).unwrap();
        assert_eq!(setting["lr"].as_f64(), Some(1e-3), "{setting}");
        let (shape, _) = uints(&file, "input_ids.0");
        let [batch, time] = shape[..] else { panic!("{shape:?}") };
        let expected = floats(&file, "losses.f32");
        let norms = floats(&file, "grad_norms.f32");
        for (device, mut engine) in engines() {
            upload(&model, &mut engine);
            let types: Vec<_> = parameters(config(&model)).iter().map(Parameter::trained).collect();
            let settings = Settings {
                batch,
                accumulate: 1,
                context: time,
                optimizer: Optimizer::Adamw,
                schedule: Schedule { shape: ScheduleShape::Constant, peak: 1e-3, min: 0.0, warmup: 0, steps: 10 },
                weight_decay: 0.1,
                beta1: 0.9,
                beta2: 0.99,
                eps: 1e-8,
                bias_correction: true,
                clip: 1.0,
                precision: shaderlm::ops::Precision::F32,
                seed: 0,
            };
            let loss =
                |g: &mut Graph, i: &[Tensor], _: Option<Tensor>| Ok(Gpt2::new(config(&model)).loss(g, i[0], i[1], None)?.into());
            let inputs = ["ids", "targets"].map(|name| (name, TensorType::u32([batch, time]))).to_vec();
            let mut trainer = Trainer::new(&mut engine, &types, &Objective { inputs, loss: &loss }, settings).unwrap();
            for step in 0..10 {
                let ids = uints(&file, &format!("input_ids.{step}")).1;
                let targets = next_tokens(&ids, time);
                let outcome = trainer.step(&mut engine, step, &[TokenBatch { ids, targets }.feed(time)]).unwrap();
                let what = format!("{folder} on the {device}, step {step}");
                let off = (outcome.loss / expected[step] - 1.0).abs();
                assert!(off <= 1e-5, "{what}: loss {} instead of {}, {off:e}", outcome.loss, expected[step]);
                let off = (outcome.grad_norm / norms[step] - 1.0).abs();
                assert!(off <= 1e-4, "{what}: gradient norm {} instead of {}", outcome.grad_norm, norms[step]);
            }
            let mut sum = 0.0;
            for p in parameters(config(&model)) {
                sum += engine.get(&p.name).unwrap().unwrap().f().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>();
            }
            let norm = f64::from(floats(&file, "param_norm.f32")[0]);
            assert!((sum.sqrt() / norm - 1.0).abs() < 1e-5, "{folder} on the {device}: norm {} not {norm}", sum.sqrt());
        }
    }
}

#[test]
fn greedy_continuations() {
    for folder in ["tiny", "odd"] {
        let model = open(folder);
        let text = std::fs::read_to_string(fixture(folder).join("generate.json")).unwrap();
        let value: Value = serde_json::from_str(&text).unwrap();
        let count = value["max_new_tokens"].as_u64().unwrap() as usize;
        let ids = |v: &Value| v.as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect::<Vec<_>>();
        let mut by_penalty: HashMap<String, (f32, Vec<Vec<u32>>, Vec<Vec<u32>>)> = HashMap::new();
        for case in value["cases"].as_array().unwrap() {
            let penalty = case["repetition_penalty"].as_f64().unwrap() as f32;
            let entry = by_penalty.entry(penalty.to_string()).or_insert((penalty, Vec::new(), Vec::new()));
            entry.1.push(ids(&case["prompt"]));
            entry.2.push(ids(&case["ids"]));
        }
        for (device, mut engine) in engines() {
            upload(&model, &mut engine);
            for (penalty, prompts, expected) in by_penalty.values() {
                // Each by itself, then all in one batch with their different lengths.
                let each = prompts.iter().zip(expected).map(|(p, e)| (vec![p.clone()], vec![e.clone()]));
                for (prompts, expected) in each.chain([(prompts.clone(), expected.clone())]) {
                    let sampling = Sampling {
                        temperature: 0.0,
                        top_k: 0,
                        top_p: 1.0,
                        repetition_penalty: *penalty,
                        seed: 0,
                        stops: StopTokens::none(),
                    };
                    let longest = prompts.iter().map(Vec::len).max().unwrap();
                    let capacity = config(&model).n_positions.min(longest + count);
                    let mut generator = Generator::new(&mut engine, config(&model), prompts.len(), capacity, sampling).unwrap();
                    generator.prompt(&prompts).unwrap();
                    generator.decode(3).unwrap();
                    generator.decode(count - 4).unwrap();
                    let found = generator.tokens();
                    assert_eq!(found, expected, "{folder} on the {device}, penalty {penalty}, prompts {prompts:?}");
                }
            }
        }
    }
}

/// The real 124M configuration with random weights, from the folder that `make test-large` makes: logits, loss, and the norm
/// and 64 elements of every gradient. The token table is larger than a binding, and so is its gradient.
#[test]
#[ignore = "needs 500 MB of fixtures: make test-large"]
fn large() {
    let folder = std::env::var("SHADERLM_LARGE").expect("SHADERLM_LARGE names the folder that make_large.py wrote");
    let model = Model::open(&folder).unwrap();
    let file = SafeTensorsFile::open(&PathBuf::from(&folder).join("case.safetensors")).unwrap();
    let (shape, ids) = uints(&file, "input_ids");
    let [batch, time] = shape[..] else { panic!("{shape:?}") };
    let mut engine = engine();
    upload(&model, &mut engine);
    let gpt2 = Gpt2::new(config(&model));
    let mut g = Graph::new();
    let input = g.input("ids", TensorType::u32([batch, time]));
    let targets = g.input("targets", TensorType::u32([batch, time]));
    let states = gpt2.hidden_states(&mut g, input, Context::Whole { keys: None }).unwrap();
    let logits = gpt2.head(&mut g, states[states.len() - 1]).unwrap();
    let loss = shaderlm::ops::cross_entropy(&mut g, logits, targets, IGNORE).unwrap();
    let list = parameters(config(&model));
    let variables: Vec<_> = list.iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone())).unwrap()).collect();
    let grads: Vec<_> = gradients(&mut g, loss, &variables).unwrap().into_iter().map(Option::unwrap).collect();
    let mut outputs = vec![logits, loss];
    outputs.extend(&grads);
    let mut plan = engine.compile(g, &outputs, &PlanOptions::default()).unwrap();
    plan.set(input, HostTensor::uints([batch, time], ids)).unwrap();
    plan.set(targets, HostTensor::uints([batch, time], next_tokens(&uints(&file, "labels").1, time))).unwrap();
    plan.run(&mut engine).unwrap();

    let found = plan.get(logits).unwrap();
    let expected = floats(&file, "last_logits");
    let off = largest(&found.f()[found.f().len() - expected.len()..], &expected, &[1]);
    assert!(off <= 1e-4, "logits differ by {off}");
    let (a, b) = (plan.get(loss).unwrap().f()[0], floats(&file, "loss")[0]);
    assert!((a / b - 1.0).abs() < 1e-5, "loss {a}, not {b}");
    for (parameter, &grad) in list.iter().zip(&grads) {
        let name = &parameter.name;
        let found = plan.get(grad).unwrap();
        let norm = found.f().iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt();
        let wanted = f64::from(floats(&file, &format!("grad_norm.{name}"))[0]);
        assert!((norm / wanted - 1.0).abs() < 1e-4, "{name}: norm {norm}, not {wanted}");
        let places = uints(&file, &format!("grad_index.{name}")).1;
        let sample: Vec<f32> = places.iter().map(|&i| found.f()[i as usize]).collect();
        let error = nmse(&sample, &wide(&floats(&file, &format!("grad_sample.{name}"))));
        assert!(error <= 1e-8, "{name}: NMSE {error:e}");
    }
}
