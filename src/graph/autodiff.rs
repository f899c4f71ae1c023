//! Reverse-mode automatic differentiation as a graph transformation: it records the backward pass into the same graph.

use super::record::{Graph, Source};
use crate::ops::{self, OpError, Recorded, Recorder, Tensor};
use std::collections::{HashMap, HashSet};

/// Records the gradients of the scalar `loss` with respect to `wrt`, and returns them in that order; `None` where the
/// loss does not depend on a tensor. A tensor used several times gets the sum.
///
/// Nodes of a recomputation block ([`Graph::recomputed`]) are recorded again before the block's backward pass, so that
/// nothing inside the block has to be kept from the forward pass.
///
/// # Errors
/// `loss` is not a scalar, or an operation on the way has no gradient.
pub fn gradients(g: &mut Graph, loss: Tensor, wrt: &[Tensor]) -> Result<Vec<Option<Tensor>>, OpError> {
    if g.ty(loss).elements() != 1 {
        return Err(OpError::new(format!("a loss is a scalar, not {}", g.ty(loss).shape)));
    }
    let needed = depends_on(g, wrt);
    let seed = g.fill(g.ty(loss).clone(), 1.0);
    let mut grads: HashMap<Tensor, Tensor> = HashMap::from([(loss, seed)]);
    let mut again = Recomputed::default();
    let last = match g.source(loss) {
        Source::Node(index) => *index + 1,
        Source::Leaf(_) => 0,
    };
    for index in (0..last).rev() {
        let node = g.nodes()[index].clone();
        let upstream: Vec<_> = node.outputs.iter().map(|o| grads.get(o).copied()).collect();
        let wanted: Vec<_> = node.inputs.iter().map(|i| needed.contains(i)).collect();
        if upstream.iter().all(Option::is_none) || !wanted.contains(&true) {
            continue;
        }
        g.set_layer(node.layer.clone());
        again.enter(g, node.block);
        let inputs: Vec<_> = node.inputs.iter().map(|&t| again.resolve(t)).collect();
        let outputs: Vec<_> = node.outputs.iter().map(|&t| again.resolve(t)).collect();
        let recorded = Recorded { inputs: &inputs, outputs: &outputs, grads: &upstream, wanted: &wanted };
        let found = node.op.backward(g, &recorded).map_err(|mut error| {
            if error.context.is_empty() {
                error.context = format!("backward of {} in {}", node.op.name(), node.layer);
            }
            error
        })?;
        for ((&input, grad), wanted) in node.inputs.iter().zip(found).zip(wanted) {
            let Some(grad) = grad.filter(|_| wanted) else { continue };
            let sum = match grads.get(&input) {
                Some(&before) => ops::add(g, before, grad)?,
                None => grad,
            };
            grads.insert(input, sum);
        }
    }
    g.set_layer("".into());
    Ok(wrt.iter().map(|t| grads.get(t).copied()).collect())
}

/// All tensors whose value depends on one of `wrt`.
fn depends_on(g: &Graph, wrt: &[Tensor]) -> HashSet<Tensor> {
    let mut set: HashSet<_> = wrt.iter().copied().collect();
    for node in g.nodes() {
        if node.inputs.iter().any(|i| set.contains(i)) {
            set.extend(&node.outputs);
        }
    }
    set
}

/// Tensors that have been recorded again, by their first recording.
#[derive(Default)]
struct Recomputed {
    block: Option<u32>,
    copies: HashMap<Tensor, Tensor>,
}

impl Recomputed {
    /// Records the nodes of `block` again, unless it is the block that we are in.
    fn enter(&mut self, g: &mut Graph, block: Option<u32>) {
        if block == self.block {
            return;
        }
        self.block = block;
        self.copies.clear();
        let Some(block) = block else { return };
        let members: Vec<_> = (0..g.nodes().len()).filter(|&i| g.nodes()[i].block == Some(block)).collect();
        for index in members {
            let node = g.nodes()[index].clone();
            // An operation with an effect must not have it twice.
            if !node.op.updates().is_empty() {
                continue;
            }
            let inputs: Vec<_> = node.inputs.iter().map(|&t| self.resolve(t)).collect();
            let outputs = g.repeat(index, &inputs);
            self.copies.extend(node.outputs.iter().copied().zip(outputs));
        }
    }

    fn resolve(&self, tensor: Tensor) -> Tensor {
        self.copies.get(&tensor).copied().unwrap_or(tensor)
    }
}
