//! Rows of a table by their index.

use super::*;

/// Lanes of a workgroup.
const LANES: usize = 64;
/// Places that one pass of the gradient chains up: finding the links takes a search of this length, and Mesa's software
/// adapter ends a shader's loops after 65,535 turns altogether.
const CHAIN: usize = 16_384;

/// `table [V,C], ids [..] -> [.., C]`
#[derive(Debug)]
struct Embedding;

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
    record_one(g, Embedding, &[table, ids])
}

impl Operation for Embedding {
    fn name(&self) -> &'static str {
        "embedding"
    }
    fn infer(&self, inputs: &[TensorType]) -> Result<Vec<TensorType>, OpError> {
        expect(inputs, "fu")?;
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
    fn flops(&self, _inputs: &[TensorType], _outputs: &[TensorType]) -> u64 {
        0
    }
    fn picks(&self, i: usize, _inputs: &[TensorType], outputs: &[TensorType]) -> Option<u64> {
        (i == 0).then(|| outputs[0].bytes())
    }
    fn half_output(&self, _i: usize) -> bool {
        true
    }
    fn packed_input(&self, i: usize, packing: &Packing) -> bool {
        i == 0 && !packing.transposed
    }
    fn lower(&self, cx: &mut Lowering<'_>) -> Result<(), OpError> {
        let (table, ids, y) = (cx.input(0), cx.input(1), cx.output(0));
        if table.storage.packing().is_some() {
            return lower_unpacking(cx, (&table, table.ty.shape.rows()), &y, Some(&ids));
        }
        let (rows, width) = (table.ty.shape.rows(), table.ty.shape.width());
        // Each window of the table writes the rows of the output that it holds; together they write all.
        for window in cx.row_ranges(rows, width)? {
            for range in cx.row_ranges(ids.ty.elements(), width)? {
                let (from, to) = (table.rows(window.clone(), width), y.rows(range.clone(), width));
                let vec4 = cx.vec4(width, &[&from, &to]);
                let width = if vec4 { width / 4 } else { width };
                let units = range.len() * width;
                let words = [units, width, window.start, window.end, rows].map(|n| n as u32);
                cx.dispatch(
                    kernel!("embedding").with("VEC", vec4),
                    &[from.read(), ids.part(range).read(), to.write()],
                    &words,
                    units.div_ceil(LANES),
                )?;
            }
        }
        Ok(())
    }
    host_reference!();
}
impl Reference for Embedding {
    fn run<T: Real>(&self, inputs: Vec<HostTensor<T>>, outputs: &[TensorType]) -> Vec<HostTensor<T>> {
        let width = inputs[0].shape.width();
        let (table, last) = (inputs[0].f(), inputs[0].shape.rows() - 1);
        let rows = inputs[1].u().iter().flat_map(|&id| &table[(id as usize).min(last) * width..][..width]);
        vec![HostTensor::floats(outputs[0].shape.clone(), rows.copied().collect())]
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
                kernel!("embedding_chain"),
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
