//! What the models are built of: parameters, linear layers, layer norms, dropout, and self-attention as BERT has it.

use super::config::HiddenAct;
use crate::{
    graph::Graph,
    ops::{self, Layout, Logits, Mask, OpError, Recorder, Shape, Tensor, TensorType},
    train::ParameterType,
};

/// A parameter's name, shape and initialisation.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// Hugging Face's name.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// How it begins.
    pub init: Init,
}

/// How a parameter begins.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Normal with this standard deviation.
    Normal(f32),
    /// All ones.
    Ones,
    /// All zeros.
    Zeros,
}

impl Parameter {
    /// As the trainer takes it: weight decay applies to matrices and embeddings, not to biases and layer norms.
    pub fn trained(&self) -> ParameterType {
        ParameterType { name: self.name.clone(), shape: self.shape.clone(), decays: self.shape.rank() > 1, rate: 1.0 }
    }
}

/// A list of parameters under construction.
#[derive(Default)]
pub(super) struct Parameters {
    pub list: Vec<Parameter>,
    /// Standard deviation of matrices and embeddings.
    pub range: f32,
}

impl Parameters {
    pub fn new(range: f32) -> Self {
        Self { list: Vec::new(), range }
    }
    /// An embedding `[rows, width]`.
    pub fn table(&mut self, name: &str, rows: usize, width: usize) {
        self.add(name.into(), [rows, width].into(), Init::Normal(self.range));
    }
    /// What [`embed`] looks up in, and the layer norm after it: `prefix.word_embeddings` and so on.
    pub fn embeddings(&mut self, prefix: &str, vocab: usize, positions: usize, types: usize, width: usize) {
        self.table(&format!("{prefix}.word_embeddings.weight"), vocab, width);
        self.table(&format!("{prefix}.position_embeddings.weight"), positions, width);
        if types > 0 {
            self.table(&format!("{prefix}.token_type_embeddings.weight"), types, width);
        }
        self.norm(&format!("{prefix}.LayerNorm"), width);
    }
    /// A linear layer's weight `[out, in]`, as PyTorch has it, and its bias.
    pub fn linear(&mut self, name: &str, width: usize, out: usize) {
        self.add(format!("{name}.weight"), [out, width].into(), Init::Normal(self.range));
        self.bias(&format!("{name}.bias"), out);
    }
    /// A bias `[width]`.
    pub fn bias(&mut self, name: &str, width: usize) {
        self.add(name.into(), [width].into(), Init::Zeros);
    }
    /// A layer norm's gain and bias `[width]`.
    pub fn norm(&mut self, name: &str, width: usize) {
        self.add(format!("{name}.weight"), [width].into(), Init::Ones);
        self.bias(&format!("{name}.bias"), width);
    }
    fn add(&mut self, name: String, shape: Shape, init: Init) {
        self.list.push(Parameter { name, shape, init });
    }
}

/// Dropout's rate and random state, in training.
#[derive(Clone, Copy)]
pub struct Dropout {
    /// Probability that an element is dropped.
    pub rate: f32,
    /// `[2]` u32: seed and step.
    pub rng: Tensor,
}

/// How a model is recorded.
#[derive(Clone, Copy, Default)]
pub struct Mode {
    /// Dropout on embeddings and on what is added to the residual stream.
    pub dropout: Option<Dropout>,
    /// Recompute each block's activations in the backward pass.
    pub recompute: bool,
    /// Added to the numbers of dropout's places, so that two networks in one graph drop differently.
    pub first_place: usize,
}

impl Mode {
    /// Drops elements of `x` in training; `stream` tells the places where this is done from each other.
    pub(super) fn drop(&self, g: &mut Graph, x: Tensor, stream: usize) -> Result<Tensor, OpError> {
        match self.dropout {
            Some(Dropout { rate, rng }) if rate > 0.0 => ops::dropout(g, x, rate, (self.first_place + stream) as u32, rng),
            _ => Ok(x),
        }
    }
    /// Records a block, which is recomputed in the backward pass if that is wanted.
    pub(super) fn block<T>(&self, g: &mut Graph, record: impl FnOnce(&mut Graph) -> Result<T, OpError>) -> Result<T, OpError> {
        if self.recompute { g.recomputed(record) } else { record(g) }
    }
}

/// The parameter `name`.
pub(super) fn weight(g: &mut Graph, name: &str, shape: impl Into<Shape>) -> Result<Tensor, OpError> {
    g.variable(name, TensorType::f32(shape))
}

/// A product with a weight stored `[out, in]`, as PyTorch has it.
pub(super) const TRANSPOSED: Layout = Layout { transpose_a: false, transpose_b: true, alpha: 1.0 };

/// A linear layer as PyTorch has it: `[.., in] -> [.., out]`.
pub(super) fn linear(g: &mut Graph, x: Tensor, name: &str, out: usize) -> Result<Tensor, OpError> {
    let width = g.ty(x).shape.width();
    let w = weight(g, &format!("{name}.weight"), [out, width])?;
    let bias = weight(g, &format!("{name}.bias"), [out])?;
    ops::matmul_with(g, x, w, Some(bias), TRANSPOSED)
}

/// The weights of a head over the vocabulary.
#[derive(Clone, Copy)]
pub(super) struct Decoder {
    /// `[V, width]`
    pub table: Tensor,
    /// `[V]`
    pub bias: Option<Tensor>,
}

impl Decoder {
    /// Logits `[.., V]` for rows `[.., width]`.
    pub fn logits(self, g: &mut Graph, x: Tensor) -> Result<Tensor, OpError> {
        ops::matmul_with(g, x, self.table, self.bias, TRANSPOSED)
    }

    /// The same with zeros behind them, which do not count, `[.., V']`: GPT-2's 50,257 tokens and BERT's 30,522 are not made of whole
    /// vectors, 50,304 and 30,528 are.
    pub fn whole_logits(self, g: &mut Graph, x: Tensor) -> Result<Logits, OpError> {
        let tokens = g.ty(self.table).shape.rows();
        Ok(Logits::among(self.whole(g)?.logits(g, x)?, tokens))
    }

    /// With the zeros behind its rows.
    pub fn whole(self, g: &mut Graph) -> Result<Self, OpError> {
        let table = ops::whole_rows(g, self.table)?;
        let bias = self.bias.map(|bias| ops::whole_rows(g, bias)).transpose()?;
        Ok(Self { table, bias })
    }
}

/// A layer norm over the last dimension.
pub(super) fn norm(g: &mut Graph, x: Tensor, name: &str, epsilon: f32) -> Result<Tensor, OpError> {
    let width = g.ty(x).shape.width();
    let gamma = weight(g, &format!("{name}.weight"), [width])?;
    let beta = weight(g, &format!("{name}.bias"), [width])?;
    ops::layer_norm(g, x, gamma, beta, epsilon)
}

/// The activation of a feed-forward layer.
pub(super) fn activate(g: &mut Graph, x: Tensor, act: HiddenAct) -> Result<Tensor, OpError> {
    match act {
        HiddenAct::Gelu(form) => ops::gelu(g, x, form),
        HiddenAct::Relu => ops::relu(g, x),
    }
}

/// The three projections of a self-attention as one: weight `[3C, C]` and bias `[3C]`.
#[derive(Clone, Copy)]
pub(super) struct Qkv {
    weight: Tensor,
    bias: Tensor,
}

impl Qkv {
    /// Puts the layers `names` (query, key, value), each `[C, C]`, one after another. Their gradients are parts of the
    /// whole's. Recorded once, however many layers share it.
    pub fn join(g: &mut Graph, names: [String; 3], width: usize) -> Result<Self, OpError> {
        let part = |g: &mut Graph, end: &str, shape: &[usize]| {
            let parts = names.iter().map(|name| weight(g, &format!("{name}.{end}"), shape)).collect::<Result<Vec<_>, _>>()?;
            ops::concat(g, &parts, 0)
        };
        Ok(Self { weight: part(g, "weight", &[width, width])?, bias: part(g, "bias", &[width])? })
    }

    /// Self-attention without the output projection, `[B,T,C] -> [B,T,C]`. `keys` is `[B,T]` u32, 0 where there is padding.
    pub fn attend(self, g: &mut Graph, x: Tensor, heads: usize, keys: Option<Tensor>) -> Result<Tensor, OpError> {
        let qkv = ops::matmul_with(g, x, self.weight, Some(self.bias), TRANSPOSED)?;
        ops::attention(g, qkv, heads, Mask { causal: false, keys, band: None })
    }
}

/// The sum of word, position and token-type embeddings, `[B,T,E]`, before its layer norm. `prefix` is the embeddings' name.
pub(super) fn embed(g: &mut Graph, prefix: &str, text: &super::Text, sizes: &super::Sizes) -> Result<Tensor, OpError> {
    let time = g.ty(text.ids).shape.width();
    let width = sizes.embedding;
    if time > sizes.positions {
        return Err(OpError::new(format!("{time} tokens are longer than the model's context of {}", sizes.positions)));
    }
    let words = weight(g, &format!("{prefix}.word_embeddings.weight"), [sizes.vocab, width])?;
    let places = weight(g, &format!("{prefix}.position_embeddings.weight"), [sizes.positions, width])?;
    let words = ops::embedding(g, words, text.ids)?;
    let places = ops::slice(g, places, 0, 0..time)?;
    let x = ops::add(g, words, places)?;
    if sizes.types == 0 {
        return Ok(x);
    }
    let table = weight(g, &format!("{prefix}.token_type_embeddings.weight"), [sizes.types, width])?;
    match text.types {
        Some(types) => {
            let types = ops::embedding(g, table, types)?;
            ops::add(g, x, types)
        }
        None => {
            let first = ops::slice(g, table, 0, 0..1)?;
            let first = ops::reshape(g, first, [width])?;
            ops::add(g, x, first)
        }
    }
}
