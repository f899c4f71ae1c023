//! ELECTRA on the command line: data, pre-training, resuming, `detect`, `fill` and fine-tuning.

use crate::{
    cli::{failure, run, shaderlm, success},
    encoder_cli::{corpus, json, log, tokenizer},
};
use serde_json::Value;
use shaderlm::checkpoint::SafeTensorsFile;
use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

/// `train electra` of a tiny model.
fn train(data: &str, tokenizer: &str, out: &Path, steps: usize, more: &[&str]) -> Command {
    let mut command = shaderlm();
    command.args(["train", "electra", "--data", data, "--tokenizer", tokenizer, "--out"]).arg(out);
    let steps = steps.to_string();
    let defaults = [
        ("--layers", "2"),
        ("--heads", "2"),
        ("--width", "32"),
        ("--embedding-width", "24"),
        ("--generator-fraction", "0.5"),
        ("--context", "32"),
        ("--batch", "8"),
        ("--warmup", "5"),
        ("--steps", &steps),
    ];
    for (flag, value) in defaults.iter().filter(|d| !more.contains(&d.0)) {
        command.args([flag, value]);
    }
    command.args(more);
    command
}

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name} is not in {line}"))
}

#[test]
fn an_electra_learns_what_animals_do_not_eat() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let tokenizer = tokenizer(&data, folder.path(), "wordpiece");
    let (out, lines) = (folder.path().join("electra"), folder.path().join("log.jsonl"));
    let more = [
        "--log",
        lines.to_str().unwrap(),
        "--eval-every",
        "0",
        "--lr",
        "3e-3",
        "--initializer-range",
        "0.1",
        "--device",
        "cpu",
        "--short-probability",
        "0",
        "--temperature",
        "4",
    ];
    success(run(&mut train(&data, &tokenizer, &out, 600, &more)));
    let lines = log(&lines);
    let last = &lines[599];
    for name in ["generator_loss", "generator_accuracy", "discriminator_loss", "accuracy", "precision", "recall", "replaced"] {
        assert!(number(&lines[0], name) >= 0.0 && number(last, &format!("eval_{name}")) >= 0.0);
    }
    // A generator that knew nothing would be right once in a hundred times, and a guesser has an area of one half.
    assert!(number(last, "eval_generator_accuracy") > 0.3, "{last}");
    assert!(number(last, "eval_auc") > 0.8, "{last}");
    let replaced = number(last, "eval_replaced");
    assert!(replaced > 0.01 && replaced < 0.15, "{last}");

    for (network, class) in [("generator", "ElectraForMaskedLM"), ("discriminator", "ElectraForPreTraining")] {
        let config = json(&fs::read_to_string(out.join(network).join("config.json")).unwrap());
        assert_eq!(config["architectures"][0], class);
        assert_eq!((&config["embedding_size"], &config["model_type"]), (&24.into(), &"electra".into()));
    }
    // What is tied is the same in both.
    let table = |network: &str| {
        let file = SafeTensorsFile::open(&out.join(network).join("model.safetensors")).unwrap();
        file.tensor("electra.embeddings.word_embeddings.weight").unwrap().bytes.to_vec()
    };
    assert_eq!(table("generator"), table("discriminator"));

    let model = out.to_str().unwrap();
    let wrong = "the cow eats honey honey honey .";
    for device in ["auto", "cpu"] {
        let found = json(&success(run(shaderlm().args(["detect", wrong, "--model", model, "--json", "--device", device]))));
        let tokens = found["tokens"].as_array().unwrap();
        assert_eq!(tokens.iter().map(|t| t["text"].as_str().unwrap()).collect::<Vec<_>>().join(" "), wrong);
        let probability = |word: &str| {
            let of = tokens.iter().filter(|t| t["text"] == word).map(|t| t["probability"].as_f64().unwrap());
            of.fold(0.0, f64::max)
        };
        assert!(probability("honey") > 0.5 && probability("eats") < 0.5, "{found}");
        assert!(found["marked"].as_str().unwrap().contains('['), "{found}");
    }
    let text = success(run(shaderlm().args(["detect", wrong, "--model", &format!("{model}/discriminator"), "--threshold", "0"])));
    assert!(text.starts_with("[the cow eats honey honey honey .]\n"), "{text}");
    assert_eq!(text.lines().count(), 8);
    let found = json(&success(run(shaderlm().args(["fill", "the cow [MASK] grass at night .", "--model", model, "--json"]))));
    assert_eq!(found["masks"][0]["candidates"][0]["token"], "eats", "{found}");

    let error = failure(run(shaderlm().args(["detect", wrong, "--model", &format!("{model}/generator")])));
    assert!(error.contains("no head for replaced tokens"), "{error}");

    // Taught a task, one layer slower than the next; and on from both networks.
    let examples = folder.path().join("task.tsv");
    let rows = (0..80).map(|i| if i % 2 == 0 { "the cow eats grass\tplant\n" } else { "the cat eats fish\tanimal\n" });
    fs::write(&examples, format!("text\tlabel\n{}", rows.collect::<String>())).unwrap();
    let tuned = folder.path().join("tuned");
    let mut command = shaderlm();
    command.args(["finetune", "--model", &format!("{model}/discriminator"), "--task", "classify", "--layer-decay", "0.8"]);
    success(run(command
        .args(["--lr", "3e-3", "--epochs", "15", "--dropout", "0", "--data"])
        .arg(&examples)
        .arg("--out")
        .arg(&tuned)));
    let tuned = tuned.to_str().unwrap();
    let found = success(run(shaderlm().args(["classify", "the cow eats grass", "--model", tuned])));
    assert!(found.starts_with("plant"), "{found}");
    let found = success(run(shaderlm().args(["embed", "the cat", "--json", "--model", tuned])));
    assert_eq!(json(&found)["embedding"].as_array().unwrap().len(), 32);
    let again = folder.path().join("again");
    let mut command = shaderlm();
    command.args(["train", "electra", "--data", &data, "--init", model, "--lr", "0", "--steps", "1", "--batch", "2", "--out"]);
    success(run(command.arg(&again)));
    let bytes = |folder: &Path| fs::read(folder.join("discriminator/model.safetensors")).unwrap();
    assert!(bytes(&out) == bytes(&again), "a rate of 0 changes nothing");
}

#[test]
fn the_built_in_discriminator_needs_no_model() {
    let text = "Thou shalt not steal bread and thou shalt not kill.";
    for device in ["auto", "cpu"] {
        let found = json(&success(run(shaderlm().args(["detect", text, "--json", "--device", device]))));
        assert_eq!(found["marked"], "Thou shalt not steal bread [and] thou shalt not kill.", "{found}");
    }
}

/// A masked LM of one layer becomes the discriminator of an ELECTRA with three, whose generator begins afresh.
#[test]
fn a_deep_discriminator_begins_with_a_shallow_masked_lm() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let words = tokenizer(&data, folder.path(), "wordpiece");
    let (shallow, deep) = (folder.path().join("shallow"), folder.path().join("deep"));
    success(run(&mut train(&data, &words, &shallow, 3, &["--objective", "mlm", "--layers", "1", "--eval-every", "0"])));
    let go_on = |out: &Path, more: &[&str]| {
        let mut command = shaderlm();
        command.args(["train", "electra", "--data", &data, "--steps", "1", "--batch", "2", "--lr", "0", "--eval-every", "0"]);
        run(command.arg("--init").arg(&shallow).arg("--out").arg(out).args(more))
    };
    let said = success(go_on(&deep, &["--depth", "3", "--generator-fraction", "0.5"]));
    assert!(said.contains("begun afresh") && said.contains(", generator\n"), "{said}");
    for network in ["generator", "discriminator"] {
        let config = json(&fs::read_to_string(deep.join(network).join("config.json")).unwrap());
        assert_eq!(config["num_hidden_layers"], 3);
    }
    let weights = |folder: &Path, name: &str| {
        SafeTensorsFile::open(&folder.join("discriminator/model.safetensors")).unwrap().tensor(name).unwrap().bytes.to_vec()
    };
    let name = |layer: usize| format!("electra.encoder.layer.{layer}.attention.self.query.weight");
    for layer in 0..3 {
        assert_eq!(weights(&deep, &name(layer)), weights(&shallow, &name(0)), "layer {layer}");
    }
    // Then the generator is there, and has its width.
    let mut command = shaderlm();
    command.args(["train", "electra", "--data", &data, "--steps", "1", "--generator-fraction", "0.5", "--init"]).arg(&deep);
    let error = failure(run(command.arg("--out").arg(folder.path().join("other"))));
    assert!(error.contains("--generator-fraction"), "{error}");
    let error = failure(go_on(&folder.path().join("none"), &["--depth", "0"]));
    assert!(error.contains("--depth 0"), "{error}");
}

#[test]
fn what_the_paper_compares_with() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let tokenizer = tokenizer(&data, folder.path(), "wordpiece");
    for (objective, class) in [
        ("electra-15", "ElectraForPreTraining"),
        ("replace-mlm", "ElectraForMaskedLM"),
        ("all-tokens-mlm", "ElectraForMaskedLM"),
        ("mlm", "ElectraForMaskedLM"),
    ] {
        let (out, lines) = (folder.path().join(objective), folder.path().join(format!("{objective}.jsonl")));
        let more = [
            "--objective",
            objective,
            "--log",
            lines.to_str().unwrap(),
            "--lr",
            "3e-3",
            "--mask-without-replacement",
            "--dropout",
            "0.1",
            "--recompute",
            "--accumulate",
            "2",
            "--tie",
            "tokens",
            "--bias-correction",
            "--temperature",
            "0.9",
        ];
        success(run(&mut train(&data, &tokenizer, &out, 20, &more)));
        let lines = log(&lines);
        let loss = |line: &Value| number(line, "loss");
        assert!(loss(&lines[19]) < loss(&lines[0]), "{objective}: {}", lines[19]);
        let config = json(&fs::read_to_string(out.join("discriminator/config.json")).unwrap());
        assert_eq!(config["architectures"][0], class);
        assert_eq!(out.join("generator").exists(), objective != "mlm");
        assert_eq!(lines[0]["masked_accuracy"].is_number(), objective != "electra-15");
    }
}

#[test]
fn killed_and_resumed_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let tokenizer = tokenizer(&data, folder.path(), "wordpiece");
    let more = ["--dropout", "0.1", "--save-every", "5", "--eval-every", "0"];
    let losses = |path: &Path| -> Vec<String> { log(path).iter().map(|r| format!("{} {}", r["step"], r["loss"])).collect() };
    let (whole, whole_log) = (folder.path().join("whole"), folder.path().join("whole.jsonl"));
    let clock = std::time::Instant::now();
    success(run(&mut train(&data, &tokenizer, &whole, 60, &[&more[..], &["--log", whole_log.to_str().unwrap()]].concat())));
    let time = clock.elapsed();
    let (out, lines) = (folder.path().join("killed"), folder.path().join("killed.jsonl"));
    let resumed = [&more[..], &["--resume", "--log", lines.to_str().unwrap()]].concat();
    for _ in 0..2 {
        let mut child = train(&data, &tokenizer, &out, 60, &resumed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        thread::sleep(Duration::from_millis(100) + time.mul_f64(0.4));
        let _ = child.kill();
        child.wait().unwrap();
    }
    success(run(&mut train(&data, &tokenizer, &out, 60, &resumed)));
    assert_eq!(losses(&lines), losses(&whole_log));
    for network in ["generator", "discriminator"] {
        let bytes = |folder: &Path| fs::read(folder.join(network).join("model.safetensors")).unwrap();
        assert!(bytes(&out) == bytes(&whole), "{network}");
    }
}

#[test]
fn bad_settings_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let words = tokenizer(&data, folder.path(), "wordpiece");
    let (out, small) = (folder.path().join("out"), folder.path().join("small"));
    let bytes = folder.path().join("bpe.json");
    success(run(shaderlm().args(["tokenizer", "train", "--vocab", "300", "--data", &data, "--out", bytes.to_str().unwrap()])));
    let error = failure(run(&mut train(&data, bytes.to_str().unwrap(), &out, 2, &[])));
    assert!(error.contains("[MASK]") || error.contains("[CLS]"), "{error}");
    for (flags, reason) in [
        (["--generator-fraction", "0.001"], "--generator-fraction"),
        (["--heads", "5"], "hidden_size 32"),
        (["--size", "huge"], "small, base and large"),
        (["--context", "3"], "leaves no room"),
        (["--mask-probability", "0"], "--mask-probability"),
    ] {
        let error = if flags[0] == "--size" {
            let args = ["train", "electra", "--data", &data, "--tokenizer", &words, "--size", "huge", "--out"];
            failure(run(shaderlm().args(args).arg(&out)))
        } else {
            failure(run(&mut train(&data, &words, &out, 2, &flags)))
        };
        assert!(error.contains(reason), "{error}");
    }
    assert!(!out.exists(), "nothing was written");

    success(run(&mut train(&data, &words, &small, 1, &["--eval-every", "0"])));
    let error = failure(run(&mut train(&data, &words, &small, 1, &[])));
    assert!(error.contains("it holds a run already"), "{error}");
    let init = |place: &Path, more: &[&str]| {
        let mut command = shaderlm();
        command.args(["train", "electra", "--data", &data, "--steps", "1", "--batch", "2", "--init"]).arg(place).args(more);
        command.arg("--out").arg(&out);
        failure(run(&mut command))
    };
    let error = init(&small.join("generator"), &[]);
    assert!(error.contains("no discriminator/ in it"), "{error}");
    // A generator of other embeddings.
    let other = folder.path().join("other");
    success(run(&mut train(&data, &words, &other, 1, &["--embedding-width", "16", "--eval-every", "0"])));
    let mixed = folder.path().join("mixed");
    fs::create_dir(&mixed).unwrap();
    fs::rename(other.join("generator"), mixed.join("generator")).unwrap();
    fs::rename(small.join("discriminator"), mixed.join("discriminator")).unwrap();
    let error = init(&mixed, &[]);
    assert!(error.contains("do not fit together") && error.contains("embedding_size"), "{error}");
    let mut command = shaderlm();
    command.args(["train", "electra", "--data", &data, "--steps", "1", "--batch", "2", "--tie", "none", "--init"]).arg(&mixed);
    success(run(command.arg("--out").arg(folder.path().join("untied"))));
    let model = mixed.join("discriminator");
    let error = failure(run(shaderlm().args(["detect", " ", "--model", model.to_str().unwrap()])));
    assert!(error.contains("empty"), "{error}");
    let error = failure(run(shaderlm().args(["generate", "the", "--model", model.to_str().unwrap()])));
    assert!(error.contains("it is a electra") || error.contains("electra"), "{error}");
}
