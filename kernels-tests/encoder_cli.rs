//! Encoders on the command line: pre-training, resuming, filling in, and what transformers would load.

use crate::cli::{failure, run, shaderlm, success};
use serde_json::Value;
use shaderlm::{checkpoint::SafeTensorsFile, ops::random::threefry};
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// Documents of sentences in which one word follows from another: what an animal eats.
pub fn corpus(folder: &Path) -> String {
    let path = folder.join("animals.txt");
    let eats = [("cat", "fish"), ("dog", "meat"), ("cow", "grass"), ("bear", "honey")];
    let mut text = String::new();
    for i in 0..600u32 {
        let pick = |n: u32| threefry([i, n], [9, 9])[0] as usize;
        let (animal, food) = eats[pick(1) % 4];
        let when = ["in the morning", "at night", "every day"][pick(2) % 3];
        text.push_str(&format!("the {animal} eats {food} {when} .\nafter that it sleeps under the tree .\n"));
        if i % 5 == 4 {
            text.push('\n');
        }
    }
    fs::write(&path, text).unwrap();
    path.to_str().unwrap().to_owned()
}

pub fn tokenizer(data: &str, folder: &Path, kind: &str) -> String {
    let path = folder.join(format!("{kind}.json"));
    let path = path.to_str().unwrap().to_owned();
    let vocab = "120";
    success(run(shaderlm().args(["tokenizer", "train", "--kind", kind, "--vocab", vocab, "--data", data, "--out", &path])));
    path
}

/// `train KIND` of a tiny model.
fn train(kind: &str, data: &str, tokenizer: &str, out: &Path, steps: usize, more: &[&str]) -> Command {
    let mut command = shaderlm();
    command.args(["train", kind, "--data", data, "--tokenizer", tokenizer, "--out"]).arg(out);
    let steps = steps.to_string();
    let defaults = [
        ("--layers", "2"),
        ("--heads", "2"),
        ("--width", "32"),
        ("--context", "32"),
        ("--batch", "8"),
        ("--warmup", "5"),
        ("--lr", "5e-3"),
        ("--max-predictions", "5"),
        ("--steps", &steps),
    ];
    for (flag, value) in defaults.iter().filter(|d| !more.contains(&d.0)) {
        command.args([flag, value]);
    }
    command.args(more);
    command
}

pub fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

pub fn log(path: &Path) -> Vec<Value> {
    fs::read_to_string(path).unwrap().lines().map(json).collect()
}

#[test]
fn a_bert_learns_what_animals_eat() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let tokenizer = tokenizer(&data, folder.path(), "wordpiece");
    let (out, lines) = (folder.path().join("bert"), folder.path().join("log.jsonl"));
    let more = [
        "--objective",
        "mlm+nsp",
        "--log",
        lines.to_str().unwrap(),
        "--eval-every",
        "400",
        "--lr",
        "3e-3",
        "--initializer-range",
        "0.1",
        "--device",
        "cpu",
    ];
    let text = success(run(&mut train("bert", &data, &tokenizer, &out, 800, &more)));
    assert!(text.contains("guessing the commonest token") && text.contains("masked accuracy"), "{text}");
    let lines = log(&lines);
    let last = &lines[799];
    assert!(last["eval_masked_accuracy"].as_f64().unwrap() > 0.6, "{last}");
    assert!(last["nsp_accuracy"].as_f64().is_some() && last["eval_nsp_loss"].as_f64().is_some(), "{last}");
    assert!(last["loss"].as_f64().unwrap() < lines[0]["loss"].as_f64().unwrap() - 2.0);

    let model = out.to_str().unwrap();
    for device in ["auto", "cpu"] {
        let args = ["fill", "the cow eats [MASK] at night .", "--model", model, "--top", "3", "--json", "--device", device];
        let found = json(&success(run(shaderlm().args(args))));
        let first = &found["masks"][0]["candidates"][0];
        assert_eq!(first["token"], "grass", "{found}");
        assert_eq!(first["text"], "the cow eats grass at night.", "{found}");
        let sum: f64 =
            found["masks"][0]["candidates"].as_array().unwrap().iter().map(|c| c["probability"].as_f64().unwrap()).sum();
        assert!(sum > 0.5 && sum <= 1.0001, "{found}");
    }
    let two = success(run(shaderlm().args(["fill", "the [MASK] eats honey [MASK] night .", "--model", model])));
    assert!(two.contains("mask 2") && two.contains("bear"), "{two}");
    let error = failure(run(shaderlm().args(["fill", "no mask here", "--model", model])));
    assert!(error.contains("[MASK]"), "{error}");
    let error = failure(run(shaderlm().args(["generate", "the", "--model", model])));
    assert!(error.contains("it is a bert"), "{error}");
    let config = json(&fs::read_to_string(out.join("config.json")).unwrap());
    assert_eq!(config["architectures"][0], "BertForPreTraining");
    assert_eq!(config["initializer_range"], 0.1);
    // On from there with masked tokens alone, then embedded.
    let tuned = folder.path().join("tuned");
    let mut command = shaderlm();
    command.args([
        "train",
        "bert",
        "--data",
        &data,
        "--init",
        model,
        "--objective",
        "mlm",
        "--steps",
        "2",
        "--batch",
        "4",
        "--out",
    ]);
    success(run(command.arg(&tuned).args(["--dropout", "0.1", "--recompute", "--accumulate", "2", "--dtype", "f16"])));
    let found = success(run(shaderlm().args(["embed", "the cat", "--json", "--model", tuned.to_str().unwrap()])));
    assert_eq!(json(&found)["embedding"].as_array().unwrap().len(), 32);
}

#[test]
fn an_albert_in_every_mode_of_sharing() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let tokenizer = tokenizer(&data, folder.path(), "unigram");
    let mut sizes = Vec::new();
    for sharing in ["all", "attention", "ffn", "none"] {
        let (out, lines) = (folder.path().join(sharing), folder.path().join(format!("{sharing}.jsonl")));
        let more = [
            "--objective",
            "mlm+sop",
            "--sharing",
            sharing,
            "--embedding-width",
            "16",
            "--optimizer",
            "lamb",
            "--lr",
            "2e-2",
            "--eval-every",
            "0",
            "--log",
            lines.to_str().unwrap(),
        ];
        success(run(&mut train("albert", &data, &tokenizer, &out, 30, &more)));
        let lines = log(&lines);
        assert!(lines[29]["loss"].as_f64().unwrap() < lines[0]["loss"].as_f64().unwrap() - 0.5, "{sharing}: {}", lines[29]);
        assert!(lines[29]["sop_accuracy"].as_f64().is_some());
        let table = success(run(shaderlm().args(["graph", "--model", out.to_str().unwrap()])));
        let count: usize = table.rsplit("GFLOP; ").next().unwrap().split(' ').next().unwrap().parse().unwrap();
        sizes.push(count);
        // Read back as it was written: the same folder twice.
        let again = folder.path().join(format!("{sharing}-again"));
        let mut command = shaderlm();
        command.args(["train", "albert", "--data", &data, "--init", out.to_str().unwrap(), "--objective", "mlm+sop", "--out"]);
        success(run(command.arg(&again).args(["--steps", "1", "--lr", "0", "--batch", "2"])));
        let [a, b] = [&out, &again].map(|f| {
            let file = SafeTensorsFile::open(&f.join("model.safetensors")).unwrap();
            file.names().map(|n| (n.to_owned(), file.tensor(n).unwrap().bytes.to_vec())).collect::<Vec<_>>()
        });
        assert!(a == b, "{sharing}: the weights differ");
    }
    // A layer of width 32: attention 4 (32^2 + 32) + 64 = 4,288; feed-forward 2 32 128 + 128 + 32 + 64 = 8,416.
    assert_eq!(sizes[1] - sizes[0], 8416);
    assert_eq!(sizes[2] - sizes[0], 4288);
    assert_eq!(sizes[3] - sizes[0], 8416 + 4288);
}

#[test]
fn killed_and_resumed_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let tokenizer = tokenizer(&data, folder.path(), "unigram");
    let more =
        ["--objective", "mlm+sop", "--embedding-width", "16", "--dropout", "0.1", "--save-every", "5", "--eval-every", "0"];
    let losses = |path: &Path| -> Vec<String> { log(path).iter().map(|r| format!("{} {}", r["step"], r["loss"])).collect() };
    let (whole, whole_log) = (folder.path().join("whole"), folder.path().join("whole.jsonl"));
    let clock = std::time::Instant::now();
    success(run(&mut train(
        "albert",
        &data,
        &tokenizer,
        &whole,
        60,
        &[&more[..], &["--log", whole_log.to_str().unwrap()]].concat(),
    )));
    let time = clock.elapsed();
    let (out, lines) = (folder.path().join("killed"), folder.path().join("killed.jsonl"));
    let resumed = [&more[..], &["--resume", "--log", lines.to_str().unwrap()]].concat();
    for _ in 0..2 {
        let mut child =
            train("albert", &data, &tokenizer, &out, 60, &resumed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(100) + time.mul_f64(0.4));
        let _ = child.kill();
        child.wait().unwrap();
    }
    success(run(&mut train("albert", &data, &tokenizer, &out, 60, &resumed)));
    assert_eq!(losses(&lines), losses(&whole_log));
}

#[test]
fn bad_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let out = folder.path().join("out");
    let words = tokenizer(&data, folder.path(), "wordpiece");
    let bytes = folder.path().join("bpe.json");
    success(run(shaderlm().args(["tokenizer", "train", "--vocab", "300", "--data", &data, "--out", bytes.to_str().unwrap()])));
    let error = failure(run(&mut train("bert", &data, bytes.to_str().unwrap(), &out, 2, &["--objective", "mlm"])));
    assert!(error.contains("[CLS]") || error.contains("[MASK]"), "{error}");
    let error = failure(run(&mut train("albert", &data, &words, &out, 2, &["--objective", "mlm+nsp"])));
    assert!(error.contains("mlm+sop"), "{error}");
    let error = failure(run(&mut train("bert", &data, &words, &out, 2, &["--objective", "mlm", "--heads", "5"])));
    assert!(error.contains("hidden_size 32") || error.contains("num_attention_heads"), "{error}");
    assert!(!out.exists(), "nothing was written");
}
