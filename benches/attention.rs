//! Times fused attention: `cargo bench --bench attention -- [--model gpt2-124m,...] [--lengths 128,256,...] [--kernels]`.
//!
//! FLOPs are those of the products that the mask leaves: 2 of length x length x head width forward (q k^T and p v), 5 more
//! backward (the scores again, and the gradients of p, q, k and v); with a causal mask (length + 1) / (2 length) of them.
//! Bytes are q, k and v read and the result written, and backward also the result, its gradient and the gradients of q, k and v.

mod common;

use clap::Parser;
use common::{Case, Figure, Output, Report, Shape, kernels, round_noise, run_plan};
use shaderlm::{
    graph::{Engine, Graph, Plan, PlanOptions},
    ops::{self, HostTensor, Mask, Precision, Recorded, Recorder, Tensor, TensorType},
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
    /// Let a query of the causal cases attend to so many keys up to its own only, as GPT-3's banded layers do
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    band: Option<u32>,
    /// What may be rounded: with mixed, q, k, v and the gradient of the result are stored in 16 bits
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// Each kernel that can do a case, one after the other, checked against the simplest; one that fails or is wrong is a line, too
    #[arg(long)]
    kernels: bool,
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
    band: Option<usize>,
    backward: bool,
}

/// The graph, what goes in, and what comes out.
type Bench = (Graph, Vec<Tensor>, Vec<Tensor>);

impl Work {
    fn flops(self) -> f64 {
        let [batch, length, width] = [self.batch, self.length, self.width].map(|n| n as f64);
        // Of the keys of all queries: with a band the first queries have fewer.
        let seen = self.band.map_or(length, |band| length.min(band as f64));
        let unmasked = if self.causal { seen * (2.0 * length + 1.0 - seen) / (2.0 * length * length) } else { 1.0 };
        let products = if self.backward { 7.0 } else { 2.0 };
        2.0 * products * batch * length * length * width * unmasked
    }

    /// `stored`: bytes of what comes in; results are read by the host.
    fn bytes(self, stored: f64) -> f64 {
        // Of an element of [batch, length, width].
        let forward = 3.0 * stored + 4.0;
        let each = if self.backward { forward + 4.0 * stored + 4.0 + 3.0 * 4.0 } else { forward };
        each * (self.batch * self.length * self.width) as f64
    }

    fn mask(self) -> String {
        match self.band {
            Some(band) => format!("band {band}"),
            None => if self.causal { "causal" } else { "full" }.into(),
        }
    }

    fn name(self) -> String {
        let mask = self.mask();
        let pass = if self.backward { "forward + backward" } else { "forward" };
        format!("{} x {}, {mask}, {pass}", self.batch, self.length)
    }

    fn record(self) -> Result<Bench, Box<dyn Error>> {
        let mut g = Graph::new();
        let qkv = g.input("qkv", TensorType::f32([self.batch, self.length, 3 * self.width]));
        let y = ops::attention(&mut g, qkv, self.heads, Mask { causal: self.causal, keys: None, band: self.band })?;
        let (mut inputs, mut outputs) = (vec![qkv], vec![y]);
        if self.backward {
            // The operation's own rule with a gradient that comes from outside, so that no loss is timed with it.
            let dy = g.input("dy", TensorType::f32([self.batch, self.length, self.width]));
            let node = g.nodes()[g.nodes().len() - 1].clone();
            let mut grads = vec![None; node.outputs.len()];
            grads[0] = Some(dy);
            let recorded = Recorded { inputs: &node.inputs, outputs: &node.outputs, grads: &grads, wanted: &[true] };
            outputs.extend(node.op.backward(&mut g, &recorded)?.into_iter().flatten());
            inputs.push(dy);
        }
        Ok((g, inputs, outputs))
    }

    /// A plan that is ready to run; by kernel number `choice` wherever there is a choice, if one is given.
    fn plan(
        self,
        engine: &mut Engine,
        precision: Precision,
        choice: Option<usize>,
    ) -> Result<(Plan, Vec<Tensor>), Box<dyn Error>> {
        let (g, inputs, outputs) = self.record()?;
        let types: Vec<_> = inputs.iter().map(|&input| g.ty(input).clone()).collect();
        let mut plan = engine.compile(
            g,
            &outputs,
            &PlanOptions { choices: choice.into_iter().collect(), ..kernels::options(precision, &inputs) },
        )?;
        for (seed, (input, ty)) in inputs.into_iter().zip(types).enumerate() {
            plan.set(input, HostTensor::floats(ty.shape.clone(), round_noise(ty.elements(), seed as u32 + 1)))?;
        }
        Ok((plan, outputs))
    }

    fn case<'a>(self, precision: Precision, plan: Plan, series: String, name: String) -> Case<'a> {
        let bytes = self.bytes(if precision == Precision::Mixed { 2.0 } else { 4.0 });
        Case { series, name, size: self.length as f64, flops: self.flops(), bytes, run: run_plan(plan) }
    }

    /// With the kernels that a plan chooses.
    fn chosen<'a>(self, engine: &mut Engine, precision: Precision, model: &str) -> Result<Case<'a>, Box<dyn Error>> {
        let series = format!("{model} {} {}", self.mask(), if self.backward { "f+b" } else { "f" });
        let (plan, _) = self.plan(engine, precision, None)?;
        Ok(self.case(precision, plan, series, self.name()))
    }

    /// Times each kernel; forward and backward have lists of their own, and kernels of the same place go together.
    fn each_kernel(self, engine: &mut Engine, precision: Precision, report: &mut Report) -> Result<(), Box<dyn Error>> {
        let (g, inputs, outputs) = self.record()?;
        let lists = kernels::lists(engine, &g, &outputs, &kernels::options(precision, &inputs))?;
        let name = |choice: usize| {
            let each: Vec<_> = lists.iter().map(|list| list[choice.min(list.len() - 1)].as_str()).collect();
            each.join(" + ")
        };
        let count = lists.iter().map(Vec::len).max();
        let names = count.map_or_else(|| vec!["the only kernel".to_owned()], |count| (0..count).map(name).collect());
        let plan = |engine: &mut Engine, choice| self.plan(engine, precision, Some(choice));
        kernels::each(engine, report, (&self.name(), WRONG), &names, plan, |plan, name| {
            self.case(precision, plan, self.name(), name)
        })
    }
}

/// Results whose error is more than this part of their size, squared, are wrong. Kernels of 16 bits round probabilities.
const WRONG: f64 = 1e-6;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    if let (true, Some(heads), Some(width)) = (args.paced, args.heads, args.width) {
        let Args { batch, causal, backward, .. } = args;
        let band = args.band.filter(|_| causal).map(|band| band as usize);
        let mut case = Work { batch, length: args.lengths[0], heads, width, causal, band, backward }.chosen(
            &mut engine,
            args.precision,
            "",
        )?;
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
                let band = args.band.filter(|_| causal).map(|band| band as usize);
                let work = Work { batch: args.batch, length, heads: s.heads, width: s.width, causal, band, backward };
                if args.kernels {
                    work.each_kernel(&mut engine, args.precision, &mut report)?;
                } else {
                    cases.push(work.chosen(&mut engine, args.precision, s.name)?);
                }
            }
            if !cases.is_empty() {
                report.group(&mut engine, cases)?;
            }
        }
    }
    report.finish("sequence length, tokens", Figure::Gflops)
}
