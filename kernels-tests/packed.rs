//! Weights in narrow storage: products of few rows straight from it, of many by way of a copy, look-ups, and whatever else reads
//! them, against f64 on the numbers that they stand for.

use crate::harness::{Bound, Case, engine, engine_as_hardware, engine_without_images};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions, decisions, gradients, kernels},
    ops::{self, AdamW, Format, Gelu, HostTensor, Layout, Packed, Packing, Recorder, TensorType},
};

const FORMATS: [Format; 7] = [
    Format::F32,
    Format::F16,
    Format::Bf16,
    Format::Q8 { group: 32 },
    Format::Q8 { group: 64 },
    Format::Q4 { group: 32 },
    Format::Q4 { group: 64 },
];

/// A weight of `[k, n]` or, `nt`, `[n, k]`; `None` where rows are not made of blocks.
fn weight(c: &mut Case, format: Format, n: usize, k: usize, nt: bool) -> Option<Packed> {
    let shape = if nt { [n, k] } else { [k, n] };
    let packing = Packing::new(format, &shape.into(), usize::from(nt)).ok()?;
    Some(Packed::pack(packing, &c.normal(n * k)).unwrap())
}

/// A product with every epilogue: plain and scaled, bias and activation, kept, with a residual.
fn product(format: Format, [m, n, k]: [usize; 3], nt: bool) -> Option<(Case, Vec<shaderlm::ops::Tensor>)> {
    let mut c = Case::new();
    let w = weight(&mut c, format, n, k, nt)?;
    let w = c.packed("w", w);
    let (x, bias, residual) = (c.input([m, k]), c.input([n]), c.input([m, n]));
    let layout = Layout { transpose_b: nt, ..Layout::default() };
    let plain = ops::matmul_with(&mut c.g, x, w, None, Layout { alpha: 0.5, ..layout }).unwrap();
    let kept = ops::matmul_with(&mut c.g, x, w, Some(bias), layout).unwrap();
    let active = ops::gelu(&mut c.g, kept, Gelu::Tanh).unwrap();
    let biased = ops::matmul_with(&mut c.g, x, w, Some(bias), layout).unwrap();
    let added = ops::add(&mut c.g, biased, residual).unwrap();
    Some((c, vec![plain, kept, active, added]))
}

#[test]
fn products_of_few_rows_and_of_many() {
    let shapes = [
        [1, 1, 64],
        [1, 7, 3],
        [1, 65, 192],
        [2, 31, 128],
        [3, 5, 13],
        [4, 33, 64],
        [5, 9, 20],
        [7, 12, 96],
        [8, 17, 256],
        [9, 3, 65],
        [12, 20, 64],
        [16, 37, 320],
        [17, 33, 64],
        [40, 20, 96],
        [1, 13, 1088],
    ];
    for (kind, make) in [engine as fn() -> Engine, engine_as_hardware, engine_without_images].into_iter().enumerate() {
        for (f, format) in FORMATS.into_iter().enumerate() {
            // Each shape in some formats on each kind of adapter: drivers take their time to compile.
            for (i, shape) in shapes.into_iter().enumerate().filter(|(i, _)| (i / 2 + f + kind) % 3 == 0) {
                if let Some((c, outputs)) = product(format, shape, i % 2 == 0) {
                    c.check_on(make(), None, &format!("{format} {shape:?}"), &outputs, Bound::Nmse);
                }
            }
        }
    }
}

#[test]
fn every_kernel_that_can_be_chosen() {
    for (kind, make) in [("software", engine as fn() -> Engine), ("hardware", engine_as_hardware)] {
        for (format, shapes) in [
            (Format::F32, vec![[1, 9, 1024], [3, 20, 64]]),
            (Format::Bf16, vec![[2, 9, 64]]),
            (Format::Q8 { group: 32 }, vec![[1, 9, 4096], [3, 20, 192]]),
            (Format::Q4 { group: 32 }, vec![[1, 9, 4096], [16, 10, 64]]),
        ] {
            for shape in shapes {
                let (c, outputs) = product(format, shape, true).unwrap();
                let packed = [("w".to_owned(), Packing::new(format, &[shape[1], shape[2]].into(), 1).unwrap())].into();
                let options = PlanOptions { packed, ..PlanOptions::default() };
                let caps = make().capabilities().unwrap().clone();
                let list =
                    decisions(&c.g, &outputs, &caps, &options).unwrap().into_iter().next().map_or(Vec::new(), |d| d.kernels);
                for choice in 0..list.len().max(1) {
                    let (c, outputs) = product(format, shape, true).unwrap();
                    let name = list.get(choice).map_or("the only kernel", String::as_str);
                    c.check_on(make(), Some(choice), &format!("{format} {shape:?}, {name}, as on {kind}"), &outputs, Bound::Nmse);
                }
            }
        }
    }
}

#[test]
fn look_ups_of_packed_tables_and_copies_for_what_does_not_read_them() {
    for make in [engine as fn() -> Engine, engine_as_hardware] {
        for format in FORMATS {
            for (rows, width) in [(7, 64), (65, 192), (3, 13), (2, 66)] {
                let mut c = Case::new();
                let Some(w) = weight(&mut c, format, rows, width, true) else { continue };
                let table = c.packed("table", w);
                let ids = c.random_ids([3, 5], rows as u32);
                let y = ops::embedding(&mut c.g, table, ids).unwrap();
                // Read as a part, and by an operation that knows nothing of it.
                let part = ops::slice(&mut c.g, table, 0, 1..2).unwrap();
                let part = ops::scale(&mut c.g, part, 2.0).unwrap();
                let all = ops::scale(&mut c.g, table, 0.5).unwrap();
                // With the zeros behind its rows.
                let whole = ops::whole_rows(&mut c.g, table).unwrap();
                let layout = Layout { transpose_b: true, ..Layout::default() };
                let [few, many] = [1, 17].map(|m| {
                    let x = c.feed([m, width], (0..m * width).map(|i| (i % 7) as f32 - 3.0).collect());
                    ops::matmul_with(&mut c.g, x, whole, None, layout).unwrap()
                });
                let outputs = [y, part, all, few, many];
                c.check_on(make(), None, &format!("{format}, {rows} rows of {width}"), &outputs, Bound::Within(5e-5));
            }
        }
    }
}

#[test]
fn weights_larger_than_a_binding() {
    // GPT-2's token table in 32 bits along k is 154 MB.
    let (vocab, width) = (50_257, 768);
    let values: Vec<f32> = (0..vocab * width).map(|i| ((i * 7919) % 211) as f32 / 105.0 - 1.0).collect();
    for format in [Format::F32, Format::Q8 { group: 32 }] {
        let packing = Packing::new(format, &[vocab, width].into(), 1).unwrap();
        let packed = Packed::pack(packing, &values).unwrap();
        for m in [1, 17] {
            let mut c = Case::new();
            let x = c.input([m, width]);
            let w = c.packed("w", packed.clone());
            let ids = c.ids([3], vec![0, vocab as u32 - 1, 44_000]);
            let rows = ops::embedding(&mut c.g, w, ids).unwrap();
            let y = ops::matmul_with(&mut c.g, x, w, None, Layout { transpose_b: true, ..Layout::default() }).unwrap();
            c.check(&format!("tied head in {format}, {m} rows"), &[y, rows], Bound::Nmse);
        }
    }
}

#[test]
fn the_cpu_has_the_numbers_that_they_stand_for() {
    let packing = Packing::new(Format::Q4 { group: 32 }, &[64, 5].into(), 0).unwrap();
    let mut c = Case::new();
    let values = c.normal(320);
    let packed = Packed::pack(packing, &values).unwrap();
    for mut engine in [engine(), Engine::cpu()] {
        engine.set_packed("w", &packed).unwrap();
        assert_eq!(engine.get("w").unwrap().unwrap().f(), packed.unpack());
        let mut g = Graph::new();
        let w = g.variable("w", TensorType::f32([64, 5])).unwrap();
        let x = g.input("x", TensorType::f32([1, 64]));
        let y = ops::matmul(&mut g, x, w).unwrap();
        let mut plan = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
        plan.set(x, HostTensor::floats([1, 64], vec![1.0; 64])).unwrap();
        plan.run(&mut engine).unwrap();
        let found = plan.get(y).unwrap();
        for (column, found) in found.f().iter().enumerate() {
            let sum: f64 = packed.unpack().iter().skip(column).step_by(5).map(|&x| f64::from(x)).sum();
            assert!((f64::from(*found) - sum).abs() < 1e-4, "{found} instead of {sum}");
        }
        // Overwritten in 32 bits, it is a variable like any other.
        engine.set("w", &HostTensor::floats([64, 5], values.clone())).unwrap();
        assert_eq!(engine.get("w").unwrap().unwrap().f(), values);
    }
}

#[test]
fn what_cannot_be_done_with_them_is_an_error() {
    let packing = Packing::new(Format::Q8 { group: 32 }, &[32, 5].into(), 0).unwrap();
    let packed = Packed::pack(packing, &[0.5; 160]).unwrap();
    let mut engine = engine();
    engine.set_packed("w", &packed).unwrap();
    let fails = |engine: &mut Engine, g: Graph, y| engine.compile(g, &[y], &PlanOptions::default()).err().unwrap().to_string();
    // Trained.
    let mut g = Graph::new();
    let w = g.variable("w", TensorType::f32([32, 5])).unwrap();
    let [m, v] = ["m", "v"].map(|name| g.variable(name, TensorType::f32([32, 5])).unwrap());
    let (x, hyper) = (g.input("x", TensorType::f32([1, 32])), g.input("hyper", TensorType::f32([3])));
    let y = ops::matmul(&mut g, x, w).unwrap();
    let loss = ops::sum(&mut g, y).unwrap();
    let grad = gradients(&mut g, loss, &[w]).unwrap()[0].unwrap();
    let rule = AdamW { beta1: 0.9, beta2: 0.99, eps: 1e-8, weight_decay: 0.1, rate_scale: 1.0 };
    ops::adamw(&mut g, w, grad, m, v, hyper, None, rule).unwrap();
    let error = fails(&mut engine, g, loss);
    assert!(error.contains("w is stored as q8/32; only weights in 32 bits can be trained"), "{error}");
    // Read the other way round.
    let mut g = Graph::new();
    let w = g.variable("w", TensorType::f32([32, 5])).unwrap();
    let y = ops::scale(&mut g, w, 2.0).unwrap();
    let error = fails(&mut engine, g, y);
    assert!(error.contains("--weights f32"), "{error}");
    // Read back as it is.
    let mut g = Graph::new();
    let w = g.variable("w", TensorType::f32([32, 5])).unwrap();
    assert!(fails(&mut engine, g, w).contains("narrow storage"));
    // Of another shape.
    let mut g = Graph::new();
    let w = g.variable("w", TensorType::f32([5, 32])).unwrap();
    let y = ops::scale(&mut g, w, 2.0).unwrap();
    let error = fails(&mut engine, g, y);
    assert!(error.contains("variable w"), "{error}");
}

/// The rows of a packed table with those of another, packed or not, and with others.
#[test]
fn what_is_added_to_rows_of_packed_tables() {
    for make in [engine as fn() -> Engine, engine_as_hardware] {
        for format in FORMATS {
            for (rows, width) in [(7, 64), (65, 192), (3, 13), (2, 66), (1, 128)] {
                let mut c = Case::new();
                let Some(w) = weight(&mut c, format, rows, width, true) else { continue };
                let table = c.packed("table", w);
                let second = weight(&mut c, format, 5, width, true).unwrap();
                let second = c.packed("second", second);
                let (plain, other) = (c.input([9, width]), c.input([3, 5, width]));
                let mut outputs = Vec::new();
                for (first, second) in [(table, plain), (plain, table), (table, second), (plain, plain)] {
                    let [a, b] = [first, second].map(|table| {
                        let ids = c.random_ids([3, 5], 9);
                        ops::embedding(&mut c.g, table, ids).unwrap()
                    });
                    outputs.push(ops::add(&mut c.g, a, b).unwrap());
                }
                let ids = c.random_ids([3, 5], rows as u32);
                let y = ops::embedding(&mut c.g, table, ids).unwrap();
                outputs.push(ops::add(&mut c.g, y, other).unwrap());
                c.check_on(make(), None, &format!("{format}, {rows} rows of {width}"), &outputs, Bound::Within(1e-6));
            }
        }
    }
}

/// A step of decoding finds tokens and positions in one dispatch, whatever the table's storage.
#[test]
fn a_token_and_its_position_take_one_dispatch() {
    for format in FORMATS {
        let packing = Packing::new(format, &[97, 64].into(), 1).unwrap();
        let options = PlanOptions { packed: [("table".to_owned(), packing)].into(), ..PlanOptions::default() };
        let mut g = Graph::new();
        let (table, places) =
            (g.variable("table", TensorType::f32([97, 64])).unwrap(), g.input("places", TensorType::f32([30, 64])));
        let [tokens, positions] = ["tokens", "positions"].map(|name| g.input(name, TensorType::u32([2, 1])));
        let (a, b) = (ops::embedding(&mut g, table, tokens).unwrap(), ops::embedding(&mut g, places, positions).unwrap());
        let y = ops::add(&mut g, a, b).unwrap();
        let taken = kernels(&g, &[y], engine().capabilities().unwrap(), &options).unwrap();
        assert!(taken.len() == 1 && taken[0].name == "embedding", "{format}: {taken:?}");
    }
}

#[test]
fn few_rows_read_packed_weights_and_nothing_else() {
    let packing = Packing::new(Format::Q4 { group: 32 }, &[64, 40].into(), 0).unwrap();
    let options = PlanOptions { packed: [("w".to_owned(), packing)].into(), ..PlanOptions::default() };
    // Software adapters read them packed whatever the number of rows.
    let caps = [engine(), engine_as_hardware()].map(|engine| engine.capabilities().unwrap().clone());
    for (rows, caps) in [1, 16, 17].into_iter().flat_map(|rows| caps.each_ref().map(|caps| (rows, caps))) {
        let copied = rows > 16 && !caps.software;
        let mut g = Graph::new();
        let w = g.variable("w", TensorType::f32([64, 40])).unwrap();
        let x = g.input("x", TensorType::f32([rows, 64]));
        let y = ops::matmul(&mut g, x, w).unwrap();
        assert_eq!(g.ty(y).shape.0, [rows, 40]);
        let labels: Vec<_> = kernels(&g, &[y], caps, &options).unwrap().iter().map(|k| k.label()).collect();
        assert_eq!(labels[0].starts_with("unpack{"), copied, "{labels:?}");
        // In 32 bits it needs no copy.
        let packing = Packing::new(Format::F32, &[64, 40].into(), 0).unwrap();
        let dense = PlanOptions { packed: [("w".to_owned(), packing)].into(), ..PlanOptions::default() };
        assert_eq!(kernels(&g, &[y], caps, &dense).unwrap().len(), 1);
        assert!(copied || labels.iter().all(|label| label.starts_with("matmul_") && label.contains("FORMAT=q4")), "{labels:?}");
    }
}
