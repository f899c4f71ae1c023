//! A GPT-2's folder with weights in narrow storage.

use super::{
    ConfigError, Model, ModelError, Parameter,
    gpt2::{HEAD, parameters, product_dimension},
    load::Source,
    narrow::{Quantization, Weight, part_names},
};
use crate::{
    checkpoint::{self, CheckpointError, StoredTensor, StoredType, write_atomic},
    ops::{Format, Packed},
};
use half::{bf16, f16};
use std::{
    borrow::Cow,
    fs::{self, File},
    io,
    path::Path,
};

/// What is kept in 16 bits when the rest is quantised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Kept {
    /// The matrix that makes logits, which is the token table where these are tied
    Head,
    /// The token table
    Embeddings,
}

impl Kept {
    fn holds(self, name: &str, tied: bool) -> bool {
        match self {
            Self::Head => name == HEAD[usize::from(!tied)],
            Self::Embeddings => name == HEAD[0],
        }
    }
}

/// What became of a tensor.
#[derive(Debug, Clone)]
pub struct Quantized {
    /// Its name.
    pub name: String,
    /// Bytes in the file before.
    pub before: u64,
    /// And after.
    pub after: u64,
    /// What it is now stored as.
    pub format: String,
    /// The root of the sum of squared differences, as a part of that of squares.
    pub error: f64,
}

/// Writes `model` into the folder `out`, its matrices in `format`, or in 16 bits where `kept` says so or rows are not made of whole
/// blocks, and copies the other files of its folder. `progress` is told how many tensors are done, and of how many.
///
/// # Errors
/// It is no GPT-2, is quantised already, or a weight is damaged or beyond what the format holds; `out` cannot be written, or is the
/// model's own folder.
pub fn quantize(
    model: &Model,
    out: &Path,
    format: Format,
    kept: &[Kept],
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Vec<Quantized>, ModelError> {
    let config = model.gpt2()?;
    if let Some(quantization) = model.quantization {
        let format = quantization.format().to_string();
        return Err(ModelError::Quantised { place: model.place.clone(), format });
    }
    let same = |folder: &Path| fs::canonicalize(folder).ok().zip(fs::canonicalize(out).ok()).is_some_and(|(a, b)| a == b);
    if model.folder().is_some_and(same) {
        return Err(CheckpointError::Model {
            model: model.place.clone(),
            reason: "--out is the same folder; give another, so that nothing is lost".into(),
        }
        .into());
    }
    let list = parameters(config);
    let (mut tensors, mut report): (Vec<StoredTensor<'_>>, _) = (Vec::new(), Vec::new());
    let mut any = false;
    for (done, parameter) in list.iter().enumerate() {
        let wider = kept.iter().any(|kept| kept.holds(&parameter.name, config.tie_word_embeddings));
        let format = if wider && format.scaled() { Format::F16 } else { format };
        let values = model.weight(parameter)?;
        let before = model.stored_bytes(parameter);
        let made = match (product_dimension(&parameter.name), model.narrow(parameter, Some(format))?) {
            (Some(_), Weight::Packed(packed)) => {
                let (stored, format) = (stored(parameter, &packed), packed.packing().format);
                any |= format.scaled();
                report.push(Quantized {
                    name: parameter.name.clone(),
                    before,
                    after: stored.iter().map(|tensor| tensor.3.len() as u64).sum(),
                    format: format.to_string(),
                    error: error(values.f(), &packed.unpack()),
                });
                stored
            }
            _ => {
                let (dtype, bytes) = model.as_stored(parameter, format);
                let bytes = bytes.unwrap_or_else(|| Cow::Owned(bytemuck::cast_slice(values.f()).to_vec()));
                let (name, shape, format) = (parameter.name.clone(), parameter.shape.0.clone(), dtype.to_string().to_lowercase());
                report.push(Quantized { name: name.clone(), before, after: bytes.len() as u64, format, error: 0.0 });
                vec![(name, dtype, shape, bytes)]
            }
        };
        tensors.extend(made);
        progress(done + 1, list.len());
    }
    let mut value = match &model.source {
        Source::Folder(folder) => checkpoint::read_config(folder)?,
        _ => model.config.to_json().map_err(|e| ConfigError { path: model.place.clone().into(), reason: e.to_string() })?,
    };
    value["dtype"] = match format {
        Format::F32 => "float32",
        Format::Bf16 => "bfloat16",
        _ => "float16",
    }
    .into();
    match Quantization::new(format).filter(|_| any) {
        Some(quantization) => {
            value["quantization"] = serde_json::to_value(quantization)
                .map_err(|e| ConfigError { path: out.join("config.json"), reason: e.to_string() })?;
        }
        None => drop(value.as_object_mut().and_then(|fields| fields.remove("quantization"))),
    }
    let tokenizer = match &model.source {
        Source::Folder(_) => None,
        _ => Some(model.tokenizer()?),
    };
    checkpoint::save_folder(out, &value, &tensors, tokenizer.as_ref())?;
    if let Some(folder) = model.folder() {
        copy_others(folder, out)?;
    }
    Ok(report)
}

/// A packed matrix as tensors of a file: in 16 or 32 bits as ever, `[k, rows]` where the model has it so.
fn stored(parameter: &Parameter, packed: &Packed) -> Vec<StoredTensor<'static>> {
    let packing = packed.packing();
    let (rows, k, format) = (packing.rows, packing.k, packing.format);
    let plain = |dtype, bytes: Vec<u8>| vec![(parameter.name.clone(), dtype, parameter.shape.0.clone(), Cow::Owned(bytes))];
    let bytes = |halves: &[f16]| Cow::Owned(halves.iter().flat_map(|x| x.to_le_bytes()).collect::<Vec<u8>>());
    match format {
        Format::F32 => plain(StoredType::F32, bytemuck::cast_slice(&packed.unpack()).to_vec()),
        Format::F16 => plain(StoredType::F16, packed.unpack().iter().flat_map(|&x| f16::from_f32(x).to_le_bytes()).collect()),
        Format::Bf16 => plain(StoredType::BF16, packed.unpack().iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes()).collect()),
        Format::Q8 { group } | Format::Q4 { group } => {
            let (parts, [weights, scale, min]) = (packed.parts(), part_names(&parameter.name, format));
            let blocks = vec![rows, k / group];
            let eight = matches!(format, Format::Q8 { .. });
            let (dtype, width) = if eight { (StoredType::I8, k) } else { (StoredType::U8, k / 2) };
            let mut tensors = vec![
                (weights, dtype, vec![rows, width], Cow::Owned(parts.weights)),
                (scale, StoredType::F16, blocks.clone(), bytes(&parts.scales)),
            ];
            if !eight {
                tensors.push((min, StoredType::F16, blocks, bytes(&parts.minima)));
            }
            tensors
        }
    }
}

fn error(before: &[f32], after: &[f32]) -> f64 {
    let (mut off, mut size) = (0.0, 0.0);
    for (&a, &b) in before.iter().zip(after) {
        off += f64::from(a - b).powi(2);
        size += f64::from(a).powi(2);
    }
    if size > 0.0 { (off / size).sqrt() } else { off.sqrt() }
}

/// Copies what is neither weights nor config.json: the tokenizer, and whatever else there is beside them.
fn copy_others(from: &Path, to: &Path) -> Result<(), ModelError> {
    let fail = |source| CheckpointError::Io { path: from.to_owned(), source };
    for entry in fs::read_dir(from).map_err(fail)? {
        let entry = entry.map_err(fail)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let weights = [".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json", ".gguf", ".h5", ".msgpack", ".ot"];
        // A link's target is copied, as in the Hub's cache.
        let file = fs::metadata(entry.path()).is_ok_and(|about| about.is_file());
        if !file || name == "config.json" || name.starts_with('.') || weights.iter().any(|end| name.ends_with(end)) {
            continue;
        }
        let path = entry.path();
        let mut source = File::open(&path).map_err(|source| CheckpointError::Io { path, source })?;
        write_atomic(&to.join(&name), |out| io::copy(&mut source, out).map(drop))?;
    }
    Ok(())
}

impl Model {
    /// The type and the bytes of what stays as it is; no bytes where it is to be written in 32 bits.
    fn as_stored(&self, parameter: &Parameter, format: Format) -> (StoredType, Option<Cow<'_, [u8]>>) {
        let name = self.stored_name(&parameter.name).filter(|_| format != Format::F32);
        match name.and_then(|name| self.weights.get(&name).ok()) {
            Some(stored) if matches!(stored.dtype, StoredType::F16 | StoredType::BF16) => {
                (stored.dtype, Some(Cow::Borrowed(stored.bytes)))
            }
            _ => (StoredType::F32, None),
        }
    }

    /// Bytes of `parameter` in the file.
    fn stored_bytes(&self, parameter: &Parameter) -> u64 {
        if let Source::Gguf(file) = &self.source {
            return self.gguf_tensor(file, parameter).map_or(0, |tensor| tensor.bytes.len() as u64);
        }
        let name = self.stored_name(&parameter.name);
        name.and_then(|name| self.weights.get(&name).ok()).map_or(0, |stored| stored.bytes.len() as u64)
    }
}
