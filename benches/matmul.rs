//! Times matrix products on the adapter: `cargo bench --bench matmul [-- M,N,K[,nn|nt|tn]...]`, `--model gpt2-124m ...`.

mod common;

use clap::Parser;
use common::{Case, Figure, Numbers, Output, Report, Shape, noise, run_plan};
use shaderlm::{
    graph::{Engine, Graph, Plan, PlanOptions, decisions},
    ops::{self, HostTensor, Layout, Precision, Recorder, Tensor, TensorType},
};
use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    str::FromStr,
};

#[derive(Parser)]
#[command(about = "Times matrix products on the adapter (SHADERLM_DEVICE chooses another)")]
struct Args {
    /// M,N,K or M,N,K,nn|nt|tn: [M,K] times [K,N], and which side is stored transposed
    products: Vec<Product>,
    /// Products of this model's layers, forward and backward
    #[arg(long, value_enum, value_delimiter = ',')]
    model: Vec<Shape>,
    /// Tokens that go through the model's layers at once
    #[arg(long, default_value_t = 512)]
    rows: usize,
    /// Squares of these sides
    #[arg(long, value_delimiter = ',')]
    squares: Vec<usize>,
    /// What may be rounded: with mixed, operands are stored in 16 bits
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// Each kernel that can do a product, one after the other, checked against the simplest; one that fails or is wrong is a line,
    /// too
    #[arg(long)]
    kernels: bool,
    /// One product only, and a repetition for each line on standard input
    #[arg(long)]
    paced: bool,
    #[command(flatten)]
    output: Output,
}

#[derive(Clone)]
struct Product {
    m: usize,
    n: usize,
    k: usize,
    layout: String,
}

impl FromStr for Product {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(',').collect();
        let layout = parts.get(3).copied().unwrap_or("nn");
        let sizes: Vec<usize> = parts.iter().take(3).filter_map(|p| p.parse().ok()).filter(|&n| n > 0).collect();
        match sizes[..] {
            [m, n, k] if parts.len() <= 4 && ["nn", "nt", "tn"].contains(&layout) => Ok(Self { m, n, k, layout: layout.into() }),
            _ => Err("a product is M,N,K or M,N,K,nn|nt|tn".into()),
        }
    }
}

/// The products of a model's layers on `rows` tokens: forward, gradient of the input, gradient of the weight.
fn of_model(s: &Numbers, rows: usize) -> Vec<(&'static str, Product)> {
    let qkv = if s.weights_in_out { 3 * s.width } else { s.width };
    let layers =
        [("q, k, v", s.width, qkv), ("attention out", s.width, s.width), ("up", s.width, s.inner), ("down", s.inner, s.width)];
    let mut found = Vec::new();
    for (name, input, output) in layers {
        let [forward, backward] = if s.weights_in_out { ["nn", "nt"] } else { ["nt", "nn"] };
        let product = |m, n, k, layout: &str| (name, Product { m, n, k, layout: layout.into() });
        found.push(product(rows, output, input, forward));
        found.push(product(rows, input, output, backward));
        let [m, n] = if s.weights_in_out { [input, output] } else { [output, input] };
        found.push(product(m, n, rows, "tn"));
    }
    let head = |m, n, k, layout: &str| ("head", Product { m, n, k, layout: layout.into() });
    found.push(head(rows, s.vocab, s.embedding, "nt"));
    found.push(head(rows, s.embedding, s.vocab, "nn"));
    found.push(head(s.vocab, s.embedding, rows, "tn"));
    found
}

impl Product {
    fn name(&self) -> String {
        format!("{},{},{},{}", self.m, self.n, self.k, self.layout)
    }

    /// The product as a graph, and its operands.
    fn record(&self) -> Result<(Graph, [Tensor; 2], Tensor), Box<dyn Error>> {
        let layout = Layout { transpose_a: self.layout == "tn", transpose_b: self.layout == "nt", ..Layout::default() };
        let mut g = Graph::new();
        let a = g.input("a", TensorType::f32(if layout.transpose_a { [self.k, self.m] } else { [self.m, self.k] }));
        let b = g.input("b", TensorType::f32(if layout.transpose_b { [self.n, self.k] } else { [self.k, self.n] }));
        let y = ops::matmul_with(&mut g, a, b, None, layout)?;
        Ok((g, [a, b], y))
    }

    /// A plan of it that is ready to run, and its result's place; by kernel number `choice`, if one is given.
    fn plan(&self, engine: &mut Engine, precision: Precision, choice: Option<usize>) -> Result<(Plan, Tensor), Box<dyn Error>> {
        let (g, operands, y) = self.record()?;
        let types = operands.map(|operand| g.ty(operand).clone());
        let mut plan = engine.compile(g, &[y], &PlanOptions { choice, ..options(precision, &operands) })?;
        for (seed, (operand, ty)) in operands.into_iter().zip(types).enumerate() {
            // Multiples of 1/1024, which 16 bits hold, so that only a kernel that is wrong differs from the others.
            let values = noise(ty.elements(), seed as u32 + 1).into_iter().map(|x| (x * 1024.0).round() / 1024.0).collect();
            plan.set(operand, HostTensor::floats(ty.shape, values))?;
        }
        Ok((plan, y))
    }

    fn case<'a>(&self, plan: Plan, series: String, name: String) -> Case<'a> {
        let volume = self.m as f64 * self.n as f64 * self.k as f64;
        Case { series, name, size: volume.cbrt(), flops: 2.0 * volume, bytes: 0.0, run: run_plan(plan) }
    }
}

/// Where operands may be rounded they are stored so.
fn options(precision: Precision, operands: &[Tensor]) -> PlanOptions {
    let halves = if precision == Precision::Mixed { operands.to_vec() } else { Vec::new() };
    PlanOptions { precision, halves, ..PlanOptions::default() }
}

fn case<'a>(engine: &mut Engine, precision: Precision, series: String, label: &str, p: &Product) -> Result<Case<'a>, Box<dyn Error>> {
    let (plan, _) = p.plan(engine, precision, None)?;
    let name = if label.is_empty() { p.name() } else { format!("{label} {}", p.name()) };
    Ok(p.case(plan, series, name))
}

/// Times each kernel of a product. What goes wrong with one is a line in the table, and the next gets a device that is not
/// touched by it.
fn kernels(engine: &mut Engine, precision: Precision, p: &Product, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let Some(caps) = engine.capabilities() else { return Err("--kernels needs an adapter; the CPU has one way to multiply".into()) };
    let (g, operands, y) = p.record()?;
    let list = decisions(&g, &[y], caps, &options(precision, &operands))?.into_iter().next().map_or(Vec::new(), |d| d.kernels);
    let mut expected: Option<Vec<f32>> = None;
    for choice in 0..list.len().max(1) {
        let name = list.get(choice).map_or("the only kernel", String::as_str);
        let mut timed = || -> Result<(), Box<dyn Error>> {
            let (mut plan, y) = p.plan(engine, precision, Some(choice))?;
            plan.run(engine)?;
            let found = plan.get(y)?.f().to_vec();
            let wrong = error(&found, expected.get_or_insert_with(|| found.clone()));
            if wrong > WRONG {
                return Err(format!("wrong: squared error {wrong:.1e} of the simplest kernel's result").into());
            }
            report.group(engine, vec![p.case(plan, p.name(), name.to_owned())])
        };
        // naga panics at some of what it cannot translate.
        let reason = match catch_unwind(AssertUnwindSafe(&mut timed)) {
            Ok(Ok(())) => continue,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a panic, above".into(),
        };
        report.failed(&p.name(), name, reason.lines().next().unwrap_or_default());
        *engine = common::engine()?;
    }
    Ok(())
}

/// Results whose error is more than this part of their size, squared, are wrong.
const WRONG: f64 = 1e-8;

/// The squared error of `found` as a part of the squared size of `expected`; what is no number is an infinite one.
fn error(found: &[f32], expected: &[f32]) -> f64 {
    let off: f64 = found.iter().zip(expected).map(|(f, e)| f64::from(f - e).powi(2)).sum();
    let size: f64 = expected.iter().map(|&e| f64::from(e).powi(2)).sum();
    let part = off / size.max(f64::MIN_POSITIVE);
    if part.is_nan() { f64::INFINITY } else { part }
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    if args.paced {
        let [product] = &args.products[..] else { return Err("--paced takes one product".into()) };
        let mut case = case(&mut engine, args.precision, String::new(), "", product)?;
        return common::pace("matmul", &mut engine, &mut case.run);
    }
    let mut groups: Vec<Vec<(String, &str, Product)>> = Vec::new();
    for side in &args.squares {
        let square = |layout: &str| Product { m: *side, n: *side, k: *side, layout: layout.into() };
        groups.push(["nn", "nt", "tn"].map(|layout| (format!("square {layout}"), "", square(layout))).to_vec());
    }
    for model in &args.model {
        let numbers = model.numbers();
        let products = of_model(&numbers, args.rows);
        // The three products of a layer are a group.
        groups.extend(products.chunks(3).map(|group| group.iter().map(|(l, p)| (numbers.name.into(), *l, p.clone())).collect()));
    }
    let mut products = args.products;
    if products.is_empty() && groups.is_empty() {
        let usual = ["768,768,768,nn", "512,1024,256,nn", "512,256,1024,nt", "512,4096,256,nt", "256,1024,512,tn", "4096,256,512,tn"];
        products = usual.iter().map(|p| p.parse()).collect::<Result<_, String>>()?;
    }
    if !products.is_empty() {
        groups.push(products.into_iter().map(|p| (p.layout.clone(), "", p)).collect());
    }
    let ceilings = common::ceilings(&engine)?;
    let mut report = Report::new("matmul", &args.output, &engine, Some(ceilings));
    for group in groups {
        if args.kernels {
            for (_, _, product) in group {
                kernels(&mut engine, args.precision, &product, &mut report)?;
            }
            continue;
        }
        let mut cases = Vec::with_capacity(group.len());
        for (series, label, p) in group {
            cases.push(case(&mut engine, args.precision, series, label, &p)?);
        }
        report.group(&mut engine, cases)?;
    }
    report.finish("size of the product, (M N K)^(1/3)", Figure::Gflops)
}
