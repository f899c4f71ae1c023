//! Times matrix products on the adapter: `cargo bench --bench matmul [-- M,N,K[,nn|nt|tn]...]`, `--model gpt2-124m ...`.

mod common;

use clap::Parser;
use common::{Case, Figure, Numbers, Output, Report, Shape, noise, run_plan};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions},
    ops::{self, HostTensor, Layout, TensorType},
};
use std::{error::Error, str::FromStr};

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

fn case<'a>(engine: &mut Engine, series: String, label: &str, p: &Product) -> Result<Case<'a>, Box<dyn Error>> {
    let layout = Layout { transpose_a: p.layout == "tn", transpose_b: p.layout == "nt", ..Layout::default() };
    let mut g = Graph::new();
    let a_shape = if layout.transpose_a { [p.k, p.m] } else { [p.m, p.k] };
    let b_shape = if layout.transpose_b { [p.n, p.k] } else { [p.k, p.n] };
    let a = g.input("a", TensorType::f32(a_shape));
    let b = g.input("b", TensorType::f32(b_shape));
    let y = ops::matmul_with(&mut g, a, b, None, layout)?;
    let mut plan = engine.compile(g, &[y], &PlanOptions::default())?;
    plan.set(a, HostTensor::floats(a_shape, noise(p.m * p.k, 1)))?;
    plan.set(b, HostTensor::floats(b_shape, noise(p.n * p.k, 2)))?;
    let volume = p.m as f64 * p.n as f64 * p.k as f64;
    let name = format!("{},{},{},{}", p.m, p.n, p.k, p.layout);
    Ok(Case {
        series,
        name: if label.is_empty() { name } else { format!("{label} {name}") },
        size: volume.cbrt(),
        flops: 2.0 * volume,
        bytes: 0.0,
        run: run_plan(plan),
    })
}

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut engine = common::engine()?;
    if args.paced {
        let [product] = &args.products[..] else { return Err("--paced takes one product".into()) };
        let mut case = case(&mut engine, String::new(), "", product)?;
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
        let cases = group.into_iter().map(|(series, label, p)| case(&mut engine, series, label, &p)).collect::<Result<_, _>>()?;
        report.group(&mut engine, cases)?;
    }
    report.finish("size of the product, (M N K)^(1/3)", Figure::Gflops)
}
