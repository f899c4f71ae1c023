//! Embeddings: all-MiniLM-L6-v2's real weights against transformers, on the binary. `make test` fetches the model
//! (tools/minilm.sh); without it these tests fail.

use crate::cli::{failure, run, shaderlm, success};
use serde_json::Value;
use shaderlm::checkpoint::SafeTensorsFile;
use std::{fs, io::Write, path::PathBuf, process::Stdio};

/// The folder of the model.
pub fn minilm() -> String {
    let folder = std::env::var("SHADERLM_MINILM").unwrap_or_else(|_| format!("{}/target/minilm", env!("CARGO_MANIFEST_DIR")));
    assert!(PathBuf::from(&folder).join("model.safetensors").exists(), "{folder} is not there: sh tools/minilm.sh {folder}");
    folder
}

fn fixture(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/encoders").join(name)
}

/// The sentences, their groups, and their nearest neighbours by transformers.
fn sentences() -> Vec<(String, String, usize)> {
    let value: Value = serde_json::from_str(&fs::read_to_string(fixture("minilm.json")).unwrap()).unwrap();
    let list = value.as_array().or_else(|| value["sentences"].as_array()).unwrap();
    let word = |v: &Value, key: &str| v[key].as_str().unwrap().to_owned();
    list.iter().map(|s| (word(s, "text"), word(s, "group"), s["nearest"].as_u64().unwrap() as usize)).collect()
}

fn embedded(args: &[&str], lines: &str) -> Vec<Vec<f32>> {
    let mut child = shaderlm()
        .args(["embed", "--model", &minilm(), "--json"])
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(lines.as_bytes()).unwrap();
    let text = success(child.wait_with_output().unwrap());
    let vector = |line: &str| {
        let value: Value = serde_json::from_str(line).unwrap();
        value["embedding"].as_array().unwrap().iter().map(|x| x.as_f64().unwrap() as f32).collect()
    };
    text.lines().map(vector).collect()
}

fn off(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    found.iter().zip(expected).map(|(f, e)| (f - e).abs()).fold(0.0, f32::max)
}

#[test]
fn real_sentences_as_in_transformers() {
    let sentences = sentences();
    assert_eq!(sentences.len(), 20);
    let lines: String = sentences.iter().map(|s| format!("{}\n", s.0)).collect();
    let file = SafeTensorsFile::open(&fixture("minilm.safetensors")).unwrap();
    let expected = |name: &str| file.tensor(name).unwrap().to_f32().unwrap();
    let found = embedded(&[], &lines);
    let wanted = expected("embeddings");
    for (i, (vector, wanted)) in found.iter().zip(wanted.chunks(384)).enumerate() {
        let off = off(vector, wanted);
        assert!(off <= 1e-4, "sentence {i} differs by {off}");
    }
    // The obvious neighbours are nearest.
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    for (i, (text, group, nearest)) in sentences.iter().enumerate() {
        let closest =
            (0..20).filter(|&j| j != i).max_by(|&a, &b| dot(&found[i], &found[a]).total_cmp(&dot(&found[i], &found[b])));
        assert_eq!(closest, Some(*nearest), "{text}");
        assert_eq!(sentences[*nearest].1, *group);
    }
    // Each by itself is what it is among the others.
    let alone = embedded(&["--device", "cpu"], &format!("{}\n", sentences[7].0));
    assert!(off(&alone[0], &found[7]) <= 1e-5);
}

#[test]
fn poolings_and_files() {
    let sentences = sentences();
    let lines: String = sentences.iter().map(|s| format!("{}\n", s.0)).collect();
    let file = SafeTensorsFile::open(&fixture("minilm.safetensors")).unwrap();
    for pooling in ["cls", "max"] {
        let wanted = file.tensor(pooling).unwrap().to_f32().unwrap();
        let found = embedded(&["--pooling", pooling, "--normalize"], &lines);
        for (vector, wanted) in found.iter().zip(wanted.chunks(384)) {
            // The fixture is not normalised, and the folder says that vectors are.
            let length = wanted.iter().map(|x| x * x).sum::<f32>().sqrt();
            let wanted: Vec<f32> = wanted.iter().map(|x| x / length).collect();
            assert!(off(vector, &wanted) <= 1e-4, "{pooling}");
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("vectors.safetensors");
    let long = "word ".repeat(400);
    let output = run(shaderlm().args(["embed", "a cat", &long, "--model", &minilm(), "--output", out.to_str().unwrap()]));
    assert!(String::from_utf8_lossy(&output.stderr).contains("1 of 2 texts were cut to 256 tokens"));
    success(output);
    let file = SafeTensorsFile::open(&out).unwrap();
    assert_eq!(file.tensor("embeddings").unwrap().shape, [2, 384]);
    let error = failure(run(shaderlm().args(["embed", "--model", &minilm(), "--json", "a", " "])));
    assert!(error.contains("text 2 is empty"), "{error}");
    let error = failure(run(shaderlm().args(["embed", "--model", &minilm(), "--json"])));
    assert!(error.contains("no text"), "{error}");
    // It has no masked-LM head.
    let error = failure(run(shaderlm().args(["fill", "a [MASK]", "--model", &minilm()])));
    assert!(error.contains("no masked-LM head"), "{error}");
}
