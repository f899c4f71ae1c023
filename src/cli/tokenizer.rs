//! `shaderlm tokenizer`

use super::{CliResult, common::say};
use shaderlm::text::train_bpe;
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

/// Learn a byte-level BPE vocabulary, as GPT-2 has it, from text files
#[derive(clap::Args)]
struct TrainTokenizer {
    /// Text files
    #[arg(long, required = true, num_args = 1.., value_name = "FILE")]
    data: Vec<PathBuf>,
    /// Number of tokens, the 256 bytes and <|endoftext|> among them
    #[arg(long, value_name = "N")]
    vocab: usize,
    /// The tokenizer.json to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

impl TokenizerCommand {
    pub fn run(self) -> CliResult {
        let What::Train(args) = self.command;
        let tokens = train_bpe(&args.data, args.vocab, &args.out)?;
        say!("{tokens} tokens in {}", args.out.display());
        Ok(())
    }
}
