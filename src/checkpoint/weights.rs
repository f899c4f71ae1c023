//! The weights of a Hugging Face folder: one file, or several with an index.

use super::{CheckpointError, SafeTensorsFile, TensorRef, tensors::missing};
use std::{collections::BTreeMap, fs, path::Path};

const ONE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// The weights of a model, by name, still in their files.
pub struct Weights {
    place: String,
    files: Vec<SafeTensorsFile>,
    /// Which file holds a tensor.
    which: BTreeMap<String, usize>,
}

impl Weights {
    /// Opens the weights in `folder`.
    ///
    /// # Errors
    /// There are none, or a file is damaged or does not hold what the index says.
    pub fn open(folder: &Path) -> Result<Self, CheckpointError> {
        let place = folder.display().to_string();
        if folder.join(ONE).exists() {
            return Ok(Self::new(place, SafeTensorsFile::open(&folder.join(ONE))?));
        }
        if folder.join(INDEX).exists() {
            return Self::sharded(folder);
        }
        if folder.join("pytorch_model.bin").exists() {
            return Err(CheckpointError::damaged(
                place,
                "it holds pytorch_model.bin, which is not read (it is a program, not data). Convert it: python -c \
                 \"from transformers import AutoModelForCausalLM as M; M.from_pretrained('OLD').save_pretrained('NEW')\"",
            ));
        }
        Err(CheckpointError::damaged(place, format!("there is neither {ONE} nor {INDEX} in it")))
    }

    /// Weights that are in the program. `place` is their name in errors.
    ///
    /// # Errors
    /// They are damaged.
    pub fn from_static(place: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        Ok(Self::new(place.to_owned(), SafeTensorsFile::from_static(place, bytes)?))
    }

    /// None at all: those of a model whose file is of another kind.
    pub fn none(place: String) -> Self {
        Self { place, files: Vec::new(), which: BTreeMap::new() }
    }

    fn new(place: String, file: SafeTensorsFile) -> Self {
        let which = file.names().map(|name| (name.to_owned(), 0)).collect();
        Self { place, files: vec![file], which }
    }

    fn sharded(folder: &Path) -> Result<Self, CheckpointError> {
        let path = folder.join(INDEX);
        let fail = |reason: String| CheckpointError::damaged(path.display(), reason);
        let text = fs::read_to_string(&path).map_err(|source| CheckpointError::Io { path: path.clone(), source })?;
        let value: serde_json::Value = serde_json::from_str(&text).map_err(|e| fail(e.to_string()))?;
        let map = value["weight_map"].as_object().ok_or_else(|| fail("there is no weight_map in it".into()))?;
        let (mut names, mut files, mut which) = (Vec::new(), Vec::new(), BTreeMap::new());
        for (tensor, shard) in map {
            let shard = shard.as_str().ok_or_else(|| fail(format!("{tensor}: the file's name is no text")))?;
            // Only a file of this folder: an index from elsewhere must not make us read other files.
            if shard.contains(['/', '\\']) || !shard.ends_with(".safetensors") {
                return Err(fail(format!("{tensor}: {shard:?} is not the name of a safetensors file beside it")));
            }
            let place = match names.iter().position(|n| n == shard) {
                Some(place) => place,
                None => {
                    files.push(SafeTensorsFile::open(&folder.join(shard))?);
                    names.push(shard.to_owned());
                    files.len() - 1
                }
            };
            if !files[place].contains(tensor) {
                return Err(fail(format!("{tensor} should be in {shard}, and is not")));
            }
            which.insert(tensor.clone(), place);
        }
        Ok(Self { place: folder.display().to_string(), files, which })
    }

    /// Whether there is a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.which.contains_key(name)
    }

    /// Names of the tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.which.keys().map(String::as_str)
    }

    /// The tensor `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn get(&self, name: &str) -> Result<TensorRef<'_>, CheckpointError> {
        match self.which.get(name) {
            Some(&file) => self.files[file].tensor(name),
            None => Err(missing(&self.place, name, self.names())),
        }
    }
}
