//! Tokenizers: Hugging Face's, and three that need no file.

use super::{END_OF_TEXT, SpecialTokens, TextError, check::check_json, gpt2, special::Marks, wordpiece};
use std::{collections::BTreeSet, fs, ops::Range, path::Path};
use tokenizers::Tokenizer as Inner;

/// Texts beyond this many bytes are cut and encoded in parallel.
const LONG: usize = 1 << 16;

/// A tokenizer.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    /// Takes special tokens in a text as text.
    inner: Inner,
    vocab_size: usize,
    end_of_text: Option<u32>,
    /// Whether a text may be cut at the end of a line without changing its tokens.
    divisible: bool,
    /// Whether every text can be written: a byte-level alphabet.
    complete: bool,
    marks: Marks,
    /// By id: whether the token begins a word.
    begins: Vec<bool>,
}

impl Tokenizer {
    /// From `tokenizer.json` in `folder`, or its `vocab.json` and `merges.txt` (GPT-2), or its `vocab.txt` (BERT).
    ///
    /// # Errors
    /// There is none of them, or a file is damaged. For a SentencePiece model alone the error tells how to convert it.
    pub fn from_folder(folder: &Path) -> Result<Self, TextError> {
        let json = folder.join("tokenizer.json");
        if json.exists() {
            return Self::from_file(&json);
        }
        let (vocabulary, merges) = (folder.join("vocab.json"), folder.join("merges.txt"));
        if vocabulary.exists() && merges.exists() {
            return Self::from_merges(&vocabulary, &merges);
        }
        let words = folder.join("vocab.txt");
        if words.exists() {
            return Self::from_words(&words, &folder.join("tokenizer_config.json"));
        }
        let reason = if folder.join("spiece.model").exists() {
            format!(
                "its only tokenizer is spiece.model, which must be converted to tokenizer.json first: \
                 pip install transformers sentencepiece protobuf && python -c \"from transformers import AutoTokenizer as A; \
                 A.from_pretrained('{0}').save_pretrained('{0}')\"",
                folder.display()
            )
        } else {
            "there is no tokenizer in it: neither tokenizer.json nor vocab.json with merges.txt nor vocab.txt".to_owned()
        };
        Err(TextError::damaged(folder.display(), reason))
    }

    /// GPT-2's kind of tokenizer from its tokens, in the order of their numbers, and its merges. `place` is its name in errors.
    ///
    /// # Errors
    /// A token is there twice, or a merge is not of tokens.
    pub fn from_tokens(tokens: &[String], merges: &[String], place: &str) -> Result<Self, TextError> {
        let map: serde_json::Map<_, _> = tokens.iter().enumerate().map(|(id, token)| (token.clone(), id.into())).collect();
        if map.len() != tokens.len() {
            return Err(TextError::damaged(place, "a token of its tokenizer is there twice"));
        }
        Self::from_json(&gpt2::from_files(map, &merges.join("\n")), place)
    }

    fn from_merges(vocabulary: &Path, merges: &Path) -> Result<Self, TextError> {
        let map = serde_json::from_str(&read(vocabulary)?).map_err(|e| TextError::damaged(vocabulary.display(), e))?;
        Self::from_json(&gpt2::from_files(map, &read(merges)?), merges.display())
    }

    /// BERT's `vocab.txt`, with what `tokenizer_config.json` says if it is there.
    fn from_words(vocabulary: &Path, config: &Path) -> Result<Self, TextError> {
        let settings = if config.exists() {
            serde_json::from_str(&read(config)?)
                .map_err(|e| TextError::damaged(config.display(), format!("it is not JSON: {e}")))?
        } else {
            serde_json::Value::Null
        };
        let json = wordpiece::from_vocab(&read(vocabulary)?, &settings)
            .map_err(|reason| TextError::damaged(vocabulary.display(), reason))?;
        Self::from_json(&json, vocabulary.display())
    }

    /// From a `tokenizer.json`.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub fn from_file(path: &Path) -> Result<Self, TextError> {
        Self::parse(read(path)?.as_bytes(), path.display())
    }

    /// From the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// They are damaged.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TextError> {
        Self::parse(bytes, "tokenizer.json")
    }

    /// One token a byte, and the end of text: 257 tokens that can write any text.
    ///
    /// # Errors
    /// None, as long as the tokenizers crate reads its own format.
    pub fn bytes() -> Result<Self, TextError> {
        Self::from_json(&gpt2::bytes(), "bytes")
    }

    /// One token for each character that occurs in `text`, by code point. Other characters cannot be encoded.
    ///
    /// # Errors
    /// `text` is empty.
    pub fn chars(text: &str) -> Result<Self, TextError> {
        let characters: BTreeSet<char> = text.chars().collect();
        if characters.is_empty() {
            return Err(TextError::damaged("chars", "the text is empty"));
        }
        Self::from_json(&gpt2::characters(characters.into_iter()), "chars")
    }

    /// GPT-2's 50,257 tokens.
    ///
    /// # Errors
    /// None, as long as the tokenizers crate reads its own format.
    pub fn gpt2() -> Result<Self, TextError> {
        Self::from_json(&gpt2::gpt2(), "gpt2")
    }

    fn from_json(value: &serde_json::Value, place: impl ToString) -> Result<Self, TextError> {
        Self::parse(value.to_string().as_bytes(), place)
    }

    fn parse(bytes: &[u8], place: impl ToString) -> Result<Self, TextError> {
        // Looked at before the crate does, whose builder panics at some merges.
        let value: serde_json::Value =
            serde_json::from_slice(bytes).map_err(|e| TextError::damaged(place.to_string(), format!("it is not JSON: {e}")))?;
        check_json(&value).map_err(|reason| TextError::damaged(place.to_string(), reason))?;
        let mut inner = Inner::from_bytes(bytes).map_err(|e| TextError::damaged(place.to_string(), e))?;
        inner.set_encode_special_tokens(true);
        // A text is neither cut nor filled up here, whatever it was in training.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|e| TextError::damaged(place.to_string(), e))?;
        let vocabulary = inner.get_vocab(true);
        let Some(last) = vocabulary.values().max() else {
            return Err(TextError::damaged(place.to_string(), "it has no tokens"));
        };
        let kind = |part: &str| value[part]["type"].as_str().map(str::to_owned);
        let byte_level = kind("pre_tokenizer").as_deref() == Some("ByteLevel");
        let characters = value["pre_tokenizer"].is_null() && value["model"]["merges"].as_array().is_some_and(Vec::is_empty);
        let marks = Marks::of(&value);
        let added = inner.get_added_vocabulary();
        // A token that is not there ends whatever word it stands in.
        let mut begins = vec![true; *last as usize + 1];
        for (token, id) in &vocabulary {
            begins[*id as usize] = added.is_special_token(token) || marks.begins_word(token);
        }
        Ok(Self {
            marks,
            begins,
            vocab_size: *last as usize + 1,
            end_of_text: vocabulary.get(END_OF_TEXT).copied(),
            divisible: value["normalizer"].is_null()
                && (characters || (byte_level && value["pre_tokenizer"]["add_prefix_space"] == false)),
            complete: !characters,
            inner,
        })
    }

    /// The tokens of `text`. What looks like a special token in it is text, unless `special`.
    ///
    /// # Errors
    /// A tokenizer of characters does not have one of them.
    pub fn encode(&self, text: &str, special: bool) -> Result<Vec<u32>, TextError> {
        self.check_characters(text)?;
        let fail = |e: tokenizers::Error| TextError::damaged("tokenizer", e);
        if special {
            let mut inner = self.inner.clone();
            inner.set_encode_special_tokens(false);
            return Ok(inner.encode_fast(text, false).map_err(fail)?.get_ids().to_vec());
        }
        if self.divisible && text.len() > LONG {
            let parts = self.inner.encode_batch_fast(cut(text), false).map_err(fail)?;
            return Ok(parts.iter().flat_map(|part| part.get_ids()).copied().collect());
        }
        Ok(self.inner.encode_fast(text, false).map_err(fail)?.get_ids().to_vec())
    }

    /// The tokens of each line, in parallel. What looks like a special token is text.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_lines(&self, lines: Vec<&str>) -> Result<Vec<Vec<u32>>, TextError> {
        lines.iter().try_for_each(|line| self.check_characters(line))?;
        let encoded = self.inner.encode_batch_fast(lines, false).map_err(|e| TextError::damaged("tokenizer", e))?;
        Ok(encoded.iter().map(|line| line.get_ids().to_vec()).collect())
    }

    /// The tokens of `text`, each with the bytes of `text` that it stands for: whole characters, without white space at
    /// either end. A token that stands for a part of a character has all of it, one that stands for nothing an empty range.
    /// What looks like a special token is text.
    ///
    /// # Errors
    /// A tokenizer of characters does not have one of them.
    pub fn encode_with_offsets(&self, text: &str) -> Result<Vec<(u32, Range<usize>)>, TextError> {
        self.check_characters(text)?;
        let encoding = self.inner.encode(text, false).map_err(|e| TextError::damaged("tokenizer", e))?;
        let tokens = encoding.get_ids().iter().zip(encoding.get_offsets());
        Ok(tokens.map(|(&id, &(start, end))| (id, whole_characters(text, start..end))).collect())
    }

    /// Refuses characters that a tokenizer of characters does not have.
    fn check_characters(&self, text: &str) -> Result<(), TextError> {
        let missing = |c: &char| self.inner.token_to_id(c.encode_utf8(&mut [0; 4])).is_none();
        match text.chars().find(|c| !self.complete && missing(c)) {
            Some(character) => Err(TextError::Character { character }),
            None => Ok(()),
        }
    }

    /// The text of `ids`, special tokens written out. Bytes that are no UTF-8 become U+FFFD.
    ///
    /// # Errors
    /// An id is no token.
    pub fn decode(&self, ids: &[u32]) -> Result<String, TextError> {
        if let Some(&id) = ids.iter().find(|&&id| self.inner.id_to_token(id).is_none()) {
            return Err(TextError::Token { id, last: self.vocab_size - 1 });
        }
        self.inner.decode(ids, false).map_err(|e| TextError::damaged("tokenizer", e))
    }

    /// The highest id, plus one.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// The token between texts, if there is one.
    pub fn end_of_text(&self) -> Option<u32> {
        self.end_of_text
    }

    /// Whether `id` is a token.
    pub fn has(&self, id: u32) -> bool {
        self.inner.id_to_token(id).is_some()
    }

    /// A token as the vocabulary writes it.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// A token's text, beginning with a space where one stands before it in a text; `None` if there is no such token.
    pub fn piece(&self, id: u32) -> Option<String> {
        let token = self.inner.id_to_token(id)?;
        self.marks.piece(&token).or_else(|| self.inner.decode(&[id], false).ok())
    }

    /// The special tokens of an encoder.
    ///
    /// # Errors
    /// One is missing; the error names it. `[UNK]` may be.
    pub fn special_tokens(&self) -> Result<SpecialTokens, TextError> {
        let find = |names: &[&str]| names.iter().find_map(|name| self.inner.token_to_id(name));
        let need = |names: &[&'static str]| find(names).ok_or(TextError::Special { token: names[0] });
        Ok(SpecialTokens {
            cls: need(&["[CLS]"])?,
            sep: need(&["[SEP]"])?,
            mask: need(&["[MASK]"])?,
            pad: need(&["[PAD]", "<pad>"])?,
            unk: find(&["[UNK]", "<unk>"]),
        })
    }

    /// Whether a token begins a word: in WordPiece one without `##`, in SentencePiece one with `▁` and punctuation, in
    /// byte-level BPE one with a space and punctuation; special tokens always.
    pub fn begins_word(&self, id: u32) -> bool {
        self.begins.get(id as usize).copied().unwrap_or(true)
    }

    /// Its `tokenizer.json`.
    ///
    /// # Errors
    /// None, as long as the tokenizers crate can write what it has read.
    pub fn to_json(&self) -> Result<String, TextError> {
        self.inner.to_string(true).map_err(|e| TextError::damaged("tokenizer", e))
    }
}

fn read(path: &Path) -> Result<String, TextError> {
    let bytes = fs::read(path).map_err(|source| TextError::Io { path: path.to_owned(), source })?;
    String::from_utf8(bytes).map_err(|e| TextError::damaged(path.display(), format!("it is not UTF-8: {e}")))
}

/// `range` made to begin and end between characters of `text`, less the white space at its ends.
fn whole_characters(text: &str, range: Range<usize>) -> Range<usize> {
    let (mut start, mut end) = (range.start.min(text.len()), range.end.min(text.len()));
    while !text.is_char_boundary(start) {
        start -= 1;
    }
    while !text.is_char_boundary(end) {
        end += 1;
    }
    let part = &text[start..end.max(start)];
    let trimmed = part.trim_start();
    start += part.len() - trimmed.len();
    start..start + trimmed.trim_end().len()
}

/// Cuts `text` into parts of about [`LONG`] bytes after a line's end that stands alone: between other white space, GPT-2's
/// pattern (`\s+(?!\S)`) would see the cut.
pub(super) fn cut(text: &str) -> Vec<&str> {
    let (bytes, mut parts, mut start) = (text.as_bytes(), Vec::new(), 0);
    for at in 1..bytes.len().saturating_sub(1) {
        let alone = bytes[at] == b'\n' && bytes[at - 1].is_ascii_graphic() && bytes[at + 1].is_ascii_graphic();
        if alone && at + 1 - start >= LONG {
            parts.push(&text[start..=at]);
            start = at + 1;
        }
    }
    parts.push(&text[start..]);
    parts
}
