//! Softmax over the last dimension.

use crate::harness::{AWKWARD, Bound, Case};
use shaderlm::{graph::gradients, ops};

#[test]
fn forward_and_backward() {
    for width in AWKWARD.into_iter().chain([128, 129, 768, 1600, 4097]) {
        for rows in [1, 7] {
            let mut c = Case::new();
            let x = c.input([rows, width]);
            let x = ops::scale(&mut c.g, x, 3.0).unwrap();
            let y = ops::softmax(&mut c.g, x).unwrap();
            c.check(&format!("softmax [{rows},{width}]"), &[y], Bound::Elementwise);

            let mut c = Case::new();
            let x = c.input([rows, width]);
            let y = ops::softmax(&mut c.g, x).unwrap();
            c.check_backward(&format!("softmax [{rows},{width}]"), y, &[x], Bound::Elementwise);
        }
    }
    let mut c = Case::new();
    let x = c.input([2, 3, 50_257]);
    let y = ops::softmax(&mut c.g, x).unwrap();
    c.check_backward("softmax [2,3,50257]", y, &[x], Bound::Elementwise);
}

/// Probabilities of a wide row are below the elementwise tolerance; what they are relative to each other is not.
#[test]
fn wide_rows_are_accurate_relative_to_their_size() {
    let mut c = Case::new();
    let x = c.input([3, 50_257]);
    let y = ops::softmax(&mut c.g, x).unwrap();
    let y = ops::scale(&mut c.g, y, 50_257.0).unwrap();
    c.check("softmax [3,50257], scaled", &[y], Bound::Elementwise);
}

#[test]
fn large_logits_do_not_overflow() {
    let mut c = Case::new();
    let x = c.feed([3, 4], vec![1e4, 1e4 - 1.0, -1e4, 0.0, -3e38, -3e38, -3e38, -3e38, 3e38, 0.0, -3e38, 1.0]);
    let y = ops::softmax(&mut c.g, x).unwrap();
    c.check("softmax of large logits", &[y], Bound::Elementwise);
    let mut c = Case::new();
    let x = c.feed([2, 3], vec![f32::NEG_INFINITY, 1.0, 2.0, 0.5, f32::NEG_INFINITY, f32::NEG_INFINITY]);
    let y = ops::softmax(&mut c.g, x).unwrap();
    c.check("softmax with masked logits", &[y], Bound::Elementwise);
}

#[test]
fn many_rows_and_larger_than_a_binding() {
    for [rows, width] in [[65_537, 3], [700, 50_257]] {
        let mut c = Case::new();
        let x = c.feed([rows, width], (0..rows * width).map(|i| ((i * 31) % 101) as f32 / 10.0).collect());
        let w = c.input([width]);
        let y = ops::softmax(&mut c.g, x).unwrap();
        let product = ops::mul(&mut c.g, y, w).unwrap();
        let loss = ops::sum(&mut c.g, product).unwrap();
        let dx = gradients(&mut c.g, loss, &[x]).unwrap()[0].unwrap();
        c.check(&format!("softmax [{rows},{width}]"), &[y, dx], Bound::Elementwise);
    }
}
