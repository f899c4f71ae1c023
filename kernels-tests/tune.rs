//! Kernels chosen by measuring, on the command line: `tune`, `graph` and `--autotune`.

use crate::cli::{fixture, run, shaderlm, success};
use serde_json::Value;
use shaderlm::checkpoint::SafeTensorsFile;
use std::{path::Path, process::Command};

/// The binary with a cache folder of its own, on an adapter that it takes for a real GPU, where there is most to choose from.
fn with_cache(cache: &Path, args: &[&str]) -> Command {
    let mut command = shaderlm();
    command.args(args).env("SHADERLM_CACHE", cache).env("SHADERLM_WITHOUT", "software");
    command
}

#[test]
fn measured_once_and_remembered() {
    let cache = tempfile::tempdir().unwrap();
    // Small, because drivers take long to compile the large tiles.
    let tiny = fixture("tiny");
    let tune = ["tune", "--model", &tiny, "--context", "9", "--json"];
    let found = success(run(&mut with_cache(cache.path(), &tune)));
    let lines: Vec<Value> = found.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.len() >= 3, "the products of a layer, and the head: {found}");
    for line in &lines {
        let timings = line["timings"].as_object().unwrap();
        assert!(timings.len() >= 4, "{line}");
        // Every kernel is right on this adapter, and the fastest is the one that is named.
        let least = timings.values().map(|time| time.as_f64().unwrap_or_else(|| panic!("{line}"))).fold(f64::MAX, f64::min);
        assert!(least > 0.0 && line["ms"] == least && timings[line["kernel"].as_str().unwrap()] == least, "{line}");
        assert!(timings.contains_key(line["rule"].as_str().unwrap()), "{line}");
    }
    assert_eq!(success(run(&mut with_cache(cache.path(), &tune))), "", "nothing is measured twice");

    let graph = ["graph", "--model", &tiny, "--context", "9"];
    let text = success(run(&mut with_cache(cache.path(), &graph)));
    assert!(text.contains("measured, ") && !text.contains("by rule of thumb"), "{text}");
    let chosen = lines[0]["kernel"].as_str().unwrap();
    let line = text.lines().find(|line| line.contains(lines[0]["work"].as_str().unwrap())).unwrap();
    assert!(line.contains(chosen), "{line} is not {chosen}");
    let text = success(run(&mut with_cache(cache.path(), &["graph", "--model", &tiny, "--context", "9", "--autotune", "off"])));
    assert!(text.contains("by rule of thumb") && !text.contains("measured, "), "{text}");

    // What a command measures by itself is remembered, too; a damaged file is as if there were none.
    for file in std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()) {
        if file.extension().is_some_and(|extension| extension == "json") {
            std::fs::write(file, "{").unwrap();
        }
    }
    let text = success(run(&mut with_cache(cache.path(), &graph)));
    assert!(!text.contains("measured, "), "{text}");
    let logits = |policy: &str| {
        let out = cache.path().join(format!("{policy}.safetensors"));
        let (input, output) = (fixture("tiny/case.safetensors"), out.to_str().unwrap().to_owned());
        let args = ["forward", "--model", &tiny, "--input", &input, "--output", &output, "--autotune", policy];
        success(run(&mut with_cache(cache.path(), &args)));
        SafeTensorsFile::open(&out).unwrap().tensor("logits").unwrap().to_f32().unwrap()
    };
    let (plain, tuned) = (logits("off"), logits("full"));
    assert!(plain.iter().zip(&tuned).all(|(a, b)| (a - b).abs() < 1e-5), "another kernel, the same logits");
    let files: Vec<_> = std::fs::read_dir(cache.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
    let table = files.iter().find(|file| file.extension().is_some_and(|extension| extension == "json")).unwrap();
    let table: Value = serde_json::from_slice(&std::fs::read(table).unwrap()).unwrap();
    assert!(!table["work"].as_object().unwrap().is_empty(), "{table}");
}
