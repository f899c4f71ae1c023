//! Safetensors in and out, for `forward` and `backward`.

use shaderlm::{
    checkpoint::{SafeTensorsFile, StoredType, write_safetensors},
    models::{Config, Head, Inputs, Model},
    ops::{HostTensor, IGNORE},
};
use std::{borrow::Cow, collections::BTreeMap, error::Error, path::Path};

/// Token ids `[batch, time]` (or `[batch, choices, time]`), and what comes with them.
pub struct Input {
    file: SafeTensorsFile,
    place: String,
    shape: Vec<usize>,
    pub ids: Vec<u32>,
    /// 1 for text, 0 for padding.
    pub mask: Option<Vec<u32>>,
    /// Segments.
    pub types: Option<Vec<u32>>,
}

impl Input {
    /// Reads `input_ids`, `attention_mask` and `token_type_ids`, and checks them against the model.
    pub fn read(path: &Path, model: &Model, head: Head) -> Result<Self, Box<dyn Error>> {
        let file = SafeTensorsFile::open(path)?;
        let place = path.display().to_string();
        let ids = file.tensor("input_ids")?;
        let wanted = if head.chooses() { "[batch, choices, time]" } else { "[batch, time]" };
        let shape = ids.shape.clone();
        if shape.len() != 2 + usize::from(head.chooses()) {
            return Err(format!("{place}: input_ids is {shape:?}; it must be {wanted}").into());
        }
        if shape.contains(&0) {
            return Err(format!("{place}: input_ids is empty").into());
        }
        let (time, context) = (shape[shape.len() - 1], model.config.positions());
        if time > context {
            return Err(format!("{place}: input_ids has {time} tokens a row; the model's context is {context}").into());
        }
        let ids = ids.to_i64()?;
        let mut input = Self { file, place, shape, ids: Vec::new(), mask: None, types: None };
        input.ids = input.below("input_ids", ids, model.config.vocab_size(), true)?;
        input.mask = input.integers("attention_mask")?.map(|m| m.into_iter().map(|x| u32::from(x != 0)).collect());
        let types = match &model.config {
            Config::Gpt2(_) | Config::DistilBert(_) => 0,
            Config::Bert(config) => config.type_vocab_size,
            Config::Albert(config) => config.type_vocab_size,
            Config::Electra(config) => config.type_vocab_size,
        };
        if let Some(values) = input.integers("token_type_ids")? {
            if types == 0 {
                return Err(
                    format!("{}: there are token_type_ids, which a {} does not have", input.place, model.config.kind()).into()
                );
            }
            input.types = Some(input.below("token_type_ids", values, types, true)?);
        }
        Ok(input)
    }

    /// Its sizes.
    pub fn inputs(&self) -> Inputs {
        let time = self.shape[self.shape.len() - 1];
        Inputs {
            rows: self.shape[..self.shape.len() - 1].iter().product(),
            time,
            choices: if self.shape.len() == 3 { self.shape[1] } else { 1 },
            mask: self.mask.is_some(),
            types: self.types.is_some(),
        }
    }

    /// Integers of the same shape as `input_ids`.
    fn integers(&self, name: &str) -> Result<Option<Vec<i64>>, Box<dyn Error>> {
        if !self.file.contains(name) {
            return Ok(None);
        }
        let tensor = self.file.tensor(name)?;
        if tensor.shape != self.shape {
            return Err(format!("{}: {name} is {:?}, and input_ids is {:?}", self.place, tensor.shape, self.shape).into());
        }
        Ok(Some(tensor.to_i64()?))
    }

    /// Checks that integers, one for each of the tokens or else for each text, are below `limit`; labels may also be -100, here
    /// [`IGNORE`].
    fn below(&self, name: &str, values: Vec<i64>, limit: usize, tokens: bool) -> Result<Vec<u32>, Box<dyn Error>> {
        let labels = !["input_ids", "token_type_ids"].contains(&name);
        let time = self.shape[self.shape.len() - 1];
        let check = |(i, id): (usize, i64)| match u32::try_from(id) {
            Ok(id) if (id as usize) < limit => Ok(id),
            _ if labels && id == -100 => Ok(IGNORE),
            _ => {
                let place = if tokens { format!("{}, {}", i / time, i % time) } else { i.to_string() };
                let what = if name == "input_ids" { "the vocabulary has ids" } else { "there are" };
                Err(format!("{}: {name}[{place}] is {id}; {what} 0 to {}", self.place, limit - 1).into())
            }
        };
        values.iter().copied().enumerate().map(check).collect()
    }

    /// The labels `name` that the loss of `head` takes.
    pub fn labels(&self, name: &str, config: &Config, head: Head) -> Result<HostTensor<f32>, Box<dyn Error>> {
        let (batch, time) = (self.shape[0], self.shape[self.shape.len() - 1]);
        // transformers calls the labels of a next-sentence head by either name.
        let name = if name == "labels" && head == Head::NextSentence && !self.file.contains(name) {
            "next_sentence_label"
        } else {
            name
        };
        if !self.file.contains(name) {
            return Err(format!("{}: there is no tensor {name}, which backward needs", self.place).into());
        }
        let tensor = self.file.tensor(name)?;
        let rest = config.rest();
        let tokens = matches!(config, Config::Gpt2(_))
            || matches!(head, Head::MaskedLm | Head::Tokens | Head::Replaced)
            || (head == Head::PreTraining && name == "labels");
        let shape = if tokens { vec![batch, time] } else { vec![batch] };
        // A number a text may come as [batch, 1].
        if tensor.shape != shape && tensor.shape != [&shape[..], &[1]].concat() {
            return Err(format!("{}: {name} is {:?}; it must be {shape:?}", self.place, tensor.shape).into());
        }
        if head == Head::Sequence && rest.is_some_and(shaderlm::models::Rest::regression) {
            return Ok(HostTensor::floats(shape, tensor.to_f32()?));
        }
        let values = tensor.to_i64()?;
        if head == Head::Questions {
            // As in transformers: places beyond the text are not counted.
            let places = values.into_iter().map(|at| if at >= time as i64 { IGNORE } else { at.max(0) as u32 });
            return Ok(HostTensor::uints(shape, places.collect()));
        }
        let limit = match head {
            _ if matches!(config, Config::Gpt2(_)) => config.vocab_size(),
            Head::NextSentence | Head::Replaced => 2,
            Head::PreTraining if name != "labels" => 2,
            Head::Sequence | Head::Tokens => rest.map_or(2, shaderlm::models::Rest::labels),
            Head::Choice => self.inputs().choices,
            _ => config.vocab_size(),
        };
        Ok(HostTensor::uints(shape, self.below(name, values, limit, tokens)?))
    }
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
