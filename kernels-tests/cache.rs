//! The key-value cache, and attention over it.

use crate::harness::{Bound, Case};
use shaderlm::{
    graph::{Graph, PlanOptions},
    ops::{self, HostTensor, Mask, TensorType},
};

/// [batch, rows, heads, head width, capacity]
const SHAPES: [[usize; 5]; 12] = [
    [1, 1, 1, 1, 1], [2, 1, 3, 64, 65], [3, 1, 2, 17, 31], [2, 1, 1, 128, 7], [1, 1, 12, 64, 257], [5, 1, 3, 32, 64],
    [2, 3, 3, 64, 65], [3, 9, 2, 17, 31], [1, 65, 1, 16, 100], [2, 7, 1, 3, 7], [1, 2, 4, 80, 127], [4, 1, 1, 2, 63],
];

#[test]
fn write_and_attend() {
    for [b, t, h, d, capacity] in SHAPES {
        let mut c = Case::new();
        let width = h * d;
        let data = c.normal(b * capacity * 2 * width);
        let cache = c.variable("cache", HostTensor::floats([b, capacity, 2 * width], data));
        let qkv = c.input([b, t, 3 * width]);
        let positions = c.random_ids([b], (capacity - t + 1) as u32);
        ops::cache_write(&mut c.g, cache, qkv, positions).unwrap();
        let y = ops::attention_cached(&mut c.g, qkv, cache, positions, h).unwrap();
        c.check(&format!("batch {b}, rows {t}, heads {h} of {d}, capacity {capacity}"), &[y], Bound::Elementwise);
    }
}

#[test]
fn places_beyond_the_cache_are_dropped() {
    let mut c = Case::new();
    let data = c.normal(2 * 5 * 16);
    let cache = c.variable("cache", HostTensor::floats([2, 5, 16], data));
    let qkv = c.input([2, 2, 24]);
    let positions = c.ids([2], vec![4, 9]);
    ops::cache_write(&mut c.g, cache, qkv, positions).unwrap();
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
    ops::cache_write(&mut c.g, cache, qkv, positions).unwrap();
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
    let y = ops::attention(&mut g, qkv, h, Mask { causal: true, keys: None }).unwrap();
    let mut engine = crate::harness::engine();
    let mut whole = engine.compile(g, &[y], &PlanOptions::default()).unwrap();
    whole.set(qkv, HostTensor::floats([b, t, 3 * h * d], data.clone())).unwrap();
    whole.run(&mut engine).unwrap();
    let expected = whole.get(y).unwrap();

    let mut g = Graph::new();
    let qkv = g.input("qkv", TensorType::f32([b, 1, 3 * h * d]));
    let positions = g.input("positions", TensorType::u32([b]));
    let cache = g.variable("cache", TensorType::f32([b, t, 2 * h * d])).unwrap();
    ops::cache_write(&mut g, cache, qkv, positions).unwrap();
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
