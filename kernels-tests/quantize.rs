//! `shaderlm quantize`, and whatever reads what it makes: quality, refusals, and folders that somebody tampered with.

use crate::cli::{failure, fixture, json, run, shaderlm, success};
use safetensors::tensor::TensorView;
use shaderlm::checkpoint::{SafeTensorsFile, StoredType};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn ok(args: &[&str]) -> String {
    success(run(shaderlm().args(args)))
}

fn fails(args: &[&str]) -> String {
    failure(run(shaderlm().args(args)))
}

fn quantized(folder: &Path, name: &str, more: &[&str]) -> PathBuf {
    let out = folder.join(name);
    ok(&[&["quantize", "--out", out.to_str().unwrap()], more].concat());
    out
}

fn perplexity(more: &[&str]) -> f64 {
    let held_out = fixture("held_out.txt");
    json(&ok(&[&["perplexity", "--data", &held_out, "--json"], more].concat()))["perplexity"].as_f64().unwrap()
}

#[test]
fn eight_bits_cost_half_a_percent_of_perplexity_and_four_bits_five_at_most() {
    let folder = tempfile::tempdir().unwrap();
    let whole = perplexity(&["--weights", "f32"]);
    for (weights, most) in [("f16", 0.001), ("bf16", 0.002), ("q8", 0.005), ("q4", 0.05)] {
        for group in if weights.starts_with('q') { vec!["32", "64"] } else { vec!["32"] } {
            let out = quantized(folder.path(), &format!("{weights}-{group}"), &["--weights", weights, "--group", group]);
            let found = perplexity(&["--model", out.to_str().unwrap()]);
            assert!((found / whole - 1.0).abs() <= most, "{weights} in {group}: {found} instead of {whole}");
            let on_cpu = perplexity(&["--model", out.to_str().unwrap(), "--device", "cpu"]);
            assert!((on_cpu / found - 1.0).abs() < 1e-4, "{weights}: {on_cpu} on the CPU, {found} here");
            if group == "32" {
                // Rounding when the model is loaded gives the same numbers.
                let flown = perplexity(&["--weights", weights]);
                assert!((flown / found - 1.0).abs() < 1e-6, "{weights}: {flown} and {found}");
            }
        }
    }
}

#[test]
fn a_table_tells_what_became_of_the_model_and_of_its_perplexity() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("q4");
    let text = ok(&[
        "quantize",
        "--out",
        out.to_str().unwrap(),
        "--weights",
        "q4",
        "--keep",
        "head",
        "--text",
        &fixture("held_out.txt"),
    ]);
    let line =
        |start: &str| text.lines().find(|line| line.starts_with(start)).unwrap_or_else(|| panic!("{start} in {text}")).to_owned();
    assert!(line("transformer.h.*.mlp.c_fc.weight").contains("q4/32"));
    assert!(line("transformer.wte.weight").contains("f16"), "{text}");
    assert!(line("perplexity").contains(" before, "));
    let all: Vec<u64> = line("all").split_whitespace().filter_map(|word| word.parse().ok()).collect();
    assert!(all[2] * 2 < all[1], "{text}");
    // What the folder says, and what is in the file.
    let config = json(&fs::read_to_string(out.join("config.json")).unwrap());
    assert_eq!(config["quantization"], serde_json::json!({"method": "shaderlm", "weights": "q4", "group": 32}));
    let file = SafeTensorsFile::open(&out.join("model.safetensors")).unwrap();
    let shape = |name: &str| file.tensor(name).map(|t| (t.dtype, t.shape)).unwrap();
    let name = "transformer.h.0.attn.c_attn.weight";
    assert_eq!(shape(&format!("{name}.q4")), (StoredType::U8, vec![576, 96]));
    assert_eq!(shape(&format!("{name}.scale")), (StoredType::F16, vec![576, 6]));
    assert_eq!(shape(&format!("{name}.min")), (StoredType::F16, vec![576, 6]));
    assert_eq!(shape("transformer.wte.weight"), (StoredType::F16, vec![1024, 192]));
    assert!(!file.contains(name));
}

#[test]
fn what_is_written_is_read_by_every_command_that_needs_no_more() {
    let folder = tempfile::tempdir().unwrap();
    // A folder with a file of its own, and rows of 32 and 128: a GPT-2 of transformers' own making.
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    for file in ["config.json", "model.safetensors"] {
        fs::copy(fixture(&format!("tiny/{file}")), source.join(file)).unwrap();
    }
    fs::write(source.join("notes.txt"), "kept").unwrap();
    let model = source.to_str().unwrap();
    let input = fixture("tiny/case.safetensors");
    let logits = |model: &str, more: &[&str]| {
        let out = folder.path().join("logits.safetensors");
        ok(&[&["forward", "--model", model, "--input", &input, "--output", out.to_str().unwrap()], more].concat());
        SafeTensorsFile::open(&out).unwrap().tensor("logits").unwrap().to_f32().unwrap()
    };
    let whole = logits(model, &[]);
    let size = whole.iter().fold(0f32, |most, x| most.max(x.abs()));
    for (weights, most) in [("f16", 0.01), ("bf16", 0.05), ("q8", 0.05), ("q4", 0.6)] {
        let out = quantized(folder.path(), weights, &["--model", model, "--weights", weights]);
        assert_eq!(fs::read_to_string(out.join("notes.txt")).unwrap(), "kept");
        let found = logits(out.to_str().unwrap(), &[]);
        let off = whole.iter().zip(&found).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off > 0.0 && off <= most * size, "{weights}: {off} of {size}");
        // Unpacked and packed again, where that is asked for.
        let again = logits(out.to_str().unwrap(), &["--weights", "f32"]);
        let off = again.iter().zip(&found).fold(0f32, |most, (a, b)| most.max((a - b).abs()));
        assert!(off <= 1e-4 * size, "{weights}: {off}");
        let ids = ok(&[
            "generate",
            "--model",
            out.to_str().unwrap(),
            "--ids",
            "1,2,3",
            "--max-tokens",
            "5",
            "--temperature",
            "0",
            "--json",
        ]);
        let on_cpu = ok(&[
            "generate",
            "--model",
            out.to_str().unwrap(),
            "--ids",
            "1,2,3",
            "--max-tokens",
            "5",
            "--temperature",
            "0",
            "--json",
            "--device",
            "cpu",
        ]);
        assert_eq!(json(&ids)["ids"], json(&on_cpu)["ids"]);
    }
    // Training and gradients need them in full.
    let q8 = folder.path().join("q8");
    let q8 = q8.to_str().unwrap();
    let trained = folder.path().join("trained");
    let held_out = fixture("held_out.txt");
    let shakespeare = quantized(folder.path(), "shakespeare", &["--weights", "q8"]);
    let init = shakespeare.to_str().unwrap();
    let error =
        fails(&["train", "gpt2", "--data", &held_out, "--init", init, "--out", trained.to_str().unwrap(), "--steps", "1"]);
    assert!(error.contains("quantised (q8/32)"), "{error}");
    assert!(fails(&["backward", "--model", q8, "--input", &input, "--output", "x.safetensors"]).contains("quantised"));
    assert!(fails(&["quantize", "--model", q8, "--out", trained.to_str().unwrap(), "--weights", "q4"]).contains("quantised"));
    assert!(fails(&["quantize", "--model", model, "--out", model, "--weights", "q4"]).contains("same folder"));
    assert!(fails(&["quantize", "--out", trained.to_str().unwrap(), "--weights", "q4", "--group", "16"]).contains("--group 16"));
    let encoder = format!("{}/kernels-tests/fixtures/encoders/bert-mlm", env!("CARGO_MANIFEST_DIR"));
    assert!(fails(&["quantize", "--model", &encoder, "--out", trained.to_str().unwrap(), "--weights", "q8"]).contains("bert"));
    assert!(!trained.exists());
}

/// Tensors of a file, to be changed.
type Tensors = BTreeMap<String, (StoredType, Vec<usize>, Vec<u8>)>;

fn read(path: &Path) -> Tensors {
    let file = SafeTensorsFile::open(path).unwrap();
    file.names()
        .map(|name| {
            let t = file.tensor(name).unwrap();
            (name.to_owned(), (t.dtype, t.shape.clone(), t.bytes.to_vec()))
        })
        .collect()
}

fn write(path: &Path, tensors: &Tensors) {
    let views =
        tensors.iter().map(|(name, (dtype, shape, bytes))| (name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
    safetensors::serialize_to_file(views, None, path).unwrap();
}

#[test]
fn folders_that_do_not_hold_what_they_say_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = fixture("tiny");
    let out = quantized(folder.path(), "q4", &["--model", &model, "--weights", "q4"]);
    let (weights, config) = (out.join("model.safetensors"), out.join("config.json"));
    let (good, good_config) = (read(&weights), fs::read_to_string(&config).unwrap());
    let name = good.keys().find(|name| name.ends_with("mlp.c_proj.weight.q4")).unwrap().clone();
    let stem = name.strip_suffix(".q4").unwrap().to_owned();
    let refused = || fails(&["generate", "--model", out.to_str().unwrap(), "--ids", "1", "--max-tokens", "2"]);
    type Damage = Box<dyn Fn(&mut Tensors)>;
    let damages: Vec<(&str, Damage)> = vec![
        (
            "no scales",
            Box::new({
                let stem = stem.clone();
                move |t| drop(t.remove(&format!("{stem}.scale")))
            }),
        ),
        (
            "no minima",
            Box::new({
                let stem = stem.clone();
                move |t| drop(t.remove(&format!("{stem}.min")))
            }),
        ),
        (
            "no weights",
            Box::new({
                let name = name.clone();
                move |t| drop(t.remove(&name))
            }),
        ),
        (
            "another type",
            Box::new({
                let name = name.clone();
                move |t| t.get_mut(&name).unwrap().0 = StoredType::I8
            }),
        ),
        (
            "the other way round",
            Box::new({
                let name = name.clone();
                move |t| t.get_mut(&name).unwrap().1.reverse()
            }),
        ),
        (
            "scales of 32 bits",
            Box::new({
                let stem = stem.clone();
                move |t| {
                    let scale = t.get_mut(&format!("{stem}.scale")).unwrap();
                    scale.0 = StoredType::F32;
                    scale.2 = [scale.2.clone(), scale.2.clone()].concat();
                }
            }),
        ),
        (
            "a row too few",
            Box::new({
                let name = name.clone();
                move |t| {
                    let weights = t.get_mut(&name).unwrap();
                    weights.1[0] -= 1;
                    let bytes = weights.1[0] * weights.1[1];
                    weights.2.truncate(bytes);
                }
            }),
        ),
    ];
    for (what, damage) in damages {
        let mut tensors = good.clone();
        damage(&mut tensors);
        write(&weights, &tensors);
        let error = refused();
        assert!(error.contains(&stem), "{what}: {error}");
    }
    write(&weights, &good);
    let with = |change: &dyn Fn(&mut serde_json::Value)| {
        let mut value = json(&good_config);
        change(&mut value);
        fs::write(&config, value.to_string()).unwrap();
        refused()
    };
    for (what, change) in [
        ("quantization", serde_json::json!({"method": "gptq", "weights": "q4", "group": 32})),
        ("quantization", serde_json::json!({"method": "shaderlm", "weights": "q2", "group": 32})),
        ("blocks of 7", serde_json::json!({"method": "shaderlm", "weights": "q4", "group": 7})),
        ("quantization", serde_json::json!({"method": "shaderlm", "weights": "q4", "group": -1})),
        ("quantization", serde_json::json!({"method": "shaderlm", "weights": "q4", "group": 32, "more": 1})),
        ("quantization", serde_json::json!(4)),
        // What the file has in fours is not there in eights.
        ("there is no tensor", serde_json::json!({"method": "shaderlm", "weights": "q8", "group": 32})),
        ("there is no tensor", serde_json::Value::Null),
    ] {
        let error = with(&|value| value["quantization"] = change.clone());
        assert!(error.contains(what), "{change}: {error}");
    }
    let error = with(&|value| value["quantization_config"] = serde_json::json!({"quant_method": "gptq"}));
    assert!(error.contains("quantised by gptq"), "{error}");
    fs::write(&config, &good_config).unwrap();
    ok(&["generate", "--model", out.to_str().unwrap(), "--ids", "1", "--max-tokens", "2"]);
}

#[test]
fn a_matrix_whose_rows_are_no_blocks_stays_in_16_bits() {
    let folder = tempfile::tempdir().unwrap();
    let out = quantized(folder.path(), "q8", &["--model", &fixture("odd"), "--weights", "q8"]);
    let file = SafeTensorsFile::open(&out.join("model.safetensors")).unwrap();
    assert_eq!(file.tensor("transformer.h.0.attn.c_attn.weight").unwrap().dtype, StoredType::F16);
    ok(&["generate", "--model", out.to_str().unwrap(), "--ids", "1", "--max-tokens", "2"]);
}
