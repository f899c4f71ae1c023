//! The training step: layers' rates, bias correction, and the random state of micro-batches.

use crate::harness::engine;
use shaderlm::{
    graph::{Engine, Graph},
    ops::{self, HostTensor, Tensor, TensorType},
    train::{Loss, Objective, Optimizer, ParameterType, Schedule, ScheduleShape, Settings, Trainer},
};

const RATE: f32 = 0.125;

fn settings(optimizer: Optimizer) -> Settings {
    Settings {
        batch: 1,
        accumulate: 1,
        context: 1,
        optimizer,
        schedule: Schedule { shape: ScheduleShape::Constant, peak: RATE, min: 0.0, warmup: 0, steps: 10 },
        weight_decay: 0.1,
        beta1: 0.9,
        beta2: 0.99,
        eps: 1e-6,
        bias_correction: true,
        clip: 0.0,
        precision: shaderlm::ops::Precision::F32,
        seed: 5,
    }
}

/// Parameters `a` and `b`, all 2, after two steps whose gradient is 3 everywhere. `rate` is that of `b`; `a`'s is 1.
fn trained(mut engine: Engine, settings: Settings, rate: f32) -> [f64; 2] {
    let names = ["a", "b"];
    let parameter = |(name, rate): (&str, f32)| ParameterType { name: name.into(), shape: [2, 3].into(), decays: true, rate };
    for name in names {
        engine.set(name, &HostTensor::floats([2, 3], vec![2.0; 6])).unwrap();
    }
    let loss = |g: &mut Graph, inputs: &[Tensor], _: Option<Tensor>| {
        let [a, b] = names.map(|name| g.variable(name, TensorType::f32([2, 3])));
        let both = ops::add(g, a?, b?)?;
        let product = ops::mul(g, both, inputs[0])?;
        Ok(ops::sum(g, product)?.into())
    };
    let inputs = vec![("gradient", TensorType::f32([2, 3]))];
    let list: Vec<_> = names.into_iter().zip([1.0, rate]).map(parameter).collect();
    let mut trainer = Trainer::new(&mut engine, &list, &Objective { inputs, loss: &loss }, settings).unwrap();
    for step in 0..2 {
        trainer.step(&mut engine, step, &[vec![HostTensor::floats([2, 3], vec![3.0; 6])]]).unwrap();
    }
    names.map(|name| {
        let value = engine.get(name).unwrap().unwrap();
        assert!(value.f().iter().all(|x| x == &value.f()[0]), "{name}: {:?}", value.f());
        f64::from(value.f()[0])
    })
}

/// The rules written down for a single number in f64.
fn by_hand(s: &Settings, scale: f64) -> f64 {
    let (beta1, beta2, decay) = (f64::from(s.beta1), f64::from(s.beta2), f64::from(s.weight_decay));
    let rate = f64::from(RATE) * scale;
    let (mut x, mut m, mut v, g) = (2.0f64, 0.0, 0.0, 3.0);
    for step in 1..=2 {
        match s.optimizer {
            Optimizer::Sgd => {
                m = beta1 * m + g + decay * x;
                x -= rate * m;
            }
            rule => {
                m = beta1 * m + (1.0 - beta1) * g;
                v = beta2 * v + (1.0 - beta2) * g * g;
                let (mut c1, mut c2) = (1.0, 1.0);
                if rule == Optimizer::Adamw && s.bias_correction {
                    (c1, c2) = (1.0 - beta1.powi(step), 1.0 - beta2.powi(step));
                }
                let update = (m / c1) / ((v / c2).sqrt() + f64::from(s.eps)) + decay * x;
                // All elements are equal, so the ratio of the norms is that of two numbers.
                let ratio = if rule == Optimizer::Lamb { (x / update).abs() } else { 1.0 };
                x -= rate * ratio * update;
            }
        }
    }
    x
}

#[test]
fn rates_of_layers_and_bias_correction() {
    for optimizer in [Optimizer::Adamw, Optimizer::Lamb, Optimizer::Sgd] {
        for bias_correction in [true, false] {
            for scale in [1.0, 0.25, 0.0] {
                let settings = Settings { bias_correction, ..settings(optimizer) };
                let expected = [by_hand(&settings, 1.0), by_hand(&settings, scale)];
                for (device, engine) in [("the adapter", engine()), ("the CPU", Engine::cpu())] {
                    let found = trained(engine, settings.clone(), scale as f32);
                    let near = found.iter().zip(&expected).all(|(f, e)| (f - e).abs() < 2e-6 * (1.0 + e.abs()));
                    assert!(near, "{settings:?}, rates 1 and {scale} on {device}: {found:?} instead of {expected:?}");
                    assert!(scale != 0.0 || found[1] == 2.0, "a rate of 0 moves nothing: {found:?}");
                }
            }
        }
    }
    // The correction is no trifle in the first steps.
    let corrected = settings(Optimizer::Adamw);
    let plain = Settings { bias_correction: false, ..corrected.clone() };
    assert!((by_hand(&corrected, 1.0) - by_hand(&plain, 1.0)).abs() > 0.01);
}

/// What dropout makes of ones, in each micro-batch of each of three steps.
fn masks(mut engine: Engine, accumulate: usize) -> Vec<Vec<f32>> {
    engine.set("x", &HostTensor::floats([64], vec![1.0; 64])).unwrap();
    let loss = |g: &mut Graph, _: &[Tensor], rng: Option<Tensor>| {
        let x = g.variable("x", TensorType::f32([64]))?;
        let dropped = match rng {
            Some(rng) => ops::dropout(g, x, 0.5, 0, rng)?,
            None => x,
        };
        Ok(Loss { loss: ops::mean(g, dropped)?, others: vec![dropped] })
    };
    let list = [ParameterType { name: "x".into(), shape: [64].into(), decays: false, rate: 0.0 }];
    let settings = Settings { accumulate, ..settings(Optimizer::Sgd) };
    let mut trainer = Trainer::new(&mut engine, &list, &Objective { inputs: Vec::new(), loss: &loss }, settings).unwrap();
    (0..3)
        .flat_map(|step| {
            let outcome = trainer.step(&mut engine, step, &vec![Vec::new(); accumulate]).unwrap();
            outcome.others.into_iter().map(|others| others[0].f().to_vec())
        })
        .collect()
}

#[test]
fn each_micro_batch_has_a_dropout_of_its_own() {
    let found = masks(engine(), 3);
    assert_eq!(found.len(), 9);
    for (i, a) in found.iter().enumerate() {
        for (j, b) in found[..i].iter().enumerate() {
            let differing = a.iter().zip(b).filter(|(a, b)| a != b).count();
            assert!(differing > 12, "micro-batches {j} and {i} of 3 steps differ in {differing} of 64 places");
        }
    }
    assert_eq!(found, masks(Engine::cpu(), 3), "the same on the CPU");
    // The first of a step is what a step of one micro-batch has.
    let whole = masks(engine(), 1);
    assert_eq!(whole, [0, 3, 6].map(|i| found[i].clone()));
}
