//! Which kernel computes a product on which adapter, and how a product larger than a binding is cut.

use super::{MatMul, Sizes};
use crate::{
    gpu::{Access, Kernel},
    kernel,
    ops::{Lowering, OpError, Operand, Window},
};
use std::ops::Range;

/// Up to this many rows a product is a set of matrix-vector products.
const FEW_ROWS: usize = 8;

/// An operand in memory: rows `ld` apart, matrices `batch` apart.
#[derive(Clone)]
struct Matrix {
    operand: Operand,
    ld: usize,
    batch: usize,
}

impl Matrix {
    /// The window that covers rows `rows` and columns `columns` of matrices `batches`.
    fn window(&self, batches: &Range<usize>, rows: &Range<usize>, columns: &Range<usize>) -> Window {
        let start = batches.start * self.batch + rows.start * self.ld + columns.start;
        self.operand.part(start..start + self.span(batches, rows, columns))
    }

    fn span(&self, batches: &Range<usize>, rows: &Range<usize>, columns: &Range<usize>) -> usize {
        (batches.len() - 1) * self.batch + (rows.len() - 1) * self.ld + columns.len()
    }
}

/// Part of a product.
#[derive(Clone)]
struct Part {
    batch: Range<usize>,
    m: Range<usize>,
    n: Range<usize>,
    k: Range<usize>,
}

/// A kernel for a layout.
#[derive(Clone, Copy, PartialEq)]
enum Choice {
    /// `matmul_direct`; with `swap` its lanes run over m.
    Direct { swap: bool },
    Tiled,
    Rows,
    Dot,
}

struct Product<'a> {
    op: &'a MatMul,
    choice: Choice,
    a: Matrix,
    b: Matrix,
    y: Matrix,
    transpose_a: bool,
    transpose_b: bool,
    bias: Option<Operand>,
    residual: Option<Operand>,
    pre: Option<Operand>,
    whole_k: usize,
}

pub(super) fn lower(op: &MatMul, s: Sizes, cx: &mut Lowering<'_>) -> Result<(), OpError> {
    let (mut a, mut b) = (cx.input(0), cx.input(1));
    let (mut transpose_a, mut transpose_b) = (op.layout.transpose_a, op.layout.transpose_b);
    let choice = match (cx.caps.software, transpose_a, transpose_b) {
        (_, false, true) if s.m <= FEW_ROWS => Choice::Dot,
        (false, false, false) if s.m <= FEW_ROWS => Choice::Rows,
        (false, ..) => Choice::Tiled,
        (true, _, false) => Choice::Direct { swap: false },
        // Transpose the smaller operand, so that both are read the way the kernel likes.
        (true, false, true) if s.m < s.n => Choice::Direct { swap: true },
        (true, _, true) => Choice::Direct { swap: false },
    };
    let shared = cx.inputs[1].ty.shape.rank() == 2;
    let b_batches = if shared { 1 } else { s.batch };
    match choice {
        Choice::Direct { swap: true } => {
            a = transposed(cx, a, s.batch, s.m, s.k)?;
            transpose_a = true;
        }
        Choice::Direct { swap: false } if transpose_b => {
            b = transposed(cx, b, b_batches, s.n, s.k)?;
            transpose_b = false;
        }
        _ => {}
    }
    let next = 2 + usize::from(op.bias);
    let product = Product {
        op,
        choice,
        a: Matrix { operand: a, ld: if transpose_a { s.m } else { s.k }, batch: s.m * s.k },
        b: Matrix {
            operand: b,
            ld: if transpose_b { s.k } else { s.n },
            batch: if shared { 0 } else { s.k * s.n },
        },
        y: Matrix { operand: cx.output(0), ld: s.n, batch: s.m * s.n },
        transpose_a,
        transpose_b,
        bias: op.bias.then(|| cx.input(2)),
        residual: op.residual.then(|| cx.input(next)),
        pre: op.keep.then(|| cx.output(1)),
        whole_k: s.k,
    };
    product.lower(cx, Part { batch: 0..s.batch, m: 0..s.m, n: 0..s.n, k: 0..s.k })
}

/// A transposed copy `[batch, cols, rows]` of `x` `[batch, rows, cols]`.
fn transposed(cx: &mut Lowering<'_>, x: Operand, batch: usize, rows: usize, cols: usize) -> Result<Operand, OpError> {
    let y = cx.scratch(batch * rows * cols);
    transpose_part(cx, &x, &y, 0..batch, 0..rows, (rows, cols))?;
    Ok(y)
}

fn transpose_part(
    cx: &mut Lowering<'_>,
    x: &Operand,
    y: &Operand,
    batch: Range<usize>,
    part: Range<usize>,
    (rows, cols): (usize, usize),
) -> Result<(), OpError> {
    let from = Matrix { operand: x.clone(), ld: cols, batch: rows * cols };
    let to = Matrix { operand: y.clone(), ld: rows, batch: rows * cols };
    let most = cx.max_elements();
    let fits = from.span(&batch, &part, &(0..cols)) <= most && to.span(&batch, &(0..cols), &part) <= most;
    let halves = |r: &Range<usize>| {
        let middle = r.start + (r.len() / 2).next_multiple_of(4).min(r.len() - 1);
        (r.start..middle, middle..r.end)
    };
    if !fits && batch.len() > 1 {
        let (first, second) = halves(&batch);
        transpose_part(cx, x, y, first, part.clone(), (rows, cols))?;
        return transpose_part(cx, x, y, second, part, (rows, cols));
    }
    // The target's window spans almost all of it, whatever part of the rows is taken, so columns are cut instead.
    if !fits {
        return transpose_columns(cx, &from, &to, batch, rows, 0..cols);
    }
    emit_transpose(cx, &from, &to, batch, part, 0..cols)
}

fn transpose_columns(
    cx: &mut Lowering<'_>,
    from: &Matrix,
    to: &Matrix,
    batch: Range<usize>,
    rows: usize,
    cols: Range<usize>,
) -> Result<(), OpError> {
    // Columns of the source are rows of the target; the source is then read in windows of rows.
    let most = cx.max_elements();
    let column_step = (most / to.ld).max(1) / 4 * 4;
    let row_step = (most / from.ld).max(1) / 4 * 4;
    if column_step == 0 || row_step == 0 {
        return Err(OpError::new("a matrix row is too long for the adapter's largest binding"));
    }
    for c in cols.clone().step_by(column_step) {
        for r in (0..rows).step_by(row_step) {
            let (rs, cs) = (r..rows.min(r + row_step), c..cols.end.min(c + column_step));
            emit_transpose(cx, from, to, batch.clone(), rs, cs)?;
        }
    }
    Ok(())
}

fn emit_transpose(
    cx: &mut Lowering<'_>,
    from: &Matrix,
    to: &Matrix,
    batch: Range<usize>,
    rows: Range<usize>,
    cols: Range<usize>,
) -> Result<(), OpError> {
    let (source, target) = (from.window(&batch, &rows, &cols), to.window(&batch, &cols, &rows));
    let aligned = cx.vec4(rows.len() | cols.len() | from.ld | to.ld, &[&source, &target]);
    let words = |values: &[usize]| values.iter().map(|&v| v as u32).collect::<Vec<_>>();
    if aligned {
        let blocks = batch.len() * (rows.len() / 4) * (cols.len() / 4);
        let params = words(&[blocks, rows.len(), cols.len(), from.ld, to.ld, from.batch, to.batch]);
        return cx.dispatch(kernel!("transpose"), &[source.read(), target.write()], &params, blocks.div_ceil(64));
    }
    let units = batch.len() * rows.len() * cols.len();
    let params = words(&[
        units, 1, batch.len(), cols.len(), rows.len(), 0, from.batch, 1, from.ld, 0, to.batch, to.ld, 1,
    ]);
    cx.dispatch(kernel!("copy"), &[source.read(), target.write()], &params, units.div_ceil(64))
}

impl Product<'_> {
    /// Rows and columns of the stored operands that a part touches.
    fn a_block(&self, p: &Part) -> (Range<usize>, Range<usize>) {
        if self.transpose_a { (p.k.clone(), p.m.clone()) } else { (p.m.clone(), p.k.clone()) }
    }
    fn b_block(&self, p: &Part) -> (Range<usize>, Range<usize>) {
        if self.transpose_b { (p.n.clone(), p.k.clone()) } else { (p.k.clone(), p.n.clone()) }
    }

    /// Halves whatever makes an operand's window too large, until all fit a binding.
    fn lower(&self, cx: &mut Lowering<'_>, part: Part) -> Result<(), OpError> {
        let most = cx.max_elements();
        let (a_rows, a_columns) = self.a_block(&part);
        let (b_rows, b_columns) = self.b_block(&part);
        let a_fits = self.a.span(&part.batch, &a_rows, &a_columns) <= most;
        let b_fits = self.b.span(&part.batch, &b_rows, &b_columns) <= most;
        let y_fits = self.y.span(&part.batch, &part.m, &part.n) <= most;
        if a_fits && b_fits && y_fits {
            return self.emit(cx, &part);
        }
        let halves = |r: &Range<usize>| {
            let middle = r.start + (r.len() / 2).next_multiple_of(64).min(r.len() - 1);
            (r.start..middle, middle..r.end)
        };
        let too_long = || OpError::new("a matrix row is too long for the adapter's largest binding");
        let (first, second) = if part.batch.len() > 1 {
            let (x, y) = halves(&part.batch);
            (Part { batch: x, ..part.clone() }, Part { batch: y, ..part })
        } else if !y_fits || (!a_fits && !self.transpose_a) {
            if part.m.len() < 2 {
                return Err(too_long());
            }
            let (x, y) = halves(&part.m);
            (Part { m: x, ..part.clone() }, Part { m: y, ..part })
        } else if !b_fits && self.transpose_b {
            let (x, y) = halves(&part.n);
            (Part { n: x, ..part.clone() }, Part { n: y, ..part })
        } else {
            if part.k.len() < 2 {
                return Err(too_long());
            }
            let (x, y) = halves(&part.k);
            (Part { k: x, ..part.clone() }, Part { k: y, ..part })
        };
        self.lower(cx, first)?;
        self.lower(cx, second)
    }

    fn emit(&self, cx: &mut Lowering<'_>, part: &Part) -> Result<(), OpError> {
        let (m, n, k) = (part.m.len(), part.n.len(), part.k.len());
        let (a_rows, a_columns) = self.a_block(part);
        let (b_rows, b_columns) = self.b_block(part);
        let a = self.a.window(&part.batch, &a_rows, &a_columns);
        let b = self.b.window(&part.batch, &b_rows, &b_columns);
        let y = self.y.window(&part.batch, &part.m, &part.n);
        let stays = |matrix: &Matrix| matrix.batch % 4 == 0 || part.batch.len() == 1;
        let a4 = stays(&self.a) && cx.vec4(self.a.ld, &[&a]);
        let b4 = stays(&self.b) && cx.vec4(self.b.ld, &[&b]);

        let (kernel, tile_m, tile_n) = self.variant(cx, (m, n, k), a4, b4);
        // The epilogue follows the last range of k.
        let (first, last) = (part.k.start == 0, part.k.end == self.whole_k);
        let kernel = kernel
            .with("ACC", !first)
            .with("BIAS", self.bias.is_some() && last)
            .with("ACT", self.op.activation.filter(|_| last).map_or("none", |a| a.word()))
            .with("KEEP", self.pre.is_some() && last)
            .with("RESIDUAL", self.residual.is_some() && last);
        let mut bindings: Vec<(Window, Access)> = vec![a.read(), b.read(), y.write()];
        let like_y = |operand: &Operand| {
            Matrix { operand: operand.clone(), ..self.y.clone() }.window(&part.batch, &part.m, &part.n)
        };
        if last {
            bindings.extend(self.bias.iter().map(|bias| bias.part(part.n.clone()).read()));
            bindings.extend(self.residual.iter().map(|r| like_y(r).read()));
            bindings.extend(self.pre.iter().map(|pre| like_y(pre).write()));
        }
        let (tiles_m, tiles_n) = (m.div_ceil(tile_m), n.div_ceil(tile_n));
        let mut params: Vec<u32> =
            [m, n, k, self.a.ld, self.b.ld, self.y.ld, self.a.batch, self.b.batch, self.y.batch, tiles_m, tiles_n]
                .map(|v| v as u32)
                .to_vec();
        params.push(self.op.layout.alpha.to_bits());
        cx.dispatch(kernel, &bindings, &params, part.batch.len() * tiles_m * tiles_n)
    }

    /// The variant for a part, and the tile of outputs that one of its workgroups makes.
    fn variant(&self, cx: &Lowering<'_>, (m, n, k): (usize, usize, usize), a4: bool, b4: bool) -> (Kernel, usize, usize) {
        let few = |most: usize, size: usize| [1, 2, 4].into_iter().find(|&r| r >= size).unwrap_or(most);
        match self.choice {
            Choice::Direct { swap } => {
                let (u_size, v_size) = if swap { (n, m) } else { (m, n) };
                let rows = match u_size {
                    0..=4 => few(4, u_size),
                    5..=8 => 8,
                    _ => 12,
                };
                let columns = if v_size <= 32 { 1 } else { 2 };
                // U is read along k, except for a transposed a, which is read along m.
                let u_transposed = !swap && self.transpose_a;
                let (u4, v4) = if swap { (b4, a4) } else { (a4, b4) };
                let u4 = u4 && if u_transposed { rows % 4 == 0 && u_size % 4 == 0 } else { k % 4 == 0 };
                let v4 = v4 && v_size % 4 == 0;
                let (avec, bvec) = if swap { (v4, u4) } else { (u4, v4) };
                let kernel = kernel!("matmul_direct")
                    .with("SWAP", swap)
                    .with("UT", u_transposed)
                    .with("ROWS", rows as u32)
                    .with("COLS", columns as u32)
                    .with("AVEC", avec)
                    .with("BVEC", bvec);
                let (lanes, uniform) = (columns * 32, rows);
                if swap { (kernel, lanes, uniform) } else { (kernel, uniform, lanes) }
            }
            Choice::Tiled => {
                let kernel = kernel!("matmul_tiled")
                    .with("AT", self.transpose_a)
                    .with("BT", self.transpose_b)
                    .with("AVEC", false)
                    .with("BVEC", false);
                (kernel, 64, 64)
            }
            Choice::Rows => {
                let rows = few(8, m);
                let kernel = kernel!("matmul_rows")
                    .with("ROWS", rows as u32)
                    .with("AVEC", false)
                    .with("BVEC", b4 && n % 4 == 0);
                (kernel, rows, 64)
            }
            Choice::Dot => {
                let rows = few(4, m);
                let both = a4 && b4 && k % 4 == 0;
                let (kernel, _) = cx.reducing(kernel!("matmul_dot"), 32);
                let columns = 4;
                let kernel = kernel
                    .with("ROWS", rows as u32)
                    .with("COLS", columns as u32)
                    .with("AVEC", both)
                    .with("BVEC", both);
                (kernel, rows, columns)
            }
        }
    }
}
