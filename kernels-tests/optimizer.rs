//! AdamW, SGD, the global norm and clipping.

use crate::harness::{AWKWARD, Bound, Case};
use shaderlm::ops::{self, AdamW, HostTensor, Tensor};

const RULE: AdamW = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1 };

fn variable(c: &mut Case, name: &str, n: usize, positive: bool) -> Tensor {
    let data = c.normal(n).into_iter().map(|x| if positive { x * x } else { x }).collect();
    c.variable(name, HostTensor::floats([n], data))
}

/// A learning rate and the bias corrections of step 3.
fn hyper(c: &mut Case) -> Tensor {
    c.feed([3], vec![0.01, 1.0 - 0.9f32.powi(3), 1.0 - 0.99f32.powi(3)])
}

#[test]
fn adamw() {
    for n in AWKWARD.into_iter().chain([4_200_000]) {
        for clipped in [false, true] {
            let mut c = Case::new();
            let (x, m) = (variable(&mut c, "x", n, false), variable(&mut c, "m", n, false));
            let v = variable(&mut c, "v", n, true);
            let (grad, hyper) = (c.input([n]), hyper(&mut c));
            let factor = clipped.then(|| c.feed([], vec![0.31]));
            ops::adamw(&mut c.g, x, grad, m, v, hyper, factor, RULE).unwrap();
            c.check(&format!("adamw [{n}], clipped {clipped}"), &[], Bound::Elementwise);
        }
    }
}

#[test]
fn adamw_larger_than_a_binding() {
    // GPT-2's token table: more than 128 MiB, and more than 65,535 workgroups of scalars.
    let n = 50_257 * 768;
    let mut c = Case::new();
    let data = |k: usize| HostTensor::floats([n], (0..n).map(|i| ((i * k) % 1013) as f32 / 1013.0).collect());
    let (x, m, v) = (c.variable("x", data(7)), c.variable("m", data(11)), c.variable("v", data(13)));
    let grad = c.feed([n], (0..n).map(|i| ((i * 17) % 509) as f32 / 509.0 - 0.5).collect());
    let hyper = hyper(&mut c);
    ops::adamw(&mut c.g, x, grad, m, v, hyper, None, RULE).unwrap();
    c.check("adamw over GPT-2's token table", &[], Bound::Elementwise);
}

#[test]
fn sgd() {
    for n in AWKWARD {
        for (momentum, clipped) in [(None, false), (None, true), (Some(0.9), false), (Some(0.9), true)] {
            let mut c = Case::new();
            let x = variable(&mut c, "x", n, false);
            let buffer = momentum.map(|_| variable(&mut c, "m", n, false));
            let (grad, hyper) = (c.input([n]), hyper(&mut c));
            let factor = clipped.then(|| c.feed([], vec![0.31]));
            ops::sgd(&mut c.g, x, grad, buffer, hyper, factor, momentum.unwrap_or(0.0), 0.1).unwrap();
            c.check(&format!("sgd [{n}], momentum {momentum:?}, clipped {clipped}"), &[], Bound::Elementwise);
        }
    }
}

#[test]
fn global_norm_and_clipping() {
    for n in AWKWARD.into_iter().chain([8191, 8192, 8193, 100_003]) {
        for most in [0.5, 1e6] {
            let mut c = Case::new();
            let tensors = [c.input([n]), c.input([3, n]), c.input([1])];
            let norm = ops::global_norm(&mut c.g, &tensors).unwrap();
            let factor = ops::clip_factor(&mut c.g, norm, most).unwrap();
            c.check(&format!("norm of [{n}], [3,{n}] and [1], at most {most}"), &[norm, factor], Bound::Elementwise);
        }
    }
}

#[test]
fn global_norm_of_many_and_of_large_tensors() {
    let mut c = Case::new();
    let mut tensors: Vec<_> = (0..70).map(|i| c.input([i * 37 + 1])).collect();
    let n = 34_000_003;
    tensors.push(c.feed([n], (0..n).map(|i| ((i * 7919) % 1013) as f32 / 1013.0 - 0.5).collect()));
    let norm = ops::global_norm(&mut c.g, &tensors).unwrap();
    c.check("norm of 71 tensors, one larger than a binding", &[norm], Bound::Elementwise);
}

#[test]
fn shapes_that_do_not_fit() {
    let mut c = Case::new();
    let (x, m, v) = (variable(&mut c, "x", 4, false), variable(&mut c, "m", 4, false), variable(&mut c, "v", 5, true));
    let (grad, hyper) = (c.input([4]), hyper(&mut c));
    let error = ops::adamw(&mut c.g, x, grad, m, v, hyper, None, RULE).unwrap_err().to_string();
    assert!(error.contains("input 3 is [5]"), "{error}");
    assert!(ops::global_norm(&mut c.g, &[]).is_err());
}
