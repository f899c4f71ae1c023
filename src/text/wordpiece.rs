//! WordPiece as BERT has it (Devlin et al. 2019; google-research/bert's tokenization.py), as the JSON that the tokenizers
//! crate reads.

use serde_json::{Map, Value, json};

/// BERT's special tokens, in the order of the ids that a vocabulary made here gives them.
pub(super) const SPECIAL: [&str; 5] = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"];

/// From a folder's `vocab.txt`, a token a line, and its `tokenizer_config.json`, as transformers' BertTokenizer reads them:
/// `do_lower_case` (true unless it says otherwise), `tokenize_chinese_chars` (true), `strip_accents` (as lower-casing).
///
/// # Errors
/// A token twice, no `[UNK]`, or a setting that is neither true nor false.
pub(super) fn from_vocab(text: &str, config: &Value) -> Result<Value, String> {
    let mut vocabulary = Map::new();
    for (id, token) in text.lines().enumerate() {
        if let Some(before) = vocabulary.insert(token.to_owned(), id.into()) {
            return Err(format!("the token {token:?} is in it twice, in lines {} and {}", as_line(&before), id + 1));
        }
    }
    if !vocabulary.contains_key("[UNK]") {
        return Err("it has no [UNK], which stands for words that the vocabulary cannot write".into());
    }
    let flag = |name: &str| match &config[name] {
        Value::Null => Ok(None),
        Value::Bool(value) => Ok(Some(*value)),
        other => Err(format!("tokenizer_config.json: {name} is {other}; it must be true or false")),
    };
    let normalizer = normalizer(
        flag("do_lower_case")?.unwrap_or(true),
        flag("tokenize_chinese_chars")?.unwrap_or(true),
        flag("strip_accents")?,
    );
    let id = |token: &str| vocabulary.get(token).cloned();
    let added: Vec<_> = SPECIAL
        .iter()
        .filter_map(|&token| {
            Some(json!({
                "id": id(token)?, "content": token, "single_word": false, "lstrip": false, "rstrip": false,
                "normalized": false, "special": true,
            }))
        })
        .collect();
    let template = match (id("[CLS]"), id("[SEP]")) {
        (Some(cls), Some(sep)) => template(&cls, &sep),
        _ => Value::Null,
    };
    Ok(whole(&normalizer, vocabulary, &added, &template))
}

fn as_line(id: &Value) -> u64 {
    id.as_u64().map_or(0, |id| id + 1)
}

/// A tokenizer that knows no word yet, for the trainer; its special tokens will have the ids of [`SPECIAL`]'s order.
pub(super) fn untrained(lower_case: bool) -> Value {
    let vocabulary = SPECIAL.iter().enumerate().map(|(id, &token)| (token.to_owned(), id.into())).collect();
    whole(&normalizer(lower_case, true, None), vocabulary, &[], &template(&2.into(), &3.into()))
}

fn normalizer(lower_case: bool, chinese: bool, strip_accents: Option<bool>) -> Value {
    json!({
        "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": chinese, "strip_accents": strip_accents,
        "lowercase": lower_case,
    })
}

fn whole(normalizer: &Value, vocabulary: Map<String, Value>, added: &[Value], template: &Value) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": normalizer,
        "pre_tokenizer": { "type": "BertPreTokenizer" }, "post_processor": template,
        "decoder": { "type": "WordPiece", "prefix": "##", "cleanup": true },
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
            "vocab": vocabulary,
        },
    })
}

/// `[CLS] A [SEP] B [SEP]`, the second segment and its end of type 1.
pub(super) fn template(cls: &Value, sep: &Value) -> Value {
    let special = |token: &str, kind: u32| json!({ "SpecialToken": { "id": token, "type_id": kind } });
    let segment = |name: &str, kind: u32| json!({ "Sequence": { "id": name, "type_id": kind } });
    json!({
        "type": "TemplateProcessing",
        "single": [special("[CLS]", 0), segment("A", 0), special("[SEP]", 0)],
        "pair": [special("[CLS]", 0), segment("A", 0), special("[SEP]", 0), segment("B", 1), special("[SEP]", 1)],
        "special_tokens": {
            "[CLS]": { "id": "[CLS]", "ids": [cls], "tokens": ["[CLS]"] },
            "[SEP]": { "id": "[SEP]", "ids": [sep], "tokens": ["[SEP]"] },
        },
    })
}
