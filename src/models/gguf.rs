//! A GPT-2 from llama.cpp's GGUF file: its configuration, tokenizer and weights. llama.cpp stores the weights of linear layers
//! `[out, in]`, the other way round than OpenAI.

use super::{
    Config, ConfigError, Gpt2Config, Model, ModelError, Parameter, gpt2::product_dimension, load::Source, stack::stored_layer,
};
use crate::{
    checkpoint::{BlockType, CheckpointError, Gguf, GgufTensor, GgufValue, Weights},
    ops::{Format, HostTensor, Packed, Packing},
    text::{TextError, Tokenizer},
};
use std::path::Path;

/// What llama.cpp calls the parts of a block, beside our names.
const PARTS: [(&str, &str); 6] = [
    ("ln_1", "attn_norm"),
    ("attn.c_attn", "attn_qkv"),
    ("attn.c_proj", "attn_output"),
    ("ln_2", "ffn_norm"),
    ("mlp.c_fc", "ffn_up"),
    ("mlp.c_proj", "ffn_down"),
];

/// llama.cpp's name of the parameter `name`.
fn gguf_name(name: &str) -> String {
    for (ours, theirs) in [
        ("transformer.wte.", "token_embd."),
        ("transformer.wpe.", "position_embd."),
        ("transformer.ln_f.", "output_norm."),
        ("lm_head.", "output."),
    ] {
        if let Some(rest) = name.strip_prefix(ours) {
            return format!("{theirs}{rest}");
        }
    }
    let block = name.strip_prefix("transformer.h.").and_then(|rest| rest.split_once('.'));
    let found = block.and_then(|(layer, rest)| {
        PARTS.iter().find_map(|(ours, theirs)| {
            let end = rest.strip_prefix(ours)?.strip_prefix('.')?;
            Some(format!("blk.{layer}.{theirs}.{end}"))
        })
    });
    found.unwrap_or_else(|| name.to_owned())
}

/// The configuration that the metadata and the token table give.
fn config(file: &Gguf) -> Result<Gpt2Config, String> {
    let number = |key: &str| file.number(&format!("gpt2.{key}")).map(|n| n as usize).map_err(|e| e.to_string());
    let architecture = file.text("general.architecture").map_err(|e| e.to_string())?;
    if architecture != "gpt2" {
        return Err(format!(
            "general.architecture is {:?}; gpt2 is supported",
            architecture.chars().take(40).collect::<String>()
        ));
    }
    let table = file.tensor("token_embd.weight").map_err(|e| e.to_string())?;
    let n_embd = number("embedding_length")?;
    let [vocab_size, width] = *table.shape else { return Err(format!("token_embd.weight is {:?}, no table", table.shape)) };
    if width != n_embd {
        return Err(format!("token_embd.weight is {:?}, and gpt2.embedding_length is {n_embd}", table.shape));
    }
    let epsilon = match file.get("gpt2.attention.layer_norm_epsilon") {
        Some(GgufValue::Float(epsilon)) => *epsilon as f32,
        other => return Err(format!("gpt2.attention.layer_norm_epsilon must be a float, and is {other:?}")),
    };
    let token =
        |key: &str| file.get(&format!("tokenizer.ggml.{key}")).and_then(|_| file.number(&format!("tokenizer.ggml.{key}")).ok());
    // A head that is a copy of the table is the table.
    let tied = file
        .tensor("output.weight")
        .ok()
        .is_none_or(|head| (head.kind, head.shape, head.bytes) == (table.kind, table.shape, table.bytes));
    let config = Gpt2Config {
        vocab_size,
        n_positions: number("context_length")?,
        n_embd,
        n_layer: number("block_count")?,
        n_head: number("attention.head_count")?,
        n_inner: Some(number("feed_forward_length")?),
        layer_norm_epsilon: epsilon,
        tie_word_embeddings: tied,
        bos_token_id: token("bos_token_id"),
        eos_token_id: token("eos_token_id"),
        ..Gpt2Config::default()
    };
    config.check()?;
    Ok(config)
}

/// The tokenizer in the file.
pub(super) fn tokenizer(file: &Gguf, place: &str) -> Result<Tokenizer, ModelError> {
    let kind = file.text("tokenizer.ggml.model")?;
    if kind != "gpt2" {
        let kind: String = kind.chars().take(40).collect();
        let reason = format!("its tokenizer is of the kind {kind:?}; gpt2 is supported");
        return Err(CheckpointError::Damaged { place: place.to_owned(), reason }.into());
    }
    let tokens = file.texts("tokenizer.ggml.tokens")?;
    Ok(Tokenizer::from_tokens(tokens, file.texts("tokenizer.ggml.merges")?, place).map_err(|error: TextError| error)?)
}

impl Model {
    /// Opens a GGUF file.
    pub(super) fn open_gguf(path: &Path) -> Result<Self, ModelError> {
        let file = Gguf::open(path)?;
        let config = config(&file).map_err(|reason| ConfigError { path: path.to_owned(), reason })?;
        let place = path.display().to_string();
        let weights = Weights::none(place.clone());
        let source = Source::Gguf(Box::new(file));
        Ok(Self { config: Config::Gpt2(config), weights, place, source, quantization: None, layers: None })
    }

    /// The tensor of a parameter, whose shape must be the one that config.json would say, or of linear layers the other way round.
    pub(super) fn gguf_tensor<'a>(&self, file: &'a Gguf, parameter: &Parameter) -> Result<GgufTensor<'a>, ModelError> {
        let name = self.layers.map_or_else(|| parameter.name.clone(), |layers| stored_layer(&parameter.name, layers));
        let name = gguf_name(&name);
        let tensor = file.tensor(&name)?;
        let mut wanted = parameter.shape.0.clone();
        if product_dimension(&parameter.name) == Some(0) {
            wanted.reverse();
        }
        if tensor.shape != wanted {
            return Err(ModelError::Weight {
                place: self.place.clone(),
                name,
                reason: format!("its shape is {:?}, and the metadata want {wanted:?}", tensor.shape),
            });
        }
        Ok(tensor)
    }

    /// The weights of a parameter, as f32.
    pub(super) fn gguf_floats(&self, file: &Gguf, parameter: &Parameter) -> Result<HostTensor<f32>, ModelError> {
        let tensor = self.gguf_tensor(file, parameter)?;
        let values = tensor.to_f32();
        let values = if product_dimension(&parameter.name) == Some(0) {
            let [rows, k] = *tensor.shape else { return Ok(HostTensor::floats(parameter.shape.clone(), values)) };
            (0..rows * k).map(|i| values[i % rows * k + i / rows]).collect()
        } else {
            values
        };
        Ok(HostTensor::floats(parameter.shape.clone(), values))
    }

    /// The format that holds a parameter's blocks, or else 16 bits; 32 where it has them.
    pub(super) fn gguf_format(&self, file: &Gguf, parameter: &Parameter) -> Format {
        match self.gguf_tensor(file, parameter).map(|tensor| tensor.kind) {
            Ok(BlockType::Q8_0) => Format::Q8 { group: 32 },
            Ok(BlockType::Q4_0 | BlockType::Q4_1 | BlockType::Q4K) => Format::Q4 { group: 32 },
            Ok(BlockType::Bf16) => Format::Bf16,
            Ok(BlockType::F16 | BlockType::Q5_0 | BlockType::Q5_1 | BlockType::Q5K | BlockType::Q6K) => Format::F16,
            _ => Format::F32,
        }
    }

    /// A parameter's blocks as they are.
    pub(super) fn gguf_packed(&self, file: &Gguf, parameter: &Parameter, packing: Packing) -> Result<Packed, ModelError> {
        let fail = |reason: String| ModelError::Weight { place: self.place.clone(), name: parameter.name.clone(), reason };
        let packed = self.gguf_tensor(file, parameter)?.packed(packing).map_err(|e| fail(e.to_string()))?;
        packed.ok_or_else(|| fail(format!("its blocks are no {}", packing.format)))
    }
}

#[cfg(test)]
mod tests {
    use super::gguf_name;

    #[test]
    fn names_are_llama_cpps() {
        for (ours, theirs) in [
            ("transformer.wte.weight", "token_embd.weight"),
            ("transformer.wpe.weight", "position_embd.weight"),
            ("transformer.h.11.attn.c_attn.bias", "blk.11.attn_qkv.bias"),
            ("transformer.h.0.mlp.c_proj.weight", "blk.0.ffn_down.weight"),
            ("transformer.h.3.ln_2.weight", "blk.3.ffn_norm.weight"),
            ("transformer.ln_f.bias", "output_norm.bias"),
            ("lm_head.weight", "output.weight"),
        ] {
            assert_eq!(gguf_name(ours), theirs);
        }
    }
}
