//! Embeddings of texts: an encoder's hidden states, pooled. Texts of like length run together, so that little is padding.

use super::{Encoder, Head, Missing, Mode, Model, ModelError, Pooling, Text};
use crate::{
    graph::{Engine, Graph, GraphError, Plan, PlanOptions},
    ops::{self, HostTensor, OpError, Recorder, Tensor, TensorType},
};

/// Rows are padded to a multiple of this many tokens.
const STEP: usize = 8;
/// Tokens that one run of a plan takes, about.
const TOKENS: usize = 4096;

/// How to embed.
#[derive(Debug, Clone, Copy)]
pub struct EmbedSettings {
    /// How hidden states become a vector.
    pub pooling: Pooling,
    /// Divide the vector by its length.
    pub normalize: bool,
    /// Token that fills rows up.
    pub pad: u32,
}

/// A recorded batch of texts of at most `time` tokens.
struct Batch {
    plan: Plan,
    rows: usize,
    time: usize,
    ids: Tensor,
    keys: Tensor,
    /// `[rows, 1, time]`: each token's share in the vector.
    shares: Tensor,
    output: Tensor,
}

/// Embeds `texts`, token ids with [CLS] and [SEP], none empty, none longer than the model's context: a vector each, in their
/// order. `progress` is told how many are done.
///
/// # Errors
/// The model is no encoder, or the device fails.
pub fn embed(
    model: &Model,
    engine: &mut Engine,
    texts: &[Vec<u32>],
    settings: EmbedSettings,
    progress: impl Fn(usize),
) -> Result<Vec<Vec<f32>>, ModelError> {
    let encoder = model.encoder(Mode::default())?;
    // The pooler, if there is one, has no part in it.
    let parameters = super::heads::parameters(&*encoder, Head::Base, 0, false).map_err(GraphError::from)?;
    model.upload(engine, &parameters, Missing::Refuse)?;
    let mut order: Vec<usize> = (0..texts.len()).collect();
    order.sort_by_key(|&i| texts[i].len());
    let padded = |i: usize| texts[i].len().next_multiple_of(STEP);
    let mut vectors = vec![Vec::new(); texts.len()];
    let mut done = 0;
    for group in order.chunk_by(|&a, &b| padded(a) == padded(b)) {
        let time = padded(group[0]).min(model.config.positions());
        let rows = (TOKENS / time).clamp(1, group.len());
        let mut batch = Batch::new(&*encoder, engine, rows, time, settings.pooling)?;
        for part in group.chunks(rows) {
            let part_texts: Vec<&[u32]> = part.iter().map(|&i| texts[i].as_slice()).collect();
            let found = batch.run(engine, &part_texts, settings)?;
            part.iter().zip(found).for_each(|(&i, vector)| vectors[i] = vector);
            done += part.len();
            progress(done);
        }
    }
    if vectors.iter().flatten().any(|x| x.is_nan()) {
        return Err(ModelError::NoNumber { place: model.place().to_owned() });
    }
    Ok(vectors)
}

impl Batch {
    fn new(encoder: &dyn Encoder, engine: &mut Engine, rows: usize, time: usize, pooling: Pooling) -> Result<Self, GraphError> {
        let mut g = Graph::new();
        let ids = g.input("ids", TensorType::u32([rows, time]));
        let keys = g.input("keys", TensorType::u32([rows, time]));
        let shares = g.input("shares", TensorType::f32([rows, 1, time]));
        let states = encoder.hidden_states(&mut g, &Text { ids, types: None, keys: Some(keys) })?;
        let last = states[states.len() - 1];
        let output = if pooling == Pooling::Max { last } else { pooled(&mut g, shares, last)? };
        let plan = engine.compile(g, &[output], &PlanOptions::named("embed"))?;
        Ok(Self { plan, rows, time, ids, keys, shares, output })
    }

    /// Vectors of at most `rows` texts.
    fn run(&mut self, engine: &mut Engine, texts: &[&[u32]], settings: EmbedSettings) -> Result<Vec<Vec<f32>>, GraphError> {
        let (rows, time) = (self.rows, self.time);
        let mut ids = vec![settings.pad; rows * time];
        let mut keys = vec![0; rows * time];
        let mut shares = vec![0.0; rows * time];
        for (row, text) in texts.iter().enumerate() {
            let place = row * time..row * time + text.len();
            ids[place.clone()].copy_from_slice(text);
            keys[place.clone()].fill(1);
            match settings.pooling {
                Pooling::Mean => shares[place].fill(1.0 / text.len() as f32),
                Pooling::Cls => shares[place.start] = 1.0,
                Pooling::Max => {}
            }
        }
        // Rows without a text attend to something, lest they be all padding.
        (texts.len()..rows).for_each(|row| keys[row * time] = 1);
        self.plan.set(self.ids, HostTensor::uints([rows, time], ids))?;
        self.plan.set(self.keys, HostTensor::uints([rows, time], keys))?;
        self.plan.set(self.shares, HostTensor::floats([rows, 1, time], shares))?;
        self.plan.run(engine)?;
        let output = self.plan.get(self.output)?;
        let width = output.shape.width();
        let vector = |(row, text): (usize, &&[u32])| {
            let mut vector = match settings.pooling {
                Pooling::Max => largest(&output.f()[row * time * width..][..text.len() * width], width),
                _ => output.f()[row * width..][..width].to_vec(),
            };
            if settings.normalize {
                // The bound is sentence-transformers', against division by 0.
                let length = vector.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>().sqrt().max(1e-12);
                vector.iter_mut().for_each(|x| *x = (f64::from(*x) / length) as f32);
            }
            vector
        };
        Ok(texts.iter().enumerate().map(vector).collect())
    }
}

/// `[R,1,T] x [R,T,H] -> [R,H]`
fn pooled(g: &mut Graph, shares: Tensor, last: Tensor) -> Result<Tensor, OpError> {
    let (rows, width) = (g.ty(last).shape.0[0], g.ty(last).shape.width());
    let sums = g.layer("pooling", |g| ops::matmul(g, shares, last))?;
    ops::reshape(g, sums, [rows, width])
}

/// The largest of each column.
fn largest(rows: &[f32], width: usize) -> Vec<f32> {
    let mut all = rows.chunks(width);
    let mut vector = all.next().unwrap_or_default().to_vec();
    for row in all {
        vector.iter_mut().zip(row).for_each(|(v, &x)| *v = v.max(x));
    }
    vector
}
