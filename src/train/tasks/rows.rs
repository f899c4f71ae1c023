//! What a fine-tuning step takes at a time, and in which order.

use super::{EncodedExample, EncodedTask, Sequence};
use crate::ops::random::threefry;

/// An example of training, or a window of one.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainingRow {
    /// One sequence, or one for each choice.
    pub sequences: Vec<Sequence>,
    /// What is to come out.
    pub target: RowTarget,
}

/// What is to come out for a row.
#[derive(Debug, Clone, PartialEq)]
pub enum RowTarget {
    /// A class, or the number of a choice.
    Class(u32),
    /// A number.
    Number(f32),
    /// `[time]`: a class for each token, [`IGNORE`](crate::ops::IGNORE) for those that are not counted.
    Tags(Vec<u32>),
    /// The first and the last token of an answer.
    Span(u32, u32),
}

impl EncodedTask {
    /// The rows of all examples: a question has one for each of its windows.
    pub fn into_rows(self) -> Vec<TrainingRow> {
        let one = |sequence, target| vec![TrainingRow { sequences: vec![sequence], target }];
        let rows = |example| match example {
            EncodedExample::Class { sequence, label } => one(sequence, RowTarget::Class(label)),
            EncodedExample::Number { sequence, value } => one(sequence, RowTarget::Number(value)),
            EncodedExample::Words { sequence, targets } => one(sequence.sequence, RowTarget::Tags(targets)),
            EncodedExample::Choice { sequences, label } => vec![TrainingRow { sequences, target: RowTarget::Class(label) }],
            EncodedExample::Question { windows, spans } => windows
                .into_iter()
                .zip(spans)
                .flat_map(|(window, (first, last))| one(window.sequence, RowTarget::Span(first, last)))
                .collect(),
        };
        self.examples.into_iter().flat_map(rows).collect()
    }
}

/// The order of training rows: epoch after epoch, each shuffled anew. It is a function of the seed alone.
pub struct Order {
    count: usize,
    seed: u32,
    epoch: usize,
    shuffled: Vec<usize>,
}

impl Order {
    /// The order of `count` rows.
    pub fn new(count: usize, seed: u32) -> Self {
        Self { count, seed, epoch: 0, shuffled: shuffle(count, seed, 0) }
    }

    /// The row at `place`, counted through all epochs.
    pub fn at(&mut self, place: usize) -> usize {
        let epoch = place / self.count;
        if epoch != self.epoch {
            self.shuffled = shuffle(self.count, self.seed, epoch);
            self.epoch = epoch;
        }
        self.shuffled[place % self.count]
    }
}

fn shuffle(count: usize, seed: u32, epoch: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..count).collect();
    // Key: the seed and a stream of its own; the place itself settles the unlikely tie.
    order.sort_by_key(|&i| (threefry([seed, 0x5AFE], [i as u32, epoch as u32]), i));
    order
}
