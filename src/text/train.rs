//! Vocabularies from text, through the tokenizers crate: GPT-2's byte-level BPE, BERT's WordPiece, ALBERT's Unigram.

use super::{END_OF_TEXT, TextError, tokenizer::cut, unigram, wordpiece};
use crate::checkpoint::write_atomic;
use indicatif::{ProgressBar, ProgressStyle};
use rayon::iter::{ParallelBridge, ParallelIterator};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use tokenizers::{
    AddedToken, ModelWrapper, Tokenizer as Inner, Trainer,
    decoders::DecoderWrapper,
    models::{
        TrainerWrapper,
        bpe::{BPE, BpeTrainer},
        unigram::{Unigram, UnigramTrainer},
        wordpiece::WordPieceTrainer,
    },
    pre_tokenizers::{PreTokenizerWrapper, byte_level::ByteLevel},
};

/// The trainer reserves memory for the whole vocabulary at once.
const MOST: usize = 1 << 20;

/// Fewer tokens than this leave no room for words beside the special tokens and the letters.
const FEWEST_WORDS: usize = 100;

/// Rarer characters than so many become unknown, as in Hugging Face's BertWordPieceTokenizer.
const ALPHABET: usize = 1000;

/// Learns a vocabulary of at most `vocab` tokens (the 256 bytes, [`END_OF_TEXT`], and merges) from `data`, writes it to
/// `out` as a `tokenizer.json`, and returns how many tokens it has. A short text has fewer merges to learn.
///
/// # Errors
/// `vocab` is out of range, a file cannot be read, is empty or not UTF-8, or `out` cannot be written.
pub fn train_bpe(data: &[PathBuf], vocab: usize, out: &Path) -> Result<usize, TextError> {
    if !(257..=MOST).contains(&vocab) {
        return Err(TextError::Setting {
            flag: "--vocab",
            reason: format!("{vocab} is not from 257, which the 256 bytes and {END_OF_TEXT} take, to {MOST}"),
        });
    }
    let texts = read_all(data)?;
    let mut inner = Inner::new(BPE::default());
    let level = ByteLevel::new(false, true, true);
    inner.with_pre_tokenizer(Some(PreTokenizerWrapper::from(level)));
    inner.with_decoder(Some(DecoderWrapper::from(level)));
    let mut trainer: TrainerWrapper = BpeTrainer::builder()
        .vocab_size(vocab)
        .min_frequency(2)
        // The crate's own bar writes to standard output.
        .show_progress(false)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .build()
        .into();
    let bar = progress(&texts, "learning merges");
    // What separates documents is a token of its own, and nothing is learnt across it.
    let documents = texts.iter().flat_map(|text| text.split(END_OF_TEXT));
    let parts = documents.flat_map(cut).inspect(|part| bar.inc(part.len() as u64));
    let trained = inner.train(&mut trainer, parts);
    bar.finish_and_clear();
    trained.map_err(|e| TextError::damaged(out.display(), e))?;
    write(&inner, out)
}

/// Learns a WordPiece vocabulary as BERT has it: `[PAD] [UNK] [CLS] [SEP] [MASK]` (ids 0 to 4), characters, and pieces of
/// words, at most `vocab` in all. Text is lower-cased and loses its accents unless `cased`. The rest as [`train_bpe`].
///
/// # Errors
/// As [`train_bpe`].
pub fn train_wordpiece(data: &[PathBuf], vocab: usize, cased: bool, out: &Path) -> Result<usize, TextError> {
    check_size(vocab)?;
    let texts = read_all(data)?;
    let fail = |e: tokenizers::Error| TextError::damaged(out.display(), e);
    let mut inner: Inner = from_json(&wordpiece::untrained(!cased), out)?;
    let words = count_words(&mut inner, &texts, "counting words").map_err(fail)?;
    // A character is a token at the beginning of a word, and another within it.
    let alphabet = alphabet(&words, (vocab - wordpiece::SPECIAL.len()) / 2);
    let within: BTreeSet<char> = words.keys().flat_map(|word| word.chars().skip(1)).filter(|c| alphabet.contains(c)).collect();
    // Given like special tokens they get their ids first, and in this order; else a hash map's order would decide.
    let first = wordpiece::SPECIAL.map(str::to_owned).into_iter().chain(within.iter().map(|c| format!("##{c}")));
    let mut trainer = Pieces(
        WordPieceTrainer::builder()
            .vocab_size(vocab)
            .min_frequency(2)
            .show_progress(false)
            .limit_alphabet(alphabet.len())
            .special_tokens(first.map(|token| AddedToken::from(token, true)).collect())
            .build(),
    );
    let bar = progress(&texts, "learning pieces");
    let lines = lines(&texts).inspect(|line| bar.inc(line.len() as u64 + 1));
    let trained = inner.train(&mut trainer, lines);
    bar.finish_and_clear();
    trained.map_err(fail)?;
    write(&inner, out)
}

/// Learns a Unigram vocabulary as ALBERT has it (Kudo 2018): `<pad> <unk> [CLS] [SEP] [MASK]` (ids 0 to 4), then pieces by
/// descending probability, at most `vocab` in all. Text is lower-cased and loses its accents unless `cased`. The rest as
/// [`train_bpe`].
///
/// # Errors
/// As [`train_bpe`].
pub fn train_unigram(data: &[PathBuf], vocab: usize, cased: bool, out: &Path) -> Result<usize, TextError> {
    check_size(vocab)?;
    let texts = read_all(data)?;
    let fail = |e: tokenizers::Error| TextError::damaged(out.display(), e);
    let mut inner: Inner = from_json(&unigram::untrained(cased), out)?;
    let words = count_words(&mut inner, &texts, "counting words").map_err(fail)?;
    let special = unigram::SPECIAL.map(|token| AddedToken::from(token, true).lstrip(token == "[MASK]"));
    let trainer = UnigramTrainer::builder()
        .vocab_size(vocab as u32)
        .show_progress(false)
        .special_tokens(special.to_vec())
        .unk_token(Some(unigram::SPECIAL[1].to_owned()))
        .build()
        .map_err(|e| TextError::damaged(out.display(), e))?;
    // Every character that is left becomes a piece, so the rare ones go first, with the words that they are in.
    let alphabet = alphabet(&words, vocab - unigram::SPECIAL.len() - 1);
    let words: Vec<_> = words.into_iter().filter(|(word, _)| word.chars().all(|c| alphabet.contains(&c))).collect();
    if words.is_empty() {
        return Err(TextError::damaged(out.display(), "there is no word in the text to learn from"));
    }
    let spinner = progress(&[], "learning pieces");
    let mut model = Unigram::default();
    // One thread, so that sums are taken in one order and the same text always gives the same pieces.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().map_err(|e| TextError::damaged("thread pool", e))?;
    let trained = pool.install(|| trainer.do_train(words, &mut model));
    spinner.finish_and_clear();
    trained.map_err(fail)?;
    inner.with_model(Unigram::from(in_order(&model), Some(1), false).map_err(fail)?);
    inner.add_special_tokens(special).map_err(fail)?;
    write(&inner, out)
}

/// The pieces in an order, and with scores, that do not depend on the crate's hash maps. Characters that were learnt only
/// as parts of longer pieces get the lowest score, each a little more than the one before, by the order of a hash set: here
/// by code point.
fn in_order(model: &Unigram) -> Vec<(String, f64)> {
    const STEP: f64 = 0.0001;
    let special: Vec<_> = unigram::SPECIAL.iter().map(|&token| (token.to_owned(), 0.0)).collect();
    let mut pieces: Vec<(String, f64)> = model.iter().skip(special.len()).cloned().collect();
    // A piece of text that looks like a special token would have two ids.
    pieces.retain(|(piece, _)| !unigram::SPECIAL.contains(&piece.as_str()));
    pieces.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let lowest = pieces.last().map_or(0.0, |piece| piece.1);
    let single = |piece: &str| piece.chars().nth(1).is_none();
    let mut late: Vec<usize> = Vec::new();
    for at in (0..pieces.len()).rev().filter(|&at| single(&pieces[at].0)) {
        if (pieces[at].1 - lowest - late.len() as f64 * STEP).abs() > STEP / 100.0 {
            break;
        }
        late.push(at);
    }
    let mut characters: Vec<String> = late.iter().map(|&at| pieces[at].0.clone()).collect();
    characters.sort_unstable();
    for (at, character) in late.into_iter().zip(characters) {
        pieces[at].0 = character;
    }
    special.into_iter().chain(pieces).collect()
}

fn check_size(vocab: usize) -> Result<(), TextError> {
    if (FEWEST_WORDS..=MOST).contains(&vocab) {
        return Ok(());
    }
    Err(TextError::Setting { flag: "--vocab", reason: format!("{vocab} is not from {FEWEST_WORDS} to {MOST}") })
}

/// The crate's trainer, of whose special tokens only BERT's are special.
struct Pieces(WordPieceTrainer);

impl Trainer for Pieces {
    type Model = ModelWrapper;

    fn should_show_progress(&self) -> bool {
        false
    }

    fn train(&self, model: &mut ModelWrapper) -> tokenizers::Result<Vec<AddedToken>> {
        let ModelWrapper::WordPiece(model) = model else { return Err("it is no WordPiece model".into()) };
        let mut special = self.0.train(model)?;
        special.truncate(wordpiece::SPECIAL.len());
        Ok(special)
    }

    fn feed<I, S, F>(&mut self, iterator: I, process: F) -> tokenizers::Result<()>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
        F: Fn(&str) -> tokenizers::Result<Vec<String>> + Sync,
    {
        self.0.feed(iterator, process)
    }
}

/// Collects the words of a text, with how often they occur, in alphabetical order.
struct Words(BTreeMap<String, u32>);

impl Trainer for Words {
    type Model = ModelWrapper;

    fn should_show_progress(&self) -> bool {
        false
    }

    fn train(&self, _: &mut ModelWrapper) -> tokenizers::Result<Vec<AddedToken>> {
        Ok(Vec::new())
    }

    fn feed<I, S, F>(&mut self, iterator: I, process: F) -> tokenizers::Result<()>
    where
        I: Iterator<Item = S> + Send,
        S: AsRef<str> + Send,
        F: Fn(&str) -> tokenizers::Result<Vec<String>> + Sync,
    {
        let add = |mut counts: HashMap<String, u32>, word: String, n: u32| {
            let count = counts.entry(word).or_default();
            *count = count.saturating_add(n);
            counts
        };
        let counts: tokenizers::Result<HashMap<String, u32>> = iterator
            .par_bridge()
            .map(|text| process(text.as_ref()))
            .try_fold(HashMap::new, |counts, words: tokenizers::Result<Vec<String>>| {
                Ok(words?.into_iter().fold(counts, |c, word| add(c, word, 1)))
            })
            .try_reduce(HashMap::new, |a, b| {
                let (few, many) = if a.len() < b.len() { (a, b) } else { (b, a) };
                Ok(few.into_iter().fold(many, |c, (word, n)| add(c, word, n)))
            });
        self.0 = counts?.into_iter().collect();
        Ok(())
    }
}

fn count_words(inner: &mut Inner, texts: &[String], message: &'static str) -> tokenizers::Result<BTreeMap<String, u32>> {
    let bar = progress(texts, message);
    let mut words = Words(BTreeMap::new());
    let lines = lines(texts).inspect(|line| bar.inc(line.len() as u64 + 1));
    let counted = inner.train(&mut words, lines).map(|_| ());
    bar.finish_and_clear();
    counted.map(|()| words.0)
}

/// The commonest characters, [`ALPHABET`] or `most` of them at most. Equally common ones are in it or out of it together,
/// so that the choice is the text's alone.
fn alphabet(words: &BTreeMap<String, u32>, most: usize) -> HashSet<char> {
    let mut counts: BTreeMap<char, u64> = BTreeMap::new();
    for (word, n) in words {
        for c in word.chars() {
            *counts.entry(c).or_default() += u64::from(*n);
        }
    }
    let mut ranked: Vec<_> = counts.into_iter().collect();
    ranked.sort_by_key(|&(_, n)| std::cmp::Reverse(n));
    let mut kept = ranked.len().min(ALPHABET).min(most);
    while kept > 0 && kept < ranked.len() && ranked[kept - 1].1 == ranked[kept].1 {
        kept -= 1;
    }
    ranked.into_iter().take(kept).map(|(c, _)| c).collect()
}

fn lines(texts: &[String]) -> impl Iterator<Item = &str> {
    texts.iter().flat_map(|text| text.lines())
}

fn from_json(value: &serde_json::Value, out: &Path) -> Result<Inner, TextError> {
    Inner::from_bytes(value.to_string()).map_err(|e| TextError::damaged(out.display(), e))
}

/// Writes a `tokenizer.json`, and says how many tokens it has.
fn write(inner: &Inner, out: &Path) -> Result<usize, TextError> {
    let json = inner.to_string(true).map_err(|e| TextError::damaged(out.display(), e))?;
    write_atomic(out, |file| file.write_all(json.as_bytes())).map_err(Box::new)?;
    Ok(inner.get_vocab_size(true))
}

/// A bar of the bytes read, which ticks on while the vocabulary is learnt; silent where standard error is no terminal.
fn progress(texts: &[String], message: &'static str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(texts.iter().map(|text| text.len() as u64).sum());
    if let Ok(style) = ProgressStyle::with_template("{spinner} {msg}  {bar:24} {bytes}/{total_bytes}  {elapsed}") {
        bar.set_style(style);
    }
    bar.set_message(message);
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn read_all(data: &[PathBuf]) -> Result<Vec<String>, TextError> {
    data.iter().map(|path| read(path)).collect()
}

fn read(path: &Path) -> Result<String, TextError> {
    let bytes = fs::read(path).map_err(|source| TextError::Io { path: path.to_owned(), source })?;
    let wrong = |reason: String| TextError::Data { path: path.to_owned(), reason };
    if bytes.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    String::from_utf8(bytes).map_err(|e| wrong(format!("it is not UTF-8: a bad byte at {}", e.utf8_error().valid_up_to())))
}
