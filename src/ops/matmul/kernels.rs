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

/// From this many multiplications on, a product is worth a kernel that takes long to compile.
const LARGE: usize = 1 << 26;

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
    Direct,
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
    let (transpose_a, transpose_b) = (op.layout.transpose_a, op.layout.transpose_b);
    let choice = match (cx.caps.software, transpose_a, transpose_b) {
        (_, false, true) if s.m <= FEW_ROWS => Choice::Dot,
        (false, false, false) if s.m <= FEW_ROWS => Choice::Rows,
        (false, ..) => Choice::Tiled,
        (true, ..) => Choice::Direct,
    };
    let shared = cx.inputs[1].ty.shape.rank() == 2;
    let next = 2 + usize::from(op.bias);
    let product = Product {
        op,
        choice,
        a: Matrix { operand: cx.input(0), ld: if transpose_a { s.m } else { s.k }, batch: s.m * s.k },
        b: Matrix {
            operand: cx.input(1),
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
        let like_y = |operand: &Operand| {
            Matrix { operand: operand.clone(), ..self.y.clone() }.window(&part.batch, &part.m, &part.n)
        };
        let mut epilogue: Vec<(Window, Access)> = vec![y.write()];
        if last {
            epilogue.extend(self.bias.iter().map(|bias| bias.part(part.n.clone()).read()));
            epilogue.extend(self.residual.iter().map(|r| like_y(r).read()));
            epilogue.extend(self.pre.iter().map(|pre| like_y(pre).write()));
        }
        let windows: Vec<&Window> = epilogue.iter().map(|(window, _)| window).collect();
        let y4 = self.choice != Choice::Dot && n % 4 == 0 && stays(&self.y) && cx.vec4(self.y.ld, &windows);
        let kernel = kernel
            .with("YVEC", y4)
            .with("ACC", !first)
            .with("BIAS", self.bias.is_some() && last)
            .with("ACT", self.op.activation.filter(|_| last).map_or("none", |a| a.word()))
            .with("KEEP", self.pre.is_some() && last)
            .with("RESIDUAL", self.residual.is_some() && last);
        let bindings: Vec<_> = [a.read(), b.read()].into_iter().chain(epilogue).collect();
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
            Choice::Direct => {
                let spread = cx.caps.subgroup == Some(8);
                // Many rows pay for the loads of b, but the driver compiles 64 of them for a second or two.
                let rows = match m {
                    0..=4 => few(4, m),
                    5..=8 => 8,
                    _ if !spread => 12,
                    9..=16 => 16,
                    _ if m < 64 || m * n * k < LARGE => 32,
                    _ => 64,
                };
                let columns = if n > 32 && (rows <= 8 || !spread) { 2 } else { 1 };
                let (along_m, along_n) = (self.transpose_a, !self.transpose_b);
                let k4 = k % 4 == 0 && (along_m || a4) && (along_n || b4);
                let kernel = kernel!("matmul_direct")
                    .with("SUBGROUP", spread)
                    .with("AT", self.transpose_a)
                    .with("BT", self.transpose_b)
                    .with("K4", k4)
                    .with("ROWS", rows as u32)
                    .with("COLS", columns)
                    .with("AVEC", if along_m { a4 && m % 4 == 0 } else { k4 })
                    .with("BVEC", if along_n { b4 && n % 4 == 0 } else { k4 });
                (kernel, rows, 32 * columns as usize)
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
