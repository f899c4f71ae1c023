//! The key-value cache of decoding: `[B, capacity, 2C]`, each row k, then v, with room for so many tokens from the start.

use super::{
    attention::{Sizes, attend},
    *,
};

/// Lanes of a workgroup that copies.
const LANES: usize = 64;
/// Those of one that attends, on a GPU.
const WIDE: usize = 256;
/// Queries that such a workgroup has at most.
const ROWS: usize = 4;
/// Keys that it can have, and those that it has where they are split over several.
const MOST_KEYS: usize = 512;
const SPLIT_KEYS: usize = 256;

/// `cache [B,N,2C], qkv [B,T,3C], positions [B]`; updates the cache.
#[derive(Debug)]
struct CacheWrite;

/// `qkv [B,T,3C], cache [B,N,2C], positions [B] -> [B,T,C]`; updates the cache.
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
/// and values before it in `cache` `[B,N,2C]` and to their own up to their place: `[B,T,C]`. Their own are put into the cache;
/// places beyond it are dropped, and not attended to.
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
    fn updates(&self) -> Vec<usize> {
        vec![1]
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        // Of a full cache.
        (4 * inputs[0].shape.0[1] * inputs[1].elements() / 2) as u64
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (qkv, cache, positions, y) = (cx.input(0), cx.input(1), cx.input(2), cx.output(0));
        let s = Sizes::of(&qkv.ty.shape, self.heads)?;
        let capacity = cache.ty.shape.0[1];
        for range in cx.row_ranges(s.b, s.c() * (2 * capacity).max(3 * s.t))? {
            let piece = Piece {
                s: Sizes { b: range.len(), ..s },
                capacity,
                qkv: qkv.rows(range.clone(), s.t * 3 * s.c()),
                y: y.rows(range.clone(), s.t * s.c()),
                cache: cache.rows(range.clone(), capacity * 2 * s.c()),
                positions: positions.part(range),
            };
            let vec4 = cx.vec4(s.d, &[&piece.qkv, &piece.y, &piece.cache]);
            if cx.caps.software || !vec4 || (cx.caps.max_invocations as usize) < WIDE {
                piece.by_rows(cx, vec4)?;
            } else {
                piece.by_keys(cx)?;
            }
        }
        Ok(())
    }
    host_reference!();
}

/// Texts whose cache fits a binding.
struct Piece {
    s: Sizes,
    capacity: usize,
    qkv: Window,
    y: Window,
    cache: Window,
    positions: Window,
}

impl Piece {
    /// A query a lane, which software adapters like better.
    fn by_rows(self, cx: &mut Lowering<'_>, vec4: bool) -> Result<(), OpError> {
        let s = self.s;
        let tile = s.tile(cx, 2);
        let blocks = tile.blocks(s.t);
        let kernel = tile
            .variant(kernel!("attention"), "KEYS")
            .with("D", s.d as u32)
            .with("VEC", vec4)
            .with("CAUSAL", true)
            .with("PADDED", false)
            .with("BAND", false)
            .with("CACHE", true);
        let words = [s.t as u32, s.h as u32, blocks as u32, self.capacity as u32, (s.scale() as f32).to_bits()];
        let bindings = [self.qkv.read(), self.y.write(), self.cache.write(), self.positions.read()];
        cx.dispatch(kernel, &bindings, &words, s.b * s.h * blocks)
    }

    /// A key a lane. A cache of few keys takes one dispatch.
    fn by_keys(self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let s = self.s;
        let splits = if self.capacity <= MOST_KEYS { 1 } else { self.capacity.div_ceil(SPLIT_KEYS) };
        let rows = [1, 2, ROWS].into_iter().find(|&rows| rows >= s.t).unwrap_or(ROWS);
        let blocks = s.t.div_ceil(rows);
        let parts = (splits > 1).then(|| cx.scratch(s.b * s.h * s.t * splits * (s.d + 4)));
        let kernel = kernel!("attention_decode")
            .with("WG", WIDE as u32)
            .with("SUBGROUP", false)
            .with("ROWS", rows as u32)
            .with("RANGE", if splits > 1 { SPLIT_KEYS } else { MOST_KEYS } as u32)
            .with("D", s.d as u32)
            .with("SPLIT", splits > 1);
        let words = [s.t, s.h, blocks, splits, self.capacity].map(|n| n as u32);
        let words: Vec<_> = words.into_iter().chain([(s.scale() as f32).to_bits()]).collect();
        let to = parts.as_ref().map_or_else(|| self.y.clone(), Operand::all);
        let bindings = [self.qkv.read(), to.write(), self.cache.write(), self.positions.read()];
        cx.dispatch(kernel, &bindings, &words, s.b * s.h * blocks * splits)?;
        let Some(parts) = parts else { return Ok(()) };
        let units = self.y.len / 4;
        let words = [units, s.t, s.h, splits].map(|n| n as u32);
        let kernel = kernel!("attention_combine").with("D", s.d as u32);
        cx.besides(|cx| cx.dispatch(kernel, &[parts.all().read(), self.y.write()], &words, units.div_ceil(LANES)))
    }
}

impl Reference for AttentionCached {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let mut y = HostTensor::zeros(&outputs[0]);
        let written = vec![inputs[1].clone(), inputs[0].clone(), inputs[2].clone()];
        let written = CacheWrite.run(written, &[]).swap_remove(0);
        let Ok(s) = Sizes::of(&inputs[0].shape, self.heads) else { return vec![y, written] };
        let (qkv, cache, capacity) = (inputs[0].f(), written.f(), inputs[1].shape.0[1]);
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
        vec![y, written]
    }
}
