//! Times matrix products on the adapter: `cargo bench --bench matmul [-- M,N,K[,nn|nt|tn]...]`, `--model gpt2-124m ...`.

mod common;

use clap::Parser;
use common::{Case, Figure, Numbers, Output, Report, Shape, kernels, round_noise, run_plan};
use shaderlm::{
    graph::{Engine, Graph, Plan, PlanOptions},
    ops::{self, Format, HostTensor, Layout, Packed, Packing, Precision, Recorder, Tensor, TensorType},
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
    /// What may be rounded: with mixed, operands are stored in 16 bits
    #[arg(long, value_enum, default_value = "f32")]
    precision: Precision,
    /// Store the second operand so: f32 (along k), f16, bf16, q8, q4
    #[arg(long, value_parser = format)]
    weights: Option<Format>,
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
    /// How the second operand is stored, if it is a weight in narrow storage.
    weights: Option<Format>,
}

fn format(word: &str) -> Result<Format, String> {
    Format::parse(word, 32).ok_or_else(|| "f32, f16, bf16, q8 and q4 are known".into())
}

impl FromStr for Product {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parts: Vec<_> = text.split(',').collect();
        let layout = parts.get(3).copied().unwrap_or("nn");
        let sizes: Vec<usize> = parts.iter().take(3).filter_map(|p| p.parse().ok()).filter(|&n| n > 0).collect();
        match sizes[..] {
            [m, n, k] if parts.len() <= 4 && ["nn", "nt", "tn"].contains(&layout) => {
                Ok(Self { m, n, k, layout: layout.into(), weights: None })
            }
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
        let product = |m, n, k, layout: &str| (name, Product { m, n, k, layout: layout.into(), weights: None });
        found.push(product(rows, output, input, forward));
        found.push(product(rows, input, output, backward));
        let [m, n] = if s.weights_in_out { [input, output] } else { [output, input] };
        found.push(product(m, n, rows, "tn"));
    }
    let head = |m, n, k, layout: &str| ("head", Product { m, n, k, layout: layout.into(), weights: None });
    found.push(head(rows, s.vocab, s.embedding, "nt"));
    found.push(head(rows, s.embedding, s.vocab, "nn"));
    found.push(head(s.vocab, s.embedding, rows, "tn"));
    found
}

impl Product {
    fn name(&self) -> String {
        let weights = self.weights.map(|format| format!(" {format}")).unwrap_or_default();
        format!("{},{},{},{}{weights}", self.m, self.n, self.k, self.layout)
    }

    /// The product as a graph, and its operands.
    fn record(&self) -> Result<(Graph, [Tensor; 2], Tensor), Box<dyn Error>> {
        let layout = Layout { transpose_a: self.layout == "tn", transpose_b: self.layout == "nt", ..Layout::default() };
        let mut g = Graph::new();
        let a = g.input("a", TensorType::f32(if layout.transpose_a { [self.k, self.m] } else { [self.m, self.k] }));
        let ty = TensorType::f32(if layout.transpose_b { [self.n, self.k] } else { [self.k, self.n] });
        let b = if self.weights.is_some() { g.variable(&self.name(), ty)? } else { g.input("b", ty) };
        let y = ops::matmul_with(&mut g, a, b, None, layout)?;
        Ok((g, [a, b], y))
    }

    /// How it is planned.
    fn options(&self, precision: Precision, operands: &[Tensor]) -> Result<PlanOptions, Box<dyn Error>> {
        let mut options = kernels::options(precision, operands);
        if let Some(format) = self.weights {
            let shape = if self.layout == "nt" { [self.n, self.k] } else { [self.k, self.n] };
            let packing = Packing::new(format, &shape.into(), usize::from(self.layout == "nt"))?;
            options.packed.insert(self.name(), packing);
        }
        Ok(options)
    }

    /// A plan of it that is ready to run, and its result's place; by kernel number `choice`, if one is given.
    fn plan(&self, engine: &mut Engine, precision: Precision, choice: Option<usize>) -> Result<(Plan, Tensor), Box<dyn Error>> {
        let (g, operands, y) = self.record()?;
        let types = operands.map(|operand| g.ty(operand).clone());
        let options = self.options(precision, &operands)?;
        if let Some(packing) = options.packed.get(&self.name()) {
            engine.set_packed(&self.name(), &Packed::pack(*packing, &round_noise(self.n * self.k, 2))?)?;
        }
        let mut plan = engine.compile(g, &[y], &PlanOptions { choices: choice.into_iter().collect(), ..options })?;
        for (seed, (operand, ty)) in operands.into_iter().zip(types).enumerate() {
            plan.set(operand, HostTensor::floats(ty.shape.clone(), round_noise(ty.elements(), seed as u32 + 1)))?;
        }
        Ok((plan, y))
    }

    /// Bytes of a weight in narrow storage, which are what counts where rows are few.
    fn bytes(&self) -> f64 {
        let options = self.options(Precision::F32, &[]);
        options.map_or(0.0, |options| options.packed.values().map(|packing| packing.bytes() as f64).sum())
    }

    fn case<'a>(&self, plan: Plan, series: String, name: String) -> Case<'a> {
        let volume = self.m as f64 * self.n as f64 * self.k as f64;
        Case { series, name, size: volume.cbrt(), flops: 2.0 * volume, bytes: self.bytes(), run: run_plan(plan) }
    }
}

fn case<'a>(
    engine: &mut Engine,
    precision: Precision,
    series: String,
    label: &str,
    p: &Product,
) -> Result<Case<'a>, Box<dyn Error>> {
    let (plan, _) = p.plan(engine, precision, None)?;
    let name = if label.is_empty() { p.name() } else { format!("{label} {}", p.name()) };
    Ok(p.case(plan, series, name))
}

/// Times each kernel of a product.
fn each_kernel(engine: &mut Engine, precision: Precision, p: &Product, report: &mut Report) -> Result<(), Box<dyn Error>> {
    let (g, operands, y) = p.record()?;
    let list = kernels::lists(engine, &g, &[y], &p.options(precision, &operands)?)?.into_iter().next();
    let names = list.unwrap_or_else(|| vec!["the only kernel".to_owned()]);
    let plan = |engine: &mut Engine, choice| p.plan(engine, precision, Some(choice)).map(|(plan, y)| (plan, vec![y]));
    kernels::each(engine, report, (&p.name(), WRONG), &names, plan, |plan, name| p.case(plan, p.name(), name))
}

/// Results whose error is more than this part of their size, squared, are wrong.
const WRONG: f64 = 1e-8;

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = Args::parse();
    args.products.iter_mut().for_each(|product| product.weights = args.weights);
    let mut engine = common::engine()?;
    if args.paced {
        let [product] = &args.products[..] else { return Err("--paced takes one product".into()) };
        let mut case = case(&mut engine, args.precision, String::new(), "", product)?;
        return common::pace("matmul", &mut engine, &mut case.run);
    }
    let mut groups: Vec<Vec<(String, &str, Product)>> = Vec::new();
    for side in &args.squares {
        let square = |layout: &str| Product { m: *side, n: *side, k: *side, layout: layout.into(), weights: None };
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
        let usual =
            ["768,768,768,nn", "512,1024,256,nn", "512,256,1024,nt", "512,4096,256,nt", "256,1024,512,tn", "4096,256,512,tn"];
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
                each_kernel(&mut engine, args.precision, &product, &mut report)?;
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
