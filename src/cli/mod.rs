//! The command line: one file a subcommand; argument parsing and printing, no maths.

mod backward;
mod bench;
mod classify;
mod common;
mod data;
mod detect;
mod devices;
mod embed;
mod fill;
mod finetune;
mod forward;
mod generate;
mod graph;
mod io;
mod perplexity;
mod profile;
mod quantize;
mod tokenizer;
mod train;
mod tune;

use clap::{Parser, Subcommand};

/// The result of a subcommand. Whatever went wrong is printed as one line, and the exit code is 1.
type CliResult = Result<(), Box<dyn std::error::Error>>;

#[derive(Parser)]
#[command(
    name = "shaderlm",
    version,
    about = "Trains and runs GPT-2, BERT, DistilBERT, ALBERT and ELECTRA on any GPU: hand-written WGSL through Vulkan, Metal or DX12",
    after_help = "Examples:\n  \
        shaderlm generate \"ROMEO:\" --max-tokens 100\n  \
        echo \"Once upon a time\" | shaderlm generate --model openai-community/gpt2 --temperature 0.8\n  \
        shaderlm train gpt2 --data my.txt --out my-model --tokenizer bytes --layers 4 --width 128\n  \
        shaderlm tokenizer train --data my.txt --kind wordpiece --vocab 4096 --out tok.json\n  \
        shaderlm train bert --data my.txt --out my-bert --tokenizer tok.json --objective mlm+nsp\n  \
        shaderlm fill \"The king [MASK] unto them.\" --model my-bert\n  \
        shaderlm detect \"In the beginning God cooked the heaven and the earth.\" --model my-electra\n  \
        shaderlm embed --model sentence-transformers/all-MiniLM-L6-v2 --output vectors.safetensors < lines.txt\n  \
        shaderlm finetune --model my-bert --task classify --data reviews.tsv --out judge\n  \
        shaderlm classify \"A fine film.\" --model judge\n  \
        shaderlm quantize --model my-model --out my-small-model --weights q8\n  \
        shaderlm devices\n  \
        shaderlm bench ceilings"
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Generate(generate::Generate),
    Train(train::Train),
    Finetune(Box<finetune::Finetune>),
    Classify(classify::Classify),
    Tokenizer(tokenizer::TokenizerCommand),
    Data(data::DataCommand),
    Fill(fill::Fill),
    Detect(detect::Detect),
    Embed(embed::Embed),
    Forward(forward::Forward),
    Backward(backward::Backward),
    Perplexity(perplexity::Perplexity),
    Quantize(quantize::Quantize),
    Graph(graph::GraphCommand),
    Tune(tune::Tune),
    Devices(devices::Devices),
    Bench(bench::Bench),
}

/// Parses the arguments, runs the subcommand, and returns the exit code: 0, 1 for a fault, 2 for wrong usage.
pub fn main() -> i32 {
    quiet_driver();
    let result = match Cli::parse().command {
        Command::Generate(args) => args.run(),
        Command::Train(args) => args.run(),
        Command::Finetune(args) => args.run(),
        Command::Classify(args) => args.run(),
        Command::Tokenizer(args) => args.run(),
        Command::Data(args) => args.run(),
        Command::Fill(args) => args.run(),
        Command::Detect(args) => args.run(),
        Command::Embed(args) => args.run(),
        Command::Forward(args) => args.run(),
        Command::Backward(args) => args.run(),
        Command::Perplexity(args) => args.run(),
        Command::Quantize(args) => args.run(),
        Command::Graph(args) => args.run(),
        Command::Tune(args) => args.run(),
        Command::Devices(args) => args.run(),
        Command::Bench(args) => args.run(),
    };
    let profiled = profile::finish(result.is_ok());
    match result.and(profiled) {
        Ok(()) => 0,
        // Whoever read our output has enough of it: `shaderlm generate | head`.
        Err(error) if is_broken_pipe(&*error) => 0,
        Err(error) => {
            eprintln!("error: {error}");
            1
        }
    }
}

/// Mesa's device selection asks the display server, and without one its library prints an error of no consequence.
fn quiet_driver() {
    let unset = |name| std::env::var_os(name).is_none();
    if cfg!(target_os = "linux") && unset("XDG_RUNTIME_DIR") && unset("MESA_VK_DEVICE_SELECT") {
        // Safety: nothing has been started yet, so that there is no other thread.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

fn is_broken_pipe(error: &(dyn std::error::Error + 'static)) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
}
