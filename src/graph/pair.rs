//! Pairing: an operation and one that comes later, usually of the backward pass, become one where one kernel does both.

use super::record::{Graph, Node};
use crate::ops::{Link, Recorder, Tensor};
use std::{
    collections::{HashMap, HashSet},
    ops::Range,
};

/// `nodes` after pairing. `kept` are tensors that the host reads, which must go on existing.
///
/// A pair stands where its first half stood; what makes the other inputs of the second half is moved before it.
pub(super) fn paired(g: &Graph, mut nodes: Vec<Node>, kept: &[Tensor]) -> Vec<Node> {
    let mut place = 0;
    while place < nodes.len() {
        if let Some(pair) = find(g, &nodes, place, kept) {
            place = apply(&mut nodes, place, pair);
        }
        place += 1;
    }
    nodes
}

/// A pair that can be made.
struct Pair {
    /// The place of the second half.
    second: usize,
    /// What both become.
    node: Node,
    /// Places of the nodes that are to run before it, in order.
    before: Vec<usize>,
}

/// The pair whose first half is at `first`, if there is one.
fn find(g: &Graph, nodes: &[Node], first: usize, kept: &[Tensor]) -> Option<Pair> {
    let node = &nodes[first];
    let (result, saved) = node.outputs.split_first()?;
    if saved.is_empty() {
        return None;
    }
    // All that is saved is for the second half alone.
    let reads_saved = |n: &Node| n.inputs.iter().any(|i| saved.contains(i));
    let mut readers = (first + 1..nodes.len()).filter(|&i| reads_saved(&nodes[i]));
    let second = readers.next()?;
    let next = &nodes[second];
    if readers.next().is_some() || saved.iter().any(|t| kept.contains(t)) || next.inputs.contains(result) {
        return None;
    }
    let links: Vec<_> = next.inputs.iter().map(|t| link(node, *t)).collect();
    let paired = node.op.pair(&*next.op, &links)?;
    let others: Vec<_> = paired.extra_inputs.iter().map(|&i| next.inputs[i]).collect();
    let before = makers(nodes, first..second, &others)?;
    // What is read earlier than it was must be the same there.
    let memory = Memory::of(g, nodes);
    let updates = |n: &Node| n.op.updates().into_iter().map(|i| memory.of_tensor(n.inputs[i])).collect::<Vec<_>>();
    let updated: HashSet<_> = nodes[first..second].iter().flat_map(updates).collect();
    let stays = |n: &Node| n.op.updates().is_empty() && n.inputs.iter().all(|&t| !updated.contains(&memory.of_tensor(t)));
    if !before.iter().map(|&i| &nodes[i]).chain([next]).all(stays) {
        return None;
    }
    let mut outputs = vec![*result];
    outputs.extend_from_slice(&next.outputs);
    let inputs = node.inputs.iter().copied().chain(others).collect();
    Some(Pair { second, node: Node { op: paired.op, inputs, outputs, layer: node.layer.clone(), block: None }, before })
}

fn link(node: &Node, tensor: Tensor) -> Link {
    let at = |list: &[Tensor]| list.iter().position(|&t| t == tensor);
    at(&node.inputs).map(Link::Input).or_else(|| at(&node.outputs).map(Link::Output)).unwrap_or(Link::Other)
}

/// Places within `between`, in order, of the nodes that `wanted` are made by, directly or not; `None` if the first of `between` is
/// one.
fn makers(nodes: &[Node], between: Range<usize>, wanted: &[Tensor]) -> Option<Vec<usize>> {
    let mut needed: HashSet<_> = wanted.iter().copied().collect();
    let mut found = Vec::new();
    for place in between.clone().rev() {
        let node = &nodes[place];
        if node.outputs.iter().any(|o| needed.contains(o)) {
            needed.extend(&node.inputs);
            found.push(place);
        }
    }
    found.reverse();
    (found.first() != Some(&between.start)).then_some(found)
}

/// Which tensors are views of the same memory.
struct Memory(HashMap<Tensor, Tensor>);

impl Memory {
    fn of(g: &Graph, nodes: &[Node]) -> Self {
        let mut memory = Self(HashMap::new());
        for node in nodes {
            let types: Vec<_> = node.inputs.iter().map(|&t| g.ty(t).clone()).collect();
            if node.op.view(&types).is_some() {
                let source = memory.of_tensor(node.inputs[0]);
                memory.0.insert(node.outputs[0], source);
            }
        }
        memory
    }

    fn of_tensor(&self, tensor: Tensor) -> Tensor {
        self.0.get(&tensor).copied().unwrap_or(tensor)
    }
}

/// Puts the pair in the place of its halves; returns where it stands.
fn apply(nodes: &mut Vec<Node>, first: usize, pair: Pair) -> usize {
    let mut rest = nodes.split_off(first);
    let mut gone: HashSet<_> = pair.before.iter().copied().collect();
    gone.extend([first, pair.second]);
    nodes.extend(pair.before.iter().map(|&i| rest[i - first].clone()));
    nodes.push(pair.node);
    let place = nodes.len() - 1;
    let mut at = first;
    rest.retain(|_| {
        at += 1;
        !gone.contains(&(at - 1))
    });
    nodes.append(&mut rest);
    place
}
