//! add, mul, div, scale.

use crate::harness::{AWKWARD, Bound, Case};
use shaderlm::{
    graph::Graph,
    ops::{self, OpError, Tensor},
};

type Binary = fn(&mut dyn ops::Recorder, Tensor, Tensor) -> Result<Tensor, OpError>;
const BINARY: [(&str, Binary); 2] = [("add", ops::add), ("mul", ops::mul)];

#[test]
fn binary_forward_and_backward() {
    for (name, op) in BINARY {
        for n in AWKWARD {
            for rows in [1, 3] {
                let mut c = Case::new();
                let (a, b) = (c.input([rows, n]), c.input([rows, n]));
                let y = op(&mut c.g, a, b).unwrap();
                c.check(&format!("{name} [{rows},{n}]"), &[y], Bound::Elementwise);

                let mut c = Case::new();
                let (a, b) = (c.input([rows, n]), c.input([n]));
                let y = op(&mut c.g, a, b).unwrap();
                c.check_backward(&format!("{name} [{rows},{n}] with [{n}]"), y, &[a, b], Bound::Nmse);
            }
        }
    }
}

#[test]
fn division_forward_and_backward() {
    for n in AWKWARD {
        for rows in [1, 3] {
            let make = || {
                let mut c = Case::new();
                let a = c.input([rows, n]);
                // Away from 0, where the quotient is steep.
                let below = c.normal(n).into_iter().map(|x| if x < 0.0 { x - 0.5 } else { x + 0.5 }).collect();
                let b = c.feed([n], below);
                let y = ops::div(&mut c.g, a, b).unwrap();
                (c, [a, b], y)
            };
            let (c, _, y) = make();
            c.check(&format!("div [{rows},{n}] by [{n}]"), &[y], Bound::Elementwise);
            let (c, inputs, y) = make();
            c.check_backward(&format!("gradient of div [{rows},{n}] by [{n}]"), y, &inputs, Bound::Nmse);
        }
    }
}

#[test]
fn scale_forward_and_backward() {
    for n in AWKWARD {
        let mut c = Case::new();
        let x = c.input([n]);
        let y = ops::scale(&mut c.g, x, -0.37).unwrap();
        c.check_backward(&format!("scale [{n}]"), y, &[x], Bound::Elementwise);
    }
}

#[test]
fn more_than_65535_workgroups_and_larger_than_a_binding() {
    // 35 M floats are 140 MB, over the 128 MiB binding, and 547,000 workgroups of 64 when not vectorised.
    let n = 35_000_003;
    let mut c = Case::new();
    let a = c.feed([n], (0..n).map(|i| (i % 1013) as f32).collect());
    let b = c.feed([n], (0..n).map(|i| (i % 509) as f32).collect());
    let sum = ops::add(&mut c.g, a, b).unwrap();
    let y = ops::scale(&mut c.g, sum, 0.5).unwrap();
    c.check("add and scale, 35,000,003 elements", &[y], Bound::Elementwise);
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let mut g = Graph::new();
    let a = g.input("a", ops::TensorType::f32([2, 3]));
    let b = g.input("b", ops::TensorType::f32([2]));
    let error = g.layer("h.3.mlp", |g| ops::add(g, a, b)).unwrap_err().to_string();
    assert!(error.contains("add in h.3.mlp on [2,3] [2]"), "{error}");
}
