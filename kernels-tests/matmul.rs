//! Matrix products: every layout, batches, epilogues, and operands larger than a binding.

use crate::harness::{Bound, Case, engine, engine_as_hardware, engine_without_images};
use shaderlm::{
    gpu::Capabilities,
    graph::{PlanOptions, decisions, kernels},
    ops::{self, Gelu, Layout, Tensor},
};

const SHAPES: [[usize; 3]; 16] = [
    [1, 1, 1],
    [1, 7, 3],
    [2, 64, 64],
    [3, 63, 65],
    [5, 8, 128],
    [8, 257, 31],
    [9, 100, 4],
    [13, 12, 11],
    [31, 33, 17],
    [64, 64, 64],
    [63, 65, 64],
    [65, 63, 66],
    [127, 36, 20],
    [12, 256, 1],
    [97, 1, 53],
    [130, 96, 260],
];

fn operands(c: &mut Case, [m, n, k]: [usize; 3], ta: bool, tb: bool) -> (Tensor, Tensor) {
    let a = c.input(if ta { [k, m] } else { [m, k] });
    let b = c.input(if tb { [n, k] } else { [k, n] });
    (a, b)
}

#[test]
fn every_layout_forward_and_backward() {
    for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
        for shape in SHAPES {
            let what = format!("matmul {shape:?}, transposed {ta} {tb}");
            let settings = Layout { transpose_a: ta, transpose_b: tb, alpha: 0.7 };
            let mut c = Case::new();
            let (a, b) = operands(&mut c, shape, ta, tb);
            let y = ops::matmul_with(&mut c.g, a, b, None, settings).unwrap();
            c.check(&what, &[y], Bound::Nmse);
            let mut c = Case::new();
            let (a, b) = operands(&mut c, shape, ta, tb);
            let bias = c.input([shape[1]]);
            let y = ops::matmul_with(&mut c.g, a, b, Some(bias), settings).unwrap();
            c.check_backward(&what, y, &[a, b, bias], Bound::Nmse);
        }
    }
}

#[test]
fn batches() {
    for [m, n, k] in SHAPES {
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            let mut c = Case::new();
            let a = c.input(if ta { [2, 3, k, m] } else { [2, 3, m, k] });
            let b = c.input(if tb { [2, 3, n, k] } else { [2, 3, k, n] });
            let settings = Layout { transpose_a: ta, transpose_b: tb, ..Layout::default() };
            let y = ops::matmul_with(&mut c.g, a, b, None, settings).unwrap();
            c.check_backward(&format!("batched matmul [{m},{n},{k}], transposed {ta} {tb}"), y, &[a, b], Bound::Nmse);
        }
        let mut c = Case::new();
        let (x, w, bias) = (c.input([2, 3, m, k]), c.input([k, n]), c.input([n]));
        let y = ops::linear(&mut c.g, x, w, bias).unwrap();
        c.check_backward(&format!("linear [2,3,{m},{k}] to {n}"), y, &[x, w, bias], Bound::Nmse);
    }
}

#[test]
fn epilogues_are_fused_and_right() {
    for [m, n, k] in SHAPES {
        let mut c = Case::new();
        let (x, w, bias, residual) = (c.input([m, k]), c.input([k, n]), c.input([n]), c.input([m, n]));
        let h = ops::linear(&mut c.g, x, w, bias).unwrap();
        let y = ops::add(&mut c.g, residual, h).unwrap();
        c.check(&format!("bias and residual [{m},{n},{k}]"), &[y], Bound::Nmse);
        let mut c = Case::new();
        let (x, w) = (c.input([m, k]), c.input([k, n]));
        let h = ops::matmul(&mut c.g, x, w).unwrap();
        let y = ops::scale(&mut c.g, h, 0.125).unwrap();
        c.check(&format!("scale [{m},{n},{k}]"), &[y], Bound::Nmse);
        for form in [Gelu::Tanh, Gelu::Erf] {
            let mut c = Case::new();
            let (dy, w, x) = (c.input([m, k]), c.input([n, k]), c.input([m, n]));
            let h = ops::matmul_with(&mut c.g, dy, w, None, Layout { transpose_b: true, ..Layout::default() }).unwrap();
            let dx = ops::gelu_gradient(&mut c.g, x, h, form).unwrap();
            let launched = kernels(&c.g, &[dx], engine().capabilities().unwrap(), &PlanOptions::default()).unwrap();
            assert!(!launched.iter().any(|kernel| kernel.name == "gelu"), "the gradient of {form:?} is not fused");
            c.check(&format!("gradient of {form:?} [{m},{n},{k}]"), &[dx], Bound::Nmse);
        }
    }
}

#[test]
fn operands_and_results_larger_than_a_binding() {
    // GPT-2's token table, 50257 x 768 f32, is 154 MB: as the tied head (forward), and as its gradient.
    let (vocab, width) = (50257, 768);
    let mut c = Case::new();
    let table: Vec<f32> = (0..vocab * width).map(|i| ((i * 7919) % 211) as f32 / 105.0 - 1.0).collect();
    for m in [1, 11] {
        let mut c = Case::new();
        let x = c.input([m, width]);
        let w = c.feed([vocab, width], table.clone());
        let settings = Layout { transpose_b: true, ..Layout::default() };
        let y = ops::matmul_with(&mut c.g, x, w, None, settings).unwrap();
        c.check(&format!("tied head, {m} rows"), &[y], Bound::Nmse);
    }
    // dx = dlogits table: k runs over the windows of the table.
    let d = c.input([11, vocab]);
    let w = c.feed([vocab, width], table);
    let bias = c.input([width]);
    let y = ops::linear(&mut c.g, d, w, bias).unwrap();
    c.check("gradient through the tied head", &[y], Bound::Nmse);
    // dtable = dlogits^T x: the result is larger than a binding.
    let mut c = Case::new();
    let (d, x) = (c.input([11, vocab]), c.input([11, width]));
    let settings = Layout { transpose_a: true, ..Layout::default() };
    let y = ops::matmul_with(&mut c.g, d, x, None, settings).unwrap();
    c.check("gradient of the tied head", &[y], Bound::Nmse);
    // Rows of a larger than a binding, and a batch of matrices that is.
    let mut c = Case::new();
    let (x, w) = (c.input([1_130_001, 30]), c.input([30, 5]));
    let y = ops::matmul(&mut c.g, x, w).unwrap();
    c.check("1,130,001 rows", &[y], Bound::Nmse);
    let mut c = Case::new();
    let (a, b) = (c.input([70_001, 8, 64]), c.input([70_001, 3, 64]));
    let y = ops::matmul_with(&mut c.g, a, b, None, Layout { transpose_b: true, ..Layout::default() }).unwrap();
    c.check("70,001 matrices", &[y], Bound::Nmse);
}

/// Where images are faster, operands that are large or read often come from them: some that are larger than an image's row, with one
/// of them or both in images, batches, and windows that begin within the memory.
#[test]
fn operands_in_images() {
    // Without subgroups tiles are others, and so is how often an operand is read.
    let caps = engine().capabilities().unwrap().clone();
    let known = caps.images && caps.subgroup == Some(8);
    let shapes = [
        ([260, 196, 300], [true, true]),
        ([32, 320, 300], [true, false]),
        ([260, 40, 300], [false, true]),
        ([100, 132, 36], [false, false]),
        ([259, 260, 301], [false, false]),
    ];
    for (shape @ [m, n, k], in_images) in shapes {
        for (ta, tb) in [(false, false), (false, true), (true, false), (true, true)] {
            let layout = Layout { transpose_a: ta, transpose_b: tb, alpha: 0.7 };
            let case = || {
                let mut c = Case::new();
                let (a, b) = operands(&mut c, shape, ta, tb);
                let y = ops::matmul_with(&mut c.g, a, b, None, layout).unwrap();
                let stack = c.input(if ta { [5, k, m] } else { [5, m, k] });
                let part = ops::slice(&mut c.g, stack, 0, 1..4).unwrap();
                let others = c.input(if tb { [3, n, k] } else { [3, k, n] });
                let batch = ops::matmul_with(&mut c.g, part, others, None, layout).unwrap();
                (c, [y, batch])
            };
            let what = format!("matmul {shape:?}, transposed {ta} {tb}");
            let (c, outputs) = case();
            if known && !ta {
                let list = kernels(&c.g, &outputs[..1], &caps, &PlanOptions::default()).unwrap();
                let label = list[0].label();
                assert_eq!(["AIMAGE", "BIMAGE"].map(|word| label.contains(word)), in_images, "{what}: {label}");
            }
            c.check(&what, &outputs, Bound::Nmse);
            let (c, outputs) = case();
            c.check_on(engine_without_images(), None, &format!("{what}, without images"), &outputs, Bound::Nmse);
        }
    }
}

/// Every kernel that could be chosen, of software and of real GPUs, on sizes that fill a tile, and that do not, and with k long
/// enough to be taken in parts.
#[test]
fn every_kernel_that_can_be_chosen() {
    let mut seen = std::collections::BTreeSet::new();
    // Drivers take long to compile the large tiles: both ways to store both operands, not each with each.
    for shape in [[3, 20, 36], [33, 17, 9], [132, 68, 48], [20, 36, 1024]] {
        for (ta, tb) in [(false, false), (true, true), (false, true)] {
            if (ta, tb) == (false, true) && shape[0] > 8 {
                continue;
            }
            let layout = Layout { transpose_a: ta, transpose_b: tb, alpha: 0.5 };
            let case = || {
                let mut c = Case::new();
                let (a, b) = operands(&mut c, shape, ta, tb);
                let (bias, residual) = (c.input([shape[1]]), c.input([shape[0], shape[1]]));
                let h = ops::matmul_with(&mut c.g, a, b, None, layout).unwrap();
                let plain = Layout { alpha: 1.0, ..layout };
                let biased = ops::matmul_with(&mut c.g, a, b, Some(bias), plain).unwrap();
                let active = ops::gelu(&mut c.g, biased, Gelu::Tanh).unwrap();
                let y = ops::add(&mut c.g, active, residual).unwrap();
                (c, [h, y])
            };
            for (kind, make) in [("software", engine as fn() -> _), ("hardware", engine_as_hardware)] {
                let (c, outputs) = case();
                let caps: Capabilities = make().capabilities().unwrap().clone();
                let list = decisions(&c.g, &outputs, &caps, &PlanOptions::default())
                    .unwrap()
                    .into_iter()
                    .next()
                    .map_or(Vec::new(), |d| d.kernels);
                for choice in 0..list.len().max(1) {
                    let (c, outputs) = case();
                    let name = list.get(choice).map_or("the only kernel", String::as_str);
                    let what = format!("{shape:?}, transposed {ta} {tb}, {name}, chosen as on {kind}");
                    c.check_on(make(), Some(choice), &what, &outputs, Bound::Nmse);
                    seen.insert(name.to_owned());
                }
            }
        }
    }
    let lanes = engine_as_hardware().capabilities().unwrap().subgroup;
    let of_subgroups =
        lanes.map_or(Vec::new(), |lanes| [1, 2].map(|columns| format!("direct 16x{}", 4 * lanes * columns)).to_vec());
    let parts = ["tiled 32x32", "tiled 64x64", "tiled 128x64", "tiled 128x128", "k in ", "rows", "dot"];
    for part in parts.into_iter().chain(of_subgroups.iter().map(String::as_str)) {
        assert!(seen.iter().any(|name| name.contains(part)), "{part} is not among {seen:?}");
    }
}
