//! A byte-level BPE vocabulary from text, through the tokenizers crate.

use super::{END_OF_TEXT, TextError, tokenizer::cut};
use crate::checkpoint::write_atomic;
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs,
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};
use tokenizers::{
    AddedToken, Tokenizer as Inner,
    decoders::DecoderWrapper,
    models::{TrainerWrapper, bpe::{BPE, BpeTrainer}},
    pre_tokenizers::{PreTokenizerWrapper, byte_level::ByteLevel},
};

/// The trainer reserves memory for the whole vocabulary at once.
const MOST: usize = 1 << 20;

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
    let texts = data.iter().map(|path| read(path)).collect::<Result<Vec<_>, _>>()?;
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
    let fail = |e: tokenizers::Error| TextError::damaged(out.display(), e);
    let bar = progress(texts.iter().map(|text| text.len() as u64).sum());
    // What separates documents is a token of its own, and nothing is learnt across it.
    let documents = texts.iter().flat_map(|text| text.split(END_OF_TEXT));
    let parts = documents.flat_map(cut).inspect(|part| bar.inc(part.len() as u64));
    let trained = inner.train(&mut trainer, parts);
    bar.finish_and_clear();
    trained.map_err(fail)?;
    let json = inner.to_string(true).map_err(fail)?;
    write_atomic(out, |file| file.write_all(json.as_bytes())).map_err(Box::new)?;
    Ok(inner.get_vocab_size(true))
}

/// A bar of the bytes read, which ticks on while merges are learnt; silent where standard error is no terminal.
fn progress(bytes: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(bytes);
    if let Ok(style) = ProgressStyle::with_template("{spinner} learning merges  {bar:24} {bytes}/{total_bytes}  {elapsed}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

fn read(path: &Path) -> Result<String, TextError> {
    let bytes = fs::read(path).map_err(|source| TextError::Io { path: path.to_owned(), source })?;
    let wrong = |reason: String| TextError::Data { path: path.to_owned(), reason };
    if bytes.is_empty() {
        return Err(wrong("it is empty".into()));
    }
    String::from_utf8(bytes)
        .map_err(|e| wrong(format!("it is not UTF-8: a bad byte at {}", e.utf8_error().valid_up_to())))
}
