//! Pre-training data: what the statistics of masking and pairing are, and that it is the seed's and the index's alone.

use shaderlm::{
    ops::{IGNORE, random::threefry},
    text::Tokenizer,
    train::{Documents, Example, Pairing, PretrainSettings, Pretraining},
};
use std::{
    collections::{HashMap, HashSet},
    fmt::Write as _,
    fs,
    path::PathBuf,
};
use tempfile::TempDir;

/// BERT's special tokens, which stand at the beginning of every vocabulary here: ids 0 to 4.
pub const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];
const CLS: u32 = 2;
const SEP: u32 = 3;
pub const MASK: u32 = 4;

pub const SEQUENCES: u64 = 100_000;

pub fn write(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    fs::write(&path, text).unwrap();
    path
}

/// A WordPiece tokenizer of these words, by the vocab.txt that it makes.
fn tokenizer(words: impl IntoIterator<Item = String>) -> Tokenizer {
    let folder = tempfile::tempdir().unwrap();
    let lines: Vec<String> = SPECIAL.iter().map(|&s| s.to_owned()).chain(words).collect();
    write(&folder, "vocab.txt", &(lines.join("\n") + "\n"));
    Tokenizer::from_folder(folder.path()).unwrap()
}

fn documents(text: &str, tokenizer: &Tokenizer) -> Documents {
    let folder = tempfile::tempdir().unwrap();
    Documents::read(&[write(&folder, "text.txt", text)], tokenizer, |_| ()).unwrap()
}

pub fn random(i: usize, n: usize) -> usize {
    threefry([77, 78], [i as u32, 0])[0] as usize % n
}

/// Documents of sentences of words of 2,000, a token each.
pub fn plain() -> (Tokenizer, String) {
    let mut text = String::new();
    let mut drawn = 0;
    let mut draw = |n: usize| {
        drawn += 1;
        random(drawn, n)
    };
    for _ in 0..200 {
        for _ in 0..3 + draw(40) {
            let words: Vec<String> = (0..4 + draw(20)).map(|_| format!("w{}", draw(2000))).collect();
            text += &(words.join(" ") + "\n");
        }
        text += "\n";
    }
    (tokenizer((0..2000).map(|i| format!("w{i}"))), text)
}

/// Each word occurs once in this text, so that its id is its place: (document, sentence).
pub fn unique() -> (Tokenizer, String, Vec<(usize, usize)>) {
    let (mut text, mut places) = (String::new(), Vec::new());
    for document in 0..60 {
        // Some documents have one sentence, some one word, and some sentences are longer than the context.
        let sentences = if document % 5 == 0 { 1 } else { 2 + random(document, 20) };
        for sentence in 0..sentences {
            let words = match (document, random(1000 + document * 50 + sentence, 12)) {
                (0 | 5, _) => 1,
                (_, 0) => 90,
                (_, n) => 1 + n,
            };
            for _ in 0..words {
                let _ = write!(text, "w{} ", places.len());
                places.push((document, sentence));
            }
            text += "\n";
        }
        text += "\n";
    }
    (tokenizer((0..places.len()).map(|i| format!("w{i}"))), text, places)
}

pub fn pretraining(source: &(Tokenizer, String), settings: PretrainSettings) -> Pretraining {
    Pretraining::new(documents(&source.1, &source.0), &source.0, settings).unwrap()
}

/// An example's ids before they were masked.
pub fn unmasked(example: &Example) -> Vec<u32> {
    let mut ids = example.ids.clone();
    for (&at, &label) in example.masked_positions.iter().zip(&example.masked_labels) {
        ids[at as usize] = label;
    }
    ids
}

/// The tokens of both segments, without special ones.
pub fn segments(example: &Example) -> [Vec<u32>; 2] {
    let ids = unmasked(example);
    let (&first, rest) = ids.split_first().unwrap();
    assert_eq!((first, rest.last()), (CLS, Some(&SEP)));
    let mut parts = rest[..rest.len() - 1].split(|&id| id == SEP).map(<[u32]>::to_vec);
    let found = [parts.next().unwrap(), parts.next().unwrap_or_default()];
    assert!(parts.next().is_none());
    let types = std::iter::repeat_n(0, found[0].len() + 2).chain(std::iter::repeat_n(1, ids.len() - found[0].len() - 2));
    assert!(types.eq(example.token_types.iter().copied()), "types follow segments");
    found
}

/// A count of independent events, each with its own probability, within 3 standard deviations.
#[derive(Default)]
pub struct Count {
    found: f64,
    expected: f64,
    variance: f64,
}

impl Count {
    pub fn add(&mut self, hit: bool, probability: f64) {
        self.found += f64::from(u8::from(hit));
        self.expected += probability;
        self.variance += probability * (1.0 - probability);
    }

    pub fn check(&self, what: &str) {
        let deviation = (self.found - self.expected) / self.variance.sqrt();
        assert!(deviation.abs() < 3.0, "{what}: {} instead of {:.1}, {deviation:.2} sigma", self.found, self.expected);
    }
}

/// Mask rate, 80/10/10, n-grams and the pair's balance over 100,000 sequences, for BERT's and ALBERT's settings.
/// Of the dozen counts one or another is beyond 3 sigma with one seed in thirty; the seed here is not such a one.
#[test]
fn statistics_of_masking() {
    let source = plain();
    let words = 2000.0;
    for pairing in [Pairing::NextSentence, Pairing::SentenceOrder] {
        let settings = PretrainSettings::of_paper(pairing, 64, 4);
        let data = pretraining(&source, settings);
        let [mut masked, mut kept, mut other, mut positive] = [(); 4].map(|()| Count::default());
        let mut ngrams = [(); 3].map(|()| Count::default());
        let mut which = HashMap::new();
        for index in 0..SEQUENCES {
            let example = data.example(index);
            let length = example.ids.len();
            // 15 % of the sequence, rounded as Python does.
            let due = (length as f64 * 0.15).round_ties_even().clamp(1.0, 20.0) as usize;
            let possible = length - 3;
            assert_eq!(example.masked_labels.len(), due.min(possible), "of {length}");
            for (&at, &label) in example.masked_positions.iter().zip(&example.masked_labels) {
                let id = example.ids[at as usize];
                masked.add(id == MASK, 0.8);
                // A random token may be the one that was there.
                kept.add(id == label, 0.1 + 0.1 / words);
                other.add(id != MASK && id != label, 0.1 - 0.1 / words);
                if id != MASK && id != label {
                    *which.entry(id).or_insert(0u32) += 1;
                }
            }
            positive.add(example.pair_label == Some(1), 0.5);
            let spans = data.spans(index);
            let mut places: Vec<u32> = spans.iter().cloned().flatten().map(|at| at as u32).collect();
            places.sort_unstable();
            assert_eq!(places, example.masked_positions, "the n-grams are what is masked");
            if due < 3 {
                continue;
            }
            // The first n-gram begins at any token, and is not longer than what is left of the segment.
            let runs = segments(&example).map(|s| s.len());
            let total = (runs[0] + runs[1]) as f64;
            let most = settings.ngrams;
            for (n, count) in (1..=3).zip(&mut ngrams) {
                let lefts = runs.iter().flat_map(|&run| 1..=run).map(|left| left.min(most));
                let chance = |left: usize| {
                    let norm: f64 = (1..=left).map(|k| 1.0 / k as f64).sum();
                    if n <= left { 1.0 / n as f64 / norm } else { 0.0 }
                };
                count.add(spans[0].len() == n, lefts.map(chance).sum::<f64>() / total);
            }
        }
        masked.check("masked");
        kept.check("kept");
        other.check("random");
        positive.check("second of another document, or swapped");
        if settings.ngrams == 1 {
            assert_eq!([ngrams[1].found, ngrams[2].found], [0.0; 2]);
        } else {
            ngrams.iter().for_each(|count| count.check("n-grams"));
        }
        // Random tokens are uniform over all but the special ones: chi square over 2,000 cells, 3 sigma.
        let expected = other.found / words;
        let cells = (5..2005).map(|id| f64::from(which.remove(&id).unwrap_or(0)));
        let chi: f64 = cells.map(|n| (n - expected).powi(2) / expected).sum();
        assert!(which.is_empty(), "no special token stands in for a word: {which:?}");
        assert!((chi - (words - 1.0)).abs() < 3.0 * (2.0 * (words - 1.0)).sqrt(), "chi square {chi}");
    }
}

/// With sentences of one token, an example is exactly as long as its target.
#[test]
fn statistics_of_short_sequences() {
    let names: Vec<String> = (0..50).map(|i| format!("w{i}")).collect();
    let count = 40_000;
    let text: String = (0..count).map(|i| if i == count - 1 { "last\n".into() } else { format!("w{}\n", i % 50) }).collect();
    let source = (tokenizer(names.into_iter().chain(["last".into()])), text);
    let data = pretraining(&source, PretrainSettings::of_paper(Pairing::SentenceOrder, 64, 9));
    let (mut short, mut lengths) = (Count::default(), Vec::new());
    let last = source.0.encode("last", false).unwrap()[0];
    for index in 0..SEQUENCES {
        let example = data.example(index);
        // What is left at the end of the document is as long as it is.
        if unmasked(&example).contains(&last) {
            continue;
        }
        let text = example.ids.len() - 3;
        // A tenth, of which one in 60 happens to be as long as possible.
        short.add(text < 61, 0.1 * 59.0 / 60.0);
        if text < 61 {
            lengths.push(text as f64);
        }
    }
    short.check("short sequences");
    // Uniform from 2 to 60.
    let n = lengths.len() as f64;
    let mean = lengths.iter().sum::<f64>() / n;
    let sigma = ((59.0f64.powi(2) - 1.0) / 12.0 / n).sqrt();
    assert!((mean - 31.0).abs() < 3.0 * sigma, "mean {mean}, sigma {sigma}");
    assert_eq!(lengths.iter().copied().fold(f64::MAX, f64::min), 2.0);
}

/// Every pair is what its label says, and can be put together again.
#[test]
fn pairs_are_what_their_labels_say() {
    let (tokenizer, text, places) = unique();
    let source = (tokenizer, text);
    let place = |id: u32| places[id as usize - SPECIAL.len()];
    let first_of_sentence = |id: u32| id as usize == SPECIAL.len() || place(id) != place(id - 1);
    let last_of_sentence = |id: u32| id as usize + 1 == places.len() + SPECIAL.len() || place(id) != place(id + 1);
    for pairing in [Pairing::NextSentence, Pairing::SentenceOrder] {
        let context = 48;
        let data = pretraining(&source, PretrainSettings::of_paper(pairing, context, 5));
        let mut positive = Count::default();
        let (mut whole, mut within) = (0, 0);
        for index in 0..SEQUENCES / 4 {
            let example = data.example(index);
            let pair = segments(&example);
            assert!(example.ids.len() <= context && pair.iter().all(|s| !s.is_empty()));
            for segment in &pair {
                assert!(segment.windows(2).all(|w| w[0] + 1 == w[1]), "a segment is one piece of text");
                assert_eq!(place(segment[0]).0, place(segment[segment.len() - 1]).0, "of one document");
            }
            let label = example.pair_label.unwrap();
            positive.add(label == 1, 0.5);
            let (mut a, mut b) = (&pair[0], &pair[1]);
            if pairing == Pairing::NextSentence && label == 1 {
                assert_ne!(place(a[0]).0, place(b[0]).0, "a random segment is from another document");
                continue;
            }
            if label == 1 {
                (a, b) = (b, a);
            }
            assert_eq!(place(a[0]).0, place(b[0]).0, "never from another document");
            let (end, begin) = (a[a.len() - 1], b[0]);
            assert!(end < begin, "in order");
            if example.ids.len() < context {
                // Nothing was cut off.
                whole += 1;
                assert_eq!(end + 1, begin, "the second segment follows the first");
                assert!(first_of_sentence(a[0]) && last_of_sentence(b[b.len() - 1]));
                if !first_of_sentence(begin) {
                    within += 1;
                    assert_eq!(place(a[0]), place(b[b.len() - 1]), "only a single sentence is divided within");
                }
            }
        }
        positive.check("labels");
        assert!(whole > 1000 && within > 100, "{whole} whole pairs, {within} within a sentence");
    }
    // Sentence order and text without pairs need no second document; documents of one word have no pair.
    let settings = PretrainSettings::of_paper(Pairing::SentenceOrder, 48, 5);
    let data = pretraining(&source, settings);
    let seen: HashSet<usize> = (0..data.epoch_length()).map(|i| place(segments(&data.example(i))[0][0]).0).collect();
    assert!(!seen.contains(&0) && !seen.contains(&5) && seen.len() == 58, "{}", seen.len());
}

#[test]
fn without_pairs_every_token_comes_once_an_epoch() {
    let (tokenizer, text, places) = unique();
    let source = (tokenizer, text);
    let data = pretraining(&source, PretrainSettings::of_paper(Pairing::Single, 40, 1));
    let mut tokens = Vec::new();
    for index in 0..data.epoch_length() {
        let example = data.example(index);
        assert!(example.pair_label.is_none() && example.token_types.iter().all(|&t| t == 0));
        tokens.extend(segments(&example)[0].clone());
    }
    tokens.sort_unstable();
    assert!(tokens.into_iter().eq(5..places.len() as u32 + 5));
}

#[test]
fn the_stream_is_the_seeds_and_resumes_anywhere() {
    let source = plain();
    for pairing in [Pairing::Single, Pairing::NextSentence, Pairing::SentenceOrder] {
        let settings = PretrainSettings::of_paper(pairing, 64, 11);
        let data = pretraining(&source, settings);
        let epoch = data.epoch_length();
        let rows = 16;
        let all: Vec<_> = (0..3 * epoch / rows).map(|step| data.batch(step * rows, rows as usize)).collect();
        let again = pretraining(&source, settings);
        assert!(all.iter().enumerate().all(|(step, batch)| *batch == again.batch(step as u64 * rows, rows as usize)));
        let other = pretraining(&source, PretrainSettings { seed: 12, ..settings });
        assert_ne!(all[0].ids, other.batch(0, rows as usize).ids);
        // From the middle of the third epoch, and then back.
        let resumed = pretraining(&source, settings);
        for step in [all.len() - 20, all.len() - 1, 3, epoch as usize / 16] {
            assert_eq!(all[step], resumed.batch(step as u64 * rows, rows as usize), "step {step}");
        }
        // Epochs are other examples in another order.
        let texts = |first: u64| (first..first + 50).map(|i| data.example(i).ids).collect::<Vec<_>>();
        assert_ne!(texts(0), texts(epoch));
        let row = data.example(rows + 3);
        let (batch, context, most) = (&all[1], settings.context, settings.max_predictions);
        let length = row.ids.len();
        assert_eq!(batch.ids[3 * context..3 * context + length], row.ids);
        assert_eq!(batch.token_types[3 * context..3 * context + length], row.token_types);
        for at in 0..context {
            let there = at < length;
            assert_eq!(batch.attention_mask[3 * context + at], u32::from(there));
            assert!(there || (batch.ids[3 * context + at], batch.token_types[3 * context + at]) == (0, 0));
        }
        for slot in 0..most {
            let (at, label) = (batch.masked_positions[3 * most + slot], batch.masked_labels[3 * most + slot]);
            match row.masked_positions.get(slot) {
                Some(position) => assert_eq!((at, label), (3 * context as u32 + position, row.masked_labels[slot])),
                None => assert_eq!((at, label), (0, IGNORE)),
            }
        }
        assert_eq!(batch.pair_labels[3], row.pair_label.unwrap_or(IGNORE));
    }
}

#[test]
fn special_tokens_are_never_masked_and_words_stay_whole() {
    // Words of one to three pieces, words that are unknown, and text that looks like special tokens.
    let (beginnings, ends) = ((0..40).map(|i| format!("a{i}")), (0..40).map(|i| format!("##b{i}")));
    let pieces = beginnings.chain(ends).chain(["[", "]", "mask", "sep"].map(String::from));
    let mut text = String::new();
    for i in 0..6000 {
        text += &match random(i, 8) {
            0 => "[MASK] [SEP] ".to_owned(),
            1 => "unknown ".to_owned(),
            2..=4 => format!("a{} ", i % 40),
            5 | 6 => format!("a{}b{} ", i % 40, i % 39),
            _ => format!("a{}b{}b{} ", i % 40, i % 39, i % 38),
        };
        text += if random(i, 13) == 0 { "\n" } else { "" };
    }
    let source = (tokenizer(pieces), text);
    for whole_words in [false, true] {
        let settings = PretrainSettings { whole_words, ..PretrainSettings::of_paper(Pairing::SentenceOrder, 64, 2) };
        let data = pretraining(&source, settings);
        let (mut unknown, mut broken) = (0, 0);
        for index in 0..data.epoch_length() {
            let example = data.example(index);
            let ids = unmasked(&example);
            assert!(!ids.contains(&MASK), "text is text");
            unknown += ids.iter().filter(|&&id| id == 1).count();
            assert!(example.masked_labels.iter().all(|&label| label >= 5));
            for (&at, &label) in example.masked_positions.iter().zip(&example.masked_labels) {
                let id = example.ids[at as usize];
                assert!(id == MASK || id >= 5, "{label} became {id}");
            }
            let continues = |at: usize| ids[at] >= 5 && !source.0.begins_word(ids[at]) && ids[at - 1] >= 5;
            for span in data.spans(index) {
                let broken_here = continues(span.start) || (span.end < ids.len() && continues(span.end));
                broken += usize::from(broken_here);
                assert!(ids[span.clone()].iter().all(|&id| id >= 5), "no n-gram reaches over a special token");
                let words = span.clone().filter(|&at| at == span.start || !continues(at)).count();
                assert!(words <= 3 && (whole_words || span.len() <= 3));
            }
        }
        assert!(unknown > 100);
        // A segment that begins amid a word is the one exception.
        assert_eq!(broken == 0, whole_words, "{broken} words broken");
    }
}

#[test]
fn documents_are_read_split_and_told_apart() {
    let folder = tempfile::tempdir().unwrap();
    let words = tokenizer(["one", "two", "three", "four", "five", "six"].map(String::from));
    let first = write(&folder, "1.txt", "\n\n  one two\r\nthree\r\n\r\n \t\nfour\n\u{200b}\nfive");
    let second = write(&folder, "2.txt", "six one\n\n\n");
    let read = |files: &[&PathBuf]| {
        let seen = std::cell::Cell::new(0);
        let files: Vec<PathBuf> = files.iter().map(|&f| f.clone()).collect();
        let documents = Documents::read(&files, &words, |bytes| seen.set(seen.get() + bytes)).unwrap();
        (documents, seen.get())
    };
    let (all, bytes) = read(&[&first, &second]);
    assert_eq!(bytes, fs::metadata(&first).unwrap().len() + fs::metadata(&second).unwrap().len());
    assert_eq!(all.tokens(), [5, 6, 7, 8, 9, 10, 5]);
    let shape = |d: &Documents| -> Vec<Vec<Vec<u32>>> {
        (0..d.len()).map(|i| d.document(i).map(|s| d.tokens()[d.sentence(s)].to_vec()).collect()).collect()
    };
    assert_eq!(shape(&all), [vec![vec![5, 6], vec![7]], vec![vec![8], vec![9]], vec![vec![10, 5]]]);
    // The same tokens, divided otherwise, are another text.
    let fingerprints: HashSet<u64> = ["one two\nthree", "one two\n\nthree", "one\ntwo three", "one two three", "one two\nfour"]
        .into_iter()
        .map(|text| documents(text, &words).fingerprint())
        .collect();
    assert_eq!(fingerprints.len(), 5);
    assert_eq!(all.fingerprint(), read(&[&first, &second]).0.fingerprint());

    let (train, held_out) = all.split(0.1);
    assert_eq!((shape(&train).len(), shape(&held_out)), (2, vec![vec![vec![10, 5]]]));
    let (_, most) = read(&[&first, &second]).0.split(0.99);
    assert_eq!(most.len(), 2, "one stays");
    let (all, nothing) = read(&[&first]).0.split(0.0);
    assert_eq!((all.len(), nothing.is_empty()), (2, true));
    let (one, rest) = documents("one\ntwo\nthree\nfour", &words).split(0.5);
    assert_eq!((shape(&one), shape(&rest)), (vec![vec![vec![5], vec![6]]], vec![vec![vec![7], vec![8]]]));
    let (one, rest) = documents("one two three", &words).split(0.5);
    assert_eq!((one.len(), rest.len()), (1, 0), "a sentence is not divided");
    let many = documents(&"one\n\n".repeat(50), &words).split(0.01);
    assert_eq!((many.0.len(), many.1.len()), (48, 2), "next-sentence prediction needs two");
}

#[test]
fn settings_out_of_range_are_named() {
    let (words, text) = plain();
    let good = PretrainSettings::of_paper(Pairing::SentenceOrder, 64, 1);
    for (settings, flag) in [
        (PretrainSettings { context: 4, ..good }, "--context"),
        (PretrainSettings { context: 1 << 20, ..good }, "--context"),
        (PretrainSettings { max_predictions: 0, ..good }, "--max-predictions"),
        (PretrainSettings { ngrams: 0, ..good }, "--ngrams"),
        (PretrainSettings { mask_probability: 0.0, ..good }, "--mask-probability"),
        (PretrainSettings { mask_probability: f32::NAN, ..good }, "--mask-probability"),
        (PretrainSettings { short_probability: 1.5, ..good }, "--short-probability"),
    ] {
        let error = Pretraining::new(documents(&text, &words), &words, settings).err().unwrap().to_string();
        assert!(error.contains(flag), "{error}");
    }
    // The shortest context, and predictions that the context cannot hold.
    for pairing in [Pairing::Single, Pairing::NextSentence, Pairing::SentenceOrder] {
        let data = pretraining(&(words.clone(), text.clone()), PretrainSettings { context: 5, pairing, ..good });
        assert!((0..1000).all(|i| data.example(i).ids.len() <= 5 && !data.example(i).masked_labels.is_empty()));
    }
}
