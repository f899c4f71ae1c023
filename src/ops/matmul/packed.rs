//! Products with a weight in narrow storage: few rows straight from it, more of them from a copy that is unpacked first, or on a
//! software adapter by its own kernel.

use super::{MatMul, Rest, Sizes, kernels};
use crate::{
    gpu::{Access, Capabilities},
    kernel,
    ops::{
        Format, Lowering, OpError, Operand, Packing, Storage, TensorType, Window,
        layer_norm::Normalised,
        lower_unpacking,
        sample::SampleRows,
        unpack::{self, of_format},
    },
};
use std::ops::Range;

/// Up to this many rows weights are unpacked in registers; more rows would unpack them again and again.
pub(super) const FEW_ROWS: usize = 16;
/// The most rows that a workgroup of a software adapter takes at once: it has no more registers.
const SOFTWARE_ROWS: usize = 8;
/// From more rows on a software adapter prefers its own kernels: 3,072 x 768 with 4 rows took 1.6 ms where the packed kernel took 2.1
/// to 3.
const SOFTWARE_FEW: usize = 2;

/// Up to how many rows a product reads weights that are packed so.
pub(super) fn few_rows(caps: &Capabilities, packing: &Packing) -> usize {
    if unpacks(caps, packing) { SOFTWARE_FEW } else { FEW_ROWS }
}

/// Whether the kernel of many rows unpacks what it reads: that of software adapters does, by whole vectors.
fn unpacks(caps: &Capabilities, packing: &Packing) -> bool {
    caps.software && packing.k % packing.format.step() == 0
}

/// The most sums that a lane holds.
const MOST_SUMS: usize = 32;
/// Workgroups of one subgroup each that keep the memory of a large GPU busy.
const BUSY: usize = 1024;

/// A variant of the kernel.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Variant {
    /// Lanes of a workgroup, all along k.
    lanes: usize,
    /// Columns that a workgroup makes.
    columns: usize,
    /// Vectors of sixteen bytes that a lane takes of a row at once.
    loads: usize,
}

impl Variant {
    fn name(self) -> String {
        let loads = if self.loads > 1 { format!(", {} loads", self.loads) } else { String::new() };
        format!("packed {} lanes, {} columns{loads}", self.lanes, self.columns)
    }
}

/// The variants for a product of so many rows at once, and the place of the one that a rule of thumb takes.
fn variants(caps: &Capabilities, packing: &Packing, rows: usize, tiles: usize) -> (Vec<Variant>, usize) {
    let lanes = caps.subgroup.map_or(if caps.software { 8 } else { 32 }, |lanes| lanes as usize);
    let vectors = packing.row_words() / 4;
    // All loads of a turn are of one block.
    let pairs = matches!(packing.format, Format::Q8 { .. }) && vectors % 2 == 0;
    let most = (MOST_SUMS / rows).clamp(
        1,
        if imaged(caps, packing) {
            32
        } else if caps.software {
            16
        } else {
            8
        },
    );
    let columns: Vec<usize> =
        [1, 2, 4, 8, 16, 32].into_iter().filter(|&columns| columns <= most && columns < 2 * packing.rows).collect();
    let mut list = Vec::new();
    for &columns in &columns {
        for loads in if pairs { vec![1, 2] } else { vec![1] } {
            list.push(Variant { lanes, columns, loads });
        }
    }
    if !caps.software && lanes < 128 && vectors >= 128 {
        // A large workgroup shares a long row.
        list.extend(columns.iter().filter(|columns| **columns <= 4).map(|&columns| Variant { lanes: 128, columns, loads: 1 }));
    }
    let groups = |variant: &Variant| tiles * packing.rows.div_ceil(variant.columns);
    let rule = if caps.software {
        // Loads are what costs time there: many columns share those of a.
        list.iter().rposition(|_| true)
    } else {
        let busy = |variant: &Variant| variant.lanes == lanes && variant.loads == 1 && groups(variant) >= BUSY;
        list.iter().rposition(busy)
    };
    (list, rule.unwrap_or(0))
}

/// Whether the kernel makes the layer norm of its rows, `[x, gamma, beta]`, itself. A software adapter would make it in every
/// workgroup, for a dispatch that costs it next to nothing.
pub(super) fn normalises(cx: &Lowering<'_>, packing: &Packing, inputs: &[Operand]) -> bool {
    let windows: Vec<_> = inputs.iter().map(Operand::all).collect();
    let few =
        inputs[0].ty.shape.rows() <= FEW_ROWS && cx.row_ranges(inputs[0].ty.shape.rows(), packing.k).is_ok_and(|r| r.len() == 1);
    let whole = packing.k % packing.format.step().max(4) == 0 && cx.vec4(packing.k, &windows.iter().collect::<Vec<_>>());
    !cx.caps.software && few && whole
}

/// What the product's inputs and outputs are, and what goes on besides.
struct Given<'a> {
    y: Operand,
    norm: Option<Normalised>,
    /// The draw, the seed and, where there are any, the steps.
    draw: Option<(&'a SampleRows, Operand, Option<Operand>)>,
}

/// Lowers the product of `op` with sizes `s`, whose second operand is packed along k.
pub(super) fn lower(
    op: &MatMul,
    s: Sizes,
    packing: &Packing,
    cx: &mut Lowering<'_>,
    norm: Option<Normalised>,
) -> Result<(), OpError> {
    if s.m > few_rows(cx.caps, packing) {
        return lower_many(op, s, packing, cx);
    }
    let y = cx.output(0);
    lower_few(op, s, packing, cx, Given { y, norm, draw: None }).map(|_| ())
}

/// The same of a product whose columns are drawn from; `draw` comes with its own inputs, and the output is what is drawn.
pub(super) fn lower_drawn(
    op: &MatMul,
    packing: &Packing,
    cx: &mut Lowering<'_>,
    norm: Option<Normalised>,
    (draw, inputs): (&SampleRows, &[Operand]),
) -> Result<(), OpError> {
    let s = op.sizes(&cx.inputs[0].ty.shape, &cx.inputs[1].ty.shape)?;
    let chosen = cx.output(0);
    // Every column may be a workgroup's own, and ranges may end with one of fewer.
    let parts = cx.scratch(2 * s.m * s.n);
    let steps = draw.steps_at().map(|at| inputs[at].clone());
    let given = Given { y: parts.clone(), norm, draw: Some((draw, inputs[1].clone(), steps)) };
    let slots = lower_few(op, s, packing, cx, given)?;
    cx.besides(|cx| draw.finish(cx, inputs, &parts, slots, &chosen))
}

/// A product of few rows; how many workgroups share a row.
fn lower_few(op: &MatMul, s: Sizes, packing: &Packing, cx: &mut Lowering<'_>, given: Given<'_>) -> Result<usize, OpError> {
    let tiles = s.m.div_ceil(if cx.caps.software { SOFTWARE_ROWS } else { FEW_ROWS });
    let rows = s.m.div_ceil(tiles);
    let (list, rule) = variants(cx.caps, packing, rows, tiles);
    let work = format!("matmul nt {}x{}x{}", s.m, s.n, s.k);
    let variant = list[cx.choose(work, list.iter().map(|v| v.name()).collect(), rule, s.flops())];
    let (a, b, y) = (cx.input(0), cx.input(1), given.y);
    let next = 2 + usize::from(op.bias);
    let vec4 = s.k % packing.format.step().max(4) == 0 && cx.vec4(s.k, &[&a.all()]);
    // An image is bound whole.
    let in_image = imaged(cx.caps, packing);
    let columns = if in_image { std::iter::once(0..s.n).collect() } else { cx.row_ranges(s.n, packing.row_words())? };
    let slots = columns.iter().map(|n| n.len().div_ceil(variant.columns)).sum::<usize>();
    for m in cx.row_ranges(s.m, (2 * s.n).max(s.k))? {
        let mut first_slot = 0;
        for n in &columns {
            let (weights, scales) = windows(cx.caps, &b, packing, n);
            let like_y = |operand: &Operand| {
                let start = m.start * s.n + n.start;
                operand.part(start..start + (m.len() - 1) * s.n + n.len())
            };
            let to = if given.draw.is_some() { y.rows(m.clone(), 2 * slots) } else { like_y(&y) };
            let mut bindings: Vec<(Window, Access)> = vec![a.rows(m.clone(), s.k).read(), weights.read(), to.write()];
            if op.bias {
                bindings.push(cx.input(2).part(n.clone()).read());
            }
            if op.rest.is_some() {
                bindings.push(like_y(&cx.input(next)).read());
            }
            if op.keep {
                bindings.push(like_y(&cx.output(1)).write());
            }
            bindings.extend(scales.map(Window::read));
            let kernel = of_format(kernel!("matmul_packed"), packing)
                .with("ROWS", rows as u32)
                .with("COLS", variant.columns as u32)
                .with("WG", variant.lanes as u32)
                .with("LANES", cx.caps.subgroup.unwrap_or(0))
                .with("LOADS", variant.loads as u32)
                .with("BIMAGE", in_image)
                .with("AVEC", vec4)
                .with("YVEC", false)
                .with("ACC", false)
                .with("BIAS", op.bias)
                .with("ACT", op.activation.map_or("none", |a| a.word()))
                .with("KEEP", op.keep)
                .with("RESIDUAL", op.rest.is_some())
                .with("GATE", Rest::gate(op.rest))
                .with("NORM", given.norm.is_some())
                .with("DRAW", given.draw.is_some());
            let (tiles_m, tiles_n) = (m.len().div_ceil(rows), n.len().div_ceil(variant.columns));
            let mut params: Vec<u32> =
                [m.len(), n.len(), s.k, s.k, packing.row_words() / 4, s.n, 0, 0, 0, tiles_m, tiles_n].map(|v| v as u32).to_vec();
            params.push(op.layout.alpha.to_bits());
            if let Some(norm) = &given.norm {
                bindings.extend([norm.gamma.all().read(), norm.beta.all().read()]);
                params.extend([(1.0 / s.k as f32).to_bits(), norm.epsilon.to_bits()]);
            }
            let kernel = match &given.draw {
                Some((draw, rng, steps)) => {
                    bindings.push(rng.all().read());
                    bindings.extend(steps.as_ref().map(|steps| steps.part(m.clone()).read()));
                    params.extend([slots, first_slot, m.start, draw.text_rows(), n.start].map(|v| v as u32));
                    params.push(draw.factor().to_bits());
                    draw.variant(kernel)
                }
                None => kernel,
            };
            cx.dispatch(kernel, &bindings, &params, tiles_m * tiles_n)?;
            first_slot += tiles_n;
        }
    }
    Ok(slots)
}

/// Whether kernels read the weights from an image of them, which the engine keeps.
fn imaged(caps: &Capabilities, packing: &Packing) -> bool {
    caps.images && packing.vector_bytes() <= caps.max_image
}

/// Windows of the rows `rows` of a packed matrix, of weights and scales, where kernels read them.
pub(super) fn windows(caps: &Capabilities, b: &Operand, packing: &Packing, rows: &Range<usize>) -> (Window, Option<Window>) {
    let place = |window| if imaged(caps, packing) { Window { storage: Storage::Image, ..window } } else { window };
    let (weights, scales) = unpack::windows(b, packing, rows);
    (place(weights), scales.map(place))
}

/// A product of more rows than are worth a kernel of their own.
fn lower_many(op: &MatMul, s: Sizes, packing: &Packing, cx: &mut Lowering<'_>) -> Result<(), OpError> {
    let (packed, mut op) = (cx.input(1), *op);
    op.layout.transpose_b = true;
    let aligned = cx.residual(&cx.input(0).all()) % 4 == 0;
    let stored = match packing.format {
        _ if unpacks(cx.caps, packing) && aligned => Some(packed.storage),
        // Other kernels read what is as it was.
        Format::F32 if packing.k % 4 == 0 => Some(Storage::F32),
        Format::F16 if packing.k % 8 == 0 && cx.caps.f16 && !cx.caps.software => Some(Storage::F16),
        _ => None,
    };
    let b = match stored {
        Some(storage) => Operand { storage, ..packed },
        None => {
            let copy = cx.scratch(s.n * s.k);
            cx.besides(|cx| lower_unpacking(cx, (&packed, s.n), &copy))?;
            copy
        }
    };
    kernels::lower(&op, s, Operand { ty: TensorType::f32([s.n, s.k]), ..b }, cx)
}
