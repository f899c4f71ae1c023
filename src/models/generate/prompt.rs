//! Prompts: all at once where they are short, else in chunks, through plans that are kept.

use super::{AIM, Generator, POSITIONS, RNG, SEEN, STEPS, State, prefix};
use crate::{
    graph::{Graph, GraphError, Plan, PlanOptions},
    models::gpt2::{Context, Gpt2},
    ops::{self, HostTensor, OpError, StopTokens, Tensor, TensorType},
};
use std::time::Instant;

/// Tokens of all prompts that go through the model at once: enough for products to be efficient, and a bound on memory. What they
/// take is bounded by the plan, which is cut into submissions.
pub const CHUNK: usize = 512;
/// Plans that are kept, of different sizes.
const KEPT: usize = 3;

/// What a plan for prompts is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Kind {
    /// Prompts.
    pub batch: usize,
    /// Tokens of each.
    pub rows: usize,
    /// They are whole prompts, with nothing in the cache before them.
    pub whole: bool,
    /// A token is sampled after the last of each.
    pub last: bool,
    /// The caches are those of a beginning that all prompts have in common, of so many tokens.
    pub shared: Option<usize>,
}

/// A plan for a chunk of each prompt, and its inputs.
pub(super) struct PromptPlan {
    kind: Kind,
    plan: Plan,
    ids: Tensor,
    places: Tensor,
    begin: Tensor,
    last: Tensor,
}

impl Generator<'_> {
    /// At most so many tokens of all prompts go through the model at once.
    pub fn set_chunk(&mut self, tokens: usize) {
        self.chunk = tokens;
    }

    /// Processes the prompts, one a row, none empty, and samples the first token of each. What they begin with is reused, as far as
    /// the caches hold it from before, or several begin alike.
    ///
    /// # Errors
    /// A prompt is empty or longer than the capacity, there are not as many as rows, or a fault of the device.
    pub fn prompt(&mut self, prompts: &[Vec<u32>]) -> Result<(), GraphError> {
        self.ended.fill(false);
        self.read(prompts)
    }

    /// The same; what has ended stays so.
    pub(super) fn read(&mut self, prompts: &[Vec<u32>]) -> Result<(), GraphError> {
        let batch = self.batch;
        let fits = |prompt: &Vec<u32>| (1..=self.capacity).contains(&prompt.len());
        if prompts.len() != batch || !prompts.iter().all(fits) {
            let (lengths, capacity) = (prompts.iter().map(Vec::len).collect::<Vec<_>>(), self.capacity);
            return Err(OpError::new(format!("prompts of {lengths:?} tokens for {batch} rows of 1 to {capacity}")).into());
        }
        self.land()?;
        let start = Instant::now();
        let (kept, shared) = self.reuse(prompts)?;
        let rest = prompts.iter().zip(&kept).map(|(prompt, kept)| prompt.len() - kept).max().unwrap_or(1).max(1);
        let chunks = rest.div_ceil((self.chunk / batch).max(1));
        let rows = rest.div_ceil(chunks);
        let whole = chunks == 1 && kept.iter().all(|&kept| kept == 0);
        // The sampling step advances positions by one: to the prompts' lengths.
        let ends: Vec<u32> = prompts.iter().map(|prompt| prompt.len().saturating_sub(1) as u32).collect();
        self.engine.set(POSITIONS, &HostTensor::uints([batch], ends))?;
        self.engine.set(RNG, &HostTensor::uints([2], vec![self.sampling.seed, 0]))?;
        self.steps = self.texts.iter().map(Vec::len).collect();
        let steps = self.steps.iter().map(|&steps| steps as u32).collect();
        self.engine.set(STEPS, &HostTensor::uints([batch], steps))?;
        if self.sampling.repetition_penalty != 1.0 {
            let vocab = self.config.vocab_size;
            let mut seen = vec![0; batch * vocab];
            for (row, prompt) in seen.chunks_mut(vocab).zip(prompts) {
                prompt.iter().for_each(|&id| row[id as usize] = 1);
            }
            self.engine.set(SEEN, &HostTensor::uints([batch, vocab], seen))?;
        }
        self.began.clone_from(&self.steps);
        for left in (1..=chunks).rev() {
            let kind = Kind { batch, rows, whole, last: left == 1, shared: None };
            let mut made = self.prompt_plan(kind)?;
            let result = self.run_prompt(&mut made, prompts, left);
            self.prompts.push(made);
            result?;
        }
        self.held = prompts.to_vec();
        self.lengths = prompts.iter().map(|prompt| prompt.len() + 1).collect();
        if let Some(speculation) = &mut self.speculation {
            speculation.begin(prompts, &self.texts);
        }
        self.stats.prompt_tokens += prompts.iter().map(Vec::len).sum::<usize>();
        let reused: usize = prompts.iter().map(|prompt| prompt.len().saturating_sub(chunks * rows)).sum();
        self.stats.reused_tokens += reused.saturating_sub(shared);
        self.stats.prompt_time += start.elapsed();
        self.since = Instant::now();
        Ok(())
    }

    /// Runs a chunk, after which there are `left - 1`. Chunks end with the prompts: of one that is shorter, the earlier ones are done
    /// again.
    pub(super) fn run_prompt(&mut self, made: &mut PromptPlan, prompts: &[Vec<u32>], left: usize) -> Result<(), GraphError> {
        let Kind { batch, rows, last, .. } = made.kind;
        let furthest = self.config.n_positions - 1;
        let (mut ids, mut places, mut begins, mut ends) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for (row, prompt) in prompts.iter().enumerate() {
            let begin = prompt.len().saturating_sub(left * rows);
            // What is beyond a prompt is put into the cache, and overwritten before anything attends to it.
            ids.extend((begin..begin + rows).map(|i| prompt.get(i).copied().unwrap_or(0)));
            places.extend((begin..begin + rows).map(|i| i.min(furthest) as u32));
            begins.push(begin as u32);
            ends.push((row * rows + (prompt.len() - begin).clamp(1, rows) - 1) as u32);
        }
        made.plan.set(made.ids, HostTensor::uints([batch, rows], ids))?;
        made.plan.set(made.places, HostTensor::uints([batch, rows], places))?;
        made.plan.set(made.begin, HostTensor::uints([batch], begins))?;
        made.plan.set(made.last, HostTensor::uints([batch], ends))?;
        let flops = made.plan.stats().flops;
        self.stats.prompt_flops += flops;
        if let Some(rate) = self.prompt_rate {
            made.plan.cut((rate * AIM.as_secs_f64()) as u64);
        }
        self.stats.prompt_submissions += made.plan.stats().submissions;
        let timed = last || self.prompt_rate.is_none();
        let Some(mut reader) = (if timed { self.readers.pop() } else { None }) else { return made.plan.run(self.engine) };
        made.plan.run_and_read(self.engine, 1, &mut reader)?;
        let time = if last {
            self.take(reader, 1)?.1
        } else {
            // The first chunk of all is waited for, to learn what it takes.
            let (_, time) = reader.take(self.engine)?;
            self.readers.push(reader);
            time
        };
        if let Some(time) = time.filter(|time| !time.is_zero() && flops > 0) {
            self.prompt_rate = Some(flops as f64 / time.as_secs_f64());
        }
        Ok(())
    }

    /// The plan of that kind, which the caller puts back.
    pub(super) fn prompt_plan(&mut self, kind: Kind) -> Result<PromptPlan, GraphError> {
        if let Some(known) = self.prompts.iter().position(|made| made.kind == kind) {
            return Ok(self.prompts.remove(known));
        }
        if self.prompts.len() >= KEPT {
            self.prompts.remove(0);
        }
        let config = self.config;
        let mut g = Graph::new();
        let ids = g.input("ids", TensorType::u32([kind.batch, kind.rows]));
        let places = g.input("places", TensorType::u32([kind.batch, kind.rows]));
        let begin = g.input("begin", TensorType::u32([kind.batch]));
        let last = g.input("last", TensorType::u32([kind.batch]));
        let model = Gpt2::new(config);
        let capacity = kind.shared.unwrap_or(self.capacity);
        let context = match kind.whole {
            true => Context::Prompt { positions: begin, capacity },
            false => Context::Cached { positions: begin, places, capacity },
        };
        let record = |g: &mut Graph| model.residual_stream(g, ids, context);
        let states = match kind.shared {
            Some(_) => g.renamed(prefix::renamed, record)?,
            None => record(&mut g)?,
        };
        if kind.last {
            let state = State::record(&mut g, config, kind.batch, &self.sampling)?;
            let rows = ops::reshape(&mut g, states[states.len() - 1], [kind.batch * kind.rows, config.n_embd])?;
            let rows = ops::embedding(&mut g, rows, last)?;
            let hidden = model.last_norm(&mut g, rows)?;
            let logits = model.head(&mut g, hidden)?;
            // A prompt may end with a stop token; its text does not.
            state.choose(&mut g, logits, &self.sampling, StopTokens::none())?;
        }
        let plan = self.engine.compile(g, &[], &PlanOptions::named("prompt"))?;
        Ok(PromptPlan { kind, plan, ids, places, begin, last })
    }
}
