//! `--precision mixed` on the command line: training follows that in 32 bits, resumes, and is refused where there are no halves.

use crate::{
    cli::{self, failure, run, shaderlm, success},
    encoder_cli::{self, log, tokenizer},
};
use serde_json::Value;
use std::{fs, path::Path};

fn number(line: &Value, name: &str) -> f64 {
    line[name].as_f64().unwrap_or_else(|| panic!("{name} is not in {line}"))
}

/// The lines of a run of `steps` in all, its log beside --out.
fn trained(data: &str, out: &Path, steps: usize, more: &[&str]) -> Vec<Value> {
    let path = out.with_extension("jsonl");
    let all = [&["--log", path.to_str().unwrap(), "--save-every", "20", "--dropout", "0.1", "--lr", "3e-3"], more].concat();
    success(run(&mut cli::train(data, out, steps, &all)));
    log(&path)
}

#[test]
fn a_gpt2_learns_as_in_32_bits() {
    let folder = tempfile::tempdir().unwrap();
    let data = cli::corpus(folder.path());
    let place = |name: &str| folder.path().join(name);
    let plain = trained(&data, &place("plain"), 60, &[]);
    let mixed = trained(&data, &place("mixed"), 60, &["--precision", "mixed"]);
    for (p, m) in plain.iter().zip(&mixed) {
        let (p_loss, m_loss) = (number(p, "loss"), number(m, "loss"));
        assert!((p_loss - m_loss).abs() < 0.01 * p_loss, "{p} and {m}");
        assert!(p.get("loss_scale").is_none() && number(m, "loss_scale") <= 65536.0, "{p} and {m}");
        if number(m, "skipped_steps") == 0.0 {
            assert!((number(p, "grad_norm") - number(m, "grad_norm")).abs() < 0.05 * number(p, "grad_norm"), "{p} and {m}");
        }
    }
    assert_ne!(plain[59]["loss"], mixed[59]["loss"], "nothing was rounded");
    assert!((number(&plain[59], "eval_loss") - number(&mixed[59], "eval_loss")).abs() < 0.01 * number(&plain[59], "eval_loss"));

    // The scale is part of the state that is gone on with, and the precision one of the settings that must be the same.
    let state = fs::read(place("mixed").join("state.safetensors")).unwrap();
    assert!(String::from_utf8_lossy(&state).contains("optimizer.loss_scale"));
    let other = ["--resume", "--log", "/dev/null", "--save-every", "20", "--dropout", "0.1", "--lr", "3e-3"];
    let refused = failure(run(&mut cli::train(&data, &place("mixed"), 60, &other)));
    assert!(refused.contains("settings") || refused.contains("differ") || refused.contains("other"), "{refused}");
}

#[test]
fn every_kind_of_training_has_it() {
    let folder = tempfile::tempdir().unwrap();
    let data = encoder_cli::corpus(folder.path());
    let words = tokenizer(&data, folder.path(), "wordpiece");
    let train = |kind: &str, precision: &str, more: &[&str]| {
        let (out, lines) = (folder.path().join(format!("{kind}-{precision}")), folder.path().join("log.jsonl"));
        let mut command = shaderlm();
        command.args(["train", kind, "--data", &data, "--tokenizer", &words, "--layers", "1", "--heads", "2", "--width", "32"]);
        command.args(["--context", "32", "--batch", "8", "--steps", "4", "--warmup", "1", "--lr", "1e-3", "--eval-every", "0"]);
        command.args(["--precision", precision, "--log", lines.to_str().unwrap(), "--out"]).arg(&out).args(more);
        success(run(&mut command));
        log(&lines)
    };
    for (kind, more) in [
        ("bert", vec!["--objective", "mlm"]),
        ("albert", vec!["--objective", "mlm+sop", "--optimizer", "lamb", "--accumulate", "2"]),
        ("electra", vec![]),
    ] {
        let (plain, mixed) = (train(kind, "f32", &more), train(kind, "mixed", &more));
        for (p, m) in plain.iter().zip(&mixed) {
            let (p_loss, m_loss) = (number(p, "loss"), number(m, "loss"));
            // ELECTRA's loss is large enough to overflow once, and then the training is a step behind.
            let near = if number(m, "skipped_steps") > 0.0 && number(m, "step") > 1.0 { 0.05 } else { 0.01 };
            assert!((p_loss - m_loss).abs() < near * p_loss, "{kind}: {p} and {m}");
        }
        assert!(number(&mixed[3], "loss_scale") > 0.0 && number(&mixed[3], "grad_norm") > 0.0, "{kind}: {}", mixed[3]);
    }
}

#[test]
fn plans_show_it_and_the_cpu_refuses_it() {
    let model = cli::fixture("tiny");
    let table = success(run(shaderlm().args(["graph", "--model", &model, "--backward", "--precision", "mixed"])));
    assert!(table.contains("T1=f16") && table.contains("attention"), "{table}");
    let plain = success(run(shaderlm().args(["graph", "--model", &model, "--backward"])));
    assert!(!plain.contains("f16"), "{plain}");

    let folder = tempfile::tempdir().unwrap();
    let data = cli::corpus(folder.path());
    let out = folder.path().join("out");
    let refused = failure(run(&mut cli::train(&data, &out, 2, &["--precision", "mixed", "--device", "cpu"])));
    assert!(refused.contains("16-bit floats") && refused.contains("--precision f32"), "{refused}");
    assert!(!out.exists(), "nothing is written");
    let mut without = cli::train(&data, &out, 2, &["--precision", "mixed"]);
    let refused = failure(run(without.env("SHADERLM_WITHOUT", "f16")));
    assert!(refused.contains("16-bit floats"), "{refused}");
}
