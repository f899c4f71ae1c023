//! A model from a folder, from the Hub, or from the binary itself; and back into a folder.

use super::{ConfigError, Gpt2Config, gpt2::{Init, parameters}};
use crate::{
    checkpoint::{self, CheckpointError, StoredType, Weights},
    graph::{Engine, GraphError},
    ops::{HostTensor, random::threefry},
    text::{TextError, Tokenizer},
};
use half::{bf16, f16};
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

/// A fault in loading or saving a model.
#[derive(Debug, thiserror::Error)]
pub enum ModelError {
    /// Its configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Its weights.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// Its tokenizer.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The device.
    #[error(transparent)]
    Graph(#[from] GraphError),
    /// A weight is not there, or has another shape.
    #[error("{place}: tensor {name}: {reason}")]
    Weight {
        /// The folder.
        place: String,
        /// The tensor.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// Tokenizer and model do not belong together.
    #[error("{place}: the tokenizer has {tokens} tokens and config.json's vocab_size is {vocab}; they do not belong together")]
    Vocabulary {
        /// The folder.
        place: String,
        /// Tokens of the tokenizer.
        tokens: usize,
        /// Rows of the token table.
        vocab: usize,
    },
}

/// A GPT-2 with its weights still in the file.
pub struct Model {
    /// Its shape.
    pub config: Gpt2Config,
    /// Its weights.
    pub weights: Weights,
    place: String,
    folder: Option<PathBuf>,
}

/// The model in the repository: trained by this engine on Tiny Shakespeare (see `assets/shakespeare/README.md`).
const BUILT_IN: [&[u8]; 3] = [
    include_bytes!("../../assets/shakespeare/config.json"),
    include_bytes!("../../assets/shakespeare/model.safetensors"),
    include_bytes!("../../assets/shakespeare/tokenizer.json"),
];

impl Model {
    /// Opens a folder, or downloads a repository of the Hub (`owner/name`).
    ///
    /// # Errors
    /// No such folder or repository, or files that are damaged or do not fit together.
    pub fn open(model: &str) -> Result<Self, ModelError> {
        let folder = checkpoint::resolve_model(model)?;
        let value = checkpoint::read_config(&folder)?;
        let config = Gpt2Config::from_json(&folder.join("config.json"), &value)?;
        let weights = Weights::open(&folder)?;
        Ok(Self { config, weights, place: folder.display().to_string(), folder: Some(folder) })
    }

    /// The model in the binary.
    ///
    /// # Errors
    /// Never, unless the build was tampered with.
    pub fn built_in() -> Result<Self, ModelError> {
        let place = "the built-in model";
        let value = serde_json::from_slice(BUILT_IN[0])
            .map_err(|e| ConfigError { path: place.into(), reason: e.to_string() })?;
        let config = Gpt2Config::from_json(Path::new(place), &value)?;
        let weights = Weights::from_static(place, BUILT_IN[1])?;
        Ok(Self { config, weights, place: place.into(), folder: None })
    }

    /// The model that `--model` names, or the built-in one.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn chosen(model: Option<&str>) -> Result<Self, ModelError> {
        model.map_or_else(Self::built_in, Self::open)
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// There is none, it is damaged, or it has tokens that the model does not know.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let tokenizer = match &self.folder {
            Some(folder) => Tokenizer::from_folder(folder)?,
            None => Tokenizer::from_bytes(BUILT_IN[2])?,
        };
        if tokenizer.vocab_size() > self.config.vocab_size {
            return Err(ModelError::Vocabulary {
                place: self.place.clone(),
                tokens: tokenizer.vocab_size(),
                vocab: self.config.vocab_size,
            });
        }
        Ok(tokenizer)
    }

    /// The name that the file has for `name`: with the prefix `transformer.` or, in OpenAI's first conversion, without.
    fn stored_name<'n>(&self, name: &'n str) -> &'n str {
        match name.strip_prefix("transformer.") {
            Some(bare) if !self.weights.contains(name) => bare,
            _ => name,
        }
    }

    /// Puts the weights into `engine`'s variables, as f32.
    ///
    /// # Errors
    /// A weight is missing, or has another shape or type.
    pub fn upload(&self, engine: &mut Engine) -> Result<(), ModelError> {
        for parameter in parameters(&self.config) {
            let stored = self.weights.get(self.stored_name(&parameter.name))?;
            if stored.shape != parameter.shape.0 {
                return Err(ModelError::Weight {
                    place: self.place.clone(),
                    name: parameter.name,
                    reason: format!("its shape is {:?}, and config.json wants {}", stored.shape, parameter.shape),
                });
            }
            engine.set(&parameter.name, &HostTensor::floats(parameter.shape, stored.to_f32()?))?;
        }
        Ok(())
    }
}

/// Fills `engine`'s variables with fresh weights: a function of the seed alone, the same on every device.
///
/// # Errors
/// No memory on the device.
pub fn initialise(config: &Gpt2Config, engine: &mut Engine, seed: u32) -> Result<(), GraphError> {
    for (index, parameter) in parameters(config).into_iter().enumerate() {
        let n = parameter.shape.elements();
        let data = match parameter.init {
            Init::Ones => vec![1.0; n],
            Init::Zeros => vec![0.0; n],
            Init::Normal(deviation) => {
                (0..n as u32).map(|i| deviation * normal([seed, index as u32], i)).collect()
            }
        };
        engine.set(&parameter.name, &HostTensor::floats(parameter.shape, data))?;
    }
    Ok(())
}

/// A normal number by Box and Muller's transform.
fn normal(key: [u32; 2], counter: u32) -> f32 {
    let [a, b] = threefry(key, [counter, 0x1417]);
    // (0, 1], so that the logarithm is finite.
    let u = (f64::from(a) + 1.0) / 4_294_967_296.0;
    let angle = std::f64::consts::TAU * f64::from(b) / 4_294_967_296.0;
    ((-2.0 * u.ln()).sqrt() * angle.cos()) as f32
}

/// Writes the model in `engine` as a Hugging Face folder, its weights stored as `dtype`.
///
/// # Errors
/// The folder cannot be written, or the device fails. Files are replaced one by one, each atomically.
pub fn save(
    folder: &Path,
    config: &Gpt2Config,
    engine: &Engine,
    tokenizer: Option<&Tokenizer>,
    dtype: StoredType,
) -> Result<(), ModelError> {
    let mut tensors = Vec::new();
    for parameter in parameters(config) {
        let Some(value) = engine.get(&parameter.name)? else { continue };
        let bytes: Vec<u8> = match dtype {
            StoredType::F16 => value.f().iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            StoredType::BF16 => value.f().iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            _ => bytemuck::cast_slice(value.f()).to_vec(),
        };
        let stored = if matches!(dtype, StoredType::F16 | StoredType::BF16) { dtype } else { StoredType::F32 };
        tensors.push((parameter.name, stored, parameter.shape.0, Cow::Owned(bytes)));
    }
    let mut value = serde_json::to_value(config)
        .map_err(|e| ConfigError { path: folder.join("config.json"), reason: e.to_string() })?;
    value["dtype"] = match dtype {
        StoredType::F16 => "float16",
        StoredType::BF16 => "bfloat16",
        _ => "float32",
    }
    .into();
    Ok(checkpoint::save_folder(folder, &value, &tensors, tokenizer)?)
}
