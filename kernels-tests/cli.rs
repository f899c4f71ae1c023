//! The command line end to end, on the binary.

use shaderlm::{
    checkpoint::{SafeTensorsFile, StoredType, write_safetensors},
    ops::random::threefry,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    thread,
    time::Duration,
};

/// The binary.
pub fn shaderlm() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_shaderlm"));
    command.stdin(Stdio::null());
    command
}

pub fn run(command: &mut Command) -> Output {
    command.output().unwrap()
}

/// Standard output of a run that must have gone well.
pub fn success(output: Output) -> String {
    let (out, err) = texts(&output);
    assert!(output.status.success(), "{}\n{out}\n{err}", output.status);
    out
}

/// Standard error of a run that must have failed as it should: exit code 1, one line, no panic.
pub fn failure(output: Output) -> String {
    let (out, err) = texts(&output);
    assert_eq!(output.status.code(), Some(1), "{}\n{out}\n{err}", output.status);
    assert!(err.contains("error: ") && !err.contains("panicked"), "{err}");
    err
}

fn texts(output: &Output) -> (String, String) {
    (String::from_utf8_lossy(&output.stdout).into_owned(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn ok(args: &[&str]) -> String {
    success(run(shaderlm().args(args)))
}

fn fails(args: &[&str]) -> String {
    failure(run(shaderlm().args(args)))
}

pub fn fixture(path: &str) -> String {
    format!("{}/kernels-tests/fixtures/gpt2/{path}", env!("CARGO_MANIFEST_DIR"))
}

pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}"))
}

/// A text file of some kilobytes.
pub fn corpus(folder: &Path) -> String {
    let path = folder.join("text.txt");
    let words = ["the", "king", "speaks", "and", "no", "one", "hears", "him", "\n", "O"];
    let text: Vec<_> = (0..3000).map(|i| words[threefry([i, 5], [0, 1])[0] as usize % words.len()]).collect();
    fs::write(&path, text.join(" ")).unwrap();
    path.to_string_lossy().into_owned()
}

/// `train gpt2` of a tiny model, with the settings that a test adds.
pub fn train(data: &str, out: &Path, steps: usize, more: &[&str]) -> Command {
    let mut command = shaderlm();
    command.args(["train", "gpt2", "--data", data, "--out"]).arg(out);
    command.args(["--layers", "1", "--heads", "2", "--width", "16", "--context", "16", "--batch", "3", "--warmup", "5"]);
    command.args(["--steps", &steps.to_string()]).args(more);
    command
}

/// The losses of a log, by step.
fn losses(path: &Path) -> Vec<(u64, String)> {
    let text = fs::read_to_string(path).unwrap();
    text.lines().map(json).map(|r| (r["step"].as_u64().unwrap(), r["loss"].to_string())).collect()
}

#[test]
fn generate_streams_and_repeats_itself() {
    let args = ["generate", "ROMEO:", "--max-tokens", "24", "--seed", "5", "--temperature", "0.7", "--top-k", "40"];
    let text = ok(&args);
    assert!(text.starts_with("ROMEO:") && text.len() > 12, "{text}");
    assert_eq!(text, ok(&args), "the same seed writes the same text");
    assert_ne!(text, ok(&["generate", "ROMEO:", "--max-tokens", "24", "--seed", "6"]));
    // The prompt from a pipe, with the line's end that a shell adds.
    let mut child = shaderlm()
        .args(["generate", "--max-tokens", "24", "--seed", "5", "--temperature", "0.7", "--top-k", "40"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(b"ROMEO:\n").unwrap();
    let piped = success(child.wait_with_output().unwrap());
    assert!(text.ends_with(&piped), "{piped:?} is not the end of {text:?}");
}

#[test]
fn generate_as_json_on_the_cpu_and_in_a_batch() {
    let greedy = ["generate", "--temperature", "0", "--max-tokens", "12", "--json"];
    let one = |prompt: &str, device: &str| json(&ok(&[&greedy[..], &["--prompt", prompt, "--device", device]].concat()));
    let (gpu, cpu) = (one("First Citizen:", "auto"), one("First Citizen:", "cpu"));
    assert_eq!(gpu["ids"], cpu["ids"], "the CPU fallback writes the same");
    assert_eq!(gpu["ids"].as_array().unwrap().len(), 12);
    assert_eq!(gpu["finish"], "length");
    let other = one("O", "auto");
    let both = json(&ok(&[&greedy[..], &["--prompt", "First Citizen:", "--prompt", "O"]].concat()));
    assert_eq!(both[0]["ids"], gpu["ids"], "a row of a batch is what it is alone");
    assert_eq!(both[1]["ids"], other["ids"]);
    // By ids instead of text.
    let ids: Vec<_> = gpu["prompt_ids"].as_array().unwrap().iter().map(ToString::to_string).collect();
    assert_eq!(json(&ok(&[&greedy[..], &["--ids", &ids.join(",")]].concat()))["ids"], gpu["ids"]);
    // Stops before a text that it wrote before.
    let text = gpu["text"].as_str().unwrap();
    let stop: String = text.chars().skip(3).take(2).collect();
    let stopped = json(&ok(&[&greedy[..], &["--prompt", "First Citizen:", "--stop", &stop]].concat()));
    assert_eq!(stopped["finish"], "stop text");
    assert_eq!(stopped["text"].as_str().unwrap(), &text[..text.find(&stop).unwrap()]);
}

/// Without any driver the CPU takes over and says so; a GPU that was asked for by name is an error.
#[cfg(target_os = "linux")]
#[test]
fn no_adapter_falls_back_to_the_cpu() {
    let blind = |args: &[&str]| {
        let mut command = shaderlm();
        for name in ["VK_ICD_FILENAMES", "VK_DRIVER_FILES"] {
            command.env(name, "/nowhere.json");
        }
        run(command.args(args))
    };
    let args = ["generate", "ROMEO:", "--temperature", "0", "--max-tokens", "4"];
    let output = blind(&args);
    let notice = texts(&output).1;
    assert!(notice.contains("running on the CPU") && notice.lines().count() == 1, "{notice}");
    assert_eq!(success(output), ok(&args));
    assert!(failure(blind(&[&args[..], &["--device", "0"]].concat())).contains("adapter"));
    assert!(success(blind(&["devices"])).contains("no GPU adapter"));
}

#[test]
fn generate_beyond_the_context() {
    let model = fixture("tiny");
    let args = ["generate", "--model", &model, "--ids", "1,2,3", "--temperature", "0", "--json", "--max-tokens"];
    let error = fails(&[&args[..], &["500"]].concat());
    assert!(error.contains("--slide") && error.contains("context"), "{error}");
}

#[test]
fn generate_slides() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let out = folder.path().join("model");
    success(run(&mut train(&data, &out, 3, &[])));
    let model = out.to_string_lossy();
    let args = ["generate", "--model", &model, "the king", "--temperature", "0", "--json", "--max-tokens", "70", "--slide"];
    let slid = json(&ok(&args));
    assert_eq!(slid["ids"].as_array().unwrap().len(), 70);
    let ids = |v: &serde_json::Value, n: usize| v["ids"].as_array().unwrap()[..n].to_vec();
    let short = json(&ok(&["generate", "--model", &model, "the king", "--temperature", "0", "--json", "--max-tokens", "8"]));
    assert_eq!(ids(&slid, 8), ids(&short, 8), "before the context is full nothing is forgotten");
    // Text that looks like a special token is text, unless asked for.
    let tokens = |more: &[&str]| {
        let base = ["generate", "--model", &model, "<|endoftext|>", "--json", "--max-tokens", "1"];
        json(&ok(&[&base[..], more].concat()))["prompt_ids"].as_array().unwrap().len()
    };
    assert_eq!((tokens(&[]), tokens(&["--special-tokens"])), (13, 1));
}

#[test]
fn forward_and_backward_write_what_transformers_does() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.safetensors");
    let (model, case) = (fixture("odd"), fixture("odd/case.safetensors"));
    let expected = SafeTensorsFile::open(Path::new(&case)).unwrap();
    let files = ["--model", &model, "--input", &case, "--output", out.to_str().unwrap()];
    ok(&[&["forward", "--hidden-states"], &files[..]].concat());
    let found = SafeTensorsFile::open(&out).unwrap();
    for name in ["logits", "hidden_states.0", "hidden_states.1"] {
        let (a, b) = (found.tensor(name).unwrap(), expected.tensor(name).unwrap());
        assert_eq!(a.shape, b.shape, "{name}");
        // The first row has no padding.
        let n = a.shape[1] * a.shape[2];
        let (a, b) = (a.to_f32().unwrap(), b.to_f32().unwrap());
        assert!(a[..n].iter().zip(&b[..n]).all(|(a, b)| (a - b).abs() < 1e-4), "{name}");
    }
    drop(found);
    for device in ["auto", "cpu"] {
        ok(&[&["backward", "--device", device], &files[..]].concat());
        let found = SafeTensorsFile::open(&out).unwrap();
        for name in expected.names().filter(|n| n.starts_with("grad.") || *n == "loss") {
            let (a, b) = (found.tensor(name).unwrap(), expected.tensor(name).unwrap());
            assert_eq!(a.shape, b.shape, "{name}");
            let wide: Vec<f64> = b.to_f32().unwrap().iter().map(|&x| f64::from(x)).collect();
            let error = crate::harness::nmse(&a.to_f32().unwrap(), &wide);
            assert!(error <= 1e-8, "{name} on {device}: NMSE {error:e}");
        }
    }
}

#[test]
fn train_generate_measure_and_show() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let (out, log) = (folder.path().join("model"), folder.path().join("log.jsonl"));
    let text = success(run(&mut train(&data, &out, 60, &["--log", log.to_str().unwrap(), "--stats", "--eval-every", "30"])));
    assert!(text.contains("step 30: loss") && text.contains("60 steps done"), "{text}");
    let records = losses(&log);
    assert_eq!(records.len(), 60);
    let loss = |i: usize| records[i].1.parse::<f64>().unwrap();
    assert!(loss(0) > 5.0 && loss(59) < loss(0) - 0.8, "it learns: {} to {}", loss(0), loss(59));
    let last = json(fs::read_to_string(&log).unwrap().lines().last().unwrap());
    assert!(last["eval_loss"].as_f64().is_some() && last["lr"].as_f64().is_some(), "{last}");

    let model = out.to_str().unwrap();
    assert!(ok(&["generate", "--model", model, "the king", "--max-tokens", "5"]).starts_with("the king"));
    let held_out = folder.path().join("held.txt");
    let text = fs::read_to_string(&data).unwrap();
    fs::write(&held_out, &text[text.len() - 900..]).unwrap();
    let measure = |more: &[&str]| {
        json(&ok(&[&["perplexity", "--model", model, "--data", held_out.to_str().unwrap(), "--json"], more].concat()))
    };
    let whole = measure(&[]);
    assert_eq!(whole["tokens"], 899, "each byte but the first is predicted");
    let perplexity = whole["perplexity"].as_f64().unwrap();
    assert!((perplexity.ln() - whole["loss"].as_f64().unwrap()).abs() < 1e-9 && perplexity < 200.0, "{whole}");
    let on_cpu = measure(&["--device", "cpu"])["loss"].as_f64().unwrap();
    assert!((on_cpu - whole["loss"].as_f64().unwrap()).abs() < 1e-4);
    assert!(measure(&["--stride", "4"])["loss"].as_f64().unwrap() < whole["loss"].as_f64().unwrap() + 0.2);

    let dot = folder.path().join("graph.dot");
    let table = ok(&["graph", "--model", model, "--batch", "2", "--context", "8", "--backward", "--dot", dot.to_str().unwrap()]);
    assert!(table.contains("matmul") && table.contains("GFLOP") && table.contains("attention_backward"), "{table}");
    assert!(fs::read_to_string(dot).unwrap().starts_with("digraph"));
    // The columns of numbers end at one place in all rows, those with several outputs too.
    let lines: Vec<_> = table.lines().collect();
    let end = lines[1].find("MFLOP").unwrap() + "MFLOP".len();
    let rows = lines.iter().position(|line| line.contains(" operations, ")).unwrap();
    assert!(lines[rows + 1].starts_with("memory: ") && lines[rows + 1].contains(" MB for variables"), "{table}");
    // A software adapter without subgroups has one kernel for each product.
    let engine = crate::harness::engine();
    let caps = engine.capabilities().unwrap();
    match &lines[rows + 2..] {
        [] => assert!(caps.software && caps.subgroup.is_none(), "{table}"),
        [title, first, ..] => assert!(title.contains("kernels") && first.contains("matmul"), "{table}"),
        [_] => panic!("a title and nothing under it: {table}"),
    }
    for line in &lines[2..rows] {
        assert!(line[..end].ends_with(|c: char| c.is_ascii_digit()) && line[end..].starts_with("  "), "{line}");
    }

    // From that model on, with its tokenizer, and with another optimizer.
    let tuned = folder.path().join("tuned");
    let mut command = shaderlm();
    command.args([
        "train",
        "gpt2",
        "--data",
        &data,
        "--init",
        model,
        "--steps",
        "2",
        "--batch",
        "2",
        "--optimizer",
        "sgd",
        "--out",
    ]);
    success(run(command.arg(&tuned).args(["--dropout", "0.1", "--recompute", "--accumulate", "2", "--dtype", "f16"])));
    assert!(ok(&["generate", "--model", tuned.to_str().unwrap(), "the", "--max-tokens", "3"]).starts_with("the"));
}

#[test]
fn fifty_steps_twice_give_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let [a, b] = ["a", "b"].map(|name| {
        let out = folder.path().join(name);
        success(run(&mut train(&data, &out, 50, &["--dropout", "0.1", "--log", out.with_extension("log").to_str().unwrap()])));
        (fs::read(out.join("model.safetensors")).unwrap(), losses(&out.with_extension("log")))
    });
    assert_eq!(a.1, b.1, "losses differ");
    assert!(a.0 == b.0, "weights differ");
}

#[test]
fn killed_ten_times_and_resumed_as_if_nothing_had_happened() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let more = ["--save-every", "7", "--dropout", "0.1", "--accumulate", "2"];
    let whole = folder.path().join("whole");
    let whole_log = folder.path().join("whole.jsonl");
    let steps = 600;
    let clock = std::time::Instant::now();
    success(run(&mut train(&data, &whole, steps, &[&more[..], &["--log", whole_log.to_str().unwrap()]].concat())));
    let whole_time = clock.elapsed();

    let (out, log) = (folder.path().join("killed"), folder.path().join("killed.jsonl"));
    let resumed = [&more[..], &["--log", log.to_str().unwrap(), "--resume"]].concat();
    let mut kills = 0;
    for i in 0..10 {
        let mut child = train(&data, &out, steps, &resumed).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        // Anywhere, in the start-up and in the midst of a checkpoint too.
        let share = f64::from(threefry([i, 2], [1, 1])[0]) / f64::from(u32::MAX);
        thread::sleep(Duration::from_millis(300) + whole_time.mul_f64(0.1 * share));
        kills += usize::from(child.try_wait().unwrap().is_none());
        let _ = child.kill();
        child.wait().unwrap();
    }
    assert!(kills >= 8, "only {kills} of the runs were still under way when they were to be killed");
    success(run(&mut train(&data, &out, steps, &resumed)));
    assert_eq!(losses(&log), losses(&whole_log));
    for name in ["model.safetensors", "state.safetensors"] {
        let [a, b] = [&out, &whole].map(|folder| {
            let file = SafeTensorsFile::open(&folder.join(name)).unwrap();
            file.names().map(|n| (n.to_owned(), file.tensor(n).unwrap().bytes.to_vec())).collect::<Vec<_>>()
        });
        assert!(a == b, "{name} differs");
    }
    let left: Vec<_> = fs::read_dir(&out).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(left.len(), 5, "nothing else is left there: {left:?}");
}

#[cfg(unix)]
#[test]
fn ctrl_c_saves_and_exits_cleanly() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let (out, log) = (folder.path().join("model"), folder.path().join("log.jsonl"));
    let more = ["--save-every", "0", "--log", log.to_str().unwrap()];
    let child = train(&data, &out, 100_000, &more).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    while fs::read_to_string(&log).unwrap_or_default().lines().count() < 5 {
        thread::sleep(Duration::from_millis(20));
    }
    Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    let text = success(child.wait_with_output().unwrap());
    assert!(text.contains("stopped and saved at step"), "{text}");
    let done = losses(&log).len();
    let file = SafeTensorsFile::open(&out.join("state.safetensors")).unwrap();
    assert_eq!(file.metadata()["shaderlm.step"], done.to_string());
}

#[test]
fn a_reader_that_leaves_early_is_no_error() {
    for args in [&["generate", "O", "--max-tokens", "60"][..], &["devices"]] {
        let mut child = shaderlm().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        let (_, err) = texts(&output);
        assert!(output.status.success() && !err.contains("panicked"), "{args:?}: {}\n{err}", output.status);
    }
}

#[test]
fn devices_and_help() {
    let text = ok(&["devices"]);
    for word in ["backend", "driver", "features", "limits", "kernels", "cpu:"] {
        assert!(text.contains(word), "no {word} in {text}");
    }
    for line in ok(&["devices", "--json"]).lines() {
        let device = json(line);
        assert!(device["name"].is_string() && device["max_binding_bytes"].as_u64().unwrap() >= 128 << 20, "{device}");
    }
    for command in
        ["generate", "train gpt2", "tokenizer train", "forward", "backward", "perplexity", "quantize", "graph", "devices"]
    {
        let words: Vec<_> = command.split(' ').chain(["--help"]).collect();
        assert!(ok(&words).contains("Usage: shaderlm"), "{command}");
    }
    assert_eq!(run(shaderlm().arg("nonsense")).status.code(), Some(2));
    assert!(fails(&["generate", "O", "--max-tokens", "5", "--device", "no such card"]).contains("no such card"));
}

#[test]
fn tokenizers() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let file = folder.path().join("tokenizer.json");
    let path = file.to_str().unwrap();
    let text = ok(&["tokenizer", "train", "--data", &data, "--vocab", "280", "--out", path]);
    assert!(text.contains("280 tokens"), "{text}");
    assert!(fails(&["tokenizer", "train", "--data", &data, "--vocab", "10", "--out", path]).contains("--vocab"));
    for (name, tokens) in [(path, 280), ("chars", 20), ("gpt2", 50_257)] {
        let out = folder.path().join(format!("model-{tokens}"));
        success(run(&mut train(&data, &out, 1, &["--tokenizer", name])));
        let config = json(&fs::read_to_string(out.join("config.json")).unwrap());
        let size = config["vocab_size"].as_u64().unwrap();
        assert!(if name == "chars" { size < 30 } else { size == tokens }, "{name}: {size}");
    }
}

/// A copy of a fixture's folder, to be damaged.
fn copy(name: &str, to: &Path) -> PathBuf {
    let out = to.join(name);
    fs::create_dir_all(&out).unwrap();
    for entry in fs::read_dir(fixture(name)).unwrap() {
        let path = entry.unwrap().path();
        fs::copy(&path, out.join(path.file_name().unwrap())).unwrap();
    }
    out
}

#[test]
fn bad_models_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let model = copy("tiny", folder.path());
    let generate = || fails(&["generate", "--ids", "1", "--model", model.to_str().unwrap()]);
    let config = fs::read_to_string(model.join("config.json")).unwrap();
    for (from, to, word) in [
        ("\"gpt2\"", "\"llama\"", "llama"),
        ("\"n_head\": ", "\"n_head\": 7", "n_head"),
        ("\"vocab_size\": ", "\"vocab_size\": 9", "wte"),
        ("\"n_embd\": ", "\"n_embd\": \"x", "config.json"),
        ("{", "[", "config.json"),
    ] {
        let changed = if to.ends_with("\"x") { config.replacen(from, "\"n_embd\": -", 1) } else { config.replacen(from, to, 1) };
        assert_ne!(changed, config, "{from} is in the file");
        fs::write(model.join("config.json"), changed).unwrap();
        let error = generate();
        assert!(error.contains(word), "{word} is not in {error}");
    }
    fs::write(model.join("config.json"), &config).unwrap();
    // No tokenizer: ids are needed, and are enough.
    let error = fails(&["generate", "text", "--model", model.to_str().unwrap()]);
    assert!(error.contains("tokenizer.json") && error.contains("--ids"), "{error}");
    let ids = ok(&["generate", "--ids", "1,2", "--model", model.to_str().unwrap(), "--max-tokens", "3"]);
    assert_eq!(ids.trim().split(',').filter(|id| id.parse::<u32>().is_ok()).count(), 3, "{ids}");
    // A tokenizer with more tokens than the model has rows.
    fs::write(model.join("tokenizer.json"), shaderlm::text::Tokenizer::bytes().unwrap().to_json().unwrap()).unwrap();
    let error = fails(&["generate", "text", "--model", model.to_str().unwrap()]);
    assert!(error.contains("257") && error.contains("vocab_size"), "{error}");
    fs::remove_file(model.join("tokenizer.json")).unwrap();

    let weights = fs::read(model.join("model.safetensors")).unwrap();
    fs::write(model.join("model.safetensors"), &weights[..weights.len() - 10]).unwrap();
    let error = generate();
    assert!(error.contains("model.safetensors") && error.contains("cut short"), "{error}");
    fs::write(model.join("model.safetensors"), [&(100u64 << 20).to_le_bytes()[..], &weights[8..]].concat()).unwrap();
    assert!(generate().contains("header claims"), "{}", generate());
    fs::remove_file(model.join("model.safetensors")).unwrap();
    assert!(generate().contains("model.safetensors"), "{}", generate());
}

#[test]
fn bad_inputs_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let model = fixture("tiny");
    assert!(fails(&["generate", ""]).contains("empty"));
    assert!(fails(&["generate", "--model", &model, "--ids", "9999"]).contains("9999"));
    assert!(fails(&["generate", "O", "--max-tokens", "0"]).contains("--max-tokens"));
    assert!(fails(&["perplexity", "--data", "no-such-file"]).contains("no-such-file"));

    // Ids out of range, wrong shapes and types, and too long.
    let input = here.join("in.safetensors");
    let write = |name: &str, dtype: StoredType, shape: &[usize], bytes: Vec<u8>| {
        let tensors = [(name.to_owned(), dtype, shape.to_vec(), Cow::Owned(bytes))];
        write_safetensors(&input, &tensors, &BTreeMap::new()).unwrap();
    };
    let forward = || {
        let out = here.join("out.safetensors");
        let error = fails(&["forward", "--model", &model, "--input", input.to_str().unwrap(), "--output", out.to_str().unwrap()]);
        assert!(!out.exists(), "something was written");
        error
    };
    let ids = |ids: &[i64]| ids.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<_>>();
    write("input_ids", StoredType::I64, &[1, 2], ids(&[3, 100_000]));
    assert!(forward().contains("input_ids[0, 1] is 100000"), "{}", forward());
    write("input_ids", StoredType::I64, &[1, 2], ids(&[-1, 3]));
    assert!(forward().contains("input_ids[0, 0] is -1"));
    write("input_ids", StoredType::I64, &[2], ids(&[1, 3]));
    assert!(forward().contains("[batch, time]"));
    write("input_ids", StoredType::F32, &[1, 2], vec![0; 8]);
    assert!(forward().contains("F32"));
    write("ids", StoredType::I64, &[1, 2], ids(&[1, 3]));
    assert!(forward().contains("no tensor input_ids"));
    write("input_ids", StoredType::I64, &[1, 500], ids(&[1; 500]));
    assert!(forward().contains("context"));

    // Data.
    let data = here.join("data.txt");
    let out = here.join("model");
    let path = data.to_str().unwrap();
    for (bytes, word) in [(&b""[..], "empty"), (b"ab\xff\xfe", "UTF-8"), (b"short", "tokens")] {
        fs::write(&data, bytes).unwrap();
        let error = failure(run(&mut train(path, &out, 2, &[])));
        assert!(error.contains("data.txt") && error.contains(word), "{word} is not in {error}");
        assert!(!out.exists(), "a folder was made for nothing");
    }
    let data = corpus(here);
    for (more, word) in [
        (&["--heads", "3", "--width", "16"][..], "--heads"),
        (&["--batch", "0"], "--batch"),
        (&["--tokenizer", "no-such.json"], "no-such.json"),
        (&["--vocab", "10"], "--vocab"),
        (&["--init", "no/such"], "no/such"),
    ] {
        let mut command = shaderlm();
        command.args(["train", "gpt2", "--data", &data, "--steps", "1", "--out"]).arg(&out).args(more);
        let error = failure(run(&mut command));
        assert!(error.contains(word), "{word} is not in {error}");
    }
}

#[test]
fn folders_are_not_overwritten_by_accident() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let out = folder.path().join("model");
    success(run(&mut train(&data, &out, 2, &[])));
    let error = failure(run(&mut train(&data, &out, 2, &[])));
    assert!(error.contains("--resume") && error.contains("--overwrite"), "{error}");
    let error = failure(run(&mut train(&data, &out, 3, &["--resume", "--dropout", "0.1"])));
    assert!(error.contains("other settings"), "{error}");
    success(run(&mut train(&data, &out, 2, &["--overwrite"])));
    // A model without a training state is somebody's model.
    let model = copy("tiny", folder.path());
    for more in [&[][..], &["--resume"]] {
        assert!(failure(run(&mut train(&data, &model, 2, more))).contains("holds a model"));
    }
}

/// A file system that is full, and one that is read only, where this machine lets us have them.
#[cfg(target_os = "linux")]
#[test]
fn full_and_read_only_disks() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    // /dev/full takes no byte.
    let input = fixture("odd/case.safetensors");
    let model = fixture("odd");
    let error = fails(&["forward", "--model", &model, "--input", &input, "--output", "/proc/nowhere/out.safetensors"]);
    assert!(error.contains("/proc/nowhere"), "{error}");
    let error = failure(run(&mut train(&data, Path::new("/proc/nowhere/model"), 2, &[])));
    assert!(error.contains("/proc/nowhere"), "{error}");
    let error = failure(run(&mut train(&data, &folder.path().join("model"), 2, &["--log", "/dev/full"])));
    assert!(error.contains("/dev/full"), "{error}");
}
