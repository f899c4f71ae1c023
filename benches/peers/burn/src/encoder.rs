//! A BERT-like encoder in burn's modules: learned positions, token types, post-LN blocks, a masked-LM head on picked rows.

use burn::module::{Initializer, Module, Param};
use burn::nn::transformer::{TransformerEncoder, TransformerEncoderConfig, TransformerEncoderInput};
use burn::nn::{Embedding, LayerNorm, LayerNormConfig, Linear};
use burn::tensor::activation::gelu;
use burn::tensor::{Device, Int, Tensor, TensorData};

use crate::model::{Config, NORMAL, embedding, linear};

/// As BERT has it.
const EPSILON: f64 = 1e-12;

/// The encoder with its head, whose decoder is the transposed token table.
#[derive(Module, Debug)]
pub struct Bert {
    words: Embedding,
    positions: Embedding,
    types: Embedding,
    norm: LayerNorm,
    layers: TransformerEncoder,
    transform: Linear,
    transform_norm: LayerNorm,
    decoder_bias: Param<Tensor<1>>,
}

/// A batch: ids [batch, context], positions [1, context], types [1, 1]; rows of the flattened text that are predicted,
/// and their labels.
pub struct Batch {
    pub ids: Tensor<2, Int>,
    pub positions: Tensor<2, Int>,
    pub types: Tensor<2, Int>,
    pub places: Tensor<1, Int>,
    pub labels: Tensor<1, Int>,
}

impl Batch {
    /// `places` and `labels` have an entry a prediction.
    pub fn new(ids: Vec<i32>, shape: [usize; 2], places: Vec<i32>, labels: Vec<i32>, device: &Device) -> Self {
        let positions: Vec<i32> = (0..shape[1] as i32).collect();
        let count = [places.len()];
        Self {
            ids: Tensor::from_data(TensorData::new(ids, shape), device),
            positions: Tensor::from_data(TensorData::new(positions, [1, shape[1]]), device),
            types: Tensor::from_data(TensorData::new(vec![0i32], [1, 1]), device),
            places: Tensor::from_data(TensorData::new(places, count), device),
            labels: Tensor::from_data(TensorData::new(labels, count), device),
        }
    }
}

impl Bert {
    pub fn new(config: &Config, device: &Device) -> Self {
        let width = config.width;
        let norm = || LayerNormConfig::new(width).with_epsilon(EPSILON).init(device);
        Self {
            words: embedding(config.vocab, width, device),
            positions: embedding(config.context, width, device),
            types: embedding(2, width, device),
            norm: norm(),
            layers: TransformerEncoderConfig::new(width, 4 * width, config.heads, config.layers)
                .with_dropout(0.0)
                .with_norm_first(false)
                .with_layer_norm_eps(EPSILON)
                .with_initializer(NORMAL)
                .init(device),
            transform: linear(width, width, device),
            transform_norm: norm(),
            decoder_bias: Initializer::Zeros.init([config.vocab], device),
        }
    }

    /// The last hidden states, [batch, context, width].
    pub fn forward(&self, batch: &Batch) -> Tensor<3> {
        let x = self.words.forward(batch.ids.clone())
            + self.positions.forward(batch.positions.clone())
            + self.types.forward(batch.types.clone());
        self.layers.forward(TransformerEncoderInput::new(self.norm.forward(x)))
    }

    /// Logits of the predicted places, [predictions, vocab].
    pub fn masked_lm(&self, batch: &Batch) -> Tensor<2> {
        let last = self.forward(batch);
        let [rows, time, width] = last.dims();
        let picked = last.reshape([rows * time, width]).select(0, batch.places.clone());
        let h = self.transform_norm.forward(gelu(self.transform.forward(picked)));
        h.matmul(self.words.weight.val().transpose()) + self.decoder_bias.val().unsqueeze()
    }
}
