//! `shaderlm bench`

mod ceilings;
mod generate;
mod product;

pub use ceilings::summary;

use super::CliResult;

/// Measure a device, or a model on it
#[derive(clap::Args)]
pub struct Bench {
    #[command(subcommand)]
    what: What,
}

#[derive(clap::Subcommand)]
enum What {
    Ceilings(ceilings::BenchCeilings),
    Generate(generate::BenchGenerate),
}

impl Bench {
    pub fn run(self) -> CliResult {
        match self.what {
            What::Ceilings(args) => args.run(),
            What::Generate(args) => args.run(),
        }
    }
}
