//! Reads the F32 tensors of a safetensors file, so that burn runs with the same numbers as the other engines.

use std::path::Path;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use serde_json::Value;

use crate::paced::Outcome;

/// A file, read whole.
pub struct Weights {
    bytes: Vec<u8>,
    header: Value,
    /// Where the data begin.
    data: usize,
    device: Device,
}

impl Weights {
    pub fn open(file: &Path, device: &Device) -> Outcome<Self> {
        let bytes = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let length = bytes.first_chunk::<8>().map(|first| u64::from_le_bytes(*first) as usize);
        let data = length.and_then(|length| length.checked_add(8));
        let data = data.filter(|&data| data <= bytes.len()).ok_or("this is no safetensors file")?;
        let header = serde_json::from_slice(&bytes[8..data])?;
        Ok(Self { bytes, header, data, device: device.clone() })
    }

    /// Puts the tensor `name`, which must have the shape of `to`, into its place.
    pub fn into<const D: usize>(&self, to: &mut Param<Tensor<D>>, name: &str) -> Outcome<()> {
        let entry = &self.header[name];
        let numbers = |value: &Value| -> Vec<usize> {
            value.as_array().into_iter().flatten().filter_map(Value::as_u64).map(|n| n as usize).collect()
        };
        let shape: [usize; D] = to.dims();
        let ends = numbers(&entry["data_offsets"]);
        let wanted = 4 * shape.iter().product::<usize>();
        let bytes = match ends[..] {
            [from, end] if end.checked_sub(from) == Some(wanted) => self.bytes.get(self.data + from..self.data + end),
            _ => None,
        };
        let bytes = bytes.filter(|_| entry["dtype"] == "F32" && numbers(&entry["shape"]) == shape);
        let bytes = bytes.ok_or_else(|| format!("{name} is not there as F32 {shape:?}"))?;
        let values: Vec<f32> = bytes.as_chunks::<4>().0.iter().map(|&four| f32::from_le_bytes(four)).collect();
        *to = Param::from_tensor(Tensor::from_data(TensorData::new(values, shape), &self.device));
        Ok(())
    }
}
