//! Sequences as rows of equal length, and what a model gives for each of them.

use super::Sequence;
use crate::ops::HostTensor;

/// Rows of tokens, filled up with `[PAD]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TextBatch {
    /// Rows.
    pub rows: usize,
    /// Tokens a row.
    pub time: usize,
    /// `[rows * time]`
    pub ids: Vec<u32>,
    /// `[rows * time]`: token types, 0 where filled up.
    pub types: Vec<u32>,
    /// `[rows * time]`: 1 for text, 0 where filled up.
    pub mask: Vec<u32>,
}

impl TextBatch {
    /// Rows without text. The first place of each is not masked: attention over no place at all has no value.
    pub fn new(rows: usize, time: usize, pad: u32) -> Self {
        let mask = (0..rows * time).map(|i| u32::from(i % time == 0)).collect();
        Self { rows, time, ids: vec![pad; rows * time], types: vec![0; rows * time], mask }
    }

    /// Puts a sequence, of which at most `time` tokens fit, into a row that has none yet.
    pub fn put(&mut self, row: usize, sequence: &Sequence) {
        let (start, length) = (row * self.time, sequence.ids.len().min(self.time));
        self.ids[start..start + length].copy_from_slice(&sequence.ids[..length]);
        self.types[start..start + length].copy_from_slice(&sequence.types[..length]);
        self.mask[start..start + length].fill(1);
    }
}

/// How long the rows of a batch are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lengths {
    /// All alike.
    Fixed(usize),
    /// The smallest multiple of `of` that holds the batch's longest sequence, at most `most`: one plan serves one length.
    Multiples {
        /// What divides them.
        of: usize,
        /// The longest.
        most: usize,
    },
}

impl Lengths {
    /// The length of rows that hold `longest` tokens.
    pub fn holding(self, longest: usize) -> usize {
        match self {
            Self::Fixed(time) => time,
            Self::Multiples { of, most } => longest.next_multiple_of(of.max(1)).min(most),
        }
    }
}

/// An output of a model for one row.
#[derive(Debug, Clone, PartialEq)]
pub struct RowLogits {
    /// All of the row's: those of the classes, or of all places, or of the classes at all places.
    pub values: Vec<f32>,
    /// The last dimension's size.
    pub width: usize,
}

/// Gives a model's outputs for a batch.
pub type RunBatch<'a, E> = dyn FnMut(&TextBatch) -> Result<Vec<HostTensor<f32>>, E> + 'a;

/// All outputs of a model for one sequence.
pub type SequenceLogits = Vec<RowLogits>;

/// Runs `sequences` through a model in batches of `rows`, the shortest first, so that little is filled up. `run` gives a
/// batch's outputs, each with the rows as its first dimension (however the others divide it). The result has for each
/// sequence, in the order given, all outputs.
///
/// # Errors
/// Those of `run`.
pub fn row_logits<E>(
    sequences: &[&Sequence],
    rows: usize,
    lengths: Lengths,
    pad: u32,
    run: &mut RunBatch<'_, E>,
) -> Result<Vec<SequenceLogits>, E> {
    let mut order: Vec<usize> = (0..sequences.len()).collect();
    order.sort_by_key(|&i| sequences[i].ids.len());
    let mut all = vec![Vec::new(); sequences.len()];
    for chunk in order.chunks(rows) {
        let longest = chunk.iter().map(|&i| sequences[i].ids.len()).max().unwrap_or(0);
        // Rows that no sequence is left for stay without text, and nobody reads what comes of them.
        let mut batch = TextBatch::new(rows, lengths.holding(longest), pad);
        chunk.iter().enumerate().for_each(|(row, &i)| batch.put(row, sequences[i]));
        let outputs = run(&batch)?;
        for (row, &i) in chunk.iter().enumerate() {
            let part = |output: &HostTensor<f32>| {
                let size = output.shape.elements() / rows;
                RowLogits { values: output.f()[row * size..(row + 1) * size].to_vec(), width: output.shape.width() }
            };
            all[i] = outputs.iter().map(part).collect();
        }
    }
    Ok(all)
}
