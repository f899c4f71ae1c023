//! Products of few rows with the layer norm before and the draw after them: in as few dispatches as the adapter has kernels for,
//! against f64.

use crate::harness::{Bound, Case, engine, engine_as_hardware};
use shaderlm::{
    graph::{Engine, PlanOptions, kernels},
    ops::{self, Format, Gelu, HostTensor, Layout, Packed, Packing, Sample, StopTokens, Tensor},
};

const ENGINES: [(&str, fn() -> Engine); 2] = [("software", engine), ("hardware", engine_as_hardware)];
const TRANSPOSED: Layout = Layout { transpose_a: false, transpose_b: true, alpha: 1.0 };

/// A weight `[n,k]`, packed or not.
fn weight(c: &mut Case, format: Option<Format>, [n, k]: [usize; 2]) -> Tensor {
    let values = c.normal(n * k);
    match format.and_then(|format| Packing::new(format, &[n, k].into(), 1).ok()) {
        Some(packing) => c.packed("w", Packed::pack(packing, &values).unwrap()),
        None => c.variable("w", HostTensor::floats([n, k], values)),
    }
}

/// A layer norm of rows far from 0.
fn normalised(c: &mut Case, [m, k]: [usize; 2]) -> Tensor {
    let data = c.normal(m * k).into_iter().map(|x| 0.5 * x + 3.0).collect();
    let (x, gamma, beta) = (c.feed([m, k], data), c.input([k]), c.input([k]));
    ops::layer_norm(&mut c.g, x, gamma, beta, 1e-5).unwrap()
}

/// Names of the kernels that the case's plan takes.
fn taken(c: &Case, engine: &Engine, packing: Option<Packing>, outputs: &[Tensor]) -> Vec<&'static str> {
    let packed = packing.map(|packing| ("w".to_owned(), packing)).into_iter().collect();
    let options = PlanOptions { packed, ..PlanOptions::default() };
    kernels(&c.g, outputs, engine.capabilities().unwrap(), &options).unwrap().into_iter().map(|kernel| kernel.name).collect()
}

#[test]
fn norm_and_product() {
    let formats = [None, Some(Format::F32), Some(Format::F16), Some(Format::Q8 { group: 32 }), Some(Format::Q4 { group: 64 })];
    for (f, format) in formats.into_iter().enumerate() {
        for (i, [m, n, k]) in
            [[1, 7, 64], [1, 65, 768], [3, 20, 192], [16, 12, 128], [1, 9, 1024], [2, 5, 13]].into_iter().enumerate()
        {
            for (kind, make) in ENGINES.into_iter().filter(|_| m == 1 || (i + f) % 2 == 0) {
                let mut c = Case::new();
                let h = normalised(&mut c, [m, k]);
                let w = weight(&mut c, format, [n, k]);
                let bias = c.input([n]);
                let y = ops::matmul_with(&mut c.g, h, w, Some(bias), TRANSPOSED).unwrap();
                let y = ops::gelu(&mut c.g, y, Gelu::Tanh).unwrap();
                let what = format!("{format:?}, {m}x{n}x{k} on {kind}");
                let packing = format.and_then(|format| Packing::new(format, &[n, k].into(), 1).ok());
                let names = taken(&c, &make(), packing, &[y]);
                if packing.is_some() && k % 32 == 0 && (m <= 2 || kind == "hardware") {
                    let software = make().capabilities().unwrap().software;
                    let expected: &[&str] = if software { &["layer_norm", "matmul_packed"] } else { &["matmul_packed"] };
                    assert_eq!(names, expected, "{what}");
                }
                c.check_on(make(), None, &what, &[y], Bound::Nmse);
            }
        }
    }
}

/// What others need too is not absorbed.
#[test]
fn a_norm_that_is_needed_stays() {
    let mut c = Case::new();
    let h = normalised(&mut c, [2, 64]);
    let w = weight(&mut c, Some(Format::F16), [7, 64]);
    let y = ops::matmul_with(&mut c.g, h, w, None, TRANSPOSED).unwrap();
    c.check_on(engine_as_hardware(), None, "a norm with two uses", &[y, h], Bound::Nmse);
}

#[test]
fn norm_product_and_draw() {
    let plain = Sample::plain;
    let rules = [plain(0.0), plain(1.0), plain(0.6), Sample { top_k: 3, ..plain(1.0) }, Sample { top_p: 0.7, ..plain(1.0) }];
    let formats = [None, Some(Format::F32), Some(Format::F16), Some(Format::Q8 { group: 32 })];
    for (r, rule) in rules.into_iter().enumerate() {
        for (f, format) in formats.into_iter().enumerate() {
            for [texts, text_rows, n, k] in [[1, 1, 1000, 64], [1, 1, 13, 1024], [3, 1, 77, 128], [2, 4, 200, 64], [1, 9, 50, 96]]
            {
                for (kind, make) in ENGINES.into_iter().filter(|_| text_rows == 1 || (r + f) % 2 == 0) {
                    let mut c = Case::new();
                    let m = texts * text_rows;
                    let h = normalised(&mut c, [m, k]);
                    let w = weight(&mut c, format, [n, k]);
                    let logits = ops::matmul_with(&mut c.g, h, w, None, Layout { alpha: 0.2, ..TRANSPOSED }).unwrap();
                    let rng = c.variable("rng", HostTensor::uints([2], vec![11, 0]));
                    let steps: Vec<u32> = (0..m as u32).map(|i| 5 + i).collect();
                    let steps = c.variable("steps", HostTensor::uints([m], steps));
                    let state = (text_rows == 1).then(|| {
                        let newest = (0..m as u32).map(|i| 3 + i % 2).collect();
                        let tokens = c.variable("tokens", HostTensor::uints([m], newest));
                        let positions = c.variable("positions", HostTensor::uints([m], vec![3; m]));
                        [tokens, positions, c.variable("history", HostTensor::uints([m, 4], vec![0; 4 * m]))]
                    });
                    // A text alone goes on; of three, the second has ended.
                    let stops = if texts == 1 { StopTokens::none() } else { StopTokens::of(&[9, 4]) };
                    let decoding = ops::Decoding { rng, steps, text_rows, seen: None, state, stops };
                    let chosen = ops::choose(&mut c.g, logits, &decoding, rule).unwrap();
                    let what = format!("{rule:?}, {format:?}, {texts} texts of {text_rows} rows, {n}x{k} on {kind}");
                    let packing = format.and_then(|format| Packing::new(format, &[n, k].into(), 1).ok());
                    let names = taken(&c, &make(), packing, &[chosen]);
                    if packing.is_some() && rule.top_k == 0 && rule.top_p == 1.0 && (m <= 2 || kind == "hardware") {
                        let begins: &[&str] = if make().capabilities().unwrap().software { &["layer_norm"] } else { &[] };
                        assert_eq!(names, [begins, &["matmul_packed", "sample_best"]].concat(), "{what}");
                    }
                    c.check_on(make(), None, &what, &[chosen], Bound::Exact);
                }
            }
        }
    }
}

/// Logits that are no numbers, and equal ones.
#[test]
fn draws_of_odd_logits() {
    for (_, make) in ENGINES {
        for (value, expected) in [(f32::NAN, 0), (f32::NEG_INFINITY, 0), (1.0, 0)] {
            let mut c = Case::new();
            let x = c.feed([1, 32], vec![value; 32]);
            let packing = Packing::new(Format::F32, &[70, 32].into(), 1).unwrap();
            let w = c.packed("w", Packed::pack(packing, &[1.0; 70 * 32]).unwrap());
            let logits = ops::matmul_with(&mut c.g, x, w, None, TRANSPOSED).unwrap();
            let chosen = ops::likeliest(&mut c.g, logits).unwrap();
            let mut engine = make();
            engine.set_packed("w", &Packed::pack(packing, &[1.0; 70 * 32]).unwrap()).unwrap();
            let mut plan = engine.compile(c.g, &[chosen], &PlanOptions::default()).unwrap();
            plan.set(x, HostTensor::floats([1, 32], vec![value; 32])).unwrap();
            plan.run(&mut engine).unwrap();
            assert_eq!(plan.get(chosen).unwrap().u(), [expected], "of {value}");
        }
    }
}
