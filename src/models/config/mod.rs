//! `config.json`, as Hugging Face writes it: one file a model, and what they share.

mod albert;
mod bert;
mod distilbert;
mod electra;
mod gpt2;

pub use albert::{AlbertConfig, Sharing};
pub use bert::BertConfig;
pub use distilbert::DistilBertConfig;
pub use electra::ElectraConfig;
pub use gpt2::Gpt2Config;

use crate::ops::Gelu;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{}: {reason}", path.display())]
pub struct ConfigError {
    /// The file.
    pub path: PathBuf,
    /// What is wrong in it.
    pub reason: String,
}

/// The configuration of any model that this engine runs.
#[derive(Debug, Clone, PartialEq)]
pub enum Config {
    /// `gpt2`
    Gpt2(Gpt2Config),
    /// `bert`
    Bert(BertConfig),
    /// `distilbert`
    DistilBert(DistilBertConfig),
    /// `albert`
    Albert(AlbertConfig),
    /// `electra`
    Electra(ElectraConfig),
}

/// Values of `model_type` that are known.
const KINDS: &str = "\"gpt2\", \"bert\", \"distilbert\", \"albert\" and \"electra\"";

impl Config {
    /// Reads and checks a parsed `config.json`.
    ///
    /// # Errors
    /// Another model type, impossible sizes, or a setting that is not supported.
    pub fn from_json(path: &Path, value: &Value) -> Result<Self, ConfigError> {
        let fail = |reason: String| ConfigError { path: path.to_owned(), reason };
        let kind = value.get("model_type").and_then(Value::as_str);
        // transformers writes null for what is not set.
        let mut value = value.clone();
        if let Some(fields) = value.as_object_mut() {
            fields.retain(|_, v| !v.is_null());
        }
        fn read<T: DeserializeOwned>(value: Value) -> Result<T, String> {
            // Every field has a default, so that a field alone tells whether it is the one that is wrong.
            let alone = |(name, field): (&String, &Value)| {
                let object = Value::Object(Map::from_iter([(name.clone(), field.clone())]));
                serde_json::from_value::<T>(object).err().map(|e| format!("{name}: {e}"))
            };
            let culprit = value.as_object().and_then(|fields| fields.iter().find_map(alone));
            serde_json::from_value(value).map_err(|e| culprit.unwrap_or_else(|| e.to_string()))
        }
        let config = match kind {
            Some("gpt2") => read(value).map(Self::Gpt2),
            Some("bert") => read(value).map(Self::Bert),
            Some("distilbert") => read(value).map(Self::DistilBert),
            Some("albert") => read(value).map(Self::Albert),
            Some("electra") => read(value).map(Self::Electra),
            Some(other) => Err(format!("model_type is {other:?}; {KINDS} are supported")),
            None => Err(format!("there is no \"model_type\"; {KINDS} are supported")),
        };
        let config = config.map_err(fail)?;
        config.check().map_err(fail)?;
        Ok(config)
    }

    /// Checks sizes against each other and against what a kernel can address.
    ///
    /// # Errors
    /// What does not fit, with the names of the fields.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Gpt2(c) => c.check(),
            Self::Bert(c) => c.check(),
            Self::DistilBert(c) => c.check(),
            Self::Albert(c) => c.check(),
            Self::Electra(c) => c.check(),
        }
    }

    /// As JSON, for `config.json`.
    ///
    /// # Errors
    /// None: every field can be written.
    pub fn to_json(&self) -> Result<Value, serde_json::Error> {
        let mut value = match self {
            Self::Gpt2(c) => serde_json::to_value(c),
            Self::Bert(c) => serde_json::to_value(c),
            Self::DistilBert(c) => serde_json::to_value(c),
            Self::Albert(c) => serde_json::to_value(c),
            Self::Electra(c) => serde_json::to_value(c),
        }?;
        // 0.02, where the f32 nearest to it would be written with the digits of an f64.
        for field in value.as_object_mut().into_iter().flat_map(Map::values_mut) {
            if let Some(number) = field.as_f64().filter(|_| field.is_f64())
                && let Ok(short) = (number as f32).to_string().parse::<f64>()
                && f64::from(short as f32) == number
            {
                *field = short.into();
            }
        }
        Ok(value)
    }

    /// `model_type`.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Gpt2(_) => "gpt2",
            Self::Bert(_) => "bert",
            Self::DistilBert(_) => "distilbert",
            Self::Albert(_) => "albert",
            Self::Electra(_) => "electra",
        }
    }

    /// Number of tokens.
    pub fn vocab_size(&self) -> usize {
        match self {
            Self::Gpt2(c) => c.vocab_size,
            Self::Bert(c) => c.vocab_size,
            Self::DistilBert(c) => c.vocab_size,
            Self::Albert(c) => c.vocab_size,
            Self::Electra(c) => c.vocab_size,
        }
    }

    /// Longest context, tokens.
    pub fn positions(&self) -> usize {
        match self {
            Self::Gpt2(c) => c.n_positions,
            Self::Bert(c) => c.max_position_embeddings,
            Self::DistilBert(c) => c.max_position_embeddings,
            Self::Albert(c) => c.max_position_embeddings,
            Self::Electra(c) => c.max_position_embeddings,
        }
    }

    /// Names of transformers' classes that load the checkpoint.
    pub fn architectures(&self) -> &[String] {
        match self {
            Self::Gpt2(c) => &c.architectures,
            Self::Bert(c) => &c.rest.architectures,
            Self::DistilBert(c) => &c.rest.architectures,
            Self::Albert(c) => &c.rest.architectures,
            Self::Electra(c) => &c.rest.architectures,
        }
    }

    /// What the encoders' configurations share; `None` for a GPT-2.
    pub fn rest(&self) -> Option<&Rest> {
        match self {
            Self::Gpt2(_) => None,
            Self::Bert(c) => Some(&c.rest),
            Self::DistilBert(c) => Some(&c.rest),
            Self::Albert(c) => Some(&c.rest),
            Self::Electra(c) => Some(&c.rest),
        }
    }

    /// The same, to be changed.
    pub fn rest_mut(&mut self) -> Option<&mut Rest> {
        match self {
            Self::Gpt2(_) => None,
            Self::Bert(c) => Some(&mut c.rest),
            Self::DistilBert(c) => Some(&mut c.rest),
            Self::Albert(c) => Some(&mut c.rest),
            Self::Electra(c) => Some(&mut c.rest),
        }
    }
}

/// What the encoders' configurations share: the head, its labels, and fields that we only pass on.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rest {
    /// Names of transformers' classes that load the checkpoint; the first one says which head it has.
    pub architectures: Vec<String>,
    /// Names of the classes, by number.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id2label: Option<BTreeMap<String, String>>,
    /// Numbers of the classes, by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub label2id: Option<BTreeMap<String, usize>>,
    /// `regression`, or `single_label_classification`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem_type: Option<String>,
    /// Everything else that was in the file.
    #[serde(flatten)]
    pub others: Map<String, Value>,
}

impl Rest {
    /// Number of classes; 2 where the file does not say, as in transformers.
    pub fn labels(&self) -> usize {
        self.id2label.as_ref().map_or(2, BTreeMap::len)
    }

    /// Gives the classes names.
    pub fn set_labels(&mut self, names: &[String]) {
        self.id2label = Some(names.iter().enumerate().map(|(i, n)| (i.to_string(), n.clone())).collect());
        self.label2id = Some(names.iter().enumerate().map(|(i, n)| (n.clone(), i)).collect());
    }

    /// The name of class `index`.
    pub fn label(&self, index: usize) -> String {
        let named = self.id2label.as_ref().and_then(|map| map.get(&index.to_string()));
        named.cloned().unwrap_or_else(|| format!("LABEL_{index}"))
    }

    /// Whether the sequence head predicts a number.
    pub fn regression(&self) -> bool {
        match self.problem_type.as_deref() {
            Some(kind) => kind == "regression",
            None => self.labels() == 1,
        }
    }

    fn check(&self) -> Result<(), String> {
        let labels = self.labels();
        if labels == 0 || (0..labels).any(|i| self.id2label.as_ref().is_some_and(|map| !map.contains_key(&i.to_string()))) {
            return Err(format!("id2label has {labels} entries, which are not numbered from 0"));
        }
        match self.problem_type.as_deref() {
            None | Some("regression" | "single_label_classification") => Ok(()),
            Some(other) => {
                Err(format!("problem_type {other:?} is not supported; regression and single_label_classification are"))
            }
        }
    }
}

/// What a feed-forward layer applies between its two matrices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HiddenAct {
    /// Either form of GELU.
    Gelu(Gelu),
    /// max(x, 0)
    Relu,
}

impl HiddenAct {
    fn parse(field: &str, name: &str) -> Result<Self, String> {
        match name {
            "gelu" => Ok(Self::Gelu(Gelu::Erf)),
            "gelu_new" | "gelu_pytorch_tanh" | "gelu_fast" => Ok(Self::Gelu(Gelu::Tanh)),
            "relu" => Ok(Self::Relu),
            other => Err(format!("{field} {other:?} is not supported; gelu, gelu_new and relu are")),
        }
    }
}

/// Sizes must be positive and small enough to be addressed.
fn in_range(sizes: &[(&str, usize)]) -> Result<(), String> {
    match sizes.iter().find(|(_, size)| *size == 0 || *size > 1 << 24) {
        Some((name, size)) => Err(format!("{name} is {size}; it must be from 1 to {}", 1 << 24)),
        None => Ok(()),
    }
}

/// A model has some thousand layers at most; more are a damaged file, and would take for ever to record.
fn layers_fit(name: &str, layers: usize) -> Result<(), String> {
    if layers > 4096 { Err(format!("{name} is {layers}; it must be at most 4096")) } else { Ok(()) }
}

/// A token's number as transformers may write it: a number, a list of which the first counts, or something that is no token
/// (-1), which is as if it were not there.
fn token_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<u32>, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let first = value.as_array().and_then(|list| list.first()).unwrap_or(&value);
    if first.is_null() || first.is_i64() {
        return Ok(first.as_i64().and_then(|id| u32::try_from(id).ok()));
    }
    Err(serde::de::Error::custom(format!("{value} is no token's number")))
}

/// Heads must divide the width, and fit the attention kernel.
fn heads_fit((width_name, width): (&str, usize), (heads_name, heads): (&str, usize)) -> Result<(), String> {
    if width % heads != 0 {
        return Err(format!("{width_name} {width} is not a multiple of {heads_name} {heads}"));
    }
    if width / heads > 128 {
        return Err(format!(
            "heads of width {} ({width_name} {width} / {heads_name} {heads}) are wider than the attention kernel's 128",
            width / heads
        ));
    }
    Ok(())
}

/// A table must be addressable, and an epsilon positive.
fn table_fits(rows: usize, width: usize, epsilon: f32) -> Result<(), String> {
    if rows.checked_mul(width).is_none_or(|n| n > u32::MAX as usize) {
        return Err(format!("vocab_size {rows} times a width of {width} is more than 2^32"));
    }
    if !(epsilon > 0.0 && epsilon.is_finite()) {
        return Err(format!("layer_norm_eps is {epsilon}; it must be positive"));
    }
    Ok(())
}
