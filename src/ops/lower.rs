//! From an operation to dispatches: which kernel, which windows of which tensors, how many workgroups.

use super::{OpError, Packing, tensor::TensorType};
use crate::gpu::{Access, Capabilities, ELEMENT_TYPES, Kernel};
use std::ops::Range;

/// What a plan may round on the way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, clap::ValueEnum)]
pub enum Precision {
    /// Everything is in 32-bit floats
    #[default]
    F32,
    /// Weights and activations are rounded to 16-bit floats; sums, statistics, weight gradients and the optimizer are in 32-bit ones
    Mixed,
}

/// How an element is stored. Kernels compute in 32 bits whatever it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// 32 bits: a float, or an unsigned integer.
    F32,
    /// A 16-bit float.
    F16,
    /// A weight in narrow storage. Windows of it count words.
    Packed(Packing),
    /// An image: 32-bit floats, or the words of a packed weight, by vectors of four. It is bound whole.
    Image,
}

impl Storage {
    /// The size of an element; of what is packed, of a word.
    pub fn bytes(self) -> u64 {
        match self {
            Self::F32 | Self::Packed(_) | Self::Image => 4,
            Self::F16 => 2,
        }
    }

    /// The layout of what is packed.
    pub fn packing(self) -> Option<Packing> {
        match self {
            Self::Packed(packing) => Some(packing),
            _ => None,
        }
    }
}

/// Whether an operation's kernels take an input in 16-bit floats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Half {
    /// No.
    Never,
    /// Yes, where it is stored so.
    Accepted,
    /// Yes, but it is added to the first output, and no less is to be kept of it than of the sum: gradients of weights that are
    /// added up stay in 32 bits.
    Added,
    /// Yes, and a weight is to be rounded for it.
    Wanted,
}

/// A tensor during lowering: a place in memory that has no address yet.
#[derive(Debug, Clone)]
pub struct Operand {
    /// Which piece of memory; a view shares its source's.
    pub root: usize,
    /// First element within that memory.
    pub at: usize,
    /// How its elements are stored.
    pub storage: Storage,
    /// Element type and shape.
    pub ty: TensorType,
}

impl Operand {
    /// The whole tensor.
    pub fn all(&self) -> Window {
        self.part(0..self.ty.elements())
    }
    /// A range of its elements.
    pub fn part(&self, range: Range<usize>) -> Window {
        Window { root: self.root, start: self.at + range.start, len: range.len(), storage: self.storage }
    }
    /// A range of rows, each `width` elements long.
    pub fn rows(&self, rows: Range<usize>, width: usize) -> Window {
        self.part(rows.start * width..rows.end * width)
    }
}

/// A contiguous range of elements in one piece of memory: what a binding covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// Which piece of memory.
    pub root: usize,
    /// First element.
    pub start: usize,
    /// Number of elements.
    pub len: usize,
    /// How they are stored.
    pub storage: Storage,
}

impl Window {
    /// To be read by the kernel.
    pub fn read(self) -> (Self, Access) {
        let access = if self.storage == Storage::Image { Access::ReadImage } else { Access::Read };
        (self, access)
    }
    /// To be written (and perhaps read) by the kernel.
    pub fn write(self) -> (Self, Access) {
        (self, Access::Write)
    }
}

/// One dispatch.
#[derive(Debug, Clone)]
pub struct Dispatch {
    /// The kernel in its variant.
    pub kernel: Kernel,
    /// Words of its uniform `Params`: the number of workgroups, the operation's own words, then for each binding the
    /// place of its window's first element within the binding.
    pub params: Vec<u32>,
    /// Storage bindings 1, 2, ...
    pub bindings: Vec<(Window, Access)>,
    /// What is copied into images first.
    pub images: Vec<(Window, Window)>,
    /// Number of workgroups, linear.
    pub groups: u32,
    /// It does a part of the operation's floating-point operations, by its workgroups. What only brings results together, or rounds
    /// what goes in, does none that count.
    pub counts: bool,
}

impl Dispatch {
    /// All that it reads and writes.
    pub fn windows(&self) -> impl Iterator<Item = &Window> {
        let copied = self.images.iter().flat_map(|(from, to)| [from, to]);
        self.bindings.iter().map(|(window, _)| window).chain(copied)
    }
}

/// What an operation is given to lower itself with.
pub struct Lowering<'a> {
    /// What the adapter can do.
    pub caps: &'a Capabilities,
    /// The operation's inputs.
    pub inputs: Vec<Operand>,
    /// The operation's outputs.
    pub outputs: Vec<Operand>,
    /// Dispatches so far.
    pub dispatches: Vec<Dispatch>,
    /// Sizes of the scratch memories asked for, elements, and what they are; their roots follow `first_scratch`.
    pub scratch: Vec<(usize, Storage)>,
    /// Root of the first scratch memory.
    pub first_scratch: usize,
    /// What the next dispatch has copied into images first.
    images: Vec<(Window, Window)>,
    /// What may be rounded.
    pub precision: Precision,
    /// The kernel to take wherever there is a choice, for measuring.
    pub forced: Option<usize>,
    /// Whether there was a choice that `forced` decided.
    pub obeyed: bool,
    /// Choices between kernels.
    pub decisions: Vec<Decision>,
}

/// A choice between kernels.
#[derive(Debug, Clone)]
pub struct Decision {
    /// The kind of work: operation, layout, sizes, and how inputs and outputs are stored where they need not all be in 32 bits.
    pub work: String,
    /// How each input is stored.
    pub stored: Vec<Storage>,
    /// And each output: a kernel's way of leaving its results may cost as much as making them.
    pub written: Vec<Storage>,
    /// The kernels that can do it; others are checked against the first.
    pub kernels: Vec<String>,
    /// The one that a rule of thumb takes.
    pub rule: usize,
    /// The fastest, if all were measured.
    pub measured: Option<usize>,
    /// Floating-point operations.
    pub flops: u64,
    /// Results whose error is more than this part of their size, squared, are wrong.
    pub error: f64,
}

/// The largest operand of which there is a copy in an image, bytes.
const MOST_STAGED: u64 = 256 << 20;

/// What kernels may differ by that only add up in another order: thousands of times what rounding does.
const IN_ORDER: f64 = 1e-8;
/// The same where results are rounded to 16 bits: four times what the farther neighbour everywhere would be.
const ROUNDED: f64 = 1e-6;

impl<'a> Lowering<'a> {
    /// A lowering of one operation. Scratch memory is numbered from `first_scratch`.
    pub fn new(caps: &'a Capabilities, inputs: Vec<Operand>, outputs: Vec<Operand>, first_scratch: usize) -> Self {
        Self {
            caps,
            inputs,
            outputs,
            dispatches: Vec::new(),
            scratch: Vec::new(),
            first_scratch,
            images: Vec::new(),
            precision: Precision::F32,
            forced: None,
            obeyed: false,
            decisions: Vec::new(),
        }
    }

    /// Input `i`.
    pub fn input(&self, i: usize) -> Operand {
        self.inputs[i].clone()
    }

    /// Output `i`.
    pub fn output(&self, i: usize) -> Operand {
        self.outputs[i].clone()
    }

    /// Memory that lives only within this operation.
    pub fn scratch(&mut self, elements: usize) -> Operand {
        self.scratch_in(Storage::F32, elements)
    }

    /// The same, stored otherwise.
    pub fn scratch_in(&mut self, storage: Storage, elements: usize) -> Operand {
        self.scratch.push((elements, storage));
        Operand { root: self.first_scratch + self.scratch.len() - 1, at: 0, storage, ty: TensorType::f32([elements]) }
    }

    /// Whether there can be an image of `operand`, and texels begin where its vectors of four do.
    pub fn fits_image(&self, operand: &Operand) -> bool {
        let small = operand.ty.bytes() <= MOST_STAGED.min(self.caps.max_image);
        self.caps.images && operand.storage == Storage::F32 && small && self.residual(&operand.all()) % 4 == 0
    }

    /// An image of `from`, 32-bit numbers by the whole four that begin on a multiple of four; the next dispatch can read it.
    pub fn imaged(&mut self, from: &Operand) -> Operand {
        let image = Operand { ty: from.ty.clone(), ..self.scratch_in(Storage::Image, from.ty.elements()) };
        self.images.push((from.all(), image.all()));
        image
    }

    /// The kernel to take of `kernels`, which all can do `work`: the fastest, where that was measured, else number `rule`.
    pub fn choose(&mut self, work: String, kernels: Vec<String>, rule: usize, flops: u64) -> usize {
        self.choose_within(work, kernels, rule, flops, None)
    }

    /// The same of kernels whose results may differ, squared, by `error` of their size.
    pub fn choose_within(
        &mut self,
        mut work: String,
        kernels: Vec<String>,
        rule: usize,
        flops: u64,
        error: Option<f64>,
    ) -> usize {
        if kernels.len() < 2 {
            return 0;
        }
        let narrow = self.outputs.iter().any(|output| output.storage == Storage::F16);
        if self.precision == Precision::Mixed {
            work.push_str(" mixed");
            let bits = |operands: &[Operand]| operands.iter().map(|o| format!(" {}", 8 * o.storage.bytes())).collect::<String>();
            work.push_str(&bits(&self.inputs));
            if narrow {
                work.push_str(&format!(" to{}", bits(&self.outputs)));
            }
        }
        for packing in self.inputs.iter().filter_map(|input| input.storage.packing()) {
            work.push_str(&format!(" {}", packing.format));
        }
        if let Some(forced) = self.forced {
            self.obeyed = true;
            return forced.min(kernels.len() - 1);
        }
        let measured = self.caps.tuning.best(&work, &kernels);
        let [stored, written] = [&self.inputs, &self.outputs].map(|operands| operands.iter().map(|o| o.storage).collect());
        // Where sums differ in their last bits, some results are rounded to the other neighbour.
        let error = error.unwrap_or(IN_ORDER).max(if narrow { ROUNDED } else { 0.0 });
        self.decisions.push(Decision { work, stored, written, kernels, rule, measured, flops, error });
        measured.unwrap_or(rule)
    }

    /// Elements between the start of the binding (which must be aligned) and the start of the window.
    pub fn residual(&self, window: &Window) -> usize {
        if window.storage == Storage::Image {
            return window.start;
        }
        window.start % (self.caps.alignment / window.storage.bytes()).max(1) as usize
    }

    /// Alignment of a binding's start, elements, however they are stored.
    fn alignment(&self) -> usize {
        (self.caps.alignment / Storage::F16.bytes()).max(1) as usize
    }

    /// The most elements a window may have and still fit a binding, wherever it starts and however they are stored.
    pub fn max_elements(&self) -> usize {
        (self.caps.max_binding / 4) as usize - self.alignment()
    }

    /// Splits `rows` rows of `width` elements into ranges that fit a binding and start on an aligned element wherever
    /// the whole does.
    ///
    /// # Errors
    /// One row alone does not fit.
    pub fn row_ranges(&self, rows: usize, width: usize) -> Result<Vec<Range<usize>>, OpError> {
        let width = width.max(1);
        let alignment = self.alignment();
        let mut most = self.max_elements() / width;
        // Ranges of a multiple of `alignment` rows start aligned whatever the width.
        if most >= alignment {
            most -= most % alignment;
        }
        if most == 0 {
            return Err(OpError::new(format!(
                "a row of {width} elements is larger than the adapter's largest binding of {} bytes",
                self.caps.max_binding
            )));
        }
        Ok((0..rows).step_by(most).map(|start| start..rows.min(start + most)).collect())
    }

    /// Whether `width` and the residuals of the windows allow `vec4` access.
    pub fn vec4(&self, width: usize, windows: &[&Window]) -> bool {
        self.vectors(4, width, windows)
    }

    /// Whether they allow access by `n` elements at a time.
    pub fn vectors(&self, n: usize, width: usize, windows: &[&Window]) -> bool {
        width % n == 0 && windows.iter().all(|w| self.residual(w) % n == 0)
    }

    /// A kernel with `WG` and `SUBGROUP` set for the reductions of `shared/reduce.wgsl`: one subgroup where the adapter
    /// has them all of one size, else `portable` lanes with workgroup memory.
    pub fn reducing(&self, kernel: Kernel, portable: u32) -> (Kernel, u32) {
        let lanes = self.caps.subgroup.unwrap_or(portable);
        (kernel.with("WG", lanes).with("SUBGROUP", self.caps.subgroup.is_some()), lanes)
    }

    /// Adds a dispatch of `groups` workgroups. `params` are the operation's own words.
    ///
    /// # Errors
    /// A binding larger than the adapter's, or more workgroups than two dimensions hold.
    pub fn dispatch(
        &mut self,
        kernel: Kernel,
        bindings: &[(Window, Access)],
        params: &[u32],
        groups: usize,
    ) -> Result<(), OpError> {
        if groups == 0 {
            return Ok(());
        }
        for (window, _) in bindings {
            let bytes = (self.residual(window) + window.len) as u64 * window.storage.bytes();
            if window.storage != Storage::Image && bytes > self.caps.max_binding {
                return Err(OpError::new(format!(
                    "kernel {} needs a binding of {bytes} bytes; the adapter's largest is {}",
                    kernel.name, self.caps.max_binding
                )));
            }
        }
        if groups as u64 > u64::from(self.caps.max_groups).pow(2).min(u64::from(u32::MAX)) {
            return Err(OpError::new(format!("kernel {} needs {groups} workgroups, too many", kernel.name)));
        }
        let mut kernel = kernel;
        for (word, (window, _)) in ELEMENT_TYPES.into_iter().zip(bindings) {
            if window.storage == Storage::F16 {
                kernel = kernel.with(word, "f16");
            }
        }
        let mut words = vec![groups as u32];
        words.extend_from_slice(params);
        words.extend(bindings.iter().map(|(window, _)| self.residual(window) as u32));
        let images = std::mem::take(&mut self.images);
        self.dispatches.push(Dispatch {
            kernel,
            params: words,
            bindings: bindings.to_vec(),
            images,
            groups: groups as u32,
            counts: true,
        });
        Ok(())
    }

    /// Adds what `work` adds, none of which does any of the operation's floating-point operations.
    ///
    /// # Errors
    /// Those of `work`.
    pub fn besides(&mut self, work: impl FnOnce(&mut Self) -> Result<(), OpError>) -> Result<(), OpError> {
        let before = self.dispatches.len();
        work(self)?;
        self.dispatches[before..].iter_mut().for_each(|dispatch| dispatch.counts = false);
        Ok(())
    }
}
