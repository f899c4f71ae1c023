//! Times fused attention: `cargo bench --bench attention -- [--model gpt2-124m,...] [--lengths 128,256,...]`.
//!
//! FLOPs are those of the products that the mask leaves: 2 of length x length x head width forward (q k^T and p v), 5 more
//! backward (the scores again, and the gradients of p, q, k and v); with a causal mask (length + 1) / (2 length) of them.
//! Bytes are q, k and v read and the result written, and backward also the result, its gradient and the gradients of q, k and v.

mod common;

use clap::Parser;
use common::{Case, Figure, Output, Report, Shape, noise, run_plan};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions},
    ops::{self, HostTensor, Mask, Recorded, Tensor, TensorType},
};
use std::error::Error;

#[derive(Parser)]
#[command(about = "Times fused attention, forward and forward + backward (SHADERLM_DEVICE chooses the adapter)")]
struct Args {
    /// Heads and widths of these models; all by default
    #[arg(long, value_enum, value_delimiter = ',')]
    model: Vec<Shape>,
    /// Rows of a sequence
    #[arg(long, value_delimiter = ',', default_value = "128,256,512,1024,2048")]
    lengths: Vec<usize>,
    /// Leave out longer ones
    #[arg(long, default_value_t = 2048)]
    max_length: usize,
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// One case only: heads (with --width, and the first of --lengths), and a repetition for each line on standard input
    #[arg(long, requires = "heads", requires = "width")]
    paced: bool,
    #[arg(long)]
    heads: Option<usize>,
    /// Of all heads together
    #[arg(long, requires = "heads")]
    width: Option<usize>,
    /// With --paced: causal
    #[arg(long)]
    causal: bool,
    /// With --paced: the backward pass, too
    #[arg(long)]
    backward: bool,
    #[command(flatten)]
    output: Output,
}

/// What one case computes.
#[derive(Clone, Copy)]
struct Work {
    batch: usize,
    length: usize,
    heads: usize,
    width: usize,
    causal: bool,
    backward: bool,
}

impl Work {
    fn flops(self) -> f64 {
        let [batch, length, width] = [self.batch, self.length, self.width].map(|n| n as f64);
        let unmasked = if self.causal { (length + 1.0) / (2.0 * length) } else { 1.0 };
        let products = if self.backward { 7.0 } else { 2.0 };
        2.0 * products * batch * length * length * width * unmasked
    }

    fn bytes(self) -> f64 {
        // In tensors of [batch, length, width].
        let tensors = if self.backward { 4.0 + 3.0 + 1.0 + 1.0 + 3.0 } else { 4.0 };
        4.0 * tensors * (self.batch * self.length * self.width) as f64
    }

    fn case<'a>(self, engine: &mut Engine, model: &str) -> Result<Case<'a>, Box<dyn Error>> {
        let mut g = Graph::new();
        let shape = [self.batch, self.length, 3 * self.width];
        let qkv = g.input("qkv", TensorType::f32(shape));
        let y = ops::attention(&mut g, qkv, self.heads, Mask { causal: self.causal, keys: None })?;
        let out = [self.batch, self.length, self.width];
        let mut outputs = vec![y];
        let mut upstream: Option<Tensor> = None;
        if self.backward {
            // The operation's own rule with a gradient that comes from outside, so that no loss is timed with it.
            let dy = g.input("dy", TensorType::f32(out));
            let node = g.nodes()[g.nodes().len() - 1].clone();
            let mut grads = vec![None; node.outputs.len()];
            grads[0] = Some(dy);
            let recorded = Recorded { inputs: &node.inputs, outputs: &node.outputs, grads: &grads, wanted: &[true] };
            outputs.extend(node.op.backward(&mut g, &recorded)?.into_iter().flatten());
            upstream = Some(dy);
        }
        let mut plan = engine.compile(g, &outputs, &PlanOptions::default())?;
        plan.set(qkv, HostTensor::floats(shape, noise(shape.iter().product(), 1)))?;
        if let Some(dy) = upstream {
            plan.set(dy, HostTensor::floats(out, noise(out.iter().product(), 2)))?;
        }
        let mask = if self.causal { "causal" } else { "full" };
        let pass = if self.backward { "forward + backward" } else { "forward" };
        Ok(Case {
            series: format!("{model} {mask} {}", if self.backward { "f+b" } else { "f" }),
            name: format!("{} x {}, {mask}, {pass}", self.batch, self.length),
            size: self.length as f64,
            flops: self.flops(),
            bytes: self.bytes(),
            run: run_plan(plan),
        })
    }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    if let (true, Some(heads), Some(width)) = (args.paced, args.heads, args.width) {
        let Args { batch, causal, backward, .. } = args;
        let mut case = Work { batch, length: args.lengths[0], heads, width, causal, backward }.case(&mut engine, "")?;
        return common::pace("attention", &mut engine, &mut case.run);
    }
    let models = if args.model.is_empty() { Shape::ALL.to_vec() } else { args.model.clone() };
    let ceilings = common::ceilings(&engine)?;
    let mut report = Report::new("attention", &args.output, &engine, Some(ceilings));
    for model in models {
        let s = model.numbers();
        for &length in args.lengths.iter().filter(|&&l| l <= args.max_length) {
            let mut cases = Vec::new();
            for (causal, backward) in [(true, false), (false, false), (true, true), (false, true)] {
                let work = Work { batch: args.batch, length, heads: s.heads, width: s.width, causal, backward };
                cases.push(work.case(&mut engine, s.name)?);
            }
            report.group(&mut engine, cases)?;
        }
    }
    report.finish("sequence length, tokens", Figure::Gflops)
}
