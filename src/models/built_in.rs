//! The models in the repository, which are part of the binary so that they work wherever it is installed.

use super::{Config, ConfigError, Model, ModelError};
use crate::checkpoint::Weights;
use std::path::Path;

/// The files of a Hugging Face folder, within the binary.
pub struct BuiltIn {
    place: &'static str,
    config: &'static [u8],
    weights: &'static [u8],
    pub(super) tokenizer: &'static [u8],
}

macro_rules! built_in {
    ($place:literal, $folder:literal) => {
        BuiltIn {
            place: $place,
            config: include_bytes!(concat!("../../assets/", $folder, "/config.json")),
            weights: include_bytes!(concat!("../../assets/", $folder, "/model.safetensors")),
            tokenizer: include_bytes!(concat!("../../assets/", $folder, "/tokenizer.json")),
        }
    };
}

/// A GPT-2 that this engine trained on Tiny Shakespeare: see `assets/shakespeare/README.md`.
pub static SHAKESPEARE: BuiltIn = built_in!("the built-in GPT-2", "shakespeare");

/// An ALBERT that this engine trained on the King James Bible: see `assets/bible-albert/README.md`.
pub static BIBLE: BuiltIn = built_in!("the built-in ALBERT", "bible-albert");

/// An ELECTRA's discriminator that this engine trained on the King James Bible: see `assets/bible-electra/README.md`.
pub static BIBLE_ELECTRA: BuiltIn = built_in!("the built-in ELECTRA", "bible-electra");

impl Model {
    /// A model in the binary.
    ///
    /// # Errors
    /// Never, unless the build was tampered with.
    pub fn built_in(files: &'static BuiltIn) -> Result<Self, ModelError> {
        let place = files.place;
        let value =
            serde_json::from_slice(files.config).map_err(|e| ConfigError { path: place.into(), reason: e.to_string() })?;
        let config = Config::from_json(Path::new(place), &value)?;
        let weights = Weights::from_static(place, files.weights)?;
        Ok(Self {
            config,
            weights,
            place: place.into(),
            source: super::load::Source::BuiltIn(files),
            quantization: None,
            layers: None,
        })
    }

    /// The model that `--model` names, or `files`.
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn chosen(model: Option<&str>, files: &'static BuiltIn) -> Result<Self, ModelError> {
        model.map_or_else(|| Self::built_in(files), Self::open)
    }

    /// The same of a model that may also be the folder that `train electra` wrote: then its `network`, `generator` or
    /// `discriminator` (which is all that there is without a generator).
    ///
    /// # Errors
    /// As [`Model::open`].
    pub fn chosen_network(model: Option<&str>, network: &str, files: &'static BuiltIn) -> Result<Self, ModelError> {
        let Some(model) = model else { return Self::built_in(files) };
        let inner = |network: &str| Some(Path::new(model).join(network)).filter(|inner| inner.is_dir());
        let inner = inner(network).or_else(|| inner("discriminator"));
        Self::open(inner.as_deref().and_then(Path::to_str).unwrap_or(model))
    }
}
