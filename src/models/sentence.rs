//! How a folder says that hidden states become one embedding: sentence-transformers' `modules.json` (Reimers and Gurevych,
//! "Sentence-BERT", 2019).

use super::{ConfigError, Model};
use serde_json::Value;
use std::{fs, path::Path};

/// How the hidden states of a text become one vector.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Pooling {
    /// The mean over the tokens that are no padding.
    Mean,
    /// The first token, [CLS].
    Cls,
    /// The largest over the tokens that are no padding, element by element.
    Max,
}

/// What a folder says about its embeddings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SentenceSettings {
    /// How hidden states become a vector; the mean where the folder does not say.
    pub pooling: Pooling,
    /// Divide the vector by its length.
    pub normalize: bool,
    /// Most tokens of a text, if fewer than the model's context.
    pub longest: Option<usize>,
}

impl Default for SentenceSettings {
    fn default() -> Self {
        Self { pooling: Pooling::Mean, normalize: false, longest: None }
    }
}

impl SentenceSettings {
    /// Reads `modules.json` and what it names; the defaults if there is none.
    ///
    /// # Errors
    /// A file is damaged, or names a module that is not supported.
    pub fn of(model: &Model) -> Result<Self, ConfigError> {
        let Some(folder) = model.folder() else { return Ok(Self::default()) };
        let path = folder.join("modules.json");
        let fail = |reason: String| ConfigError { path: path.clone(), reason };
        let Some(modules) = read(&path)? else { return Ok(Self::default()) };
        let modules = modules.as_array().cloned().ok_or_else(|| fail("it is no list of modules".into()))?;
        let mut settings = Self::default();
        for module in &modules {
            let word = |key: &str| module[key].as_str().unwrap_or_default().to_owned();
            let kind = word("type");
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" if word("path").is_empty() => {}
                "Transformer" => return Err(fail(format!("the model is in {:?}; give that folder itself", word("path")))),
                "Pooling" => settings.pooling = pooling(&folder.join(word("path")).join("config.json"))?,
                "Normalize" => settings.normalize = true,
                _ => return Err(fail(format!("module {kind:?} is not supported; Transformer, Pooling and Normalize are"))),
            }
        }
        let limits = read(&folder.join("sentence_bert_config.json"))?;
        settings.longest = limits.and_then(|v| v["max_seq_length"].as_u64()).map(|n| n as usize);
        Ok(settings)
    }
}

/// A JSON file, if it is there.
fn read(path: &Path) -> Result<Option<Value>, ConfigError> {
    let fail = |reason: String| ConfigError { path: path.to_owned(), reason };
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(serde_json::from_str(&text).map_err(|e| fail(format!("it is not JSON: {e}")))?)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(fail(error.to_string())),
    }
}

/// The one pooling that a pooling module's file switches on.
fn pooling(path: &Path) -> Result<Pooling, ConfigError> {
    let fail = |reason: String| ConfigError { path: path.to_owned(), reason };
    let value = read(path)?.ok_or_else(|| fail("it is not there, and modules.json names it".into()))?;
    let on: Vec<&str> = value
        .as_object()
        .into_iter()
        .flatten()
        .filter(|(name, on)| name.starts_with("pooling_mode_") && **on == Value::Bool(true))
        .map(|(name, _)| name.as_str())
        .collect();
    match on[..] {
        ["pooling_mode_mean_tokens"] => Ok(Pooling::Mean),
        ["pooling_mode_cls_token"] => Ok(Pooling::Cls),
        ["pooling_mode_max_tokens"] => Ok(Pooling::Max),
        [] if value["pooling_mode"] == "mean" => Ok(Pooling::Mean),
        [] if value["pooling_mode"] == "cls" => Ok(Pooling::Cls),
        [] if value["pooling_mode"] == "max" => Ok(Pooling::Max),
        _ => Err(fail(format!("pooling {on:?} is not supported; mean, cls and max are, one of them"))),
    }
}
