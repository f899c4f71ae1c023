//! GPT-2 (Radford et al., "Language models are unsupervised multitask learners", 2019): a Transformer decoder with layer
//! norms moved to the input of each sub-block, one more after the last block, and the head tied to the token table.
//!
//! Shapes: B batch, T time, C width (`n_embd`), V vocabulary. Weights of linear layers are `[in, out]`, as in OpenAI's
//! checkpoints (Conv1D).

use super::{
    Gpt2Config, Init, Mode, Parameter,
    blocks::{Decoder, weight},
    loss,
};
use crate::{
    graph::Graph,
    ops::{self, Logits, Mask, OpError, Recorder, Shape, Tensor, TensorType},
};

/// Numbers that a block makes of each row and the backward pass reads, in widths: of two layer norms what they take and give, q, k and v,
/// what attention gives, and the wide layer before and after GELU.
const BLOCK_WIDTHS: usize = 16;

/// Where the tokens stand, and what they may look back upon.
#[derive(Clone, Copy)]
pub enum Context {
    /// Whole texts from position 0. `keys` is `[B,T]` u32, 0 where there is padding.
    Whole {
        /// Padding mask.
        keys: Option<Tensor>,
    },
    /// Whole prompts from position 0, whose keys and values are put into the cache.
    Prompt {
        /// All zeros, `[B]`.
        positions: Tensor,
        /// Tokens that the cache holds.
        capacity: usize,
    },
    /// A few tokens of each text, which follow those in the cache.
    Cached {
        /// The place of the first of them in its text, `[B]`.
        positions: Tensor,
        /// The places of all, `[B,T]`.
        places: Tensor,
        /// Tokens that the cache holds.
        capacity: usize,
    },
}

/// How to record the model.
pub struct Gpt2<'a> {
    /// Its shape.
    pub config: &'a Gpt2Config,
    /// How to record it.
    pub mode: Mode,
}

/// All parameters, in transformers' order. "A modified initialization which accounts for the accumulation on the residual
/// path with model depth" (section 2.3): the projections back to the residual stream, two a block, begin smaller by
/// 1 / sqrt(2 n_layer).
pub fn parameters(config: &Gpt2Config) -> Vec<Parameter> {
    let (c, inner) = (config.n_embd, config.inner());
    let normal = Init::Normal(config.initializer_range);
    let residual = Init::Normal(config.initializer_range / (2.0 * config.n_layer as f32).sqrt());
    let mut all = Vec::new();
    let mut add = |name: String, shape: Shape, init| all.push(Parameter { name, shape, init });
    add("transformer.wte.weight".into(), [config.vocab_size, c].into(), normal);
    add("transformer.wpe.weight".into(), [config.n_positions, c].into(), normal);
    for layer in 0..config.n_layer {
        let mut add = |name: &str, shape: Shape, init| add(format!("transformer.h.{layer}.{name}"), shape, init);
        add("ln_1.weight", [c].into(), Init::Ones);
        add("ln_1.bias", [c].into(), Init::Zeros);
        add("attn.c_attn.weight", [c, 3 * c].into(), normal);
        add("attn.c_attn.bias", [3 * c].into(), Init::Zeros);
        add("attn.c_proj.weight", [c, c].into(), residual);
        add("attn.c_proj.bias", [c].into(), Init::Zeros);
        add("ln_2.weight", [c].into(), Init::Ones);
        add("ln_2.bias", [c].into(), Init::Zeros);
        add("mlp.c_fc.weight", [c, inner].into(), normal);
        add("mlp.c_fc.bias", [inner].into(), Init::Zeros);
        add("mlp.c_proj.weight", [inner, c].into(), residual);
        add("mlp.c_proj.bias", [c].into(), Init::Zeros);
    }
    add("transformer.ln_f.weight".into(), [c].into(), Init::Ones);
    add("transformer.ln_f.bias".into(), [c].into(), Init::Zeros);
    if !config.tie_word_embeddings {
        add("lm_head.weight".into(), [config.vocab_size, c].into(), normal);
    }
    all
}

/// The dimension along which products with the weight `name` add up; `None` of what is no product's weight. Such weights can be in
/// narrow storage.
pub fn product_dimension(name: &str) -> Option<usize> {
    let linear = ["attn.c_attn.weight", "attn.c_proj.weight", "mlp.c_fc.weight", "mlp.c_proj.weight"];
    if linear.iter().any(|end| name.ends_with(end)) {
        return Some(0);
    }
    HEAD.contains(&name).then_some(1)
}

/// The token table, and the head where that is another.
pub const HEAD: [&str; 2] = ["transformer.wte.weight", "lm_head.weight"];

/// The variable that holds a block's keys and values during decoding.
pub(super) fn cache_name(layer: usize) -> String {
    format!("cache.{layer}")
}

impl<'a> Gpt2<'a> {
    /// The model as it is used, without dropout.
    pub fn new(config: &'a Gpt2Config) -> Self {
        Self { config, mode: Mode::default() }
    }

    /// The residual stream after the embeddings and after each block, `[B,T,C]`; the last one after the final layer norm.
    /// `ids` is `[B,T]` u32.
    ///
    /// # Errors
    /// T is longer than the model's context.
    pub fn hidden_states(&self, g: &mut Graph, ids: Tensor, context: Context) -> Result<Vec<Tensor>, OpError> {
        let mut states = self.residual_stream(g, ids, context)?;
        if let Some(last) = states.pop() {
            states.push(self.last_norm(g, last)?);
        }
        Ok(states)
    }

    /// The same without the final layer norm.
    ///
    /// # Errors
    /// T is longer than the model's context.
    pub fn residual_stream(&self, g: &mut Graph, ids: Tensor, context: Context) -> Result<Vec<Tensor>, OpError> {
        let mut x = g.layer("embeddings", |g| self.embed(g, ids, context))?;
        let mut states = vec![x];
        for layer in 0..self.config.n_layer {
            x = g.layer(&format!("h.{layer}"), |g| self.mode.block(g, |g| self.block(g, layer, x, context)))?;
            states.push(x);
        }
        Ok(states)
    }

    /// The final layer norm of rows of the residual stream.
    ///
    /// # Errors
    /// `x` has another width.
    pub fn last_norm(&self, g: &mut Graph, x: Tensor) -> Result<Tensor, OpError> {
        g.layer("ln_f", |g| self.norm(g, x, "transformer.ln_f"))
    }

    /// wte(ids) + wpe(positions)
    fn embed(&self, g: &mut Graph, ids: Tensor, context: Context) -> Result<Tensor, OpError> {
        let c = self.config.n_embd;
        let wte = weight(g, "transformer.wte.weight", [self.config.vocab_size, c])?;
        let wpe = weight(g, "transformer.wpe.weight", [self.config.n_positions, c])?;
        let time = g.ty(ids).shape.width();
        if time > self.config.n_positions {
            return Err(OpError::new(format!(
                "{time} tokens are longer than the model's context of {}",
                self.config.n_positions
            )));
        }
        let tokens = ops::embedding(g, wte, ids)?;
        let places = match context {
            Context::Cached { places, .. } => ops::embedding(g, wpe, places)?,
            _ => ops::slice(g, wpe, 0, 0..time)?,
        };
        let x = ops::add(g, tokens, places)?;
        self.mode.drop(g, x, 0)
    }

    /// x + attn(ln_1(x)), then x + mlp(ln_2(x))
    fn block(&self, g: &mut Graph, layer: usize, x: Tensor, context: Context) -> Result<Tensor, OpError> {
        let name = format!("transformer.h.{layer}");
        let h = self.norm(g, x, &format!("{name}.ln_1"))?;
        let h = g.layer("attn", |g| self.attention(g, layer, h, context))?;
        let h = self.mode.drop(g, h, 2 * layer + 1)?;
        let x = ops::add(g, x, h)?;
        let h = self.norm(g, x, &format!("{name}.ln_2"))?;
        let h = g.layer("mlp", |g| self.mlp(g, &name, h))?;
        let h = self.mode.drop(g, h, 2 * layer + 2)?;
        ops::add(g, x, h)
    }

    fn attention(&self, g: &mut Graph, layer: usize, x: Tensor, context: Context) -> Result<Tensor, OpError> {
        let (name, heads) = (format!("transformer.h.{layer}.attn"), self.config.n_head);
        let qkv = self.linear(g, x, &format!("{name}.c_attn"), 3 * self.config.n_embd)?;
        let batch = g.ty(x).shape.0[0];
        let cache =
            |g: &mut Graph, capacity| g.variable(&cache_name(layer), TensorType::f32([batch, capacity, 2 * self.config.n_embd]));
        let y = match context {
            Context::Whole { keys } => ops::attention(g, qkv, heads, Mask { causal: true, keys, band: None })?,
            Context::Prompt { positions, capacity } => {
                let cache = cache(g, capacity)?;
                ops::cache_write(g, cache, qkv, positions)?;
                ops::attention(g, qkv, heads, Mask { causal: true, keys: None, band: None })?
            }
            Context::Cached { positions, capacity, .. } => {
                let cache = cache(g, capacity)?;
                ops::attention_cached(g, qkv, cache, positions, heads)?
            }
        };
        self.linear(g, y, &format!("{name}.c_proj"), self.config.n_embd)
    }

    fn mlp(&self, g: &mut Graph, block: &str, x: Tensor) -> Result<Tensor, OpError> {
        let activation = self.config.activation().map_err(OpError::new)?;
        let h = self.linear(g, x, &format!("{block}.mlp.c_fc"), self.config.inner())?;
        let h = ops::gelu(g, h, activation)?;
        self.linear(g, h, &format!("{block}.mlp.c_proj"), self.config.n_embd)
    }

    fn linear(&self, g: &mut Graph, x: Tensor, name: &str, out: usize) -> Result<Tensor, OpError> {
        let width = g.ty(x).shape.width();
        let w = weight(g, &format!("{name}.weight"), [width, out])?;
        let bias = weight(g, &format!("{name}.bias"), [out])?;
        ops::linear(g, x, w, bias)
    }

    fn norm(&self, g: &mut Graph, x: Tensor, name: &str) -> Result<Tensor, OpError> {
        let gamma = weight(g, &format!("{name}.weight"), [self.config.n_embd])?;
        let beta = weight(g, &format!("{name}.bias"), [self.config.n_embd])?;
        ops::layer_norm(g, x, gamma, beta, self.config.layer_norm_epsilon)
    }

    /// The head's matrix `[V, C]` is the token table, unless it has one of its own.
    fn decoder(&self, g: &mut Graph) -> Result<Decoder, OpError> {
        let name = if self.config.tie_word_embeddings { "transformer.wte.weight" } else { "lm_head.weight" };
        Ok(Decoder { table: weight(g, name, [self.config.vocab_size, self.config.n_embd])?, bias: None })
    }

    /// Logits `[.., V]` for the final hidden states `[.., C]`: their products with the token table.
    ///
    /// # Errors
    /// `hidden` has another width.
    pub fn head(&self, g: &mut Graph, hidden: Tensor) -> Result<Tensor, OpError> {
        let decoder = self.decoder(g)?;
        g.layer("head", |g| decoder.logits(g, hidden))
    }

    /// The same for a loss, with zeros behind the logits, `[.., V']`, so that they are made of whole vectors and tiles.
    ///
    /// # Errors
    /// `hidden` has another width.
    pub fn whole_head(&self, g: &mut Graph, hidden: Tensor) -> Result<Logits, OpError> {
        let decoder = self.decoder(g)?;
        g.layer("head", |g| decoder.whole_logits(g, hidden))
    }

    /// The mean cross-entropy `[]` of the next tokens, nats. `targets` `[B,T]` holds for each place the token that follows
    /// it, or [`ops::IGNORE`]. A recomputed model has no more logits at once than a block has activations.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn loss(&self, g: &mut Graph, ids: Tensor, targets: Tensor, keys: Option<Tensor>) -> Result<Tensor, OpError> {
        let states = self.hidden_states(g, ids, Context::Whole { keys })?;
        self.loss_of(g, states[states.len() - 1], targets)
    }

    /// The same for the final hidden states `[B,T,C]`.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn loss_of(&self, g: &mut Graph, hidden: Tensor, targets: Tensor) -> Result<Tensor, OpError> {
        let rows = g.ty(hidden).shape.rows();
        let part = (rows * BLOCK_WIDTHS * self.config.n_embd / self.config.vocab_size).max(1).next_multiple_of(128);
        if self.mode.recompute && part < rows {
            let decoder = self.decoder(g)?;
            return loss::in_parts(g, [hidden, targets], decoder, part);
        }
        let logits = self.whole_head(g, hidden)?;
        g.layer("loss", |g| ops::cross_entropy(g, logits, targets, ops::IGNORE))
    }
}
