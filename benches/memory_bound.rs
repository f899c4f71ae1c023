//! Times the operations that only move memory, in GB/s beside the adapter's copy: `cargo bench --bench memory_bound`.
//!
//! Bytes are those that an operation must move at least, each tensor read or written once: what a perfect kernel would. A
//! backward pass is timed by itself, from a gradient that comes from outside. Tensors that fit a cache can be faster than
//! the copy, which is measured on large ones.

mod common;

use clap::{Parser, ValueEnum};
use common::{Case, Figure, Numbers, Output, Report, Shape, noise, run_plan};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions, gradients},
    ops::{self, AdamW, Gelu, HostTensor, OpError, Recorded, Recorder, Tensor, TensorType},
};
use std::error::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum What {
    LayerNorm,
    Softmax,
    CrossEntropy,
    Gelu,
    ResidualAdd,
    Embedding,
    Adamw,
    /// The gradients' global norm
    Clip,
}

#[derive(Parser)]
#[command(about = "Times memory-bound operations (SHADERLM_DEVICE chooses the adapter)")]
struct Args {
    /// Widths and vocabularies of these models
    #[arg(long, value_enum, value_delimiter = ',', default_value = "gpt2-124m")]
    model: Vec<Shape>,
    /// Tokens at once
    #[arg(long, value_delimiter = ',', default_value = "128,512,2048")]
    rows: Vec<usize>,
    /// All, if there is none
    #[arg(long, value_enum, value_delimiter = ',')]
    operation: Vec<What>,
    #[command(flatten)]
    output: Output,
}

type Record<'a> = dyn Fn(&mut Graph, &[Tensor]) -> Result<Tensor, OpError> + 'a;

/// An operation with one result that counts, and how much it moves.
struct Moves<'a> {
    name: &'a str,
    model: &'a str,
    rows: usize,
    /// What `rows` counts.
    unit: &'a str,
    /// The inputs' values, and which of them get a gradient; none, and there is no backward pass.
    inputs: Vec<(HostTensor<f32>, bool)>,
    /// Elements that the forward and the backward pass move at least.
    forward: usize,
    backward: usize,
    record: &'a Record<'a>,
}

fn type_of(tensor: &HostTensor<f32>) -> TensorType {
    match tensor.data {
        ops::HostData::Float(_) => TensorType::f32(tensor.shape.clone()),
        ops::HostData::Uint(_) => TensorType::u32(tensor.shape.clone()),
    }
}

impl Moves<'_> {
    fn case<'c>(&self, pass: &str, elements: usize, run: common::Run<'c>) -> Case<'c> {
        let bytes = 4.0 * elements as f64;
        let series = format!("{}{pass}", self.name);
        Case { series, name: format!("{}, {} {}", self.model, self.rows, self.unit), size: bytes / 1e6, flops: 0.0, bytes, run }
    }

    /// The forward and, if an input wants a gradient, the backward pass.
    fn cases<'c>(&self, engine: &mut Engine) -> Result<Vec<Case<'c>>, Box<dyn Error>> {
        let feed = |g: &mut Graph| -> Vec<Tensor> { self.inputs.iter().map(|(value, _)| g.input("x", type_of(value))).collect() };
        let mut g = Graph::new();
        let inputs = feed(&mut g);
        let y = (self.record)(&mut g, &inputs)?;
        let node = g.nodes()[g.nodes().len() - 1].clone();
        let types: Vec<_> = node.outputs.iter().map(|&t| g.ty(t).clone()).collect();
        let mut forward = engine.compile(g, &node.outputs, &PlanOptions::default())?;
        for (&input, (value, _)) in inputs.iter().zip(&self.inputs) {
            forward.set(input, value.clone())?;
        }
        let wanted: Vec<_> = self.inputs.iter().map(|(_, wanted)| *wanted).collect();
        if !wanted.contains(&true) {
            return Ok(vec![self.case("", self.forward, run_plan(forward))]);
        }
        forward.run(engine)?;
        let values = node.outputs.iter().map(|&t| forward.get(t)).collect::<Result<Vec<_>, _>>()?;

        // What the forward pass has left comes from outside here, so that only the backward pass is run.
        let mut g = Graph::new();
        let inputs = feed(&mut g);
        let saved: Vec<_> = types.iter().map(|ty| g.input("saved", ty.clone())).collect();
        let place = node.outputs.iter().position(|&t| t == y).ok_or("the result is no output of the last operation")?;
        let dy = g.input("dy", types[place].clone());
        let mut grads = vec![None; saved.len()];
        grads[place] = Some(dy);
        let recorded = Recorded { inputs: &inputs, outputs: &saved, grads: &grads, wanted: &wanted };
        let found: Vec<_> = node.op.backward(&mut g, &recorded)?.into_iter().flatten().collect();
        let mut backward = engine.compile(g, &found, &PlanOptions::default())?;
        // What the rule does not read is no part of the plan, and setting it does nothing.
        for (tensor, value) in inputs.iter().zip(self.inputs.iter().map(|(v, _)| v)).chain(saved.iter().zip(&values)) {
            backward.set(*tensor, value.clone())?;
        }
        let shape = types[place].shape.clone();
        backward.set(dy, HostTensor::floats(shape.clone(), noise(shape.elements(), 9)))?;
        Ok(vec![
            self.case(" forward", self.forward, run_plan(forward)),
            self.case(" backward", self.backward, run_plan(backward)),
        ])
    }

    /// Those, and both passes in one plan, where operations may be paired.
    fn cases_and_both<'c>(&self, engine: &mut Engine) -> Result<Vec<Case<'c>>, Box<dyn Error>> {
        let mut cases = self.cases(engine)?;
        let mut g = Graph::new();
        let inputs: Vec<_> = self.inputs.iter().map(|(value, _)| g.input("x", type_of(value))).collect();
        let y = (self.record)(&mut g, &inputs)?;
        let wanted: Vec<_> = inputs.iter().zip(&self.inputs).filter(|(_, (_, wanted))| *wanted).map(|(&t, _)| t).collect();
        let mut outputs = vec![y];
        outputs.extend(gradients(&mut g, y, &wanted)?.into_iter().flatten());
        let mut plan = engine.compile(g, &outputs, &PlanOptions::default())?;
        for (input, (value, _)) in inputs.iter().zip(&self.inputs) {
            plan.set(*input, value.clone())?;
        }
        // What the forward pass reads the backward pass need not read again.
        cases.push(self.case(" both", self.backward, run_plan(plan)));
        Ok(cases)
    }
}

fn floats(shape: &[usize], seed: u32) -> HostTensor<f32> {
    HostTensor::floats(shape.to_vec(), noise(shape.iter().product(), seed))
}

/// `count` different-looking ids below `below`.
fn ids(count: usize, below: usize) -> HostTensor<f32> {
    HostTensor::uints([count], (0..count).map(|i| (i * 7919 % below) as u32).collect())
}

fn operation<'c>(engine: &mut Engine, what: What, s: &Numbers, rows: usize) -> Result<Vec<Case<'c>>, Box<dyn Error>> {
    let (width, all) = (s.width, rows * s.width);
    let model = s.name;
    match what {
        What::LayerNorm => Moves {
            name: "layer norm",
            model,
            rows,
            unit: "rows",
            inputs: vec![(floats(&[rows, width], 1), true), (floats(&[width], 2), true), (floats(&[width], 3), true)],
            forward: 2 * all + 2 * width + 2 * rows,
            backward: 3 * all + 3 * width + 2 * rows,
            record: &|g, i| ops::layer_norm(g, i[0], i[1], i[2], 1e-5),
        }
        .cases(engine),
        What::Softmax => Moves {
            name: "softmax",
            model,
            rows,
            unit: "rows",
            inputs: vec![(floats(&[rows, width], 1), true)],
            forward: 2 * all,
            backward: 3 * all,
            record: &|g, i| ops::softmax(g, i[0]),
        }
        .cases(engine),
        What::CrossEntropy => Moves {
            name: "cross-entropy",
            model,
            rows,
            unit: "rows",
            inputs: vec![(floats(&[rows, s.vocab], 1), true), (ids(rows, s.vocab), false)],
            forward: rows * s.vocab + 2 * rows,
            backward: 2 * rows * s.vocab + 2 * rows,
            record: &|g, i| ops::cross_entropy(g, i[0], i[1], ops::IGNORE),
        }
        .cases_and_both(engine),
        What::Gelu => Moves {
            name: "GELU",
            model,
            rows,
            unit: "rows",
            inputs: vec![(floats(&[rows, s.inner], 1), true)],
            forward: 2 * rows * s.inner,
            backward: 3 * rows * s.inner,
            record: &|g, i| ops::gelu(g, i[0], Gelu::Tanh),
        }
        .cases(engine),
        // Its gradient is the one that it gets: there is nothing to compute.
        What::ResidualAdd => Moves {
            name: "residual add",
            model,
            rows,
            unit: "rows",
            inputs: vec![(floats(&[rows, width], 1), false), (floats(&[rows, width], 2), false)],
            forward: 3 * all,
            backward: 0,
            record: &|g, i| ops::add(g, i[0], i[1]),
        }
        .cases(engine),
        What::Embedding => Moves {
            name: "embedding",
            model,
            rows,
            unit: "rows",
            inputs: vec![(floats(&[s.vocab, s.embedding], 1), true), (ids(rows, s.vocab), false)],
            forward: 2 * rows * s.embedding + rows,
            // The whole table's gradient is written, most of it zeros.
            backward: rows * s.embedding + rows + s.vocab * s.embedding,
            record: &|g, i| ops::embedding(g, i[0], i[1]),
        }
        .cases(engine),
        What::Clip => Moves {
            name: "global norm",
            model,
            rows: layer(s).len(),
            unit: "tensors of a layer",
            inputs: layer(s).into_iter().map(|shape| (floats(&shape, 1), false)).collect(),
            forward: layer(s).iter().map(|shape| shape.iter().product::<usize>()).sum(),
            backward: 0,
            record: &|g, i| ops::global_norm(g, i),
        }
        .cases(engine),
        What::Adamw => Ok(vec![adamw(engine, s)?]),
    }
}

/// Parameters of a layer.
fn layer(s: &Numbers) -> Vec<Vec<usize>> {
    let (w, i) = (s.width, s.inner);
    vec![
        vec![w, 3 * w],
        vec![3 * w],
        vec![w, w],
        vec![w],
        vec![w, i],
        vec![i],
        vec![i, w],
        vec![w],
        vec![w],
        vec![w],
        vec![w],
        vec![w],
    ]
}

/// A step on a layer's parameters: four tensors read, three written.
fn adamw<'c>(engine: &mut Engine, s: &Numbers) -> Result<Case<'c>, Box<dyn Error>> {
    let rule = AdamW { beta1: 0.9, beta2: 0.999, eps: 1e-8, weight_decay: 0.1, rate_scale: 1.0 };
    let mut g = Graph::new();
    let hyper = g.input("hyper", TensorType::f32([3]));
    let (mut values, mut elements) = (Vec::new(), 0);
    for (index, shape) in layer(s).into_iter().enumerate() {
        let ty = TensorType::f32(shape.clone());
        let [p, m, v] = ["p", "m", "v"].map(|name| format!("{}.{name}.{index}", s.name));
        let [p, m, v] = [g.variable(&p, ty.clone())?, g.variable(&m, ty.clone())?, g.variable(&v, ty.clone())?];
        let grad = g.input("grad", ty.clone());
        ops::adamw(&mut g, p, grad, m, v, hyper, None, rule)?;
        elements += ty.elements();
        values.push((grad, floats(&shape, 7)));
    }
    let mut plan = engine.compile(g, &[], &PlanOptions::default())?;
    plan.set(hyper, HostTensor::floats([3], vec![1e-4, 0.1, 0.001]))?;
    for (grad, value) in values {
        plan.set(grad, value)?;
    }
    let bytes = 4.0 * 7.0 * elements as f64;
    Ok(Case {
        series: "AdamW".into(),
        name: format!("{}, a layer", s.name),
        size: bytes / 1e6,
        flops: 0.0,
        bytes,
        run: run_plan(plan),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    let ceilings = common::ceilings(&engine)?;
    let mut report = Report::new("memory_bound", &args.output, &engine, Some(ceilings));
    let wanted = if args.operation.is_empty() { What::value_variants().to_vec() } else { args.operation.clone() };
    for what in wanted {
        for model in &args.model {
            let rows = if matches!(what, What::Adamw | What::Clip) { &args.rows[..1] } else { &args.rows[..] };
            for &rows in rows {
                let cases = operation(&mut engine, what, &model.numbers(), rows)?;
                report.group(&mut engine, cases)?;
            }
        }
    }
    report.finish("bytes moved, MB", Figure::GbPerS)
}
