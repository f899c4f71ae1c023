//! `shaderlm data`

use super::{
    CliResult,
    common::{colour, progress_bar, refuse},
};
use clap::ValueEnum;
use serde_json::{Value, json};
use shaderlm::{
    checkpoint::resolve_model,
    text::Tokenizer,
    train::{Documents, Example, Pairing, PretrainSettings, Pretraining},
};
use std::{fs, io::Write, path::PathBuf};

/// The summary is taken over the first examples of an epoch, so many at most.
const SUMMARY: u64 = 10_000;

/// Look at training data
#[derive(clap::Args)]
pub struct DataCommand {
    #[command(subcommand)]
    command: What,
}

#[derive(clap::Subcommand)]
enum What {
    Inspect(Inspect),
}

/// What an encoder learns: masked tokens, alone or with a question about pairs of segments.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Objective {
    /// Masked tokens
    #[value(name = "mlm")]
    Masked,
    /// Masked tokens, and whether the second segment follows the first (BERT)
    #[value(name = "mlm+nsp")]
    NextSentence,
    /// Masked tokens, and whether two segments are in order (ALBERT)
    #[value(name = "mlm+sop")]
    SentenceOrder,
}

/// The same, and what an ELECTRA's generator learns.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Shown {
    /// Masked tokens
    #[value(name = "mlm")]
    Masked,
    /// Masked tokens, and whether the second segment follows the first (BERT)
    #[value(name = "mlm+nsp")]
    NextSentence,
    /// Masked tokens, and whether two segments are in order (ALBERT)
    #[value(name = "mlm+sop")]
    SentenceOrder,
    /// Masked tokens as ELECTRA's generator is given them
    Electra,
}

impl Shown {
    /// The paper's settings.
    fn settings(self, context: usize, seed: u32) -> PretrainSettings {
        let of = |objective: Objective| PretrainSettings::of_paper(objective.pairing(), context, seed);
        match self {
            Self::Masked => of(Objective::Masked),
            Self::NextSentence => of(Objective::NextSentence),
            Self::SentenceOrder => of(Objective::SentenceOrder),
            Self::Electra => PretrainSettings::electra(context, 0.15, seed),
        }
    }
}

impl Objective {
    pub fn pairing(self) -> Pairing {
        match self {
            Self::Masked => Pairing::Single,
            Self::NextSentence => Pairing::NextSentence,
            Self::SentenceOrder => Pairing::SentenceOrder,
        }
    }
}

/// Show examples as pre-training makes them from text files
///
/// A line of a file is a sentence or a paragraph, and blank lines stand between documents. A token that is to be predicted
/// is shown as [MASK→king], as [kept: king] where it is left as it is, or as [random queen→king] where another stands for it.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm data inspect --data bible.txt --tokenizer albert.json --objective mlm+sop --show 5\n  \
    shaderlm data inspect --data bible.txt --tokenizer words.json --objective electra --context 64\n  \
    shaderlm data inspect --data *.txt --model google-bert/bert-base-uncased --objective mlm+nsp --whole-words")]
struct Inspect {
    /// Text files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// A tokenizer.json with [CLS], [SEP], [MASK] and [PAD]
    #[arg(long, value_name = "FILE", required_unless_present = "model", conflicts_with = "model")]
    tokenizer: Option<PathBuf>,
    /// Use the tokenizer of this model: a folder, or a repository of the Hub
    #[arg(long, value_name = "DIR|REPO")]
    model: Option<String>,
    /// What is to be learnt
    #[arg(long, value_enum)]
    objective: Shown,
    /// Examples to show
    #[arg(long, value_name = "N", default_value_t = 5)]
    show: u64,
    /// Most tokens of an example
    #[arg(long, value_name = "N", default_value_t = 128)]
    context: usize,
    /// Seed of all choices
    #[arg(long, value_name = "N", default_value_t = 1337)]
    seed: u32,
    /// Longest n-gram that is masked as one; 3 with mlm+sop, as in ALBERT, else 1; not with electra
    #[arg(long, value_name = "N")]
    ngrams: Option<usize>,
    /// Mask whole words; mlm+sop always does, electra never
    #[arg(long)]
    whole_words: bool,
    /// Most tokens that are predicted in an example; by default 20, and 15.5 % of the context with electra
    #[arg(long, value_name = "N")]
    max_predictions: Option<usize>,
    /// One JSON object a line, the summary last
    #[arg(long)]
    json: bool,
}

impl DataCommand {
    pub fn run(self) -> CliResult {
        let What::Inspect(args) = self.command;
        args.run()
    }
}

impl Inspect {
    fn run(self) -> CliResult {
        let tokenizer = self.open_tokenizer()?;
        // Before the text is read, which may take long.
        tokenizer.special_tokens()?;
        if self.objective == Shown::Electra && (self.whole_words || self.ngrams.is_some()) {
            return refuse("--objective electra masks single tokens; --whole-words and --ngrams do not go with it");
        }
        let paper = self.objective.settings(self.context, self.seed);
        let settings = PretrainSettings {
            max_predictions: self.max_predictions.unwrap_or(paper.max_predictions),
            ngrams: self.ngrams.unwrap_or(paper.ngrams),
            whole_words: self.whole_words || paper.whole_words,
            ..paper
        };
        let documents = read_documents(&self.data, &tokenizer)?;
        let data = Pretraining::new(documents, &tokenizer, settings)?;
        let mut out = std::io::stdout().lock();
        let page = Page { tokenizer: &tokenizer, data: &data, colour: colour() };
        for index in 0..self.show {
            let example = data.example(index);
            if self.json {
                writeln!(out, "{}", page.object(index, &example))?;
            } else {
                page.print(&mut out, index, &example)?;
            }
        }
        let summary = Summary::of(&data);
        if self.json {
            writeln!(out, "{}", summary.object(&data))?;
        } else {
            summary.print(&mut out, &data)?;
        }
        Ok(())
    }

    fn open_tokenizer(&self) -> Result<Tokenizer, Box<dyn std::error::Error>> {
        match (&self.tokenizer, &self.model) {
            (Some(file), _) => Ok(Tokenizer::from_file(file)?),
            (None, Some(model)) => Ok(Tokenizer::from_folder(&resolve_model(model)?)?),
            (None, None) => refuse("give --tokenizer FILE or --model DIR"),
        }
    }
}

/// Reads documents with a bar on the terminal.
pub fn read_documents(files: &[PathBuf], tokenizer: &Tokenizer) -> Result<Documents, Box<dyn std::error::Error>> {
    let bytes: u64 = files.iter().filter_map(|file| fs::metadata(file).ok()).map(|about| about.len()).sum();
    let bar = progress_bar(bytes as usize, "reading text  {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left")?;
    let documents = Documents::read(files, tokenizer, |done| bar.inc(done));
    bar.finish_and_clear();
    Ok(documents?)
}

/// The pair's label in words.
fn pair_words(pairing: Pairing, label: u32) -> &'static str {
    match (pairing, label) {
        (Pairing::NextSentence, 0) => "the second follows the first",
        (Pairing::NextSentence, _) => "the second is from another document",
        (_, 0) => "in order",
        _ => "swapped",
    }
}

/// What stands at a place that is to be predicted.
enum Hidden {
    Mask,
    Kept,
    Random,
}

/// Writes examples.
struct Page<'a> {
    tokenizer: &'a Tokenizer,
    data: &'a Pretraining,
    colour: bool,
}

impl Page<'_> {
    fn hidden(&self, id: u32, label: u32) -> Hidden {
        if id == self.data.special().mask {
            Hidden::Mask
        } else if id == label {
            Hidden::Kept
        } else {
            Hidden::Random
        }
    }

    fn piece(&self, id: u32) -> String {
        self.tokenizer.piece(id).unwrap_or_default()
    }

    fn token(&self, id: u32) -> String {
        self.tokenizer.id_to_token(id).unwrap_or_default()
    }

    /// A segment's text, its hidden tokens marked: those of `example.ids` from the token types' first `segment` to its end.
    fn segment(&self, example: &Example, segment: u32) -> String {
        let special = self.data.special();
        let mut text = String::new();
        for (at, &id) in example.ids.iter().enumerate().filter(|&(at, _)| example.token_types[at] == segment) {
            let masked = example.masked_positions.binary_search(&(at as u32)).ok();
            let Some(label) = masked.map(|i| example.masked_labels[i]) else {
                if id != special.cls && id != special.sep {
                    text += &self.piece(id);
                }
                continue;
            };
            let (piece, now) = (self.piece(label), self.piece(id));
            let (word, now) = (piece.trim_start(), now.trim_start());
            let gap = &piece[..piece.len() - word.len()];
            // A piece that is nothing but a space is shown as the vocabulary has it.
            let (own, other) = (self.token(label), self.token(id));
            let word = if word.is_empty() { &own } else { word };
            let now = if now.is_empty() { &other } else { now };
            let mark = match self.hidden(id, label) {
                Hidden::Mask => format!("[MASK→{word}]"),
                Hidden::Kept => format!("[kept: {word}]"),
                Hidden::Random => format!("[random {now}→{word}]"),
            };
            text += gap;
            text += &if self.colour { format!("\u{1b}[33m{mark}\u{1b}[0m") } else { mark };
        }
        text.trim_start().to_owned()
    }

    fn print(&self, out: &mut impl Write, index: u64, example: &Example) -> std::io::Result<()> {
        let (tokens, masked) = (example.ids.len(), example.masked_labels.len());
        let pairing = self.data.settings().pairing;
        let pair = example.pair_label.map(|label| format!(", {}", pair_words(pairing, label))).unwrap_or_default();
        writeln!(out, "example {index}: {tokens} tokens, {masked} to predict{pair}")?;
        let two = example.token_types.contains(&1);
        writeln!(out, "  {}{}", if two { "1 " } else { "" }, self.segment(example, 0))?;
        if two {
            writeln!(out, "  2 {}", self.segment(example, 1))?;
        }
        writeln!(out)
    }

    fn object(&self, index: u64, example: &Example) -> Value {
        let token = |id: u32| self.token(id);
        let masked: Vec<_> = example
            .masked_positions
            .iter()
            .zip(&example.masked_labels)
            .map(|(&at, &label)| {
                let now = example.ids[at as usize];
                let how = match self.hidden(now, label) {
                    Hidden::Mask => "mask",
                    Hidden::Kept => "kept",
                    Hidden::Random => "random",
                };
                json!({ "position": at, "label": label, "token": token(label), "shown": token(now), "how": how })
            })
            .collect();
        let pairing = self.data.settings().pairing;
        json!({
            "index": index,
            "first": self.segment(example, 0),
            "second": example.token_types.contains(&1).then(|| self.segment(example, 1)),
            "pair_label": example.pair_label,
            "pair": example.pair_label.map(|label| pair_words(pairing, label)),
            "tokens": example.ids.iter().map(|&id| token(id)).collect::<Vec<_>>(),
            "ids": example.ids,
            "token_types": example.token_types,
            "masked": masked,
        })
    }
}

/// What the examples of an epoch are like.
struct Summary {
    looked_at: u64,
    mean_length: f64,
    share_masked: f64,
    share_positive: Option<f64>,
}

impl Summary {
    fn of(data: &Pretraining) -> Self {
        let looked_at = data.epoch_length().min(SUMMARY);
        let (mut tokens, mut masked, mut positive, mut pairs) = (0, 0, 0, 0u64);
        for example in (0..looked_at).map(|index| data.example(index)) {
            tokens += example.ids.len();
            masked += example.masked_labels.len();
            positive += u64::from(example.pair_label == Some(1));
            pairs += u64::from(example.pair_label.is_some());
        }
        Self {
            looked_at,
            mean_length: tokens as f64 / looked_at as f64,
            share_masked: masked as f64 / tokens as f64,
            share_positive: (pairs > 0).then(|| positive as f64 / pairs as f64),
        }
    }

    fn print(&self, out: &mut impl Write, data: &Pretraining) -> std::io::Result<()> {
        let pairing = data.settings().pairing;
        let pairs = self.share_positive.map(|share| format!(", {:.1} % {}", share * 100.0, pair_words(pairing, 1)));
        writeln!(
            out,
            "{} documents, {} tokens; {} examples an epoch, of {:.1} tokens on average, {:.1} % of them to predict{}",
            data.documents().len(),
            data.documents().tokens().len(),
            data.epoch_length(),
            self.mean_length,
            self.share_masked * 100.0,
            pairs.unwrap_or_default(),
        )
    }

    fn object(&self, data: &Pretraining) -> Value {
        json!({
            "documents": data.documents().len(),
            "tokens": data.documents().tokens().len(),
            "examples_per_epoch": data.epoch_length(),
            "examples_looked_at": self.looked_at,
            "mean_length": self.mean_length,
            "share_masked": self.share_masked,
            "share_positive": self.share_positive,
        })
    }
}
