//! A model from a folder, from the Hub, or from the binary itself; and back into a folder.

use super::{
    BuiltIn, Config, ConfigError, Encoder, Gpt2Config, Head, Init, Mode, Parameter, encoder, gguf, gpt2, heads,
    narrow::Quantization, stack::stored_layer,
};
use crate::{
    checkpoint::{self, CheckpointError, Gguf, StoredType, Weights},
    graph::{Engine, GraphError},
    ops::{HostTensor, random::threefry},
    text::{TextError, Tokenizer},
};
use half::{bf16, f16};
use std::{
    borrow::Cow,
    path::{Path, PathBuf},
};

/// "a bert", "an electra"
pub fn with_article(name: &str) -> String {
    let vowel = name.starts_with(['a', 'e', 'i', 'o', 'u', 'A', 'E', 'I', 'O', 'U']);
    format!("{} {name}", if vowel { "an" } else { "a" })
}

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
    /// It is what `train electra` wrote.
    #[error("{place}: it holds an ELECTRA's networks; give {place}/discriminator or {place}/generator")]
    Networks {
        /// The folder.
        place: String,
    },
    /// What comes out of it is no number.
    #[error("{place}: what it gives is no number; its weights are damaged")]
    NoNumber {
        /// The folder.
        place: String,
    },
    /// The command does not run this kind of model.
    #[error("{place}: it is {}; this command runs {wanted}", with_article(kind))]
    Kind {
        /// The folder.
        place: String,
        /// Its `model_type`.
        kind: &'static str,
        /// What would do.
        wanted: &'static str,
    },
    /// It cannot have so many layers.
    #[error("{place}: --depth {depth}: {reason}")]
    Depth {
        /// The folder.
        place: String,
        /// How many were asked for.
        depth: usize,
        /// What is wrong.
        reason: String,
    },
    /// Its weights are quantised, and the command needs them in full.
    #[error(
        "{place}: its weights are quantised ({format}), which generate, perplexity and forward read; for this give the model it was made from"
    )]
    Quantised {
        /// The folder.
        place: String,
        /// The format.
        format: String,
    },
    /// The head cannot be told, or is not there.
    #[error("{place}: {reason}")]
    Head {
        /// The folder.
        place: String,
        /// What is wrong, and what to do.
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

/// A model with its weights still in the file.
pub struct Model {
    /// Its shape.
    pub config: Config,
    /// Its weights.
    pub weights: Weights,
    pub(super) place: String,
    pub(super) source: Source,
    /// How its weights are quantised, if they are.
    pub(super) quantization: Option<Quantization>,
    /// Layers of the file, where [`stack`](Model::stack) made it more or fewer.
    pub(super) layers: Option<usize>,
}

/// Where a model came from.
pub(super) enum Source {
    /// A folder.
    Folder(PathBuf),
    /// The binary.
    BuiltIn(&'static BuiltIn),
    /// A file of llama.cpp's.
    Gguf(Box<Gguf>),
}

impl Model {
    /// Opens a folder, or a GPT-2's GGUF file, or downloads a repository of the Hub (`owner/name`).
    ///
    /// # Errors
    /// No such folder or repository, or files that are damaged or do not fit together.
    pub fn open(model: &str) -> Result<Self, ModelError> {
        if Path::new(model).extension().is_some_and(|end| end.eq_ignore_ascii_case("gguf")) {
            return Self::open_gguf(Path::new(model));
        }
        let folder = checkpoint::resolve_model(model)?;
        if !folder.join("config.json").exists() && folder.join("discriminator/config.json").exists() {
            return Err(ModelError::Networks { place: folder.display().to_string() });
        }
        let value = checkpoint::read_config(&folder)?;
        let config = Config::from_json(&folder.join("config.json"), &value)?;
        let quantization = Quantization::read(&folder.join("config.json"), &value, &config)?;
        let weights = Weights::open(&folder)?;
        let place = folder.display().to_string();
        Ok(Self { config, weights, place, source: Source::Folder(folder), quantization, layers: None })
    }

    /// Its tokenizer.
    ///
    /// # Errors
    /// There is none, it is damaged, or it has tokens that the model does not know.
    pub fn tokenizer(&self) -> Result<Tokenizer, ModelError> {
        let tokenizer = match &self.source {
            Source::Folder(folder) => Tokenizer::from_folder(folder)?,
            Source::BuiltIn(files) => Tokenizer::from_bytes(files.tokenizer)?,
            Source::Gguf(file) => gguf::tokenizer(file, &self.place)?,
        };
        if tokenizer.vocab_size() > self.config.vocab_size() {
            return Err(ModelError::Vocabulary {
                place: self.place.clone(),
                tokens: tokenizer.vocab_size(),
                vocab: self.config.vocab_size(),
            });
        }
        Ok(tokenizer)
    }

    /// The folder, or what stands for it in messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The folder, unless the model is in the binary or in one file.
    pub fn folder(&self) -> Option<&Path> {
        match &self.source {
            Source::Folder(folder) => Some(folder),
            Source::BuiltIn(_) | Source::Gguf(_) => None,
        }
    }

    /// The shape of a GPT-2.
    ///
    /// # Errors
    /// It is another kind of model.
    pub fn gpt2(&self) -> Result<&Gpt2Config, ModelError> {
        match &self.config {
            Config::Gpt2(config) => Ok(config),
            other => Err(ModelError::Kind { place: self.place.clone(), kind: other.kind(), wanted: "a gpt2" }),
        }
    }

    /// The encoder, recorded in the given mode.
    ///
    /// # Errors
    /// It is no encoder.
    pub fn encoder(&self, mode: Mode) -> Result<Box<dyn Encoder + '_>, ModelError> {
        encoder(&self.config, mode).ok_or_else(|| ModelError::Kind {
            place: self.place.clone(),
            kind: self.config.kind(),
            wanted: "a bert, distilbert, albert or electra",
        })
    }

    /// The head that `wanted` names, or else the one that config.json's `architectures` does.
    ///
    /// # Errors
    /// There is no such head, or the file does not say.
    pub fn head(&self, wanted: Option<&str>) -> Result<Head, ModelError> {
        let fail = |reason: String| ModelError::Head { place: self.place.clone(), reason };
        let head = if let Some(name) = wanted {
            Head::parse(name).ok_or_else(|| fail(format!("--head {name} is not known; there are {}", Head::names())))?
        } else {
            let name = self.config.architectures().first();
            let name =
                name.ok_or_else(|| fail(format!("config.json has no architectures; give --head, one of {}", Head::names())))?;
            Head::parse(name).ok_or_else(|| {
                fail(format!("architecture {name:?} in config.json is not supported; give --head, one of {}", Head::names()))
            })?
        };
        // What an ELECTRA is pre-trained for.
        let electra = matches!(self.config, Config::Electra(_));
        Ok(if electra && head == Head::PreTraining { Head::Replaced } else { head })
    }

    /// Whether the file has the pooler of a bare encoder.
    pub fn has_pooler(&self) -> bool {
        let pooler = encoder(&self.config, Mode::default()).and_then(|e| e.heads().pooler);
        pooler.is_some_and(|name| self.stored_name(&format!("{name}.weight")).is_some())
    }

    /// All parameters of the model with a head (of an encoder), or of a GPT-2.
    ///
    /// # Errors
    /// The head does not go with the model.
    pub fn parameters(&self, head: Head) -> Result<Vec<Parameter>, ModelError> {
        let labels = self.config.rest().map_or(0, super::Rest::labels);
        let untied = self.config.rest().is_some_and(|rest| rest.others.get("tie_word_embeddings") == Some(&false.into()));
        if untied && matches!(head, Head::MaskedLm | Head::PreTraining) {
            return Err(ModelError::Head {
                place: self.place.clone(),
                reason:
                    "config.json says tie_word_embeddings = false; a masked-LM head with a decoder of its own is not supported"
                        .into(),
            });
        }
        if let Config::Gpt2(config) = &self.config {
            return Ok(gpt2::parameters(config));
        }
        heads::parameters(&*self.encoder(Mode::default())?, head, labels, self.has_pooler())
            .map_err(|e| ModelError::Head { place: self.place.clone(), reason: e.to_string() })
    }

    /// The name that the file has for `name`. Names of the encoder may lack its prefix (`transformer.`, `bert.`, ...: saved
    /// without a head); layer norms were once called gamma and beta; the masked-LM bias is tied to its decoder's.
    pub(super) fn stored_name(&self, name: &str) -> Option<String> {
        let prefix = match &self.config {
            Config::Gpt2(_) => "transformer.",
            Config::Bert(_) => "bert.",
            Config::DistilBert(_) => "distilbert.",
            Config::Albert(_) => "albert.",
            Config::Electra(_) => "electra.",
        };
        let name = self.layers.map_or_else(|| name.to_owned(), |layers| stored_layer(name, layers));
        let short = name.strip_prefix(prefix).map(str::to_owned);
        let mut candidates = vec![name];
        candidates.extend(short);
        for name in candidates.clone() {
            for (new, old) in [("LayerNorm.weight", "LayerNorm.gamma"), ("LayerNorm.bias", "LayerNorm.beta")] {
                candidates.extend(name.strip_suffix(new).map(|stem| format!("{stem}{old}")));
            }
            candidates.extend(name.strip_suffix("predictions.bias").map(|stem| format!("{stem}predictions.decoder.bias")));
        }
        candidates.into_iter().find(|name| self.weights.contains(name))
    }

    /// Puts the weights of `parameters` into `engine`'s variables, as f32, and returns the names of those that were not in
    /// the file and began afresh.
    ///
    /// # Errors
    /// A weight is missing, or has another shape or type.
    pub fn upload(&self, engine: &mut Engine, parameters: &[Parameter], missing: Missing) -> Result<Vec<String>, ModelError> {
        self.upload_as(engine, parameters, missing, &str::to_owned)
    }

    /// The same, where `variable` tells the name that a parameter has in `engine`.
    ///
    /// # Errors
    /// As [`upload`](Self::upload).
    pub fn upload_as(
        &self,
        engine: &mut Engine,
        parameters: &[Parameter],
        missing: Missing,
        variable: &dyn Fn(&str) -> String,
    ) -> Result<Vec<String>, ModelError> {
        let mut fresh = Vec::new();
        for (index, parameter) in parameters.iter().enumerate() {
            match (self.stored_name(&parameter.name), missing) {
                (None, Missing::Initialise(seed)) => {
                    engine.set(&variable(&parameter.name), &fresh_weights(parameter, seed, index))?;
                    fresh.push(parameter.name.clone());
                }
                _ => engine.set(&variable(&parameter.name), &self.weight(parameter)?)?,
            }
        }
        Ok(fresh)
    }

    /// The weights of a parameter, as f32.
    ///
    /// # Errors
    /// They are not there, or have another shape or type.
    pub fn weight(&self, parameter: &Parameter) -> Result<HostTensor<f32>, ModelError> {
        if let Some(quantization) = self.quantization {
            return Err(ModelError::Quantised { place: self.place.clone(), format: quantization.format().to_string() });
        }
        self.floats(parameter)
    }

    /// The weights of a parameter that is not quantised, as f32.
    pub(super) fn floats(&self, parameter: &Parameter) -> Result<HostTensor<f32>, ModelError> {
        if let Source::Gguf(file) = &self.source {
            return self.gguf_floats(file, parameter);
        }
        let name = self.stored_name(&parameter.name).unwrap_or_else(|| parameter.name.clone());
        let stored = self.weights.get(&name)?;
        if stored.shape != parameter.shape.0 {
            return Err(ModelError::Weight {
                place: self.place.clone(),
                name: parameter.name.clone(),
                reason: format!("its shape is {:?}, and config.json wants {}", stored.shape, parameter.shape),
            });
        }
        Ok(HostTensor::floats(parameter.shape.clone(), stored.to_f32()?))
    }
}

/// What to do about a parameter that the file does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is an error.
    Refuse,
    /// It begins afresh, from this seed: a new head.
    Initialise(u32),
}

/// Fills `engine`'s variables with fresh weights: a function of the seed alone, the same on every device.
///
/// # Errors
/// No memory on the device.
pub fn initialise(parameters: &[Parameter], engine: &mut Engine, seed: u32) -> Result<(), GraphError> {
    for (index, parameter) in parameters.iter().enumerate() {
        engine.set(&parameter.name, &fresh_weights(parameter, seed, index))?;
    }
    Ok(())
}

/// The fresh weights of parameter number `index`.
fn fresh_weights(parameter: &Parameter, seed: u32, index: usize) -> HostTensor<f32> {
    let n = parameter.shape.elements();
    let data = match parameter.init {
        Init::Ones => vec![1.0; n],
        Init::Zeros => vec![0.0; n],
        Init::Normal(deviation) => (0..n as u32).map(|i| deviation * normal([seed, index as u32], i)).collect(),
    };
    HostTensor::floats(parameter.shape.clone(), data)
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
    config: &Config,
    parameters: &[Parameter],
    engine: &Engine,
    tokenizer: Option<&Tokenizer>,
    dtype: StoredType,
) -> Result<(), ModelError> {
    save_as(folder, config, parameters, engine, tokenizer, dtype, &str::to_owned)
}

/// The same, where `variable` tells the name that a parameter has in `engine`.
///
/// # Errors
/// As [`save`].
pub fn save_as(
    folder: &Path,
    config: &Config,
    parameters: &[Parameter],
    engine: &Engine,
    tokenizer: Option<&Tokenizer>,
    dtype: StoredType,
    variable: &dyn Fn(&str) -> String,
) -> Result<(), ModelError> {
    let mut tensors = Vec::new();
    for parameter in parameters {
        let Some(value) = engine.get(&variable(&parameter.name))? else { continue };
        let bytes: Vec<u8> = match dtype {
            StoredType::F16 => value.f().iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect(),
            StoredType::BF16 => value.f().iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect(),
            _ => bytemuck::cast_slice(value.f()).to_vec(),
        };
        let stored = if matches!(dtype, StoredType::F16 | StoredType::BF16) { dtype } else { StoredType::F32 };
        tensors.push((parameter.name.clone(), stored, parameter.shape.0.clone(), Cow::Owned(bytes)));
    }
    let mut value = config.to_json().map_err(|e| ConfigError { path: folder.join("config.json"), reason: e.to_string() })?;
    value["dtype"] = match dtype {
        StoredType::F16 => "float16",
        StoredType::BF16 => "bfloat16",
        _ => "float32",
    }
    .into();
    Ok(checkpoint::save_folder(folder, &value, &tensors, tokenizer)?)
}
