//! The key-value cache, and attention over it.

use crate::harness::{Bound, Case, engine, engine_as_hardware};
use shaderlm::{
    graph::{Graph, PlanOptions},
    ops::{self, HostTensor, Mask, TensorType},
};

/// [batch, rows, heads, head width, capacity]
const SHAPES: [[usize; 5]; 16] = [
    [1, 1, 1, 1, 1],
    [2, 1, 3, 64, 65],
    [3, 1, 2, 17, 31],
    [2, 1, 1, 128, 7],
    [1, 1, 12, 64, 257],
    [5, 1, 3, 32, 64],
    [2, 3, 3, 64, 65],
    [3, 9, 2, 17, 31],
    [1, 65, 1, 16, 100],
    [2, 7, 1, 3, 7],
    [1, 2, 4, 80, 127],
    [4, 1, 1, 2, 63],
    [1, 1, 2, 64, 512],
    [2, 16, 2, 64, 1023],
    [1, 3, 1, 128, 513],
    [3, 5, 2, 20, 769],
];

#[test]
fn attend_and_write() {
    for [b, t, h, d, capacity] in SHAPES {
        for on in [engine(), engine_as_hardware()] {
            let mut c = Case::new();
            let width = h * d;
            let data = c.normal(b * capacity * 2 * width);
            let cache = c.variable("cache", HostTensor::floats([b, capacity, 2 * width], data));
            let qkv = c.input([b, t, 3 * width]);
            let positions = c.random_ids([b], (capacity - t + 1) as u32);
            let y = ops::attention_cached(&mut c.g, qkv, cache, positions, h).unwrap();
            let what = format!("batch {b}, rows {t}, heads {h} of {d}, capacity {capacity}");
            c.check_on(on, None, &what, &[y], Bound::Elementwise);
        }
    }
}

#[test]
fn write() {
    for [b, t, h, d, capacity] in SHAPES {
        let mut c = Case::new();
        let width = h * d;
        let data = c.normal(b * capacity * 2 * width);
        c.variable("cache", HostTensor::floats([b, capacity, 2 * width], data));
        let cache = c.g.variable("cache", TensorType::f32([b, capacity, 2 * width])).unwrap();
        let qkv = c.input([b, t, 3 * width]);
        let positions = c.random_ids([b], (capacity - t + 1) as u32);
        ops::cache_write(&mut c.g, cache, qkv, positions).unwrap();
        c.check(&format!("batch {b}, rows {t}, width {width}, capacity {capacity}"), &[], Bound::Exact);
    }
}

/// At the first place, around the ends of ranges of keys that a workgroup has, at the last place and beyond.
#[test]
fn every_place_of_a_long_cache() {
    let (b, h, d, capacity) = (9, 2, 8, 700);
    for (t, on) in [1, 4, 9].into_iter().flat_map(|t| [(t, engine()), (t, engine_as_hardware())]) {
        let mut c = Case::new();
        let data = c.normal(b * capacity * 2 * h * d);
        let cache = c.variable("cache", HostTensor::floats([b, capacity, 2 * h * d], data));
        let qkv = c.input([b, t, 3 * h * d]);
        let positions = c.ids([b], vec![0, 1, 254, 255, 256, 511, 699, 700, 5000]);
        let y = ops::attention_cached(&mut c.g, qkv, cache, positions, h).unwrap();
        c.check_on(on, None, &format!("rows {t}"), &[y], Bound::Elementwise);
    }
}

#[test]
fn places_beyond_the_cache_are_dropped() {
    let mut c = Case::new();
    let data = c.normal(2 * 5 * 16);
    let cache = c.variable("cache", HostTensor::floats([2, 5, 16], data));
    let qkv = c.input([2, 2, 24]);
    let positions = c.ids([2], vec![4, 9]);
    let y = ops::attention_cached(&mut c.g, qkv, cache, positions, 2).unwrap();
    c.check("positions beyond the cache", &[y], Bound::Elementwise);
}

#[test]
fn a_cache_larger_than_a_binding() {
    let (b, capacity, width) = (9, 5000, 384);
    let mut c = Case::new();
    let data = (0..b * capacity * 2 * width).map(|i| ((i * 7919) % 211) as f32 / 105.0 - 1.0).collect();
    let cache = c.variable("cache", HostTensor::floats([b, capacity, 2 * width], data));
    let qkv = c.input([b, 1, 3 * width]);
    let positions = c.random_ids([b], 40);
    let y = ops::attention_cached(&mut c.g, qkv, cache, positions, 6).unwrap();
    c.check("a cache of 138 MB", &[y], Bound::Elementwise);
}

/// One token at a time over the cache gives what attention over the whole text gives.
#[test]
fn decoding_equals_the_whole() {
    let (b, t, h, d) = (2, 13, 3, 20);
    let mut c = Case::new();
    let data = c.normal(b * t * 3 * h * d);
    let mut g = Graph::new();
    let qkv = g.input("qkv", TensorType::f32([b, t, 3 * h * d]));
    let y = ops::attention(&mut g, qkv, h, Mask { causal: true, keys: None, band: None }).unwrap();
    let mut engine = crate::harness::engine();
    let mut whole = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    whole.set(qkv, HostTensor::floats([b, t, 3 * h * d], data.clone())).unwrap();
    whole.run(&mut engine).unwrap();
    let expected = whole.get(y).unwrap();

    let mut g = Graph::new();
    let qkv = g.input("qkv", TensorType::f32([b, 1, 3 * h * d]));
    let positions = g.input("positions", TensorType::u32([b]));
    let cache = g.variable("cache", TensorType::f32([b, t, 2 * h * d])).unwrap();
    let y = ops::attention_cached(&mut g, qkv, cache, positions, h).unwrap();
    let mut step = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    for at in 0..t {
        let row = 3 * h * d;
        let now = (0..b).flat_map(|i| data[(i * t + at) * row..][..row].to_vec()).collect();
        step.set(qkv, HostTensor::floats([b, 1, row], now)).unwrap();
        step.set(positions, HostTensor::uints([b], vec![at as u32; b])).unwrap();
        step.run(&mut engine).unwrap();
        let found = step.get(y).unwrap();
        for i in 0..b {
            for j in 0..h * d {
                let (a, b) = (found.f()[i * h * d + j], expected.f()[(i * t + at) * h * d + j]);
                assert!((a - b).abs() <= 1e-5, "text {i}, place {at}, column {j}: {a} and {b}");
            }
        }
    }
}
