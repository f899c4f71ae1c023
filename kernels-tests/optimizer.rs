//! AdamW, SGD, the global norm and clipping.

use crate::harness::{AWKWARD, Bound, Case, engine, engine_as_hardware};
use shaderlm::{
    graph::{Graph, PlanOptions},
    ops::{self, AdamW, HostTensor, Sgd, Tensor, TensorType},
};

const RULE: AdamW = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, rate_scale: 1.0 };
/// A rule for a layer whose rate is scaled: so far from 1 that leaving it out anywhere, decay included, shows.
const SCALED: AdamW = AdamW { rate_scale: 0.0625, ..RULE };

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
        for (clipped, rule) in [(false, RULE), (true, RULE), (false, SCALED), (true, SCALED)] {
            let mut c = Case::new();
            let (x, m) = (variable(&mut c, "x", n, false), variable(&mut c, "m", n, false));
            let v = variable(&mut c, "v", n, true);
            let (grad, hyper) = (c.input([n]), hyper(&mut c));
            let factor = clipped.then(|| c.feed([], vec![0.31]));
            ops::adamw(&mut c.g, x, grad, m, v, hyper, factor, rule).unwrap();
            c.check(&format!("adamw [{n}], clipped {clipped}, scale {}", rule.rate_scale), &[], Bound::Elementwise);
        }
    }
}

/// The rule written down again: the scale multiplies the rate of the step and of the decay alike.
#[test]
fn a_scaled_rate_is_a_smaller_rate() {
    let (n, scale) = (257, 0.3f32);
    let run = |rate: f32, rate_scale: f32| {
        let mut g = Graph::new();
        let [x, m, v] = ["x", "m", "v"].map(|name| g.variable(name, TensorType::f32([n])).unwrap());
        let hyper = g.input("hyper", TensorType::f32([3]));
        let grad = g.input("grad", TensorType::f32([n]));
        ops::adamw(&mut g, x, grad, m, v, hyper, None, AdamW { rate_scale, ..RULE }).unwrap();
        let mut engine = engine();
        for (name, value) in [("x", 0.5), ("m", 0.0), ("v", 0.0)] {
            engine.set(name, &HostTensor::floats([n], vec![value; n])).unwrap();
        }
        let mut plan = engine.compile(g, &[], &PlanOptions::default()).unwrap();
        plan.set(grad, HostTensor::floats([n], (0..n).map(|i| 0.1 + i as f32).collect())).unwrap();
        plan.set(hyper, HostTensor::floats([3], vec![rate, 1.0 - RULE.beta1, 1.0 - RULE.beta2])).unwrap();
        plan.run(&mut engine).unwrap();
        engine.get("x").unwrap().unwrap().f().to_vec()
    };
    let (scaled, smaller, whole) = (run(0.1, scale), run(0.1 * scale, 1.0), run(0.1, 1.0));
    // A first step from moments of zero moves by the rate against the gradient's sign, and decays.
    let expected = 0.5 * (1.0 - 0.1 * scale * 0.1) - 0.1 * scale;
    for i in 0..n {
        assert!((scaled[i] - expected).abs() < 2e-6, "element {i}: {} instead of {expected}", scaled[i]);
        assert!((scaled[i] - smaller[i]).abs() < 1e-6 && (scaled[i] - whole[i]).abs() > 0.05, "element {i}");
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
    ops::adamw(&mut c.g, x, grad, m, v, hyper, None, SCALED).unwrap();
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
            let rate_scale = if n % 2 == 0 { 1.0 } else { 0.0625 };
            let rule = Sgd { momentum: momentum.unwrap_or(0.0), weight_decay: 0.1, rate_scale };
            ops::sgd(&mut c.g, x, grad, buffer, hyper, factor, rule).unwrap();
            c.check(&format!("{rule:?} over [{n}], buffer {}, clipped {clipped}", momentum.is_some()), &[], Bound::Elementwise);
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

#[test]
fn the_loss_scale_and_what_it_makes_of_gradients() {
    let inf = f32::INFINITY;
    let known = [
        // norm of the scaled gradients, scale, steps since a change, skipped -> factor with and without clipping at 1, the same
        (8192.0, [65536.0, 3.0, 0.0], [1.0 / 65536.0, 1.0 / 65536.0], [65536.0, 4.0, 0.0]),
        (4096.0, [1024.0, 1999.0, 5.0], [0.25 / 1024.0, 1.0 / 1024.0], [2048.0, 0.0, 5.0]),
        (1.0, [16_777_216.0, 1999.0, 0.0], [1.0 / 16_777_216.0; 2], [16_777_216.0, 0.0, 0.0]),
        (inf, [65536.0, 77.0, 2.0], [-1.0; 2], [32768.0, 0.0, 3.0]),
        (f32::NAN, [1.0, 0.0, 0.0], [-1.0; 2], [1.0, 0.0, 1.0]),
    ];
    for (norm, state, factors, next) in known {
        for (most, factor) in [Some(1.0), None].into_iter().zip(factors) {
            for (who, mut engine) in [("the adapter", engine()), ("the CPU", shaderlm::graph::Engine::cpu())] {
                let mut g = Graph::new();
                let scaled = g.input("norm", TensorType::f32([]));
                let variable = g.variable("state", TensorType::f32([3])).unwrap();
                engine.set("state", &HostTensor::floats([3], state.to_vec())).unwrap();
                let outputs = ops::loss_scale(&mut g, scaled, variable, most).unwrap();
                let mut plan = engine.compile(g, &outputs, &PlanOptions::default()).unwrap();
                plan.set(scaled, HostTensor::floats([], vec![norm])).unwrap();
                plan.run(&mut engine).unwrap();
                let [found, without] = outputs.map(|t| plan.get(t).unwrap().f()[0]);
                let case = format!("{norm} with {state:?}, clipped at {most:?}, on {who}");
                assert!((found - factor).abs() <= 1e-5 * factor.abs(), "{case}: {found}");
                assert!(without == norm / state[0] || norm.is_nan() && without.is_nan(), "{case}: norm {without}");
                assert_eq!(engine.get("state").unwrap().unwrap().f(), &next, "{case}");
            }
        }
    }
}

#[test]
fn a_negative_factor_changes_nothing() {
    for n in [5, 64] {
        for optimizer in 0..5 {
            let mut c = Case::new();
            let (x, m) = (variable(&mut c, "x", n, false), variable(&mut c, "m", n, false));
            let v = variable(&mut c, "v", n, true);
            let grad = c.feed([n], vec![f32::INFINITY; n]);
            let (hyper, factor) = (hyper(&mut c), Some(c.feed([], vec![-1.0])));
            let lamb = |adapt| ops::Lamb { beta1: 0.9, beta2: 0.99, eps: 1e-6, weight_decay: 0.1, adapt, rate_scale: 1.0 };
            let sgd = Sgd { momentum: 0.9, weight_decay: 0.1, rate_scale: 1.0 };
            match optimizer {
                0 => ops::adamw(&mut c.g, x, grad, m, v, hyper, factor, RULE),
                1 | 2 => ops::lamb(&mut c.g, x, grad, m, v, hyper, factor, lamb(optimizer == 1)),
                3 => ops::sgd(&mut c.g, x, grad, Some(m), hyper, factor, sgd),
                _ => ops::sgd(&mut c.g, x, grad, None, hyper, factor, sgd),
            }
            .unwrap();
            // The reference, which it is compared with, is to have left them too.
            let (feeds, mut variables) = c.in_f64();
            let before = variables.clone();
            shaderlm::graph::evaluate(&c.g, &feeds, &mut variables, &[]);
            for (name, value) in &before {
                assert_eq!(value.f(), variables[name].f(), "optimizer {optimizer}, {name}");
            }
            c.check(&format!("optimizer {optimizer}, [{n}]"), &[], Bound::Exact);
        }
    }
}

#[test]
fn several_tensors_in_a_dispatch() {
    for (clipped, make) in [(false, engine as fn() -> _), (true, engine), (false, engine_as_hardware), (true, engine_as_hardware)]
    {
        let mut c = Case::new();
        let sizes: Vec<usize> = AWKWARD.into_iter().chain([64, 128, 4, 1000, 70_000, 12]).collect();
        let mut tensors = Vec::new();
        for (i, &n) in sizes.iter().enumerate() {
            let [parameter, m] = ["x", "m"].map(|name| variable(&mut c, &format!("{name}{i}"), n, false));
            let v = variable(&mut c, &format!("v{i}"), n, true);
            let grad = c.input([n]);
            // Each with a decay and a rate of its own.
            let (weight_decay, rate_scale) = (0.01 * i as f32, 1.0 / (1.0 + i as f32));
            tensors.push(ops::AdamWTensor { parameter, grad, m, v, weight_decay, rate_scale });
        }
        let hyper = hyper(&mut c);
        let factor = clipped.then(|| c.feed([], vec![0.31]));
        ops::adamw_all(&mut c.g, &tensors, hyper, factor, RULE).unwrap();
        let engine = make();
        let caps = engine.capabilities().unwrap();
        let dispatches = shaderlm::graph::kernels(&c.g, &[], caps, &PlanOptions::default()).unwrap().len();
        // Seven at once, those in vectors of four and the others apart, where the adapter has thirty bindings.
        assert_eq!(
            dispatches,
            if caps.max_bindings >= 30 && !caps.software { 4 } else { sizes.len() },
            "{} bindings",
            caps.max_bindings
        );
        c.check_on(engine, None, &format!("adamw of {} tensors, clipped {clipped}", sizes.len()), &[], Bound::Elementwise);
    }
}
