//! `shaderlm train`

mod electra;
mod encoder;
mod flags;
mod gpt2;
mod run;

use super::CliResult;
pub use flags::Stored;

/// Train a model on text files
#[derive(clap::Args)]
pub struct Train {
    #[command(subcommand)]
    model: What,
}

#[derive(clap::Subcommand)]
enum What {
    Gpt2(Box<gpt2::TrainGpt2>),
    Bert(Box<encoder::TrainBert>),
    Albert(Box<encoder::TrainAlbert>),
    Electra(Box<electra::TrainElectra>),
}

impl Train {
    pub fn run(self) -> CliResult {
        match self.model {
            What::Gpt2(args) => args.run(),
            What::Bert(args) => args.run(),
            What::Albert(args) => args.run(),
            What::Electra(args) => args.run(),
        }
    }
}
