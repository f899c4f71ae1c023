//! Dropout: the same mask everywhere, with the right rate.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Graph, PlanOptions},
    ops::{self, HostTensor, Recorder, TensorType},
};

#[test]
fn forward_and_backward() {
    for n in AWKWARD.into_iter().chain([5_000_000]) {
        for (rate, stream) in [(0.1, 0), (0.5, 7)] {
            let mut c = Case::new();
            let x = c.input([n]);
            let rng = c.ids([2], vec![1337, n as u32]);
            let y = ops::dropout(&mut c.g, x, rate, stream, rng).unwrap();
            if n > 100_000 {
                c.check(&format!("dropout [{n}]"), &[y], Bound::Elementwise);
            } else {
                c.check_backward(&format!("dropout [{n}]"), y, &[x], Bound::Elementwise);
            }
        }
    }
}

/// The mask for a seed, a step and a stream.
fn mask(seed: u32, step: u32, stream: u32) -> Vec<bool> {
    let n = 40_001;
    let mut g = Graph::new();
    let x = g.fill(TensorType::f32([n]), 1.0);
    let rng = g.input("rng", TensorType::u32([2]));
    let y = ops::dropout(&mut g, x, 0.25, stream, rng).unwrap();
    let mut engine = engine();
    let mut plan = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    plan.set(rng, HostTensor::uints([2], vec![seed, step])).unwrap();
    plan.run(&mut engine).unwrap();
    plan.get(y).unwrap().f().iter().map(|&y| y == 0.0).collect()
}

#[test]
fn masks_differ_by_seed_step_and_stream_and_have_the_rate() {
    let first = mask(1, 2, 3);
    assert_eq!(first, mask(1, 2, 3), "the same state gives the same mask");
    for other in [mask(2, 2, 3), mask(1, 3, 3), mask(1, 2, 4)] {
        let both = first.iter().zip(&other).filter(|(a, b)| **a && **b).count() as f64 / first.len() as f64;
        // Independent masks meet at 1/16; four standard deviations of the estimate are 0.005.
        assert!((both - 0.0625).abs() < 0.005, "{both}");
    }
    let rate = first.iter().filter(|&&dropped| dropped).count() as f64 / first.len() as f64;
    assert!((rate - 0.25).abs() < 0.009, "{rate}");
}

#[test]
fn rates_out_of_range_are_refused() {
    let mut c = Case::new();
    let x = c.input([3]);
    let rng = c.ids([2], vec![0, 0]);
    for rate in [-0.1, 1.0, f32::NAN] {
        assert!(ops::dropout(&mut c.g, x, rate, 0, rng).unwrap_err().to_string().contains("[0, 1)"));
    }
}
