//! A GPT-2's weights in narrow storage: as the file has them, or as is asked for when they are loaded. Only matrices that products
//! read are; what else there is stays in 32 bits.

use super::{
    Config, ConfigError, Gpt2Config, Model, ModelError, Parameter,
    gpt2::{parameters, product_dimension},
    load::Source,
};
use crate::{
    checkpoint::{StoredType, TensorRef},
    graph::Engine,
    ops::{Format, HostTensor, Packed, Packing, Parts},
};
use half::f16;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::Path;

/// What weights are stored as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum WeightFormat {
    /// 32-bit floats
    F32,
    /// 16-bit floats
    F16,
    /// The upper half of 32-bit floats
    Bf16,
    /// 8 bits, and a 16-bit scale for each block of 32 or 64
    Q8,
    /// 4 bits, and a 16-bit scale and minimum for each block of 32 or 64
    Q4,
}

impl WeightFormat {
    /// With blocks of `group`, where there are any.
    pub fn of(self, group: usize) -> Format {
        match self {
            Self::F32 => Format::F32,
            Self::F16 => Format::F16,
            Self::Bf16 => Format::Bf16,
            Self::Q8 => Format::Q8 { group },
            Self::Q4 => Format::Q4 { group },
        }
    }
}

/// `quantization` in config.json: the tensor NAME is there as NAME.q8 (I8 `[rows, k]`) or NAME.q4 (U8 `[rows, k/2]`), with NAME.scale
/// and, of q4, NAME.min (F16 `[rows, k/group]`), where products add up along k. Tensors that are there by their own name are as
/// ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quantization {
    /// Whose: `shaderlm`.
    method: Method,
    /// `q8` or `q4`.
    weights: Bits,
    /// Numbers in a block: 32 or 64.
    group: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Method {
    Shaderlm,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Bits {
    Q8,
    Q4,
}

impl Quantization {
    /// What `format` is as `quantization`; `None` if it is not quantised.
    pub fn new(format: Format) -> Option<Self> {
        let weights = match format {
            Format::Q8 { .. } => Bits::Q8,
            Format::Q4 { .. } => Bits::Q4,
            _ => return None,
        };
        Some(Self { method: Method::Shaderlm, weights, group: format.group() })
    }

    /// The format.
    pub fn format(self) -> Format {
        match self.weights {
            Bits::Q8 => Format::Q8 { group: self.group },
            Bits::Q4 => Format::Q4 { group: self.group },
        }
    }

    /// Reads it, if it is there.
    pub(super) fn read(path: &Path, value: &Value, config: &Config) -> Result<Option<Self>, ConfigError> {
        let fail = |reason: String| ConfigError { path: path.to_owned(), reason };
        if let Some(foreign) = value.get("quantization_config").filter(|foreign| !foreign.is_null()) {
            let method = foreign.get("quant_method").and_then(Value::as_str).unwrap_or("another program");
            return Err(fail(format!(
                "its weights are quantised by {method}, which is not supported; shaderlm quantize makes what is"
            )));
        }
        let Some(found) = value.get("quantization").filter(|found| !found.is_null()) else { return Ok(None) };
        let read: Self = serde_json::from_value(found.clone()).map_err(|e| fail(format!("quantization: {e}")))?;
        if ![32, 64].contains(&read.group) {
            return Err(fail(format!("quantization: blocks of {} are not supported; 32 and 64 are", read.group)));
        }
        match config {
            Config::Gpt2(_) => Ok(Some(read)),
            other => Err(fail(format!("quantization: that of a {} is not supported; that of a gpt2 is", other.kind()))),
        }
    }
}

/// The names of the parts of the quantised tensor `name`.
pub(super) fn part_names(name: &str, format: Format) -> [String; 3] {
    [format!("{name}.{}", format.word()), format!("{name}.scale"), format!("{name}.min")]
}

/// A parameter as it is stored.
pub enum Weight {
    /// In 32 bits.
    Floats(HostTensor<f32>),
    /// In narrow storage, or in 32 bits along the rows of products.
    Packed(Packed),
}

impl Model {
    /// The format in which the file has the matrix `parameter`.
    pub(super) fn stored_format(&self, parameter: &Parameter) -> Format {
        if let Source::Gguf(file) = &self.source {
            return self.gguf_format(file, parameter);
        }
        if let Some(quantization) = self.quantization {
            let format = quantization.format();
            if self.stored_name(&part_names(&parameter.name, format)[0]).is_some() {
                return format;
            }
        }
        let stored = self.stored_name(&parameter.name).and_then(|name| self.weights.get(&name).ok());
        match stored.map(|stored| stored.dtype) {
            Some(StoredType::F16) => Format::F16,
            Some(StoredType::BF16) => Format::Bf16,
            _ => Format::F32,
        }
    }

    /// The weights of `parameter` in the format `wanted`, or else as they are stored. A matrix whose rows are not made of whole
    /// blocks is given in 16 bits instead of a quantised format.
    ///
    /// # Errors
    /// They are not there, have another shape or type, or are beyond what the format holds.
    pub fn narrow(&self, parameter: &Parameter, wanted: Option<Format>) -> Result<Weight, ModelError> {
        let Some(along) = product_dimension(&parameter.name) else { return Ok(Weight::Floats(self.floats(parameter)?)) };
        let fail = |reason: String| ModelError::Weight { place: self.place.clone(), name: parameter.name.clone(), reason };
        let stored = self.stored_format(parameter);
        let wanted = wanted.unwrap_or(stored);
        let packing = |format| Packing::new(format, &parameter.shape, along).map_err(|e| fail(e.to_string()));
        let values = match &self.source {
            Source::Gguf(file) if stored == wanted && stored.scaled() => {
                return Ok(Weight::Packed(self.gguf_packed(file, parameter, packing(stored)?)?));
            }
            Source::Folder(_) if stored.scaled() => {
                let packed = self.quantised(parameter, packing(stored)?)?;
                if stored == wanted {
                    return Ok(Weight::Packed(packed));
                }
                packed.unpack()
            }
            _ => self.floats(parameter)?.f().to_vec(),
        };
        let packing = packing(wanted).or_else(|_| packing(Format::F16))?;
        Packed::pack(packing, &values).map(Weight::Packed).map_err(|e| fail(e.to_string()))
    }

    /// A quantised tensor of the file.
    fn quantised(&self, parameter: &Parameter, packing: Packing) -> Result<Packed, ModelError> {
        let names = part_names(&parameter.name, packing.format);
        let four = matches!(packing.format, Format::Q4 { .. });
        let (rows, k, blocks) = (packing.rows, packing.k, packing.k / packing.format.group());
        let part = |name: &str, dtype: StoredType, width: usize| -> Result<TensorRef<'_>, ModelError> {
            let stored = self.weights.get(&self.stored_name(name).unwrap_or_else(|| name.to_owned()))?;
            if stored.shape != [rows, width] || stored.dtype != dtype {
                return Err(ModelError::Weight {
                    place: self.place.clone(),
                    name: name.to_owned(),
                    reason: format!(
                        "it is {:?} of {}, and config.json wants {:?} of {dtype}",
                        stored.shape,
                        stored.dtype,
                        [rows, width]
                    ),
                });
            }
            Ok(stored)
        };
        let halves = |name: &str| -> Result<Vec<f16>, ModelError> {
            let bytes = part(name, StoredType::F16, blocks)?.bytes;
            Ok(bytes.as_chunks().0.iter().map(|&bytes| f16::from_le_bytes(bytes)).collect())
        };
        let weights = if four { part(&names[0], StoredType::U8, k / 2)? } else { part(&names[0], StoredType::I8, k)? };
        let parts = Parts {
            weights: weights.bytes.to_vec(),
            scales: halves(&names[1])?,
            minima: if four { halves(&names[2])? } else { Vec::new() },
        };
        Packed::from_parts(packing, &parts).map_err(|e| ModelError::Weight {
            place: self.place.clone(),
            name: parameter.name.clone(),
            reason: e.to_string(),
        })
    }

    /// Puts a GPT-2's weights into `engine`'s variables, its matrices in the format `wanted`, or else as they are stored, along the
    /// rows of products.
    ///
    /// # Errors
    /// As [`narrow`](Self::narrow).
    pub fn upload_narrow(&self, engine: &mut Engine, config: &Gpt2Config, wanted: Option<Format>) -> Result<(), ModelError> {
        for parameter in parameters(config) {
            match self.narrow(&parameter, wanted)? {
                Weight::Floats(value) => engine.set(&parameter.name, &value)?,
                Weight::Packed(value) => engine.set_packed(&parameter.name, &value)?,
            }
        }
        Ok(())
    }
}
