//! Cross-entropy, by rows and its mean.

use crate::harness::{AWKWARD, Bound, Case, engine, engine_as_hardware};
use shaderlm::{
    graph::{Graph, PlanOptions, gradients, kernels},
    ops::{self, HostTensor, IGNORE, Logits, Sgd, Tensor, TensorType},
};

/// The kernels that `wanted` takes.
fn labels_of(g: &Graph, wanted: &[Tensor], options: &PlanOptions) -> Vec<String> {
    let engine = engine();
    kernels(g, wanted, engine.capabilities().unwrap(), options).unwrap().iter().map(|k| k.label()).collect()
}

/// How many dispatches of `wanted` are of the kernel that does both passes, of the forward kernel and of the backward one.
fn passes(g: &Graph, wanted: &[Tensor], options: &PlanOptions) -> [usize; 3] {
    let labels = labels_of(g, wanted, options);
    ["cross_entropy_gradient", "cross_entropy", "cross_entropy_backward"]
        .map(|name| labels.iter().filter(|label| label.split('{').next() == Some(name)).count())
}

/// The loss, and three times the gradient.
fn both(c: &mut Case, logits: Tensor, labels: Tensor, classes: usize) -> [Tensor; 2] {
    let loss = ops::cross_entropy(&mut c.g, Logits::among(logits, classes), labels, IGNORE).unwrap();
    let scaled = ops::scale(&mut c.g, loss, 3.0).unwrap();
    [loss, gradients(&mut c.g, scaled, &[logits]).unwrap()[0].unwrap()]
}

#[test]
fn both_passes_in_one_kernel_or_two() {
    for width in AWKWARD.into_iter().chain([8, 1088, 1601, 4096, 4100, 9001]) {
        for classes in [width, width.div_ceil(2), width - width / 7] {
            for (rows, no_fusion, hardware) in
                [(1, false, false), (9, false, false), (9, true, false), (9, false, true), (9, true, true)]
            {
                let (mut c, logits, labels) = case(rows, width);
                // Labels beyond the classes take the last of them.
                let wanted = both(&mut c, logits, labels, classes);
                let options = PlanOptions { no_fusion, ..PlanOptions::default() };
                assert_eq!(passes(&c.g, &wanted, &options), if no_fusion { [0, 1, 1] } else { [1, 0, 0] });
                let engine = if hardware { engine_as_hardware() } else { engine() };
                let what = format!("[{rows},{width}], {classes} classes, no fusion {no_fusion}, as hardware {hardware}");
                c.check_with(engine, options, &what, &wanted, Bound::Elementwise);
            }
        }
    }
}

#[test]
fn a_gradient_takes_the_place_of_logits_that_nothing_else_reads() {
    for width in AWKWARD.into_iter().chain([8, 1088, 4100, 9001]) {
        for (hardware, read_again) in [(false, false), (true, false), (false, true)] {
            let (mut c, logits, labels) = case(9, width);
            let logits = ops::scale(&mut c.g, logits, 1.5).unwrap();
            let mut wanted = both(&mut c, logits, labels, width - width / 7).to_vec();
            if read_again {
                wanted.push(ops::scale(&mut c.g, logits, 2.0).unwrap());
            }
            let found = labels_of(&c.g, &wanted, &PlanOptions::default());
            assert_eq!(found.iter().any(|label| label.contains("INPLACE")), !read_again, "{found:?}");
            let engine = if hardware { engine_as_hardware() } else { engine() };
            let what = format!("[9,{width}] in place, as hardware {hardware}, read again {read_again}");
            c.check_with(engine, PlanOptions::default(), &what, &wanted, Bound::Elementwise);
        }
    }
    // The host reads them, or a view of them.
    for view in [false, true] {
        let (mut c, logits, labels) = case(9, 64);
        let logits = ops::scale(&mut c.g, logits, 1.5).unwrap();
        let mut wanted = both(&mut c, logits, labels, 64).to_vec();
        wanted.push(if view { ops::slice(&mut c.g, logits, 0, 2..3).unwrap() } else { logits });
        assert!(!labels_of(&c.g, &wanted, &PlanOptions::default()).iter().any(|label| label.contains("INPLACE")));
        c.check("logits that are read", &wanted, Bound::Elementwise);
    }
    // Of a part of what was made nothing can be taken.
    let (mut c, logits, _) = case(9, 64);
    let logits = ops::scale(&mut c.g, logits, 1.5).unwrap();
    let part = ops::slice(&mut c.g, logits, 0, 1..4).unwrap();
    let labels = c.ids([3], vec![3, 0, IGNORE]);
    let wanted = both(&mut c, part, labels, 64);
    assert!(!labels_of(&c.g, &wanted, &PlanOptions::default()).iter().any(|label| label.contains("INPLACE")));
    c.check("a part of the logits", &wanted, Bound::Elementwise);
}

#[test]
fn losses_that_are_added_and_scaled_by_a_variable_are_paired() {
    let mut c = Case::new();
    let scale = c.variable("scale", HostTensor::floats([3], vec![8.0, 0.0, 0.0]));
    let (mut wanted, mut sum, mut from) = (Vec::new(), None, Vec::new());
    for (rows, width) in [(9, 64), (5, 2)] {
        let logits = c.input([rows, width]);
        let labels = c.random_ids([rows], width as u32);
        let loss = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
        sum = Some(match sum {
            Some(sum) => ops::add(&mut c.g, sum, loss).unwrap(),
            None => loss,
        });
        from.push(logits);
    }
    let sum = sum.unwrap();
    let one = ops::slice(&mut c.g, scale, 0, 0..1).unwrap();
    let one = ops::reshape(&mut c.g, one, []).unwrap();
    let scaled = ops::mul(&mut c.g, sum, one).unwrap();
    wanted.extend(gradients(&mut c.g, scaled, &from).unwrap().into_iter().flatten());
    wanted.push(sum);
    let norm = ops::global_norm(&mut c.g, &wanted[..2]).unwrap();
    ops::loss_scale(&mut c.g, norm, scale, None).unwrap();
    assert_eq!(passes(&c.g, &wanted, &PlanOptions::default()), [2, 0, 0]);
    c.check("two losses", &wanted, Bound::Elementwise);
}

#[test]
fn passes_stay_apart_where_something_is_between_them() {
    // The loss's gradient is a function of the loss.
    let (mut c, logits, labels) = case(9, 65);
    let loss = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
    let square = ops::mul(&mut c.g, loss, loss).unwrap();
    let dx = gradients(&mut c.g, square, &[logits]).unwrap()[0].unwrap();
    assert_eq!(passes(&c.g, &[dx], &PlanOptions::default()), [0, 1, 1]);
    c.check("a squared loss", &[loss, dx], Bound::Elementwise);

    // The host wants what the forward pass saves.
    let (mut c, logits, labels) = case(9, 65);
    let loss = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
    let mut wanted = c.g.nodes()[c.g.nodes().len() - 1].outputs.clone();
    wanted.extend(gradients(&mut c.g, loss, &[logits]).unwrap().into_iter().flatten());
    assert_eq!(passes(&c.g, &wanted, &PlanOptions::default()), [0, 1, 1]);
    c.check("with the log-sum-exps", &wanted, Bound::Elementwise);

    // What the loss is multiplied by has changed before the backward pass reads it, through a view or not.
    for view in [false, true] {
        let (mut c, logits, labels) = case(9, 65);
        let scale = c.variable("scale", HostTensor::floats([1], vec![8.0]));
        let hyper = c.feed([3], vec![0.5, 1.0, 1.0]);
        let grad = c.feed([1], vec![1.0]);
        let loss = ops::cross_entropy(&mut c.g, logits, labels, IGNORE).unwrap();
        let loss = ops::reshape(&mut c.g, loss, [1]).unwrap();
        let by = if view { ops::slice(&mut c.g, scale, 0, 0..1).unwrap() } else { scale };
        let scaled = ops::mul(&mut c.g, loss, by).unwrap();
        ops::sgd(&mut c.g, scale, grad, None, hyper, None, Sgd { momentum: 0.0, weight_decay: 0.0, rate_scale: 1.0 }).unwrap();
        let dx = gradients(&mut c.g, scaled, &[logits]).unwrap()[0].unwrap();
        assert_eq!(passes(&c.g, &[dx], &PlanOptions::default()), [0, 1, 1]);
        if !view {
            c.check("a scale that changes", &[scaled, dx], Bound::Elementwise);
        }
    }
}

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
            let y = ops::cross_entropy(&mut c.g, Logits::among(logits, classes), labels, IGNORE).unwrap();
            (c, y, logits)
        };
        let (c, y, _) = make();
        c.check(&what, &[y], Bound::Elementwise);
        let (c, y, logits) = make();
        c.check_backward(&what, y, &[logits], Bound::Elementwise);
    }
    let (mut c, logits, labels) = case(9, 7);
    for classes in [0, 8] {
        assert!(ops::cross_entropy(&mut c.g, Logits::among(logits, classes), labels, IGNORE).is_err());
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
