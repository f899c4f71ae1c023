//! Speculative decoding without a second model: tokens guessed from the text (draft.rs) are verified in one pass. The model chooses
//! after each of them as it would without guesses, with the noise of that step, and what it chose is taken as far as the guesses were
//! right, and one further. So the text is the very same, but for the rounding of products of several rows.

use super::{Generator, RNG, State, draft::Drafter};
use crate::{
    graph::{Graph, GraphError, Plan, PlanOptions, Reader},
    models::gpt2::{Context, Gpt2},
    ops::{self, HostTensor, OpError, StopTokens, Tensor, TensorType},
};

/// Guesses, and the plans that verify them.
pub(super) struct Speculation {
    /// The most tokens of a guess.
    most: usize,
    drafters: Vec<Drafter>,
    /// Without a guess, and with one.
    plans: [Verification; 2],
}

/// A plan for the newest token of each text and its guess.
struct Verification {
    /// Tokens of each text.
    rows: usize,
    plan: Plan,
    ids: Tensor,
    places: Tensor,
    begin: Tensor,
    steps: Tensor,
    reader: Reader,
}

impl Speculation {
    /// Texts begin with `prompts`, and what was sampled after them last.
    pub fn begin(&mut self, prompts: &[Vec<u32>], sampled: &[Vec<u32>]) {
        let texts = prompts.iter().zip(sampled).map(|(prompt, sampled)| prompt.iter().chain(sampled.last()).copied().collect());
        self.drafters = texts.map(Drafter::new).collect();
    }
}

impl Generator<'_> {
    /// From now on up to `most` tokens are guessed at a time. Before the prompts.
    ///
    /// # Errors
    /// With a repetition penalty, which would depend on the guesses; or the plans do not fit the device.
    pub fn speculate(&mut self, most: usize) -> Result<(), GraphError> {
        if self.sampling.repetition_penalty != 1.0 {
            return Err(OpError::new("guessed tokens cannot be verified with a repetition penalty").into());
        }
        let plans = [self.verification(1)?, self.verification(most + 1)?];
        self.speculation = Some(Speculation { most, drafters: Vec::new(), plans });
        Ok(())
    }

    fn verification(&mut self, rows: usize) -> Result<Verification, GraphError> {
        let (batch, config) = (self.batch, self.config);
        let mut g = Graph::new();
        let state = State::record(&mut g, config, batch, &self.sampling)?;
        let ids = g.input("ids", TensorType::u32([batch, rows]));
        let places = g.input("places", TensorType::u32([batch, rows]));
        let begin = g.input("begin", TensorType::u32([batch]));
        let steps = g.input("steps", TensorType::u32([batch * rows]));
        let model = Gpt2::new(config);
        let context = Context::Cached { positions: begin, places, capacity: self.capacity };
        let states = model.residual_stream(&mut g, ids, context)?;
        let x = ops::reshape(&mut g, states[states.len() - 1], [batch * rows, config.n_embd])?;
        let hidden = model.last_norm(&mut g, x)?;
        let logits = model.head(&mut g, hidden)?;
        let decoding =
            ops::Decoding { rng: state.rng, steps, text_rows: rows, seen: None, state: None, stops: StopTokens::none() };
        let chosen = ops::choose(&mut g, logits, &decoding, self.sampling.rule())?;
        let plan = self.engine.compile(g, &[chosen], &PlanOptions::named("verify"))?;
        let reader = plan.reader(chosen, true)?;
        Ok(Verification { rows, plan, ids, places, begin, steps, reader })
    }

    /// [`Generator::next`] with guesses.
    pub(super) fn next_guessed(&mut self, wanted: &[usize]) -> Result<usize, GraphError> {
        let Some(mut speculation) = self.speculation.take() else { return Ok(0) };
        let came = self.verify(&mut speculation, wanted);
        self.speculation = Some(speculation);
        came
    }

    fn verify(&mut self, speculation: &mut Speculation, wanted: &[usize]) -> Result<usize, GraphError> {
        let Speculation { most, drafters, plans } = speculation;
        // Tokens that each row takes.
        let takes: Vec<_> =
            wanted.iter().zip(&self.lengths).map(|(&n, &length)| n.min((self.capacity + 1).saturating_sub(length))).collect();
        let full = wanted.iter().zip(&takes).any(|(&wanted, &takes)| wanted > 0 && takes == 0);
        if full || takes.iter().all(|&takes| takes == 0) {
            return Ok(0);
        }
        let drafts: Vec<_> =
            drafters.iter_mut().zip(&takes).map(|(drafter, &takes)| drafter.draft((*most).min(takes.max(1) - 1))).collect();
        let [alone, together] = plans;
        let made = if drafts.iter().all(Vec::is_empty) { &mut *alone } else { &mut *together };
        let (batch, rows) = (self.batch, made.rows);
        let furthest = self.config.n_positions - 1;
        let (mut ids, mut places, mut steps) = (Vec::new(), Vec::new(), Vec::new());
        for (row, (drafter, draft)) in drafters.iter().zip(&drafts).enumerate() {
            let (place, step) = (self.lengths[row] - 1, self.texts[row].len());
            // What is beyond the guess is put into the cache, and overwritten before anything attends to it.
            let tokens = std::iter::once(drafter.newest()).chain(draft.iter().copied()).chain(std::iter::repeat(0));
            ids.extend(tokens.take(rows));
            places.extend((place..place + rows).map(|i| i.min(furthest) as u32));
            steps.extend((step..step + rows).map(|i| i as u32));
        }
        let begin = self.lengths.iter().map(|length| *length as u32 - 1).collect();
        self.engine.set(RNG, &HostTensor::uints([2], vec![self.sampling.seed, 0]))?;
        made.plan.set(made.ids, HostTensor::uints([batch, rows], ids))?;
        made.plan.set(made.places, HostTensor::uints([batch, rows], places))?;
        made.plan.set(made.begin, HostTensor::uints([batch], begin))?;
        made.plan.set(made.steps, HostTensor::uints([batch * rows], steps))?;
        made.plan.run_and_read(self.engine, 1, &mut made.reader)?;
        let (chosen, time) = made.reader.take(self.engine)?;
        self.stats.encode_time = alone.plan.encoding() + together.plan.encoding();
        let (mut tokens, mut longest) = (0, 0);
        for (row, chosen) in chosen.u().chunks(rows).enumerate().filter(|(row, _)| takes[*row] > 0) {
            let draft = &drafts[row];
            let right = draft.iter().zip(chosen).take_while(|(guess, chosen)| guess == chosen).count();
            let came = (right + 1).min(takes[row]);
            let came = self.accept(row, chosen[..came].iter().copied());
            drafters[row].extend(&chosen[..came]);
            if !draft.is_empty() {
                drafters[row].learn(right);
                self.stats.guessed_tokens += draft.len();
                self.stats.right_tokens += right;
            }
            self.lengths[row] += came;
            tokens += came;
            longest = longest.max(came);
        }
        self.came(tokens, time);
        Ok(longest)
    }
}
