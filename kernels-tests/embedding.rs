//! Embedding: rows by their index, and the gathered gradient.

use crate::harness::{AWKWARD, Bound, Case, engine, engine_as_hardware};
use shaderlm::{
    graph::{PlanOptions, gradients, kernels},
    ops,
};

#[test]
fn forward_and_backward() {
    for (rows, width, n) in AWKWARD
        .into_iter()
        .zip(AWKWARD.into_iter().rev())
        .zip([1, 64, 3, 257, 2, 65, 31, 127, 128, 5, 63, 300])
        .map(|((r, w), n)| (r, w, n))
    {
        let what = format!("embedding [{rows},{width}], {n} ids");
        let mut c = Case::new();
        let table = c.input([rows, width]);
        let ids = c.random_ids([n], rows as u32);
        let y = ops::embedding(&mut c.g, table, ids).unwrap();
        c.check(&what, &[y], Bound::Exact);

        let mut c = Case::new();
        let table = c.input([rows, width]);
        let ids = c.random_ids([n], rows as u32);
        let y = ops::embedding(&mut c.g, table, ids).unwrap();
        c.check_backward(&what, y, &[table], Bound::Elementwise);
    }
}

/// GPUs look for the next and the last place of an id sixteen places at a time.
#[test]
fn places_are_chained_on_gpus() {
    for (rows, n) in [(1, 1), (2, 15), (3, 16), (70, 17), (1, 33), (31, 64), (300, 65), (5, 300), (1000, 700)] {
        let mut c = Case::new();
        let table = c.input([rows, 5]);
        let ids = c.random_ids([n], rows as u32);
        let y = ops::embedding(&mut c.g, table, ids).unwrap();
        let (_, grads) = c.backward(y, &[table]);
        c.check_on(engine_as_hardware(), None, &format!("embedding [{rows},5], {n} ids"), &grads, Bound::Elementwise);
    }
}

#[test]
fn ids_of_two_dimensions_and_beyond_the_table() {
    let mut c = Case::new();
    let table = c.input([7, 12]);
    let ids = c.ids([2, 3], vec![0, 6, 7, 6, u32::MAX, 0]);
    let y = ops::embedding(&mut c.g, table, ids).unwrap();
    c.check_backward("ids beyond the table count as the last row", y, &[table], Bound::Elementwise);
}

#[test]
fn table_and_gradient_larger_than_a_binding() {
    // GPT-2's table: 154 MB. A gradient of many places, 151 MB, into a small table. Several passes.
    for (rows, width, n) in [(50_257, 768, 70), (11, 1024, 36_900), (3001, 5, 33_000)] {
        let mut c = Case::new();
        let table = c.input([rows, width]);
        let ids = c.random_ids([n], rows as u32);
        let y = ops::embedding(&mut c.g, table, ids).unwrap();
        let square = ops::mul(&mut c.g, y, y).unwrap();
        let loss = ops::sum(&mut c.g, square).unwrap();
        let grads = gradients(&mut c.g, loss, &[table]).unwrap();
        c.check(&format!("embedding [{rows},{width}], {n} ids"), &[y, grads[0].unwrap()], Bound::Nmse);
    }
}

/// Rows of two tables, as a GPT-2's tokens and positions, and rows with others, in one dispatch for each pair of windows.
#[test]
fn what_is_added_to_rows() {
    let sizes = [(1, 1, 1), (7, 3, 5), (65, 64, 66), (31, 127, 3), (257, 256, 257), (9, 5, 13), (50_257, 1024, 768)];
    for (rows, places, width) in sizes {
        for n in [1, 2, 63, 130] {
            let what = format!("[{rows},{width}] and [{places},{width}], {n} ids");
            let mut c = Case::new();
            let (tokens, positions, other) = (c.input([rows, width]), c.input([places, width]), c.input([n, width]));
            // Some are beyond the tables.
            let (ids, at) = (c.random_ids([n], rows as u32 + 1), c.random_ids([n], places as u32 + 1));
            let picked = ops::embedding(&mut c.g, tokens, ids).unwrap();
            let standing = ops::embedding(&mut c.g, positions, at).unwrap();
            let both = ops::add(&mut c.g, picked, standing).unwrap();
            let picked = ops::embedding(&mut c.g, tokens, ids).unwrap();
            let more = ops::add(&mut c.g, other, picked).unwrap();
            let outputs = [both, more];
            let engine = engine();
            let caps = engine.capabilities().unwrap();
            let taken = kernels(&c.g, &outputs, caps, &PlanOptions::default()).unwrap();
            // GPT-2's table, 154 MB, may take two.
            let windows = if 4 * (rows * width) as u64 > caps.max_binding { 2 } else { 1 };
            assert!(taken.iter().all(|kernel| kernel.name == "embedding") && taken.len() == 2 * windows, "{what}: {taken:?}");
            c.check(&what, &outputs, Bound::Elementwise);
        }
    }
}

/// Rows that others need too are not taken on, and gradients go through what is.
#[test]
fn sums_of_rows_that_are_needed_and_their_gradients() {
    let sum = || {
        let mut c = Case::new();
        let (tokens, positions) = (c.input([11, 6]), c.input([7, 6]));
        let (ids, at) = (c.random_ids([2, 5], 11), c.random_ids([2, 5], 7));
        let picked = ops::embedding(&mut c.g, tokens, ids).unwrap();
        let standing = ops::embedding(&mut c.g, positions, at).unwrap();
        let both = ops::add(&mut c.g, picked, standing).unwrap();
        (c, [tokens, positions], [both, picked, standing])
    };
    let (c, _, outputs) = sum();
    c.check("both rows and their sum", &outputs, Bound::Elementwise);
    let (c, tables, [both, ..]) = sum();
    c.check_backward("the sum of two look-ups", both, &tables, Bound::Elementwise);
}

#[test]
fn a_table_that_is_no_matrix_is_refused() {
    let mut c = Case::new();
    let table = c.input([7]);
    let ids = c.ids([1], vec![0]);
    let error = ops::embedding(&mut c.g, table, ids).unwrap_err().to_string();
    assert!(error.contains("[rows, width]"), "{error}");
}
