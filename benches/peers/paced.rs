//! What the peers in Rust share: a repetition for each line on standard input, a JSON line for each.

use serde_json::{Map, Value};
use std::{
    error::Error,
    io::{BufRead, Write},
    time::Instant,
};

pub type Outcome<T> = Result<T, Box<dyn Error>>;

/// Untimed runs before the first repetition; engines that tune themselves choose their kernels in them.
const WARM_UP: usize = 2;

/// How often, and whether a line on standard input is waited for before each.
#[derive(clap::Args, Debug)]
pub struct Pace {
    #[arg(long, default_value_t = 5)]
    repeats: u32,
    /// Wait for a line on standard input before each repetition, so that a caller can alternate engines within one run; ends at
    /// end of input. A line {"what":..,"ready":true} follows the warm-up.
    #[arg(long)]
    paced: bool,
}

impl Pace {
    /// Runs `work`, which returns only when the device has finished, and prints a JSON line a timed run: `about` (what is the same
    /// in all), `ms`, what `work` gives for these milliseconds, and `gflops` where `about` has `flops`.
    pub fn time(&self, about: Value, mut work: impl FnMut() -> Outcome<Value>) -> Outcome<()> {
        for _ in 0..WARM_UP {
            work()?;
        }
        let mut input = std::io::stdin().lock().lines();
        if self.paced {
            say(&[&about, &serde_json::json!({ "ready": true })])?;
        }
        for _ in 0..self.repeats {
            if self.paced && input.next().transpose()?.is_none() {
                break;
            }
            let start = Instant::now();
            let more = work()?;
            let seconds = start.elapsed().as_secs_f64();
            let thousandths = |value: f64| (value * 1e3).round() / 1e3;
            let mut took = serde_json::json!({ "ms": thousandths(seconds * 1e3) });
            if let Some(flops) = about["flops"].as_f64() {
                took["gflops"] = thousandths(flops / seconds / 1e9).into();
            }
            say(&[&about, &took, &more])?;
        }
        Ok(())
    }
}

/// Prints the fields of some objects as one.
fn say(parts: &[&Value]) -> Outcome<()> {
    let fields = parts.iter().filter_map(|part| part.as_object()).flatten();
    let line: Map<String, Value> = fields.map(|(name, value)| (name.clone(), value.clone())).collect();
    let mut out = std::io::stdout();
    writeln!(out, "{}", Value::Object(line))?;
    Ok(out.flush()?)
}

/// M, N, K and which of the factors is stored transposed, of a `--shape`.
#[allow(dead_code, reason = "not every peer times products by shape")]
pub fn product(shape: &str) -> Outcome<([usize; 3], &str)> {
    let parts: Vec<_> = shape.split(',').collect();
    let [m, n, k, layout] = parts[..] else { return Err(format!("--shape {shape}: M,N,K,nn|nt|tn").into()) };
    if !["nn", "nt", "tn"].contains(&layout) {
        return Err(format!("--shape: {layout} is not nn, nt or tn").into());
    }
    Ok(([m.parse()?, n.parse()?, k.parse()?], layout))
}

/// Ends a program with what it came to.
pub fn end(program: &str, done: Outcome<()>) -> std::process::ExitCode {
    match done {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{program}: {error}");
            std::process::ExitCode::FAILURE
        }
    }
}
