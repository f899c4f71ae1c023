//! llama.cpp's files: what they hold is what gguf-py and transformers make of it, and whatever is wrong with one is named.

use crate::{
    cli::{failure, json, run, shaderlm, success},
    harness::nmse,
};
use shaderlm::{
    checkpoint::{Gguf, SafeTensorsFile, StoredType, write_safetensors},
    models::Model,
    ops::random::threefry,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/gguf").join(name)
}

fn ok(args: &[&str]) -> String {
    success(run(shaderlm().args(args)))
}

#[test]
fn blocks_of_every_type_stand_for_what_gguf_py_says() {
    let (file, expected) =
        (Gguf::open(&fixture("blocks.gguf")).unwrap(), SafeTensorsFile::open(&fixture("blocks.safetensors")).unwrap());
    let mut checked = 0;
    for name in expected.names() {
        let (tensor, wanted) = (file.tensor(name).unwrap(), expected.tensor(name).unwrap());
        assert_eq!(tensor.shape, wanted.shape, "{name}");
        for (i, (found, wanted)) in tensor.to_f32().iter().zip(wanted.to_f32().unwrap()).enumerate() {
            assert!((found - wanted).abs() <= 1e-6 * (1.0 + wanted.abs()), "{name} at {i}: {found} instead of {wanted}");
        }
        checked += 1;
    }
    assert_eq!(checked, 11);
}

#[test]
fn logits_are_those_of_transformers() {
    let folder = tempfile::tempdir().unwrap();
    let case = SafeTensorsFile::open(&fixture("case.safetensors")).unwrap();
    // Scales and minima of Q4_K are rounded to 16 bits, and so is what has 5 or 6 bits; in 32 bits nothing is.
    for (name, ids, most) in
        [("f16", "input_ids", 1e-10), ("q8_0", "input_ids", 1e-10), ("q4_0", "input_ids", 1e-10), ("k", "input_ids.k", 1e-6)]
    {
        let given = case.tensor(ids).unwrap();
        let (input, output) = (folder.path().join("in.safetensors"), folder.path().join("out.safetensors"));
        let tensor = ("input_ids".to_owned(), StoredType::I64, given.shape.clone(), Cow::Borrowed(given.bytes));
        write_safetensors(&input, &[tensor], &BTreeMap::new()).unwrap();
        let model = fixture(&format!("{name}.gguf"));
        let expected = case.tensor(&format!("logits.{name}")).unwrap();
        let wanted: Vec<_> = expected.to_f32().unwrap().into_iter().map(f64::from).collect();
        for (more, most) in [(&[][..], most), (&["--device", "cpu"], most), (&["--weights", "f32"], 1e-10)] {
            let args = [
                "forward",
                "--model",
                model.to_str().unwrap(),
                "--input",
                input.to_str().unwrap(),
                "--output",
                output.to_str().unwrap(),
            ];
            ok(&[&args, more].concat());
            let found = SafeTensorsFile::open(&output).unwrap();
            let found = found.tensor("logits").unwrap();
            assert_eq!(found.shape, expected.shape);
            let error = nmse(&found.to_f32().unwrap(), &wanted);
            assert!(error <= most, "{name} {more:?}: NMSE {error:e}");
        }
    }
}

#[test]
fn tokenizer_generation_perplexity_and_quantisation() {
    let tokens = json(&fs::read_to_string(fixture("tokens.json")).unwrap());
    let tokenizer = Model::open(fixture("q4_0.gguf").to_str().unwrap()).unwrap().tokenizer().unwrap();
    for (text, ids) in tokens["texts"].as_array().unwrap().iter().zip(tokens["ids"].as_array().unwrap()) {
        let found = tokenizer.encode(text.as_str().unwrap(), true).unwrap();
        assert_eq!(serde_json::json!(found), *ids, "{text}");
    }
    assert_eq!(tokenizer.end_of_text(), Some(259));
    for name in ["f16", "q8_0", "q4_0"] {
        let model = fixture(&format!("{name}.gguf"));
        let args = ["generate", "the", "--model", model.to_str().unwrap(), "--max-tokens", "6", "--temperature", "0", "--json"];
        let here = json(&ok(&args));
        assert_eq!(here["prompt_ids"], serde_json::json!([257]));
        assert_eq!(here["ids"], json(&ok(&[&args[..], &["--device", "cpu"]].concat()))["ids"], "{name}");
    }
    // As a folder of ours.
    let folder = tempfile::tempdir().unwrap();
    let (out, model) = (folder.path().join("q8"), fixture("q8_0.gguf"));
    let held_out = crate::cli::fixture("held_out.txt");
    let perplexity = |model: &Path| {
        json(&ok(&["perplexity", "--model", model.to_str().unwrap(), "--data", &held_out, "--json"]))["perplexity"]
            .as_f64()
            .unwrap()
    };
    ok(&["quantize", "--model", model.to_str().unwrap(), "--out", out.to_str().unwrap(), "--weights", "q8"]);
    let (before, after) = (perplexity(&model), perplexity(&out));
    assert!((after / before - 1.0).abs() < 0.01, "{before} and {after}");
}

fn number(n: u64) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

fn text(words: &str) -> Vec<u8> {
    [number(words.len() as u64), words.as_bytes().to_vec()].concat()
}

fn kind(n: u32) -> Vec<u8> {
    n.to_le_bytes().to_vec()
}

/// A file of some entries and tensors, both of which may lie about their numbers.
fn file(counts: [u64; 2], entries: &[Vec<u8>], tensors: &[Vec<u8>], data: usize) -> Vec<u8> {
    let mut bytes =
        [b"GGUF".to_vec(), kind(3), number(counts[0]), number(counts[1]), entries.concat(), tensors.concat()].concat();
    bytes.resize(bytes.len().next_multiple_of(32) + data, 0);
    bytes
}

fn tensor(name: &str, shape: &[u64], of: u32, offset: u64) -> Vec<u8> {
    let sizes: Vec<u8> = shape.iter().flat_map(|&n| number(n)).collect();
    [text(name), kind(shape.len() as u32), sizes, kind(of), number(offset)].concat()
}

fn refused(bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    fs::write(&path, bytes).unwrap();
    Gguf::open(&path).err().map_or_else(|| "it was taken".into(), |error| error.to_string())
}

#[test]
fn hostile_files_are_refused_with_what_is_wrong() {
    let entry = |key: &str, of: u32, value: Vec<u8>| [text(key), kind(of), value].concat();
    let good = || tensor("a", &[4], 0, 0);
    assert_eq!(refused(&file([1, 0], &[], &[good()], 16)), "it was taken");
    let list = |of: u32, count: u64, data: Vec<u8>| [kind(of), number(count), data].concat();
    for (what, bytes) in [
        ("does not begin with GGUF", b"GGML0000000000000000000000000".to_vec()),
        ("cut short", b"GGUF".to_vec()),
        ("version 1", [b"GGUF".to_vec(), kind(1), number(0), number(0)].concat()),
        ("version 9", [b"GGUF".to_vec(), kind(9), number(0), number(0)].concat()),
        ("big-endian", [b"GGUF".to_vec(), kind(0x0300_0000), number(0), number(0)].concat()),
        ("tensors; more than", file([u64::MAX, 0], &[], &[], 0)),
        ("entries of metadata; more than", file([0, 1 << 40], &[], &[], 0)),
        ("cut short", file([60_000, 0], &[], &[], 0)),
        ("cut short", file([0, 60_000], &[], &[], 0)),
        ("cut short", file([0, 1], &[number(u64::MAX)], &[], 0)),
        ("k: a list takes", file([0, 1], &[entry("k", 9, list(4, u64::MAX, vec![]))], &[], 0)),
        ("k: a list takes", file([0, 1], &[entry("k", 9, list(12, 1 << 61, vec![]))], &[], 0)),
        ("k: a text of the list takes", file([0, 1], &[entry("k", 9, list(8, u64::MAX, vec![]))], &[], 0)),
        ("k: lists of lists", file([0, 1], &[entry("k", 9, list(9, 1, vec![]))], &[], 0)),
        ("k: its elements' type is number 77", file([0, 1], &[entry("k", 9, list(77, 1, vec![]))], &[], 0)),
        ("k: its type is number 13", file([0, 1], &[entry("k", 13, number(0))], &[], 0)),
        ("k is there twice", file([0, 2], &[entry("k", 4, kind(0)), entry("k", 4, kind(1))], &[], 0)),
        ("UTF-8", file([0, 1], &[[number(2), vec![0xff, 0xfe], kind(4), kind(0)].concat()], &[], 0)),
        ("general.alignment", file([0, 1], &[entry("general.alignment", 4, kind(0))], &[], 0)),
        ("general.alignment", file([0, 1], &[entry("general.alignment", 4, kind(12))], &[], 0)),
        ("general.alignment", file([0, 1], &[entry("general.alignment", 8, text("32"))], &[], 0)),
        ("general.alignment", file([0, 1], &[entry("general.alignment", 10, number(1 << 63))], &[], 0)),
        ("tensor a: it has 0 dimensions", file([1, 0], &[], &[tensor("a", &[], 0, 0)], 16)),
        ("tensor a: it has 5 dimensions", file([1, 0], &[], &[tensor("a", &[1, 1, 1, 1, 1], 0, 0)], 16)),
        ("tensor a: it has 4294967295 dimensions", file([1, 0], &[], &[[text("a"), kind(u32::MAX)].concat()], 16)),
        ("tensor a: its type is number 99", file([1, 0], &[], &[tensor("a", &[4], 99, 0)], 16)),
        ("tensor a: its type is number 4", file([1, 0], &[], &[tensor("a", &[4], 4, 0)], 16)),
        ("tensor a: a shape of", file([1, 0], &[], &[tensor("a", &[1 << 40, 1 << 40], 0, 0)], 16)),
        ("tensor a: a shape of", file([1, 0], &[], &[tensor("a", &[u64::MAX, u64::MAX], 0, 0)], 16)),
        ("tensor a: rows of 33 are not made of blocks of 32", file([1, 0], &[], &[tensor("a", &[33], 8, 0)], 64)),
        ("tensor a: its data begin at 4, which is no multiple of 32", file([1, 0], &[], &[tensor("a", &[4], 0, 4)], 64)),
        ("tensor a: its 16 bytes begin at 64", file([1, 0], &[], &[tensor("a", &[4], 0, 64)], 64)),
        ("tensor a: its 16 bytes begin at 18446744073709551584", file([1, 0], &[], &[tensor("a", &[4], 0, u64::MAX - 31)], 64)),
        ("tensor a: its 400 bytes", file([1, 0], &[], &[tensor("a", &[100], 0, 0)], 64)),
        ("within another tensor that ends at 40", file([2, 0], &[], &[tensor("a", &[10], 0, 0), tensor("b", &[4], 0, 32)], 96)),
        ("within another tensor", file([2, 0], &[], &[tensor("a", &[4], 0, 0), tensor("b", &[4], 0, 0)], 96)),
        ("tensor a is there twice", file([2, 0], &[], &[good(), tensor("a", &[4], 0, 32)], 96)),
    ] {
        let error = refused(&bytes);
        assert!(error.contains(what), "{what}: {error}");
    }
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty.gguf");
    fs::write(&empty, "").unwrap();
    for (path, what) in [(empty.to_str().unwrap(), "empty"), (folder.path().join("none.gguf").to_str().unwrap(), "none.gguf")] {
        let error = failure(run(shaderlm().args(["generate", "--model", path, "--ids", "1"])));
        assert!(error.contains(what), "{error}");
    }
}

/// Opens a model and does with it whatever reads more of the file.
fn use_it(bytes: &[u8], path: &Path) -> Result<(), String> {
    fs::write(path, bytes).unwrap();
    let model = Model::open(path.to_str().unwrap()).map_err(|e| e.to_string())?;
    let config = model.gpt2().map_err(|e| e.to_string())?;
    let tokenizer = model.tokenizer().map(drop);
    let mut engine = shaderlm::graph::Engine::cpu();
    model.upload_narrow(&mut engine, config, None).map_err(|e| e.to_string())?;
    tokenizer.map_err(|e| e.to_string())
}

#[test]
fn damaged_files_are_errors_and_never_more() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let good = fs::read(fixture("q4_0.gguf")).unwrap();
    use_it(&good, &path).unwrap();
    // Cut short anywhere.
    let cuts = (0..good.len()).step_by(151).chain(good.len() - 3..good.len());
    for length in cuts {
        assert!(use_it(&good[..length], &path).is_err(), "{length} of {} bytes were taken", good.len());
    }
    // Bytes of the metadata and of the list of tensors changed, one, or eight to a huge number.
    let header = 4096.min(good.len() / 4);
    let mut refused = 0;
    for trial in 0..1500u32 {
        let [at, value] = threefry([trial, 3], [0, 0]);
        let mut bytes = good.clone();
        // The beginning more often: counts and lengths.
        let at = at as usize
            % if trial % 3 == 0 {
                400
            } else if trial % 3 == 1 {
                header
            } else {
                good.len() - 8
            };
        if trial % 5 == 0 {
            bytes[at..at + 8].copy_from_slice(&(u64::MAX >> (value % 40)).to_le_bytes());
        } else {
            bytes[at] = bytes[at].wrapping_add(1 + (value % 255) as u8);
        }
        // No panic, no more memory than a file of this size deserves; what is still a model is one.
        refused += usize::from(use_it(&bytes, &path).is_err());
    }
    assert!(refused > 300, "{refused}");
}

#[test]
fn models_that_do_not_fit_their_metadata_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.gguf");
    let good = fs::read(fixture("f16.gguf")).unwrap();
    let find = |needle: &[u8]| good.windows(needle.len()).position(|window| window == needle).unwrap();
    // A key, its type, and its value behind it.
    let with = |key: &str, value: u32| {
        let mut bytes = good.clone();
        let at = find(key.as_bytes()) + key.len() + 4;
        bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
        use_it(&bytes, &path).unwrap_err()
    };
    for (key, value, what) in [
        ("gpt2.context_length", 17, "position_embd.weight"),
        ("gpt2.context_length", 0, "n_positions"),
        ("gpt2.embedding_length", 64, "embedding_length"),
        ("gpt2.block_count", 3, "blk.2"),
        ("gpt2.block_count", u32::MAX, "n_layer"),
        ("gpt2.attention.head_count", 5, "n_head"),
        ("gpt2.attention.head_count", 0, "n_head"),
        ("gpt2.feed_forward_length", 96, "blk.0.ffn_up.weight"),
        ("gpt2.attention.layer_norm_epsilon", 0, "layer_norm_epsilon"),
    ] {
        let error = with(key, value);
        assert!(error.contains(what), "{key} {value}: {error}");
    }
    let mut renamed = good.clone();
    let at = find(b"general.architecture") + "general.architecture".len() + 12;
    renamed[at..at + 4].copy_from_slice(b"bert");
    assert!(use_it(&renamed, &path).unwrap_err().contains("general.architecture is \"bert\""));
}
