//! reshape, slice, transpose, concatenate.

use crate::harness::{AWKWARD, Bound, Case, engine};
use shaderlm::{
    graph::{Graph, PlanOptions},
    ops::{self, HostTensor, Layout, Recorder, TensorType},
};

#[test]
fn slices() {
    for n in AWKWARD {
        // Along the first dimension it is a view, whose start need not be aligned.
        let mut c = Case::new();
        let x = c.input([5, n]);
        let part = ops::slice(&mut c.g, x, 0, 1..4).unwrap();
        let y = ops::scale(&mut c.g, part, 2.0).unwrap();
        c.check_backward(&format!("slice rows of [5,{n}]"), y, &[x], Bound::Elementwise);
        let mut c = Case::new();
        let x = c.input([3, n + 2, 2]);
        let y = ops::slice(&mut c.g, x, 1, 1..n + 1).unwrap();
        c.check_backward(&format!("slice the middle of [3,{},2]", n + 2), y, &[x], Bound::Exact);
    }
}

#[test]
fn transposes() {
    for n in AWKWARD {
        for (shape, a, b) in [([3, n, 2, 1], 0, 1), ([2, 3, n, 1], 1, 2), ([1, 5, 2, n], 1, 3), ([n, 1, 1, 3], 0, 3)] {
            let mut c = Case::new();
            let x = c.input(shape);
            let y = ops::transpose(&mut c.g, x, a, b).unwrap();
            c.check_backward(&format!("transpose {a},{b} of {shape:?}"), y, &[x], Bound::Exact);
        }
    }
}

#[test]
fn concatenations_and_reshapes() {
    for n in AWKWARD {
        let mut c = Case::new();
        let (a, b) = (c.input([2, n, 3]), c.input([2, 2, 3]));
        let both = ops::concat(&mut c.g, &[a, b, a], 1).unwrap();
        let y = ops::reshape(&mut c.g, both, [(4 * n + 4) * 3]).unwrap();
        c.check_backward(&format!("concat of width {n}"), y, &[a, b], Bound::Elementwise);
    }
}

#[test]
fn larger_than_a_binding() {
    let (rows, width) = (3, 11_300_001);
    let mut c = Case::new();
    let x = c.feed([rows, width], (0..rows * width).map(|i| (i % 65_521) as f32).collect());
    let y = ops::transpose(&mut c.g, x, 0, 1).unwrap();
    let z = ops::slice(&mut c.g, y, 1, 1..3).unwrap();
    c.check("transpose and slice of [3,11300001]", &[z], Bound::Exact);
}

#[test]
fn rows_behind_a_variables_own_are_zeros() {
    for (rows, width, m) in [(1, 1, 1), (50, 7, 3), (65, 12, 9), (101, 64, 70), (128, 8, 5)] {
        let mut c = Case::new();
        let values = c.normal(rows * width);
        let table = c.variable("table", HostTensor::floats([rows, width], values));
        let x = c.input([m, width]);
        let whole = ops::whole_rows(&mut c.g, table).unwrap();
        assert_eq!(c.g.ty(whole).shape.rows(), rows.next_multiple_of(64));
        let transposed = Layout { transpose_b: true, ..Layout::default() };
        let y = ops::matmul_with(&mut c.g, x, whole, None, transposed).unwrap();
        let y = ops::scale(&mut c.g, y, 0.5).unwrap();
        c.check_backward(&format!("product with the whole rows of [{rows},{width}]"), y, &[x, table], Bound::Nmse);
        let mut c = Case::new();
        let values = c.normal(rows * width);
        let table = c.variable("table", HostTensor::floats([rows, width], values));
        let values = c.normal(rows);
        let bias = c.variable("bias", HostTensor::floats([rows], values));
        let x = c.input([m, width]);
        let [whole, elements] = [table, bias].map(|t| ops::whole_rows(&mut c.g, t).unwrap());
        let y = ops::matmul_with(&mut c.g, x, whole, Some(elements), transposed).unwrap();
        let y = ops::scale(&mut c.g, y, 0.5).unwrap();
        c.check_backward(&format!("and with a whole bias of [{rows}]"), y, &[x, table, bias], Bound::Nmse);
    }
}

#[test]
fn only_a_variable_has_rows_behind_its_own() {
    let mut g = Graph::new();
    let x = g.input("x", TensorType::f32([50, 4]));
    let whole = ops::whole_rows(&mut g, x).unwrap();
    let y = ops::scale(&mut g, whole, 2.0).unwrap();
    let error = engine().compile(g, &[y], &PlanOptions::default()).err().unwrap().to_string();
    assert!(error.contains("only a variable"), "{error}");
    let mut g = Graph::new();
    let x = g.input("x", TensorType::f32([2, 25, 3]));
    assert!(ops::whole_rows(&mut g, x).is_ok(), "what is neither a matrix nor a vector has nothing to spare, and needs nothing");
}
