//! Cross-entropy, by rows and its mean.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Graph, PlanOptions, gradients},
    ops::{self, HostTensor, IGNORE, Tensor, TensorType},
};

/// Logits and labels; every fifth row from the fourth on is ignored.
fn case(rows: usize, width: usize) -> (Case, Tensor, Tensor) {
    let mut c = Case::new();
    let logits = c.input([rows, width]);
    let labels = (0..rows).map(|i| if i % 5 == 3 { IGNORE } else { (i * 7919 % width) as u32 }).collect();
    let labels = c.ids([rows], labels);
    (c, logits, labels)
}

#[test]
fn forward_and_backward() {
    for width in AWKWARD.into_iter().chain([128, 129, 768, 1023, 1024, 1025, 1600]) {
        for rows in [1, 9] {
            let what = format!("cross_entropy [{rows},{width}]");
            let (mut c, logits, labels) = case(rows, width);
            let y = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
            c.check_backward(&what, y, &[logits], Bound::Elementwise);
            let (mut c, logits, labels) = case(rows, width);
            let y = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
            c.check(&what, &[y], Bound::Elementwise);

            let (mut c, logits, labels) = case(rows, width);
            let y = ops::cross_entropy_rows(&mut c.g, logits, labels, IGNORE).unwrap();
            c.check_backward(&format!("{what}, rows"), y, &[logits], Bound::Elementwise);
            let (mut c, logits, labels) = case(rows, width);
            let y = ops::cross_entropy_rows(&mut c.g, logits, labels, IGNORE).unwrap();
            c.check(&format!("{what}, rows"), &[y], Bound::Elementwise);
        }
    }
}

#[test]
fn among_the_first_classes() {
    for (width, classes) in [(64, 50), (1088, 1024), (1088, 1025), (2, 1), (7, 7), (2112, 1000)] {
        let what = format!("cross_entropy among {classes} of {width}");
        let make = || {
            let (mut c, logits, labels) = case(9, width);
            let y = ops::cross_entropy_among(&mut c.g, logits, labels, IGNORE, classes).unwrap();
            (c, y, logits)
        };
        let (c, y, _) = make();
        c.check(&what, &[y], Bound::Elementwise);
        let (c, y, logits) = make();
        c.check_backward(&what, y, &[logits], Bound::Elementwise);
    }
    let (mut c, logits, labels) = case(9, 7);
    for classes in [0, 8] {
        assert!(ops::cross_entropy_among(&mut c.g, logits, labels, IGNORE, classes).is_err());
    }
}

#[test]
fn gpt2s_vocabulary() {
    let (mut c, logits, labels) = case(7, 50_257);
    let rows = ops::cross_entropy_rows(&mut c.g, logits, labels, IGNORE).unwrap();
    let mean = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
    c.check("cross_entropy [7,50257]", &[rows, mean], Bound::Elementwise);
    let (mut c, logits, labels) = case(7, 50_257);
    let y = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
    c.check_backward("cross_entropy [7,50257]", y, &[logits], Bound::Elementwise);
    let (mut c, logits, labels) = case(7, 50_257);
    let y = ops::cross_entropy_rows(&mut c.g, logits, labels, IGNORE).unwrap();
    c.check_backward("cross_entropy_rows [7,50257]", y, &[logits], Bound::Elementwise);
}

#[test]
fn leading_dimensions_and_another_ignored_label() {
    let mut c = Case::new();
    let logits = c.input([2, 3, 11]);
    let labels = c.ids([2, 3], vec![0, 10, 4, 0, 5, 9]);
    let rows = ops::cross_entropy_rows(&mut c.g, logits, labels, 0).unwrap();
    let mean = ops::cross_entropy(&mut c.g, logits, labels, 0).unwrap();
    c.check("cross_entropy [2,3,11], 0 ignored", &[rows, mean], Bound::Elementwise);
}

#[test]
fn large_logits_do_not_overflow() {
    let mut c = Case::new();
    let logits = c.feed([3, 3], vec![1e4, 1e4 - 2.0, 0.0, -1e30, 1.0, 2.0, -3e4, -3e4, -3e4 - 8.0]);
    let labels = c.ids([3], vec![1, 2, 2]);
    let rows = ops::cross_entropy_rows(&mut c.g, logits, labels, IGNORE).unwrap();
    c.check("cross_entropy of large logits", &[rows], Bound::Elementwise);
}

#[test]
fn a_label_beyond_the_vocabulary_reads_within_bounds() {
    let mut c = Case::new();
    let logits = c.input([2, 5]);
    let labels = c.ids([2], vec![5, u32::MAX - 1]);
    let y = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
    c.check_backward("labels beyond the vocabulary", y, &[logits], Bound::Elementwise);
}

#[test]
fn with_nothing_counted_the_loss_is_nan_and_the_gradient_zero() {
    for rows in [3, 4097] {
        let mut g = Graph::new();
        let logits = g.input("logits", TensorType::f32([rows, 5]));
        let labels = g.input("labels", TensorType::u32([rows]));
        let loss = ops::cross_entropy(&mut g, logits, labels, IGNORE).unwrap();
        let dx = gradients(&mut g, loss, &[logits]).unwrap()[0].unwrap();
        let mut engine = engine();
        let mut plan = engine.compile(g, &[loss, dx], &PlanOptions::default()).unwrap();
        plan.set(logits, HostTensor::floats([rows, 5], vec![0.5; rows * 5])).unwrap();
        plan.set(labels, HostTensor::uints([rows], vec![IGNORE; rows])).unwrap();
        plan.run(&mut engine).unwrap();
        assert!(plan.get(loss).unwrap().f()[0].is_nan());
        assert!(plan.get(dx).unwrap().f().iter().all(|&d| d == 0.0));
    }
}

#[test]
fn many_rows_and_larger_than_a_binding() {
    for [rows, width] in [[4096, 2], [4097, 2], [65_537, 3], [700, 50_257]] {
        let mut c = Case::new();
        let logits = c.feed([rows, width], (0..rows * width).map(|i| ((i * 31) % 101) as f32 / 10.0).collect());
        let labels = (0..rows).map(|i| if i % 7 == 5 { IGNORE } else { (i * 7919 % width) as u32 }).collect();
        let labels = c.ids([rows], labels);
        let losses = ops::cross_entropy_rows(&mut c.g, logits, labels, IGNORE).unwrap();
        let loss = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
        // The gradient is about 1 / rows, so it is looked at scaled.
        let scaled = ops::scale(&mut c.g, loss, rows as f32).unwrap();
        let dx = gradients(&mut c.g, scaled, &[logits]).unwrap()[0].unwrap();
        c.check(&format!("cross_entropy [{rows},{width}]"), &[losses, loss, dx], Bound::Elementwise);
    }
}

#[test]
fn shapes_that_do_not_fit_are_named() {
    let mut g = Graph::new();
    let logits = g.input("logits", TensorType::f32([2, 3, 8]));
    let labels = g.input("labels", TensorType::u32([3, 2]));
    let error = ops::cross_entropy(&mut g, logits, labels, IGNORE).unwrap_err().to_string();
    assert!(error.contains("the labels are [3,2], which is not [2,3,8] without its last dimension"), "{error}");
}
