//! tanh and ReLU.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Graph, PlanOptions},
    ops::{self, HostTensor, OpError, Recorder, Tensor, TensorType},
};

type Activation = fn(&mut dyn Recorder, Tensor) -> Result<Tensor, OpError>;
const BOTH: [(&str, Activation); 2] = [("tanh", ops::tanh), ("relu", ops::relu)];
const SIZES: [usize; 6] = [768, 1600, 4 * 63, 4 * 64, 4 * 65, 10_007];

#[test]
fn forward_and_backward() {
    for (name, op) in BOTH {
        for n in AWKWARD.into_iter().chain(SIZES) {
            let mut c = Case::new();
            let x = c.input([n]);
            let x = ops::scale(&mut c.g, x, 2.0).unwrap();
            let y = op(&mut c.g, x).unwrap();
            c.check(&format!("{name} [{n}]"), &[y], Bound::Elementwise);

            let mut c = Case::new();
            // None is 0, where the differences would straddle ReLU's corner.
            let data = c.normal(n).into_iter().map(|x| x + 0.001).collect();
            let x = c.feed([n], data);
            let y = op(&mut c.g, x).unwrap();
            c.check_backward(&format!("{name} [{n}]"), y, &[x], Bound::Elementwise);
        }
    }
}

/// `op` of `x` on the adapter.
fn apply(op: Activation, x: &[f32]) -> Vec<f32> {
    let mut g = Graph::new();
    let input = g.input("x", TensorType::f32([x.len()]));
    let y = op(&mut g, input).unwrap();
    let mut engine = engine();
    let mut plan = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    plan.set(input, HostTensor::floats([x.len()], x.to_vec())).unwrap();
    plan.run(&mut engine).unwrap();
    plan.get(y).unwrap().f().to_vec()
}

/// Where a driver's tanh overflows, where the rational ends, and where only a relative error says anything.
fn extremes() -> Vec<f32> {
    let mut x: Vec<f32> = (-4000..=4000).map(|i| i as f32 * 0.005).collect();
    for size in [1e-30, 1e-10, 1e-5, 0.000_399, 0.0004, 0.000_401, 1e-3, 7.9, 7.91, 44.0, 88.8, 1e3, 1e12, f32::MAX] {
        x.extend([size, -size]);
    }
    x.extend([f32::INFINITY, f32::NEG_INFINITY]);
    x
}

#[test]
fn tanh_has_a_small_relative_error_everywhere() {
    let x = extremes();
    let mut worst: f64 = 0.0;
    for (&x, y) in x.iter().zip(apply(ops::tanh, &x)) {
        let expected = f64::from(x).tanh();
        let error = if x == 0.0 { f64::from(y).abs() } else { ((f64::from(y) - expected) / expected).abs() };
        assert!(error <= 1e-6, "tanh({x:e}): {y:e} instead of {expected:e}");
        worst = worst.max(error);
    }
    eprintln!("largest relative error of tanh: {worst:e}");
}

#[test]
fn relu_is_exact() {
    let x = extremes();
    assert_eq!(apply(ops::relu, &x), x.iter().map(|x| x.max(0.0)).collect::<Vec<_>>());
}

/// A diverged model must not look healthy. Of more than one, so that vec4s are tried too.
#[test]
fn a_nan_stays_one() {
    for (name, op) in BOTH {
        for n in [3, 8] {
            let mut x = vec![1.0; n];
            (x[1], x[2]) = (f32::NAN, -f32::NAN);
            let y = apply(op, &x);
            assert!(y[1].is_nan() && y[2].is_nan() && y[0] > 0.7, "{name} of NaN: {y:?}");
        }
    }
}

/// The gradient at exactly 0 is 0, and that of a saturated tanh is no noise.
#[test]
fn gradients_at_the_edges() {
    for (name, op) in BOTH {
        let mut c = Case::new();
        let x = c.feed([8], vec![0.0, -0.0, 1e-30, -1e-30, 9.0, -9.0, 1e30, -1e30]);
        let y = op(&mut c.g, x).unwrap();
        let loss = ops::sum(&mut c.g, y).unwrap();
        let dx = shaderlm::graph::gradients(&mut c.g, loss, &[x]).unwrap()[0].unwrap();
        c.check(&format!("gradient of {name} at its edges"), &[dx], Bound::Within(1e-6));
    }
}

#[test]
fn more_than_65535_workgroups_and_larger_than_a_binding() {
    for (name, op) in BOTH {
        let n = 33_600_011;
        let mut c = Case::new();
        let x = c.feed([n], (0..n).map(|i| (i % 1013) as f32 / 100.0 - 5.0).collect());
        let y = op(&mut c.g, x).unwrap();
        let loss = ops::sum(&mut c.g, y).unwrap();
        let dx = shaderlm::graph::gradients(&mut c.g, loss, &[x]).unwrap()[0].unwrap();
        c.check(&format!("{name} [{n}]"), &[y, dx], Bound::Elementwise);
    }
}

#[test]
fn integers_are_refused() {
    for (_, op) in BOTH {
        let mut g = Graph::new();
        let x = g.input("x", TensorType::u32([4]));
        assert!(op(&mut g, x).is_err());
    }
}
