//! Files of downstream tasks, and their examples as tokens.

use serde_json::json;
use shaderlm::{
    ops::IGNORE,
    text::Tokenizer,
    train::tasks::{
        Answer, Columns, EncodedExample, Encoder, Target, Task, TaskData, TaskExample, TaskInput, best_answer, read_inputs,
    },
};
use std::{fs, path::PathBuf};
use tempfile::TempDir;

/// A file in a folder of its own, which goes when this does.
struct File(#[allow(dead_code)] TempDir, PathBuf);

fn file(name: &str, contents: &str) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, contents).unwrap();
    File(folder, path)
}

fn load(name: &str, contents: &str, task: Task) -> TaskData {
    load_with(name, contents, task, &Columns::default())
}

fn load_with(name: &str, contents: &str, task: Task, columns: &Columns) -> TaskData {
    TaskData::read(&file(name, contents).1, task, columns).unwrap_or_else(|e| panic!("{e}"))
}

/// The error's line, less the folder.
fn refused(name: &str, contents: &str, task: Task) -> String {
    refused_with(name, contents, task, &Columns::default())
}

fn refused_with(name: &str, contents: &str, task: Task, columns: &Columns) -> String {
    let file = file(name, contents);
    let error = TaskData::read(&file.1, task, columns).unwrap_err().to_string();
    assert!(!error.contains('\n'), "{error:?} is more than a line");
    let begin = file.1.display().to_string();
    error.strip_prefix(&begin).unwrap_or_else(|| panic!("{error} does not name the file")).to_owned()
}

fn texts(data: &TaskData) -> Vec<(&str, Option<&str>)> {
    data.examples
        .iter()
        .map(|example| match &example.input {
            TaskInput::Text { first, second } => (first.as_str(), second.as_deref()),
            other => panic!("{other:?} is of another task"),
        })
        .collect()
}

fn classes(data: &TaskData) -> Vec<usize> {
    data.examples.iter().map(|e| if let Target::Class(c) = e.target { c } else { panic!("{:?}", e.target) }).collect()
}

#[test]
fn tsv_without_quoting_as_glue_has_it() {
    let text = "\u{feff}sentence\tlabel\r\nhe said \"no\tyes\r\n\r\n\"quoted\"\tno\r\na\rb, c\tyes";
    let data = load("a.tsv", text, Task::Classify);
    assert_eq!(texts(&data), [("he said \"no", None), ("\"quoted\"", None), ("a\rb, c", None)]);
    assert_eq!(data.labels, ["no", "yes"]);
    assert_eq!(classes(&data), [1, 0, 1]);
    assert_eq!(data.class_counts(), [("no".into(), 1), ("yes".into(), 2)]);
}

#[test]
fn csv_with_quoting_and_pairs() {
    let text = "id,premise,hypothesis,label\n1,\"a, \"\"b\"\"\nc\",d,10\n2,e,f,9\n3,g,h,10\n";
    let data = load("a.CSV", text, Task::Classify);
    assert_eq!(texts(&data), [("a, \"b\"\nc", Some("d")), ("e", Some("f")), ("g", Some("h"))]);
    assert_eq!(data.labels, ["9", "10"], "numbers are sorted as numbers");
    assert_eq!(classes(&data), [1, 0, 1]);
}

#[test]
fn json_lines_and_named_columns() {
    let text = "{\"body\": \"x y\", \"more\": \"z\", \"ok\": true}\n\n{\"body\": \"w\", \"more\": 5, \"ok\": false}\n";
    let columns = Columns { text: Some("body".into()), pair: Some("more".into()), label: Some("ok".into()) };
    let data = load_with("a.jsonl", text, Task::Classify, &columns);
    assert_eq!(texts(&data), [("x y", Some("z")), ("w", Some("5"))]);
    assert_eq!(data.labels, ["false", "true"]);
    let columns = Columns { text: Some("body".into()), label: Some("more".into()), ..Columns::default() };
    assert_eq!(load_with("a.jsonl", text, Task::Classify, &columns).labels, ["5", "z"]);
}

#[test]
fn numbers_for_texts() {
    let data = load("a.tsv", "sentence1\tsentence2\tscore\na\tb\t4.5\nc\td\t-1e2\n", Task::Regress);
    let values: Vec<_> = data.examples.iter().map(|e| e.target.clone()).collect();
    assert_eq!(values, [Target::Number(4.5), Target::Number(-100.0)]);
    assert!(data.labels.is_empty() && data.class_counts().is_empty());
    for bad in ["good", "NaN", "inf", "1e99"] {
        let error = refused("a.tsv", &format!("text\tlabel\na\t1\nb\t{bad}\n"), Task::Regress);
        assert_eq!(error, format!(", line 3, column label: \"{bad}\" is not a number"));
    }
}

#[test]
fn labels_of_words() {
    let lines = r#"{"tokens": ["Ann", "lives"], "labels": ["B-PER", "O"]}
                   {"tokens": ["Here"], "labels": ["O"]}"#;
    let conll = "-DOCSTART- -X- O\n\nAnn NNP B-PER\nlives VB O\n\n\nHere RB O";
    let tabs = "token\tlabel\nAnn\tB-PER\nlives\tO\n\nHere\tO\n";
    for (name, text) in [("a.jsonl", lines), ("a.conll", conll), ("a.tsv", tabs), ("a.tsv", &tabs.replace('\n', "\r\n"))] {
        let data = load(name, text, Task::Tokens);
        assert_eq!(data.labels, ["B-PER", "O"], "{text}");
        let inputs: Vec<_> = data.examples.iter().map(|e| e.input.clone()).collect();
        assert_eq!(inputs, [TaskInput::Words(vec!["Ann".into(), "lives".into()]), TaskInput::Words(vec!["Here".into()])]);
        assert_eq!(data.examples[0].target, Target::Tags(vec![0, 1]));
        assert_eq!(data.class_counts(), [("B-PER".into(), 1), ("O".into(), 2)]);
    }
    assert_eq!(refused("a.tsv", "Ann\tB-PER\nlives\t\n", Task::Tokens), ", line 2: the label is empty");
    assert_eq!(refused("a.tsv", "Ann\tB-PER\nlives\n", Task::Tokens), ", line 2: the label is empty");
    assert_eq!(refused("a.tsv", "Ann\tB-PER\n\tO\n", Task::Tokens), ", line 2: the text is empty");
    let error = refused("a.jsonl", "{\"tokens\": [\"a\", \"b\"], \"labels\": [\"O\"]}", Task::Tokens);
    assert_eq!(error, ", line 1, column labels: 1 labels for 2 tokens");
    let error = refused("a.jsonl", "{\"tokens\": [\"a\", \"\"], \"labels\": [\"O\", \"O\"]}", Task::Tokens);
    assert_eq!(error, ", line 1, column tokens: the text is empty");
    assert!(refused("a.csv", "tokens,labels\na,b\n", Task::Tokens).contains("--task tokens the file's name must end with"));
}

const CONTEXT: &str = "Élan was born in Łódź in 1901.";

/// The answers of the only example.
fn answers(data: &TaskData) -> Vec<(String, String)> {
    let [TaskExample { input: TaskInput::Question { context, .. }, target: Target::Answers(answers) }] = &data.examples[..]
    else {
        panic!("{data:?}")
    };
    answers.iter().map(|a| (a.text.clone(), context[a.range.clone()].to_owned())).collect()
}

#[test]
fn questions_in_all_forms() {
    let expected = [("Łódź".to_owned(), "Łódź".to_owned())];
    let flat = json!({"context": CONTEXT, "question": "Where?", "answer_start": 17, "answer_text": "Łódź"});
    assert_eq!(answers(&load("a.jsonl", &flat.to_string(), Task::QuestionAnswering)), expected);
    let table = format!("question\tcontext\tanswer_text\tanswer_start\nWhere?\t{CONTEXT}\tŁódź\t17\n");
    assert_eq!(answers(&load("a.tsv", &table, Task::QuestionAnswering)), expected);
    let lists = json!({"text": ["1901", " in 1901"], "answer_start": [25, 21]});
    let both = json!({"context": CONTEXT, "question": "When?", "answers": lists});
    let found = answers(&load("a.jsonl", &both.to_string(), Task::QuestionAnswering));
    assert_eq!(found, [("1901".into(), "1901".into()), (" in 1901".into(), "in 1901".into())]);
    let squad = json!({"version": "v2.0", "data": [{"title": "E", "paragraphs": [{"context": CONTEXT, "qas": [
        {"id": "q1", "question": "Where?", "answers": [{"text": "Łódź", "answer_start": 17}], "is_impossible": false},
        {"id": "q2", "question": "Why?", "answers": [], "is_impossible": true},
    ]}]}]});
    let data = load("a.json", &squad.to_string(), Task::QuestionAnswering);
    assert_eq!(data.examples.len(), 2);
    assert_eq!(data.examples[1].target, Target::Answers(vec![]));
    assert!(matches!(&data.examples[1].input, TaskInput::Question { id: Some(id), .. } if id == "q2"));
    let first = TaskData { examples: vec![data.examples[0].clone()], ..data };
    assert_eq!(answers(&first), expected);
}

#[test]
fn answers_that_are_not_there() {
    for (at, found) in [(16, " Łód"), (400, ""), (-1, "")] {
        let flat = json!({"context": CONTEXT, "question": "Where?", "answer_start": at, "answer_text": "Łódź"});
        let error = refused("a.jsonl", &flat.to_string(), Task::QuestionAnswering);
        let expected = format!("the answer \"Łódź\" is not in the context at character {at}; there is {found:?}");
        assert_eq!(error, format!(", line 1, column answer_text: question \"Where?\": {expected}"));
    }
    let squad = json!({"data": [{"paragraphs": [{"context": CONTEXT, "qas": [
        {"id": "q1", "question": "Where?", "answers": [{"text": "Łódź", "answer_start": 3}]}]}]}]});
    let error = refused("a.json", &squad.to_string(), Task::QuestionAnswering);
    assert!(error.starts_with(", column answers: question \"Where?\""), "{error}");
    let error = refused("a.json", "{\"data\": [{}]}", Task::QuestionAnswering);
    assert_eq!(error, ": it is not as SQuAD's: no list \"paragraphs\"");
    let error = refused("a.jsonl", "{\"context\": \"c\", \"question\": \"q\"}", Task::QuestionAnswering);
    let flag = "--label-column names the one to take";
    assert_eq!(error, format!(", line 1: there is no column answer_text; there are: context, question; {flag}"));
}

#[test]
fn choices_by_number_and_by_text() {
    let lines = r#"{"prompt": "p", "choices": ["x", "y", "z"], "label": 2}
                   {"prompt": "q", "choices": ["x", "y"], "label": "y"}"#;
    let data = load("a.jsonl", lines, Task::Choice);
    assert_eq!(classes(&data), [2, 1]);
    assert_eq!(data.class_counts(), [("0".into(), 0), ("1".into(), 1), ("2".into(), 1)]);
    let data = load("a.tsv", "prompt\tchoice0\tchoice1\tlabel\np\tx\ty\t1\n", Task::Choice);
    assert_eq!(data.examples[0].input, TaskInput::Choice { prompt: "p".into(), choices: vec!["x".into(), "y".into()] });
    let error = refused("a.tsv", "prompt\tchoice0\tchoice1\tlabel\np\tx\ty\t2\n", Task::Choice);
    assert_eq!(error, ", line 2, column label: \"2\" is neither the number of a choice (0 to 1) nor a choice itself");
    let error = refused("a.tsv", "prompt\tchoice0\tlabel\np\tx\t0\n", Task::Choice);
    assert_eq!(error, ", line 2: there must be at least 2 choices, not 1");
    let error = refused("a.tsv", "prompt\tlabel\np\t0\n", Task::Choice);
    assert_eq!(error, ", line 2: there is no column choice0 or choice1 or choices; there are: label, prompt");
}

#[test]
fn files_that_are_refused() {
    let columns = "there are: label, what; --text-column names the one to take";
    let error = refused("a.tsv", "what\tlabel\na\tb\n", Task::Classify);
    assert_eq!(error, format!(", line 2: there is no column text or sentence or question; {columns}"));
    let named = Columns { text: Some("txet".into()), ..Columns::default() };
    let error = refused_with("a.tsv", "what\tlabel\na\tb\n", Task::Classify, &named);
    assert_eq!(error, format!(", line 2: there is no column txet; {columns}"));
    let error = refused("a.tsv", "text\tclas\na\tb\n", Task::Classify);
    assert!(
        error.contains("no column label or gold_label") && error.contains("there are: clas, text; --label-column"),
        "{error}"
    );
    // The line is right after blank lines and after a cell of two lines.
    let error = refused("a.csv", "text,label\n\n\"a\nb\",x\n\n\nc,  \n", Task::Classify);
    assert_eq!(error, ", line 7, column label: the label is empty");
    assert_eq!(refused("a.tsv", "text\tlabel\na\tx\n \ty\n", Task::Classify), ", line 3, column text: the text is empty");
    assert_eq!(refused("a.tsv", "text\tlabel\na\tx\nb\n", Task::Classify), ", line 3: 1 cells, and the header has 2");
    assert!(
        refused("a.tsv", "text\ttext\na\tx\n", Task::Classify).contains("line 1: the header names the column \"text\" twice")
    );
    assert_eq!(
        refused("a.tsv", "text\tlabel\na\tx\nb\tx\n", Task::Classify),
        ": there must be at least 2 different labels, and there is only 1"
    );
    for empty in ["", "text\tlabel\n"] {
        assert_eq!(refused("a.tsv", empty, Task::Classify), ": there are 0 examples; the file is empty or has only a header");
    }
    assert!(
        refused("a.jsonl", "{\"text\": \"a\", \"label\": 1}\n{\"text\": ", Task::Classify)
            .starts_with(", line 2: it is not JSON:")
    );
    assert_eq!(refused("a.jsonl", "[1]", Task::Classify), ", line 1: it is not a JSON object");
    let error = refused("a.jsonl", "{\"text\": [\"a\"], \"label\": 1}", Task::Classify);
    assert_eq!(error, ", line 1, column text: must be a string or a number");
    let error = refused("a.xlsx", "text", Task::Classify);
    assert_eq!(error, ": for --task classify the file's name must end with .tsv, .csv or .jsonl");
    let file = file("a.tsv", "");
    fs::write(&file.1, b"text\tlabel\nab\xff\tx\n").unwrap();
    let error = TaskData::read(&file.1, Task::Classify, &Columns::default()).unwrap_err().to_string();
    assert!(error.ends_with("line 2: not UTF-8 text: a bad byte at 13"), "{error}");
    let error = TaskData::read(&file.1.join("none"), Task::Classify, &Columns::default()).unwrap_err().to_string();
    assert!(error.contains("none: "), "{error}");
    assert!("sort".parse::<Task>().unwrap_err().contains("classify, regress, tokens, qa and choice"));
    assert!(Task::ALL.into_iter().all(|task| task.word().parse() == Ok(task)));
}

#[test]
fn a_label_only_in_the_evaluation_file() {
    let train = load("a.tsv", "text\tlabel\na\tx\nb\tz\n", Task::Classify);
    let against = |name: &str, text: &str, task: Task, labels: &[String]| {
        TaskData::read_against(&file(name, text).1, task, &Columns::default(), labels)
    };
    let data = against("b.tsv", "text\tlabel\nc\tz\n", Task::Classify, &train.labels).unwrap();
    assert_eq!((classes(&data), &data.labels), (vec![1], &train.labels), "one class is enough here");
    let error = against("b.tsv", "text\tlabel\nc\tz\nd\ty\n", Task::Classify, &train.labels).unwrap_err().to_string();
    assert!(
        error.ends_with("b.tsv, line 3, column label: the training data has no label \"y\"; its labels are: x, z"),
        "{error}"
    );
    let error = against("b.conll", "a x\nb z\n\nc z\nd y\n", Task::Tokens, &train.labels).unwrap_err().to_string();
    assert!(error.contains("b.conll, line 5: the training data has no label \"y\""), "{error}");
}

#[test]
fn inputs_without_labels() {
    let inputs = |name, text, task| read_inputs(&file(name, text).1, task, &Columns::default()).unwrap();
    let text = |first: &str| TaskInput::Text { first: first.into(), second: None };
    assert_eq!(inputs("a.csv", "text\nhi\nho\n", Task::Classify), [text("hi"), text("ho")]);
    assert_eq!(inputs("a.conll", "Ann\nlives\n\nHere\n", Task::Tokens).len(), 2);
    let question = json!({"context": "c", "question": "q"}).to_string();
    assert_eq!(inputs("a.jsonl", &question, Task::QuestionAnswering).len(), 1);
    assert_eq!(inputs("a.csv", "prompt,choice0,choice1\np,x,y\n", Task::Choice).len(), 1);
}

#[test]
fn splits_follow_the_seed_and_keep_every_label_in_training() {
    let mut text = String::from("text\tlabel\n");
    for i in 0..200 {
        let label = if i == 7 { "rare" } else { ["x", "y", "z"][i % 3] };
        text += &format!("t{i}\t{label}\n");
    }
    let split = |seed| load("a.tsv", &text, Task::Classify).split(0.25, seed, "a.tsv".as_ref()).unwrap();
    let mut seen = std::collections::BTreeSet::new();
    for seed in 0..20 {
        let (train, evaluation) = split(seed);
        assert_eq!((train.examples.len(), evaluation.examples.len()), (150, 50));
        assert_eq!((train.labels.len(), &evaluation.labels), (4, &train.labels));
        assert!(train.class_counts().iter().all(|(_, count)| *count > 0), "seed {seed}");
        let mut all: Vec<_> = texts(&train).into_iter().chain(texts(&evaluation)).map(|t| t.0.to_owned()).collect();
        all.sort();
        all.dedup();
        assert_eq!(all.len(), 200, "each example is on one side");
        assert_eq!(split(seed), (train, evaluation.clone()), "the same seed, the same split");
        seen.insert(texts(&evaluation)[0].0.to_owned());
    }
    assert!(seen.len() > 3, "other seeds, other splits");
    let error = load("a.tsv", "text\tlabel\na\tx\nb\ty\n", Task::Classify).split(0.5, 1, "a.tsv".as_ref()).unwrap_err();
    assert_eq!(error.to_string(), "a.tsv: there are 2 examples; they cannot be split into training and evaluation examples");
}

const WORDS: [&str; 24] = [
    "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "##a", "##b", "##c", "##d", "##e", "elan", "was",
    "born", "in", "lo", "##dz", "19", "##01", ".",
];
const CLS: u32 = 2;
const SEP: u32 = 3;

/// A small WordPiece of BERT's kind: small letters, accents off.
fn word_piece() -> Tokenizer {
    let vocab: serde_json::Map<_, _> = WORDS.iter().enumerate().map(|(i, word)| ((*word).to_owned(), json!(i))).collect();
    let special = |id: usize| {
        json!({"id": id, "content": WORDS[id], "special": true,
               "single_word": false, "lstrip": false, "rstrip": false, "normalized": false})
    };
    let file = json!({
        "version": "1.0", "truncation": null, "padding": null, "post_processor": null,
        "added_tokens": (0..5).map(special).collect::<Vec<_>>(),
        "normalizer": {"type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
                       "strip_accents": null, "lowercase": true},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": vocab},
    });
    Tokenizer::from_bytes(file.to_string().as_bytes()).unwrap()
}

fn written(ids: &[u32]) -> String {
    ids.iter().map(|&id| WORDS[id as usize]).collect::<Vec<_>>().join(" ")
}

#[test]
fn offsets_are_whole_characters_without_white_space() {
    let tokenizer = word_piece();
    let text = "  ÉLAN was\tborn  in Łódź";
    let found = tokenizer.encode_with_offsets("  ÉLAN was\tborn  in 1901.").unwrap();
    let parts: Vec<_> =
        found.iter().map(|(id, range)| (WORDS[*id as usize], &"  ÉLAN was\tborn  in 1901."[range.clone()])).collect();
    let expected = [("elan", "ÉLAN"), ("was", "was"), ("born", "born"), ("in", "in"), ("19", "19"), ("##01", "01"), (".", ".")];
    assert_eq!(parts, expected);
    for tokenizer in [word_piece(), Tokenizer::gpt2().unwrap(), Tokenizer::bytes().unwrap()] {
        for text in [text, "", " ", "你好，世界 😀👨‍👩‍👧 e\u{301}x [SEP] the end \n"] {
            let found = tokenizer.encode_with_offsets(text).unwrap();
            let ids: Vec<_> = found.iter().map(|(id, _)| *id).collect();
            assert_eq!(ids, tokenizer.encode(text, false).unwrap());
            let mut before = 0;
            for (_, range) in found {
                assert!(range.start >= before && text[range.clone()].trim() == &text[range.clone()], "{text:?}: {range:?}");
                before = range.start;
            }
        }
    }
    // A byte's token stands for its whole character.
    let ranges: Vec<_> = Tokenizer::bytes().unwrap().encode_with_offsets("é x").unwrap().into_iter().map(|t| t.1).collect();
    assert_eq!(ranges[..2], [0..2, 0..2]);
    assert_eq!(ranges[3], 3..4);
    let error = Tokenizer::chars("ab").unwrap().encode_with_offsets("abZ").unwrap_err().to_string();
    assert!(error.contains("'Z'"), "{error}");
}

#[test]
fn texts_and_pairs() {
    let tokenizer = word_piece();
    let encoder = Encoder::new(&tokenizer, CLS, SEP, 8).unwrap();
    let one = encoder.text("a bc", None).unwrap();
    assert_eq!((written(&one.ids).as_str(), one.types, one.cut), ("[CLS] a b ##c [SEP]", vec![0; 5], 0));
    let pair = encoder.text("a bc", Some("d")).unwrap();
    assert_eq!(written(&pair.ids), "[CLS] a b ##c [SEP] d [SEP]");
    assert_eq!((pair.types, pair.cut), (vec![0, 0, 0, 0, 0, 1, 1], 0));
    // Alone: 6 fit.
    let long = encoder.text("a b c d e a b", None).unwrap();
    assert_eq!((written(&long.ids).as_str(), long.cut), ("[CLS] a b c d e a [SEP]", 1));
    // 5 fit of a pair. The longer one is cut first, and of equals the second.
    let cases =
        [("a b c d e", "a", "a b c d", "a", 1), ("a", "a b c d e", "a", "a b c d", 1), ("a b c d", "d c b a", "a b c", "d c", 3)];
    for (a, b, kept_a, kept_b, cut) in cases {
        let pair = encoder.text(a, Some(b)).unwrap();
        assert_eq!((written(&pair.ids), pair.cut), (format!("[CLS] {kept_a} [SEP] {kept_b} [SEP]"), cut));
        assert_eq!(pair.ids.len(), 8);
    }
    // What looks like a special token in a text is text.
    assert!(!encoder.text("[SEP]", None).unwrap().ids[1..].starts_with(&[SEP]));
    assert!(Encoder::new(&tokenizer, CLS, SEP, 4).is_err());
    assert!(Encoder::new(&tokenizer, CLS, 99, 8).is_err());
}

#[test]
fn words_have_their_label_on_the_first_piece() {
    let tokenizer = word_piece();
    let encoder = Encoder::new(&tokenizer, CLS, SEP, 7).unwrap();
    let words = |text: &str| TaskInput::Words(text.split(' ').map(str::to_owned).collect());
    let example = TaskExample { input: words("abc d ee"), target: Target::Tags(vec![4, 5, 6]) };
    let EncodedExample::Words { sequence, targets } = encoder.example(&example, 1).unwrap() else { panic!() };
    // The last piece of the last word does not fit.
    assert_eq!(written(&sequence.sequence.ids), "[CLS] a ##b ##c d e [SEP]");
    assert_eq!(sequence.sequence.cut, 1);
    assert_eq!(targets, [IGNORE, 4, IGNORE, IGNORE, 5, 6, IGNORE]);
    assert_eq!(sequence.words, [None, Some(0), None, None, Some(1), Some(2), None]);
}

#[test]
fn windows_show_all_of_a_context() {
    let tokenizer = word_piece();
    let context = "a b c d e a b c d e";
    // [CLS] e [SEP] and [SEP] leave room for 4 tokens.
    let encoder = Encoder::new(&tokenizer, CLS, SEP, 8).unwrap();
    let windows = encoder.question("e", context, 3).unwrap();
    let found: Vec<_> = windows.iter().map(|w| written(&w.sequence.ids)).collect();
    assert_eq!(found, ["[CLS] e [SEP] a b c d [SEP]", "[CLS] e [SEP] d e a b [SEP]", "[CLS] e [SEP] b c d e [SEP]"]);
    assert_eq!(windows[1].sequence.types, [0, 0, 0, 1, 1, 1, 1, 1]);
    // d, shown by the first two at their edges, counts for the first; so does b.
    let widest: Vec<_> = windows.iter().map(|w| w.widest.clone()).collect();
    assert_eq!(widest, [vec![true; 4], vec![false, true, true, true], vec![false, true, true, true]]);
    // d e a: only the second window has all of it.
    let answer = Answer { range: 6..11, text: "d e a".into() };
    let spans: Vec<_> = windows.iter().map(|w| w.span(Some(&answer))).collect();
    assert_eq!(spans, [(0, 0), (3, 5), (0, 0)]);
    assert_eq!(windows[0].span(None), (0, 0));
    // The very end of one window is the beginning of none.
    let answer = Answer { range: 18..19, text: "e".into() };
    assert_eq!(windows.iter().map(|w| w.span(Some(&answer))).collect::<Vec<_>>(), [(0, 0), (0, 0), (6, 6)]);

    // Whatever the stride, the windows have every token, each widest once.
    let long = ["a b", "c d e", "ab cde"].repeat(9).join(" ");
    let tokens = tokenizer.encode_with_offsets(&long).unwrap();
    for size in [5, 8, 13, 200] {
        for stride in [1, 3, 7, 128] {
            let encoder = Encoder::new(&tokenizer, CLS, SEP, size).unwrap();
            let windows = encoder.question("a b c", &long, stride).unwrap();
            let mut counted: Vec<_> = windows
                .iter()
                .flat_map(|w| w.ranges.iter().zip(&w.widest).filter(|(_, widest)| **widest).map(|(range, _)| range.clone()))
                .collect();
            counted.sort_by_key(|range| range.start);
            assert_eq!(counted, tokens.iter().map(|t| t.1.clone()).collect::<Vec<_>>(), "{size} tokens, stride {stride}");
            for (window, range) in windows.iter().flat_map(|w| w.ranges.iter().enumerate().map(move |r| (w, r))) {
                assert!(window.sequence.ids.len() <= size);
                let id = tokens.iter().find(|t| t.1 == *range.1).unwrap().0;
                assert_eq!(window.sequence.ids[window.at + range.0], id);
            }
        }
    }
    assert!(encoder.question("a", context, 0).is_err());
    assert_eq!(encoder.question("a", "\u{200d}", 1).unwrap().len(), 1, "a context without tokens");
}

#[test]
fn answers_by_characters_become_tokens_and_come_back() {
    let tokenizer = word_piece();
    let encoder = Encoder::new(&tokenizer, CLS, SEP, 32).unwrap();
    let context = "Élan was  born in abc in 1901.";
    // The last is a part of a word, answered by the token that has it.
    let cases = [("Élan", 0, "elan"), ("abc in 1901", 18, "a ##b ##c in 19 ##01"), ("1901", 25, "19 ##01"), ("b", 19, "##b")];
    for (answer, at, tokens) in cases {
        let flat = json!({"context": context, "question": "e", "answer_text": answer, "answer_start": at});
        let data = load("a.jsonl", &flat.to_string(), Task::QuestionAnswering);
        let encoded = encoder.task(&data, 16).unwrap();
        let [EncodedExample::Question { windows, spans }] = &encoded.examples[..] else { panic!() };
        let (first, last) = (spans[0].0 as usize, spans[0].1 as usize);
        assert_eq!(written(&windows[0].sequence.ids[first..=last]), tokens, "{answer}");

        // Logits that are highest there find the answer.
        let time = windows[0].sequence.ids.len();
        let peak = |place: usize| (0..time).map(|i| if i == place { 5.0 } else { i as f32 * 0.01 }).collect::<Vec<_>>();
        let (starts, ends) = (peak(first), peak(last));
        let prediction = best_answer(context, windows, &[(&starts, &ends)]).unwrap();
        assert_eq!((prediction.text.as_str(), prediction.score, prediction.null_score), (answer, 10.0, 0.0));
    }
}

#[test]
fn the_best_answer_of_several_windows() {
    let tokenizer = word_piece();
    let encoder = Encoder::new(&tokenizer, CLS, SEP, 8).unwrap();
    let context = "a b c d e a b c d e";
    let windows = encoder.question("e", context, 3).unwrap();
    let quiet = vec![0.0_f32; 8];
    let at = |place: usize, height: f32| {
        let mut logits = quiet.clone();
        logits[place] = height;
        logits
    };
    // The end before the start is no answer; nor does one begin where another window shows more: d in the second.
    let (a, b) = (at(6, 3.0), at(4, 3.0));
    let (c, d) = (at(3, 9.0), at(4, 1.0));
    let (e, f) = (at(4, 2.0), at(5, 2.5));
    let logits = [(&a[..], &b[..]), (&c[..], &d[..]), (&e[..], &f[..])];
    let prediction = best_answer(context, &windows, &logits).unwrap();
    assert_eq!((prediction.text.as_str(), prediction.range, prediction.score), ("c d", 14..17, 4.5));
    let nothing = [f32::NAN; 8];
    assert!(best_answer(context, &windows, &[(&nothing[..], &nothing[..]); 3]).is_none());
}

#[test]
fn whole_files_count_what_was_truncated() {
    let tokenizer = word_piece();
    let encoder = Encoder::new(&tokenizer, CLS, SEP, 6).unwrap();
    let data = load("a.tsv", "text\tlabel\na b c d\tx\na b c d e\ty\nabcdeabcde\ty\n", Task::Classify);
    let encoded = encoder.task(&data, 1).unwrap();
    assert_eq!((encoded.examples.len(), encoded.truncated), (3, 2));
    let labels: Vec<_> =
        encoded.examples.iter().map(|e| if let EncodedExample::Class { label, .. } = e { *label } else { 9 }).collect();
    assert_eq!(labels, [0, 1, 1]);
    let data = load("a.tsv", "prompt\tchoice0\tchoice1\tlabel\na\tb\tc\t1\na\tb c d\te\t0\n", Task::Choice);
    let encoded = encoder.task(&data, 1).unwrap();
    assert_eq!(encoded.truncated, 1);
    let EncodedExample::Choice { sequences, label: 1 } = &encoded.examples[0] else { panic!() };
    assert_eq!(sequences.iter().map(|s| written(&s.ids)).collect::<Vec<_>>(), ["[CLS] a [SEP] b [SEP]", "[CLS] a [SEP] c [SEP]"]);
    // Questions lose nothing of their context, but may lose their own end.
    let question =
        |text: &str| json!({"context": "a b c d e", "question": text, "answer_text": "a", "answer_start": 0}).to_string();
    let data = load("a.jsonl", &format!("{}\n{}", question("a"), question("a b c")), Task::QuestionAnswering);
    assert_eq!(encoder.task(&data, 1).unwrap().truncated, 1);
}
