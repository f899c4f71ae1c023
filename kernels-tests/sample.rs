//! Sampling: every rule against the reference, the distribution of the draws, and the step that moves decoding on.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions},
    ops::{self, HostTensor, Logits, Sample, StopTokens, TensorType, random::threefry},
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

#[test]
fn tokens_among_the_first_logits() {
    for (width, tokens) in [(64, 50), (64, 1), (7, 7), (1088, 1025), (50_304, 50_257)] {
        for rule in
            [Sample { temperature: 0.0, ..PLAIN }, PLAIN, Sample { top_k: 5, ..PLAIN }, Sample { top_p: 0.9, top_k: 60, ..PLAIN }]
        {
            let mut c = Case::new();
            // What stands behind the tokens is larger than they are.
            let logits = c.normal(5 * width).into_iter().enumerate().map(|(i, x)| if i % width < tokens { x - 50.0 } else { x });
            let logits = logits.collect();
            let logits = c.feed([5, width], logits);
            let rng = c.ids([2], vec![42, width as u32]);
            let chosen = ops::sample(&mut c.g, Logits::among(logits, tokens), None, rng, rule).unwrap();
            c.check(&format!("{rule:?} among {tokens} of {width}"), &[chosen], Bound::Exact);
        }
    }
    let mut c = Case::new();
    let logits = c.input([5, 7]);
    for tokens in [0, 8] {
        assert!(ops::likeliest(&mut c.g, Logits::among(logits, tokens)).is_err());
    }
}

/// Runs one sampling of fixed logits for each row on `engine` and returns what was chosen. `rng` is seed and step.
fn draws_on(engine: &mut Engine, logits: &[f32], rows: usize, rule: Sample, rng: [u32; 2]) -> Vec<u32> {
    let width = logits.len();
    let mut g = Graph::new();
    let x = g.input("logits", TensorType::f32([rows, width]));
    let state = g.input("rng", TensorType::u32([2]));
    let y = ops::sample(&mut g, x, None, state, rule).unwrap();
    let mut plan = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    plan.set(x, HostTensor::floats([rows, width], logits.repeat(rows))).unwrap();
    plan.set(state, HostTensor::uints([2], rng.to_vec())).unwrap();
    plan.run(engine).unwrap();
    plan.get(y).unwrap().u().to_vec()
}

fn draws(logits: &[f32], rows: usize, rule: Sample, seed: u32) -> Vec<u32> {
    draws_on(&mut engine(), logits, rows, rule, [seed, 0])
}

/// The likeliest and the second of logits over a temperature plus noise, in f64: what a draw was decided by.
fn margin(logits: &[f32], temperature: f32, rng: [u32; 2], row: usize) -> f64 {
    let mut noisy: Vec<f64> = (0..logits.len())
        .map(|i| {
            let bits = threefry(rng, [i as u32, row as u32])[0] >> 9;
            let uniform = (f64::from(bits) + 0.5) / 8_388_608.0;
            f64::from(logits[i]) / f64::from(temperature) - (-uniform.ln()).ln()
        })
        .collect();
    noisy.sort_by(|a, b| b.total_cmp(a));
    noisy[0] - noisy[1]
}

/// 100,000 draws from 50 tokens, over several seeds and steps: Pearson's chi-squared against softmax, and the very same
/// draws on the adapter and on the CPU.
#[test]
fn draws_follow_softmax_and_are_the_cpus() {
    let (rows, width) = (10_000, 50);
    let keys: Vec<[u32; 2]> = (0..10).map(|i| [7 + 1000 * (i / 4), i % 4]).collect();
    let logits: Vec<f32> = (0..width).map(|i| (i as f32 * 1.7).sin() * 1.5 + if i == 11 { 2.5 } else { 0.0 }).collect();
    for temperature in [1.0, 0.7] {
        let rule = Sample { temperature, ..PLAIN };
        let (mut adapter, mut cpu) = (engine(), Engine::cpu());
        let mut found = vec![0.0; width];
        let mut first = Vec::new();
        for &key in &keys {
            let chosen = draws_on(&mut adapter, &logits, rows, rule, key);
            let same = draws_on(&mut cpu, &logits, rows, rule, key);
            for row in (0..rows).filter(|&row| chosen[row] != same[row]) {
                // The noise's logarithms are rounded otherwise; nothing else may decide between them.
                let by = margin(&logits, temperature, key, row);
                assert!(
                    by < 1e-4,
                    "temperature {temperature}, {key:?}, row {row}: {} and {}, apart by {by}",
                    chosen[row],
                    same[row]
                );
            }
            let differing = (0..rows).filter(|&row| chosen[row] != same[row]).count();
            assert!(differing <= 2, "{differing} of {rows} draws are near enough to differ");
            chosen.iter().for_each(|&c| found[c as usize] += 1.0);
            assert_ne!(chosen, first, "other seeds and steps draw otherwise");
            first = chosen;
        }
        assert_eq!(first, draws_on(&mut adapter, &logits, rows, rule, keys[9]), "the same seed draws the same");
        let n = (rows * keys.len()) as f64;
        let weights: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / f64::from(temperature)).exp()).collect();
        let total: f64 = weights.iter().sum();
        let expected: Vec<f64> = weights.iter().map(|w| n * w / total).collect();
        assert!(expected.iter().all(|&e| e > 50.0), "every token is expected often enough for the test: {expected:?}");
        let chi: f64 = found.iter().zip(&expected).map(|(f, e): (&f64, _)| (f - e).powi(2) / e).sum();
        // 49 degrees of freedom: beyond 94.6 with probability 1e-4 (the root of mpmath's regularised upper incomplete gamma
        // function, gammainc(49 / 2, x / 2, inf) = 1e-4).
        assert!(chi < 94.6, "temperature {temperature}: chi squared {chi}");
        // And the test can tell: the other temperature's probabilities are far off.
        let other: Vec<f64> = logits.iter().map(|&x| (f64::from(x) / f64::from(1.7 - temperature)).exp()).collect();
        let scale = n / other.iter().sum::<f64>();
        let wrong: f64 = found.iter().zip(&other).map(|(f, o)| (f - o * scale).powi(2) / (o * scale)).sum();
        assert!(wrong > 1000.0, "temperature {temperature}: chi squared {wrong} against another temperature");
    }
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

/// Steps of rows differ, and so do their draws; tokens, positions, steps and the ring move on. A row whose newest token ends its text
/// stays where it is, whatever its logits, and no other does.
#[test]
fn advancing() {
    for (batch, width, ring) in [(1, 5, 1), (2, 6, 3), (3, 70, 5), (65, 7, 6), (200, 5, 1), (2, 700, 64)] {
        for rule in
            [PLAIN, Sample { temperature: 0.0, ..PLAIN }, Sample { top_k: 2, top_p: 0.9, repetition_penalty: 1.4, ..PLAIN }]
        {
            for stops in [&[][..], &[4], &[0, 3], &[1, 2, 3, 4]] {
                let mut c = Case::new();
                let logits = c.input([batch, width]);
                let rng = c.variable("rng", HostTensor::uints([2], vec![5, 0]));
                let tokens = c.variable("tokens", HostTensor::uints([batch], (0..batch as u32).map(|i| i % 5).collect()));
                let positions = c.variable("positions", HostTensor::uints([batch], (0..batch as u32).collect()));
                let steps = c.variable("steps", HostTensor::uints([batch], (0..batch as u32).map(|i| 7 * i).collect()));
                let history = c.variable("history", HostTensor::uints([batch, ring], vec![0; batch * ring]));
                let seen = (rule.repetition_penalty != 1.0)
                    .then(|| c.variable("seen", HostTensor::uints([batch, width], vec![0; batch * width])));
                let stops = StopTokens::of(stops);
                let decoding = ops::Decoding { rng, steps, text_rows: 1, seen, state: Some([tokens, positions, history]), stops };
                let chosen = ops::choose(&mut c.g, logits, &decoding, rule).unwrap();
                c.check(&format!("batch {batch}, {width} tokens, history {ring}, {rule:?}, {stops:?}"), &[chosen], Bound::Exact);
            }
        }
    }
}

/// A row of a text is drawn as it would be alone with its step.
#[test]
fn rows_of_one_text_differ_in_their_steps() {
    for width in [50, 700] {
        let mut c = Case::new();
        let logits = c.input([6, width]);
        let rng = c.ids([2], vec![5, 77]);
        let steps = c.ids([6], vec![3, 4, 5, 0, 1, 2]);
        let decoding = ops::Decoding { rng, steps, text_rows: 3, seen: None, state: None, stops: StopTokens::none() };
        let chosen = ops::choose(&mut c.g, logits, &decoding, PLAIN).unwrap();
        c.check("two texts of three rows", &[chosen], Bound::Exact);
    }
}

/// The reference itself: which rows stay, and how.
#[test]
fn a_text_that_has_ended_stays() {
    let run = |mut engine: Engine| {
        let mut g = Graph::new();
        let logits = g.input("logits", TensorType::f32([3, 5]));
        let rng = g.input("rng", TensorType::u32([2]));
        let [tokens, positions, steps] =
            ["tokens", "positions", "steps"].map(|name| g.variable(name, TensorType::u32([3])).unwrap());
        let history = g.variable("history", TensorType::u32([3, 2])).unwrap();
        let stops = StopTokens::of(&[1]);
        let decoding = ops::Decoding { rng, steps, text_rows: 1, seen: None, state: Some([tokens, positions, history]), stops };
        ops::choose(&mut g, logits, &decoding, Sample::plain(0.0)).unwrap();
        engine.set("tokens", &HostTensor::uints([3], vec![0, 1, 2])).unwrap();
        let mut plan = engine.compile(g, &[], &PlanOptions::default()).unwrap();
        // The likeliest are 3, 3, and 1, which ends the third text.
        let rows = [[0.0, 0.0, 0.0, 9.0, 0.0], [0.0, 0.0, 0.0, 9.0, 0.0], [0.0, 9.0, 0.0, 0.0, 0.0]];
        plan.set(logits, HostTensor::floats([3, 5], rows.concat())).unwrap();
        plan.run_times(&mut engine, 3).unwrap();
        ["tokens", "positions", "steps", "history"].map(|name| engine.get(name).unwrap().unwrap().u().to_vec())
    };
    for engine in [engine(), Engine::cpu()] {
        assert_eq!(run(engine), [vec![3, 1, 1], vec![3, 0, 1], vec![3, 3, 3], vec![3, 3, 1, 1, 1, 1]]);
    }
    assert!(StopTokens::of(&[7, 8]).contains(8) && !StopTokens::of(&[7]).contains(u32::MAX) && !StopTokens::none().contains(0));
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
