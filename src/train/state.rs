//! The state of a run, in one file that is replaced atomically: parameters, optimizer moments and the step. The data's
//! place and the random state follow from seed and step.

use super::TrainError;
use crate::{
    checkpoint::{SafeTensorsFile, StoredType, write_safetensors},
    graph::Engine,
    ops::{HostTensor, Shape},
};
use std::{borrow::Cow, collections::BTreeMap, path::Path};

/// Writes the variables `names` of `engine`, with `step` and `settings` beside them.
///
/// # Errors
/// The device fails, or the file cannot be written.
pub fn save_state(path: &Path, engine: &Engine, names: &[String], step: usize, settings: &str) -> Result<(), TrainError> {
    let mut tensors = Vec::new();
    for name in names {
        if let Some(value) = engine.get(name)? {
            let bytes = bytemuck::cast_slice(value.f()).to_vec();
            tensors.push((name.clone(), StoredType::F32, value.shape.0.clone(), Cow::Owned(bytes)));
        }
    }
    let metadata = BTreeMap::from([
        ("format".to_owned(), "pt".to_owned()),
        ("shaderlm.step".to_owned(), step.to_string()),
        ("shaderlm.settings".to_owned(), settings.to_owned()),
    ]);
    Ok(write_safetensors(path, &tensors, &metadata)?)
}

/// What differs between two lists of settings, in words.
fn differences(before: &str, now: &str) -> String {
    let (before, now): (Vec<_>, Vec<_>) = (before.split([',']).collect(), now.split([',']).collect());
    if before.len() != now.len() {
        return format!("it had {}, this one has {}", before.join(","), now.join(","));
    }
    let pairs = before.iter().zip(&now).filter(|(before, now)| before != now);
    let words: Vec<_> = pairs.map(|(before, now)| format!("it had {}, this one has {}", before.trim(), now.trim())).collect();
    words.join("; ")
}

/// Reads what [`save_state`] wrote into `engine`, and returns the step.
///
/// # Errors
/// The file is missing or damaged, lacks one of `names`, or was made with other settings.
pub fn load_state(path: &Path, engine: &mut Engine, names: &[(String, Shape)], settings: &str) -> Result<usize, TrainError> {
    let fail = |reason: String| TrainError::State { path: path.to_owned(), reason };
    let file = SafeTensorsFile::open(path)?;
    let metadata = file.metadata();
    let step = metadata
        .get("shaderlm.step")
        .and_then(|s| s.parse().ok())
        .ok_or_else(|| fail("it is no training state: there is no shaderlm.step in its header".into()))?;
    let before = metadata.get("shaderlm.settings").map(String::as_str).unwrap_or_default();
    if before != settings {
        return Err(fail(format!("the run began with other settings; {}", differences(before, settings))));
    }
    for (name, shape) in names {
        let tensor = file.tensor(name)?;
        if tensor.shape != shape.0 {
            return Err(fail(format!("{name} is {:?}, not {shape}", tensor.shape)));
        }
        engine.set(name, &HostTensor::floats(shape.clone(), tensor.to_f32()?))?;
    }
    Ok(step)
}
