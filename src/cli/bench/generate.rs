//! `shaderlm bench generate`

use super::product::product_rate;
use crate::cli::{
    CliResult,
    common::{DeviceArgs, number_in, refuse},
    profile::ProfileArgs,
};
use clap::builder::TypedValueParser;
use serde::Serialize;
use shaderlm::{
    checkpoint::write_atomic,
    gpu::{Ceilings, DeviceChoice, Effort},
    graph::Engine,
    models::{
        Gpt2Config, Model, SHAKESPEARE, WeightFormat,
        generate::{CHUNK, Generator, LONGEST, SMOOTH, Sampling},
        gpt2::{parameters, product_dimension},
        initialise,
    },
    ops::{Packed, Packing, StopTokens},
    plot::{Axes, Line, svg},
};
use std::{
    io::Write,
    path::PathBuf,
    time::{Duration, Instant},
};

/// Measure generation: the prompt, the tokens after it, and how near they come to what the memory allows
///
/// Tokens are made as `generate` makes them, several a submission. The share of the ceiling is what a token reads, weights and
/// cache, against the bandwidth that `bench ceilings` measured. The host's share is the time in which the device had nothing to do,
/// by its own timestamps. The prompt's rate is compared with that of a product in 32 bits of the prompt's tokens and the feed-forward
/// layer's weights, measured in the same call.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm bench generate --size gpt2-124m --tokens 32\n  \
    shaderlm bench generate --model ./my-model --prompt-tokens 512 --batch 4 --json\n  \
    shaderlm bench generate --size gpt2-124m --speculate --prompt-tokens 128\n  \
    shaderlm bench generate --size gpt2-124m --contexts 32,256,512,1000 --plot contexts.svg")]
pub struct BenchGenerate {
    /// A folder, or a repository of the Hub; by default the model in this program
    #[arg(long, value_name = "DIR|REPO", conflicts_with = "size")]
    model: Option<String>,
    /// A GPT-2 with random weights
    #[arg(long, value_parser = ["gpt2-124m", "gpt2-355m", "gpt2-774m", "gpt2-1.5b"])]
    size: Option<String>,
    /// Store weights so on the device; by default as they are in the file
    #[arg(long, value_enum, value_name = "FORMAT")]
    weights: Option<WeightFormat>,
    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = at_least_one())]
    prompt_tokens: usize,
    /// Tokens to write after each prompt
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = at_least_one())]
    tokens: usize,
    /// Texts at once
    #[arg(long, value_name = "B", default_value_t = 1, value_parser = at_least_one())]
    batch: usize,
    /// Divides the logits; 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.0, value_parser = number_in(0.0, 1000.0))]
    temperature: f32,
    /// Tokens of a submission as for a reader at a terminal: at least every 50 ms
    #[arg(long)]
    smooth: bool,
    /// Guess up to N tokens at a time; the prompts repeat themselves then, as does what a model makes of them
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "7", value_parser = clap::value_parser!(u16).range(1..=63))]
    speculate: Option<u16>,
    /// Measure again with prompts of these lengths
    #[arg(long, value_name = "N,..", value_delimiter = ',', value_parser = at_least_one())]
    contexts: Vec<usize>,
    /// Draw the time of a token against the length of its context
    #[arg(long, value_name = "FILE.svg", requires = "contexts")]
    plot: Option<PathBuf>,
    /// One JSON object
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// Tokens after which prompts repeat themselves, for guesses.
const PERIOD: usize = 24;

fn at_least_one() -> impl TypedValueParser<Value = usize> {
    clap::value_parser!(u64).range(1..1 << 32).map(|n| n as usize)
}

/// What was measured with prompts of one length.
#[derive(Serialize)]
struct Measured {
    prompt_tokens: usize,
    tokens: usize,
    batch: usize,
    /// All prompts, to the first token, from when everything is compiled.
    first_token_ms: f64,
    prompt_submissions: usize,
    prompt_tokens_per_s: f64,
    /// Of the prompts' plans; none on the CPU, which has no plans.
    prompt_gflops: Option<f64>,
    /// Of a product `[m,k] x [k,n]`.
    product: [usize; 3],
    product_gflops: f64,
    prompt_share: Option<f64>,
    decode_tokens_per_s: f64,
    /// Of a row. Tokens that come together share their time.
    token_ms_p50: f64,
    token_ms_p99: f64,
    tokens_a_submission: f64,
    /// With guesses: how many there were and how many of them were right, over all rows, and how many tokens a step made of a row.
    guesses: Option<Guesses>,
    weight_bytes: u64,
    cache_bytes: u64,
    gb_per_s: f64,
    /// Of the device's bandwidth.
    ceiling_share: Option<f64>,
    /// Of the time of a token.
    host_share: Option<f64>,
    /// The host's time for a step, while the device works.
    encoding_ms: f64,
    dispatches: usize,
}

#[derive(Serialize)]
struct Guesses {
    guessed: usize,
    right: usize,
    tokens_a_step: f64,
}

#[derive(Serialize)]
struct Report {
    device: String,
    model: String,
    read_gb_per_s: Option<f64>,
    measured: Vec<Measured>,
}

impl BenchGenerate {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        let mut engine = self.device.engine()?;
        let (name, config) = self.model(&mut engine)?;
        let lengths = if self.contexts.is_empty() { vec![self.prompt_tokens] } else { self.contexts.clone() };
        for &length in &lengths {
            // The first token comes with the prompt.
            if length + self.tokens > config.n_positions + 1 {
                return refuse(format!(
                    "{length} tokens of the prompt and {} more do not fit the model's context of {}",
                    self.tokens, config.n_positions
                ));
            }
        }
        if self.speculate.is_some_and(|most| usize::from(most) >= config.n_positions) {
            return refuse(format!(
                "--speculate: so many tokens at once do not fit the model's context of {}",
                config.n_positions
            ));
        }
        let ceilings = self.ceilings(&engine)?;
        let read_gb_per_s = ceilings.map(|c| c.read_gb_per_s);
        let mut report = Report { device: engine.device_name(), model: name, read_gb_per_s, measured: Vec::new() };
        for length in lengths {
            report.measured.push(self.measure(&mut engine, &config, length, report.read_gb_per_s)?);
        }
        engine.save_pipelines();
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{}", serde_json::to_string(&report)?)?;
        } else {
            print(&mut out, &report)?;
        }
        if let Some(file) = &self.plot {
            let points = report.measured.iter().map(|m| [m.prompt_tokens as f64, m.token_ms_p50]).collect();
            let title = format!("{}, {} at once, on {}", report.model, self.batch, report.device);
            let axes = Axes { title: &title, x: "tokens of context", y: "milliseconds a token" };
            let drawing = svg(&axes, &[Line { name: "shaderlm".into(), points }])?;
            write_atomic(file, |to| to.write_all(drawing.as_bytes()))?;
        }
        Ok(())
    }

    /// The model's name and shape, its weights on the device.
    fn model(&self, engine: &mut Engine) -> Result<(String, Gpt2Config), Box<dyn std::error::Error>> {
        let named = self.size.as_ref().and_then(|size| Some((size, Gpt2Config::named(size.strip_prefix("gpt2-")?)?)));
        if let Some((size, config)) = named {
            initialise(&parameters(&config), engine, 0)?;
            let format = self.weights.unwrap_or(WeightFormat::F32).of(32);
            for parameter in parameters(&config) {
                let (Some(along), Some(values)) = (product_dimension(&parameter.name), engine.get(&parameter.name)?) else {
                    continue;
                };
                let packing = Packing::new(format, &parameter.shape, along)?;
                engine.set_packed(&parameter.name, &Packed::pack(packing, values.f())?)?;
            }
            return Ok((format!("{size} (random weights, {})", format.word()), config));
        }
        let model = Model::chosen(self.model.as_deref(), &SHAKESPEARE)?;
        let config = model.gpt2()?.clone();
        model.upload_narrow(engine, &config, self.weights.map(|format| format.of(32)))?;
        Ok((model.place().to_owned(), config))
    }

    /// What is known of the device, or a brief measurement.
    fn ceilings(&self, engine: &Engine) -> Result<Option<Ceilings>, Box<dyn std::error::Error>> {
        if let Some(known) = Ceilings::remembered(engine.capabilities()) {
            return Ok(Some(known));
        }
        let choice = if engine.capabilities().is_some() { self.device.device.clone() } else { DeviceChoice::Cpu };
        Ok(Some(Ceilings::measure(&choice, Effort::Brief, &mut |_, _, _| {})?))
    }

    fn measure(
        &self,
        engine: &mut Engine,
        config: &Gpt2Config,
        length: usize,
        read_gb_per_s: Option<f64>,
    ) -> Result<Measured, Box<dyn std::error::Error>> {
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: 0,
            top_p: 1.0,
            repetition_penalty: 1.0,
            seed: 1,
            stops: StopTokens::none(),
        };
        let capacity = config.n_positions.min(length + self.tokens);
        let product = [(length * self.batch).min(CHUNK), config.n_embd, config.inner()];
        let product_before = product_rate(engine, product)?;
        let mut generator = Generator::new(engine, config, self.batch, capacity, sampling)?;
        generator.set_bound(if self.smooth { SMOOTH } else { LONGEST });
        if let Some(most) = self.speculate {
            generator.speculate(usize::from(most))?;
        }
        // Any ids will do, since text has no influence on the time, but for guesses, which need some that repeat.
        let period = if self.speculate.is_some() { PERIOD } else { length };
        let id = |row: usize, i: usize| ((row * 7919 + i % period * 104_729) % config.vocab_size) as u32;
        let prompts: Vec<Vec<u32>> = (0..self.batch).map(|row| (0..length).map(|i| id(row, i)).collect()).collect();
        // The first time compiles, and finds how many tokens a submission can take.
        generator.prompt(&prompts)?;
        generator.decode((self.tokens - 1).min(8))?;
        // What the caches hold would be reused.
        generator.forget();
        let before = generator.stats;
        let start = Instant::now();
        generator.prompt(&prompts)?;
        let first = start.elapsed();
        let prompt_flops = generator.stats.prompt_flops - before.prompt_flops;
        let prompt_submissions = generator.stats.prompt_submissions - before.prompt_submissions;
        let before = generator.stats;
        let until: Vec<_> = generator.tokens().iter().map(|text| text.len() + self.tokens - 1).collect();
        let mut times = Vec::new();
        let mut last = Instant::now();
        let begin = last;
        loop {
            let wanted: Vec<_> =
                generator.tokens().iter().zip(&until).map(|(text, until)| until.saturating_sub(text.len())).collect();
            let came = generator.next(&wanted)?;
            if came == 0 {
                break;
            }
            let now = Instant::now();
            times.extend(std::iter::repeat_n(now.duration_since(last) / came as u32, came));
            last = now;
        }
        let wall = begin.elapsed();
        let stats = generator.stats;
        drop(generator);
        // Before and after: a machine may have had something else to do the one time.
        let product_gflops = product_before.max(product_rate(engine, product)?) / 1e9;
        times.sort_unstable();
        let ms = |time: Duration| time.as_secs_f64() * 1e3;
        let rank = |share: f64| times.get(((times.len() as f64 * share).ceil() as usize).max(1) - 1).map_or(0.0, |&t| ms(t));
        let device = stats.device_time - before.device_time;
        let submissions = (stats.submissions - before.submissions).max(1);
        let decoded = stats.decoded_tokens - before.decoded_tokens;
        let tokens = decoded / self.batch;
        // Each reads the weights once.
        let steps = if self.speculate.is_some() { submissions } else { tokens };
        // On average: the first token that is decoded has the prompt behind it.
        let cache_bytes = stats.cache_bytes * (length as u64 + tokens as u64 / 2);
        let per_s = |count: usize, time: Duration| count as f64 / time.as_secs_f64().max(1e-9);
        let gb_per_s = (stats.weight_bytes + cache_bytes) as f64 * per_s(steps, wall) / 1e9;
        let prompt_gflops = (prompt_flops > 0).then(|| prompt_flops as f64 / first.as_secs_f64().max(1e-9) / 1e9);
        Ok(Measured {
            prompt_tokens: length,
            tokens: self.tokens,
            batch: self.batch,
            first_token_ms: ms(first),
            prompt_submissions,
            prompt_tokens_per_s: per_s(length * self.batch, first),
            prompt_gflops,
            product,
            product_gflops,
            prompt_share: prompt_gflops.map(|gflops| gflops / product_gflops),
            decode_tokens_per_s: per_s(decoded, wall),
            token_ms_p50: rank(0.5),
            token_ms_p99: rank(0.99),
            tokens_a_submission: tokens as f64 / submissions as f64,
            guesses: self.speculate.map(|_| Guesses {
                guessed: stats.guessed_tokens - before.guessed_tokens,
                right: stats.right_tokens - before.right_tokens,
                tokens_a_step: tokens as f64 / submissions as f64,
            }),
            weight_bytes: stats.weight_bytes,
            cache_bytes,
            gb_per_s,
            ceiling_share: read_gb_per_s.map(|ceiling| gb_per_s / ceiling),
            host_share: (!device.is_zero()).then(|| 1.0 - device.as_secs_f64() / wall.as_secs_f64().max(1e-9)),
            encoding_ms: ms(stats.encode_time - before.encode_time) / steps.max(1) as f64,
            dispatches: stats.plan.dispatches,
        })
    }
}

fn print(out: &mut impl Write, report: &Report) -> std::io::Result<()> {
    writeln!(out, "{} on {}", report.model, report.device)?;
    for m in &report.measured {
        let percent = |share: Option<f64>| share.map_or("unknown".into(), |share| format!("{:.1} %", 100.0 * share));
        writeln!(out, "prompt of {}, {} more, {} at once", m.prompt_tokens, m.tokens, m.batch)?;
        let each = m.first_token_ms / m.prompt_submissions.max(1) as f64;
        let submissions =
            if m.prompt_submissions == 1 { "one submission".into() } else { format!("{} submissions", m.prompt_submissions) };
        writeln!(out, "   first token       {:>10.2} ms, {submissions} of {each:.0} ms", m.first_token_ms)?;
        let [rows, k, n] = m.product;
        let rate = m.prompt_gflops.map_or(String::new(), |gflops| {
            format!(
                ", {gflops:.2} GFLOP/s, {} of a product of {rows} x {k} x {n} ({:.2})",
                percent(m.prompt_share),
                m.product_gflops
            )
        });
        writeln!(out, "   prompt            {:>10.2} tokens/s{rate}", m.prompt_tokens_per_s)?;
        writeln!(out, "   decoding          {:>10.2} tokens/s", m.decode_tokens_per_s)?;
        writeln!(out, "   between tokens    {:>10.2} ms (p50), {:.2} ms (p99)", m.token_ms_p50, m.token_ms_p99)?;
        let (weights, cache) = (m.weight_bytes as f64 / 1e6, m.cache_bytes as f64 / 1e6);
        writeln!(out, "   reads             {:>10.2} MB a step: weights {weights:.2}, cache {cache:.2}", weights + cache)?;
        writeln!(out, "   bandwidth         {:>10.2} GB/s, {} of the ceiling", m.gb_per_s, percent(m.ceiling_share))?;
        let encoding = m.encoding_ms;
        writeln!(out, "   host's share      {:>10}; {encoding:.3} ms a step for encoding, besides", percent(m.host_share))?;
        match &m.guesses {
            Some(Guesses { guessed, right, tokens_a_step }) => {
                writeln!(
                    out,
                    "   guesses           {guessed:>10} tokens, {right} of them right; {tokens_a_step:.2} tokens a step"
                )?;
            }
            None => writeln!(
                out,
                "   dispatches        {:>10} a step, {:.1} steps a submission",
                m.dispatches, m.tokens_a_submission
            )?,
        }
    }
    Ok(())
}
