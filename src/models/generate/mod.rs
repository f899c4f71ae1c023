//! Generation: prompts in chunks, then decoding as one plan whose cache, positions, tokens and random state stay on the device, so
//! that several tokens can be queued without waiting for the host; or, where the text repeats itself, several tokens guessed and
//! verified at once.

mod draft;
mod prefix;
mod prompt;
mod speculate;

use super::{
    Gpt2Config,
    gpt2::{Context, Gpt2, cache_name},
};
use crate::{
    graph::{Engine, Graph, GraphError, Plan, PlanOptions, PlanStats, Reader},
    ops::{self, HostTensor, OpError, StopTokens, Tensor, TensorType},
};
pub use prompt::CHUNK;
use prompt::PromptPlan;
use speculate::Speculation;
use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

/// How the next token is chosen, and which end a text.
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
    /// The last token of a text is one of these.
    pub stops: StopTokens,
}

impl Sampling {
    fn rule(&self) -> ops::Sample {
        let Self { temperature, top_k, top_p, repetition_penalty, .. } = *self;
        ops::Sample { temperature, top_k, top_p, repetition_penalty }
    }
}

/// What a generation took.
#[derive(Debug, Clone, Copy, Default)]
pub struct GenerationStats {
    /// Tokens of all prompts.
    pub prompt_tokens: usize,
    /// Those of them that the caches held already, or that another prompt begins with too: they did not go through the model again.
    pub reused_tokens: usize,
    /// Floating-point operations of the prompts' plans.
    pub prompt_flops: u64,
    /// Submissions for them.
    pub prompt_submissions: usize,
    /// Time for the prompts, to the first token.
    pub prompt_time: Duration,
    /// Tokens decoded after the first, over all rows.
    pub decoded_tokens: usize,
    /// Time for them.
    pub decode_time: Duration,
    /// Submissions for them.
    pub submissions: usize,
    /// Tokens that were guessed, over all rows.
    pub guessed_tokens: usize,
    /// Those of them that were right.
    pub right_tokens: usize,
    /// What the device took for decoding by its own clock, where it has one.
    pub device_time: Duration,
    /// What the host took to encode it, while the device worked as a rule.
    pub encode_time: Duration,
    /// The decoding plan.
    pub plan: PlanStats,
    /// Bytes of weights that a step of the plan reads.
    pub weight_bytes: u64,
    /// Bytes of keys and values that a step reads for each token that a row has.
    pub cache_bytes: u64,
}

/// Names of the variables that decoding keeps on the device.
const TOKENS: &str = "generate.tokens";
const POSITIONS: &str = "generate.positions";
const RNG: &str = "generate.rng";
const STEPS: &str = "generate.steps";
const HISTORY: &str = "generate.history";
const SEEN: &str = "generate.seen";

/// The most tokens of a row that a submission makes; the ring on the device holds as many.
const RING: usize = 64;
/// A reader should see something at least this often.
pub const SMOOTH: Duration = Duration::from_millis(50);
/// No submission should take longer, lest a watchdog take it for hung.
pub const LONGEST: Duration = Duration::from_millis(250);

/// How long one is to take that is cut by the floating-point operations of its dispatches, not all of which take as long.
const AIM: Duration = Duration::from_millis(200);

/// A submission whose tokens have not been read yet.
struct Flight {
    reader: Reader,
    tokens: usize,
}

/// The decoding state of a batch of texts.
pub struct Generator<'a> {
    engine: &'a mut Engine,
    config: &'a Gpt2Config,
    sampling: Sampling,
    batch: usize,
    capacity: usize,
    decode: Plan,
    prompts: Vec<PromptPlan>,
    /// Tokens of all prompts that go through the model at once.
    chunk: usize,
    /// Floating-point operations a second of prompts, once that is known.
    prompt_rate: Option<f64>,
    speculation: Option<Speculation>,
    /// Tokens sampled so far, a row, as far as they have been read.
    texts: Vec<Vec<u32>>,
    /// Rows whose text has ended with a stop token.
    ended: Vec<bool>,
    /// Steps of each row on the device, as far as they have been read: tokens of its text, unless that has ended.
    steps: Vec<usize>,
    /// The prompts that the caches began with, if they hold anything, and what of `texts` came before them.
    held: Vec<Vec<u32>>,
    began: Vec<usize>,
    /// Tokens of each row in the cache or on their way there, and the newest.
    lengths: Vec<usize>,
    /// Submissions under way, the oldest first, and readers that are free.
    flights: VecDeque<Flight>,
    readers: Vec<Reader>,
    /// Tokens of the next submission.
    pace: usize,
    /// How long a submission should take.
    bound: Duration,
    /// When the last tokens came.
    since: Instant,
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
        for name in [TOKENS, POSITIONS, RNG, STEPS, HISTORY, SEEN] {
            engine.remove(name);
        }
        (0..config.n_layer).for_each(|layer| engine.remove(&cache_name(layer)));
        let mut g = Graph::new();
        let state = State::record(&mut g, config, batch, &sampling)?;
        let ids = ops::reshape(&mut g, state.tokens, [batch, 1])?;
        let places = ops::reshape(&mut g, state.positions, [batch, 1])?;
        let model = Gpt2::new(config);
        let context = Context::Cached { positions: state.positions, places, capacity };
        let states = model.residual_stream(&mut g, ids, context)?;
        let rows = ops::reshape(&mut g, states[states.len() - 1], [batch, config.n_embd])?;
        let hidden = model.last_norm(&mut g, rows)?;
        let logits = model.head(&mut g, hidden)?;
        state.choose(&mut g, logits, &sampling, sampling.stops)?;
        let decode = engine.compile(g, &[], &PlanOptions::named("decode"))?;
        let plan = decode.stats();
        let cache_bytes = 4 * (config.n_layer * batch * 2 * config.n_embd) as u64;
        // Of the tables that tokens are looked up in, a step reads a few rows.
        let tables = config.n_positions + if config.tie_word_embeddings { 0 } else { config.vocab_size };
        let seen = if state.seen.is_some() { batch * config.vocab_size } else { 0 };
        let besides = 4 * (tables * config.n_embd + seen + batch * (RING + 3) + 2) as u64 + cache_bytes * capacity as u64;
        let weight_bytes = plan.variable_bytes.saturating_sub(besides);
        let stats = GenerationStats { plan, weight_bytes, cache_bytes, ..GenerationStats::default() };
        let ring = TensorType::u32([batch, RING]);
        // One is read while the device works for the other.
        let readers = vec![engine.reader(HISTORY, &ring, true)?, engine.reader(HISTORY, &ring, true)?];
        Ok(Self {
            engine,
            config,
            sampling,
            batch,
            capacity,
            decode,
            prompts: Vec::new(),
            chunk: prompt::CHUNK,
            prompt_rate: None,
            speculation: None,
            texts: vec![Vec::new(); batch],
            ended: vec![false; batch],
            steps: vec![0; batch],
            held: Vec::new(),
            began: vec![0; batch],
            lengths: vec![0; batch],
            flights: VecDeque::new(),
            readers,
            pace: 1,
            bound: LONGEST,
            since: Instant::now(),
            stats,
        })
    }

    /// Submissions are to take about so long; at most [`LONGEST`], which is what they take otherwise.
    pub fn set_bound(&mut self, bound: Duration) {
        self.bound = bound.min(LONGEST);
    }

    /// Decodes up to `wanted` more tokens of each row (as many numbers as rows), none beyond the cache and none after a stop token:
    /// waits for the oldest submission, while the device has the next one already. Returns how many tokens came, of the row that got
    /// most; 0 where there is no room for a row that wants some, or none does, or all that do have ended. Rows that want fewer than
    /// others may get more than they want.
    ///
    /// # Errors
    /// A fault of the device.
    pub fn next(&mut self, wanted: &[usize]) -> Result<usize, GraphError> {
        let wanted: Vec<_> = wanted.iter().zip(&self.ended).map(|(&wanted, &ended)| if ended { 0 } else { wanted }).collect();
        if self.speculation.is_some() {
            return self.next_guessed(&wanted);
        }
        if self.ended.iter().all(|&ended| ended) {
            return Ok(0);
        }
        let wanted = wanted.iter().copied().max().unwrap_or(0);
        while let Some(reader) = self.readers.pop() {
            let count = self.pace.min(wanted.saturating_sub(self.queued())).min(self.room());
            if count == 0 {
                self.readers.push(reader);
                break;
            }
            self.queue(reader, count)?;
        }
        let Some(flight) = self.flights.pop_front() else { return Ok(0) };
        let count = flight.tokens;
        let (came, time) = self.take(flight.reader, count)?;
        let wall = self.came(came.iter().sum(), time);
        let each = time.unwrap_or(wall).as_secs_f64() / count as f64;
        self.pace = ((self.bound.as_secs_f64() / each.max(1e-6)) as usize).clamp(1, RING);
        if each > LONGEST.as_secs_f64() {
            // One token is too much for a submission.
            self.decode.cut((self.stats.plan.flops as f64 * AIM.as_secs_f64() / each) as u64);
        }
        Ok(came.into_iter().max().unwrap_or(0))
    }

    /// Accounts for a submission of so many tokens, over all rows; how long it was since the last.
    fn came(&mut self, tokens: usize, device: Option<Duration>) -> Duration {
        let since = std::mem::replace(&mut self.since, Instant::now());
        let wall = self.since.duration_since(since);
        self.stats.decoded_tokens += tokens;
        self.stats.decode_time += wall;
        self.stats.device_time += device.unwrap_or_default();
        self.stats.submissions += 1;
        wall
    }

    /// Decodes `count` more tokens of each row.
    ///
    /// # Errors
    /// As [`Generator::next`].
    pub fn decode(&mut self, count: usize) -> Result<(), GraphError> {
        let until: Vec<_> = self.texts.iter().map(|text| text.len() + count).collect();
        loop {
            let wanted: Vec<_> = self.texts.iter().zip(&until).map(|(text, until)| until.saturating_sub(text.len())).collect();
            if self.next(&wanted)? == 0 {
                return Ok(());
            }
        }
    }

    /// Queues a submission of `count` tokens.
    fn queue(&mut self, mut reader: Reader, count: usize) -> Result<(), GraphError> {
        if self.flights.is_empty() {
            self.since = Instant::now();
        }
        self.decode.run_and_read(self.engine, count, &mut reader)?;
        self.stats.encode_time = self.decode.encoding();
        self.flights.push_back(Flight { reader, tokens: count });
        self.lengths.iter_mut().for_each(|length| *length += count);
        Ok(())
    }

    /// Tokens of a row that are under way.
    fn queued(&self) -> usize {
        self.flights.iter().map(|flight| flight.tokens).sum()
    }

    /// Waits for what is under way, and drops it.
    fn land(&mut self) -> Result<(), GraphError> {
        while let Some(mut flight) = self.flights.pop_front() {
            flight.reader.take(self.engine)?;
            self.readers.push(flight.reader);
        }
        Ok(())
    }

    /// Forgets what the caches hold and goes on after `texts`, one a row, none empty. Those that have ended stay so.
    ///
    /// # Errors
    /// As [`Generator::prompt`].
    pub fn restart(&mut self, texts: &[Vec<u32>]) -> Result<(), GraphError> {
        self.forget();
        self.read(texts)?;
        if self.ended.contains(&true) {
            let newest = self.texts.iter().map(|text| text.last().copied().unwrap_or_default()).collect();
            self.engine.set(TOKENS, &HostTensor::uints([self.batch], newest))?;
        }
        Ok(())
    }

    /// Tokens that the cache holds.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Tokens that the longest row that goes on can still take before the cache is full.
    pub fn room(&self) -> usize {
        let longest = self.lengths.iter().zip(&self.ended).filter(|(_, ended)| !**ended).map(|(&length, _)| length).max();
        (self.capacity + 1).saturating_sub(longest.unwrap_or(0))
    }

    /// Whether the text of each row has ended with a stop token.
    pub fn ended(&self) -> &[bool] {
        &self.ended
    }

    /// All tokens sampled so far, a row each.
    pub fn tokens(&self) -> &[Vec<u32>] {
        &self.texts
    }

    /// Waits for a submission of `count` tokens and takes them from the ring: how many came for each row, and how long the device took.
    fn take(&mut self, mut reader: Reader, count: usize) -> Result<(Vec<usize>, Option<Duration>), GraphError> {
        let (ring, time) = reader.take(self.engine)?;
        self.readers.push(reader);
        let rings = ring.u().chunks(RING).enumerate();
        let came = rings.map(|(row, ring)| {
            let first = self.steps[row];
            self.steps[row] += count;
            self.accept(row, (first..first + count).map(|step| ring[step % RING]))
        });
        Ok((came.collect(), time))
    }

    /// Adds `tokens` to the text of a row, up to the one that ends it; how many those are.
    fn accept(&mut self, row: usize, tokens: impl IntoIterator<Item = u32>) -> usize {
        let before = self.texts[row].len();
        for token in tokens {
            if self.ended[row] {
                break;
            }
            self.texts[row].push(token);
            self.ended[row] = self.sampling.stops.contains(token);
        }
        self.texts[row].len() - before
    }
}

/// The variables of decoding.
struct State {
    tokens: Tensor,
    positions: Tensor,
    rng: Tensor,
    steps: Tensor,
    history: Tensor,
    seen: Option<Tensor>,
}

impl State {
    fn record(g: &mut Graph, config: &Gpt2Config, batch: usize, sampling: &Sampling) -> Result<Self, OpError> {
        let seen = if sampling.repetition_penalty == 1.0 {
            None
        } else {
            Some(g.variable(SEEN, TensorType::u32([batch, config.vocab_size]))?)
        };
        Ok(Self {
            tokens: g.variable(TOKENS, TensorType::u32([batch]))?,
            positions: g.variable(POSITIONS, TensorType::u32([batch]))?,
            rng: g.variable(RNG, TensorType::u32([2]))?,
            steps: g.variable(STEPS, TensorType::u32([batch]))?,
            history: g.variable(HISTORY, TensorType::u32([batch, RING]))?,
            seen,
        })
    }

    /// Samples from `logits` `[B,V]` and moves the state on by one token; rows that one of `stops` has ended stay.
    fn choose(&self, g: &mut Graph, logits: Tensor, sampling: &Sampling, stops: StopTokens) -> Result<(), OpError> {
        let rule = sampling.rule();
        let state = Some([self.tokens, self.positions, self.history]);
        let decoding = ops::Decoding { rng: self.rng, steps: self.steps, text_rows: 1, seen: self.seen, state, stops };
        ops::choose(g, logits, &decoding, rule).map(|_| ())
    }
}
