//! Safetensors in and out, for `forward` and `backward`.

use shaderlm::{
    checkpoint::{SafeTensorsFile, StoredType, write_safetensors},
    ops::{HostTensor, IGNORE},
};
use std::{borrow::Cow, collections::BTreeMap, error::Error, path::Path};

/// Token ids `[batch, time]`, and what may come with them.
pub struct Input {
    pub batch: usize,
    pub time: usize,
    pub ids: Vec<u32>,
    /// 1 for text, 0 for padding.
    pub mask: Option<Vec<u32>>,
    /// As transformers has them: aligned with the ids, -100 (here [`IGNORE`]) not counted.
    pub labels: Option<Vec<u32>>,
}

/// Reads `input_ids`, `attention_mask` and `labels`, and checks them against the vocabulary and context.
pub fn read_input(path: &Path, vocab: usize, context: usize) -> Result<Input, Box<dyn Error>> {
    let file = SafeTensorsFile::open(path)?;
    let place = path.display();
    let ids = file.tensor("input_ids")?;
    let [batch, time] = ids.shape[..] else {
        return Err(format!("{place}: input_ids is {:?}; it must be [batch, time]", ids.shape).into());
    };
    if batch == 0 || time == 0 {
        return Err(format!("{place}: input_ids is empty").into());
    }
    if time > context {
        return Err(format!("{place}: input_ids has {time} tokens a row; the model's context is {context}").into());
    }
    let integers = |name: &str| -> Result<Option<Vec<i64>>, Box<dyn Error>> {
        if !file.contains(name) {
            return Ok(None);
        }
        let tensor = file.tensor(name)?;
        if tensor.shape != [batch, time] {
            return Err(format!("{place}: {name} is {:?}, and input_ids is [{batch}, {time}]", tensor.shape).into());
        }
        Ok(Some(tensor.to_i64()?))
    };
    let checked = |name: &str, values: Vec<i64>| -> Result<Vec<u32>, Box<dyn Error>> {
        values
            .into_iter()
            .enumerate()
            .map(|(i, id)| match u32::try_from(id) {
                Ok(id) if (id as usize) < vocab => Ok(id),
                _ if name == "labels" && id == -100 => Ok(IGNORE),
                _ => Err(format!(
                    "{place}: {name}[{}, {}] is {id}; the vocabulary has ids 0 to {}",
                    i / time,
                    i % time,
                    vocab - 1
                )
                .into()),
            })
            .collect()
    };
    Ok(Input {
        batch,
        time,
        ids: checked("input_ids", integers("input_ids")?.unwrap_or_default())?,
        mask: integers("attention_mask")?.map(|m| m.into_iter().map(|x| u32::from(x != 0)).collect()),
        labels: match integers("labels")? {
            Some(labels) => Some(checked("labels", labels)?),
            None => None,
        },
    })
}

/// Writes float tensors.
pub fn write_output(path: &Path, tensors: &[(String, HostTensor<f32>)]) -> Result<(), Box<dyn Error>> {
    let list: Vec<_> = tensors
        .iter()
        .map(|(name, value)| {
            let bytes: &[u8] = bytemuck::cast_slice(value.f());
            (name.clone(), StoredType::F32, value.shape.0.clone(), Cow::Borrowed(bytes))
        })
        .collect();
    Ok(write_safetensors(path, &list, &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))?)
}
