//! A graph lowered for an adapter: everything but memory.

use super::{
    GraphError, PlanOptions, fuse,
    half::{Roundings, storages},
    host::live_nodes,
    pair,
    record::{Graph, Leaf, Node, Source},
    unpacked::{self, Unpacked},
};
use crate::{
    gpu::Capabilities,
    ops::{Decision, Dispatch, Lowering, OpError, Operand, Precision, Recorder, Storage, Tensor, TensorType},
};
use std::collections::{HashMap, HashSet};

/// A planned dispatch, for tables.
#[derive(Debug, Clone)]
pub(super) struct Step {
    /// Index into the plan's nodes.
    pub node: usize,
    /// What runs.
    pub dispatch: Dispatch,
}

/// A graph lowered for an adapter.
pub(super) struct Lowered {
    pub nodes: Vec<Node>,
    pub steps: Vec<Step>,
    pub roots: Vec<Root>,
    pub operands: HashMap<Tensor, Operand>,
    /// Choices between kernels, with their nodes.
    pub decisions: Vec<(Decision, usize)>,
}

impl Lowered {
    /// The variables that dispatches read from images of them.
    pub fn imaged_variables(&self) -> HashSet<&str> {
        let windows = self.steps.iter().flat_map(|step| &step.dispatch.bindings).map(|(window, _)| window);
        let leaves = windows.filter(|window| window.storage == Storage::Image).map(|window| &self.roots[window.root].leaf);
        let names = leaves.filter_map(|leaf| match leaf {
            Some(Leaf::Variable(name)) => Some(name.as_str()),
            _ => None,
        });
        names.collect()
    }
}

/// A piece of memory.
#[derive(Debug, Clone)]
pub(super) struct Root {
    pub elements: usize,
    pub leaf: Option<Leaf>,
    pub storage: Storage,
}

impl Root {
    /// Its size, bytes; whole words, as buffers are.
    pub fn bytes(&self) -> u64 {
        match self.storage {
            Storage::Packed(packing) => packing.bytes(),
            storage => (self.elements as u64 * storage.bytes()).next_multiple_of(4),
        }
    }
}

/// Copies of variables in another storage, by the variable's memory: each made once, before its first reader.
#[derive(Default)]
pub(super) struct Copies(HashMap<usize, usize>);

impl Copies {
    /// The copy of `root`'s memory in `storage`; if there is none yet, `lower` makes it, given its whole operand.
    pub fn of(
        &mut self,
        (root, storage): (usize, Storage),
        (caps, roots): (&Capabilities, &mut Vec<Root>),
        dispatches: &mut Vec<Dispatch>,
        lower: impl FnOnce(&mut Lowering<'_>, &Operand) -> Result<(), OpError>,
    ) -> Result<usize, OpError> {
        if let Some(&known) = self.0.get(&root) {
            return Ok(known);
        }
        let elements = roots[root].elements;
        roots.push(Root { elements, leaf: None, storage });
        let copy = Operand { root: roots.len() - 1, at: 0, storage, ty: TensorType::f32([elements]) };
        let mut cx = Lowering::new(caps, Vec::new(), Vec::new(), 0);
        cx.besides(|cx| lower(cx, &copy))?;
        dispatches.append(&mut cx.dispatches);
        self.0.insert(root, copy.root);
        Ok(copy.root)
    }

    /// The variable has changed: it is to be copied again before its next reader.
    pub fn forget(&mut self, root: usize) {
        self.0.remove(&root);
    }
}

/// Fuses, resolves views, decides what is stored in 16 bits, and lowers every node.
pub(super) fn lower(caps: &Capabilities, g: &Graph, outputs: &[Tensor], options: &PlanOptions) -> Result<Lowered, GraphError> {
    if options.precision == Precision::Mixed && !caps.f16 {
        return Err(GraphError::Precision(caps.name.clone()));
    }
    let live = live_nodes(g, outputs);
    let mut nodes: Vec<_> = live.iter().map(|&i| g.nodes()[i].clone()).collect();
    if !options.no_fusion {
        nodes = fuse::fused(g, pair::paired(g, nodes, outputs), outputs);
    }
    let (mut roots, mut operands) = place(g, &nodes, outputs)?;
    share(&nodes, outputs, &roots, &mut operands);
    if options.precision == Precision::Mixed {
        for (root, storage) in storages(&nodes, &roots, &operands, outputs, &options.halves).into_iter().enumerate() {
            roots[root].storage = storage;
        }
        operands.values_mut().for_each(|operand| operand.storage = roots[operand.root].storage);
    }
    unpacked::mark(&mut roots, &mut operands, outputs, options)?;
    let (mut steps, mut decisions) = (Vec::new(), Vec::new());
    let (mut roundings, mut copies) = (Roundings::default(), Unpacked::default());
    // Operations so far whose kernels the options choose.
    let mut chosen = 0;
    for (index, node) in nodes.iter().enumerate() {
        let mut inputs: Vec<_> = node.inputs.iter().map(|t| operands[t].clone()).collect();
        let types: Vec<_> = inputs.iter().map(|i| i.ty.clone()).collect();
        if node.op.view(&types).is_some() {
            continue;
        }
        let in_context = |mut error: crate::ops::OpError| {
            if error.context.is_empty() {
                error.context = format!("{} in {}", node.op.name(), node.layer);
            }
            error
        };
        let unpacked = copies.unpack(caps, node, &mut inputs, &mut roots).map_err(in_context)?;
        steps.extend(unpacked.into_iter().map(|dispatch| Step { node: index, dispatch }));
        if options.precision == Precision::Mixed {
            let rounded = roundings.round_weights(caps, node, &mut inputs, &mut roots).map_err(in_context)?;
            steps.extend(rounded.into_iter().map(|dispatch| Step { node: index, dispatch }));
        }
        let results: Vec<_> = node.outputs.iter().map(|t| operands[t].clone()).collect();
        let mut lowering = Lowering::new(caps, inputs, results, roots.len());
        lowering.precision = options.precision;
        lowering.forced = options.choices.get(chosen).or(options.choices.last()).copied();
        node.op.lower(&mut lowering).map_err(in_context)?;
        chosen += usize::from(lowering.obeyed);
        roots.extend(lowering.scratch.iter().map(|&(elements, storage)| Root { elements, leaf: None, storage }));
        decisions.extend(lowering.decisions.into_iter().map(|decision| (decision, index)));
        steps.extend(lowering.dispatches.into_iter().map(|dispatch| Step { node: index, dispatch }));
        roundings.forget_updated(node, &operands);
    }
    Ok(Lowered { nodes, steps, roots, operands, decisions })
}

/// Gives outputs that may be computed in place the memory of the input that nothing else reads any more.
fn share(nodes: &[Node], outputs: &[Tensor], roots: &[Root], operands: &mut HashMap<Tensor, Operand>) {
    for (index, node) in nodes.iter().enumerate() {
        let Some((input, output)) = node.op.in_place() else { continue };
        let (from, to) = (operands[&node.inputs[input]].clone(), operands[&node.outputs[output]].root);
        let root = &roots[from.root];
        let whole = root.leaf.is_none() && from.at == 0 && [from.ty.elements(), roots[to].elements] == [root.elements; 2];
        let others = node.inputs.iter().enumerate().filter(|(i, _)| *i != input).map(|(_, tensor)| tensor);
        let later = nodes[index + 1..].iter().flat_map(|node| &node.inputs);
        if whole && !others.chain(later).chain(outputs).any(|tensor| operands[tensor].root == from.root) {
            operands.values_mut().filter(|operand| operand.root == to).for_each(|operand| operand.root = from.root);
        }
    }
}

/// A piece of memory for every tensor; views share their source's.
fn place(g: &Graph, nodes: &[Node], outputs: &[Tensor]) -> Result<(Vec<Root>, HashMap<Tensor, Operand>), OpError> {
    let (mut roots, mut operands): (Vec<Root>, HashMap<Tensor, Operand>) = (Vec::new(), HashMap::new());
    let mut operand = |tensor: Tensor, operands: &mut HashMap<Tensor, Operand>| {
        operands
            .entry(tensor)
            .or_insert_with(|| {
                let leaf = match g.source(tensor) {
                    Source::Leaf(leaf) => Some(leaf.clone()),
                    Source::Node(_) => None,
                };
                roots.push(Root { elements: g.ty(tensor).elements(), leaf, storage: Storage::F32 });
                Operand { root: roots.len() - 1, at: 0, storage: Storage::F32, ty: g.ty(tensor).clone() }
            })
            .clone()
    };
    let mut beyond = Vec::new();
    for node in nodes {
        let inputs: Vec<_> = node.inputs.iter().map(|&t| operand(t, &mut operands)).collect();
        let types: Vec<_> = inputs.iter().map(|i| i.ty.clone()).collect();
        if let Some(start) = node.op.view(&types) {
            let ty = g.ty(node.outputs[0]).clone();
            let view = Operand { at: inputs[0].at + start, ty, ..inputs[0] };
            beyond.push((view.root, view.at + view.ty.elements()));
            operands.insert(node.outputs[0], view);
            continue;
        }
        for &output in &node.outputs {
            operand(output, &mut operands);
        }
    }
    for &tensor in outputs {
        operand(tensor, &mut operands);
    }
    for (root, end) in beyond {
        if end <= roots[root].elements {
            continue;
        }
        // A variable's memory goes on behind its rows.
        if !matches!(roots[root].leaf, Some(Leaf::Variable(_))) {
            return Err(OpError::new("whole_rows: only a variable has rows behind its own"));
        }
        roots[root].elements = end;
    }
    Ok((roots, operands))
}
