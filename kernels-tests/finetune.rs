//! `finetune` and `classify` on the binary: tiny models learn easy rules, and what they have learnt can be used.

use crate::cli::{failure, run, shaderlm, success};
use serde_json::{Value, json};
use shaderlm::{
    checkpoint::{SafeTensorsFile, StoredType, write_safetensors},
    ops::random::threefry,
    text::Tokenizer,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Output, Stdio},
    sync::OnceLock,
};

const FILLERS: [&str; 10] = ["the", "river", "house", "stone", "walks", "over", "under", "green", "small", "moves"];
const GOOD: [&str; 2] = ["fine", "lovely"];
const BAD: [&str; 2] = ["poor", "awful"];
const PLACES: [&str; 4] = ["paris", "oslo", "rome", "cairo"];

/// A number below `limit` that follows from two others.
fn draw(a: usize, b: usize, limit: usize) -> usize {
    threefry([a as u32, 77], [b as u32, 0])[0] as usize % limit
}

/// `count` fillers.
fn fillers(seed: usize, count: usize) -> Vec<&'static str> {
    (0..count).map(|i| FILLERS[draw(seed, i, FILLERS.len())]).collect()
}

/// 3 to 6 fillers with `word` somewhere among them; where it is comes too.
fn around(seed: usize, word: &'static str) -> (Vec<&'static str>, usize) {
    let mut words = fillers(seed, 3 + draw(seed, 100, 4));
    let at = draw(seed, 101, words.len() + 1);
    words.insert(at, word);
    (words, at)
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// A BERT that has seen a text for a few steps, with a tokenizer trained on that text. Made once.
fn base() -> &'static str {
    static BASE: OnceLock<String> = OnceLock::new();
    BASE.get_or_init(|| {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("finetune-base");
        fs::create_dir_all(&folder).unwrap();
        let (data, tokenizer, model) = (folder.join("text.txt"), folder.join("tok.json"), folder.join("model"));
        let words = [&FILLERS[..], &GOOD, &BAD, &PLACES, &["more", "where", "is", "it", "?", "anna", "bob"]].concat();
        let line = |i: usize| (0..12).map(|j| words[draw(i, j, words.len())]).collect::<Vec<_>>().join(" ");
        fs::write(&data, (0..200).map(|i| line(i) + if i % 5 == 4 { "\n\n" } else { "\n" }).collect::<String>()).unwrap();
        let args = ["tokenizer", "train", "--kind", "wordpiece", "--vocab", "200", "--data", path(&data)];
        success(run(shaderlm().args(args).args(["--out", path(&tokenizer)])));
        let sizes = ["--layers", "1", "--heads", "2", "--width", "32", "--context", "32", "--batch", "8", "--steps", "5"];
        let args = ["train", "bert", "--objective", "mlm", "--overwrite", "--device", "cpu", "--data", path(&data)];
        let files = ["--tokenizer", path(&tokenizer), "--out", path(&model)];
        success(run(shaderlm().args(args).args(files).args(sizes)));
        path(&model).to_owned()
    })
}

/// A folder with a file of examples.
struct Lesson {
    folder: tempfile::TempDir,
    task: &'static str,
    data: PathBuf,
    out: PathBuf,
}

impl Lesson {
    fn new(task: &'static str, name: &str, text: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (data, out) = (folder.path().join(name), folder.path().join("out"));
        fs::write(&data, text).unwrap();
        Self { folder, task, data, out }
    }

    fn file(&self, name: &str, text: &str) -> PathBuf {
        let file = self.folder.path().join(name);
        fs::write(&file, text).unwrap();
        file
    }

    fn finetune(&self, more: &[&str]) -> Output {
        let args = ["finetune", "--model", base(), "--task", self.task, "--data", path(&self.data), "--out", path(&self.out)];
        run(shaderlm().args(args).args(["--lr", "4e-3", "--eval-fraction", "0.2"]).args(more))
    }

    fn classify(&self, args: &[&str]) -> Output {
        run(shaderlm().args(["classify", "--model", path(&self.out)]).args(args))
    }

    fn config(&self) -> Value {
        serde_json::from_str(&fs::read_to_string(self.out.join("config.json")).unwrap()).unwrap()
    }
}

/// A figure of the summary, which is the last line.
fn figure(out: &str, name: &str) -> f64 {
    let summary = out.lines().last().unwrap();
    let (_, rest) = summary.split_once(&format!(", {name} ")).unwrap_or_else(|| panic!("no {name} in {summary}"));
    rest.split([',', ';']).next().unwrap().parse().unwrap()
}

fn lines(out: &str) -> Vec<Value> {
    out.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect()
}

/// Texts with a good or a bad word, and which.
fn reviews(count: usize) -> Vec<(String, &'static str)> {
    let review = |i: usize| {
        let good = draw(i, 102, 2) == 1;
        let word = if good { GOOD } else { BAD }[draw(i, 103, 2)];
        (around(i, word).0.join(" "), if good { "positive" } else { "negative" })
    };
    (0..count).map(review).collect()
}

fn review_file(count: usize) -> String {
    let rows = reviews(count).into_iter().map(|(text, label)| format!("{text}\t{label}\n"));
    "text\tlabel\n".to_owned() + &rows.collect::<String>()
}

#[test]
fn classes_are_learnt_on_the_gpu_and_used_everywhere() {
    let lesson = Lesson::new("classify", "reviews.tsv", &review_file(200));
    let log = lesson.folder.path().join("log.jsonl");
    let out = success(lesson.finetune(&["--epochs", "6", "--log", path(&log)]));
    assert!(figure(&out, "accuracy") > 0.9 && figure(&out, "matthews") > 0.8 && figure(&out, "f1") > 0.9, "{out}");
    assert!(out.contains("160 training and 40 evaluation examples") && out.contains("classifier.weight"), "{out}");
    assert!(out.contains("truncated: 0 of 160 training texts, 0 of 40"), "{out}");
    let count = |name: &str| {
        let line = out.lines().find(|line| line.trim_start().starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap()
    };
    assert_eq!(count("negative") + count("positive"), 160, "{out}");
    let log = lines(&fs::read_to_string(log).unwrap());
    assert_eq!((log.len(), log[9]["step"].as_u64()), (60, Some(10)), "a line a step");
    assert!(log[9]["eval_accuracy"].is_number() && log[9]["eval_loss"].is_number() && log[8]["eval_loss"].is_null());

    // What transformers wants to know.
    let config = lesson.config();
    assert_eq!(config["architectures"], json!(["BertForSequenceClassification"]));
    assert_eq!(config["id2label"], json!({"0": "negative", "1": "positive"}));
    assert_eq!(config["label2id"], json!({"negative": 0, "positive": 1}));
    assert_eq!(config["problem_type"], "single_label_classification");

    // Texts of many lengths, from a pipe, in two batches: in their order, on both devices, and as `forward` has it.
    let texts: Vec<_> = reviews(240).split_off(200);
    let ask = |device: &str| {
        let mut child = shaderlm()
            .args(["classify", "--model", path(&lesson.out), "--json", "--batch", "17", "--device", device])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input: String = texts.iter().map(|(text, _)| format!("{text}\n")).collect();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        lines(&success(child.wait_with_output().unwrap()))
    };
    let (gpu, cpu) = (ask("auto"), ask("cpu"));
    let right = gpu.iter().zip(&texts).filter(|(found, (_, label))| found["label"] == *label).count();
    assert!(gpu.len() == 40 && right > 35, "{right} of {}", gpu.len());
    for (a, b) in gpu.iter().zip(&cpu) {
        for label in ["negative", "positive"] {
            let probability = |v: &Value| v["probabilities"][label].as_f64().unwrap();
            assert!((probability(a) - probability(b)).abs() < 1e-4, "{a} {b}");
        }
    }
    let forward = forward_probabilities(&lesson, &texts[3].0);
    assert!((forward - gpu[3]["probabilities"]["positive"].as_f64().unwrap()).abs() < 1e-4, "{forward} {}", gpu[3]);

    // Words for people, a file with labels, and one without.
    let line = success(lesson.classify(&["the lovely house moves", "awful river"]));
    assert!(line.starts_with("positive\t0.") && line.contains("\nnegative\t0."), "{line}");
    let labelled = lesson.classify(&["--data", path(&lesson.data)]);
    let scores = String::from_utf8_lossy(&labelled.stderr).into_owned();
    assert!(scores.contains("200 examples, accuracy 0.9") || scores.contains("200 examples, accuracy 1.0"), "{scores}");
    assert_eq!(success(labelled).lines().count(), 200);
    let bare = lesson.file("bare.csv", "id,sentence\n1,a fine stone\n2,poor stone\n");
    let bare = lesson.classify(&["--data", path(&bare)]);
    assert!(bare.stderr.is_empty(), "{}", String::from_utf8_lossy(&bare.stderr));
    let labels: Vec<_> = success(bare).lines().map(|line| line.split('\t').next().unwrap().to_owned()).collect();
    assert_eq!(labels, ["positive", "negative"]);

    // Taught other labels, it keeps all but the last layer.
    let other = review_file(60).replace("positive", "yes").replace("negative", "no");
    let other = Lesson::new("classify", "other.tsv", &other);
    let args = ["finetune", "--model", path(&lesson.out), "--task", "classify", "--data", path(&other.data)];
    let out = success(run(shaderlm().args(args).args(["--out", path(&other.out), "--epochs", "1", "--device", "cpu"])));
    assert!(out.contains("begun afresh: classifier.weight, classifier.bias\n"), "{out}");
    assert_eq!(other.config()["id2label"], json!({"0": "no", "1": "yes"}));
}

/// The probability of class 1, from the logits of `forward` for the text alone.
fn forward_probabilities(lesson: &Lesson, text: &str) -> f64 {
    let tokenizer = Tokenizer::from_folder(&lesson.out).unwrap();
    let special = tokenizer.special_tokens().unwrap();
    let ids = [vec![special.cls], tokenizer.encode(text, false).unwrap(), vec![special.sep]].concat();
    let (input, output) = (lesson.folder.path().join("in.safetensors"), lesson.folder.path().join("logits.safetensors"));
    let bytes: Vec<u8> = ids.iter().flat_map(|id| id.to_le_bytes()).collect();
    let tensor = ("input_ids".to_owned(), StoredType::U32, vec![1, ids.len()], Cow::Owned(bytes));
    write_safetensors(&input, &[tensor], &BTreeMap::new()).unwrap();
    let args = ["forward", "--model", path(&lesson.out), "--input", path(&input), "--output", path(&output)];
    success(run(shaderlm().args(args)));
    let logits = SafeTensorsFile::open(&output).unwrap().tensor("logits").unwrap().to_f32().unwrap();
    1.0 / (1.0 + f64::from(logits[0] - logits[1]).exp())
}

#[test]
fn numbers_are_learnt() {
    let row = |i: usize| {
        let count = draw(i, 104, 5);
        let mut words = fillers(i, 6);
        words[..count].fill("more");
        format!("{{\"text\": \"{}\", \"label\": {}}}\n", words.join(" "), 0.5 * count as f64 - 1.0)
    };
    let lesson = Lesson::new("regress", "a.jsonl", &(0..200).map(row).collect::<String>());
    // 40 examples in batches of 16: the last one is filled up.
    let out = success(lesson.finetune(&["--epochs", "8", "--device", "cpu"]));
    assert!(figure(&out, "pearson") > 0.9 && figure(&out, "spearman") > 0.85, "{out}");
    assert_eq!(lesson.config()["problem_type"], "regression");
    assert_eq!(lesson.config()["id2label"], json!({"0": "LABEL_0"}));
    let found = lines(&success(lesson.classify(&["more more more more the river", "the river green the", "--json"])));
    let value = |i: usize| found[i]["value"].as_f64().unwrap();
    assert!(value(0) > 0.5 && value(1) < -0.5, "{found:?}");
    let line = success(lesson.classify(&["more more"]));
    assert!(line.trim().parse::<f64>().is_ok(), "{line}");
}

#[test]
fn labels_of_words_are_learnt() {
    let sentence = |i: usize| {
        let (words, at) = around(i, PLACES[draw(i, 105, 4)]);
        let line = |(j, word): (usize, &&str)| format!("{word}\t{}\n", if j == at { "PLACE" } else { "O" });
        words.iter().enumerate().map(line).collect::<String>() + "\n"
    };
    let lesson = Lesson::new("tokens", "a.conll", &(0..150).map(sentence).collect::<String>());
    let out = success(lesson.finetune(&["--epochs", "4", "--device", "cpu"]));
    assert!(figure(&out, "f1") > 0.9 && figure(&out, "accuracy") > 0.95, "{out}");
    assert_eq!(lesson.config()["architectures"], json!(["BertForTokenClassification"]));
    assert_eq!(lesson.config()["id2label"], json!({"0": "O", "1": "PLACE"}));
    let out = success(lesson.classify(&["the small oslo moves", "Rome"]));
    let labels: Vec<_> = out.lines().map(|line| line.split('\t').take(2).collect::<Vec<_>>()).collect();
    let expected = [&["the", "O"][..], &["small", "O"], &["oslo", "PLACE"], &["moves", "O"], &[""], &["Rome", "PLACE"], &[""]];
    assert_eq!(labels, expected);
    // Words beyond the context have no label.
    let out = success(lesson.classify(&["the the the the oslo", "--context", "5", "--json"]));
    assert_eq!(lines(&out)[0]["words"][4], json!({"word": "oslo", "label": null, "probability": null}));
    let inputs = lesson.file("bare.txt", "in\noslo\n\nrome\n");
    let bare = lesson.classify(&["--data", path(&inputs), "--json"]);
    assert!(bare.stderr.is_empty(), "{}", String::from_utf8_lossy(&bare.stderr));
    assert_eq!(lines(&success(bare)).len(), 2);
}

#[test]
fn answers_are_learnt() {
    let question = |i: usize| {
        let place = PLACES[draw(i, 106, 4)];
        let context = around(i, place).0.join(" ");
        let at = context.find(place).unwrap();
        json!({"question": "where is it ?", "context": context, "answer_text": place, "answer_start": at}).to_string() + "\n"
    };
    let lesson = Lesson::new("qa", "a.jsonl", &(0..200).map(question).collect::<String>());
    let out = success(lesson.finetune(&["--epochs", "6", "--device", "cpu"]));
    assert!(figure(&out, "exact match") > 0.8 && figure(&out, "f1") > 0.8, "{out}");
    assert_eq!(lesson.config()["architectures"], json!(["BertForQuestionAnswering"]));
    let ask = ["--question", "where is it ?", "the green stone Cairo moves over"];
    let out = success(lesson.classify(&ask));
    assert!(out.starts_with("Cairo\t"), "{out}");
    // In windows as well, and in characters.
    let long = "Thé rivér thé river the river the river over under the green stone Cairo moves over";
    let start = long.split("Cairo").next().unwrap().chars().count();
    let args = ["--question", "where is it ?", long, "--json", "--context", "16", "--doc-stride", "4"];
    let found = &lines(&success(lesson.classify(&args)))[0];
    assert_eq!((&found["answer"], &found["start"]), (&json!("Cairo"), &json!(start)), "{found}");
    assert!(found["score"].as_f64() > found["null_score"].as_f64(), "{found}");
    let args = [&args[..], &["--null-threshold", "-1000"]].concat();
    assert_eq!(lines(&success(lesson.classify(&args)))[0]["answer"], "");
    assert!(failure(lesson.classify(&["x"])).contains("--question"));
}

#[test]
fn questions_without_an_answer_are_learnt() {
    let question = |i: usize| {
        let place = PLACES[draw(i, 109, 4)];
        let answerable = draw(i, 110, 2) == 0;
        let context = around(i, if answerable { place } else { "lovely" }).0.join(" ");
        let (texts, starts) = if answerable { (vec![place], vec![context.find(place).unwrap()]) } else { (vec![], vec![]) };
        let answers = json!({"text": texts, "answer_start": starts});
        json!({"id": i.to_string(), "question": "where is it ?", "context": context, "answers": answers}).to_string() + "\n"
    };
    let lesson = Lesson::new("qa", "a.jsonl", &(0..200).map(question).collect::<String>());
    let out = success(lesson.finetune(&["--epochs", "6", "--device", "cpu", "--metric", "exact_match"]));
    assert!(figure(&out, "exact match") > 0.8 && out.contains("training questions have no answer"), "{out}");
    let eval = lesson.file("eval.jsonl", &(200..220).map(question).collect::<String>());
    let score = |more: &[&str]| {
        let output = lesson.classify(&[&["--json", "--data", path(&eval)], more].concat());
        let err = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(lines(&success(output))[3]["id"], "203");
        err.split("exact match ").nth(1).unwrap().split(',').next().unwrap().parse::<f64>().unwrap()
    };
    // Without the threshold every question gets an answer.
    let (with, without) = (score(&["--null-threshold", "0"]), score(&[]));
    assert!(with > 0.8 && without < 0.7, "{with} {without}");
}

/// An example of choosing among two or three.
fn choice(i: usize) -> String {
    let count = 2 + draw(i, 107, 2);
    let right = draw(i, 108, count);
    let choice = |c: usize| around(10 * i + c, if c == right { "lovely" } else { "awful" }).0.join(" ");
    let choices: Vec<_> = (0..count).map(choice).collect();
    json!({"prompt": fillers(i, 3).join(" "), "choices": choices, "label": right}).to_string() + "\n"
}

/// The loss of an evaluation is summed on the host, that of a step on the device: on the same examples, without dropout and
/// at a rate of 0, they are the same for every task, with several windows to a question and with missing choices.
#[test]
fn evaluation_has_the_loss_of_training() {
    let words = |i: usize| fillers(i, 3 + draw(i, 111, 12)).join(" ");
    let number = |i: usize| format!("{{\"text\": \"{}\", \"label\": {}}}\n", words(i), i as f32 / 4.0);
    let tags = |i: usize| {
        let tokens: Vec<_> = words(i).split(' ').map(str::to_owned).collect();
        let labels: Vec<_> = (0..tokens.len()).map(|j| ["O", "A", "B"][(i + j) % 3]).collect();
        json!({"tokens": tokens, "labels": labels}).to_string() + "\n"
    };
    // As many windows as rows in a batch, so that a batch is an epoch.
    let question = |i: usize| {
        let context = format!("{} oslo {}", fillers(i, 5).join(" "), fillers(i + 50, 4).join(" "));
        let at = context.find("oslo").unwrap();
        json!({"question": "where ?", "context": context, "answer_text": "oslo", "answer_start": at}).to_string() + "\n"
    };
    let class = |i: usize| format!("{{\"text\": \"{}\", \"label\": \"{}\"}}\n", words(i), i % 3);
    let files: [(&str, String, &str); 5] = [
        ("classify", (0..12).map(class).collect(), "12"),
        ("regress", (0..12).map(number).collect(), "12"),
        ("tokens", (0..12).map(tags).collect(), "12"),
        ("qa", (0..6).map(question).collect(), "12"),
        ("choice", (0..12).map(choice).collect(), "12"),
    ];
    for (task, text, batch) in files {
        let lesson = Lesson::new(task, "a.jsonl", &text);
        let log = lesson.folder.path().join("log.jsonl");
        let args = ["finetune", "--model", base(), "--task", task, "--data", path(&lesson.data), "--out", path(&lesson.out)];
        let still =
            ["--lr", "0", "--dropout", "0", "--weight-decay", "0", "--epochs", "1", "--batch", batch, "--log", path(&log)];
        let more = ["--eval-data", path(&lesson.data), "--context", "12", "--doc-stride", "4"];
        success(run(shaderlm().args(args).args(still).args(more)));
        let log = lines(&fs::read_to_string(log).unwrap());
        assert_eq!(log.len(), 1, "{task}: one step is an epoch: {log:?}");
        let (loss, evaluated) = (log[0]["loss"].as_f64().unwrap(), log[0]["eval_loss"].as_f64().unwrap());
        assert!((loss - evaluated).abs() < 1e-4 * loss, "{task}: {loss} in training, {evaluated} in evaluation");
    }
}

#[test]
fn choices_are_learnt() {
    let lesson = Lesson::new("choice", "a.jsonl", &(0..150).map(choice).collect::<String>());
    let out = success(lesson.finetune(&["--epochs", "5", "--batch", "8", "--accumulate", "2", "--device", "cpu"]));
    assert!(figure(&out, "accuracy") > 0.85, "{out}");
    assert_eq!(lesson.config()["architectures"], json!(["BertForMultipleChoice"]));
    let args = ["the house", "--choice", "awful stone", "--choice", "lovely stone", "--choice", "awful river"];
    assert!(success(lesson.classify(&args)).starts_with("lovely stone\t0."));
    let found = &lines(&success(lesson.classify(&[&args[..], &["--json"]].concat())))[0];
    assert_eq!(found["choice"], 1);
    let sum: f64 = found["probabilities"].as_array().unwrap().iter().map(|p| p.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-5, "{found}");
}

#[test]
fn early_stopping_and_the_best_checkpoint() {
    let lesson = Lesson::new("classify", "a.tsv", &review_file(60));
    // Nothing is learnt at a rate of 0, so that no evaluation is better than the first.
    let args = [
        "--metric",
        "loss",
        "--lr",
        "0",
        "--patience",
        "2",
        "--eval-every",
        "3",
        "--epochs",
        "20",
        "--device",
        "cpu",
        "--context",
        "8",
    ];
    let base = ["finetune", "--model", base(), "--task", "classify", "--data", path(&lesson.data), "--out", path(&lesson.out)];
    let out = success(run(shaderlm().args(base).args(args)));
    let summary = out.lines().last().unwrap();
    assert!(summary.contains("stopped early at step 9 of 68, after 2 evaluations without a better loss"), "{out}");
    assert!(summary.contains("best loss at step 3"), "{out}");
    assert_eq!(out.lines().filter(|line| line.starts_with("step ")).count(), 3, "{out}");
    assert!(lesson.out.join("model.safetensors").exists() && lesson.out.join("tokenizer.json").exists());
    // Of longer texts than 6 words and two special tokens the end is lost, and that is said.
    let line = out.lines().find(|line| line.starts_with("rows of 8 tokens; truncated: ")).unwrap();
    let numbers: Vec<usize> = line.split([' ', ',']).filter_map(|word| word.parse().ok()).collect();
    let long = reviews(60).iter().filter(|(text, _)| text.split(' ').count() > 6).count();
    assert_eq!((numbers[1] + numbers[3], numbers[2], numbers[4]), (long, 54, 6), "{line}");
    assert!(long > 5);

    // The folder's evaluation is that of the best step, not of the last.
    let more = ["--epochs", "8", "--device", "cpu", "--overwrite", "--lr", "2e-2", "--eval-every", "4", "--clip", "0"];
    let eval = lesson.file("eval.tsv", &review_file(40));
    let out = success(run(shaderlm().args(base).args(more).args(["--eval-data", path(&eval)])));
    let best = figure(&out, "accuracy");
    let again = lesson.classify(&["--data", path(&eval)]);
    let scores = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(scores.contains(&format!("accuracy {best:.4}")), "{scores} {out}");
}

/// Ctrl-C ends a run after its step; what was best stays, whole.
#[cfg(unix)]
#[test]
fn ctrl_c_keeps_the_best() {
    use std::io::{BufRead, BufReader};
    let lesson = Lesson::new("classify", "a.tsv", &review_file(60));
    let mut child = shaderlm()
        .args(["finetune", "--model", base(), "--task", "classify", "--data", path(&lesson.data), "--out", path(&lesson.out)])
        .args(["--epochs", "100000", "--device", "cpu", "--eval-every", "2"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
    assert!(out.any(|line| line.starts_with("step 4 ")));
    assert!(run(std::process::Command::new("kill").args(["-INT", &child.id().to_string()])).status.success());
    let last = out.last().unwrap();
    assert!(child.wait().unwrap().success());
    assert!(last.starts_with("stopped at step ") && last.contains("best accuracy at step "), "{last}");
    assert!(success(lesson.classify(&["fine"])).contains("tive\t"));
    let mut names = fs::read_dir(&lesson.out).unwrap().map(|f| f.unwrap().file_name().to_string_lossy().into_owned());
    assert!(!names.any(|name| name.ends_with(".tmp")), "nothing half-written is left");
}

#[test]
fn bad_input_is_refused_in_a_line() {
    let lesson = Lesson::new("classify", "a.tsv", &review_file(40));
    let refused = |lesson: &Lesson, more: &[&str], parts: &[&str]| {
        let error = failure(lesson.finetune(more));
        assert_eq!(error.lines().count(), 1, "{error}");
        parts.iter().for_each(|part| assert!(error.contains(part), "{part:?} is not in {error}"));
        assert!(!lesson.out.exists(), "nothing is written");
    };
    let parts = ["a.tsv, line 2: there is no column stars", "label, text", "--label-column"];
    refused(&lesson, &["--label-column", "stars"], &parts);
    refused(&lesson, &["--text-column", "body"], &["no column body", "--text-column"]);
    let empty = Lesson::new("classify", "b.tsv", "text\tlabel\nx\ta\ny\t\n");
    refused(&empty, &[], &["b.tsv, line 3, column label", "the label is empty"]);
    refused(&Lesson::new("classify", "c.tsv", "text\tlabel\nx\ta\ny\ta\n"), &[], &["c.tsv", "at least 2 different labels"]);
    let word = Lesson::new("regress", "d.tsv", "text\tlabel\nx\ta\n");
    refused(&word, &[], &["d.tsv, line 2, column label: \"a\" is not a number"]);
    refused(&Lesson::new("classify", "e.xlsx", "text\tlabel\nx\ta\n"), &[], &["e.xlsx", ".tsv, .csv or .jsonl"]);
    refused(&lesson, &["--context", "4"], &["--context", "at least 5"]);
    refused(&lesson, &["--context", "33"], &["--context 33: the model's is 32"]);
    refused(&lesson, &["--metric", "pearson"], &["--metric pearson", "accuracy, f1, matthews and loss"]);
    refused(&lesson, &["--batch", "0"], &["--batch 0"]);
    refused(&lesson, &["--patience", "0"], &["--patience 0"]);
    let eval = lesson.file("eval.tsv", "text\tlabel\nx\tpositive\ny\tneutral\n");
    let args = ["finetune", "--model", base(), "--task", "classify", "--data", path(&lesson.data), "--eval-data", path(&eval)];
    let error = failure(run(shaderlm().args(args).args(["--out", path(&lesson.out)])));
    assert!(error.contains("eval.tsv, line 3, column label") && error.contains("no label \"neutral\""), "{error}");
    // Other models.
    let gpt2 = format!("{}/kernels-tests/fixtures/gpt2/tiny", env!("CARGO_MANIFEST_DIR"));
    let args = ["finetune", "--model", &gpt2, "--task", "classify", "--data", path(&lesson.data), "--out", path(&lesson.out)];
    let error = failure(run(shaderlm().args(args)));
    assert!(error.contains("it is a gpt2") && error.contains("bert"), "{error}");
    assert!(failure(run(shaderlm().args(["classify", "--model", &gpt2, "x"]))).contains("it is a gpt2"));
    let error = failure(run(shaderlm().args(["classify", "--model", base(), "x"])));
    assert!(error.contains("BertForMaskedLM") && error.contains("finetune"), "{error}");
    // A folder that holds a model, and a file where a folder should be.
    fs::create_dir(&lesson.out).unwrap();
    fs::write(lesson.out.join("model.safetensors"), "precious").unwrap();
    let error = failure(lesson.finetune(&[]));
    assert!(error.contains("--out") && error.contains("--overwrite"), "{error}");
    assert_eq!(fs::read(lesson.out.join("model.safetensors")).unwrap(), b"precious");
    fs::remove_dir_all(&lesson.out).unwrap();
    fs::write(&lesson.out, "a file").unwrap();
    assert!(failure(lesson.finetune(&["--device", "cpu"])).contains("--out"));
}
