//! Recording nodes with static shapes.

use crate::ops::{OpError, Operation, Recorder, Shape, Tensor, TensorType};
use std::{collections::HashMap, sync::Arc};

/// A tensor that no node computes.
#[derive(Debug, Clone, PartialEq)]
pub enum Leaf {
    /// Memory that outlives a plan and is shared by name between the plans of an engine: parameters, optimizer state, caches.
    Variable(String),
    /// Written by the host before a run.
    Input(String),
    /// The same value in every element.
    Constant(f32),
}

/// Where a tensor comes from.
#[derive(Debug, Clone)]
pub enum Source {
    /// No node.
    Leaf(Leaf),
    /// An output of the node with this index.
    Node(usize),
}

/// A recorded operation.
#[derive(Debug, Clone)]
pub struct Node {
    /// What it does.
    pub op: Arc<dyn Operation>,
    /// What it reads (and, as the operation says, updates).
    pub inputs: Vec<Tensor>,
    /// What it computes.
    pub outputs: Vec<Tensor>,
    /// The model's layer, for errors and tables.
    pub layer: Arc<str>,
    /// The recomputation block that it belongs to, if any.
    pub block: Option<u32>,
}

/// Nodes in the order in which they were recorded, which is the order in which they run.
#[derive(Default)]
pub struct Graph {
    types: Vec<TensorType>,
    sources: Vec<Source>,
    nodes: Vec<Node>,
    variables: HashMap<String, Tensor>,
    layers: Vec<String>,
    layer: Arc<str>,
    block: Option<u32>,
    blocks: u32,
    rename: Option<Rename>,
}

/// Gives a variable another name.
type Rename = Arc<dyn Fn(&str) -> String + Send + Sync>;

/// Kernels number elements in 32 bits.
fn addressable(shape: &Shape) -> Result<(), OpError> {
    let elements = shape.0.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    match elements {
        Some(n) if n <= u32::MAX as usize => Ok(()),
        _ => Err(OpError::new(format!("a tensor {shape} has more than 2^32 elements; take a smaller batch or context"))),
    }
}

impl Graph {
    /// An empty graph.
    pub fn new() -> Self {
        Self::default()
    }

    fn leaf(&mut self, leaf: Leaf, ty: TensorType) -> Tensor {
        self.types.push(ty);
        self.sources.push(Source::Leaf(leaf));
        Tensor(self.types.len() as u32 - 1)
    }

    /// The variable of that name; recorded once, however often it is asked for.
    ///
    /// # Errors
    /// It was recorded with another type.
    pub fn variable(&mut self, name: &str, ty: TensorType) -> Result<Tensor, OpError> {
        let renamed = self.rename.as_ref().map(|rename| rename(name));
        let name = renamed.as_deref().unwrap_or(name);
        if let Some(&known) = self.variables.get(name) {
            if *self.ty(known) == ty {
                return Ok(known);
            }
            return Err(OpError::new(format!(
                "variable {name} was recorded as {}, and is now asked for as {}",
                self.ty(known).shape,
                ty.shape
            )));
        }
        let tensor = self.leaf(Leaf::Variable(name.to_owned()), ty);
        self.variables.insert(name.to_owned(), tensor);
        Ok(tensor)
    }

    /// A tensor that the host writes before a run.
    pub fn input(&mut self, name: &str, ty: TensorType) -> Tensor {
        self.leaf(Leaf::Input(name.to_owned()), ty)
    }

    /// Records within a layer whose name errors and tables show.
    ///
    /// # Errors
    /// Whatever `record` returns.
    pub fn layer<T, E>(&mut self, name: &str, record: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        self.layers.push(name.to_owned());
        self.layer = self.layers.join(".").into();
        let result = record(self);
        self.layers.pop();
        self.layer = self.layers.join(".").into();
        result
    }

    /// Records with variables by other names: a network beside others in one graph, which shares those of its variables that
    /// `rename` gives a name of theirs.
    ///
    /// # Errors
    /// Whatever `record` returns.
    pub fn renamed<T, E>(
        &mut self,
        rename: impl Fn(&str) -> String + Send + Sync + 'static,
        record: impl FnOnce(&mut Self) -> Result<T, E>,
    ) -> Result<T, E> {
        let outer = self.rename.take();
        let around = outer.clone();
        self.rename = Some(match around {
            // An inner name is given its outer one.
            Some(around) => Arc::new(move |name| around(&rename(name))),
            None => Arc::new(rename),
        });
        let result = record(self);
        self.rename = outer;
        result
    }

    /// Records a block whose inner activations are recomputed in the backward pass instead of being kept
    /// (Chen et al., "Training deep nets with sublinear memory cost", 2016).
    ///
    /// # Errors
    /// Whatever `record` returns.
    pub fn recomputed<T, E>(&mut self, record: impl FnOnce(&mut Self) -> Result<T, E>) -> Result<T, E> {
        self.blocks += 1;
        let outer = self.block.replace(self.blocks);
        let result = record(self);
        self.block = outer;
        result
    }

    /// All nodes, in order.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }
    /// Number of tensors.
    pub fn tensors(&self) -> usize {
        self.types.len()
    }
    /// Where a tensor comes from.
    pub fn source(&self, tensor: Tensor) -> &Source {
        &self.sources[tensor.0 as usize]
    }
    /// Names and tensors of all variables, in the order in which they were recorded.
    pub fn variables(&self) -> Vec<(&str, Tensor)> {
        let mut all: Vec<_> = self.variables.iter().map(|(name, &tensor)| (name.as_str(), tensor)).collect();
        all.sort_by_key(|(_, tensor)| *tensor);
        all
    }

    /// Records a copy of node `index` with other inputs, outside any recomputation block.
    pub(super) fn repeat(&mut self, index: usize, inputs: &[Tensor]) -> Vec<Tensor> {
        let node = self.nodes[index].clone();
        let outputs: Vec<_> = node
            .outputs
            .iter()
            .map(|&output| {
                let ty = self.ty(output).clone();
                self.types.push(ty);
                self.sources.push(Source::Node(self.nodes.len()));
                Tensor(self.types.len() as u32 - 1)
            })
            .collect();
        self.nodes.push(Node { inputs: inputs.to_vec(), outputs: outputs.clone(), block: None, ..node });
        outputs
    }

    /// The layer that following nodes belong to.
    pub(super) fn set_layer(&mut self, layer: Arc<str>) {
        self.layer = layer;
    }
}

impl Recorder for Graph {
    fn ty(&self, tensor: Tensor) -> &TensorType {
        &self.types[tensor.0 as usize]
    }

    fn record(&mut self, op: Arc<dyn Operation>, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError> {
        let types: Vec<_> = inputs.iter().map(|&i| self.ty(i).clone()).collect();
        let addressable = |types: &[TensorType]| types.iter().try_for_each(|ty| addressable(&ty.shape));
        let inferred = addressable(&types).and_then(|()| op.infer(&types)).and_then(|outputs| {
            addressable(&outputs)?;
            Ok(outputs)
        });
        let inferred = inferred.map_err(|mut error| {
            let shapes: Vec<_> = types.iter().map(|t| t.shape.to_string()).collect();
            let place = if self.layer.is_empty() { String::new() } else { format!(" in {}", self.layer) };
            error.context = format!("{}{place} on {}", op.name(), shapes.join(" "));
            error
        })?;
        let outputs: Vec<_> = inferred
            .into_iter()
            .map(|ty| {
                self.types.push(ty);
                self.sources.push(Source::Node(self.nodes.len()));
                Tensor(self.types.len() as u32 - 1)
            })
            .collect();
        self.nodes.push(Node {
            op,
            inputs: inputs.to_vec(),
            outputs: outputs.clone(),
            layer: self.layer.clone(),
            block: self.block,
        });
        Ok(outputs)
    }

    fn fill(&mut self, ty: TensorType, value: f32) -> Tensor {
        self.leaf(Leaf::Constant(value), ty)
    }
}
