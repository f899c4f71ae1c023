//! The mean squared error.

use crate::harness::{AWKWARD, Bound, Case};
use shaderlm::ops;

#[test]
fn forward_and_backward() {
    for n in AWKWARD {
        let mut c = Case::new();
        let (predictions, targets) = (c.input([n]), c.input([n]));
        let loss = ops::mse(&mut c.g, predictions, targets).unwrap();
        c.check(&format!("mse [{n}]"), &[loss], Bound::Elementwise);

        let mut c = Case::new();
        let (predictions, targets) = (c.input([3, n]), c.input([3, n]));
        let loss = ops::mse(&mut c.g, predictions, targets).unwrap();
        c.check_backward(&format!("mse [3,{n}]"), loss, &[predictions, targets], Bound::Elementwise);
    }
}

#[test]
fn a_known_value() {
    // ((1 - 3)^2 + (2 - 2)^2 + (4 + 1)^2) / 3
    let mut c = Case::new();
    let predictions = c.feed([3], vec![1.0, 2.0, 4.0]);
    let targets = c.feed([3], vec![3.0, 2.0, -1.0]);
    let loss = ops::mse(&mut c.g, predictions, targets).unwrap();
    let (feeds, mut variables) = c.in_f64();
    let found = shaderlm::graph::evaluate(&c.g, &feeds, &mut variables, &[loss])[&loss].f()[0];
    assert!((found - 29.0 / 3.0).abs() < 1e-6, "{found}");
}

#[test]
fn shapes_that_do_not_fit() {
    let mut c = Case::new();
    let (predictions, targets) = (c.input([2, 3]), c.input([3]));
    let error = ops::mse(&mut c.g, predictions, targets).unwrap_err().to_string();
    assert!(error.contains("[2,3]") && error.contains("[3]"), "{error}");
}
