//! Fused attention, forward and backward, with every mask.

use crate::harness::{Bound, Case, engine_as_hardware};
use shaderlm::{
    graph::{PlanOptions, decisions, evaluate},
    ops::{self, Mask, Tensor},
};
use std::collections::{BTreeSet, HashMap};

/// [batch, rows, heads, head width]
const SHAPES: [[usize; 4]; 17] = [
    [1, 1, 1, 1],
    [2, 1, 3, 64],
    [2, 2, 1, 3],
    [3, 7, 3, 17],
    [2, 8, 1, 64],
    [1, 9, 3, 32],
    [2, 63, 1, 17],
    [1, 64, 3, 64],
    [1, 65, 1, 80],
    [2, 65, 3, 3],
    [1, 100, 1, 128],
    [1, 100, 3, 32],
    [2, 17, 1, 1],
    [1, 16, 2, 6],
    [1, 31, 1, 127],
    [2, 33, 2, 64],
    [2, 67, 2, 36],
];

/// Keys that are padding: none, on the right, on the left, or all of one batch and holes in the others.
fn padding(c: &mut Case, kind: usize, b: usize, t: usize) -> Option<Tensor> {
    let keep = |batch: usize, at: usize| match kind {
        1 => at <= (t - 1) / (batch + 1),
        2 => at >= t / (batch + 2),
        _ => batch != 0 && at % 3 != 1,
    };
    let data = (0..b * t).map(|i| u32::from(keep(i / t, i % t))).collect();
    (kind > 0).then(|| c.ids([b, t], data))
}

fn each(mut run: impl FnMut(&str, [usize; 4], bool, usize)) {
    for shape in SHAPES {
        for causal in [false, true] {
            for kind in 0..4 {
                // A kernel for wide heads takes a software adapter many seconds to compile: one variant of each.
                if shape[3] >= 80 && (!causal || kind != 2) {
                    continue;
                }
                let what = format!("attention {shape:?} (batch, rows, heads, width), causal {causal}, padding {kind}");
                run(&what, shape, causal, kind);
            }
        }
    }
}

#[test]
fn forward() {
    each(|what, [b, t, h, d], causal, kind| {
        let mut c = Case::new();
        let qkv = c.input([b, t, 3 * h * d]);
        let keys = padding(&mut c, kind, b, t);
        let y = ops::attention(&mut c.g, qkv, h, Mask { causal, keys, band: None }).unwrap();
        c.check(what, &[y], Bound::Elementwise);
    });
}

#[test]
fn backward() {
    each(|what, [b, t, h, d], causal, kind| {
        // With one key nothing reaches q and k: the probability is 1.
        let mut c = Case::new();
        let qkv = c.input([b, t, 3 * h * d]);
        let keys = padding(&mut c, kind, b, t);
        let y = ops::attention(&mut c.g, qkv, h, Mask { causal, keys, band: None }).unwrap();
        c.check_backward(what, y, &[qkv], Bound::Nmse);
    });
}

/// The attention of one test and its gradient by a weighted sum, and what is to be compared.
fn attention_and_gradient(
    c: &mut Case,
    [b, t, h, d]: [usize; 4],
    (causal, kind, band): (bool, usize, Option<usize>),
) -> [Tensor; 2] {
    let qkv = c.input([b, t, 3 * h * d]);
    let keys = padding(c, kind, b, t);
    let y = ops::attention(&mut c.g, qkv, h, Mask { causal, keys, band }).unwrap();
    [y, c.backward(y, &[qkv]).1[0]]
}

#[test]
fn bands() {
    for (shape, kind) in [([1, 1, 1, 4], 0), ([2, 9, 2, 3], 3), ([1, 33, 1, 8], 0), ([2, 70, 1, 16], 1), ([1, 130, 1, 5], 0)] {
        for band in [1, 2, 5, 16, 64, 1000] {
            let what = format!("attention {shape:?}, padding {kind}, a band of {band}");
            let mut c = Case::new();
            let [y, dqkv] = attention_and_gradient(&mut c, shape, (true, kind, Some(band)));
            c.check(&what, &[y, dqkv], Bound::Nmse);
            if shape[1] <= 33 {
                let mut c = Case::new();
                let qkv = c.input([shape[0], shape[1], 3 * shape[2] * shape[3]]);
                let keys = padding(&mut c, kind, shape[0], shape[1]);
                let y = ops::attention(&mut c.g, qkv, shape[2], Mask { causal: true, keys, band: Some(band) }).unwrap();
                c.check_backward(&what, y, &[qkv], Bound::Nmse);
            }
        }
    }
}

/// A band as long as the text masks nothing more.
#[test]
fn a_long_band_is_none() {
    let results = [None, Some(33), Some(1 << 40)].map(|band| {
        let mut c = Case::new();
        let [y, _] = attention_and_gradient(&mut c, [2, 33, 1, 8], (true, 0, band));
        evaluate(&c.g, &c.in_f64().0, &mut HashMap::new(), &[y])[&y].f().to_vec()
    });
    assert_eq!(results[0], results[1]);
    assert_eq!(results[0], results[2]);
}

/// Every kernel that could be chosen on real GPUs, on rows that fill blocks and that do not.
#[test]
fn every_kernel_that_can_be_chosen() {
    let mut seen = BTreeSet::new();
    // Heads of every kind of row in workgroup memory, each with some of the masks and lengths, since drivers take a while to compile
    // a kernel.
    let all = None;
    let cases: [(usize, &[(bool, usize, Option<usize>)], &[usize]); 7] = [
        (4, &[(false, 0, all), (true, 3, all)], &[1, 31, 33, 64, 65, 100, 257]),
        (8, &[(true, 0, Some(70)), (true, 1, Some(5))], &[1, 33, 130, 257]),
        (20, &[(true, 0, all), (false, 1, all)], &[1, 33, 64, 100]),
        (32, &[(true, 3, all)], &[31, 65, 257]),
        (64, &[(true, 0, all), (false, 2, all)], &[1, 31, 65, 100]),
        (80, &[(true, 1, all)], &[33, 100]),
        (128, &[(true, 2, all)], &[65]),
    ];
    for (d, masks, lengths) in cases {
        for &mask in masks {
            for &t in lengths {
                let shape = [2, t, if d < 32 { 3 } else { 1 }, d];
                let caps = engine_as_hardware().capabilities().unwrap().clone();
                let mut c = Case::new();
                let outputs = attention_and_gradient(&mut c, shape, mask);
                let found = decisions(&c.g, &outputs, &caps, &PlanOptions::default()).unwrap();
                let lists: Vec<_> = found.into_iter().map(|decision| decision.kernels).collect();
                for choice in 0..lists.iter().map(Vec::len).max().unwrap_or(1) {
                    let mut c = Case::new();
                    let outputs = attention_and_gradient(&mut c, shape, mask);
                    let names: Vec<_> = lists.iter().map(|list| list[choice.min(list.len() - 1)].as_str()).collect();
                    let what = format!("attention {shape:?}, (causal, padding, band) {mask:?}, {names:?}");
                    seen.extend(names.iter().map(|name| (*name).to_owned()));
                    c.check_on(engine_as_hardware(), Some(choice), &what, &outputs, Bound::Nmse);
                }
            }
        }
    }
    let caps = engine_as_hardware().capabilities().unwrap().clone();
    // A tile of scores takes all that WebGPU guarantees.
    let largest = if caps.workgroup_memory > 16 << 10 { &["tiled 64x64 by 8x4", "tiled 64x64 by 4x4"][..] } else { &[] };
    for part in ["rows", "tiled 64x32", "tiled 32x64", "tiled 32x32", "tiled 32x16", "tiled 16x16"].iter().chain(largest) {
        assert!(seen.iter().any(|name| name.contains(part)), "{part} is not among {seen:?}");
    }
    // Lanes that have a row of scores are part of a subgroup of one size.
    let subgroup = caps.subgroup.unwrap_or(0);
    for (part, least) in [("shuffled 32x16", 4), ("shuffled 32x32", 8), ("shuffled 64x32", 8), ("shuffled 128x32", 8)] {
        let fits = subgroup >= least;
        assert_eq!(seen.iter().any(|name| name.contains(part)), fits, "{part} with subgroups of {subgroup}: {seen:?}");
    }
}

#[test]
fn scores_far_apart() {
    let (t, d) = (40, 16);
    let mut c = Case::new();
    let data = c.normal(t * 3 * d).into_iter().map(|x| x * 12.0).collect();
    let qkv = c.feed([1, t, 3 * d], data);
    let y = ops::attention(&mut c.g, qkv, 1, Mask { causal: true, keys: None, band: None }).unwrap();
    c.check("attention with scores in the hundreds", &[y], Bound::Within(1e-3));
}

#[test]
fn larger_than_a_binding_and_many_workgroups() {
    // 66,001 batches of 4 rows: 152 MB of q, k and v, and more workgroups than one dimension of a dispatch holds.
    let (b, t, h, d) = (66_001, 4, 1, 48);
    let data: Vec<f32> = (0..b * t * 3 * h * d).map(|i| ((i * 7919) % 211) as f32 / 105.0 - 1.0).collect();
    let mut c = Case::new();
    let qkv = c.feed([b, t, 3 * h * d], data);
    let keys = c.random_ids([b, t], 3);
    let y = ops::attention(&mut c.g, qkv, h, Mask { causal: true, keys: Some(keys), band: None }).unwrap();
    let loss = ops::sum(&mut c.g, y).unwrap();
    let grads = shaderlm::graph::gradients(&mut c.g, loss, &[qkv]).unwrap();
    c.check("attention [66001,4,144]", &[y, grads[0].unwrap()], Bound::Nmse);
}

#[test]
fn shapes_that_do_not_fit() {
    let mut c = Case::new();
    let qkv = c.input([2, 3, 24]);
    let keys = c.ids([2, 4], vec![1; 8]);
    for (heads, keys, word) in [(0, None, "heads"), (5, None, "heads"), (2, Some(keys), "mask")] {
        let error = ops::attention(&mut c.g, qkv, heads, Mask { causal: false, keys, band: None }).unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    for mask in [Mask { causal: false, band: Some(3), keys: None }, Mask { causal: true, band: Some(0), keys: None }] {
        assert!(ops::attention(&mut c.g, qkv, 2, mask).unwrap_err().to_string().contains("band"));
    }
    let wide = c.input([1, 1, 3 * 129]);
    assert!(ops::attention(&mut c.g, wide, 1, Mask::default()).unwrap_err().to_string().contains("128"));
}
