//! Kernels on memory of 16-bit floats: each operation that takes or gives it, against f64 on numbers that 16 bits hold.

use crate::harness::{Bound, Case, engine, engine_as_hardware, settings};
use half::f16;
use shaderlm::{
    graph::{Engine, Graph, GraphError, PlanOptions, kernels},
    ops::{self, Gelu, HostTensor, Layout, Mask, OpError, Precision, Tensor, TensorType},
    train::{Objective, Outcome, ParameterType, Settings, Trainer},
};

/// Half the distance of neighbouring 16-bit floats, as a part of them, is 2^-11; a result may be rounded twice, by itself and by the
/// product that it came from.
const ROUNDING: Bound = Bound::Within(1.5e-3);

/// Normal numbers that 16 bits hold, stored in 16 bits.
fn half<const N: usize>(c: &mut Case, shape: [usize; N]) -> Tensor {
    let data: Vec<f32> = c.normal(shape.iter().product()).into_iter().map(|x| f16::from_f32(x / 2.0).to_f32()).collect();
    let x = c.feed(shape, data);
    ops::scale(&mut c.g, x, 1.0).unwrap()
}

/// Runs `record` on every engine without fusion, so that what goes in and comes out is in 16 bits, and holds it against f64. `takes`
/// words of element types are to be among the kernels' labels.
fn check(what: &str, expected: &[&str], record: impl Fn(&mut Case) -> Result<Vec<Tensor>, OpError>) {
    for engine in [engine(), engine_as_hardware()] {
        check_on(engine, None, what, expected, &record);
    }
}

/// The same on one engine, with a kernel given wherever there is a choice.
fn check_on(
    engine: Engine,
    choice: Option<usize>,
    what: &str,
    expected: &[&str],
    record: &impl Fn(&mut Case) -> Result<Vec<Tensor>, OpError>,
) {
    let mut c = Case::new();
    let results = record(&mut c).unwrap_or_else(|e| panic!("{what}: {e}"));
    // What the host reads is never in 16 bits, but what it is scaled from can be.
    let outputs: Vec<_> = results.into_iter().map(|y| ops::scale(&mut c.g, y, 1.0).unwrap()).collect();
    let options = PlanOptions {
        precision: Precision::Mixed,
        no_fusion: true,
        choices: choice.into_iter().collect(),
        ..PlanOptions::default()
    };
    let caps = engine.capabilities().unwrap();
    let labels: Vec<_> = kernels(&c.g, &outputs, caps, &options).unwrap().iter().map(|k| k.label()).collect();
    for expected in expected {
        assert!(labels.iter().any(|l| l.contains(expected)), "{what}: no kernel {expected} among {labels:?}");
    }
    c.check_with(engine, options, what, &outputs, ROUNDING);
}

/// A loss over many rows is a sum of parts, and larger than 16 bits can say.
#[test]
fn sums_of_single_numbers_stay_in_32_bits() {
    let mut c = Case::new();
    let (a, b) = (c.feed([1000], vec![40.25; 1000]), c.feed([1000], vec![40.5; 1000]));
    let (a, b) = (ops::sum(&mut c.g, a).unwrap(), ops::sum(&mut c.g, b).unwrap());
    let sum = ops::add(&mut c.g, a, b).unwrap();
    let mean = ops::scale(&mut c.g, sum, 1.0 / 2000.0).unwrap();
    let options = PlanOptions { precision: Precision::Mixed, no_fusion: true, ..PlanOptions::default() };
    c.check_with(engine(), options, "mean by way of a sum", &[mean], Bound::Within(1e-6));
}

#[test]
fn products_of_every_layout_and_size() {
    for (m, n, k) in [(1, 5, 3), (7, 64, 33), (12, 20, 16), (33, 65, 64), (70, 132, 20)] {
        for (transpose_a, transpose_b) in [(false, false), (true, false), (false, true), (true, true)] {
            let layout = Layout { transpose_a, transpose_b, alpha: 0.5 / (k as f32).sqrt() };
            check(&format!("{m}x{n}x{k} {transpose_a} {transpose_b}"), &["T1=f16,T2=f16,T3=f16"], |c| {
                let a = half(c, if transpose_a { [k, m] } else { [m, k] });
                let b = half(c, if transpose_b { [n, k] } else { [k, n] });
                let y = ops::matmul_with(&mut c.g, a, b, None, layout)?;
                Ok(vec![y])
            });
        }
    }
}

#[test]
fn epilogues_of_products() {
    // With fusion: what the epilogue reads and writes besides is in 16 bits too.
    for make in [engine, engine_as_hardware] {
        for width in [20, 33] {
            let engine = make();
            let mut c = Case::new();
            let (a, residual) = (half(&mut c, [9, 16]), half(&mut c, [9, width]));
            let data = c.normal(16 * width).into_iter().map(|x| f16::from_f32(x / 8.0).to_f32()).collect();
            let w = c.variable("w", HostTensor::floats([16, width], data));
            let data = c.normal(width);
            let bias = c.variable("bias", HostTensor::floats([width], data));
            let before = ops::linear(&mut c.g, a, w, bias).unwrap();
            let y = ops::gelu(&mut c.g, before, Gelu::Tanh).unwrap();
            let added = ops::linear(&mut c.g, a, w, bias).unwrap();
            let added = ops::add(&mut c.g, added, residual).unwrap();
            // What was before the activation is wanted as well: it is kept.
            let outputs: Vec<_> = [before, y, added].into_iter().map(|y| ops::mul(&mut c.g, y, y).unwrap()).collect();
            let options = PlanOptions { precision: Precision::Mixed, ..PlanOptions::default() };
            let labels: Vec<_> =
                kernels(&c.g, &outputs, engine.capabilities().unwrap(), &options).unwrap().iter().map(|k| k.label()).collect();
            let all = labels.join(" ");
            // One rounded copy of the weight serves both products.
            assert_eq!(all.matches("round_half").count(), 1, "{all}");
            for word in ["KEEP", "RESIDUAL", "T5=f16"] {
                assert!(all.contains(word), "{word} in {all}");
            }
            c.check_with(engine, options, &format!("epilogues, width {width}"), &outputs, Bound::Within(4e-3));
        }
    }
}

fn attention_of_halves(c: &mut Case, [t, heads, d]: [usize; 3], causal: bool) -> Result<Vec<Tensor>, OpError> {
    let qkv = half(c, [2, t, 3 * heads * d]);
    let y = ops::attention(&mut c.g, qkv, heads, Mask { causal, keys: None, band: None })?;
    let w = half(c, [2, t, heads * d]);
    let product = ops::mul(&mut c.g, y, w)?;
    let loss = ops::sum(&mut c.g, product)?;
    let dqkv = shaderlm::graph::gradients(&mut c.g, loss, &[qkv])?[0].unwrap();
    Ok(vec![y, dqkv])
}

#[test]
fn attention_and_its_gradient() {
    for (t, heads, d, causal) in [(1, 1, 4, false), (9, 2, 8, true), (33, 3, 5, true), (65, 1, 64, false)] {
        check(&format!("attention {t} {heads} {d} {causal}"), &["attention", "attention_backward", "T5=f16"], |c| {
            attention_of_halves(c, [t, heads, d], causal)
        });
    }
}

#[test]
fn attention_through_workgroup_memory() {
    let caps = engine_as_hardware().capabilities().unwrap().clone();
    // Six blocks, and three with scores in registers, unless there are cooperative matrices.
    let shuffled = caps.subgroup.is_some_and(|lanes| lanes >= 8) && caps.matrices().is_none();
    let most = if shuffled { 9 } else { 6 };
    let subgroup = format!("SUBGROUP={}", caps.subgroup.unwrap_or(0));
    for (d, causal) in [(20, true), (32, false)] {
        for choice in 1..=most {
            let words = ["attention_tiled{", "attention_backward_tiled{", "T5=f16", &subgroup];
            // There are fewer tiles for the gradient.
            let expected = match choice {
                6 | 9 => &words[..1],
                7.. => &words[..],
                _ => &words[..3],
            };
            let what = format!("attention of width {d}, causal {causal}, kernel {choice}");
            check_on(engine_as_hardware(), Some(choice), &what, expected, &|c| attention_of_halves(c, [70, 2, d], causal));
        }
    }
}

#[test]
fn the_other_operations() {
    for width in [1, 5, 64, 132] {
        check(&format!("layer norm, width {width}"), &["layer_norm{", "layer_norm_input{"], |c| {
            let x = half(c, [7, width]);
            let data = c.normal(width);
            let gamma = c.feed([width], data);
            let beta = c.feed([width], vec![0.25; width]);
            let y = ops::layer_norm(&mut c.g, x, gamma, beta, 1e-2)?;
            let w = half(c, [7, width]);
            let product = ops::mul(&mut c.g, y, w)?;
            let loss = ops::sum(&mut c.g, product)?;
            let grads = shaderlm::graph::gradients(&mut c.g, loss, &[x, gamma])?;
            Ok(vec![y, grads[0].unwrap(), grads[1].unwrap()])
        });
        check(&format!("element by element, width {width}"), &["gelu{", "binary{"], |c| {
            let (x, b) = (half(c, [7, width]), half(c, [7, width]));
            let row = half(c, [width]);
            let both = ops::add(&mut c.g, x, b)?;
            let by_row = ops::mul(&mut c.g, both, row)?;
            let y = ops::gelu(&mut c.g, by_row, Gelu::Erf)?;
            let halves = [ops::slice(&mut c.g, y, 1, 0..width.div_ceil(2))?, x];
            Ok(vec![y, ops::concat(&mut c.g, &halves, 1)?])
        });
        check(
            &format!("embedding and sums, width {width}"),
            &["embedding{", "embedding_backward{", "sum_leading{STRANDS"],
            |c| {
                let data = c.normal(11 * width);
                let table = c.feed([11, width], data);
                let ids = c.random_ids([2, 9], 11);
                let x = ops::embedding(&mut c.g, table, ids)?;
                let w = half(c, [2, 9, width]);
                let y = ops::mul(&mut c.g, x, w)?;
                let loss = ops::sum(&mut c.g, y)?;
                let grad = shaderlm::graph::gradients(&mut c.g, loss, &[table])?[0].unwrap();
                Ok(vec![y, grad, ops::sum_leading(&mut c.g, y, 2)?])
            },
        );
    }
}

#[test]
fn cross_entropy_and_its_gradient() {
    for vocab in [1, 5, 300] {
        check(&format!("cross-entropy over {vocab}"), &["cross_entropy{", "cross_entropy_backward{"], |c| {
            let logits = half(c, [6, vocab]);
            let labels = c.random_ids([6], vocab as u32);
            let loss = ops::cross_entropy(&mut c.g, logits, labels, ops::IGNORE)?;
            let grad = shaderlm::graph::gradients(&mut c.g, loss, &[logits])?[0].unwrap();
            Ok(vec![loss, grad])
        });
    }
}

#[test]
fn cross_entropy_with_its_gradient() {
    for vocab in [1, 5, 300, 4100] {
        for (engine, in_place) in [(engine(), true), (engine_as_hardware(), true), (engine(), false)] {
            let mut c = Case::new();
            let logits = half(&mut c, [6, vocab]);
            let labels = c.random_ids([6], vocab as u32);
            let loss = ops::cross_entropy(&mut c.g, logits, labels, ops::IGNORE).unwrap();
            let grad = shaderlm::graph::gradients(&mut c.g, loss, &[logits]).unwrap()[0].unwrap();
            let grad = ops::scale(&mut c.g, grad, 1.0).unwrap();
            let mut wanted = vec![loss, grad];
            if !in_place {
                wanted.push(ops::scale(&mut c.g, logits, 2.0).unwrap());
            }
            let options = PlanOptions { precision: Precision::Mixed, ..PlanOptions::default() };
            let labels: Vec<_> =
                kernels(&c.g, &wanted, engine.capabilities().unwrap(), &options).unwrap().iter().map(|k| k.label()).collect();
            let both = labels.iter().find(|label| label.starts_with("cross_entropy_gradient{")).unwrap();
            assert!(both.contains("T5=f16") && both.contains(if in_place { "INPLACE" } else { "T6=f16" }), "{both}");
            c.check_with(engine, options, &format!("both passes over {vocab}, in place {in_place}"), &wanted, ROUNDING);
        }
    }
}

#[test]
fn an_odd_number_of_elements_from_the_middle() {
    // Windows that begin in the middle of an aligned piece, of an odd length.
    check("an odd row of a stored matrix", &["T1=f16"], |c| {
        let x = half(c, [3, 1021]);
        let row = ops::slice(&mut c.g, x, 0, 1..2)?;
        let y = ops::gelu(&mut c.g, row, Gelu::Tanh)?;
        Ok(vec![y])
    });
}

#[test]
fn a_weight_is_rounded_again_after_an_update() {
    let mut engine = engine();
    let mut g = Graph::new();
    let w = g.variable("w", TensorType::f32([4, 4])).unwrap();
    let x = g.input("x", TensorType::f32([4, 4]));
    let hyper = g.input("hyper", TensorType::f32([3]));
    let before = ops::matmul(&mut g, x, w).unwrap();
    ops::sgd(&mut g, w, x, None, hyper, None, ops::Sgd { momentum: 0.0, weight_decay: 0.0, rate_scale: 1.0 }).unwrap();
    let after = ops::matmul(&mut g, x, w).unwrap();
    let eye: Vec<f32> = (0..16).map(|i| if i % 5 == 0 { 1.0 } else { 0.0 }).collect();
    engine.set("w", &HostTensor::floats([4, 4], vec![2.0; 16])).unwrap();
    let options = PlanOptions { precision: Precision::Mixed, ..PlanOptions::default() };
    let mut plan = engine.compile(g, &[before, after], &options).unwrap();
    plan.set(x, HostTensor::floats([4, 4], eye.clone())).unwrap();
    plan.set(hyper, HostTensor::floats([3], vec![0.5, 1.0, 1.0])).unwrap();
    plan.run(&mut engine).unwrap();
    assert_eq!(plan.get(before).unwrap().f(), &[2.0; 16]);
    let expected: Vec<f32> = eye.iter().map(|e| 2.0 - 0.5 * e).collect();
    assert_eq!(plan.get(after).unwrap().f(), &expected[..]);
}

#[test]
fn the_cpu_has_no_mixed_plans() {
    let mut g = Graph::new();
    let x = g.input("x", TensorType::f32([4]));
    let y = ops::scale(&mut g, x, 2.0).unwrap();
    let options = PlanOptions { precision: Precision::Mixed, ..PlanOptions::default() };
    match Engine::cpu().compile(g, &[y], &options) {
        Err(GraphError::Precision(who)) => assert_eq!(who, "the CPU"),
        other => panic!("{:?}", other.err()),
    }
}

/// The loss is `sum(x w1 w2)`, with an activation and its gradient between the products in 16 bits.
fn trained(precision: Precision, w2: f32, steps: usize) -> (Vec<Outcome>, Vec<f32>) {
    let mut engine = engine();
    let names = ["w1", "w2"];
    for (name, value) in names.into_iter().zip([0.5, w2]) {
        engine.set(name, &HostTensor::floats([4, 4], vec![value; 16])).unwrap();
    }
    let loss = |g: &mut Graph, inputs: &[Tensor], _: Option<Tensor>| {
        let [w1, w2] = names.map(|name| g.variable(name, TensorType::f32([4, 4])));
        let between = ops::matmul(g, inputs[0], w1?)?;
        let y = ops::matmul(g, between, w2?)?;
        Ok(ops::sum(g, y)?.into())
    };
    let list = names.map(|name| ParameterType { name: name.into(), shape: [4, 4].into(), decays: false, rate: 1.0 });
    let plain = settings(1, 1, 0.125);
    let settings = Settings { weight_decay: 0.0, beta2: 0.99, eps: 1e-6, clip: 0.0, precision, seed: 5, ..plain };
    let inputs = vec![("x", TensorType::f32([1, 4]))];
    let mut trainer = Trainer::new(&mut engine, &list, &Objective { inputs, loss: &loss }, settings).unwrap();
    let x = HostTensor::floats([1, 4], vec![0.25, 0.5, 0.75, 1.0]);
    let outcomes = (0..steps).map(|step| trainer.step(&mut engine, step, &[vec![x.clone()]]).unwrap()).collect();
    (outcomes, engine.get("w1").unwrap().unwrap().f().to_vec())
}

#[test]
fn steps_that_overflow_are_skipped_and_counted() {
    // The gradient between the products is the scale times a row of w2's sum, 12: beyond 65,504 until the scale is 4,096.
    let (outcomes, after) = trained(Precision::Mixed, 3.0, 5);
    let scales: Vec<_> = outcomes.iter().map(|o| o.scale.unwrap()).collect();
    assert_eq!(scales, [(32768.0, 1), (16384.0, 2), (8192.0, 3), (4096.0, 4), (4096.0, 4)]);
    assert!(outcomes[..4].iter().all(|o| !o.grad_norm.is_finite()) && outcomes[4].grad_norm.is_finite());
    // Skipped steps moved nothing, and count for no bias correction: one step is left.
    let (plain, expected) = trained(Precision::F32, 3.0, 1);
    assert!(outcomes.iter().all(|o| (o.loss - plain[0].loss).abs() < 1e-2), "{outcomes:?}");
    assert!((outcomes[4].grad_norm - plain[0].grad_norm).abs() < 1e-2, "{} and {}", outcomes[4].grad_norm, plain[0].grad_norm);
    assert!(after.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-5), "{after:?} and {expected:?}");
    assert_eq!(outcomes[4].skipped(), "; 4 of the steps skipped, since their gradients overflowed");
    assert!(plain[0].scale.is_none() && plain[0].skipped().is_empty());
}

#[test]
fn sums_of_weight_gradients_stay_in_32_bits() {
    // Two gradients of one weight, each made by a product, and their sum: what a tied weight or a second micro-batch has.
    let mut g = Graph::new();
    let x = g.input("x", TensorType::f32([8, 16]));
    let w = g.variable("w", TensorType::f32([16, 16])).unwrap();
    let once = ops::matmul(&mut g, x, w).unwrap();
    let twice = ops::matmul(&mut g, once, w).unwrap();
    let loss = ops::sum(&mut g, twice).unwrap();
    let grad = shaderlm::graph::gradients(&mut g, loss, &[w]).unwrap()[0].unwrap();
    let norm = ops::global_norm(&mut g, &[grad]).unwrap();
    for no_fusion in [true, false] {
        let options = PlanOptions { precision: Precision::Mixed, no_fusion, ..PlanOptions::default() };
        let labels: Vec<_> =
            kernels(&g, &[loss, norm], engine().capabilities().unwrap(), &options).unwrap().iter().map(|k| k.label()).collect();
        // What leaves a product in 16 bits is the activation and its gradient; binding 3 is a product's result.
        let halves = labels.iter().filter(|l| l.starts_with("matmul") && l.contains("T3=f16")).count();
        assert_eq!(halves, 2, "{labels:?}");
    }
}
