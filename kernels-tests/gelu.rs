//! GELU in both forms, alone and as an epilogue.

use crate::harness::{AWKWARD, Bound, Case};
use shaderlm::ops::{self, Gelu, HostTensor};

const FORMS: [Gelu; 2] = [Gelu::Tanh, Gelu::Erf];
const SIZES: [usize; 7] = [129, 768, 1600, 4 * 63, 4 * 64, 4 * 65, 10_007];

#[test]
fn forward_and_backward() {
    for form in FORMS {
        for n in AWKWARD.into_iter().chain(SIZES) {
            let mut c = Case::new();
            let x = c.input([n]);
            let x = ops::scale(&mut c.g, x, 2.0).unwrap();
            let y = ops::gelu(&mut c.g, x, form).unwrap();
            c.check(&format!("{form:?} [{n}]"), &[y], Bound::Elementwise);

            let mut c = Case::new();
            let x = c.input([n]);
            let y = ops::gelu(&mut c.g, x, form).unwrap();
            c.check_backward(&format!("{form:?} [{n}]"), y, &[x], Bound::Elementwise);
        }
    }
}

/// Where tanh overflows, where the polynomials end, and around 0.
fn extremes() -> Vec<f32> {
    let mut x: Vec<f32> = (-4000..=4000).map(|i| i as f32 * 0.005).collect();
    for large in [1e-30, 1e-10, 1e-5, 1e-3, 44.0, 88.0, 100.0, 1e3, 1e6, 1e12] {
        x.extend([large, -large]);
    }
    x.extend([0.0, -0.0]);
    x
}

#[test]
fn small_and_large_values() {
    for form in FORMS {
        let x = extremes();
        let mut c = Case::new();
        let n = x.len();
        let x = c.feed([n], x);
        let y = ops::gelu(&mut c.g, x, form).unwrap();
        c.check(&format!("{form:?} of extremes"), &[y], Bound::Within(1e-6));

        let mut c = Case::new();
        let x = c.feed([n], extremes());
        let y = ops::gelu(&mut c.g, x, form).unwrap();
        let loss = ops::sum(&mut c.g, y).unwrap();
        let dx = shaderlm::graph::gradients(&mut c.g, loss, &[x]).unwrap()[0].unwrap();
        c.check(&format!("gradient of {form:?} at extremes"), &[dx], Bound::Elementwise);
    }
}

#[test]
fn the_forms_are_those_of_pytorch() {
    // torch.nn.functional.gelu(torch.tensor([-3., -1., -0.1, 0.5, 2.], dtype=float64), approximate=..)
    let known = [
        (Gelu::Erf, [-0.00404969409489031, -0.158655253931457, -0.0460172162722971, 0.345731230637008, 1.95449973610364]),
        (Gelu::Tanh, [-0.00363739208177299, -0.158808009391723, -0.0460172489545648, 0.345714009825144, 1.95459769408777]),
    ];
    for (form, expected) in known {
        let mut c = Case::new();
        let x = c.feed([5], vec![-3.0, -1.0, -0.1, 0.5, 2.0]);
        let y = ops::gelu(&mut c.g, x, form).unwrap();
        let (feeds, mut variables) = c.in_f64();
        let found = shaderlm::graph::evaluate(&c.g, &feeds, &mut variables, &[y]);
        let found: Vec<f32> = found[&y].f().iter().map(|&v| v as f32).collect();
        let expected = HostTensor::floats([5], expected.to_vec());
        crate::harness::compare(&format!("{form:?}"), &HostTensor::floats([5], found), &expected, Bound::Within(1e-7));
    }
}

#[test]
fn as_an_epilogue() {
    for form in FORMS {
        for (m, k, n) in [(1, 5, 3), (7, 64, 65), (33, 17, 128)] {
            let mut c = Case::new();
            let (x, w, b) = (c.input([m, k]), c.input([k, n]), c.input([n]));
            let h = ops::linear(&mut c.g, x, w, b).unwrap();
            let y = ops::gelu(&mut c.g, h, form).unwrap();
            c.check(&format!("linear and {form:?} [{m},{k}] [{k},{n}]"), &[y], Bound::Nmse);

            let mut c = Case::new();
            let (x, w, b) = (c.input([m, k]), c.input([k, n]), c.input([n]));
            let h = ops::linear(&mut c.g, x, w, b).unwrap();
            let y = ops::gelu(&mut c.g, h, form).unwrap();
            c.check_backward(&format!("linear and {form:?} [{m},{k}] [{k},{n}]"), y, &[x, w, b], Bound::Nmse);
        }
    }
}

#[test]
fn more_than_65535_workgroups_and_larger_than_a_binding() {
    for form in FORMS {
        let n = 33_600_011;
        let mut c = Case::new();
        let x = c.feed([n], (0..n).map(|i| (i % 1013) as f32 / 100.0 - 5.0).collect());
        let y = ops::gelu(&mut c.g, x, form).unwrap();
        let loss = ops::sum(&mut c.g, y).unwrap();
        let dx = shaderlm::graph::gradients(&mut c.g, loss, &[x]).unwrap()[0].unwrap();
        c.check(&format!("{form:?} [{n}]"), &[y, dx], Bound::Elementwise);
    }
}
