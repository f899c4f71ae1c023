//! The mixture of a softmax and a copy of the input token.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions, gradients},
    ops::{self, HostTensor, IGNORE, Tensor, TensorType},
};

/// Right, replaced and not counted.
fn replaced(i: usize) -> u32 {
    [0, 1, 0, IGNORE, 0, 1, 0][i % 7]
}

/// Loss and both gradients are checked, the gradients times the number of elements, as they are about 1 / n.
fn check(what: &str, mut c: Case, inputs: [Tensor; 2], wrt: [Tensor; 2], replaced: Tensor, n: usize) {
    let loss = ops::copy_mixture(&mut c.g, inputs[0], inputs[1], replaced).unwrap();
    let scaled = ops::scale(&mut c.g, loss, n as f32).unwrap();
    let grads: Vec<_> = gradients(&mut c.g, scaled, &wrt).unwrap().into_iter().flatten().collect();
    if n <= 1100 {
        c.finite_differences(what, scaled, &wrt, &grads);
    }
    c.check(what, &[loss, grads[0], grads[1]], Bound::Elementwise);
}

#[test]
fn forward_and_backward() {
    for n in AWKWARD.into_iter().chain([4, 8, 1024, 4095, 4096, 4097, 8192, 65_537]) {
        let mut c = Case::new();
        let losses = c.normal(n).into_iter().map(|x| 4.0 * x.abs() + 0.01).collect();
        let logits = c.normal(n).into_iter().map(|x| 4.0 * x).collect();
        let inputs = [c.feed([n], losses), c.feed([n], logits)];
        let which = c.ids([n], (0..n).map(replaced).collect());
        check(&format!("copy_mixture [{n}]"), c, inputs, inputs, which, n);
    }
}

#[test]
fn many_dimensions_and_windows_that_start_anywhere() {
    for shift in 0..5 {
        let mut c = Case::new();
        let losses = c.normal(64).into_iter().map(|x| 4.0 * x.abs() + 0.01).collect();
        let all = [c.feed([64], losses), c.input([64])];
        let inputs = all.map(|all| {
            let part = ops::slice(&mut c.g, all, 0, shift..shift + 60).unwrap();
            ops::reshape(&mut c.g, part, [3, 4, 5]).unwrap()
        });
        let which = c.ids([3, 4, 5], (0..60).map(replaced).collect());
        check(&format!("copy_mixture [3,4,5] from element {shift}"), c, inputs, all, which, 60);
    }
}

#[test]
fn larger_than_a_binding() {
    for n in [34_000_000, 33_900_003] {
        let mut c = Case::new();
        let losses = c.feed([n], (0..n).map(|i| ((i * 17) % 509) as f32 / 50.0).collect());
        let copy = c.feed([n], (0..n).map(|i| ((i * 31) % 1013) as f32 / 100.0 - 5.0).collect());
        let which = c.ids([n], (0..n).map(replaced).collect());
        check(&format!("copy_mixture [{n}]"), c, [losses, copy], [losses, copy], which, n);
    }
}

/// From the logits of the softmax on, as a model has it: the gradient reaches them through the tokens' losses.
#[test]
fn on_top_of_cross_entropy() {
    let mut c = Case::new();
    let (logits, copy) = (c.input([2, 9, 31]), c.input([2, 9]));
    let original = c.random_ids([2, 9], 31);
    let which = c.ids([2, 9], (0..18).map(replaced).collect());
    let rows = ops::cross_entropy_rows(&mut c.g, logits, original, IGNORE).unwrap();
    let loss = ops::copy_mixture(&mut c.g, rows, copy, which).unwrap();
    c.check_backward("copy_mixture of a softmax", loss, &[logits, copy], Bound::Elementwise);
}

/// Loss and derivatives of one place.
fn one(engine: &mut Engine, t: f32, d: f32, replaced: u32) -> [f64; 3] {
    let mut g = Graph::new();
    let [losses, copy] = ["losses", "copy"].map(|name| g.input(name, TensorType::f32([1])));
    let which = g.input("replaced", TensorType::u32([1]));
    let loss = ops::copy_mixture(&mut g, losses, copy, which).unwrap();
    let grads = gradients(&mut g, loss, &[losses, copy]).unwrap();
    let wanted = [loss, grads[0].unwrap(), grads[1].unwrap()];
    let mut plan = engine.compile(g, &wanted, &PlanOptions::default()).unwrap();
    plan.set(losses, HostTensor::floats([1], vec![t])).unwrap();
    plan.set(copy, HostTensor::floats([1], vec![d])).unwrap();
    plan.set(which, HostTensor::uints([1], vec![replaced])).unwrap();
    plan.run(engine).unwrap();
    wanted.map(|t| f64::from(plan.get(t).unwrap().f()[0]))
}

/// The paper's formula, p = D [right] + (1 - D) softmax, in f64; by 1 - p where p is near 1. Valid while nothing underflows.
fn by_probabilities(t: f64, d: f64, right: bool) -> [f64; 3] {
    let (copied, generated) = (1.0 / (1.0 + (-d).exp()), 1.0 / (1.0 + d.exp()));
    let softmax = (-t).exp();
    let right = if right { 1.0 } else { 0.0 };
    let p = copied * right + generated * softmax;
    let rest = if right == 1.0 { generated * -(-t).exp_m1() } else { 1.0 - p };
    let loss = if rest < 0.5 { -(-rest).ln_1p() } else { -p.ln() };
    let step = copied * generated;
    // 1 - softmax without cancellation, where the token is right.
    let apart = if right == 1.0 { -(-t).exp_m1() } else { -softmax };
    [loss, generated * softmax / p, -step * apart / p]
}

#[test]
fn every_size_of_logit_and_loss_to_a_few_units_in_the_last_place() {
    // The CPU's plain formulas cancel where p is near 1: they are as near as single precision is to 1.
    for (name, mut engine, floor) in [("the adapter", engine(), 2e-38), ("the CPU", Engine::cpu(), 2e-7)] {
        for d in [0.0f32, 1e-4, 0.5, 1.0, 3.0, 10.0, 30.0, 80.0].into_iter().flat_map(|d| [d, -d]) {
            for t in [1e-6f32, 1e-3, 0.2499, 0.2501, 0.7, 1.0, 3.0, 10.0, 30.0, 80.0] {
                for replaced in [0, 1] {
                    let found = one(&mut engine, t, d, replaced);
                    let expected = by_probabilities(f64::from(t), f64::from(d), replaced == 0);
                    for (i, (f, e)) in found.into_iter().zip(expected).enumerate() {
                        assert!(
                            (f - e).abs() <= 1e-6 * e.abs() + floor,
                            "value {i} of t {t:e}, d {d:e}, replaced {replaced} on {name}: {f:e} instead of {e:e}"
                        );
                    }
                }
            }
        }
    }
}

#[test]
fn extremes_stay_finite() {
    for mut engine in [engine(), Engine::cpu()] {
        // Only the copy, only the softmax, a copy of what is wrong, the better of two bad ones, and a softmax that is certain.
        for (t, d, replaced, expected) in [
            (1e4, 1e4, 0, [0.0, 0.0, 0.0]),
            (5.0, -1e4, 0, [5.0, 1.0, 0.0]),
            (5.0, 1e4, 1, [10_005.0, 1.0, 1.0]),
            (1e4, -5e3, 0, [5e3, 0.0, -1.0]),
            (0.0, 0.0, 0, [0.0, 0.5, 0.0]),
        ] {
            let found = one(&mut engine, t, d, replaced);
            let near = found.iter().zip(expected).all(|(f, e)| (f - e).abs() < 2e-38);
            assert!(near, "t {t}, d {d}, replaced {replaced}: {found:?} instead of {expected:?}");
        }
    }
}

#[test]
fn what_is_no_number_shows_and_with_nothing_counted_the_loss_is_nan_and_the_gradients_zero() {
    for replaced in [0, 1] {
        for (t, d) in [(f32::NAN, 1.0), (1.0, f32::NAN)] {
            let values = one(&mut engine(), t, d, replaced);
            assert!(values.iter().all(|x| x.is_nan()), "{values:?} of {t}, {d}, {replaced}");
        }
    }
    for mut engine in [engine(), Engine::cpu()] {
        let [loss, dt, dd] = one(&mut engine, 2.0, 1.0, IGNORE);
        assert!(loss.is_nan() && dt == 0.0 && dd == 0.0, "{loss} {dt} {dd}");
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let mut g = Graph::new();
    let [losses, copy] = [[2, 3], [3, 2]].map(|shape| g.input("x", TensorType::f32(shape)));
    let which = g.input("replaced", TensorType::u32([2, 3]));
    let error = ops::copy_mixture(&mut g, losses, copy, which).unwrap_err().to_string();
    assert!(error.contains("the logits of copying [3,2]"), "{error}");
}
