//! A product of few rows with what goes before it and what comes after in the same dispatch: the layer norm of its rows as a
//! prologue, and the draw of a column as an epilogue. Where the kernel at hand does not do it, they are dispatches of their own.

use super::{MatMul, packed};
use crate::ops::{
    layer_norm::{LayerNorm, Normalised},
    sample::SampleRows,
    *,
};

/// `x [..,k]`, with a norm `gamma [k], beta [k]`, then the product's inputs but the first, then the draw's but the first.
#[derive(Debug, Clone, Copy)]
pub(in crate::ops) struct Skinny {
    norm: Option<LayerNorm>,
    product: MatMul,
    draw: Option<SampleRows>,
}

/// More rows are worth the norm's own dispatch, and their logits.
const FEW_ROWS: usize = packed::FEW_ROWS;

/// `norm`, then `next`, which takes its result as input `position`, if that is a product of few rows with a shared matrix; `types` are
/// those of `next`'s inputs.
pub(in crate::ops) fn normalised(
    norm: LayerNorm,
    next: &dyn Operation,
    position: usize,
    types: &[TensorType],
) -> Option<Absorbed> {
    let product = *next.as_any().downcast_ref::<MatMul>()?;
    let few = types[0].shape.rows() <= FEW_ROWS && types[1].shape.rank() == 2 && !product.layout.transpose_a;
    (position == 0 && few).then(|| Absorbed {
        op: Arc::new(Skinny { norm: Some(norm), product, draw: None }),
        extra_inputs: (1..types.len()).collect(),
        drops: true,
    })
}

/// `product`, then `next`, if that is a draw from all of a row's columns; `types` are those of `next`'s inputs.
pub(super) fn drawn(product: &MatMul, next: &dyn Operation, position: usize, types: &[TensorType]) -> Option<Absorbed> {
    let draw = *next.as_any().downcast_ref::<SampleRows>()?;
    let few = types[0].shape.rows() <= FEW_ROWS && !product.layout.transpose_a;
    let whole = !product.bias && product.rest.is_none() && product.activation.is_none() && !product.keep;
    (position == 0 && few && whole && draw.plain()).then(|| Absorbed {
        op: Arc::new(Skinny { norm: None, product: *product, draw: Some(draw) }),
        extra_inputs: (1..types.len()).collect(),
        drops: false,
    })
}

impl Skinny {
    /// Where the product's second input is.
    fn weight(&self) -> usize {
        if self.norm.is_some() { 3 } else { 1 }
    }
    /// Where the draw's second input is.
    fn drawing(&self) -> usize {
        self.weight() + self.product.inputs() - 1
    }
    /// The product's inputs with `x` as the first.
    fn of_product<T: Clone>(&self, x: T, inputs: &[T]) -> Vec<T> {
        std::iter::once(x).chain(inputs[self.weight()..self.drawing()].iter().cloned()).collect()
    }
    /// The draw's inputs with `logits` as the first.
    fn of_draw<T: Clone>(&self, logits: T, inputs: &[T]) -> Vec<T> {
        std::iter::once(logits).chain(inputs[self.drawing()..].iter().cloned()).collect()
    }
    /// The product's results for the types of all inputs.
    fn products(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        self.product.infer(&self.of_product(inputs[0].clone(), inputs))
    }
}

impl Operation for Skinny {
    fn name(&self) -> &'static str {
        match (self.norm.is_some(), self.draw.is_some()) {
            (true, true) => "layer_norm+matmul+sample",
            (true, false) => "layer_norm+matmul",
            (false, _) => "matmul+sample",
        }
    }

    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        let products = self.products(inputs)?;
        match &self.draw {
            Some(draw) => draw.infer(&self.of_draw(products[0].clone(), inputs)),
            None => Ok(products),
        }
    }

    fn updates(&self) -> Vec<usize> {
        self.draw.map_or(Vec::new(), |draw| draw.updates().into_iter().map(|i| self.drawing() + i - 1).collect())
    }

    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        let (products, x) = (self.products(inputs).unwrap_or_default(), inputs[0].clone());
        let before = self.norm.map_or(0, |norm| norm.flops(&inputs[..1], &[]));
        let after =
            self.draw.zip(products.first()).map_or(0, |(draw, logits)| draw.flops(&self.of_draw(logits.clone(), inputs), &[]));
        before + self.product.flops(&self.of_product(x, inputs), &products) + after
    }

    fn packed_input(&self, i: usize, packing: &Packing) -> bool {
        i == self.weight() && self.product.packed_input(1, packing)
    }

    fn absorb(&self, next: &dyn Operation, position: usize, types: &[TensorType], keep: bool) -> Option<Absorbed> {
        if self.draw.is_some() {
            return None;
        }
        let Absorbed { op, extra_inputs, drops } = self.product.absorb(next, position, types, keep)?;
        let op = match (op.as_any().downcast_ref::<MatMul>(), op.as_any().downcast_ref::<Self>()) {
            (Some(&product), _) => Self { product, ..*self },
            (_, Some(&drawn)) => Self { norm: self.norm, ..drawn },
            _ => return None,
        };
        Some(Absorbed { op: Arc::new(op), extra_inputs, drops })
    }

    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (inputs, outputs) = (std::mem::take(&mut cx.inputs), std::mem::take(&mut cx.outputs));
        let known = cx.decisions.len();
        let result = self.lower_with(cx, &inputs, &outputs);
        // Kernels are measured with the operation's own operands; a draw has no result that could be compared.
        if self.draw.is_some() {
            cx.decisions.truncate(known);
        }
        for decision in &mut cx.decisions[known..] {
            decision.stored = inputs.iter().map(|input| input.storage).collect();
            decision.written = outputs.iter().map(|output| output.storage).collect();
        }
        (cx.inputs, cx.outputs) = (inputs, outputs);
        result
    }

    host_reference!();
}

impl Skinny {
    fn lower_with(&self, cx: &mut Lowering<'_>, inputs: &[Operand], outputs: &[Operand]) -> Result<(), OpError> {
        let mut x = inputs[0].clone();
        let packing = inputs[self.weight()].storage.packing();
        let within = self.norm.zip(packing).filter(|(_, packing)| packed::normalises(cx, packing, &inputs[..3]));
        if let (Some(norm), None) = (&self.norm, &within) {
            let h = Operand { ty: x.ty.clone(), ..cx.scratch(x.ty.elements()) };
            let statistics = [cx.scratch(x.ty.shape.rows()), cx.scratch(x.ty.shape.rows())];
            cx.inputs = vec![x, inputs[1].clone(), inputs[2].clone()];
            cx.outputs = std::iter::once(h.clone()).chain(statistics).collect();
            cx.besides(|cx| norm.lower(cx))?;
            x = h;
        }
        cx.inputs = self.of_product(x, inputs);
        cx.outputs = outputs.to_vec();
        let types: Vec<_> = cx.inputs.iter().map(|input| input.ty.clone()).collect();
        let norm =
            within.map(|(norm, _)| Normalised { gamma: inputs[1].clone(), beta: inputs[2].clone(), epsilon: norm.epsilon });
        let Some(draw) = &self.draw else {
            return self.product.lower_after(cx, norm);
        };
        let logits = self.product.infer(&types)?.swap_remove(0);
        if let Some(packing) = packing.filter(|packing| types[0].shape.rows() <= packed::few_rows(cx.caps, packing)) {
            let given = self.of_draw(inputs[0].clone(), inputs);
            return packed::lower_drawn(&self.product, &packing, cx, norm, (draw, &given));
        }
        let logits = Operand { ty: logits.clone(), ..cx.scratch(logits.elements()) };
        cx.outputs = vec![logits.clone()];
        self.product.lower(cx)?;
        cx.inputs = self.of_draw(logits, inputs);
        cx.outputs = outputs.to_vec();
        cx.besides(|cx| draw.lower(cx))
    }
}

impl Reference for Skinny {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let types: Vec<_> = inputs.iter().map(HostTensor::ty).collect();
        let x = match &self.norm {
            Some(norm) => norm.run(inputs[..3].to_vec(), &types[..1]).swap_remove(0),
            None => inputs[0].clone(),
        };
        let products = self.products(&types).unwrap_or_default();
        let mut results = self.product.run(self.of_product(x, &inputs), &products);
        match &self.draw {
            Some(draw) => draw.run(self.of_draw(results.swap_remove(0), &inputs), outputs),
            None => results,
        }
    }
}
