//! A graph as a table and as Graphviz.

use super::{
    GraphError, PlanOptions,
    lowered::lower,
    memory::{Arena, Memory},
    record::{Graph, Leaf, Source},
};
use crate::{
    gpu::{Capabilities, Kernel},
    ops::{Decision, Recorder, Tensor},
};
use std::fmt::Write;

/// One planned operation.
#[derive(Debug, Clone)]
pub struct Row {
    /// The model's layer.
    pub layer: String,
    /// The operation.
    pub operation: String,
    /// Shapes of its outputs.
    pub shape: String,
    /// Its kernels in their variants; `view` where nothing runs.
    pub kernel: String,
    /// Bytes read and written, each tensor counted once.
    pub bytes: u64,
    /// Floating-point operations.
    pub flops: u64,
}

/// The plan of `g` by `options` for an adapter with capabilities `caps`, as rows of a table.
///
/// # Errors
/// An operation does not fit the adapter.
pub fn rows(g: &Graph, outputs: &[Tensor], caps: &Capabilities, options: &PlanOptions) -> Result<Vec<Row>, GraphError> {
    let lowered = lower(caps, g, outputs, options)?;
    Ok(lowered
        .nodes
        .iter()
        .enumerate()
        .map(|(index, node)| {
            let mut kernels: Vec<(String, usize)> = Vec::new();
            for step in lowered.steps.iter().filter(|s| s.node == index) {
                let label = step.dispatch.kernel.label();
                match kernels.iter_mut().find(|k| k.0 == label) {
                    Some(known) => known.1 += 1,
                    None => kernels.push((label, 1)),
                }
            }
            let types = |tensors: &[Tensor]| tensors.iter().map(|&t| g.ty(t).clone()).collect::<Vec<_>>();
            let (ins, outs) = (types(&node.inputs), types(&node.outputs));
            let view = kernels.is_empty();
            let names: Vec<_> = kernels.into_iter().map(|(k, n)| if n > 1 { format!("{n}x {k}") } else { k }).collect();
            Row {
                layer: node.layer.to_string(),
                operation: node.op.name().into(),
                shape: outs.iter().map(|o| o.shape.to_string()).collect::<Vec<_>>().join(" "),
                kernel: if view { "view".into() } else { names.join(" + ") },
                bytes: if view { 0 } else { ins.iter().chain(&outs).map(crate::ops::TensorType::bytes).sum() },
                flops: if view { 0 } else { node.op.flops(&ins, &outs) },
            }
        })
        .collect())
}

/// Choices between kernels in the plan of `g` by `options`, each kind of work once.
///
/// # Errors
/// An operation does not fit the adapter.
pub fn decisions(g: &Graph, outputs: &[Tensor], caps: &Capabilities, options: &PlanOptions) -> Result<Vec<Decision>, GraphError> {
    let mut all: Vec<Decision> = Vec::new();
    for (decision, _) in lower(caps, g, outputs, options)?.decisions {
        if !all.iter().any(|other| other.work == decision.work) {
            all.push(decision);
        }
    }
    Ok(all)
}

/// What the plan of `g` by `options` takes of the memory of an adapter with capabilities `caps`.
///
/// # Errors
/// An operation does not fit the adapter.
pub fn memory(g: &Graph, outputs: &[Tensor], caps: &Capabilities, options: &PlanOptions) -> Result<Memory, GraphError> {
    let lowered = lower(caps, g, outputs, options)?;
    Ok(Arena::of(&lowered, outputs, options.sentinel).memory(&lowered))
}

/// The kernels, each in its variant, that the plan of `g` by `options` dispatches on an adapter with capabilities `caps`.
///
/// # Errors
/// An operation does not fit the adapter.
pub fn kernels(g: &Graph, outputs: &[Tensor], caps: &Capabilities, options: &PlanOptions) -> Result<Vec<Kernel>, GraphError> {
    Ok(lower(caps, g, outputs, options)?.steps.into_iter().map(|step| step.dispatch.kernel).collect())
}

/// The recorded graph in Graphviz's language.
pub fn dot(g: &Graph) -> String {
    let mut text = String::from("digraph shaderlm {\n  rankdir=TB; node [shape=box, fontname=\"sans-serif\"];\n");
    let mut used = vec![false; g.tensors()];
    for node in g.nodes() {
        for input in &node.inputs {
            used[input.0 as usize] = true;
        }
    }
    for (tensor, _) in used.iter().enumerate().filter(|(_, used)| **used) {
        let tensor = Tensor(tensor as u32);
        if let Source::Leaf(leaf) = g.source(tensor) {
            let name = match leaf {
                Leaf::Variable(name) | Leaf::Input(name) => name.clone(),
                Leaf::Constant(value) => value.to_string(),
            };
            let _ = writeln!(text, "  t{} [label=\"{name}\\n{}\", shape=ellipse];", tensor.0, g.ty(tensor).shape);
        }
    }
    for (index, node) in g.nodes().iter().enumerate() {
        let shapes: Vec<_> = node.outputs.iter().map(|&o| g.ty(o).shape.to_string()).collect();
        let _ = writeln!(text, "  n{index} [label=\"{}\\n{}\\n{}\"];", node.layer, node.op.name(), shapes.join(" "));
        for &input in &node.inputs {
            match g.source(input) {
                Source::Node(from) => {
                    let _ = writeln!(text, "  n{from} -> n{index};");
                }
                Source::Leaf(_) => {
                    let _ = writeln!(text, "  t{} -> n{index};", input.0);
                }
            }
        }
    }
    text.push_str("}\n");
    text
}
