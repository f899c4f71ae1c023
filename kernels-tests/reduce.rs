//! Sums and means.

use crate::harness::{AWKWARD, Bound, Case};
use shaderlm::ops;

#[test]
fn sums_over_the_last_dimension() {
    for n in AWKWARD.into_iter().chain([4096, 4097, 9001]) {
        for rows in [1, 7] {
            let mut c = Case::new();
            let x = c.input([rows, n]);
            let y = ops::sum_last(&mut c.g, x).unwrap();
            c.check_backward(&format!("sum_last [{rows},{n}]"), y, &[x], Bound::Elementwise);
            let mut c = Case::new();
            let x = c.input([rows, n]);
            let y = ops::mean_last(&mut c.g, x).unwrap();
            c.check(&format!("mean_last [{rows},{n}]"), &[y], Bound::Elementwise);
        }
    }
}

#[test]
fn sums_over_leading_dimensions() {
    for n in AWKWARD {
        for rows in [1, 64, 65, 300] {
            let mut c = Case::new();
            let x = c.input([rows, n]);
            let y = ops::sum_leading(&mut c.g, x, 1).unwrap();
            c.check(&format!("sum_leading [{rows},{n}]"), &[y], Bound::Within(1e-4));
        }
        let mut c = Case::new();
        let x = c.input([3, 2, n]);
        let y = ops::sum_leading(&mut c.g, x, 2).unwrap();
        c.check_backward(&format!("sum_leading [3,2,{n}]"), y, &[x], Bound::Elementwise);
    }
}

#[test]
fn whole_sums_larger_than_a_binding() {
    let n = 33_600_011;
    let mut c = Case::new();
    let x = c.feed([n], (0..n).map(|i| ((i * 7919) % 101) as f32 - 50.0).collect());
    let y = ops::mean(&mut c.g, x).unwrap();
    c.check("mean of 33,600,011", &[y], Bound::Elementwise);
    let mut c = Case::new();
    let x = c.feed([8_400_007, 4], (0..33_600_028).map(|i| ((i * 31) % 17) as f32 - 8.0).collect());
    let y = ops::sum_leading(&mut c.g, x, 1).unwrap();
    c.check("sum_leading [8400007,4]", &[y], Bound::Nmse);
}

#[test]
fn mean_and_sum_backward() {
    for n in [1, 2, 63, 65, 5000] {
        let mut c = Case::new();
        let x = c.input([n, 3]);
        let square = ops::mul(&mut c.g, x, x).unwrap();
        let y = ops::mean(&mut c.g, square).unwrap();
        c.check_backward(&format!("mean of squares [{n},3]"), y, &[x], Bound::Elementwise);
    }
}
