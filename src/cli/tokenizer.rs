//! `shaderlm tokenizer`

use super::{
    CliResult,
    common::{refuse, say},
};
use clap::ValueEnum;
use shaderlm::text::{train_bpe, train_unigram, train_wordpiece};
use std::path::PathBuf;

/// Make a tokenizer
#[derive(clap::Args)]
pub struct TokenizerCommand {
    #[command(subcommand)]
    command: What,
}

#[derive(clap::Subcommand)]
enum What {
    Train(TrainTokenizer),
}

/// What a vocabulary is made of.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Bytes and merges, as GPT-2 has it
    Bpe,
    /// Pieces of words, as BERT has it
    Wordpiece,
    /// Pieces of words with probabilities, as ALBERT has it (SentencePiece)
    Unigram,
}

/// Learn a vocabulary from text files
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm tokenizer train --data *.txt --vocab 2048 --out tok.json\n  \
    shaderlm tokenizer train --data *.txt --kind wordpiece --vocab 4096 --out bert.json\n  \
    shaderlm tokenizer train --data *.txt --kind unigram --vocab 4096 --out albert.json")]
struct TrainTokenizer {
    /// Text files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// What to learn
    #[arg(long, value_enum, default_value_t = Kind::Bpe)]
    kind: Kind,
    /// Number of tokens, the special ones (and the 256 bytes of bpe) among them
    #[arg(long, value_name = "N")]
    vocab: usize,
    /// Keep capitals and accents (wordpiece and unigram; bpe always does)
    #[arg(long)]
    cased: bool,
    /// The tokenizer.json to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl TokenizerCommand {
    pub fn run(self) -> CliResult {
        let What::Train(args) = self.command;
        if args.cased && args.kind == Kind::Bpe {
            return refuse("--cased: --kind bpe always keeps capitals; leave it out");
        }
        let tokens = match args.kind {
            Kind::Bpe => train_bpe(&args.data, args.vocab, &args.out)?,
            Kind::Wordpiece => train_wordpiece(&args.data, args.vocab, args.cased, &args.out)?,
            Kind::Unigram => train_unigram(&args.data, args.vocab, args.cased, &args.out)?,
        };
        say!("{tokens} tokens in {}", args.out.display());
        Ok(())
    }
}
