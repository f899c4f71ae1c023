//! Operations, one file each: shape rule, backward rule, CPU reference, kernel choice, and the function that records it.
//!
//! To add an operation: its shader in `shaders/`, its file here, its test in `kernels-tests/`.

mod host;
mod lower;
pub mod random;
mod tensor;

pub use host::{HostData, HostTensor, Real, Reference};
pub use lower::{Decision, Dispatch, Half, Lowering, Operand, Precision, Storage, Window};
pub use tensor::{DType, Shape, Tensor, TensorType};

pub(crate) use crate::{host_reference, kernel};
pub(crate) use elementwise::lower_rounding;
use std::{any::Any, fmt, sync::Arc};
pub(crate) use unpack::lower_unpacking;

mod activation;
mod attention;
mod attention_backward;
mod attention_cooperative;
mod attention_direct;
mod attention_kernels;
mod attention_tiled;
mod binary_cross_entropy;
mod cache;
mod clip;
mod copy_mixture;
mod counted_mean;
mod cross_entropy;
mod cross_entropy_gradient;
mod dropout;
mod elementwise;
mod embedding;
mod gelu;
mod lamb;
mod layer_norm;
mod logits;
mod loss_scale;
mod matmul;
mod mse;
mod optimizer;
mod packing;
mod reduce;
mod sample;
mod softmax;
mod tokens;
mod unpack;
mod view;

pub use activation::{relu, tanh};
pub use attention::{Mask, attention};
pub use binary_cross_entropy::binary_cross_entropy;
pub use cache::{attention_cached, cache_write};
pub use clip::{clip_factor, global_norm};
pub use copy_mixture::copy_mixture;
pub use counted_mean::count_labels;
pub use cross_entropy::{IGNORE, cross_entropy, cross_entropy_rows};
pub use dropout::dropout;
pub use elementwise::{add, constant, div, mul, scale};
pub use embedding::embedding;
pub use gelu::{Gelu, gelu, gelu_gradient};
pub use lamb::{Lamb, lamb};
pub use layer_norm::layer_norm;
pub use logits::Logits;
pub use loss_scale::{FIRST_LOSS_SCALE, loss_scale};
pub use matmul::{Layout, linear, matmul, matmul_with};
pub use mse::mse;
pub use optimizer::{AdamW, AdamWTensor, Sgd, adamw, adamw_all, sgd};
pub use packing::{Format, Packed, Packing, Parts};
pub use reduce::{mean, mean_last, sum, sum_last, sum_leading};
pub use sample::{Decoding, Sample, StopTokens, choose, likeliest, sample};
pub use softmax::softmax;
pub use tokens::{hide_labels, only_places, place_tokens, replaced_labels};
pub use view::{ROW_UNIT, concat, reshape, slice, transpose, whole_rows};

/// Why an operation cannot be recorded or lowered.
#[derive(Debug, Clone)]
pub struct OpError {
    /// What does not fit.
    pub reason: String,
    /// The operation, the shapes of its inputs, and the model's layer.
    pub context: String,
}

impl OpError {
    /// An error whose context the graph fills in.
    pub fn new(reason: impl Into<String>) -> Self {
        Self { reason: reason.into(), context: String::new() }
    }
}
impl fmt::Display for OpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.context.is_empty() { f.write_str(&self.reason) } else { write!(f, "{}: {}", self.context, self.reason) }
    }
}
impl std::error::Error for OpError {}

/// Where operations are recorded: a graph, seen from below.
pub trait Recorder {
    /// Element type and shape of `tensor`.
    fn ty(&self, tensor: Tensor) -> &TensorType;
    /// Records `op` on `inputs` and returns its outputs.
    ///
    /// # Errors
    /// The operation's shape rule refuses the inputs.
    fn record(&mut self, op: Arc<dyn Operation>, inputs: &[Tensor]) -> Result<Vec<Tensor>, OpError>;
    /// A tensor of the given value, known when the graph is made.
    fn fill(&mut self, ty: TensorType, value: f32) -> Tensor;
}

/// Records an operation that has one output.
///
/// # Errors
/// The operation's shape rule refuses the inputs.
pub fn record_one(g: &mut dyn Recorder, op: impl Operation + 'static, inputs: &[Tensor]) -> Result<Tensor, OpError> {
    Ok(g.record(Arc::new(op), inputs)?[0])
}

/// A recorded operation, as its backward rule sees it.
pub struct Recorded<'a> {
    /// Its inputs.
    pub inputs: &'a [Tensor],
    /// Its outputs.
    pub outputs: &'a [Tensor],
    /// The gradient of the loss with respect to each output; `None` where the loss does not depend on it.
    pub grads: &'a [Option<Tensor>],
    /// Which inputs need a gradient.
    pub wanted: &'a [bool],
}

/// What can follow a kernel within itself: the fused operation, and which inputs of the absorbed one it takes on.
pub struct Absorbed {
    /// The operation that does both.
    pub op: Arc<dyn Operation>,
    /// Inputs of the absorbed operation that are appended to the inputs of the absorbing one.
    pub extra_inputs: Vec<usize>,
    /// The absorbing one's outputs after the first are not made any more.
    pub drops: bool,
}

/// Where an operation's input comes from, seen from an earlier one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// It is that input of the earlier one, too.
    Input(usize),
    /// It is that output of the earlier one.
    Output(usize),
    /// Neither.
    Other,
}

/// An operation and a later one as one.
pub struct Paired {
    /// The operation that does both.
    pub op: Arc<dyn Operation>,
    /// Inputs of the later one that are appended to the inputs of the earlier one.
    pub extra_inputs: Vec<usize>,
}

/// An operation.
pub trait Operation: fmt::Debug + Send + Sync {
    /// Its name in tables and errors.
    fn name(&self) -> &'static str;

    /// The shape rule: types of the outputs for types of the inputs.
    ///
    /// # Errors
    /// What does not fit, in words; the graph adds the operation, the shapes and the layer.
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError>;

    /// Inputs that are overwritten in place.
    fn updates(&self) -> Vec<usize> {
        Vec::new()
    }

    /// An input and an output of the same size that may share memory, where nothing else reads that input any more. `lower` finds them
    /// in one root then.
    fn in_place(&self) -> Option<(usize, usize)> {
        None
    }

    /// If the only output is a range of the first input's memory: its first element.
    fn view(&self, _inputs: &[TensorType]) -> Option<usize> {
        None
    }

    /// The backward rule: records operations, and returns a gradient for each wanted input (`None` where it is zero).
    ///
    /// # Errors
    /// The operation is not differentiable.
    fn backward(&self, _g: &mut dyn Recorder, _node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        Err(OpError::new(format!("{} has no gradient", self.name())))
    }

    /// Floating-point operations, for tables and for cutting long submissions.
    fn flops(&self, _inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        outputs.iter().map(|o| o.elements() as u64).sum()
    }

    /// Bytes of input `i` that are read, where that is not all of it: the rows of a table that ids pick.
    fn picks(&self, _i: usize, _inputs: &[TensorType], _outputs: &[TensorType]) -> Option<u64> {
        None
    }

    /// Whether kernels take input `i` in 16-bit floats.
    fn half_input(&self, _i: usize) -> Half {
        Half::Never
    }

    /// Whether kernels can leave output `i` in 16-bit floats.
    fn half_output(&self, _i: usize) -> bool {
        false
    }

    /// Whether kernels read input `i` packed so.
    fn packed_input(&self, _i: usize, _packing: &Packing) -> bool {
        false
    }

    /// The same work as `self` followed by `next`, which takes `self`'s first output as its input `position`, if one kernel
    /// does both. With `keep` the first output is needed by others too and must come out as a second output.
    fn absorb(&self, _next: &dyn Operation, _position: usize, _types: &[TensorType], _keep: bool) -> Option<Absorbed> {
        None
    }

    /// The same work as `self` and, later, `next`, whose inputs come from where `links` say, if one kernel does both. Its outputs are
    /// the first of `self` and those of `next`; the others of `self` are read by `next` alone.
    fn pair(&self, _next: &dyn Operation, _links: &[Link]) -> Option<Paired> {
        None
    }

    /// Kernel choice: adds the dispatches that compute the operation.
    ///
    /// # Errors
    /// The adapter's limits cannot hold it.
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError>;

    /// The reference in f32. Made by [`host_reference!`](crate::host_reference).
    fn reference_f32(&self, inputs: Vec<HostTensor<f32>>, outputs: &[TensorType]) -> Vec<HostTensor<f32>>;
    /// The reference in f64. Made by [`host_reference!`](crate::host_reference).
    fn reference_f64(&self, inputs: Vec<HostTensor<f64>>, outputs: &[TensorType]) -> Vec<HostTensor<f64>>;
    /// For [`absorb`](Self::absorb). Made by [`host_reference!`](crate::host_reference).
    fn as_any(&self) -> &dyn Any;
}

/// Checks the number of inputs and their element types: `f` for float, `u` for unsigned integer, one letter an input.
pub(crate) fn expect(inputs: &[TensorType], letters: &str) -> Result<(), OpError> {
    let found: String = inputs.iter().map(|i| if i.dtype == DType::F32 { 'f' } else { 'u' }).collect();
    if found == letters {
        return Ok(());
    }
    Err(OpError::new(format!("takes inputs of types {letters} (f: f32, u: u32), not {found}")))
}

/// Errors unless `condition` holds.
pub(crate) fn ensure(condition: bool, reason: impl FnOnce() -> String) -> Result<(), OpError> {
    if condition { Ok(()) } else { Err(OpError::new(reason())) }
}
