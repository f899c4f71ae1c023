//! Generation: the prompt in one pass, then decoding as one plan whose cache, positions, tokens and random state stay on
//! the device, so that several tokens can be queued without waiting for the host.

use super::{Gpt2Config, gpt2::{Context, Gpt2, cache_name}};
use crate::{
    graph::{Engine, Graph, GraphError, Plan, PlanOptions, PlanStats},
    ops::{self, HostTensor, OpError, Tensor, TensorType},
};
use std::time::{Duration, Instant};

/// How the next token is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Divides the logits; 0 takes the likeliest token.
    pub temperature: f32,
    /// Only the likeliest `top_k` tokens; 0 for all.
    pub top_k: usize,
    /// Only the smallest set of likeliest tokens whose probability reaches this; 1 for all.
    pub top_p: f32,
    /// Divides positive and multiplies negative logits of tokens that occurred (Keskar et al. 2019); 1 for none.
    pub repetition_penalty: f32,
    /// Seed of the random state.
    pub seed: u32,
}

/// What a generation took.
#[derive(Debug, Clone, Copy, Default)]
pub struct GenerationStats {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Time for the prompts, to the first token.
    pub prompt_time: Duration,
    /// Tokens decoded after the first, over all rows.
    pub decoded_tokens: usize,
    /// Time for them.
    pub decode_time: Duration,
    /// Submissions for them.
    pub submissions: usize,
    /// The decoding plan.
    pub plan: PlanStats,
}

/// Names of the variables that decoding keeps on the device.
const TOKENS: &str = "generate.tokens";
const POSITIONS: &str = "generate.positions";
const RNG: &str = "generate.rng";
const HISTORY: &str = "generate.history";
const SEEN: &str = "generate.seen";

/// The decoding state of a batch of texts.
pub struct Generator<'a> {
    engine: &'a mut Engine,
    config: &'a Gpt2Config,
    sampling: Sampling,
    batch: usize,
    capacity: usize,
    decode: Plan,
    /// Tokens sampled so far, a row.
    sampled: usize,
    /// Those of them that have been read back.
    texts: Vec<Vec<u32>>,
    longest: usize,
    /// What it has taken so far.
    pub stats: GenerationStats,
}

impl<'a> Generator<'a> {
    /// Plans decoding for `batch` texts of at most `capacity` tokens each, prompt included.
    ///
    /// # Errors
    /// `capacity` is beyond the model's context, or the plan does not fit the device.
    pub fn new(
        engine: &'a mut Engine,
        config: &'a Gpt2Config,
        batch: usize,
        capacity: usize,
        sampling: Sampling,
    ) -> Result<Self, GraphError> {
        // An earlier generation may have left its own, of other sizes.
        for name in [TOKENS, POSITIONS, RNG, HISTORY, SEEN] {
            engine.remove(name);
        }
        (0..config.n_layer).for_each(|layer| engine.remove(&cache_name(layer)));
        let mut g = Graph::new();
        let state = State::record(&mut g, config, batch, capacity, &sampling)?;
        let ids = ops::reshape(&mut g, state.tokens, [batch, 1])?;
        let model = Gpt2::new(config);
        let context = Context::Decode { positions: state.positions, capacity };
        let states = model.hidden_states(&mut g, ids, context)?;
        let hidden = ops::reshape(&mut g, states[states.len() - 1], [batch, config.n_embd])?;
        let logits = model.head(&mut g, hidden)?;
        state.choose(&mut g, logits, &sampling)?;
        let decode = engine.compile(g, &[], &PlanOptions::named("decode"))?;
        let stats = GenerationStats { plan: decode.stats(), ..GenerationStats::default() };
        Ok(Self { engine, config, sampling, batch, capacity, decode, sampled: 0, texts: vec![Vec::new(); batch], longest: 0, stats })
    }

    /// Processes the prompts, one a row, none empty, and samples the first token of each.
    ///
    /// # Errors
    /// A prompt is longer than the capacity, or a fault of the device.
    pub fn prompt(&mut self, prompts: &[Vec<u32>]) -> Result<(), GraphError> {
        let start = Instant::now();
        let (batch, config) = (self.batch, self.config);
        let time = prompts.iter().map(Vec::len).max().unwrap_or(1);
        let mut g = Graph::new();
        let state = State::record(&mut g, config, batch, self.capacity, &self.sampling)?;
        let ids = g.input("ids", TensorType::u32([batch, time]));
        let last = g.input("last", TensorType::u32([batch]));
        let begin = g.input("begin", TensorType::u32([batch]));
        let model = Gpt2::new(config);
        let context = Context::Prompt { positions: begin, capacity: self.capacity };
        let states = model.hidden_states(&mut g, ids, context)?;
        let rows = ops::reshape(&mut g, states[states.len() - 1], [batch * time, config.n_embd])?;
        let hidden = ops::embedding(&mut g, rows, last)?;
        let logits = model.head(&mut g, hidden)?;
        state.choose(&mut g, logits, &self.sampling)?;
        let mut plan = self.engine.compile(g, &[], &PlanOptions::named("prompt"))?;

        let mut padded = vec![0; batch * time];
        for (row, prompt) in padded.chunks_mut(time).zip(prompts) {
            row[..prompt.len()].copy_from_slice(prompt);
        }
        let at = |prompt: &Vec<u32>| prompt.len() as u32 - 1;
        plan.set(ids, HostTensor::uints([batch, time], padded))?;
        plan.set(begin, HostTensor::uints([batch], vec![0; batch]))?;
        let places = prompts.iter().enumerate().map(|(row, p)| (row * time) as u32 + at(p)).collect();
        plan.set(last, HostTensor::uints([batch], places))?;
        // The sampling step advances positions by one: to the prompts' lengths.
        self.engine.set(POSITIONS, &HostTensor::uints([batch], prompts.iter().map(at).collect()))?;
        self.engine.set(RNG, &HostTensor::uints([2], vec![self.sampling.seed, self.sampled as u32]))?;
        if state.seen.is_some() {
            let vocab = config.vocab_size;
            let mut seen = vec![0; batch * vocab];
            for (row, prompt) in seen.chunks_mut(vocab).zip(prompts) {
                prompt.iter().for_each(|&id| row[id as usize] = 1);
            }
            self.engine.set(SEEN, &HostTensor::uints([batch, vocab], seen))?;
        }
        plan.run(self.engine)?;
        plan.wait()?;
        self.take(1)?;
        self.longest = time + 1;
        self.stats.prompt_tokens += prompts.iter().map(Vec::len).sum::<usize>();
        self.stats.prompt_time += start.elapsed();
        Ok(())
    }

    /// Decodes `count` more tokens of each row, in one submission where they are few.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn decode(&mut self, count: usize) -> Result<(), GraphError> {
        let start = Instant::now();
        self.decode.run_times(self.engine, count)?;
        self.decode.wait()?;
        self.take(count)?;
        self.longest += count;
        self.stats.decoded_tokens += count * self.batch;
        self.stats.decode_time += start.elapsed();
        self.stats.submissions += 1;
        Ok(())
    }

    /// Forgets what the caches hold and goes on after `texts`, one a row, none empty.
    ///
    /// # Errors
    /// As [`Generator::prompt`].
    pub fn restart(&mut self, texts: &[Vec<u32>]) -> Result<(), GraphError> {
        self.prompt(texts)
    }

    /// Tokens that the cache holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens that the longest row can still take before the cache is full.
    pub fn room(&self) -> usize {
        (self.capacity + 1).saturating_sub(self.longest)
    }

    /// All tokens sampled so far, a row each.
    pub fn tokens(&self) -> &[Vec<u32>] {
        &self.texts
    }

    /// Reads the `count` newest tokens of each row from the device's ring.
    fn take(&mut self, count: usize) -> Result<(), GraphError> {
        let Some(history) = self.engine.get(HISTORY)? else { return Ok(()) };
        let width = history.shape.width();
        for (text, ring) in self.texts.iter_mut().zip(history.u().chunks(width)) {
            text.extend((self.sampled..self.sampled + count).map(|step| ring[step % width]));
        }
        self.sampled += count;
        Ok(())
    }
}

/// The variables of decoding.
struct State {
    tokens: Tensor,
    positions: Tensor,
    rng: Tensor,
    history: Tensor,
    seen: Option<Tensor>,
}

impl State {
    fn record(g: &mut Graph, config: &Gpt2Config, batch: usize, capacity: usize, sampling: &Sampling) -> Result<Self, OpError> {
        let seen = if sampling.repetition_penalty == 1.0 {
            None
        } else {
            Some(g.variable(SEEN, TensorType::u32([batch, config.vocab_size]))?)
        };
        Ok(Self {
            tokens: g.variable(TOKENS, TensorType::u32([batch]))?,
            positions: g.variable(POSITIONS, TensorType::u32([batch]))?,
            rng: g.variable(RNG, TensorType::u32([2]))?,
            history: g.variable(HISTORY, TensorType::u32([batch, capacity + 1]))?,
            seen,
        })
    }

    /// Samples from `logits` `[B,V]` and moves the state on by one token.
    fn choose(&self, g: &mut Graph, logits: Tensor, sampling: &Sampling) -> Result<(), OpError> {
        let rule = ops::Sample {
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            repetition_penalty: sampling.repetition_penalty,
        };
        let chosen = ops::sample(g, logits, self.seen, self.rng, rule)?;
        ops::advance(g, chosen, self.tokens, self.positions, self.rng, self.history)
    }
}
