//! Fusion by epilogue and by prologue: an operation that declares what may follow within the same kernel takes its consumer on.

use super::record::{Graph, Node};
use crate::ops::{Recorder, Tensor};
use std::collections::HashMap;

/// `nodes` of `g` after fusion. `kept` are tensors that the host reads, which must go on existing.
pub(super) fn fused(g: &Graph, nodes: Vec<Node>, kept: &[Tensor]) -> Vec<Node> {
    let mut nodes: Vec<Option<Node>> = nodes.into_iter().map(Some).collect();
    let mut consumers: HashMap<Tensor, Vec<usize>> = HashMap::new();
    for (place, node) in nodes.iter().flatten().enumerate() {
        for &input in &node.inputs {
            consumers.entry(input).or_default().push(place);
        }
    }
    for place in 0..nodes.len() {
        // A node that has just moved forward to its consumer's place is met again there, and may absorb more.
        let Some(node) = nodes[place].clone() else { continue };
        let Some(&result) = node.outputs.first() else { continue };
        let users = consumers.get(&result).cloned().unwrap_or_default();
        let Some(&next_place) = users.iter().min() else { continue };
        let Some(next) = nodes[next_place].clone() else { continue };
        // The consumer must take the result once, and nothing in between may overwrite what this node reads.
        let positions: Vec<_> = (0..next.inputs.len()).filter(|&i| next.inputs[i] == result).collect();
        let overwritten = nodes[place + 1..next_place]
            .iter()
            .flatten()
            .any(|n| n.op.updates().iter().any(|&u| node.inputs.contains(&n.inputs[u])));
        if positions.len() != 1 || next.outputs.len() != 1 || overwritten {
            continue;
        }
        // Other outputs (a pre-activation kept earlier) would be needed before the new place.
        let later_outputs_used =
            node.outputs[1..].iter().any(|o| consumers.get(o).is_some_and(|users| users.iter().any(|&u| u < next_place)));
        if later_outputs_used {
            continue;
        }
        let keep = users.len() > 1 || kept.contains(&result);
        let types: Vec<_> = next.inputs.iter().map(|&i| g.ty(i).clone()).collect();
        let Some(absorbed) = node.op.absorb(&*next.op, positions[0], &types, keep) else { continue };
        let used = |output: &Tensor| kept.contains(output) || consumers.get(output).is_some_and(|users| !users.is_empty());
        if absorbed.drops && node.outputs[1..].iter().any(used) {
            continue;
        }
        let mut outputs = next.outputs.clone();
        if !absorbed.drops {
            outputs.extend_from_slice(&node.outputs[1..]);
        }
        if keep {
            outputs.push(result);
        }
        let mut inputs = node.inputs.clone();
        inputs.extend(absorbed.extra_inputs.iter().map(|&i| next.inputs[i]));
        for input in &node.inputs {
            if let Some(users) = consumers.get_mut(input) {
                users.iter_mut().filter(|u| **u == place).for_each(|u| *u = next_place);
            }
        }
        if let Some(users) = consumers.get_mut(&result) {
            users.retain(|&u| u != next_place);
        }
        nodes[place] = None;
        nodes[next_place] = Some(Node { op: absorbed.op, inputs, outputs, layer: node.layer, block: None });
    }
    nodes.into_iter().flatten().collect()
}
