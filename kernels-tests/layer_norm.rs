//! Layer norm over the last dimension.

use crate::harness::{AWKWARD, Bound, Case, engine, engine_as_hardware};
use shaderlm::{
    graph::{Graph, PlanOptions, gradients, kernels},
    ops::{self, Precision, Recorder, Tensor, TensorType},
};

const EPSILON: f32 = 1e-5;

fn case<const N: usize>(shape: [usize; N]) -> (Case, Tensor, [Tensor; 3]) {
    let mut c = Case::new();
    let width = shape[N - 1];
    let inputs = [c.input(shape), c.input([width]), c.input([width])];
    let y = ops::layer_norm(&mut c.g, inputs[0], inputs[1], inputs[2], EPSILON).unwrap();
    (c, y, inputs)
}

#[test]
fn forward_and_backward() {
    for width in AWKWARD.into_iter().chain([128, 129, 768, 1600, 4097]) {
        for rows in [1, 3, 65] {
            let what = format!("layer_norm [{rows},{width}]");
            let (c, y, _) = case([rows, width]);
            c.check(&what, &[y], Bound::Elementwise);
            if rows * width > 40_000 {
                continue;
            }
            // Of two elements only the order is left, so that the gradient nearly vanishes; elsewhere it may be steep.
            let bound = if width <= 3 { Bound::Within(1e-4) } else { Bound::Nmse };
            let (c, y, inputs) = case([rows, width]);
            c.check_backward(&what, y, &inputs, bound);
        }
    }
    let (c, y, inputs) = case([2, 3, 5, 64]);
    c.check_backward("layer_norm [2,3,5,64]", y, &inputs, Bound::Elementwise);
    let (c, y, inputs) = case([7]);
    c.check_backward("layer_norm [7]", y, &inputs, Bound::Elementwise);
}

#[test]
fn rows_far_from_zero() {
    for width in [64, 768, 1601] {
        let mut c = Case::new();
        let data = c.normal(4 * width).into_iter().map(|x| 4096.0 + (x * 64.0).round() / 64.0).collect();
        let x = c.feed([4, width], data);
        let (gamma, beta) = (c.input([width]), c.input([width]));
        let y = ops::layer_norm(&mut c.g, x, gamma, beta, EPSILON).unwrap();
        c.check(&format!("layer_norm [4,{width}] around 4096"), &[y], Bound::Within(1e-3));
    }
}

#[test]
fn gradients_that_are_not_wanted_are_not_computed() {
    for (which, nodes) in [(0, 1), (1, 4), (2, 4)] {
        let (mut c, y, inputs) = case([70, 65]);
        let loss = ops::sum(&mut c.g, y).unwrap();
        let before = c.g.nodes().len();
        let grad = gradients(&mut c.g, loss, &[inputs[which]]).unwrap()[0].unwrap();
        // One node for dx; one, its sum and two views for each parameter; and the gradient of the sum, two nodes.
        assert_eq!(c.g.nodes().len() - before, nodes + 2, "input {which}");
        c.check(&format!("gradient {which} alone"), &[grad], Bound::Within(1e-4));
    }
}

/// GPUs have a choice of how many rows a workgroup goes through.
#[test]
fn several_rows_a_workgroup() {
    for (width, choice) in [(32, 1), (20, 0), (7, 1)] {
        let (mut c, y, inputs) = case([2051, width]);
        let mut outputs = c.backward(y, &inputs).1;
        outputs.push(y);
        let options = PlanOptions { choices: vec![choice], ..PlanOptions::default() };
        let made = kernels(&c.g, &outputs, engine_as_hardware().capabilities().unwrap(), &options).unwrap();
        let rows = format!("ROWS={}", [1, 4][choice]);
        for kernel in ["layer_norm{", "layer_norm_input{"] {
            assert!(made.iter().any(|k| k.label().contains(kernel) && k.label().contains(&rows)), "{kernel} {rows}");
        }
        c.check_with(engine_as_hardware(), options, &format!("layer_norm [2051,{width}], {rows}"), &outputs, Bound::Nmse);
    }
}

/// x + layer_norm(x), as around the blocks of GPT-2: x has two gradients, which one kernel makes and adds.
#[test]
fn the_gradient_beside_a_norm_is_added_to_its_own() {
    for precision in [Precision::F32, Precision::Mixed] {
        for (make, width) in [(engine as fn() -> _, 64), (engine, 33), (engine_as_hardware, 64), (engine_as_hardware, 5)] {
            let engine = make();
            let (mut c, y, inputs) = case([13, width]);
            let sum = ops::add(&mut c.g, inputs[0], y).unwrap();
            let (_, grads) = c.backward(sum, &inputs);
            let options = PlanOptions { precision, ..PlanOptions::default() };
            let made = kernels(&c.g, &grads, engine.capabilities().unwrap(), &options).unwrap();
            let labels: Vec<_> = made.iter().map(|k| k.label()).collect();
            assert!(labels.iter().any(|l| l.contains("layer_norm_input{ADDED")), "{labels:?}");
            assert!(!labels.iter().any(|l| l.contains("OP=+")), "{labels:?}");
            let bound = if precision == Precision::F32 { Bound::Within(1e-4) } else { Bound::Within(2e-2) };
            c.check_with(
                engine,
                options,
                &format!("a norm of width {width} and what is beside it, {precision:?}"),
                &grads,
                bound,
            );
        }
    }
}

#[test]
fn many_rows_and_larger_than_a_binding() {
    for [rows, width] in [[65_537, 5], [65_600, 64], [43_777, 768]] {
        let mut c = Case::new();
        let data = (0..rows * width).map(|i| ((i * 7919) % 1013) as f32 / 100.0 + (i / width % 7) as f32).collect();
        let x = c.feed([rows, width], data);
        let (gamma, beta, w) = (c.input([width]), c.input([width]), c.input([width]));
        let y = ops::layer_norm(&mut c.g, x, gamma, beta, EPSILON).unwrap();
        let square = ops::mul(&mut c.g, y, y).unwrap();
        let product = ops::mul(&mut c.g, square, w).unwrap();
        let loss = ops::sum(&mut c.g, product).unwrap();
        let grads = gradients(&mut c.g, loss, &[x, gamma, beta]).unwrap();
        let mut outputs = vec![y];
        outputs.extend(grads.into_iter().flatten());
        assert_eq!(outputs.len(), 4);
        c.check(&format!("layer_norm [{rows},{width}]"), &outputs, Bound::Nmse);
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let mut g = Graph::new();
    let x = g.input("x", TensorType::f32([2, 8]));
    let gamma = g.input("gamma", TensorType::f32([8]));
    let beta = g.input("beta", TensorType::f32([4]));
    let error = ops::layer_norm(&mut g, x, gamma, beta, EPSILON).unwrap_err().to_string();
    assert!(error.contains("beta is [4], not [8]"), "{error}");
    assert_eq!(g.ty(x).shape.width(), 8);
}
