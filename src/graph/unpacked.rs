//! Variables in narrow storage: operations whose kernels read them packed get them so, all others a copy that is unpacked before.

use super::{
    GraphError, PlanOptions,
    lowered::{Copies, Root},
    record::{Leaf, Node},
};
use crate::{
    gpu::Capabilities,
    ops::{Dispatch, Lowering, OpError, Operand, Storage, Tensor, lower_unpacking},
};
use std::collections::HashMap;

/// Marks the memory of the variables that `options` say are packed, and their operands.
pub(super) fn mark(
    roots: &mut [Root],
    operands: &mut HashMap<Tensor, Operand>,
    outputs: &[Tensor],
    options: &PlanOptions,
) -> Result<(), GraphError> {
    for root in roots.iter_mut() {
        let Some(Leaf::Variable(name)) = &root.leaf else { continue };
        let Some(packing) = options.packed.get(name) else { continue };
        if ![packing.shape().elements(), packing.stored_rows() * packing.k].contains(&root.elements) {
            let (found, expected) = (packing.shape().to_string(), format!("{} elements", root.elements));
            return Err(GraphError::Variable { name: name.clone(), found, expected });
        }
        root.storage = Storage::Packed(*packing);
    }
    for operand in operands.values_mut().filter(|operand| roots[operand.root].storage.packing().is_some()) {
        operand.storage = roots[operand.root].storage;
    }
    match outputs.iter().find(|output| operands[output].storage.packing().is_some()) {
        Some(_) => Err(OpError::new("a weight in narrow storage cannot be the output of a plan").into()),
        None => Ok(()),
    }
}

/// Unpacked copies of weights.
#[derive(Default)]
pub(super) struct Unpacked(Copies);

impl Unpacked {
    /// Gives `node` unpacked copies of what its kernels do not read packed, and returns the dispatches that make those that are not
    /// there yet.
    pub fn unpack(
        &mut self,
        caps: &Capabilities,
        node: &Node,
        inputs: &mut [Operand],
        roots: &mut Vec<Root>,
    ) -> Result<Vec<Dispatch>, OpError> {
        let mut dispatches = Vec::new();
        for (i, input) in inputs.iter_mut().enumerate() {
            let Some(packing) = input.storage.packing() else { continue };
            let name = match &roots[input.root].leaf {
                Some(Leaf::Variable(name)) => name.clone(),
                _ => String::new(),
            };
            if node.op.updates().contains(&i) {
                return Err(OpError::new(format!(
                    "{name} is stored as {}; only weights in 32 bits can be trained",
                    packing.format
                )));
            }
            let whole = input.at == 0 && packing.is(&input.ty.shape);
            if whole && node.op.packed_input(i, &packing) {
                continue;
            }
            if packing.transposed {
                return Err(OpError::new(format!(
                    "{name} is stored as {}, which only products along its rows read; load it with --weights f32",
                    packing.format
                )));
            }
            let rows = roots[input.root].elements / packing.k;
            let from = Operand { at: 0, ..input.clone() };
            let unpack = |cx: &mut Lowering<'_>, copy: &Operand| lower_unpacking(cx, (&from, rows), copy);
            let root = self.0.of((input.root, Storage::F32), (caps, &mut *roots), &mut dispatches, unpack)?;
            *input = Operand { root, storage: Storage::F32, ..input.clone() };
        }
        Ok(dispatches)
    }
}
