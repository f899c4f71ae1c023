//! The commands that make vocabularies for encoders and show examples of pre-training.

use crate::{
    cli::{failure, run, shaderlm, success},
    pretrain::{SPECIAL, random, write},
};
use shaderlm::{
    text::Tokenizer,
    train::{Documents, Pairing, PretrainSettings, Pretraining},
};
use std::{
    fs,
    path::{Path, PathBuf},
};
use tempfile::TempDir;

/// Text of English-like words with capitals, accents and punctuation.
fn prose(folder: &TempDir) -> PathBuf {
    const WORDS: [&str; 16] = [
        "The", "king", "speaks", "and", "no", "one", "hears", "Him", "kingdom", "speaking", "hearing", "café", "naïve", "don't",
        "unkingly", "world",
    ];
    let mut text = String::new();
    for i in 0..6000 {
        text += WORDS[random(i, 16)];
        text += ["\n", " ", ", ", " ", " ", ".\n", " ", "\n\n"][random(i + 7000, 8)];
    }
    write(folder, "prose.txt", &text)
}

fn train_tokenizer(data: &Path, kind: &str, out: &Path, more: &[&str]) -> std::process::Output {
    let mut command = shaderlm();
    command.args(["tokenizer", "train", "--kind", kind, "--data"]).arg(data).arg("--out").arg(out);
    run(command.args(if more.contains(&"--vocab") { &[][..] } else { &["--vocab", "120"] }).args(more))
}

#[test]
fn vocabularies_for_encoders() {
    let folder = tempfile::tempdir().unwrap();
    let data = prose(&folder);
    let text = fs::read_to_string(&data).unwrap();
    let albert = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"];
    for (kind, special) in [("wordpiece", SPECIAL), ("unigram", albert)] {
        let out = folder.path().join("tokenizer.json");
        let said = success(train_tokenizer(&data, kind, &out, &[]));
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        assert!(said.starts_with(&format!("{} tokens in ", tokenizer.vocab_size())) && tokenizer.vocab_size() <= 120, "{said}");
        for (id, token) in special.iter().enumerate() {
            assert_eq!(tokenizer.id_to_token(id as u32).as_deref(), Some(*token));
        }
        let found = tokenizer.special_tokens().unwrap();
        let named = [found.pad, found.unk.unwrap(), found.cls, found.sep, found.mask];
        assert_eq!(named, [0, 1, 2, 3, 4]);
        assert!((0..5).all(|id| found.contains(id) && tokenizer.begins_word(id)) && !found.contains(5));
        // Lower case, without accents, and each text of the alphabet can be written.
        let ids = tokenizer.encode(&text, false).unwrap();
        assert!(ids.iter().all(|&id| id >= 5), "no unknown word");
        let written: String = ids.iter().map(|&id| tokenizer.piece(id).unwrap()).collect();
        let letters = |s: &str| s.chars().filter(|c| c.is_ascii_alphabetic()).collect::<String>();
        assert_eq!(letters(&written), letters(&text.to_lowercase().replace('é', "e").replace('ï', "i")));
        assert!(ids.len() < text.len() / 3, "pieces of words were learnt: {} for {}", ids.len(), text.len());
        assert_eq!(tokenizer.encode("[MASK]", true).unwrap(), [4]);
        assert!(!tokenizer.encode("[MASK]", false).unwrap().contains(&4));
        // The same text gives the same bytes.
        let again = folder.path().join("again.json");
        success(train_tokenizer(&data, kind, &again, &[]));
        assert_eq!(fs::read(&out).unwrap(), fs::read(&again).unwrap(), "{kind}");
        // With capitals and accents.
        success(train_tokenizer(&data, kind, &again, &["--cased"]));
        let cased = Tokenizer::from_file(&again).unwrap();
        let written: String = cased.encode("The café, Him", false).unwrap().iter().map(|&id| cased.piece(id).unwrap()).collect();
        assert_eq!(written.replace(' ', ""), "Thecafé,Him");

        let error = failure(train_tokenizer(&data, kind, &out, &["--vocab", "99"]));
        assert!(error.contains("--vocab") && error.contains("99"), "{error}");
        let error = failure(train_tokenizer(&write(&folder, "empty.txt", ""), kind, &out, &[]));
        assert!(error.contains("empty.txt") && error.lines().count() == 1, "{error}");
        let bad = folder.path().join("bad.txt");
        fs::write(&bad, b"fine\nab\xff").unwrap();
        let error = failure(train_tokenizer(&bad, kind, &out, &[]));
        assert!(error.contains("bad.txt") && error.contains("byte at 7"), "{error}");
        let blank = write(&folder, "blank.txt", "\n \n\t\n");
        let output = train_tokenizer(&blank, kind, &out, &[]);
        assert!(output.status.success() || failure(output).lines().count() == 1);
    }
    let error = failure(train_tokenizer(&data, "bpe", &folder.path().join("x.json"), &["--cased", "--vocab", "300"]));
    assert!(error.contains("--cased"), "{error}");
}

/// Characters beyond what fits become unknown, and the vocabulary keeps to its size.
#[test]
fn rare_characters_are_left_out() {
    let folder = tempfile::tempdir().unwrap();
    let mut text = "the common words of a text ".repeat(50);
    // 3,000 characters that occur once.
    text.extend((0x4E00..0x4E00 + 3000).filter_map(char::from_u32).flat_map(|c| [c, ' ']));
    let data = write(&folder, "text.txt", &text);
    for kind in ["wordpiece", "unigram"] {
        let out = folder.path().join("tokenizer.json");
        success(train_tokenizer(&data, kind, &out, &["--vocab", "150"]));
        let tokenizer = Tokenizer::from_file(&out).unwrap();
        assert!(tokenizer.vocab_size() <= 150, "{kind}: {}", tokenizer.vocab_size());
        let unknown = tokenizer.encode("the 丂 text", false).unwrap().iter().filter(|&&id| id == 1).count();
        assert_eq!(unknown, 1, "{kind}");
    }
}

#[test]
fn inspect_shows_examples() {
    let folder = tempfile::tempdir().unwrap();
    let data = prose(&folder);
    let out = folder.path().join("tokenizer.json");
    success(train_tokenizer(&data, "unigram", &out, &[]));
    let inspect = |objective: &str, more: &[&str]| {
        let mut command = shaderlm();
        command.args(["data", "inspect", "--data"]).arg(&data).args(["--objective", objective, "--context", "48"]);
        run(command.args(more))
    };
    let file = out.to_str().unwrap();
    let model = folder.path().to_str().unwrap();
    for (objective, words) in [
        ("mlm", ["", ""]),
        ("mlm+nsp", ["the second follows the first", "the second is from another document"]),
        ("mlm+sop", ["in order", "swapped"]),
    ] {
        let text = success(inspect(objective, &["--tokenizer", file, "--show", "40"]));
        assert_eq!(text.matches("example ").count(), 40, "{text}");
        for part in ["[MASK→", "[kept: ", "[random ", words[0], words[1], "examples an epoch", "% of them to predict"] {
            assert!(text.contains(part), "{objective}: no {part} in {text}");
        }
        assert!(!text.contains('\u{1b}'), "no colour in a pipe");
        assert_eq!(text, success(inspect(objective, &["--model", model, "--show", "40"])), "the same by its folder");
        assert_ne!(text, success(inspect(objective, &["--model", model, "--show", "40", "--seed", "2"])));
        // As JSON: the ids are those of the library.
        let lines = success(inspect(objective, &["--tokenizer", file, "--show", "7", "--json"]));
        let rows: Vec<serde_json::Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(rows.len(), 8);
        let pairing = match objective {
            "mlm" => Pairing::Single,
            "mlm+nsp" => Pairing::NextSentence,
            _ => Pairing::SentenceOrder,
        };
        let tokenizer = Tokenizer::from_file(&out).unwrap();
        let documents = Documents::read(std::slice::from_ref(&data), &tokenizer, |_| ()).unwrap();
        let own = Pretraining::new(documents, &tokenizer, PretrainSettings::of_paper(pairing, 48, 1337)).unwrap();
        for (index, row) in rows[..7].iter().enumerate() {
            let example = own.example(index as u64);
            assert_eq!(row["ids"], serde_json::json!(example.ids));
            assert_eq!(row["pair_label"], serde_json::json!(example.pair_label));
            assert_eq!(row["masked"].as_array().unwrap().len(), example.masked_labels.len());
            assert_eq!(row["masked"][0]["token"], serde_json::json!(tokenizer.id_to_token(example.masked_labels[0])));
        }
        assert_eq!(rows[7]["examples_per_epoch"], own.epoch_length());
        let share = rows[7]["share_masked"].as_f64().unwrap();
        assert!((0.12..0.19).contains(&share), "{share}");
    }
    let json = success(inspect("mlm+nsp", &["--tokenizer", file, "--show", "1", "--json", "--max-predictions", "2"]));
    let row: serde_json::Value = serde_json::from_str(json.lines().next().unwrap()).unwrap();
    assert!(row["masked"].as_array().unwrap().len() <= 2);
}

#[test]
fn inspect_refuses_what_it_cannot_use() {
    let folder = tempfile::tempdir().unwrap();
    let data = prose(&folder);
    let good = folder.path().join("good.json");
    success(train_tokenizer(&data, "wordpiece", &good, &[]));
    let fails = |data: &Path, tokenizer: &Path, objective: &str, more: &[&str]| {
        let mut command = shaderlm();
        command.args(["data", "inspect", "--data"]).arg(data).arg("--tokenizer").arg(tokenizer);
        let error = failure(run(command.args(["--objective", objective]).args(more)));
        assert_eq!(error.lines().count(), 1, "{error}");
        error
    };
    // Tokenizers without special tokens: GPT-2's kind, and one whose mask is missing.
    let bytes = folder.path().join("bytes.json");
    fs::write(&bytes, Tokenizer::bytes().unwrap().to_json().unwrap()).unwrap();
    assert!(fails(&data, &bytes, "mlm", &[]).contains("[CLS]"));
    let unmasked = folder.path().join("unmasked.json");
    fs::write(&unmasked, fs::read_to_string(&good).unwrap().replace("[MASK]", "[OTHER]")).unwrap();
    let error = fails(&data, &unmasked, "mlm+sop", &[]);
    assert!(error.contains("[MASK]") && error.contains("tokenizer train"), "{error}");
    let missing = fails(&data, &folder.path().join("none.json"), "mlm", &[]);
    assert!(missing.contains("none.json"), "{missing}");

    let one = write(&folder, "one.txt", "The king speaks\nand no one hears\n");
    let error = fails(&one, &good, "mlm+nsp", &[]);
    assert!(error.contains("one.txt") && error.contains("blank lines"), "{error}");
    let word = write(&folder, "word.txt", "king\n\nand\n");
    for objective in ["mlm+sop", "mlm+nsp"] {
        let error = fails(&word, &good, objective, &[]);
        assert!(error.contains("word.txt") && error.contains("long enough"), "{error}");
    }
    for text in ["", "\n\n \n"] {
        let error = fails(&write(&folder, "empty.txt", text), &good, "mlm+sop", &[]);
        assert!(error.contains("empty.txt"), "{error}");
    }
    let bad = folder.path().join("bad.txt");
    fs::write(&bad, [&b"king and no\n".repeat(200_000)[..], b"ab\xffcd"].concat()).unwrap();
    let error = fails(&bad, &good, "mlm+sop", &[]);
    assert!(error.contains("bad.txt") && error.contains("byte at 2400002"), "{error}");
    assert!(fails(&folder.path().join("none.txt"), &good, "mlm", &[]).contains("none.txt"));
    assert!(fails(folder.path(), &good, "mlm", &[]).contains(folder.path().to_str().unwrap()));
    assert!(fails(&data, &good, "mlm", &["--context", "3"]).contains("--context"));
    assert!(fails(&data, &good, "mlm", &["--ngrams", "0"]).contains("--ngrams"));
    // Wrong usage.
    let usage = run(shaderlm().args(["data", "inspect", "--objective", "mlm", "--data"]).arg(&data));
    assert_eq!(usage.status.code(), Some(2));
}
