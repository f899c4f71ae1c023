//! The CPU interpreter: runs a graph through the operations' references, in f32 (the fallback) or f64 (the oracle).

use super::record::{Graph, Leaf, Source};
use crate::ops::{HostTensor, Operation, Real, Tensor, TensorType};
use std::{collections::HashMap, time::Instant};

/// A float type that a whole graph can be evaluated in.
pub trait Evaluate: Real {
    /// Calls the operation's reference in this type.
    fn call(op: &dyn Operation, inputs: Vec<HostTensor<Self>>, outputs: &[TensorType]) -> Vec<HostTensor<Self>>;
}
impl Evaluate for f32 {
    fn call(op: &dyn Operation, inputs: Vec<HostTensor<Self>>, outputs: &[TensorType]) -> Vec<HostTensor<Self>> {
        op.reference_f32(inputs, outputs)
    }
}
impl Evaluate for f64 {
    fn call(op: &dyn Operation, inputs: Vec<HostTensor<Self>>, outputs: &[TensorType]) -> Vec<HostTensor<Self>> {
        op.reference_f64(inputs, outputs)
    }
}

/// Nodes that `wanted` or an update of a variable depends on, in order.
pub(super) fn live_nodes(g: &Graph, wanted: &[Tensor]) -> Vec<usize> {
    let mut needed = vec![false; g.tensors()];
    for tensor in wanted {
        needed[tensor.0 as usize] = true;
    }
    let mut live = Vec::new();
    for (index, node) in g.nodes().iter().enumerate().rev() {
        if !node.op.updates().is_empty() || node.outputs.iter().any(|o| needed[o.0 as usize]) {
            live.push(index);
            for input in &node.inputs {
                needed[input.0 as usize] = true;
            }
        }
    }
    live.reverse();
    live
}

/// Evaluates `wanted`. `inputs` are the fed inputs; `variables` are read, and updated where operations say so. Tensors are
/// dropped after their last use.
pub fn evaluate<T: Evaluate>(
    g: &Graph,
    inputs: &HashMap<Tensor, HostTensor<T>>,
    variables: &mut HashMap<String, HostTensor<T>>,
    wanted: &[Tensor],
) -> HashMap<Tensor, HostTensor<T>> {
    evaluate_watched(g, inputs, variables, wanted, None)
}

/// [`evaluate`], which tells `watch` when each live node begins and ends.
pub(super) fn evaluate_watched<T: Evaluate>(
    g: &Graph,
    inputs: &HashMap<Tensor, HostTensor<T>>,
    variables: &mut HashMap<String, HostTensor<T>>,
    wanted: &[Tensor],
    mut watch: Option<&mut dyn FnMut(Instant, Instant)>,
) -> HashMap<Tensor, HostTensor<T>> {
    use crate::ops::Recorder;
    let live = live_nodes(g, wanted);
    let mut last_use = HashMap::new();
    for &index in &live {
        for input in &g.nodes()[index].inputs {
            last_use.insert(*input, index);
        }
    }
    let mut values: HashMap<Tensor, HostTensor<T>> = HashMap::new();
    let leaf = |tensor: Tensor, variables: &HashMap<String, HostTensor<T>>| match g.source(tensor) {
        Source::Leaf(Leaf::Variable(name)) => variables.get(name).cloned().unwrap_or_else(|| HostTensor::zeros(g.ty(tensor))),
        Source::Leaf(Leaf::Constant(value)) => {
            let ty = g.ty(tensor);
            match ty.dtype {
                crate::ops::DType::F32 => {
                    HostTensor::floats(ty.shape.clone(), vec![T::from_f64(f64::from(*value)); ty.elements()])
                }
                crate::ops::DType::U32 => HostTensor::uints(ty.shape.clone(), vec![*value as u32; ty.elements()]),
            }
        }
        _ => inputs.get(&tensor).cloned().unwrap_or_else(|| HostTensor::zeros(g.ty(tensor))),
    };
    for &index in &live {
        let begin = watch.is_some().then(Instant::now);
        let node = &g.nodes()[index];
        let updates = node.op.updates();
        let taken: Vec<_> = node
            .inputs
            .iter()
            .enumerate()
            .map(|(i, &input)| {
                if updates.contains(&i)
                    && let Source::Leaf(Leaf::Variable(name)) = g.source(input)
                    && let Some(owned) = variables.remove(name)
                {
                    // Taken out, so that the operation changes it in place instead of copying it.
                    return owned;
                }
                values.get(&input).cloned().unwrap_or_else(|| leaf(input, variables))
            })
            .collect();
        let types: Vec<_> = node.outputs.iter().map(|&o| g.ty(o).clone()).collect();
        let mut results = T::call(&*node.op, taken, &types).into_iter();
        for (&output, value) in node.outputs.iter().zip(results.by_ref()) {
            values.insert(output, value);
        }
        for (&update, value) in updates.iter().zip(results) {
            if let Source::Leaf(Leaf::Variable(name)) = g.source(node.inputs[update]) {
                variables.insert(name.clone(), value);
            } else {
                values.insert(node.inputs[update], value);
            }
        }
        for input in &node.inputs {
            if last_use.get(input) == Some(&index) && !wanted.contains(input) {
                values.remove(input);
            }
        }
        if let (Some(watch), Some(begin)) = (&mut watch, begin) {
            watch(begin, Instant::now());
        }
    }
    wanted.iter().map(|&t| (t, values.get(&t).cloned().unwrap_or_else(|| leaf(t, variables)))).collect()
}
