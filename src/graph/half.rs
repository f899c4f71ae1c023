//! What a mixed plan keeps in 16-bit floats (Micikevicius et al., "Mixed precision training", 2018): activations between
//! operations whose kernels take them so, and a rounded copy of each weight that products read. The weights themselves, their
//! gradients, statistics and whatever the host reads stay in 32 bits.

use super::{
    lowered::{Copies, Root},
    record::{Leaf, Node},
};
use crate::{
    gpu::Capabilities,
    ops::{DType, Dispatch, Half, Lowering, OpError, Operand, Storage, Tensor, TensorType, lower_rounding},
};
use std::collections::HashMap;

/// How each piece of memory is stored: in 16 bits where every kernel that writes or reads it can. `outputs` the host reads, and it
/// gives all inputs in 32 bits but `halves`. Single numbers stay as they are: they save nothing, and a sum over rows can be larger than
/// 16 bits can say.
pub(super) fn storages(
    nodes: &[Node],
    roots: &[Root],
    operands: &HashMap<Tensor, Operand>,
    outputs: &[Tensor],
    halves: &[Tensor],
) -> Vec<Storage> {
    let mut half: Vec<_> = roots.iter().map(|root| root.leaf.is_none()).collect();
    for operand in halves.iter().filter_map(|tensor| operands.get(tensor)) {
        half[operand.root] |= matches!(roots[operand.root].leaf, Some(Leaf::Input(_)));
    }
    for node in nodes {
        let types: Vec<_> = node.inputs.iter().map(|t| operands[t].ty.clone()).collect();
        if node.op.view(&types).is_some() {
            continue;
        }
        for (i, tensor) in node.inputs.iter().enumerate() {
            half[operands[tensor].root] &= operands[tensor].ty.dtype == DType::F32 && node.op.half_input(i) != Half::Never;
        }
        for i in node.op.updates() {
            half[operands[&node.inputs[i]].root] = false;
        }
        for (i, tensor) in node.outputs.iter().enumerate() {
            let ty = &operands[tensor].ty;
            half[operands[tensor].root] &= ty.dtype == DType::F32 && ty.elements() > 1 && node.op.half_output(i);
        }
    }
    for tensor in outputs {
        half[operands[tensor].root] = false;
    }
    // From the last sum back to what it is made of; again while anything changes, since a view's source may stand further back.
    loop {
        let mut changed = false;
        for node in nodes.iter().rev() {
            let whole = node.outputs.first().is_some_and(|sum| !half[operands[sum].root]);
            for (i, tensor) in node.inputs.iter().enumerate().filter(|_| whole) {
                let root = operands[tensor].root;
                if node.op.half_input(i) == Half::Added && half[root] {
                    (half[root], changed) = (false, true);
                }
            }
        }
        if !changed {
            break;
        }
    }
    half.into_iter().map(|half| if half { Storage::F16 } else { Storage::F32 }).collect()
}

/// Rounded copies of weights.
#[derive(Default)]
pub(super) struct Roundings(Copies);

impl Roundings {
    /// Gives `node` the rounded copies of the weights that it wants in 16 bits, and returns the dispatches that make those that
    /// are not there yet.
    pub fn round_weights(
        &mut self,
        caps: &Capabilities,
        node: &Node,
        inputs: &mut [Operand],
        roots: &mut Vec<Root>,
    ) -> Result<Vec<Dispatch>, OpError> {
        let mut dispatches = Vec::new();
        for (i, input) in inputs.iter_mut().enumerate() {
            let weight = matches!(roots[input.root].leaf, Some(Leaf::Variable(_))) && input.storage == Storage::F32;
            if !weight || node.op.half_input(i) != Half::Wanted {
                continue;
            }
            let elements = roots[input.root].elements;
            let from = Operand { at: 0, ty: TensorType::f32([elements]), ..input.clone() };
            let round = |cx: &mut Lowering<'_>, copy: &Operand| lower_rounding(cx, &from, copy);
            let root = self.0.of((input.root, Storage::F16), (caps, &mut *roots), &mut dispatches, round)?;
            *input = Operand { root, storage: Storage::F16, ..input.clone() };
        }
        Ok(dispatches)
    }

    /// A weight that `node` has changed is to be rounded again before its next use.
    pub fn forget_updated(&mut self, node: &Node, operands: &HashMap<Tensor, Operand>) {
        for i in node.op.updates() {
            self.0.forget(operands[&node.inputs[i]].root);
        }
    }
}
