//! Hugging Face model folders.

use super::{CheckpointError, StoredTensor, write_atomic, write_safetensors};
use crate::text::Tokenizer;
use std::{collections::BTreeMap, fs, io::Write, path::Path};

/// Reads `config.json` of `folder`.
///
/// # Errors
/// It is missing, or no JSON object.
pub fn read_config(folder: &Path) -> Result<serde_json::Value, CheckpointError> {
    let path = folder.join("config.json");
    let text = fs::read_to_string(&path).map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
    let value: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| CheckpointError::damaged(path.display(), format!("it is not JSON: {e}")))?;
    if !value.is_object() {
        return Err(CheckpointError::damaged(path.display(), "it is no JSON object"));
    }
    Ok(value)
}

/// Writes a folder that transformers loads: `config.json`, the tokenizer, and then the weights, each file atomically.
///
/// # Errors
/// The folder cannot be made or written to, or the disk is full. A file is then as it was or new, never half of either.
pub fn save_folder(
    folder: &Path,
    config: &serde_json::Value,
    tensors: &[StoredTensor<'_>],
    tokenizer: Option<&Tokenizer>,
) -> Result<(), CheckpointError> {
    fs::create_dir_all(folder).map_err(|source| CheckpointError::Io { path: folder.to_owned(), source })?;
    write_json(&folder.join("config.json"), config)?;
    if let Some(tokenizer) = tokenizer {
        let json = tokenizer.to_json().map_err(|e| CheckpointError::damaged("tokenizer.json", e.to_string()))?;
        let unchanged = fs::read_to_string(folder.join("tokenizer.json")).is_ok_and(|before| before == json);
        if !unchanged {
            write_atomic(&folder.join("tokenizer.json"), |out| out.write_all(json.as_bytes()))?;
        }
        let mut about = serde_json::json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "clean_up_tokenization_spaces": false,
        });
        if tokenizer.end_of_text().is_some() {
            for token in ["bos_token", "eos_token", "unk_token"] {
                about[token] = crate::text::END_OF_TEXT.into();
            }
        }
        if let Ok(special) = tokenizer.special_tokens() {
            // What the tokenizer gives is what the model is called with, and a DistilBERT refuses token types.
            let typed = config["model_type"] != "distilbert";
            let names = ["input_ids", "token_type_ids", "attention_mask"].into_iter();
            about["model_input_names"] = names.filter(|name| typed || *name != "token_type_ids").collect();
            for (name, id) in [
                ("cls_token", Some(special.cls)),
                ("sep_token", Some(special.sep)),
                ("mask_token", Some(special.mask)),
                ("pad_token", Some(special.pad)),
                ("unk_token", special.unk),
            ] {
                if let Some(token) = id.and_then(|id| tokenizer.id_to_token(id)) {
                    about[name] = token.into();
                }
            }
        }
        write_json(&folder.join("tokenizer_config.json"), &about)?;
    }
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&folder.join("model.safetensors"), tensors, &metadata)
}

fn write_json(path: &Path, value: &serde_json::Value) -> Result<(), CheckpointError> {
    write_atomic(path, |out| {
        serde_json::to_writer_pretty(&mut *out, value)?;
        out.write_all(b"\n")
    })
}
