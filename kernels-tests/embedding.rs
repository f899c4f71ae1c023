//! Embedding: rows by their index, and the gathered gradient.

use crate::harness::{AWKWARD, Bound, Case};
use shaderlm::{graph::gradients, ops};

#[test]
fn forward_and_backward() {
    for (rows, width, n) in AWKWARD.into_iter().zip(AWKWARD.into_iter().rev()).zip([1, 64, 3, 257, 2, 65, 31, 127, 128, 5, 63, 300]).map(|((r, w), n)| (r, w, n)) {
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

#[test]
fn a_table_that_is_no_matrix_is_refused() {
    let mut c = Case::new();
    let table = c.input([7]);
    let ids = c.ids([1], vec![0]);
    let error = ops::embedding(&mut c.g, table, ids).unwrap_err().to_string();
    assert!(error.contains("[rows, width]"), "{error}");
}
