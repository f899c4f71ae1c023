//! How a product is lowered by the kernel that was chosen, and how one larger than a binding is cut.

use super::{
    MatMul, Rest, Sizes,
    choice::{Choice, PAD, TILE_K, candidates, tiles_fit},
    cooperative::Tile,
    packed,
};
use crate::{
    gpu::{Access, Kernel},
    kernel,
    ops::{Lowering, OpError, Operand, Packing, Precision, Storage, Window, unpack::of_format},
};
use std::ops::Range;

/// Whether a copy of an operand in an image is worth it that is read so often: with Mesa 22.3 a copy takes 25 microseconds and 0.4
/// nanoseconds a word, and reading takes 0.65 less.
fn worth_an_image(words: usize, reads: usize) -> bool {
    words as f64 * (0.65 * reads as f64 - 0.4) > 25_000.0
}

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

/// What one dispatch multiplies: so many matrices of these sizes, m, n, k, in windows of the operands.
struct Piece<'a> {
    sizes: (usize, usize, usize),
    matrices: usize,
    /// They are parts of one matrix, or just one.
    lone: bool,
    a: &'a Window,
    b: &'a Window,
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
    rest: Option<Operand>,
    pre: Option<Operand>,
    whole_k: usize,
    /// How b is packed, along k.
    packing: Option<Packing>,
}

/// Lowers the product of `op` with sizes `s`, whose second operand is `b`.
pub(super) fn lower(op: &MatMul, s: Sizes, b: Operand, cx: &mut Lowering<'_>) -> Result<(), OpError> {
    let (transpose_a, transpose_b) = (op.layout.transpose_a, op.layout.transpose_b);
    let packing = b.storage.packing();
    let (list, rule) = candidates(cx.caps, op, s, cx.precision == Precision::Mixed, packing.is_some());
    let letter = |transposed| if transposed { 't' } else { 'n' };
    let batch = if s.batch > 1 { format!("{} of ", s.batch) } else { String::new() };
    let work = format!("matmul {}{} {batch}{}x{}x{}", letter(transpose_a), letter(transpose_b), s.m, s.n, s.k);
    let names = list.iter().map(|choice| choice.name()).collect();
    let choice = list[cx.choose(work, names, rule, s.flops())];
    let shared = b.ty.shape.rank() == 2;
    let next = 2 + usize::from(op.bias);
    let mut product = Product {
        op,
        choice,
        a: Matrix { operand: cx.input(0), ld: if transpose_a { s.m } else { s.k }, batch: s.m * s.k },
        b: Matrix {
            operand: b,
            ld: packing.map_or(if transpose_b { s.k } else { s.n }, |packing| packing.row_words()),
            batch: if shared { 0 } else { s.k * s.n },
        },
        y: Matrix { operand: cx.output(0), ld: s.n, batch: s.m * s.n },
        transpose_a,
        transpose_b,
        bias: op.bias.then(|| cx.input(2)),
        rest: op.rest.map(|_| cx.input(next)),
        pre: op.keep.then(|| cx.output(1)),
        whole_k: s.k,
        packing,
    };
    product.stage(cx, s);
    product.lower(cx, Part { batch: 0..s.batch, m: 0..s.m, n: 0..s.n, k: 0..s.k })
}

impl Product<'_> {
    /// Rows and columns of the stored operands that a part touches.
    fn a_block(&self, p: &Part) -> (Range<usize>, Range<usize>) {
        if self.transpose_a { (p.k.clone(), p.m.clone()) } else { (p.m.clone(), p.k.clone()) }
    }
    fn b_block(&self, p: &Part) -> (Range<usize>, Range<usize>) {
        if let Some(packing) = &self.packing {
            return (p.n.clone(), 0..packing.row_words());
        }
        if self.transpose_b { (p.n.clone(), p.k.clone()) } else { (p.k.clone(), p.n.clone()) }
    }

    /// Puts operands that a kernel reads again and again where it reads them faster.
    fn stage(&mut self, cx: &mut Lowering<'_>, s: Sizes) {
        let Choice::Direct { rows, columns, lanes } = self.choice else { return };
        // All loads are of whole texels.
        let [a_row, b_row] = [if self.transpose_a { s.m } else { s.k }, if self.transpose_b { s.k } else { s.n }];
        let whole = |matrix: &Matrix, row: usize| row % 4 == 0 && cx.residual(&matrix.operand.all()) % 4 == 0;
        if !(whole(&self.a, a_row) && whole(&self.b, b_row)) {
            return;
        }
        for (matrix, reads) in [(&mut self.a, s.n.div_ceil(4 * lanes * columns)), (&mut self.b, s.m.div_ceil(rows))] {
            let operand = &matrix.operand;
            if cx.fits_image(operand) && worth_an_image(operand.ty.elements(), reads) {
                matrix.operand = cx.imaged(operand);
            }
        }
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
        let whole = part.batch.len() == 1 && k == self.whole_k;
        let split = self.choice.split();
        if split > 1 && whole && split * m * n <= cx.max_elements() {
            return self.emit_parts(cx, part, split);
        }
        self.emit_one(cx, part, self.choice, None)
    }

    /// A product with k in parts, and their sum.
    fn emit_parts(&self, cx: &mut Lowering<'_>, part: &Part, split: usize) -> Result<(), OpError> {
        let (m, n) = (part.m.len(), part.n.len());
        let parts = cx.scratch(split * m * n);
        self.emit_one(cx, part, self.choice.whole(), Some((&parts, split)))?;
        let window = parts.all();
        let (epilogue, y4) = self.epilogue(cx, part, true);
        let kernel = kernel!("matmul_parts").with("AVEC", n % 4 == 0 && cx.vec4(n, &[&window])).with("BVEC", false);
        let kernel = self.finished(kernel, y4, true, true);
        let bindings: Vec<_> = [window.clone().read(), window.read()].into_iter().chain(epilogue).collect();
        let mut params: Vec<u32> = [m, n, split, n, n, self.y.ld, m * n, 0, 0, 1, 1].map(|v| v as u32).to_vec();
        params.push(self.op.layout.alpha.to_bits());
        cx.besides(|cx| cx.dispatch(kernel, &bindings, &params, (m * n.div_ceil(4)).div_ceil(64)))
    }

    /// What the last range of k writes and reads besides the operands, and whether all of it comes in vectors of four.
    fn epilogue(&self, cx: &Lowering<'_>, part: &Part, last: bool) -> (Vec<(Window, Access)>, bool) {
        let like_y =
            |operand: &Operand| Matrix { operand: operand.clone(), ..self.y.clone() }.window(&part.batch, &part.m, &part.n);
        let mut epilogue: Vec<(Window, Access)> = vec![self.y.window(&part.batch, &part.m, &part.n).write()];
        if last {
            epilogue.extend(self.bias.iter().map(|bias| bias.part(part.n.clone()).read()));
            epilogue.extend(self.rest.iter().map(|r| like_y(r).read()));
            epilogue.extend(self.pre.iter().map(|pre| like_y(pre).write()));
        }
        let windows: Vec<&Window> = epilogue.iter().map(|(window, _)| window).collect();
        let stays = self.y.batch % 4 == 0 || part.batch.len() == 1;
        let y4 = part.n.len() % 4 == 0 && stays && cx.vec4(self.y.ld, &windows);
        (epilogue, y4)
    }

    /// The variant of a kernel that begins, or goes on with, and ends a product.
    fn finished(&self, kernel: Kernel, y4: bool, first: bool, last: bool) -> Kernel {
        kernel
            .with("YVEC", y4)
            .with("ACC", !first)
            .with("BIAS", self.bias.is_some() && last)
            .with("ACT", self.op.activation.filter(|_| last).map_or("none", |a| a.word()))
            .with("KEEP", self.pre.is_some() && last)
            .with("RESIDUAL", self.rest.is_some() && last)
            .with("GATE", Rest::gate(self.op.rest.filter(|_| last)))
    }

    /// One dispatch; with `parts` it leaves sums over so many equal ranges of k there.
    fn emit_one(
        &self,
        cx: &mut Lowering<'_>,
        part: &Part,
        choice: Choice,
        parts: Option<(&Operand, usize)>,
    ) -> Result<(), OpError> {
        let (m, n, k) = (part.m.len(), part.n.len(), part.k.len());
        let (a_rows, a_columns) = self.a_block(part);
        let (b_rows, b_columns) = self.b_block(part);
        let a = self.a.window(&part.batch, &a_rows, &a_columns);
        let (b, scales) = match &self.packing {
            Some(packing) => packed::windows(cx.caps, &self.b.operand, packing, &part.n),
            None => (self.b.window(&part.batch, &b_rows, &b_columns), None),
        };
        let each_k = parts.map_or(k, |(_, split)| k / split);
        let matrices = parts.map_or(part.batch.len(), |(_, split)| split);
        let piece = Piece { sizes: (m, n, each_k), matrices, lone: part.batch.len() == 1, a: &a, b: &b };
        let (kernel, tile_m, tile_n) = self.variant(cx, choice, &piece);
        let (tiles_m, tiles_n) = (m.div_ceil(tile_m), n.div_ceil(tile_n));
        let alpha = self.op.layout.alpha;
        if let Some((parts, split)) = parts {
            // Each part is a matrix of a batch, which begins further on along k.
            let (k, window) = (k / split, parts.all());
            let y4 = n % 4 == 0 && cx.vec4(n, &[&window]);
            let plain = kernel.with("YVEC", y4).with("ACC", false).with("BIAS", false).with("ACT", "none");
            let plain = plain.with("KEEP", false).with("RESIDUAL", false).with("GATE", "none");
            let a_next = if self.transpose_a { k * self.a.ld } else { k };
            let b_next = if self.transpose_b { k } else { k * self.b.ld };
            let mut params: Vec<u32> =
                [m, n, k, self.a.ld, self.b.ld, n, a_next, b_next, m * n, tiles_m, tiles_n].map(|v| v as u32).to_vec();
            params.push(1f32.to_bits());
            return cx.dispatch(plain, &[a.read(), b.read(), window.write()], &params, split * tiles_m * tiles_n);
        }
        // The epilogue follows the last range of k.
        let (first, last) = (part.k.start == 0, part.k.end == self.whole_k);
        let (epilogue, y4) = self.epilogue(cx, part, last);
        let kernel = self.finished(kernel, y4 && choice != Choice::Dot, first, last);
        let bindings: Vec<_> = [a.read(), b.read()].into_iter().chain(epilogue).chain(scales.map(Window::read)).collect();
        let mut params: Vec<u32> =
            [m, n, k, self.a.ld, self.b.ld, self.y.ld, self.a.batch, self.b.batch, self.y.batch, tiles_m, tiles_n]
                .map(|v| v as u32)
                .to_vec();
        params.push(alpha.to_bits());
        cx.dispatch(kernel, &bindings, &params, part.batch.len() * tiles_m * tiles_n)
    }

    /// Whether an operand's window can be read in vectors of `unit` elements, as far as its rows' beginnings go.
    fn vectors(cx: &Lowering<'_>, matrix: &Matrix, window: &Window, lone: bool, unit: usize) -> bool {
        (matrix.batch % unit == 0 || lone) && matrix.ld % unit == 0 && cx.residual(window) % unit == 0
    }

    /// The variant with cooperative matrices, and the tile that one of its workgroups makes.
    fn cooperative(&self, cx: &Lowering<'_>, tile: Tile, piece: &Piece<'_>) -> (Kernel, usize, usize) {
        let (m, n, k) = piece.sizes;
        // Sixteen bytes at a time.
        let vectors = |matrix: &Matrix, window: &Window, along: usize| {
            let unit = (16 / window.storage.bytes()) as usize;
            along % unit == 0 && Self::vectors(cx, matrix, window, piece.lone, unit)
        };
        let a_vec = vectors(&self.a, piece.a, if self.transpose_a { m } else { k });
        let b_vec = vectors(&self.b, piece.b, if self.transpose_b { k } else { n });
        let [tile_m, tile_n] = tile.sides();
        // No workgroup may be beyond the end, either.
        let groups = piece.matrices * m.div_ceil(tile_m) * n.div_ceil(tile_n);
        let even = a_vec && b_vec && tile.divides(piece.sizes) && groups <= cx.caps.max_groups as usize;
        let kernel = tile.kernel(cx.caps, even);
        let kernel = kernel.with("AT", self.transpose_a).with("BT", self.transpose_b).with("AVEC", a_vec).with("BVEC", b_vec);
        (kernel, tile_m, tile_n)
    }

    /// The variant for a piece, and the tile of outputs that one of its workgroups makes.
    fn variant(&self, cx: &Lowering<'_>, choice: Choice, piece: &Piece<'_>) -> (Kernel, usize, usize) {
        let (m, n, k) = piece.sizes;
        let a4 = Self::vectors(cx, &self.a, piece.a, piece.lone, 4);
        let b4 = Self::vectors(cx, &self.b, piece.b, piece.lone, 4);
        let few = |most: usize, size: usize| [1, 2, 4].into_iter().find(|&r| r >= size).unwrap_or(most);
        // Whether an operand's stored rows, along which it is read in vectors of four, are of k or else of m or n.
        let (along_m, along_n) = (self.transpose_a, !self.transpose_b);
        let a_vec = a4 && if along_m { m % 4 == 0 } else { k % 4 == 0 };
        let b_vec = b4 && if along_n { n % 4 == 0 } else { k % 4 == 0 };
        match choice {
            Choice::Direct { rows, columns, lanes } => {
                let spread = cx.caps.subgroup == Some(lanes as u32);
                let k4 = k % 4 == 0 && (along_m || a4) && (along_n || b4);
                let kernel = kernel!("matmul_direct");
                let kernel = match &self.packing {
                    Some(packing) => of_format(kernel, packing),
                    None => kernel.with("FORMAT", "none"),
                };
                let kernel = kernel
                    .with("SUBGROUP", spread)
                    .with("AT", self.transpose_a)
                    .with("BT", self.transpose_b)
                    .with("K4", k4)
                    .with("ROWS", rows as u32)
                    .with("COLS", columns as u32)
                    .with("LANES", lanes as u32)
                    .with("AIMAGE", piece.a.storage == Storage::Image)
                    .with("BIMAGE", piece.b.storage == Storage::Image)
                    .with("AVEC", if along_m { a_vec } else { k4 })
                    .with("BVEC", if along_n { b_vec } else { k4 });
                (kernel, rows, 4 * lanes * columns)
            }
            Choice::Tiled { tile, thread, .. } => {
                let whole = a_vec && b_vec && m % tile[0] == 0 && n % tile[1] == 0 && k % TILE_K == 0;
                let pad = if tiles_fit(cx.caps, tile, PAD) { PAD } else { 0 };
                let kernel = kernel!("matmul_tiled")
                    .with("WHOLE", whole)
                    .with("PAD", pad as u32)
                    .with("AT", self.transpose_a)
                    .with("BT", self.transpose_b)
                    .with("BM", tile[0] as u32)
                    .with("BN", tile[1] as u32)
                    .with("TM", thread[0] as u32)
                    .with("TN", thread[1] as u32)
                    .with("AVEC", a_vec)
                    .with("BVEC", b_vec);
                (kernel, tile[0], tile[1])
            }
            Choice::Rows => {
                let rows = few(8, m);
                let kernel = kernel!("matmul_rows").with("ROWS", rows as u32).with("AVEC", false).with("BVEC", b4 && n % 4 == 0);
                (kernel, rows, 64)
            }
            Choice::Dot => {
                let rows = few(4, m);
                let both = a4 && b4 && k % 4 == 0;
                let (kernel, _) = cx.reducing(kernel!("matmul_dot"), 32);
                let columns = 4;
                let kernel = kernel.with("ROWS", rows as u32).with("COLS", columns as u32).with("AVEC", both).with("BVEC", both);
                (kernel, rows, columns)
            }
            Choice::Cooperative { tile, .. } => self.cooperative(cx, tile, piece),
        }
    }
}
