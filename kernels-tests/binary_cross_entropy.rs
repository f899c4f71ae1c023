//! Binary cross-entropy of logits.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions, gradients},
    ops::{self, HostTensor, IGNORE, Tensor, TensorType},
};

/// Every fifth label from the fourth on is ignored.
fn label(i: usize) -> u32 {
    if i % 5 == 3 { IGNORE } else { (i * 7 % 3 == 1).into() }
}

/// Loss and gradient are checked, the gradient times the number of elements, as it is about 1 / n.
fn check(what: &str, mut c: Case, logits: Tensor, wrt: Tensor, labels: Tensor, n: usize) {
    let loss = ops::binary_cross_entropy(&mut c.g, logits, labels).unwrap();
    let scaled = ops::scale(&mut c.g, loss, n as f32).unwrap();
    let dx = gradients(&mut c.g, scaled, &[wrt]).unwrap()[0].unwrap();
    if n <= 1100 {
        c.finite_differences(what, scaled, &[wrt], &[dx]);
    }
    c.check(what, &[loss, dx], Bound::Elementwise);
}

#[test]
fn forward_and_backward() {
    for n in AWKWARD.into_iter().chain([4, 8, 1024, 4095, 4096, 4097, 8192, 65_537]) {
        let mut c = Case::new();
        let data = c.normal(n).into_iter().map(|x| 4.0 * x).collect();
        let logits = c.feed([n], data);
        let labels = c.ids([n], (0..n).map(label).collect());
        check(&format!("binary_cross_entropy [{n}]"), c, logits, logits, labels, n);
    }
}

#[test]
fn many_dimensions_and_windows_that_start_anywhere() {
    for shift in 0..5 {
        let mut c = Case::new();
        let all = c.input([4 + 60]);
        let part = ops::slice(&mut c.g, all, 0, shift..shift + 60).unwrap();
        let logits = ops::reshape(&mut c.g, part, [3, 4, 5]).unwrap();
        let labels = c.ids([3, 4, 5], (0..60).map(label).collect());
        check(&format!("binary_cross_entropy [3,4,5] from element {shift}"), c, logits, all, labels, 60);
    }
}

#[test]
fn larger_than_a_binding() {
    // More than 128 MiB, of a size that 4 divides and of one that it does not.
    for n in [34_000_000, 33_900_003] {
        let mut c = Case::new();
        let logits = c.feed([n], (0..n).map(|i| ((i * 31) % 1013) as f32 / 100.0 - 5.0).collect());
        let labels = c.ids([n], (0..n).map(label).collect());
        check(&format!("binary_cross_entropy [{n}]"), c, logits, logits, labels, n);
    }
}

/// Loss and gradient of one logit.
fn one(engine: &mut Engine, x: f32, label: u32) -> (f64, f64) {
    let mut g = Graph::new();
    let (logits, labels) = (g.input("logits", TensorType::f32([1])), g.input("labels", TensorType::u32([1])));
    let loss = ops::binary_cross_entropy(&mut g, logits, labels).unwrap();
    let dx = gradients(&mut g, loss, &[logits]).unwrap()[0].unwrap();
    let mut plan = engine.compile(g, &[loss, dx], &PlanOptions::default()).unwrap();
    plan.set(logits, HostTensor::floats([1], vec![x])).unwrap();
    plan.set(labels, HostTensor::uints([1], vec![label])).unwrap();
    plan.run(engine).unwrap();
    [loss, dx].map(|t| f64::from(plan.get(t).unwrap().f()[0])).into()
}

/// Relative to the values, however small they are; but where numbers are denormal in f32, within 2e-38.
#[test]
fn every_size_of_logit_to_a_few_units_in_the_last_place() {
    let sizes = [0.0f32, 1e-10, 1e-4, 0.1, 0.3465, 0.3466, 0.7, 1.0, 3.0, 10.0, 16.6, 30.0, 60.0, 86.9, 87.1, 100.0, 1e30];
    for (name, mut engine) in [("the adapter", engine()), ("the CPU", Engine::cpu())] {
        for x in sizes.into_iter().flat_map(|x| [x, -x]) {
            for label in [0, 1] {
                let (loss, dx) = one(&mut engine, x, label);
                let sign = if label == 0 { 1.0 } else { -1.0 };
                let z = sign * f64::from(x);
                let expected = (z.max(0.0) + (-z.abs()).exp().ln_1p(), sign / (1.0 + (-z).exp()));
                for (what, found, expected) in [("loss", loss, expected.0), ("gradient", dx, expected.1)] {
                    let off = (found - expected).abs();
                    assert!(
                        off <= 5e-7 * expected.abs() + 2e-38,
                        "{what} of {x:e} at label {label} on {name}: {found:e} instead of {expected:e}"
                    );
                }
            }
        }
    }
}

#[test]
fn a_logit_that_is_no_number_shows() {
    for label in [0, 1] {
        let (loss, dx) = one(&mut engine(), f32::NAN, label);
        assert!(loss.is_nan() && dx.is_nan(), "label {label}: {loss} {dx}");
    }
}

#[test]
fn another_label_counts_as_one() {
    let mut engine = engine();
    assert_eq!(one(&mut engine, 0.5, 7), one(&mut engine, 0.5, 1));
    assert_eq!(one(&mut Engine::cpu(), 0.5, 7), one(&mut Engine::cpu(), 0.5, 1));
}

#[test]
fn with_nothing_counted_the_loss_is_nan_and_the_gradient_zero() {
    for mut engine in [engine(), Engine::cpu()] {
        let (loss, dx) = one(&mut engine, 2.0, IGNORE);
        assert!(loss.is_nan() && dx == 0.0, "{loss} {dx}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let mut g = Graph::new();
    let logits = g.input("logits", TensorType::f32([2, 3]));
    let labels = g.input("labels", TensorType::u32([6]));
    let error = ops::binary_cross_entropy(&mut g, logits, labels).unwrap_err().to_string();
    assert!(error.contains("the labels are [6], and the logits [2,3]"), "{error}");
}
