//! Products by cooperative matrices, which few adapters have: `make test-coop` runs these on one that does, and they fail on
//! any other.
//!
//! What they compute is defined: operands rounded to 16 bits, products and sums as if exact.

use crate::harness::{Bound, Case, compare, engine, engine_as_hardware};
use half::f16;
use shaderlm::{
    gpu::{Autotune, Capabilities, Cooperative, Gpu, GpuOptions, Scalar},
    graph::{Engine, Graph, PlanOptions, decisions, evaluate, gradients, kernels},
    ops::{self, Gelu, HostTensor, Layout, Mask, Precision, Tensor, TensorType},
};
use std::{collections::BTreeSet, sync::Arc};

/// The plans in which such kernels may be chosen.
fn mixed() -> PlanOptions {
    PlanOptions { precision: Precision::Mixed, ..PlanOptions::default() }
}

/// The adapter under test.
fn capabilities() -> Capabilities {
    let caps = engine().capabilities().expect("an adapter").clone();
    assert!(!caps.cooperative.is_empty(), "{} ({}) has no cooperative matrices", caps.name, caps.driver);
    caps
}

/// Numbers that are halves, so that nothing is rounded on the way into a matrix.
fn halves(c: &mut Case, n: usize) -> Vec<f32> {
    c.normal(n).into_iter().map(|x| f16::from_f32(x).to_f32()).collect()
}

/// An engine whose bindings are of 128 MiB whatever the adapter offers.
fn engine_within_default_limits() -> Engine {
    let wanted = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into());
    let options = GpuOptions::new(wanted.parse().expect("SHADERLM_DEVICE names a device"));
    Engine::on(Arc::new(Gpu::open(&GpuOptions { default_limits: true, ..options }).expect("an adapter")))
}

const LAYOUTS: [(bool, bool); 4] = [(false, false), (false, true), (true, false), (true, true)];

/// Sizes m, n, k: of matrices, of tiles and of neither, and with k long enough to be taken in parts.
const SHAPES: [[usize; 3]; 6] = [[9, 9, 3], [16, 16, 16], [17, 31, 5], [33, 24, 40], [64, 64, 32], [40, 44, 1024]];

/// Records a product with the epilogue of that name and returns what is to be compared.
fn epilogue(c: &mut Case, kind: &str, (a, b): (Tensor, Tensor), [m, n]: [usize; 2], layout: Layout) -> Vec<Tensor> {
    let biased = |c: &mut Case| {
        let bias = c.input([n]);
        ops::matmul_with(&mut c.g, a, b, Some(bias), layout).unwrap()
    };
    match kind {
        "none" => vec![ops::matmul_with(&mut c.g, a, b, None, layout).unwrap()],
        "bias" => vec![biased(c)],
        "activation" => {
            let h = biased(c);
            vec![ops::gelu(&mut c.g, h, Gelu::Erf).unwrap()]
        }
        "activation, and what it is of" => {
            let h = biased(c);
            vec![h, ops::gelu(&mut c.g, h, Gelu::Tanh).unwrap()]
        }
        "residual" => {
            let (h, residual) = (biased(c), c.input([m, n]));
            vec![ops::add(&mut c.g, residual, h).unwrap()]
        }
        "gradient of an activation" => {
            let (h, x) = (ops::matmul_with(&mut c.g, a, b, None, layout).unwrap(), c.input([m, n]));
            vec![ops::gelu_gradient(&mut c.g, x, h, Gelu::Tanh).unwrap()]
        }
        other => unreachable!("{other}"),
    }
}

const EPILOGUES: [&str; 6] =
    ["none", "bias", "activation", "activation, and what it is of", "residual", "gradient of an activation"];

/// The places of kernels with cooperative matrices among those that can do the first product, and their names.
fn cooperative(c: &Case, outputs: &[Tensor], caps: &Capabilities, options: &PlanOptions) -> Vec<(usize, String)> {
    let list = decisions(&c.g, outputs, caps, options).unwrap().into_iter().next().map_or(Vec::new(), |d| d.kernels);
    list.into_iter().enumerate().filter(|(_, name)| name.starts_with("cooperative")).collect()
}

/// Kernels that drivers compile quickly: with tiles of up to four matrices a side. The others differ from them in numbers.
fn small(name: &str) -> bool {
    ["16x16", "32x32", "64x64"].iter().any(|tile| name.contains(tile))
        && !["by 32x32", "by 64x64"].iter().any(|tile| name.contains(tile))
}

/// How operands are stored.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stored {
    In32,
    In16,
    /// The first in 16 bits, the second in 32.
    First16,
}
use Stored::{First16, In16, In32};

/// Runs each kernel with cooperative matrices that is `wanted` on what `make` records, and notes their names. `make` gives what
/// is compared, and the operands.
fn each(
    what: &str,
    open: fn() -> Engine,
    wanted: fn(&str) -> bool,
    stored: &[Stored],
    seen: &mut BTreeSet<String>,
    mut make: impl FnMut(&mut Case) -> (Vec<Tensor>, (Tensor, Tensor)),
) {
    for &stored in stored {
        let mut make = |choice: Option<usize>| {
            let mut c = Case::new();
            let (outputs, (a, b)) = make(&mut c);
            let halves = match stored {
                In32 => vec![],
                In16 => vec![a, b],
                First16 => vec![a],
            };
            (c, outputs, PlanOptions { choices: choice.into_iter().collect(), halves, ..mixed() })
        };
        let (c, outputs, options) = make(None);
        let list = cooperative(&c, &outputs, open().capabilities().unwrap(), &options);
        assert!(!list.is_empty(), "{what}: no kernel with cooperative matrices");
        for (choice, name) in list.into_iter().filter(|(_, name)| wanted(name)) {
            let (c, outputs, options) = make(Some(choice));
            c.check_with(open(), options, &format!("{what}, stored {stored:?}, {name}"), &outputs, Bound::Nmse);
            seen.insert(name);
        }
    }
}

/// A case's product of halves.
fn product(c: &mut Case, [m, n, k]: [usize; 3], (ta, tb): (bool, bool)) -> (Tensor, Tensor) {
    let (a, b) = (halves(c, m * k), halves(c, k * n));
    (c.feed(if ta { [k, m] } else { [m, k] }, a), c.feed(if tb { [n, k] } else { [k, n] }, b))
}

#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn every_layout_size_and_kernel() {
    capabilities();
    let mut seen = BTreeSet::new();
    for (ta, tb) in LAYOUTS {
        for shape in SHAPES {
            let layout = Layout { transpose_a: ta, transpose_b: tb, alpha: 0.7 };
            each(&format!("{shape:?}, transposed {ta} {tb}"), engine, small, &[In32, In16], &mut seen, |c| {
                let operands = product(c, shape, (ta, tb));
                (epilogue(c, "none", operands, [shape[0], shape[1]], layout), operands)
            });
        }
    }
    // Tiles of whole sizes, and one that is not in any direction.
    let large = [
        (LAYOUTS[0], [128, 128, 64], &[In16][..]),
        (LAYOUTS[3], [128, 128, 64], &[In16]),
        (LAYOUTS[3], [130, 132, 36], &[First16]),
    ];
    for (layout, shape, stored) in large {
        each(
            &format!("{shape:?}, transposed {layout:?}"),
            engine,
            |_| true,
            stored,
            &mut seen,
            |c| {
                let operands = product(c, shape, layout);
                let settings = Layout { transpose_a: layout.0, transpose_b: layout.1, alpha: -0.7 };
                (epilogue(c, "none", operands, [shape[0], shape[1]], settings), operands)
            },
        );
    }
    assert!(seen.iter().any(|name| name.contains("k in ")), "no product is in parts of k: {seen:?}");
}

#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn every_epilogue() {
    capabilities();
    let mut seen = BTreeSet::new();
    for kind in EPILOGUES {
        let cases = [([65, 44, 24], LAYOUTS[0], In32), ([32, 67, 40], LAYOUTS[1], First16), ([64, 32, 32], LAYOUTS[3], In16)];
        for (shape, layout, stored) in cases {
            let settings = Layout { transpose_a: layout.0, transpose_b: layout.1, ..Layout::default() };
            each(&format!("{kind}, {shape:?}, transposed {layout:?}"), engine_as_hardware, small, &[stored], &mut seen, |c| {
                let operands = product(c, shape, layout);
                (epilogue(c, kind, operands, [shape[0], shape[1]], settings), operands)
            });
        }
    }
}

#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn batches() {
    capabilities();
    let mut seen = BTreeSet::new();
    for [m, n, k] in [[17, 12, 20], [32, 32, 16], [65, 33, 7]] {
        for (ta, tb) in LAYOUTS {
            let layout = Layout { transpose_a: ta, transpose_b: tb, alpha: 1.5 };
            each(&format!("6 of [{m},{n},{k}], transposed {ta} {tb}"), engine, small, &[In32, In16], &mut seen, |c| {
                let (x, w) = (halves(c, 6 * m * k), halves(c, 6 * k * n));
                let a = c.feed(if ta { [2, 3, k, m] } else { [2, 3, m, k] }, x);
                let b = c.feed(if tb { [2, 3, n, k] } else { [2, 3, k, n] }, w);
                (vec![ops::matmul_with(&mut c.g, a, b, None, layout).unwrap()], (a, b))
            });
        }
    }
}

/// A product whose k is cut into ranges, since an operand is larger than a binding: later ranges add to what is there.
#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn operands_larger_than_a_binding() {
    capabilities();
    // Rows of b are cut at 128 MiB.
    let [m, n, k] = [9, 4096, 9001];
    let mut seen = BTreeSet::new();
    each(&format!("[{m},{n},{k}]"), engine_within_default_limits, small, &[In32], &mut seen, |c| {
        let few: Vec<f32> = halves(c, 4096);
        let a = c.feed([m, k], (0..m * k).map(|i| few[i % 4093]).collect());
        let b = c.feed([k, n], (0..k * n).map(|i| few[i % 4091]).collect());
        let bias = c.input([n]);
        (vec![ops::linear(&mut c.g, a, b, bias).unwrap()], (a, b))
    });
}

/// Operands that are no halves are rounded to the nearest, and nothing else is.
#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn operands_are_rounded_and_nothing_else() {
    capabilities();
    let [m, n, k] = [50, 36, 72];
    let mut rounded = Case::new();
    let (x, w) = (rounded.normal(m * k), rounded.normal(k * n));
    let half = |data: &[f32]| data.iter().map(|&x| f16::from_f32(x).to_f32()).collect::<Vec<_>>();
    let (a, b) = (rounded.feed([m, k], half(&x)), rounded.feed([k, n], half(&w)));
    let (bias, residual) = (rounded.normal(n), rounded.normal(m * n));
    let record = |c: &mut Case, a, b| {
        let (bias, residual) = (c.feed([n], bias.clone()), c.feed([m, n], residual.clone()));
        let h = ops::linear(&mut c.g, a, b, bias).unwrap();
        ops::add(&mut c.g, h, residual).unwrap()
    };
    let y = record(&mut rounded, a, b);
    let (feeds, mut variables) = rounded.in_f64();
    let expected = evaluate(&rounded.g, &feeds, &mut variables, &[y]).remove(&y).unwrap();
    let list = cooperative(&rounded, &[y], engine().capabilities().unwrap(), &mixed());
    assert!(!list.is_empty(), "no kernel with cooperative matrices");
    for (choice, name) in list.into_iter().filter(|(_, name)| small(name)) {
        let mut c = Case::new();
        let (a, b) = (c.g.input("x", TensorType::f32([m, k])), c.g.input("w", TensorType::f32([k, n])));
        let mut engine = engine();
        let mut fed = vec![(a, HostTensor::floats([m, k], x.clone())), (b, HostTensor::floats([k, n], w.clone()))];
        let h = c.g.input("bias", TensorType::f32([n]));
        let r = c.g.input("residual", TensorType::f32([m, n]));
        fed.extend([(h, HostTensor::floats([n], bias.clone())), (r, HostTensor::floats([m, n], residual.clone()))]);
        let y = ops::linear(&mut c.g, a, b, h).unwrap();
        let y = ops::add(&mut c.g, y, r).unwrap();
        let mut plan = engine.compile(c.g, &[y], &PlanOptions { choices: vec![choice], ..mixed() }).unwrap();
        for (tensor, value) in fed {
            plan.set(tensor, value).unwrap();
        }
        plan.run(&mut engine).unwrap();
        compare(&name, &plan.get(y).unwrap(), &expected, Bound::Nmse);
    }
}

/// A result that only another product reads is stored in 16 bits. These are whole numbers that fit.
#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn results_in_16_bits() {
    capabilities();
    let mut seen = BTreeSet::new();
    for side in [32, 33, 36] {
        each(&format!("two products of {side}"), engine, small, &[In32, In16], &mut seen, |c| {
            let mut whole = || {
                let numbers = c.normal(side * side).into_iter().map(f32::round).collect();
                c.feed([side, side], numbers)
            };
            let (a, b, d) = (whole(), whole(), whole());
            let y = ops::matmul(&mut c.g, a, b).unwrap();
            (vec![ops::matmul(&mut c.g, y, d).unwrap()], (a, b))
        });
    }
}

/// A portable GPU, but with the matrices of NVIDIA's.
fn with_matrices() -> Capabilities {
    Capabilities {
        backend: "vulkan".into(),
        subgroup: Some(32),
        f16: true,
        cooperative: vec![Cooperative { size: 16, operands: Scalar::F16, sums: Scalar::F32 }],
        workgroup_memory: 48 << 10,
        ..Capabilities::portable()
    }
}

#[test]
fn no_plan_takes_what_was_not_checked() {
    let mut g = Graph::new();
    let (a, b) = (g.input("a", TensorType::f32([256, 256])), g.input("b", TensorType::f32([256, 256])));
    let y = ops::matmul(&mut g, a, b).unwrap();
    let caps = with_matrices();
    for (options, offered) in [(mixed(), true), (PlanOptions::default(), false)] {
        let found = decisions(&g, &[y], &caps, &options).unwrap();
        let is = |name: &String| name.starts_with("cooperative");
        assert_eq!(found[0].kernels.iter().any(is), offered, "{:?}", found[0]);
        assert!(!is(&found[0].kernels[0]) && !is(&found[0].kernels[found[0].rule]), "{:?}", found[0]);
        for kernel in kernels(&g, &[y], &caps, &options).unwrap() {
            assert_ne!(kernel.name, "matmul_cooperative");
        }
    }
    for lacking in [
        Capabilities { subgroup: None, ..with_matrices() },
        Capabilities { workgroup_memory: 2 << 10, ..with_matrices() },
        Capabilities { cooperative: vec![Cooperative { size: 16, operands: Scalar::F16, sums: Scalar::F16 }], ..with_matrices() },
    ] {
        let found = decisions(&g, &[y], &lacking, &mixed()).unwrap();
        assert!(!found[0].kernels.iter().any(|name| name.starts_with("cooperative")), "{:?}", found[0]);
    }
}

#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn tuning_checks_them_and_may_take_one() {
    capabilities();
    let wanted = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into());
    let options = GpuOptions::new(wanted.parse().expect("SHADERLM_DEVICE names a device"));
    // What is found is not kept.
    let gpu = Gpu::open(&GpuOptions { autotune: Autotune::Off, ..options }).expect("an adapter");
    let mut engine = Engine::on(Arc::new(gpu));
    let mut g = Graph::new();
    let (a, b) = (g.input("a", TensorType::f32([40, 48])), g.input("b", TensorType::f32([48, 36])));
    let factors = g.input("factors", TensorType::f32([36]));
    let y = ops::matmul(&mut g, a, b).unwrap();
    // Another operation takes this in 16 bits.
    let within = ops::mul(&mut g, y, factors).unwrap();
    for (halves, result, ending) in [(vec![], y, "32 32"), (vec![a, b], y, "16 16"), (vec![a, b], within, "16 16 to 16")] {
        let options = PlanOptions { halves, ..mixed() };
        let found = engine.tune(&g, &[result], &options, &mut |_, _| {}).unwrap();
        let [tuned] = &found[..] else { panic!("{found:?}") };
        assert!(tuned.work.ends_with(ending), "{tuned:?} is not of {ending}");
        assert!(tuned.timings.keys().any(|name| name.starts_with("cooperative")), "{tuned:?}");
        assert!(tuned.timings.values().all(Option::is_some), "a kernel is wrong: {tuned:?}");
        let decided = &decisions(&g, &[result], engine.capabilities().unwrap(), &options).unwrap()[0];
        assert_eq!(decided.measured.map(|i| decided.kernels[i].as_str()), tuned.best().map(|best| best.0));
    }
}

/// Records attention, and the gradient of its sum weighted by `w`.
fn attention(c: &mut Case, [qkv, w]: [Tensor; 2], heads: usize, mask: Mask) -> [Tensor; 2] {
    let y = ops::attention(&mut c.g, qkv, heads, mask).unwrap();
    let product = ops::mul(&mut c.g, y, w).unwrap();
    let loss = ops::sum(&mut c.g, product).unwrap();
    [y, gradients(&mut c.g, loss, &[qkv]).unwrap()[0].unwrap()]
}

/// Runs attention and its gradient, which `make` records as its two outputs, by each kernel with cooperative matrices, and notes
/// their names.
fn each_attention(what: &str, seen: &mut BTreeSet<String>, make: impl Fn(Option<usize>) -> (Case, [Tensor; 2], PlanOptions)) {
    let (c, outputs, options) = make(None);
    let lists: Vec<_> = decisions(&c.g, &outputs, engine().capabilities().unwrap(), &options).unwrap();
    assert_eq!(lists.len(), 2, "forward and backward each have a choice");
    for choice in 1..lists.iter().map(|d| d.kernels.len()).max().unwrap() {
        let names: Vec<_> = lists.iter().map(|d| d.kernels[choice.min(d.kernels.len() - 1)].clone()).collect();
        if !names.iter().any(|name| name.starts_with("cooperative")) {
            continue;
        }
        let (c, outputs, options) = make(Some(choice));
        c.check_with(engine(), options, &format!("{what}, {names:?}"), &outputs, Bound::Within(2e-3));
        seen.extend(names);
    }
}

/// Attention and its gradient by every kernel: q, k and v are halves, but probabilities and their gradients are rounded.
#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn attention_and_its_gradient() {
    // In matrices, so that every adapter has kernels for them.
    let side = capabilities().matrices().expect("matrices of halves that add up in 32 bits").size as usize;
    let mut seen = BTreeSet::new();
    let cases: [(usize, bool, bool, Option<usize>, Stored, &[usize]); 5] = [
        (1, true, false, None, In32, &[1, 31, 33, 64, 65, 257]),
        (1, true, false, Some(40), In16, &[31, 257]),
        (2, true, true, None, In16, &[33, 100]),
        (3, false, true, None, In16, &[65]),
        (32 / side, true, false, None, In16, &[1, 7, 100]),
    ];
    for (matrices, causal, padded, band, stored, lengths) in cases {
        let d = matrices * side;
        for &t in lengths {
            let make = |choice: Option<usize>| {
                let (b, h) = (2, 2);
                let mut c = Case::new();
                let (x, w) = (halves(&mut c, b * t * 3 * h * d), halves(&mut c, b * t * h * d));
                let (qkv, w) = (c.feed([b, t, 3 * h * d], x), c.feed([b, t, h * d], w));
                // One text has no key at all, the other holes.
                let keep = (0..b * t).map(|i| u32::from(i >= t && i % 3 != 1)).collect();
                let keys = padded.then(|| c.ids([b, t], keep));
                let outputs = attention(&mut c, [qkv, w], h, Mask { causal, keys, band });
                let halves = if stored == In16 { vec![qkv, w] } else { vec![] };
                (c, outputs, PlanOptions { choices: choice.into_iter().collect(), halves, ..mixed() })
            };
            let what = format!("attention {t} x {d}, causal {causal}, padded {padded}, band {band:?}, stored {stored:?}");
            each_attention(&what, &mut seen, make);
        }
    }
    assert!(seen.iter().filter(|name| name.starts_with("cooperative")).count() >= 5, "{seen:?}");
}

/// Scores that change along the keys by more than what results are rescaled for: in each step of keys, in some, in none but the
/// first; and with rows whose first keys are masked, which have no largest score until later.
#[test]
#[ignore = "needs cooperative matrices: make test-coop"]
fn attention_whose_scores_grow() {
    let side = capabilities().matrices().expect("matrices of halves that add up in 32 bits").size as usize;
    let mut seen = BTreeSet::new();
    let (b, h, t) = (2, 2, 150);
    // A key's part of the scores, at most about 60.
    let parts: [(&str, fn(f32) -> f32); 4] = [
        ("grow", |key| key * 0.4),
        ("fall", |key| 60.0 - key * 0.4),
        ("swing", |key| 30.0 * (key * 0.05).sin()),
        ("jump", |key| if key as u32 % 37 == 36 { 40.0 } else { 0.0 }),
    ];
    for (word, part) in parts {
        for (causal, masked, band) in [(true, 0, None), (false, 0, None), (false, 70, None), (true, 0, Some(50))] {
            let d = 2 * side;
            let make = |choice: Option<usize>| {
                let mut c = Case::new();
                let mut x = halves(&mut c, b * t * 3 * h * d);
                // The gradient is to be smaller by some of what queries and keys, up to 23, multiply its rounding by.
                let w: Vec<_> = halves(&mut c, b * t * h * d).into_iter().map(|w| w / 16.0).collect();
                // The first number of a head makes it: of queries four times the scale's inverse, of keys a quarter of the part.
                for (row, x) in x.chunks_exact_mut(3 * h * d).enumerate() {
                    for head in 0..h {
                        x[head * d] = f16::from_f32(4.0 * (d as f32).sqrt()).to_f32();
                        x[(h + head) * d] = f16::from_f32(part((row % t) as f32) / 4.0).to_f32();
                    }
                }
                let (qkv, w) = (c.feed([b, t, 3 * h * d], x), c.feed([b, t, h * d], w));
                let keys = (masked > 0).then(|| c.ids([b, t], (0..b * t).map(|i| u32::from(i % t >= masked)).collect()));
                let outputs = attention(&mut c, [qkv, w], h, Mask { causal, keys, band });
                (c, outputs, PlanOptions { choices: choice.into_iter().collect(), halves: vec![qkv, w], ..mixed() })
            };
            let what = format!("attention whose scores {word}, causal {causal}, the first {masked} masked, band {band:?}");
            each_attention(&what, &mut seen, make);
        }
    }
    assert!(seen.iter().filter(|name| name.starts_with("cooperative")).count() >= 5, "{seen:?}");
}
