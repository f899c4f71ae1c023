//! Checks of a tokenizer's contents before the crate sees them.
//!
//! The crate's builder panics on some contents (a merge whose result is longer
//! than every token) and accepts others that would silently give wrong ids
//! (two tokens with one id). Both are damaged files to us.

use super::charsmap::check_tables;
use serde_json::{Map, Value};
use std::collections::HashMap;

/// Checks a parsed `tokenizer.json`; the error says what is wrong.
pub(super) fn check_json(json: &Value) -> Result<(), String> {
    let root = json.as_object().ok_or("it is not a JSON object")?;
    let model = root.get("model").and_then(Value::as_object).ok_or("it has no model")?;
    check_tables(&json["normalizer"])?;
    if let Some(pieces) = model.get("vocab").and_then(Value::as_array) {
        check_pieces(pieces)?;
    }
    if let Some(vocab) = model.get("vocab").and_then(Value::as_object) {
        let vocab = read_vocab(vocab)?;
        let prefix = model.get("continuing_subword_prefix").and_then(Value::as_str).unwrap_or_default();
        if let Some(merges) = model.get("merges").and_then(Value::as_array) {
            for (line, merge) in merges.iter().enumerate() {
                let (left, right) = read_merge(merge).ok_or_else(|| format!("merge {line} is not a pair of tokens"))?;
                check_merge(&vocab, left, right, prefix).map_err(|reason| format!("merge {line}: {reason}"))?;
            }
        }
    }
    Ok(())
}

/// Checks a Unigram vocabulary, a list of pieces with scores: an empty piece would keep the crate's search on the spot, and
/// of two equal pieces only the last would be found.
fn check_pieces(pieces: &[Value]) -> Result<(), String> {
    let mut owner = HashMap::with_capacity(pieces.len());
    for (id, entry) in pieces.iter().enumerate() {
        let Some([Value::String(piece), Value::Number(_)]) = entry.as_array().map(Vec::as_slice) else {
            return Err(format!("entry {id} of the vocabulary is not a piece and its score"));
        };
        if piece.is_empty() {
            return Err(format!("entry {id} of the vocabulary is empty"));
        }
        if let Some(other) = owner.insert(piece, id) {
            return Err(format!("the token {piece:?} has both the ids {other} and {id}"));
        }
    }
    Ok(())
}

/// A vocabulary whose ids are whole numbers, each used once.
fn read_vocab(json: &Map<String, Value>) -> Result<HashMap<String, u32>, String> {
    let mut vocab = HashMap::with_capacity(json.len());
    let mut owner: HashMap<u32, &str> = HashMap::with_capacity(json.len());
    for (token, id) in json {
        let id = id
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| format!("the token {token:?} has the id {id}, which is no id"))?;
        if let Some(other) = owner.insert(id, token) {
            return Err(format!("the tokens {other:?} and {token:?} both have the id {id}"));
        }
        vocab.insert(token.clone(), id);
    }
    Ok(vocab)
}

/// Checks that both parts of a merge and its result are tokens.
fn check_merge(vocab: &HashMap<String, u32>, left: &str, right: &str, prefix: &str) -> Result<(), String> {
    let tail = right.get(prefix.len()..).ok_or_else(|| format!("{right:?} is shorter than the prefix {prefix:?}"))?;
    for token in [left, right, &format!("{left}{tail}")] {
        if !vocab.contains_key(token) {
            return Err(format!("{token:?} is not in the vocabulary"));
        }
    }
    Ok(())
}

/// A merge is a list of two tokens, or in older files one string.
fn read_merge(merge: &Value) -> Option<(&str, &str)> {
    match merge {
        Value::String(line) => split_merge(line),
        Value::Array(pair) => match pair.as_slice() {
            [left, right] => Some((left.as_str()?, right.as_str()?)),
            _ => None,
        },
        _ => None,
    }
}

/// The two parts of a merge in its written form.
fn split_merge(line: &str) -> Option<(&str, &str)> {
    let (left, right) = line.split_once(' ')?;
    let whole = !left.is_empty() && !right.is_empty() && !right.contains(' ');
    whole.then_some((left, right))
}
