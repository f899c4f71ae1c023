//! Unigram as ALBERT has it (SentencePiece; Kudo 2018), as the JSON that the tokenizers crate reads.

use super::wordpiece::template;
use serde_json::{Value, json};

/// ALBERT's special tokens, in the order of their ids.
pub(super) const SPECIAL: [&str; 5] = ["<pad>", "<unk>", "[CLS]", "[SEP]", "[MASK]"];

/// A tokenizer that knows no word yet, for the trainer. Its parts are those of transformers' AlbertTokenizer, with NFKC and
/// SentencePiece's rules for white space and control characters by name (`Nmt`) where ALBERT's file has them as a table.
/// `cased` keeps capitals and accents.
pub(super) fn untrained(cased: bool) -> Value {
    let replace = |from: &str| json!({ "type": "Replace", "pattern": { "String": from }, "content": "\"" });
    let named = |kind: &str| json!({ "type": kind });
    let mut steps = vec![replace("``"), replace("''"), named("Nmt")];
    if !cased {
        steps.extend(["NFKD", "StripAccents", "Lowercase"].map(named));
    }
    steps.push(named("NFKC"));
    let metaspace = json!({ "type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true });
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": { "type": "Sequence", "normalizers": steps },
        "pre_tokenizer": { "type": "Sequence", "pretokenizers": [{ "type": "WhitespaceSplit" }, metaspace] },
        "post_processor": template(&2.into(), &3.into()), "decoder": metaspace,
        "model": { "type": "Unigram", "unk_id": 0, "vocab": [["<unk>", 0.0]], "byte_fallback": false },
    })
}
