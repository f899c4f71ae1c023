//! Times meganeura's products, one JSON line a repetition.
//!
//! Its graphs have matrices, not batches, and its attention is without a batch dimension; the GPT-2 of the other peers is
//! not written in it.

#[path = "../../paced.rs"]
mod paced;

use clap::{Parser, ValueEnum};
use meganeura::{Graph, build_inference_session};
use paced::{Outcome, Pace};
use serde_json::json;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Mode {
    Matmul,
}

#[derive(Parser, Debug)]
#[command(about = "Times meganeura's products on the adapter, a JSON line a repetition")]
struct Args {
    #[arg(long, value_enum, default_value = "matmul")]
    mode: Mode,
    /// M,N,K and nn, nt or tn: which of the factors is stored transposed.
    #[arg(long, default_value = "768,768,768,nn")]
    shape: String,
    #[command(flatten)]
    pace: Pace,
}

/// Numbers between -1 and 1 that look random.
fn noise(count: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 7919 % 2003) as f32 - 1001.0) / 1001.0).collect()
}

fn run(args: &Args) -> Outcome<()> {
    let ([m, n, k], layout) = paced::product(&args.shape)?;
    let mut g = Graph::new();
    let a_shape = if layout == "tn" { [k, m] } else { [m, k] };
    let b_shape = if layout == "nt" { [n, k] } else { [k, n] };
    let (a, b) = (g.input("a", &a_shape), g.parameter("b", &b_shape));
    let y = match layout {
        "nn" => g.matmul(a, b),
        "nt" => g.matmul_bt(a, b),
        _ => g.matmul_at(a, b),
    };
    g.set_outputs(vec![y]);
    let mut session = build_inference_session(&g);
    let (left, right) = (noise(m * k), noise(n * k));
    session.set_input("a", &left);
    session.set_parameter("b", &right);
    args.pace.time(json!({ "engine": "meganeura 0.3.0", "what": "matmul" }), || {
        session.step();
        session.wait();
        Ok(json!({}))
    })?;
    // That it has computed the product at all: its first element against the host's.
    let at = |i: usize| if layout == "tn" { left[i * m] } else { left[i] };
    let from = |i: usize| if layout == "nt" { right[i] } else { right[i * n] };
    let expected: f32 = (0..k).map(|i| at(i) * from(i)).sum();
    let found = session.read_output(1)[0];
    if (found - expected).abs() > 1e-3 * (k as f32).sqrt() {
        return Err(format!("the product's first element is {found}, and should be {expected}").into());
    }
    Ok(())
}

fn main() -> std::process::ExitCode {
    paced::end("peer-meganeura", run(&Args::parse()))
}
