//! The key-value cache of decoding: `[B, capacity, 2C]`, each row k, then v.

use super::{
    attention::{Sizes, attend},
    *,
};

/// Lanes of a workgroup that copies.
const LANES: usize = 64;

/// `cache [B,N,2C], qkv [B,T,3C], positions [B]`; updates the cache.
#[derive(Debug)]
struct CacheWrite;

/// `qkv [B,T,3C], cache [B,N,2C], positions [B] -> [B,T,C]`
#[derive(Debug)]
struct AttentionCached {
    heads: usize,
}

/// Puts the keys and values of `qkv` `[B,T,3C]` into `cache` `[B,N,2C]`, a text's first one at its place in `positions`
/// `[B]` u32. Places beyond the cache are dropped.
///
/// # Errors
/// Shapes do not fit.
pub fn cache_write(g: &mut dyn Recorder, cache: Tensor, qkv: Tensor, positions: Tensor) -> Result<(), OpError> {
    g.record(Arc::new(CacheWrite), &[cache, qkv, positions])?;
    Ok(())
}

/// Attention of the queries in `qkv` `[B,T,3C]`, the first of each text at its place in `positions` `[B]` u32, to the keys
/// and values in `cache` `[B,N,2C]` up to their own place: `[B,T,C]`. Their own must have been written before.
///
/// # Errors
/// Shapes do not fit, or a head is wider than 128.
pub fn attention_cached(
    g: &mut dyn Recorder,
    qkv: Tensor,
    cache: Tensor,
    positions: Tensor,
    heads: usize,
) -> Result<Tensor, OpError> {
    record_one(g, AttentionCached { heads }, &[qkv, cache, positions])
}

/// The shape rule that both have; returns the width of all heads.
fn check(qkv: &Shape, cache: &Shape, positions: &Shape) -> Result<usize, OpError> {
    ensure(qkv.rank() == 3 && qkv.width() % 3 == 0, || format!("q, k and v are [batch, rows, 3 * width], not {qkv}"))?;
    let (batch, width) = (qkv.0[0], qkv.width() / 3);
    ensure(cache.rank() == 3 && cache.0[0] == batch && cache.width() == 2 * width, || {
        format!("a cache for {qkv} is [{batch}, capacity, {}], not {cache}", 2 * width)
    })?;
    ensure(positions.0 == [batch], || format!("positions are [{batch}], not {positions}"))?;
    Ok(width)
}

impl Operation for CacheWrite {
    fn name(&self) -> &'static str {
        "cache_write"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ffu")?;
        check(&inputs[1].shape, &inputs[0].shape, &inputs[2].shape)?;
        Ok(Vec::new())
    }
    fn updates(&self) -> Vec<usize> {
        vec![0]
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (cache, qkv, positions) = (cx.input(0), cx.input(1), cx.input(2));
        let [batch, time, capacity] = [qkv.ty.shape.0[0], qkv.ty.shape.0[1], cache.ty.shape.0[1]];
        let row = cache.ty.shape.width();
        for range in cx.row_ranges(batch, row * capacity.max(2 * time))? {
            let (to, from) = (cache.rows(range.clone(), capacity * row), qkv.rows(range.clone(), time * row / 2 * 3));
            let vec4 = cx.vec4(row / 2, &[&to, &from]);
            let row = if vec4 { row / 4 } else { row };
            let units = range.len() * time * row;
            let words = [units, time, capacity, row].map(|n| n as u32);
            cx.dispatch(
                kernel!("cache_write").with("VEC", vec4),
                &[to.write(), from.read(), positions.part(range).read()],
                &words,
                units.div_ceil(LANES),
            )?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for CacheWrite {
    fn run<T: Real>(&self, mut inputs: Vec<HostTensor<T>>, _outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let (time, capacity, row) = (inputs[1].shape.0[1], inputs[0].shape.0[1], inputs[0].shape.width());
        let (positions, qkv) = (inputs[2].clone(), inputs[1].clone());
        let mut cache = inputs.swap_remove(0);
        let data = cache.f_mut();
        for (b, &position) in positions.u().iter().enumerate() {
            for t in 0..time {
                let place = position as usize + t;
                if place < capacity {
                    let from = (b * time + t) * row / 2 * 3 + row / 2;
                    data[(b * capacity + place) * row..][..row].copy_from_slice(&qkv.f()[from..from + row]);
                }
            }
        }
        vec![cache]
    }
}

impl Operation for AttentionCached {
    fn name(&self) -> &'static str {
        "attention_cached"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "ffu")?;
        check(&inputs[0].shape, &inputs[1].shape, &inputs[2].shape)?;
        let s = Sizes::of(&inputs[0].shape, self.heads)?;
        Ok(vec![TensorType::f32([s.b, s.t, s.c()])])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // Of a full cache.
        (4 * inputs[0].shape.0[1] * inputs[1].elements() / 2) as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (qkv, cache, positions, y) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
        let s = Sizes::of(&qkv.ty.shape, self.heads)?;
        let capacity = cache.ty.shape.0[1];
        let tile = s.tile(cx, 2);
        let blocks = tile.blocks(s.t);
        for range in cx.row_ranges(s.b, s.c() * (2 * capacity).max(3 * s.t))? {
            let from = qkv.rows(range.clone(), s.t * 3 * s.c());
            let to = y.rows(range.clone(), s.t * s.c());
            let keys = cache.rows(range.clone(), capacity * 2 * s.c());
            let vec4 = cx.vec4(s.d, &[&from, &to, &keys]);
            let kernel = tile
                .variant(kernel!("attention"), "KEYS")
                .with("D", s.d as u32)
                .with("VEC", vec4)
                .with("CAUSAL", true)
                .with("PADDED", false)
                .with("CACHE", true);
            let words =
                [s.t as u32, s.h as u32, blocks as u32, capacity as u32, (s.scale() as f32).to_bits()];
            let bindings = [from.read(), to.write(), keys.read(), positions.part(range.clone()).read()];
            cx.dispatch(kernel, &bindings, &words, range.len() * s.h * blocks)?;
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for AttentionCached {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let mut y = HostTensor::zeros(&outputs[0]);
        let Ok(s) = Sizes::of(&inputs[0].shape, self.heads) else { return vec![y] };
        let (qkv, cache, capacity) = (inputs[0].f(), inputs[1].f(), inputs[1].shape.0[1]);
        let data = y.f_mut();
        for (b, &position) in inputs[2].u().iter().enumerate() {
            for h in 0..s.h {
                for t in 0..s.t {
                    let seen = (position as usize + t + 1).min(capacity);
                    let rows = (0..seen).map(|place| {
                        let at = (b * capacity + place) * 2 * s.c() + h * s.d;
                        (&cache[at..at + s.d], &cache[at + s.c()..at + s.c() + s.d])
                    });
                    let to = &mut data[s.out_at(b, t, h)..][..s.d];
                    attend(&qkv[s.at(b, t, 0, h)..][..s.d], T::from_f64(s.scale()), rows, to);
                }
            }
        }
        vec![y]
    }
}
