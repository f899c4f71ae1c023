//! The profiler and the ceilings: times that add up, traces that open, and nothing changed by measuring.

use crate::{
    cli::{corpus, failure, fixture, json, run, shaderlm, success, train},
    harness::engine,
};
use serde_json::Value;
use shaderlm::{
    checkpoint::{StoredType, write_safetensors},
    gpu::{Gpu, GpuOptions, Timestamps},
    graph::{Clock, Engine, Graph, PlanOptions, Profile, gradients, kernels},
    ops::{self, HostTensor, Recorder, Tensor, TensorType},
};
use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

/// A graph with products, an activation and a gradient, that updates a variable, and its outputs.
fn graph() -> (Graph, Tensor, Vec<Tensor>) {
    let mut g = Graph::new();
    let x = g.input("x", TensorType::f32([48, 64]));
    let w = g.variable("w", TensorType::f32([64, 64])).unwrap();
    let (m, v) = (g.variable("m", TensorType::f32([64, 64])).unwrap(), g.variable("v", TensorType::f32([64, 64])).unwrap());
    let hyper = g.fill(TensorType::f32([3]), 0.5);
    let loss = g
        .layer("h.3", |g| {
            let y = ops::matmul(g, x, w)?;
            let y = ops::gelu(g, y, ops::Gelu::Tanh)?;
            let y = ops::softmax(g, y)?;
            let y = ops::mul(g, y, y)?;
            ops::sum(g, y)
        })
        .unwrap();
    let grad = gradients(&mut g, loss, &[w]).unwrap()[0].unwrap();
    let rule = ops::AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, rate_scale: 1.0 };
    ops::adamw(&mut g, w, grad, m, v, hyper, None, rule).unwrap();
    (g, x, vec![loss, grad])
}

/// Runs the graph seven times on `engine`, profiled or not; the last outputs and variable.
fn seven_runs(engine: &mut Engine, profiled: Option<usize>) -> (Vec<Vec<f32>>, Option<Profile>, f64) {
    let numbers = |n: usize| (0..n).map(|i| ((i * 37 % 101) as f32 - 50.0) / 60.0).collect::<Vec<_>>();
    engine.set("w", &HostTensor::floats([64, 64], numbers(64 * 64))).unwrap();
    let profiler = profiled.map(|events| engine.profile_at_most(events));
    let (g, x, wanted) = graph();
    let mut plan = engine.compile(g, &wanted, &PlanOptions::named("test")).unwrap();
    let start = Instant::now();
    for i in 0..7 {
        plan.set(x, HostTensor::floats([48, 64], numbers(48 * 64 + i)[i..].to_vec())).unwrap();
        plan.run(engine).unwrap();
    }
    plan.wait().unwrap();
    let took = start.elapsed().as_secs_f64() * 1e6;
    let mut results: Vec<_> = wanted.iter().map(|&t| plan.get(t).unwrap().f().to_vec()).collect();
    results.push(engine.get("w").unwrap().unwrap().f().to_vec());
    (results, profiler.map(|p| p.collected()), took)
}

/// What must hold for the profile of [`seven_runs`].
fn check(profile: &Profile, clock: Clock, labels: &[String], took: f64) {
    assert_eq!(profile.clock, Some(clock));
    let plan = &profile.plans[0];
    assert_eq!((plan.name, plan.count, profile.left_out), ("test", 7, 0));
    assert_eq!(plan.runs.iter().map(|run| run.number).collect::<Vec<_>>(), [3, 4, 5]);
    assert_eq!(plan.about.iter().map(|about| about.kernel.clone()).collect::<Vec<_>>(), labels);
    let mut last = 0.0;
    for run in &plan.runs {
        assert_eq!(run.device.len(), labels.len());
        let busy: f64 = run.device.iter().map(|span| span.length()).sum();
        assert!(busy > 0.0 && busy <= run.wall.length() * 1.05 + 1.0, "{busy} us of {}", run.wall.length());
        for span in &run.device {
            assert!(span.begin >= last - 1e-3 && span.end >= span.begin, "{span:?} after {last}");
            last = span.end;
        }
        let mut last = 0.0;
        for (what, span) in &run.host {
            assert!(span.begin >= last && span.end >= span.begin, "{what} {span:?} after {last}");
            last = span.end;
        }
        assert!(run.host.iter().any(|(what, _)| *what == "upload"), "{:?}", run.host);
    }
    let wall: f64 = plan.runs.iter().map(|run| run.wall.length()).sum();
    assert!(wall <= took, "three runs took {wall} us, and all seven {took}");
    // A product of [48,64] by [64,64], and what AdamW reads and writes: three tensors twice, the gradient once.
    let product = plan.about.iter().find(|about| about.operation == "matmul").unwrap();
    assert_eq!((product.flops, product.layer.as_str()), (2 * 48 * 64 * 64, "h.3"));
    assert!(product.shapes.starts_with("[48,64] [64,64] -> [48,64]"), "{}", product.shapes);
    let adamw = plan.about.iter().find(|about| about.operation == "adamw").unwrap();
    let least = 7 * 64 * 64 * 4;
    assert!(adamw.bytes >= least && adamw.bytes < least + 256, "{} bytes", adamw.bytes);
    let table = profile.table(None);
    assert!(table.contains("test: a run takes") && table.contains("runs 3 to 5 of 7"), "{table}");
    assert_eq!(table.contains("overstates short ones"), clock == Clock::Alone);
    assert!(labels.iter().all(|label| table.contains(label)), "{table}");
}

/// Kernels of the graph on an adapter.
fn labels(engine: &Engine) -> Vec<String> {
    let (g, _, wanted) = graph();
    let list = kernels(&g, &wanted, engine.capabilities().unwrap(), &PlanOptions::default()).unwrap();
    list.iter().map(|kernel| kernel.label()).collect()
}

#[test]
fn measuring_changes_nothing_and_adds_up() {
    let (plain, none, _) = seven_runs(&mut engine(), None);
    assert!(none.is_none());
    let mut measured = engine();
    let timestamps = measured.capabilities().unwrap().timestamps;
    let clock = if timestamps == Timestamps::None { Clock::Alone } else { Clock::Timestamps };
    let (results, profile, took) = seven_runs(&mut measured, Some(1000));
    check(&profile.unwrap(), clock, &labels(&measured), took);
    assert_eq!(results, plain, "every bit");
}

/// As on Apple's GPUs, which have timestamps around passes only, and as where there are none.
#[test]
fn with_fewer_timestamps_or_none() {
    let plain = seven_runs(&mut engine(), None).0;
    let offered = engine().capabilities().unwrap().timestamps;
    for (without, timestamps) in [("timestamps-inside", Timestamps::Passes), ("timestamps", Timestamps::None)] {
        let choice = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into()).parse().unwrap();
        let mut options = GpuOptions::new(choice);
        options.without.push(without.into());
        let gpu = Gpu::open(&options).unwrap();
        assert_eq!(gpu.caps.timestamps, if offered == Timestamps::None { offered } else { timestamps });
        let clock = if gpu.caps.timestamps == Timestamps::None { Clock::Alone } else { Clock::Timestamps };
        let mut fewer = Engine::on(Arc::new(gpu));
        let (results, profile, took) = seven_runs(&mut fewer, Some(1000));
        check(&profile.unwrap(), clock, &labels(&fewer), took);
        assert_eq!(results, plain, "every bit");
    }
}

#[test]
fn on_the_cpu_each_operation_is_timed() {
    let (results, profile, took) = seven_runs(&mut Engine::cpu(), Some(1000));
    assert_eq!(results, seven_runs(&mut Engine::cpu(), None).0, "every bit");
    let profile = profile.unwrap();
    let operations: Vec<_> = profile.plans[0].about.iter().map(|about| about.kernel.clone()).collect();
    for name in ["matmul", "gelu", "softmax", "adamw"] {
        assert!(operations.iter().any(|operation| operation == name), "{name} is not in {operations:?}");
    }
    check(&profile, Clock::Host, &operations, took);
}

#[test]
fn what_does_not_fit_the_trace_is_counted() {
    let dispatches = labels(&engine()).len();
    // Room for the first run and a half.
    let (_, profile, _) = seven_runs(&mut engine(), Some(dispatches * 3 / 2));
    let profile = profile.unwrap();
    let plan = &profile.plans[0];
    assert_eq!(plan.runs.iter().map(|run| run.number).collect::<Vec<_>>(), [1]);
    assert!(plan.cold());
    assert_eq!((plan.count, profile.left_out), (7, 4));
    let covered = profile.covered().join("\n");
    assert!(covered.contains("warm-up") && covered.contains("4 more runs were left out"), "{covered}");
    // Room for none at all.
    let (_, profile, _) = seven_runs(&mut engine(), Some(1));
    let profile = profile.unwrap();
    assert!(profile.is_empty() && profile.left_out == 5, "{:?}", profile.covered());
}

/// A trace that must be sound: complete events on two tracks, none over another on the same one, as many as it says. Gives the
/// names of the plans and how many runs of each were measured.
fn trace(path: &Path) -> BTreeMap<String, usize> {
    let trace = json(&fs::read_to_string(path).unwrap());
    let events: Vec<&Value> = trace["traceEvents"].as_array().unwrap().iter().filter(|e| e["ph"] == "X").collect();
    let mut tracks: BTreeMap<u64, Vec<(i64, i64)>> = BTreeMap::new();
    let mut device: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for event in &events {
        let nanoseconds = |name: &str| (event[name].as_f64().unwrap() * 1e3).round() as i64;
        let (begin, length) = (nanoseconds("ts"), nanoseconds("dur"));
        assert!(length >= 0, "{event}");
        tracks.entry(event["tid"].as_u64().unwrap()).or_default().push((begin, begin + length));
        let args = &event["args"];
        let plan = args["plan_id"].as_u64().unwrap();
        if let Some(kernel) = args["kernel"].as_str() {
            assert_eq!(event["name"], kernel);
            for name in ["layer", "operation", "shapes"] {
                assert!(args[name].is_string(), "{name}: {event}");
            }
            assert!(args["flops"].is_u64() && args["bytes"].is_u64(), "{event}");
            *device.entry((plan, args["run"].as_u64().unwrap())).or_default() += 1;
        }
    }
    assert_eq!(tracks.len(), 2);
    for (track, spans) in &mut tracks {
        spans.sort_unstable();
        for pair in spans.windows(2) {
            assert!(pair[0].1 <= pair[1].0, "track {track}: {pair:?}");
        }
    }
    let mut runs = BTreeMap::new();
    for plan in trace["otherData"]["plans"].as_array().unwrap() {
        let name = plan["name"].as_str().unwrap();
        for run in plan["measured"].as_array().unwrap() {
            let number = |name: &str| run[name].as_f64().unwrap();
            assert!(number("device_us") <= number("wall_us") * 1.05 + 1.0, "{run}");
            let found = device[&(plan["id"].as_u64().unwrap(), run["number"].as_u64().unwrap())];
            assert_eq!(found as u64, plan["dispatches"].as_u64().unwrap(), "{plan}");
            *runs.entry(name.to_owned()).or_default() += 1;
        }
    }
    assert_eq!(runs.values().sum::<usize>(), device.len());
    runs
}

/// The binary with a cache folder of its own.
fn with_cache(command: &mut Command, cache: &Path) -> std::process::Output {
    run(command.env("SHADERLM_CACHE", cache))
}

#[test]
fn commands_write_traces_and_tables() {
    let folder = tempfile::tempdir().unwrap();
    let (cache, file) = (folder.path().join("cache"), folder.path().join("trace.json"));
    let path = file.to_str().unwrap();
    let data = corpus(folder.path());
    for device in ["auto", "cpu"] {
        let out = folder.path().join(format!("model-{device}"));
        let more = ["--profile", path, "--device", device];
        let output = with_cache(&mut train(&data, &out, 8, &more), &cache);
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(success(output).contains("8 steps done"));
        assert!(
            err.contains("measuring what the device can reach") && err.contains("of ceiling") && err.contains("runs 3 to 5 of 8"),
            "{err}"
        );
        assert!(err.contains("% mem") && err.contains("adamw"), "{err}");
        assert_eq!(trace(&file)["train"], 3);
        fs::remove_file(&file).unwrap();
    }
    // The ceilings are known now, and a plan that runs once is measured all the same.
    let args = ["generate", "O", "--max-tokens", "8", "--seed", "3", "--profile", path];
    let output = with_cache(shaderlm().args(args), &cache);
    let err = String::from_utf8_lossy(&output.stderr).into_owned();
    let text = success(output);
    assert!(!err.contains("measuring") && err.contains("of ceiling") && err.contains("warm-up counts"), "{err}");
    assert_eq!(trace(&file), BTreeMap::from([("decode".to_owned(), 3), ("prompt".to_owned(), 1)]));
    assert_eq!(text, success(with_cache(shaderlm().args(&args[..6]), &cache)), "the same text as without");

    let (input, result) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
    let ids: Vec<u8> = [1_i32, 2, 3, 4].iter().flat_map(|id| id.to_le_bytes()).collect();
    let tensors = [("input_ids".to_owned(), StoredType::I32, vec![1, 4], Cow::Borrowed(ids.as_slice()))];
    write_safetensors(&input, &tensors, &BTreeMap::new()).unwrap();
    let model = fixture("tiny");
    let mut command = shaderlm();
    command.args(["forward", "--model", &model, "--profile", path, "--input"]).arg(&input).arg("--output").arg(&result);
    success(with_cache(&mut command, &cache));
    assert_eq!(trace(&file), BTreeMap::from([("forward".to_owned(), 1)]));
}

#[test]
fn a_file_that_cannot_be_written_ends_the_command_before_it_begins() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let out = folder.path().join("model");
    for place in ["no/such/folder/trace.json", "."] {
        let place = folder.path().join(place);
        let place = place.to_str().unwrap();
        assert!(failure(run(&mut train(&data, &out, 8, &["--profile", place]))).contains("--profile"));
        assert!(!out.exists(), "nothing was begun");
        let output = run(shaderlm().args(["generate", "O", "--max-tokens", "5", "--profile", place]));
        assert!(output.stdout.is_empty());
        assert!(failure(output).contains("--profile"));
        // None of these comes as far as to miss its model.
        for command in ["classify", "embed", "fill", "detect"] {
            let mut command_line = shaderlm();
            command_line.args([command, "text", "--model", "/nowhere", "--profile", place]);
            if command == "embed" {
                command_line.arg("--output").arg(&out);
            }
            let error = failure(run(&mut command_line));
            assert!(error.contains("--profile"), "{command}: {error}");
        }
    }
}

#[test]
fn ctrl_c_leaves_a_trace() {
    let folder = tempfile::tempdir().unwrap();
    let data = corpus(folder.path());
    let train = train(&data, &folder.path().join("model"), 100_000, &["--eval-every", "0"]);
    let mut generate = shaderlm();
    generate.args(["generate", "O", "--slide", "--max-tokens", "1000000"]);
    for (mut command, plan, code) in [(train, "train", 0), (generate, "decode", 130)] {
        let file = folder.path().join(format!("{plan}.json"));
        command.env("SHADERLM_CACHE", folder.path().join("cache")).arg("--profile").arg(&file);
        let log = folder.path().join(format!("{plan}.txt"));
        let out = fs::File::create(&log).unwrap();
        let mut child = command.stdout(out).stderr(Stdio::null()).spawn().unwrap();
        // It is under way once it has written something: a model, or text.
        let model = folder.path().join("model/model.safetensors");
        let begun = || if plan == "train" { model.exists() } else { fs::metadata(&log).unwrap().len() > 200 };
        let start = Instant::now();
        while !begun() && start.elapsed() < Duration::from_secs(120) {
            thread::sleep(Duration::from_millis(20));
        }
        thread::sleep(Duration::from_secs(2));
        assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(code), "{plan}");
        assert_eq!(trace(&file)[plan], 3);
    }
    let names: BTreeSet<_> = fs::read_dir(folder.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(!names.iter().any(|name| name.to_string_lossy().ends_with(".tmp")), "{names:?}");
}

#[test]
fn ceilings_are_measured_and_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let cache = folder.path().join("cache");
    let positive = |value: &Value| value.as_f64().is_some_and(|x| x.is_finite() && x > 0.0);
    // A rate is a number, or there is a reason for there being none.
    let rate = |value: &Value| positive(&value["gflops"]) || value["reason"].as_str().is_some_and(|r| !r.is_empty());
    for device in ["auto", "cpu"] {
        let found = json(&success(with_cache(shaderlm().args(["bench", "ceilings", "--json", "--device", device]), &cache)));
        assert!(positive(&found["copy_gb_per_s"]) && positive(&found["read_gb_per_s"]), "{found}");
        assert!(positive(&found["fma_f32"]["gflops"]), "{found}");
        assert!(rate(&found["fma_f16"]) && rate(&found["cooperative"]), "{found}");
        assert_eq!(found["effort"], "full");
    }
    let devices = success(with_cache(shaderlm().args(["devices", "--json"]), &cache));
    let measured: Vec<_> = devices.lines().map(json).filter(|device| positive(&device["ceilings"]["copy_gb_per_s"])).collect();
    assert_eq!(measured.len(), 1, "{devices}");
    // What a device says that it has is measured, not excused.
    assert!(measured[0]["f16"] == false || positive(&measured[0]["ceilings"]["fma_f16"]["gflops"]), "{}", measured[0]);
    let none = measured[0]["cooperative_matrices"].as_array().is_some_and(Vec::is_empty);
    assert!(none || positive(&measured[0]["ceilings"]["cooperative"]["gflops"]), "{}", measured[0]);
    let table = success(with_cache(shaderlm().args(["devices"]), &cache));
    assert_eq!(table.matches("ceilings  copy").count(), 2, "{table}");
    // A file that is damaged is as good as none.
    for entry in fs::read_dir(&cache).unwrap().map(|e| e.unwrap().path()) {
        if entry.extension().is_some_and(|e| e == "json") {
            fs::write(entry, "{").unwrap();
        }
    }
    assert!(!success(with_cache(shaderlm().args(["devices"]), &cache)).contains("ceilings"));
}

#[test]
fn a_choice_of_device_that_there_is_none_of_is_an_error() {
    let error = failure(run(shaderlm().args(["bench", "ceilings", "--device", "no such card"])));
    assert!(error.contains("no such card"), "{error}");
}
