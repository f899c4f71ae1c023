//! `shaderlm detect`

use super::{
    CliResult,
    common::{DeviceArgs, colour, number_in, refuse, texts_or_lines},
    profile::ProfileArgs,
};
use serde_json::{Value, json};
use shaderlm::{
    models::{BIBLE_ELECTRA, Detector, Model},
    text::Tokenizer,
};
use std::{error::Error, io::Write, ops::Range};

/// Find the words of a text that do not belong there
///
/// An ELECTRA's discriminator tells for each token how likely it is that another stood there. The text is printed with the
/// suspects in colour (in [brackets] where the output is no terminal), then a line a token: the probability and the token.
/// Without TEXT, each line of standard input is one.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm detect \"Thou shalt not steal bread and thou shalt not kill.\"\n  \
    shaderlm detect \"the chef ate the meal for the guests\" --model google/electra-base-discriminator\n  \
    shaderlm detect --model mine/discriminator --json < sentences.txt | jq '.tokens[] | select(.suspect)'")]
pub struct Detect {
    /// The texts
    text: Vec<String>,
    /// A discriminator: a folder (that of discriminator/ or the one that holds it), or a repository of the Hub; by default the
    /// built-in one, which knows the King James Bible
    #[arg(long, value_name = "DIR|REPO")]
    model: Option<String>,
    /// Tokens that are at least so likely to have been replaced are suspects
    #[arg(long, value_name = "P", default_value_t = 0.5, allow_negative_numbers = true, value_parser = number_in(0.0, 1.0))]
    threshold: f32,
    /// One JSON object a text
    #[arg(long)]
    json: bool,
    /// Texts at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch: usize,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// A token, its place in the text in bytes, and the probability that it was replaced.
struct Judged {
    id: u32,
    place: Range<usize>,
    probability: f32,
}

impl Detect {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        if self.batch == 0 {
            return refuse("--batch 0: must be at least 1");
        }
        let model = Model::chosen_network(self.model.as_deref(), "discriminator", &BIBLE_ELECTRA)?;
        let tokenizer = model.tokenizer()?;
        let special = tokenizer.special_tokens()?;
        let texts = texts_or_lines(&self.text)?;
        let encoded = texts.iter().map(|text| tokenizer.encode_with_offsets(text)).collect::<Result<Vec<_>, _>>()?;
        let ids: Vec<Vec<u32>> = encoded.iter().map(|tokens| tokens.iter().map(|token| token.0).collect()).collect();
        let mut detector = Detector::new(&model, special, self.device.engine()?)?;
        let found = detector.detect(&ids, self.batch)?;
        let mut out = std::io::BufWriter::new(std::io::stdout().lock());
        for ((text, tokens), probabilities) in texts.iter().zip(encoded).zip(found) {
            let judged = tokens.into_iter().zip(probabilities);
            let judged: Vec<_> = judged.map(|((id, place), probability)| Judged { id, place, probability }).collect();
            if self.json {
                writeln!(out, "{}", self.object(text, &judged, &tokenizer))?;
            } else {
                self.print(&mut out, text, &judged, &tokenizer)?;
            }
        }
        out.flush()?;
        detector.save_pipelines();
        Ok(())
    }

    fn suspect(&self, token: &Judged) -> bool {
        token.probability >= self.threshold
    }

    fn object(&self, text: &str, judged: &[Judged], tokenizer: &Tokenizer) -> Value {
        let tokens: Vec<_> = judged
            .iter()
            .map(|token| {
                json!({
                    "id": token.id, "token": tokenizer.id_to_token(token.id), "start": token.place.start,
                    "end": token.place.end, "text": &text[token.place.clone()], "probability": token.probability,
                    "suspect": self.suspect(token),
                })
            })
            .collect();
        json!({ "text": text, "marked": self.marked(text, judged, tokenizer, "[", "]"), "tokens": tokens })
    }

    /// The text with the words of suspects between marks; neighbours are marked as one.
    fn marked(&self, text: &str, judged: &[Judged], tokenizer: &Tokenizer, begin: &str, end: &str) -> String {
        let mut places: Vec<Range<usize>> = Vec::new();
        for word in judged.chunk_by(|_, next| !tokenizer.begins_word(next.id)) {
            if !word.iter().any(|token| self.suspect(token)) {
                continue;
            }
            let (first, last) = (word[0].place.start, word[word.len() - 1].place.end);
            // A token may take in the space before it.
            let start = last - text[first..last].trim_start().len();
            match places.last_mut() {
                Some(before) if text[before.end..start.max(before.end)].trim().is_empty() => before.end = before.end.max(last),
                _ => places.push(start..last),
            }
        }
        let mut marked = String::new();
        let mut done = 0;
        for place in places {
            marked += &text[done..place.start];
            marked += begin;
            marked += &text[place.clone()];
            marked += end;
            done = place.end;
        }
        marked + &text[done..]
    }

    fn print(&self, out: &mut impl Write, text: &str, judged: &[Judged], tokenizer: &Tokenizer) -> Result<(), Box<dyn Error>> {
        let (begin, end) = if colour() { ("\u{1b}[1;31m", "\u{1b}[0m") } else { ("[", "]") };
        writeln!(out, "{}", self.marked(text, judged, tokenizer, begin, end))?;
        for token in judged {
            let word = tokenizer.id_to_token(token.id).unwrap_or_default();
            let (before, after) = if colour() && self.suspect(token) { (begin, end) } else { ("", "") };
            writeln!(out, "  {:.4}  {before}{word}{after}", token.probability)?;
        }
        Ok(())
    }
}
