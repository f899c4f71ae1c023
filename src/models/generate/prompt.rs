//! Prompts: all at once where they are short, else in chunks, through plans that are kept.

use super::{Generator, POSITIONS, RNG, SEEN, STEPS, State};
use crate::{
    graph::{Graph, GraphError, Plan, PlanOptions},
    models::gpt2::{Context, Gpt2},
    ops::{self, HostTensor, Tensor, TensorType},
};
use std::time::Instant;

/// Tokens of all prompts that go through the model at once: enough for products to be efficient, and a bound on memory. What they
/// take is bounded by the plan, which is cut into submissions.
pub(super) const CHUNK: usize = 512;
/// Plans that are kept, of different sizes.
const KEPT: usize = 3;

/// What a plan for prompts is made for.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Kind {
    /// Tokens of each prompt.
    rows: usize,
    /// They are whole prompts, with nothing in the cache before them.
    whole: bool,
    /// A token is sampled after the last of each.
    last: bool,
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

    /// Processes the prompts, one a row, none empty, and samples the first token of each.
    ///
    /// # Errors
    /// A prompt is longer than the capacity, or a fault of the device.
    pub fn prompt(&mut self, prompts: &[Vec<u32>]) -> Result<(), GraphError> {
        self.land()?;
        let start = Instant::now();
        let batch = self.batch;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(1).max(1);
        let chunks = longest.div_ceil((self.chunk / batch).max(1));
        let rows = longest.div_ceil(chunks);
        // The sampling step advances positions by one: to the prompts' lengths.
        let ends: Vec<u32> = prompts.iter().map(|prompt| prompt.len().saturating_sub(1) as u32).collect();
        self.engine.set(POSITIONS, &HostTensor::uints([batch], ends))?;
        self.engine.set(RNG, &HostTensor::uints([2], vec![self.sampling.seed, 0]))?;
        let steps = self.texts.iter().map(|text| text.len() as u32).collect();
        self.engine.set(STEPS, &HostTensor::uints([batch], steps))?;
        if self.sampling.repetition_penalty != 1.0 {
            let vocab = self.config.vocab_size;
            let mut seen = vec![0; batch * vocab];
            for (row, prompt) in seen.chunks_mut(vocab).zip(prompts) {
                prompt.iter().for_each(|&id| row[id as usize] = 1);
            }
            self.engine.set(SEEN, &HostTensor::uints([batch, vocab], seen))?;
        }
        for left in (1..=chunks).rev() {
            // Chunks end with the prompts: of one that is shorter, the earlier ones are done again.
            let begins: Vec<usize> = prompts.iter().map(|prompt| prompt.len().saturating_sub(left * rows)).collect();
            let kind = Kind { rows, whole: chunks == 1, last: left == 1 };
            let mut made = self.prompt_plan(kind)?;
            let result = self.run_prompt(&mut made, prompts, &begins);
            self.prompts.push(made);
            result?;
        }
        self.lengths = prompts.iter().map(|prompt| prompt.len() + 1).collect();
        if let Some(speculation) = &mut self.speculation {
            speculation.begin(prompts, &self.texts);
        }
        self.stats.prompt_tokens += prompts.iter().map(Vec::len).sum::<usize>();
        self.stats.prompt_time += start.elapsed();
        self.since = Instant::now();
        Ok(())
    }

    /// Runs a chunk, the first tokens of which are number `begins` of their prompts.
    fn run_prompt(&mut self, made: &mut PromptPlan, prompts: &[Vec<u32>], begins: &[usize]) -> Result<(), GraphError> {
        let (batch, Kind { rows, last, .. }) = (self.batch, made.kind);
        let furthest = self.config.n_positions - 1;
        let (mut ids, mut places, mut ends) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (prompt, &begin)) in prompts.iter().zip(begins).enumerate() {
            // What is beyond a prompt is put into the cache, and overwritten before anything attends to it.
            ids.extend((begin..begin + rows).map(|i| prompt.get(i).copied().unwrap_or(0)));
            places.extend((begin..begin + rows).map(|i| i.min(furthest) as u32));
            ends.push((row * rows + (prompt.len() - begin).clamp(1, rows) - 1) as u32);
        }
        let begins = begins.iter().map(|&begin| begin as u32).collect();
        made.plan.set(made.ids, HostTensor::uints([batch, rows], ids))?;
        made.plan.set(made.places, HostTensor::uints([batch, rows], places))?;
        made.plan.set(made.begin, HostTensor::uints([batch], begins))?;
        made.plan.set(made.last, HostTensor::uints([batch], ends))?;
        match self.readers.pop() {
            Some(mut reader) if last => {
                made.plan.run_and_read(self.engine, 1, &mut reader)?;
                self.take(reader, 1)?;
            }
            reader => {
                self.readers.extend(reader);
                made.plan.run(self.engine)?;
            }
        }
        Ok(())
    }

    /// The plan of that kind, which the caller puts back.
    fn prompt_plan(&mut self, kind: Kind) -> Result<PromptPlan, GraphError> {
        if let Some(known) = self.prompts.iter().position(|made| made.kind == kind) {
            return Ok(self.prompts.remove(known));
        }
        if self.prompts.len() >= KEPT {
            self.prompts.remove(0);
        }
        let (batch, config) = (self.batch, self.config);
        let mut g = Graph::new();
        let state = State::record(&mut g, config, batch, &self.sampling)?;
        let ids = g.input("ids", TensorType::u32([batch, kind.rows]));
        let places = g.input("places", TensorType::u32([batch, kind.rows]));
        let begin = g.input("begin", TensorType::u32([batch]));
        let last = g.input("last", TensorType::u32([batch]));
        let model = Gpt2::new(config);
        let context = match kind.whole {
            true => Context::Prompt { positions: begin, capacity: self.capacity },
            false => Context::Cached { positions: begin, places, capacity: self.capacity },
        };
        let states = model.residual_stream(&mut g, ids, context)?;
        if kind.last {
            let rows = ops::reshape(&mut g, states[states.len() - 1], [batch * kind.rows, config.n_embd])?;
            let rows = ops::embedding(&mut g, rows, last)?;
            let hidden = model.last_norm(&mut g, rows)?;
            let logits = model.head(&mut g, hidden)?;
            state.choose(&mut g, logits, &self.sampling)?;
        }
        let plan = self.engine.compile(g, &[], &PlanOptions::named("prompt"))?;
        Ok(PromptPlan { kind, plan, ids, places, begin, last })
    }
}
