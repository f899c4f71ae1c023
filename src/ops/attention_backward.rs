//! The gradient of attention: probabilities are recomputed from the saved log-sum-exp.

use super::{
    attention::{Attention, Sizes, add_scaled, dot},
    attention_direct,
    attention_kernels::{self, Pass},
    *,
};

/// qkv `[B,T,3C]`, o `[B,T,C]`, lse `[B,heads,T]`, dy `[B,T,C]`, and perhaps keys `[B,T]`: the gradient of qkv.
#[derive(Debug)]
pub(super) struct AttentionBackward(pub Attention);

impl Operation for AttentionBackward {
    fn name(&self) -> &'static str {
        "attention_backward"
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, if inputs.len() == 4 { "ffff" } else { "ffffu" })?;
        ensure(inputs[3] == inputs[1], || format!("a gradient of {} for {}", inputs[3].shape, inputs[1].shape))?;
        Ok(vec![inputs[0].clone()])
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let Ok(s) = Sizes::of(&inputs[0].shape, self.0.heads) else { return 0 };
        // The scores and the gradient of the probabilities on both sides, dq, dk and dv.
        self.0.flops_of(s, 7)
    }

    fn half_input(&self, i: usize) -> Half {
        if i == 0 || i == 1 || i == 3 { Half::Accepted } else { Half::Never }
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (mut qkv, o, lse, mut dy, dqkv) = (cx.input(0), cx.input(1), cx.input(2), cx.input(3), cx.output(0));
        let keys = (cx.inputs.len() > 4).then(|| cx.input(4));
        let s = Sizes::of(&qkv.ty.shape, self.0.heads)?;
        let delta = cx.scratch(s.b * s.h * s.t);
        let tile = s.tile(cx, 1);
        let vec4 = cx.vec4(s.d, &[&qkv.all(), &dqkv.all(), &o.all(), &dy.all()]);
        let flops = self.flops(std::slice::from_ref(&qkv.ty), &[]);
        let read = [&qkv.all(), &dy.all()];
        let tiled = attention_kernels::choose(cx, s, Pass::Backward, (self.0.words(keys.is_some()), &read, vec4), flops);
        let direct = tiled.is_none() && vec4 && attention_direct::fits(cx, s, &[&qkv, &dy]);
        let rows = if direct { attention_direct::blocks(s.t) } else { tile.blocks(s.t) };
        let blocks = tiled.map_or(rows, |block| block.blocks(s.t));
        if direct {
            (qkv, dy) = (cx.imaged(&qkv), cx.imaged(&dy));
        }
        for range in cx.row_ranges(s.b, s.t * 3 * s.c())? {
            let wide = |x: &Operand| x.rows(range.clone(), s.t * 3 * s.c());
            let narrow = |x: &Operand| x.rows(range.clone(), s.t * s.c());
            let single = |x: &Operand| x.rows(range.clone(), s.h * s.t);
            // The query side first: it makes delta.
            for query in [true, false] {
                let mut bindings = vec![wide(&qkv).read(), narrow(&dy).read(), single(&lse).read()];
                bindings.push(if query { single(&delta).write() } else { single(&delta).read() });
                bindings.push(wide(&dqkv).write());
                if query {
                    bindings.push(narrow(&o).read());
                }
                bindings.extend(keys.as_ref().map(|keys| keys.rows(range.clone(), s.t).read()));
                let kernel = match tiled {
                    Some(block) => block.kernel(cx.caps, s.d, Pass::Backward),
                    None if direct => attention_direct::kernel(s.d, Pass::Backward),
                    None => {
                        let kernel = tile.variant(kernel!("attention_backward"), "OTHERS").with("D", s.d as u32);
                        kernel.with("VEC", vec4)
                    }
                };
                let (kernel, band) = self.0.masked(kernel, keys.is_some(), s.t);
                let words = [s.t as u32, s.h as u32, blocks as u32, (s.scale() as f32).to_bits()];
                let words: Vec<_> = words.into_iter().chain(band).collect();
                cx.dispatch(kernel.with("QUERY", query), &bindings, &words, range.len() * s.h * blocks)?;
            }
        }
        Ok(())
    }

    host_reference!();
}

impl Reference for AttentionBackward {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let mut gradient = HostTensor::zeros(&outputs[0]);
        let Ok(s) = Sizes::of(&inputs[0].shape, self.0.heads) else { return vec![gradient] };
        let (qkv, o, lse, dy) = (inputs[0].f(), inputs[1].f(), inputs[2].f(), inputs[3].f());
        let mask = inputs.get(4).map(HostTensor::u);
        let scale = T::from_f64(s.scale());
        let d = gradient.f_mut();
        for b in 0..s.b {
            for h in 0..s.h {
                for t in 0..s.t {
                    let part = |t, third| &qkv[s.at(b, t, third, h)..][..s.d];
                    let (out, dout) = (&o[s.out_at(b, t, h)..][..s.d], &dy[s.out_at(b, t, h)..][..s.d]);
                    let delta = dot(out, dout);
                    for k in s.keys(&self.0, mask, b, t) {
                        let p = (dot(part(t, 0), part(k, 1)) * scale - lse[s.row(b, h, t)]).exp();
                        let ds = p * (dot(dout, part(k, 2)) - delta) * scale;
                        add_scaled(&mut d[s.at(b, t, 0, h)..][..s.d], ds, part(k, 1));
                        add_scaled(&mut d[s.at(b, k, 1, h)..][..s.d], ds, part(t, 0));
                        add_scaled(&mut d[s.at(b, k, 2, h)..][..s.d], p, dout);
                    }
                }
            }
        }
        vec![gradient]
    }
}
