//! BERT, DistilBERT, ALBERT and ELECTRA against Hugging Face transformers: the fixtures in `fixtures/encoders`, made by its `make.py`.

use crate::harness::{engine, nmse};
use serde_json::Value;
use shaderlm::{
    checkpoint::{SafeTensorsFile, StoredType},
    graph::{Engine, Graph, PlanOptions, evaluate, gradients},
    models::{
        Albert, AlbertConfig, Config, Head, Inputs, Missing, Mode, Model, Parameter, Rest, Sharing, Text,
        heads::{self, Labels},
    },
    ops::{self, HostTensor, IGNORE, OpError, Tensor, TensorType, random::threefry},
    train::{Objective, Optimizer, Schedule, ScheduleShape, Settings, Trainer},
};
use std::{collections::HashMap, path::PathBuf};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/encoders").join(path)
}

/// The table of cases.
fn cases() -> Vec<Value> {
    let text = std::fs::read_to_string(fixture("cases.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    assert!(cases.len() >= 37);
    cases
}

fn open(folder: &str) -> Model {
    Model::open(fixture(folder).to_str().unwrap()).unwrap_or_else(|e| panic!("{folder}: {e}"))
}

/// A tensor of the file as the graph takes it: -100, and places beyond `limit`, become [`IGNORE`].
fn tensor(file: &SafeTensorsFile, name: &str, limit: i64) -> HostTensor<f32> {
    let t = file.tensor(name).unwrap();
    if t.dtype == StoredType::F32 {
        return HostTensor::floats(t.shape.clone(), t.to_f32().unwrap());
    }
    let fits = |x: i64| if x < 0 || x >= limit { IGNORE } else { x as u32 };
    HostTensor::uints(t.shape.clone(), t.to_i64().unwrap().into_iter().map(fits).collect())
}

fn floats(file: &SafeTensorsFile, name: &str) -> Vec<f32> {
    file.tensor(name).unwrap().to_f32().unwrap()
}

fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

fn largest(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, |a, b| if b <= a { a } else { b })
}

/// Outputs, hidden states, loss and every gradient of every case, on the adapter and on the CPU.
#[test]
fn every_head_as_in_transformers() {
    for case in cases() {
        let name = case["name"].as_str().unwrap();
        let model = open(name);
        let head = model.head(None).unwrap();
        assert_eq!(head.architecture(&model.config), case["architecture"].as_str().unwrap());
        let zero: Vec<_> = case["zero_gradients"].as_array().unwrap().iter().map(|z| z.as_str().unwrap()).collect();
        for (device, engine) in [("GPU", engine()), ("CPU", Engine::cpu())] {
            check_case(name, &format!("{name} on the {device}"), &model, head, engine, &zero);
        }
    }
}

fn check_case(name: &str, what: &str, model: &Model, head: Head, mut engine: Engine, zero: &[&str]) {
    let file = SafeTensorsFile::open(&fixture(name).join("case.safetensors")).unwrap();
    let shape = file.tensor("input_ids").unwrap().shape.clone();
    let time = shape[shape.len() - 1];
    let rows = shape[..shape.len() - 1].iter().product();
    let inputs = Inputs {
        rows,
        time,
        choices: if head.chooses() { shape[1] } else { 1 },
        mask: true,
        types: file.contains("token_type_ids"),
    };
    let parameters = model.parameters(head).unwrap();
    let fresh = model.upload(&mut engine, &parameters, Missing::Refuse).unwrap_or_else(|e| panic!("{what}: {e}"));
    assert!(fresh.is_empty());
    let mut g = Graph::new();
    let recording = model.record(&mut g, head, inputs, Mode::default()).unwrap();
    let mut wanted: Vec<_> = recording.outputs.named.iter().map(|(n, t)| ((*n).to_owned(), *t)).collect();
    wanted.extend(recording.outputs.hidden_states.iter().enumerate().map(|(i, &t)| (format!("hidden_states.{i}"), t)));
    let mut feeds = Vec::new();
    if file.contains("loss") {
        let (labels, loss) = recording.loss(&mut g, &model.config, head).unwrap();
        feeds = labels;
        let variables: Vec<_> =
            parameters.iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone())).unwrap()).collect();
        let grads = gradients(&mut g, loss, &variables).unwrap();
        wanted.push(("loss".into(), loss));
        wanted.extend(parameters.iter().zip(&grads).map(|(p, grad)| (format!("grad.{}", p.name), grad.unwrap())));
    } else {
        let error = recording.loss(&mut g, &model.config, Head::Base).map(|_| ()).unwrap_err().to_string();
        assert!(error.contains("--head"), "{error}");
    }
    let tensors: Vec<_> = wanted.iter().map(|w| w.1).collect();
    let mut plan = engine.compile(g, &tensors, &PlanOptions::default()).unwrap();
    let flat = |name: &str| {
        let values = tensor(&file, name, i64::MAX);
        values.reshaped([rows, time].into())
    };
    plan.set(recording.ids, flat("input_ids")).unwrap();
    plan.set(recording.keys.unwrap(), flat("attention_mask")).unwrap();
    if let Some(types) = recording.types {
        plan.set(types, flat("token_type_ids")).unwrap();
    }
    for (label, input) in feeds {
        let limit = if head == Head::Questions { time as i64 } else { i64::MAX };
        plan.set(input, tensor(&file, label, limit)).unwrap();
    }
    plan.run(&mut engine).unwrap();

    let steepest =
        file.names().filter(|n| n.starts_with("grad.")).flat_map(|n| floats(&file, n)).fold(0f32, |a, x| a.max(x.abs()));
    let mut compared = 0;
    for (name, output) in &wanted {
        // bert-old has the logits only.
        if !file.contains(name) {
            assert!(name.starts_with("hidden_states") || file.names().count() < 6, "{what}: {name} is not in the file");
            continue;
        }
        let (found, expected) = (plan.get(*output).unwrap(), floats(&file, name));
        assert_eq!(found.shape.0, file.tensor(name).unwrap().shape, "{what}: {name}");
        if name == "loss" {
            assert!((found.f()[0] / expected[0] - 1.0).abs() < 1e-5, "{what}: loss {}, not {}", found.f()[0], expected[0]);
        } else if zero.contains(&name.as_str()) {
            let off = largest(found.f(), &vec![0.0; expected.len()]);
            assert!(off <= 1e-6 * steepest.max(1.0), "{what}: {name} should vanish, and is {off:e}");
        } else if name.starts_with("grad.") {
            let error = nmse(found.f(), &wide(&expected));
            assert!(error <= 1e-8, "{what}: {name}: NMSE {error:e}");
        } else {
            let off = largest(found.f(), &expected);
            assert!(off <= 1e-4, "{what}: {name} differs by {off}");
        }
        compared += 1;
    }
    let inputs = [
        "input_ids",
        "attention_mask",
        "token_type_ids",
        "labels",
        "next_sentence_label",
        "sentence_order_label",
        "start_positions",
        "end_positions",
    ];
    let expected = file.names().filter(|n| !inputs.contains(n)).count();
    assert_eq!(compared, expected, "{what}: something in the file was not compared");
}

#[test]
fn ten_steps_of_adamw() {
    for case in cases().into_iter().filter(|c| c["steps"] == true) {
        let name = case["name"].as_str().unwrap();
        let model = open(name);
        let head = model.head(None).unwrap();
        let file = SafeTensorsFile::open(&fixture(name).join("steps.safetensors")).unwrap();
        let shape = file.tensor("input_ids.0").unwrap().shape.clone();
        let [batch, time] = shape[..] else { panic!("{shape:?}") };
        let expected = floats(&file, "losses.f32");
        let norms = floats(&file, "grad_norms.f32");
        let mut names = vec!["input_ids", "attention_mask"];
        names.extend(["token_type_ids"].iter().filter(|n| file.contains(&format!("{n}.0"))));
        let types = names.len() > 2;
        names.push("labels");
        names.extend(["next_sentence_label", "sentence_order_label"].iter().filter(|n| file.contains(&format!("{n}.0"))));
        let pairs = names.len() > 3 + usize::from(types);
        for (device, mut engine) in [("GPU", engine()), ("CPU", Engine::cpu())] {
            let parameters = model.parameters(head).unwrap();
            model.upload(&mut engine, &parameters, Missing::Refuse).unwrap();
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
            let inputs =
                names.iter().map(|&n| (n, TensorType::u32(file.tensor(&format!("{n}.0")).unwrap().shape.clone()))).collect();
            let loss = |g: &mut Graph, i: &[Tensor], _: Option<Tensor>| {
                let encoder = model.encoder(Mode::default()).map_err(|e| OpError::new(e.to_string()))?;
                let text = Text { ids: i[0], keys: Some(i[1]), types: types.then(|| i[2]) };
                let outputs = heads::outputs(g, &*encoder, head, 2, (false, 1), &text)?;
                let rest = &i[2 + usize::from(types)..];
                if head == Head::Replaced {
                    let labels = ops::hide_labels(g, rest[0], i[1])?;
                    return Ok(heads::loss(g, &outputs, Labels::Replaced(labels), false)?.into());
                }
                let labels = if pairs { Labels::Pair(rest[0], rest[1]) } else { Labels::One(rest[0]) };
                Ok(heads::loss(g, &outputs, labels, false)?.into())
            };
            let list: Vec<_> = parameters.iter().map(Parameter::trained).collect();
            let mut trainer = Trainer::new(&mut engine, &list, &Objective { inputs, loss: &loss }, settings).unwrap();
            for step in 0..10 {
                let values = names.iter().map(|n| tensor(&file, &format!("{n}.{step}"), i64::MAX)).collect();
                let outcome = trainer.step(&mut engine, step, &[values]).unwrap();
                let what = format!("{name} on the {device}, step {step}");
                let off = (outcome.loss / expected[step] - 1.0).abs();
                assert!(off <= 1e-5, "{what}: loss {} instead of {}, {off:e}", outcome.loss, expected[step]);
                let off = (outcome.grad_norm / norms[step] - 1.0).abs();
                assert!(off <= 1e-4, "{what}: gradient norm {} instead of {}", outcome.grad_norm, norms[step]);
            }
        }
    }
}

/// A sentence by itself and in a batch with longer ones.
#[test]
fn padding_never_changes_a_result() {
    for name in ["bert-base-model", "albert-base-model", "distilbert-base-model", "electra-base-model"] {
        let model = open(name);
        let parameters = model.parameters(Head::Base).unwrap();
        let run = |rows: usize, time: usize, ids: Vec<u32>, mask: Vec<u32>| {
            let mut engine = engine();
            model.upload(&mut engine, &parameters, Missing::Refuse).unwrap();
            let mut g = Graph::new();
            let inputs = Inputs { rows, time, choices: 1, mask: true, types: false };
            let recording = model.record(&mut g, Head::Base, inputs, Mode::default()).unwrap();
            let last = recording.outputs.named[0].1;
            let mut plan = engine.compile(g, &[last], &PlanOptions::default()).unwrap();
            plan.set(recording.ids, HostTensor::uints([rows, time], ids)).unwrap();
            plan.set(recording.keys.unwrap(), HostTensor::uints([rows, time], mask)).unwrap();
            plan.run(&mut engine).unwrap();
            plan.get(last).unwrap().f().to_vec()
        };
        let (time, vocab) = (19, model.config.vocab_size() as u32);
        for length in [1, 2, 7, 16, 18] {
            let alone: Vec<u32> = (0..length as u32).map(|i| (i * 7 + 3) % vocab).collect();
            let expected = run(1, length, alone.clone(), vec![1; length]);
            // Garbage in the padding and in the other row.
            let mut ids: Vec<u32> = (0..2 * time as u32).map(|i| (i * 11 + 5) % vocab).collect();
            ids[..length].copy_from_slice(&alone);
            let mut mask = vec![1; 2 * time];
            mask[length..time].fill(0);
            let found = run(2, time, ids, mask);
            let off = largest(&found[..expected.len()], &expected);
            assert!(off <= 1e-5, "{name}, {length} tokens: {off}");
        }
    }
}

#[test]
fn a_wrong_head_is_named() {
    let model = open("bert-mlm");
    let error = model.head(Some("nonsense")).unwrap_err().to_string();
    assert!(error.contains("nonsense") && error.contains("masked-lm"), "{error}");
    assert_eq!(model.head(Some("BertForQuestionAnswering")).unwrap(), Head::Questions);
    assert_eq!(model.head(Some("sequence")).unwrap(), Head::Sequence);
    // The file has no classifier: an error, or a new head.
    let parameters = model.parameters(Head::Sequence).unwrap();
    let error = model.upload(&mut engine(), &parameters, Missing::Refuse).unwrap_err().to_string();
    assert!(error.contains("bert.pooler.dense.weight"), "{error}");
    let fresh = model.upload(&mut engine(), &parameters, Missing::Initialise(1)).unwrap();
    assert_eq!(fresh, ["bert.pooler.dense.weight", "bert.pooler.dense.bias", "classifier.weight", "classifier.bias"]);
    assert!(open("distilbert-mlm").parameters(Head::PreTraining).is_err(), "DistilBERT has no head for pairs");
    let mut untied = open("bert-mlm");
    untied.config.rest_mut().unwrap().others.insert("tie_word_embeddings".into(), false.into());
    let error = untied.parameters(Head::MaskedLm).map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("tie_word_embeddings"), "{error}");
    assert!(matches!(open("bert-qa").config, Config::Bert(ref c) if c.rest.labels() == 2 && c.rest != Rest::default()));
}

fn albert(sharing: Sharing) -> AlbertConfig {
    AlbertConfig {
        vocab_size: 23,
        embedding_size: 6,
        hidden_size: 12,
        num_hidden_layers: 3,
        num_attention_heads: 2,
        intermediate_size: 20,
        max_position_embeddings: 9,
        ..AlbertConfig::default()
    }
    .shared(sharing)
}

/// The paper's table 4 at E = 128: millions of parameters by what the layers share.
#[test]
fn parameters_by_sharing() {
    for (sharing, millions) in [(Sharing::All, 11.7), (Sharing::Attention, 63.6), (Sharing::Ffn, 37.7), (Sharing::None, 89.7)] {
        let config = AlbertConfig::named("base").unwrap().shared(sharing);
        config.check().unwrap();
        let list = heads::parameters(&Albert { config: &config, mode: Mode::default() }, Head::Base, 0, true).unwrap();
        let count: usize = list.iter().map(|p| p.shape.elements()).sum();
        assert!((count as f64 / 1e6 - millions).abs() < 0.06, "{sharing:?}: {count}");
        let mut names: Vec<_> = list.iter().map(|p| &p.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), list.len(), "{sharing:?}: a name is there twice");
    }
    // Groups and layers as transformers counts them.
    let config = AlbertConfig { num_hidden_layers: 7, num_hidden_groups: 3, ..albert(Sharing::All) };
    assert_eq!((0..7).map(|l| config.group(l)).collect::<Vec<_>>(), [0, 0, 0, 1, 1, 2, 2]);
}

/// Each mode's gradients by finite differences in f64, for a parameter that layers share and for one of the last layer.
#[test]
fn sharing_sums_gradients() {
    let last = "albert.encoder.albert_layer_groups.2.albert_layers.0";
    let first = "albert.encoder.albert_layer_groups.0.albert_layers.0";
    for sharing in [Sharing::All, Sharing::Attention, Sharing::Ffn, Sharing::None] {
        let config = albert(sharing);
        let encoder = Albert { config: &config, mode: Mode::default() };
        let list = heads::parameters(&encoder, Head::PreTraining, 2, false).unwrap();
        let attention = if matches!(sharing, Sharing::All | Sharing::Attention) { first } else { last };
        let feed_forward = if matches!(sharing, Sharing::All | Sharing::Ffn) { first } else { last };
        let names = [
            format!("{attention}.attention.value.weight"),
            format!("{attention}.attention.LayerNorm.weight"),
            format!("{feed_forward}.ffn.weight"),
            format!("{feed_forward}.full_layer_layer_norm.bias"),
            format!("{first}.attention.query.weight"),
            "albert.embeddings.word_embeddings.weight".to_owned(),
        ];
        let mut g = Graph::new();
        let (ids, keys) = (g.input("ids", TensorType::u32([2, 9])), g.input("keys", TensorType::u32([2, 9])));
        let (labels, pair) = (g.input("labels", TensorType::u32([2, 9])), g.input("pair", TensorType::u32([2])));
        let text = Text { ids, types: None, keys: Some(keys) };
        let outputs = heads::outputs(&mut g, &encoder, Head::PreTraining, 2, (false, 1), &text).unwrap();
        let loss = heads::loss(&mut g, &outputs, Labels::Pair(labels, pair), false).unwrap();
        let wrt: Vec<_> = names
            .iter()
            .map(|name| {
                let p = list.iter().find(|p| p.name == *name).unwrap_or_else(|| panic!("{sharing:?}: there is no {name}"));
                g.variable(name, TensorType::f32(p.shape.clone())).unwrap()
            })
            .collect();
        let grads: Vec<_> = gradients(&mut g, loss, &wrt).unwrap().into_iter().map(Option::unwrap).collect();
        let uints = |shape: &[usize], f: &dyn Fn(u32) -> u32| {
            HostTensor::<f64>::uints(shape, (0..shape.iter().product::<usize>() as u32).map(f).collect())
        };
        let feeds = HashMap::from([
            (ids, uints(&[2, 9], &|i| i * 7 % 23)),
            (keys, uints(&[2, 9], &|i| u32::from(i != 17))),
            (labels, uints(&[2, 9], &|i| if i % 3 == 0 { i * 5 % 23 } else { IGNORE })),
            (pair, uints(&[2], &|i| i)),
        ]);
        let random = |name: &str, i: u32| {
            f64::from(threefry([name.len() as u32, name.as_bytes()[name.len() / 2].into()], [i, 3])[0]) / f64::from(u32::MAX)
                - 0.5
        };
        let variables: HashMap<String, HostTensor<f64>> = list
            .iter()
            .map(|p| {
                let one = if p.name.ends_with("norm.weight") || p.name.ends_with("Norm.weight") { 1.0 } else { 0.0 };
                let data = (0..p.shape.elements() as u32).map(|i| one + random(&p.name, i)).collect();
                (p.name.clone(), HostTensor::floats(p.shape.clone(), data))
            })
            .collect();
        let exact = evaluate(&g, &feeds, &mut variables.clone(), &grads);
        for (name, grad) in names.iter().zip(&grads) {
            let n = variables[name].f().len();
            for i in (0..n).step_by((n / 5).max(1)) {
                let at = |eps: f64| {
                    let mut moved = variables.clone();
                    moved.get_mut(name).unwrap().f_mut()[i] += eps;
                    evaluate(&g, &feeds, &mut moved, &[loss])[&loss].f()[0]
                };
                let (found, expected) = (exact[grad].f()[i], (at(1e-6) - at(-1e-6)) / 2e-6);
                let off = (found - expected).abs();
                assert!(off <= 1e-5 + 1e-3 * expected.abs(), "{sharing:?}, {name}[{i}]: {found}, not {expected}");
            }
        }
    }
}
