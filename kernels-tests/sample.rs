//! Sampling: every rule against the reference, the distribution of the draws, and the step that moves decoding on.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Graph, PlanOptions},
    ops::{self, HostTensor, Sample, TensorType},
};

const PLAIN: Sample = Sample { temperature: 1.0, top_k: 0, top_p: 1.0, repetition_penalty: 1.0 };

#[test]
fn every_rule() {
    let rules = [
        Sample { temperature: 0.0, ..PLAIN },
        PLAIN,
        Sample { temperature: 0.7, ..PLAIN },
        Sample { top_k: 1, ..PLAIN },
        Sample { top_k: 5, temperature: 1.3, ..PLAIN },
        Sample { top_p: 0.9, ..PLAIN },
        Sample { top_p: 0.01, ..PLAIN },
        Sample { top_p: 0.5, top_k: 40, temperature: 2.0, ..PLAIN },
        Sample { temperature: 0.0, repetition_penalty: 1.3, ..PLAIN },
        Sample { top_p: 0.8, top_k: 20, repetition_penalty: 1.2, ..PLAIN },
    ];
    for width in AWKWARD.into_iter().chain([50_257, 200_003]) {
        for rule in rules {
            let rows = if width > 2000 { 2 } else { 7 };
            let mut c = Case::new();
            let logits = c.normal(rows * width).into_iter().map(|x| 3.0 * x).collect();
            let logits = c.feed([rows, width], logits);
            let rng = c.ids([2], vec![42, width as u32]);
            let seen = (rule.repetition_penalty != 1.0).then(|| {
                let marks = (0..rows * width).map(|i| u32::from(i % 3 == 1)).collect();
                c.variable("seen", HostTensor::uints([rows, width], marks))
            });
            let chosen = ops::sample(&mut c.g, logits, seen, rng, rule).unwrap();
            c.check(&format!("{rule:?} of {width}"), &[chosen], Bound::Exact);
        }
    }
}

/// Runs one sampling of fixed logits for each row and returns what was chosen.
fn draws(logits: &[f32], rows: usize, rule: Sample, seed: u32) -> Vec<u32> {
    let width = logits.len();
    let mut g = Graph::new();
    let x = g.input("logits", TensorType::f32([rows, width]));
    let rng = g.input("rng", TensorType::u32([2]));
    let y = ops::sample(&mut g, x, None, rng, rule).unwrap();
    let mut engine = engine();
    let mut plan = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    plan.set(x, HostTensor::floats([rows, width], logits.repeat(rows))).unwrap();
    plan.set(rng, HostTensor::uints([2], vec![seed, 0])).unwrap();
    plan.run(&mut engine).unwrap();
    plan.get(y).unwrap().u().to_vec()
}

#[test]
fn draws_follow_softmax() {
    let (n, width) = (100_000, 12);
    let logits: Vec<f32> = (0..width).map(|i| (i as f32 * 1.7).sin() * 2.0).collect();
    let total: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
    let chosen = draws(&logits, n, PLAIN, 7);
    assert_eq!(chosen, draws(&logits, n, PLAIN, 7), "the same seed draws the same");
    assert_ne!(chosen, draws(&logits, n, PLAIN, 8), "another seed draws otherwise");
    let chi: f64 = (0..width)
        .map(|i| {
            let expected = f64::from(logits[i]).exp() / total * n as f64;
            let found = chosen.iter().filter(|&&c| c as usize == i).count() as f64;
            (found - expected).powi(2) / expected
        })
        .sum();
    // 11 degrees of freedom: beyond 31.3 with probability 0.001.
    assert!(chi < 31.3, "chi squared {chi}");
}

#[test]
fn nucleus_and_top_k_leave_out_what_they_should() {
    // Probabilities 0.5, 0.25, 0.125, ...: 0.6 needs the first two.
    let logits: Vec<f32> = (0..10).map(|i| -(i as f32) * std::f32::consts::LN_2).collect();
    let within = |rule: Sample, most: u32| {
        let chosen = draws(&logits, 4000, rule, 3);
        assert!(chosen.iter().all(|&c| c < most), "{rule:?}");
        assert!((0..most).all(|i| chosen.contains(&i)), "{rule:?} should reach {most} tokens");
    };
    within(Sample { top_p: 0.6, ..PLAIN }, 2);
    within(Sample { top_p: 0.8, ..PLAIN }, 3);
    within(Sample { top_k: 4, ..PLAIN }, 4);
    within(Sample { top_k: 3, top_p: 0.7, ..PLAIN }, 2);
}

#[test]
fn logits_that_are_no_numbers_choose_within_bounds() {
    for rule in [PLAIN, Sample { temperature: 0.0, ..PLAIN }, Sample { top_k: 3, top_p: 0.5, ..PLAIN }] {
        for bad in [f32::NAN, f32::NEG_INFINITY, f32::INFINITY] {
            assert!(draws(&[bad; 70], 3, rule, 1).iter().all(|&c| c < 70), "{rule:?} of {bad}");
        }
    }
}

#[test]
fn advancing() {
    for (batch, width, step) in [(1, 1, 0), (2, 5, 3), (3, 5, 17), (65, 7, 6), (200, 3, 1)] {
        let mut c = Case::new();
        let chosen = c.random_ids([batch], 50_000);
        let tokens = c.variable("tokens", HostTensor::uints([batch], vec![9; batch]));
        let positions = c.variable("positions", HostTensor::uints([batch], (0..batch as u32).collect()));
        let rng = c.variable("rng", HostTensor::uints([2], vec![5, step]));
        let history = c.variable("history", HostTensor::uints([batch, width], vec![0; batch * width]));
        ops::advance(&mut c.g, chosen, tokens, positions, rng, history).unwrap();
        c.check(&format!("batch {batch}, history {width}, step {step}"), &[], Bound::Exact);
    }
}

#[test]
fn settings_out_of_range_are_refused() {
    let mut c = Case::new();
    let logits = c.input([2, 5]);
    let rng = c.ids([2], vec![0, 0]);
    for (rule, word) in [
        (Sample { temperature: -1.0, ..PLAIN }, "temperature"),
        (Sample { top_p: 0.0, ..PLAIN }, "top-p"),
        (Sample { top_p: 1.5, ..PLAIN }, "top-p"),
        (Sample { repetition_penalty: 0.0, ..PLAIN }, "penalty"),
    ] {
        let error = ops::sample(&mut c.g, logits, None, rng, rule).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
}
