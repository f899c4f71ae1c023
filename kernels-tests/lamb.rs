//! LAMB against an implementation of its own in f64, and against the operation's reference.

use crate::harness::{AWKWARD, Bound, Case, compare, engine};
use shaderlm::{
    graph::{Graph, PlanOptions},
    ops::{self, HostTensor, Lamb, Tensor, TensorType},
};

const DECAYED: Lamb = Lamb { beta1: 0.9, beta2: 0.999, eps: 1e-6, weight_decay: 0.01, adapt: true, rate_scale: 1.0 };
const EXCLUDED: Lamb = Lamb { weight_decay: 0.0, adapt: false, ..DECAYED };
/// The rate of a layer that learns slower.
const SCALED: Lamb = Lamb { rate_scale: 0.0625, ..DECAYED };

fn variable(c: &mut Case, name: &str, n: usize, positive: bool) -> Tensor {
    let data = c.normal(n).into_iter().map(|x| if positive { x * x } else { x }).collect();
    c.variable(name, HostTensor::floats([n], data))
}

#[test]
fn one_step() {
    for n in AWKWARD.into_iter().chain([8192, 8193, 4_200_000]) {
        for rule in [DECAYED, EXCLUDED, SCALED, Lamb { rate_scale: 0.0625, ..EXCLUDED }] {
            for clipped in [false, true] {
                let mut c = Case::new();
                let (x, m) = (variable(&mut c, "x", n, false), variable(&mut c, "m", n, false));
                let v = variable(&mut c, "v", n, true);
                let (grad, hyper) = (c.input([n]), c.feed([3], vec![0.01, f32::NAN, f32::NAN]));
                let factor = clipped.then(|| c.feed([], vec![0.31]));
                ops::lamb(&mut c.g, x, grad, m, v, hyper, factor, rule).unwrap();
                c.check(&format!("lamb [{n}], {rule:?}, clipped {clipped}"), &[], Bound::Elementwise);
            }
        }
    }
}

/// The arithmetic of google-research/albert's `LAMBOptimizer.apply_gradients`, in f64.
struct Albert {
    param: Vec<f64>,
    m: Vec<f64>,
    v: Vec<f64>,
}

impl Albert {
    fn apply_gradients(&mut self, gradient: &[f32], learning_rate: f64, factor: f64, rule: Lamb) {
        let (beta_1, beta_2, epsilon) = (f64::from(rule.beta1), f64::from(rule.beta2), f64::from(rule.eps));
        let grad: Vec<f64> = gradient.iter().map(|&g| f64::from(g) * factor).collect();
        let next_m: Vec<f64> = self.m.iter().zip(&grad).map(|(m, g)| beta_1 * m + (1.0 - beta_1) * g).collect();
        let next_v: Vec<f64> = self.v.iter().zip(&grad).map(|(v, g)| beta_2 * v + (1.0 - beta_2) * g * g).collect();
        let mut update: Vec<f64> = next_m.iter().zip(&next_v).map(|(m, v)| m / (v.sqrt() + epsilon)).collect();
        if rule.weight_decay != 0.0 {
            for (u, p) in update.iter_mut().zip(&self.param) {
                *u += f64::from(rule.weight_decay) * p;
            }
        }
        let mut ratio = 1.0;
        if rule.adapt {
            let w_norm = self.param.iter().map(|p| p * p).sum::<f64>().sqrt();
            let g_norm = update.iter().map(|u| u * u).sum::<f64>().sqrt();
            ratio = if w_norm > 0.0 && g_norm > 0.0 { w_norm / g_norm } else { 1.0 };
        }
        for (p, u) in self.param.iter_mut().zip(&update) {
            *p -= ratio * learning_rate * f64::from(rule.rate_scale) * u;
        }
        (self.m, self.v) = (next_m, next_v);
    }
}

/// Several steps on the adapter and in [`Albert`], from moments of zero; the gradients of each step are given.
fn follow(what: &str, start: &[f32], gradients: &[Vec<f32>], factor: Option<f32>, rule: Lamb) {
    let n = start.len();
    let mut g = Graph::new();
    let ty = TensorType::f32([n]);
    let [x, m, v] = ["x", "m", "v"].map(|name| g.variable(name, ty.clone()).unwrap());
    let (grad, hyper) = (g.input("grad", ty.clone()), g.input("hyper", TensorType::f32([3])));
    let clip = factor.map(|_| g.input("factor", TensorType::f32([])));
    ops::lamb(&mut g, x, grad, m, v, hyper, clip, rule).unwrap();

    let mut engine = engine();
    engine.set("x", &HostTensor::floats([n], start.to_vec())).unwrap();
    engine.set("m", &HostTensor::zeros(&ty)).unwrap();
    engine.set("v", &HostTensor::zeros(&ty)).unwrap();
    let mut plan = engine.compile(g, &[], &PlanOptions::default()).unwrap();
    let mut albert = Albert { param: start.iter().map(|&x| f64::from(x)).collect(), m: vec![0.0; n], v: vec![0.0; n] };
    for (step, gradient) in gradients.iter().enumerate() {
        let rate = 0.01 / (step + 1) as f32;
        plan.set(grad, HostTensor::floats([n], gradient.clone())).unwrap();
        plan.set(hyper, HostTensor::floats([3], vec![rate, 1.0, 1.0])).unwrap();
        if let (Some(clip), Some(factor)) = (clip, factor) {
            plan.set(clip, HostTensor::floats([], vec![factor])).unwrap();
        }
        plan.run(&mut engine).unwrap();
        albert.apply_gradients(gradient, f64::from(rate), f64::from(factor.unwrap_or(1.0)), rule);
    }
    for (name, expected) in [("x", &albert.param), ("m", &albert.m), ("v", &albert.v)] {
        let found = engine.get(name).unwrap().unwrap();
        compare(&format!("{what}, {name}"), &found, &HostTensor::floats([n], expected.clone()), Bound::Elementwise);
    }
}

#[test]
fn several_steps_as_alberts() {
    for n in AWKWARD.into_iter().chain([8191, 20_011]) {
        for rule in [DECAYED, EXCLUDED, SCALED, Lamb { weight_decay: 0.0, ..DECAYED }] {
            for factor in [None, Some(0.17)] {
                let mut c = Case::new();
                let start = c.normal(n);
                let gradients: Vec<_> = (0..5).map(|_| c.normal(n)).collect();
                let what = format!("5 steps of {rule:?} over [{n}], factor {factor:?}");
                follow(&what, &start, &gradients, factor, rule);
            }
        }
    }
}

/// Where a norm is 0 the ratio is 1: zero parameters move, and zero gradients leave only the decay.
#[test]
fn zero_parameters_and_zero_gradients() {
    for n in [1, 5, 64, 1021] {
        for rule in [DECAYED, EXCLUDED, Lamb { weight_decay: 0.0, ..DECAYED }] {
            let mut c = Case::new();
            let (some, zero) = (c.normal(n), vec![0.0; n]);
            let gradients: Vec<_> = (0..3).map(|_| c.normal(n)).collect();
            follow(&format!("zero parameters [{n}], {rule:?}"), &zero, &gradients, None, rule);
            follow(&format!("zero gradients [{n}], {rule:?}"), &some, &[zero.clone(), zero.clone()], None, rule);
            follow(&format!("zeros [{n}], {rule:?}"), &zero, &[zero.clone(), zero.clone()], Some(0.5), rule);
        }
    }
}

#[test]
fn larger_than_a_binding() {
    // GPT-2's token table: more than 128 MiB, so the norms run over several windows.
    let n = 50_257 * 768;
    let start: Vec<f32> = (0..n).map(|i| ((i * 7) % 1013) as f32 / 1013.0 - 0.4).collect();
    let gradients: Vec<Vec<f32>> =
        [17, 23].iter().map(|k| (0..n).map(|i| ((i * k) % 509) as f32 / 509.0 - 0.5).collect()).collect();
    follow("2 steps over GPT-2's token table", &start, &gradients, None, DECAYED);
}

#[test]
fn shapes_that_do_not_fit() {
    let mut c = Case::new();
    let (x, m, v) = (variable(&mut c, "x", 4, false), variable(&mut c, "m", 5, false), variable(&mut c, "v", 4, true));
    let (grad, hyper) = (c.input([4]), c.input([3]));
    let error = ops::lamb(&mut c.g, x, grad, m, v, hyper, None, DECAYED).unwrap_err().to_string();
    assert!(error.contains("input 2 is [5]"), "{error}");
}
