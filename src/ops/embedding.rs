//! Rows of a table by their index, with what is added to them: in a GPT-2 the rows of another table, for tokens and positions.

use super::{
    elementwise::is_residual_add,
    unpack::{of_format, windows},
    *,
};

/// Lanes of a workgroup.
const LANES: usize = 64;
/// Places that a lane of a GPU which chains equal ids looks at at once; on software adapters no load waits for another.
const CHAINED: u32 = 16;
/// Places that one pass of the gradient chains up: finding the links takes a search of this length, and Mesa's software
/// adapter ends a shader's loops after 65,535 turns altogether.
const CHAIN: usize = 16_384;

/// `table [V,C], ids [..] -> [.., C]`, with what is added to the rows after them.
#[derive(Debug, Clone, Copy)]
struct Embedding {
    more: More,
}

/// What a look-up adds to its rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum More {
    Nothing,
    /// `[.., C]`
    Rows,
    /// Those of a second look-up: `table [W,C], ids [..]`.
    Table,
}

/// `dy [.., C], ids [..] -> dtable [V,C]`
#[derive(Debug)]
struct EmbeddingBackward {
    rows: usize,
}

/// Row `ids[i]` of `table` for each `i`: `table [V,C], ids [..] u32 -> [.., C]`.
///
/// Ids are to be below V (the host checks them); one that is not counts as V - 1.
///
/// # Errors
/// `table` is not a matrix, or is empty.
pub fn embedding(g: &mut dyn Recorder, table: Tensor, ids: Tensor) -> Result<Tensor, OpError> {
    record_one(g, Embedding { more: More::Nothing }, &[table, ids])
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        match self.more {
            More::Nothing => "embedding",
            More::Rows => "embedding+add",
            More::Table => "embedding+embedding",
        }
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, ["fu", "fuf", "fufu"][self.more as usize])?;
        let table = &inputs[0].shape;
        ensure(table.rank() == 2 && table.elements() > 0, || format!("a table is [rows, width], not {table}"))?;
        let mut shape = inputs[1].shape.clone();
        shape.0.push(table.width());
        Ok(vec![TensorType::f32(shape)])
    }
    fn backward(&self, g: &mut dyn Recorder, node: &Recorded<'_>) -> Result<Vec<Option<Tensor>>, OpError> {
        let Some(dy) = node.grads[0] else { return Ok(vec![None, None]) };
        let rows = g.ty(node.inputs[0]).shape.rows();
        Ok(vec![Some(record_one(g, EmbeddingBackward { rows }, &[dy, node.inputs[1]])?), None])
    }
    fn flops(&self, _inputs: &[TensorType], outputs: &[TensorType]) -> u64 {
        if self.more == More::Nothing { 0 } else { outputs[0].elements() as u64 }
    }
    fn picks(&self, i: usize, _inputs: &[TensorType], outputs: &[TensorType]) -> Option<u64> {
        (i == 0 || (i == 2 && self.more == More::Table)).then(|| outputs[0].bytes())
    }
    fn half_input(&self, i: usize) -> Half {
        if i == 2 && self.more == More::Rows { Half::Added } else { Half::Never }
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn packed_input(&self, i: usize, packing: &Packing) -> bool {
        (i == 0 || (i == 2 && self.more == More::Table)) && !packing.transposed
    }
    fn absorb(&self, next: &dyn Operation, position: usize, types: &[TensorType], keep: bool) -> Option<Absorbed> {
        if keep || self.more != More::Nothing {
            return None;
        }
        let (more, extra_inputs) = if is_residual_add(next, types) {
            (More::Rows, vec![1 - position])
        } else {
            // The sum of another look-up and these rows.
            let other = next.as_any().downcast_ref::<Self>()?;
            (other.more == More::Rows && position == 2).then_some((More::Table, vec![0, 1]))?
        };
        Some(Absorbed { op: Arc::new(Self { more }), extra_inputs, drops: false })
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let y = cx.output(0);
        let (mut table, mut ids) = (cx.input(0), cx.input(1));
        let mut added = match self.more {
            More::Nothing => Added::Nothing,
            More::Rows => Added::Rows(cx.input(2)),
            More::Table => Added::Table(cx.input(2), cx.input(3)),
        };
        // Only one of the tables is read packed.
        if let Added::Table(other, other_ids) = &mut added
            && other.storage.packing().is_some()
        {
            std::mem::swap(&mut table, other);
            std::mem::swap(&mut ids, other_ids);
            if other.storage.packing().is_some() {
                let rows = Operand { ty: y.ty.clone(), ..cx.scratch(y.ty.elements()) };
                look_up(cx, (other, other_ids), &Added::Nothing, &rows)?;
                added = Added::Rows(rows);
            }
        }
        look_up(cx, (&table, &ids), &added, &y)
    }
    host_reference!();
}

/// What is added, in lowering.
enum Added {
    Nothing,
    Rows(Operand),
    Table(Operand, Operand),
}

/// `y = table[ids]`, and what is added. The table may be packed; a second one may not.
///
/// # Errors
/// A row is larger than a binding.
fn look_up(cx: &mut Lowering<'_>, (table, ids): (&Operand, &Operand), added: &Added, y: &Operand) -> Result<(), OpError> {
    let (rows, width) = (table.ty.shape.rows(), table.ty.shape.width());
    let packing = table.storage.packing();
    let (word, others) = match added {
        Added::Nothing => ("none", None),
        Added::Rows(_) => ("rows", None),
        Added::Table(other, _) => ("table", Some(other.ty.shape.rows())),
    };
    let more_rows = others.unwrap_or(0);
    let more_windows = match others {
        Some(rows) => cx.row_ranges(rows, width)?,
        None => std::iter::once(0..0).collect(),
    };
    // Each window of a table writes the rows of the output that it holds; together they write all.
    for window in cx.row_ranges(rows, packing.map_or(width, |packing| packing.row_words()))? {
        for more_window in &more_windows {
            for range in cx.row_ranges(ids.ty.elements(), width)? {
                let (from, scales) = match &packing {
                    Some(packing) => windows(table, packing, &window),
                    None => (table.rows(window.clone(), width), None),
                };
                let to = y.rows(range.clone(), width);
                let more = match added {
                    Added::Nothing => None,
                    Added::Rows(rows) => Some(rows.rows(range.clone(), width)),
                    Added::Table(other, _) => Some(other.rows(more_window.clone(), width)),
                };
                let plain = packing.is_none().then_some(&from);
                let vec4 = cx.vec4(width, &plain.into_iter().chain([&to]).chain(&more).collect::<Vec<_>>());
                let kernel = match &packing {
                    Some(packing) => of_format(kernel!("embedding"), packing),
                    None => kernel!("embedding").with("FORMAT", "plain"),
                };
                let units = range.len() * width.div_ceil(4);
                let [row_words, scale_words] = packing.map_or([0; 2], |packing| [packing.row_words(), packing.scale_words()]);
                let words = [
                    units,
                    width,
                    window.start,
                    window.end,
                    rows,
                    row_words,
                    scale_words,
                    more_window.start,
                    more_window.end,
                    more_rows,
                ];
                let mut bindings = vec![from.read(), ids.part(range.clone()).read(), to.write()];
                bindings.extend(more.map(Window::read));
                if let Added::Table(_, ids) = added {
                    bindings.push(ids.part(range).read());
                }
                bindings.extend(scales.map(Window::read));
                let kernel = kernel.with("VEC", vec4).with("ADD", word);
                cx.dispatch(kernel, &bindings, &words.map(|n| n as u32), units.div_ceil(LANES))?;
            }
        }
    }
    Ok(())
}

impl Reference for Embedding {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = inputs[0].shape.width();
        let picked = |table: &HostTensor<T>, ids: &HostTensor<T>| -> Vec<T> {
            let (numbers, last) = (table.f(), table.shape.rows() - 1);
            ids.u().iter().flat_map(|&id| &numbers[(id as usize).min(last) * width..][..width]).copied().collect()
        };
        let mut rows = picked(&inputs[0], &inputs[1]);
        let more = match self.more {
            More::Nothing => Vec::new(),
            More::Rows => inputs[2].f().to_vec(),
            More::Table => picked(&inputs[2], &inputs[3]),
        };
        rows.iter_mut().zip(more).for_each(|(x, more)| *x += more);
        vec![HostTensor::floats(outputs[0].shape.clone(), rows)]
    }
}

impl Operation for EmbeddingBackward {
    fn name(&self) -> &'static str {
        "embedding_backward"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "fu")?;
        Ok(vec![TensorType::f32([self.rows, inputs[0].shape.width()])])
    }
    fn flops(&self, inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        inputs[0].elements() as u64
    }
    fn half_input(&self, i: usize) -> Half {
        if i == 0 { Half::Accepted } else { Half::Never }
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (dy, ids, table) = (cx.input(0), cx.input(1), cx.output(0));
        let width = table.ty.shape.width();
        // Gathered, not scattered: the places of each id form a chain in their order, which one lane a column walks along.
        // Links are place + 1; 0 ends a chain.
        let (heads, links) = (cx.scratch(self.rows), cx.scratch(CHAIN));
        let places = cx.row_ranges(ids.ty.elements(), width)?.into_iter().flat_map(|range| {
            let end = range.end;
            range.step_by(CHAIN).map(move |start| start..end.min(start + CHAIN))
        });
        for (part, range) in places.collect::<Vec<_>>().into_iter().enumerate() {
            let links = links.part(0..range.len());
            cx.dispatch(kernel!("zero"), &[heads.all().write()], &[self.rows as u32], self.rows.div_ceil(64))?;
            cx.dispatch(
                kernel!("embedding_chain").with("EACH", if cx.caps.software { 1 } else { CHAINED }),
                &[ids.part(range.clone()).read(), heads.all().write(), links.clone().write()],
                &[range.len() as u32, self.rows as u32],
                range.len().div_ceil(LANES),
            )?;
            for window in cx.row_ranges(self.rows, width)? {
                let (from, to) = (dy.rows(range.clone(), width), table.rows(window.clone(), width));
                let vec4 = cx.vec4(width, &[&from, &to]);
                let width = if vec4 { width / 4 } else { width };
                let units = window.len() * width;
                cx.dispatch(
                    kernel!("embedding_backward").with("VEC", vec4).with("ADD", part > 0),
                    &[from.read(), heads.part(window.clone()).read(), links.clone().read(), to.write()],
                    &[units as u32, width as u32],
                    units.div_ceil(LANES),
                )?;
            }
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for EmbeddingBackward {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = outputs[0].shape.width();
        let mut table = vec![T::ZERO; outputs[0].elements()];
        for (&id, dy) in inputs[1].u().iter().zip(inputs[0].f().chunks(width)) {
            let row = &mut table[(id as usize).min(self.rows - 1) * width..][..width];
            row.iter_mut().zip(dy).for_each(|(sum, &d)| *sum += d);
        }
        vec![HostTensor::floats(outputs[0].shape.clone(), table)]
    }
}
