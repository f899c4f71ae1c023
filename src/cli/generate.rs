//! `shaderlm generate`

use super::{
    CliResult,
    common::{DeviceArgs, number_in, refuse},
    profile::ProfileArgs,
};
use shaderlm::{
    models::{
        Model, ModelError, SHAKESPEARE, WeightFormat,
        generate::{GenerationStats, Generator, SMOOTH, Sampling},
    },
    ops::StopTokens,
    text::{TextStream, Tokenizer},
};
use std::{
    io::{IsTerminal, Read, Write},
    time::Duration,
};

/// Write text that continues a prompt
///
/// The prompt is the argument, or standard input when that is piped. Text streams to standard output as it is made.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm generate \"ROMEO:\" --max-tokens 100 --seed 7\n  \
    shaderlm generate \"The capital of France is\" --model openai-community/gpt2 --temperature 0\n  \
    cat letter.txt | shaderlm generate --model ./my-model --top-p 0.9 --stats\n  \
    shaderlm generate --prompt \"First\" --prompt \"Second\" --json")]
pub struct Generate {
    /// The text to continue
    prompt: Option<String>,
    /// More prompts, run as one batch and printed one after another
    #[arg(long = "prompt", value_name = "PROMPT")]
    prompts: Vec<String>,
    /// A folder, a repository of the Hub such as openai-community/gpt2, or a GGUF file; by default the model in this program
    #[arg(long, value_name = "DIR|REPO|GGUF")]
    model: Option<String>,
    /// Store weights so on the device: narrow ones are read sooner; by default as they are in the file
    #[arg(long, value_enum, value_name = "FORMAT")]
    weights: Option<WeightFormat>,
    /// Most tokens to write; 200 by default, or what the model's context has room for
    #[arg(long, value_name = "N")]
    max_tokens: Option<usize>,
    /// Divides the logits: below 1 is safer, above 1 is wilder, 0 takes the likeliest token
    #[arg(long, value_name = "T", default_value_t = 0.8, value_parser = number_in(0.0, 1000.0))]
    temperature: f32,
    /// Choose among the K likeliest tokens only; 0 for all
    #[arg(long, value_name = "K", default_value_t = 0)]
    top_k: usize,
    /// Choose among the likeliest tokens that together have probability P only; 1 for all
    #[arg(long, value_name = "P", default_value_t = 1.0, value_parser = number_in(1e-6, 1.0))]
    top_p: f32,
    /// Make tokens that occurred less likely; 1 for no penalty
    #[arg(long, value_name = "R", default_value_t = 1.0, value_parser = number_in(0.01, 100.0))]
    repetition_penalty: f32,
    /// Seed of the random choices; another one each time by default
    #[arg(long, value_name = "S")]
    seed: Option<u32>,
    /// Stop before this text; may be given several times
    #[arg(long, value_name = "TEXT", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    stop: Vec<String>,
    /// Token ids instead of a text prompt, such as 1,2,3
    #[arg(long, value_name = "IDS", value_delimiter = ',', conflicts_with_all = ["prompt", "prompts"])]
    ids: Vec<u32>,
    /// Read text such as <|endoftext|> in the prompt as the token of that name
    #[arg(long)]
    special_tokens: bool,
    /// Go on beyond the model's context by forgetting the older half of the text
    #[arg(long)]
    slide: bool,
    /// Guess up to N tokens at a time from what the text repeats, and verify them at once: the text stays the same
    #[arg(long, value_name = "N", num_args = 0..=1, default_missing_value = "7", value_parser = clap::value_parser!(u16).range(1..=63))]
    speculate: Option<u16>,
    /// Print speed, dispatches, submissions and memory to standard error at the end
    #[arg(long)]
    stats: bool,
    /// Print one JSON object with ids and text instead of the text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// One text of the batch.
struct Row<'a> {
    ids: Vec<u32>,
    /// `None` without a tokenizer: ids are written instead.
    stream: Option<TextStream<'a>>,
    text: String,
    done: Option<&'static str>,
}

/// What ends a text.
struct Limits {
    max_tokens: usize,
    /// The end-of-text token.
    end: Option<u32>,
}

impl Generate {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        let model = Model::chosen(self.model.as_deref(), &SHAKESPEARE)?;
        let config = model.gpt2()?;
        let tokenizer = match model.tokenizer() {
            Ok(tokenizer) => Some(tokenizer),
            // Ids go in, ids come out.
            Err(ModelError::Text(_)) if !self.ids.is_empty() => None,
            Err(error @ ModelError::Text(_)) => return refuse(format!("{error}; without one give --ids")),
            Err(error) => return Err(error.into()),
        };
        let prompts = self.encoded_prompts(tokenizer.as_ref(), config.vocab_size)?;
        let context = config.n_positions;
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let room = if self.slide { usize::MAX } else { (context + 1).saturating_sub(longest) };
        let max_tokens = self.max_tokens.unwrap_or(200.min(room));
        if self.max_tokens == Some(0) {
            return refuse("--max-tokens 0: there is nothing to write");
        }
        if longest > context {
            return refuse(format!(
                "the prompt has {longest} tokens, and the model's context is {context}; give a shorter prompt"
            ));
        }
        // Said before a word is written: whoever asks for so much would otherwise get a part of it, cut in mid-sentence.
        if max_tokens > room {
            return refuse(format!(
                "--max-tokens {max_tokens}: after the prompt's {longest} tokens the model's context of {context} has room for \
                 {room}; give no more than that, a shorter prompt, or --slide to forget the older text",
            ));
        }
        if self.speculate.is_some() && self.repetition_penalty != 1.0 {
            return refuse("--speculate does not go with --repetition-penalty, which depends on every token before");
        }
        let mut engine = self.device.engine()?;
        model.upload_narrow(&mut engine, config, self.weights.map(|format| format.of(32)))?;
        let sampling = Sampling {
            temperature: self.temperature,
            top_k: self.top_k,
            top_p: self.top_p,
            repetition_penalty: self.repetition_penalty,
            seed: self.seed.unwrap_or_else(clock_seed),
            stops: self.stop_tokens(tokenizer.as_ref(), config.vocab_size),
        };
        let capacity = context.min(longest + max_tokens);
        let mut rows: Vec<_> = prompts
            .iter()
            .map(|_| Row {
                ids: Vec::new(),
                stream: tokenizer.as_ref().map(|t| TextStream::new(t, self.stop.clone())),
                text: String::new(),
                done: None,
            })
            .collect();
        let stats = {
            let mut generator = Generator::new(&mut engine, config, prompts.len(), capacity, sampling)?;
            if let Some(most) = self.speculate {
                generator.speculate(usize::from(most))?;
            }
            let end = tokenizer.as_ref().and_then(Tokenizer::end_of_text);
            self.write(&mut generator, &prompts, &mut rows, &Limits { max_tokens, end })?;
            generator.stats
        };
        self.finish(&prompts, &rows, sampling.seed)?;
        if self.stats {
            print_stats(&stats, &engine.device_name());
        }
        engine.save_pipelines();
        Ok(())
    }

    /// Tokens that end a text by themselves: the end of text, and texts to stop before that are one token.
    fn stop_tokens(&self, tokenizer: Option<&Tokenizer>, vocab: usize) -> StopTokens {
        let Some(tokenizer) = tokenizer else { return StopTokens::none() };
        let single = |text: &String| match tokenizer.encode(text, false).as_deref() {
            Ok(&[id]) if tokenizer.decode(&[id]).is_ok_and(|decoded| decoded == *text) => Some(id),
            _ => None,
        };
        let stops = tokenizer.end_of_text().into_iter().chain(self.stop.iter().filter_map(single));
        StopTokens::of(&stops.filter(|&id| (id as usize) < vocab).collect::<Vec<_>>())
    }

    fn encoded_prompts(&self, tokenizer: Option<&Tokenizer>, vocab: usize) -> Result<Vec<Vec<u32>>, Box<dyn std::error::Error>> {
        if !self.ids.is_empty() {
            if let Some(id) = self.ids.iter().find(|id| **id as usize >= vocab) {
                return refuse(format!("--ids: {id} is no token; the vocabulary has ids 0 to {}", vocab - 1));
            }
            return Ok(vec![self.ids.clone()]);
        }
        let mut texts: Vec<String> = self.prompt.iter().chain(&self.prompts).cloned().collect();
        if texts.is_empty() && !std::io::stdin().is_terminal() {
            let mut bytes = Vec::new();
            std::io::stdin().read_to_end(&mut bytes)?;
            let text = String::from_utf8(bytes)
                .map_err(|e| format!("standard input is not UTF-8: a bad byte at {}", e.utf8_error().valid_up_to()))?;
            // A shell's echo ends the line; the text goes on in it.
            let text = text.strip_suffix('\n').map(|t| t.strip_suffix('\r').unwrap_or(t)).unwrap_or(&text).to_owned();
            if !text.is_empty() {
                texts.push(text);
            }
        }
        if texts.is_empty() && self.model.is_none() {
            // The built-in model knows plays; a new line is where one begins.
            texts.push("\n".into());
        }
        if texts.is_empty() || texts.iter().any(String::is_empty) {
            return refuse("the prompt is empty; give some text to continue, or --ids");
        }
        let Some(tokenizer) = tokenizer else { return refuse("without a tokenizer give --ids") };
        let mut prompts = Vec::new();
        for text in &texts {
            let ids = tokenizer.encode(text, self.special_tokens)?;
            if ids.is_empty() {
                return refuse(format!("the prompt {text:?} has no tokens"));
            }
            if let Some(id) = ids.iter().find(|id| **id as usize >= vocab) {
                return refuse(format!("the tokenizer gave id {id}, and the model's vocabulary has ids 0 to {}", vocab - 1));
            }
            prompts.push(ids);
        }
        Ok(prompts)
    }

    fn write(&self, generator: &mut Generator<'_>, prompts: &[Vec<u32>], rows: &mut [Row<'_>], limits: &Limits) -> CliResult {
        let streaming = !self.json && rows.len() == 1;
        if streaming && std::io::stdout().is_terminal() {
            generator.set_bound(SMOOTH);
        }
        if streaming && self.ids.is_empty() {
            let mut out = std::io::stdout().lock();
            // Only a prompt that was given is repeated.
            if let Some(prompt) = self.prompt.as_ref().or(self.prompts.first()) {
                write!(out, "{prompt}")?;
                out.flush()?;
            }
        }
        generator.prompt(prompts)?;
        self.take(generator, rows, limits, streaming)?;
        while rows.iter().any(|r| r.done.is_none()) {
            let left = |row: &Row<'_>| if row.done.is_none() { limits.max_tokens - row.ids.len() } else { 0 };
            if generator.next(&rows.iter().map(left).collect::<Vec<_>>())? == 0 {
                // The cache is full: forget the older half and read the rest again.
                let tails: Vec<Vec<u32>> = prompts
                    .iter()
                    .zip(rows.iter())
                    .map(|(prompt, row)| {
                        let keep = (generator.capacity() / 2).max(1);
                        let of_prompt = keep.saturating_sub(row.ids.len()).min(prompt.len());
                        let of_row = &row.ids[row.ids.len().saturating_sub(keep)..];
                        [&prompt[prompt.len() - of_prompt..], of_row].concat()
                    })
                    .collect();
                generator.restart(&tails)?;
            }
            self.take(generator, rows, limits, streaming)?;
        }
        Ok(())
    }

    /// Takes the tokens that have come since the last time.
    fn take(&self, generator: &Generator<'_>, rows: &mut [Row<'_>], limits: &Limits, streaming: bool) -> CliResult {
        let mut out = std::io::stdout().lock();
        for ((row, tokens), &ended) in rows.iter_mut().zip(generator.tokens()).zip(generator.ended()) {
            for &id in &tokens[row.ids.len().min(tokens.len())..] {
                if row.done.is_some() {
                    break;
                }
                row.ids.push(id);
                if Some(id) == limits.end {
                    row.done = Some("end of text");
                    break;
                }
                let text = match &mut row.stream {
                    Some(stream) => stream.push(id)?,
                    None => format!("{}{id}", if row.ids.len() > 1 { "," } else { "" }),
                };
                row.text.push_str(&text);
                if streaming {
                    write!(out, "{text}")?;
                }
                if row.stream.as_ref().is_some_and(TextStream::stopped) {
                    row.done = Some("stop text");
                } else if row.ids.len() >= limits.max_tokens {
                    row.done = Some("length");
                }
            }
            // Nothing follows a stop token, even where the stream holds its text for another.
            if ended && row.done.is_none() {
                row.done = Some("stop text");
            }
            if row.done.is_some_and(|why| why != "stop text") {
                let text = row.stream.as_mut().map(TextStream::finish).unwrap_or_default();
                row.text.push_str(&text);
                if streaming {
                    write!(out, "{text}")?;
                }
            }
        }
        out.flush()?;
        Ok(())
    }

    fn finish(&self, prompts: &[Vec<u32>], rows: &[Row<'_>], seed: u32) -> CliResult {
        let mut out = std::io::stdout().lock();
        if self.json {
            let texts: Vec<_> = rows
                .iter()
                .zip(prompts)
                .map(|(row, prompt)| {
                    serde_json::json!({
                        "prompt_ids": prompt, "ids": row.ids, "text": row.text, "finish": row.done, "seed": seed,
                    })
                })
                .collect();
            match &texts[..] {
                [one] => writeln!(out, "{one}")?,
                many => writeln!(out, "{}", serde_json::Value::from(many))?,
            }
        } else if rows.len() > 1 {
            let given = self.prompt.iter().chain(&self.prompts);
            for (i, (row, prompt)) in rows.iter().zip(given).enumerate() {
                writeln!(out, "{}{prompt}{}", if i > 0 { "---\n" } else { "" }, row.text)?;
            }
        } else {
            writeln!(out)?;
        }
        Ok(())
    }
}

/// A seed that differs from run to run.
fn clock_seed() -> u32 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |t| t.as_nanos() as u32)
}

fn print_stats(stats: &GenerationStats, device: &str) {
    let rate = |tokens: usize, time: Duration| tokens as f64 / time.as_secs_f64().max(1e-9);
    eprintln!("device      {device}");
    eprintln!(
        "prompt      {} tokens in {:.0} ms, {:.1} tokens/s (with the first token and its plan)",
        stats.prompt_tokens,
        stats.prompt_time.as_secs_f64() * 1e3,
        rate(stats.prompt_tokens, stats.prompt_time)
    );
    eprintln!(
        "decode      {} tokens in {:.0} ms, {:.1} tokens/s",
        stats.decoded_tokens,
        stats.decode_time.as_secs_f64() * 1e3,
        rate(stats.decoded_tokens, stats.decode_time)
    );
    if stats.reused_tokens > 0 {
        eprintln!("reused      {} of the prompts' tokens, which begin as others", stats.reused_tokens);
    }
    if stats.guessed_tokens > 0 {
        eprintln!("guesses     {} tokens, {} of them right", stats.guessed_tokens, stats.right_tokens);
    }
    let p = stats.plan;
    eprintln!(
        "a token     {} dispatches, {:.2} submissions, {} bytes of weights and caches",
        p.dispatches,
        stats.submissions as f64 / stats.decoded_tokens.max(1) as f64,
        p.variable_bytes
    );
    eprintln!(
        "activations {} bytes planned, {} bytes in the arena, {} bytes in images",
        p.planned_bytes, p.peak_bytes, p.image_bytes
    );
}
