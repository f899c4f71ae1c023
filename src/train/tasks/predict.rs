//! From inputs to what a model finds for them: the tokens, and the reading of the logits.

use super::{
    ContextWindow, Encoder, Lengths, Prediction, RunBatch, Sequence, SequenceLogits, Target, Task, TaskInput, WordSequence,
    best_answer, row_logits,
};
use crate::text::TextError;
use rayon::prelude::*;

/// An input as a model takes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EncodedInput {
    /// A text or a pair; of `choice` one for each choice.
    Texts(Vec<Sequence>),
    /// A sentence of words.
    Words(WordSequence),
    /// A question with all of its context.
    Windows(Vec<ContextWindow>),
}

/// What a model finds for an input.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// The likeliest class or choice, and the probabilities of all.
    Class {
        /// The likeliest.
        class: usize,
        /// Of all classes, or of all choices.
        probabilities: Vec<f32>,
    },
    /// A number.
    Number(f32),
    /// For each word its likeliest class and that one's probability; `None` for words beyond the context.
    Tags(Vec<Option<(usize, f32)>>),
    /// The best answer; `None` if the context has no tokens.
    Answer {
        /// Where it is, and how it scores.
        prediction: Option<Prediction>,
        /// Whether no answer is likelier (where that was allowed).
        none: bool,
    },
}

impl Found {
    /// The text of an answer, empty if there is none.
    pub fn answer(&self) -> &str {
        match self {
            Self::Answer { prediction: Some(prediction), none: false } => &prediction.text,
            _ => "",
        }
    }
}

impl Encoder<'_> {
    /// An input without its target; `stride` is of [`question`](Self::question).
    ///
    /// # Errors
    /// As of the functions for single inputs.
    pub fn input(&self, input: &TaskInput, stride: usize) -> Result<EncodedInput, TextError> {
        Ok(match input {
            TaskInput::Text { first, second } => EncodedInput::Texts(vec![self.text(first, second.as_deref())?]),
            TaskInput::Words(words) => EncodedInput::Words(self.words(words)?),
            TaskInput::Question { question, context, .. } => EncodedInput::Windows(self.question(question, context, stride)?),
            TaskInput::Choice { prompt, choices } => EncodedInput::Texts(self.choices(prompt, choices)?),
        })
    }

    /// Many inputs, in parallel.
    ///
    /// # Errors
    /// As of [`input`](Self::input).
    pub fn inputs(&self, inputs: &[&TaskInput], stride: usize) -> Result<Vec<EncodedInput>, TextError> {
        inputs.par_iter().map(|input| self.input(input, stride)).collect()
    }
}

impl EncodedInput {
    /// Its sequences, each of which is a row of a batch.
    pub fn sequences(&self) -> Vec<&Sequence> {
        match self {
            Self::Texts(sequences) => sequences.iter().collect(),
            Self::Words(words) => vec![&words.sequence],
            Self::Windows(windows) => windows.iter().map(|window| &window.sequence).collect(),
        }
    }

    /// Whether it lost tokens because they did not fit.
    pub fn is_cut(&self) -> bool {
        self.sequences().iter().any(|sequence| sequence.cut > 0)
    }

    /// What the outputs for its sequences say. A question has no answer if that scores higher than the best one by more than
    /// `null_threshold`, as `run_squad.py` has it (`null_score_diff_threshold`); without one it always has.
    pub fn read(&self, task: Task, input: &TaskInput, logits: &[SequenceLogits], null_threshold: Option<f32>) -> Found {
        let first = |row: &SequenceLogits| row.first().map(|output| output.values.clone()).unwrap_or_default();
        match (self, input) {
            (Self::Texts(_), _) => {
                let values: Vec<f32> = logits.iter().flat_map(first).collect();
                if task == Task::Regress {
                    return Found::Number(values.first().copied().unwrap_or(f32::NAN));
                }
                let probabilities = softmax(&values);
                Found::Class { class: likeliest(&values), probabilities }
            }
            (Self::Words(words), _) => {
                let count = if let TaskInput::Words(words) = input { words.len() } else { 0 };
                let mut tags = vec![None; count];
                let places = logits.iter().flatten().flat_map(|output| output.values.chunks(output.width.max(1)));
                for (word, values) in words.words.iter().zip(places) {
                    if let Some(tag) = word.and_then(|word| tags.get_mut(word)) {
                        let class = likeliest(values);
                        *tag = softmax(values).get(class).map(|&probability| (class, probability));
                    }
                }
                Found::Tags(tags)
            }
            (Self::Windows(windows), _) => {
                let context = if let TaskInput::Question { context, .. } = input { context } else { "" };
                let spans: Vec<(&[f32], &[f32])> = logits
                    .iter()
                    .map(|row| match &row[..] {
                        [start, end, ..] => (&start.values[..], &end.values[..]),
                        _ => (&[][..], &[][..]),
                    })
                    .collect();
                let prediction = best_answer(context, windows, &spans);
                let likelier = |p: &Prediction| null_threshold.is_some_and(|by| p.null_score - p.score > by);
                let none = prediction.as_ref().is_some_and(likelier);
                Found::Answer { prediction, none }
            }
        }
    }

    /// The loss of its outputs, nats (or squares), summed over what is counted, and how much that is: examples, words, or the
    /// ends of answers (the mean of both for each window). It is what the training loss is without dropout.
    pub fn loss(&self, target: &Target, logits: &[SequenceLogits]) -> (f64, usize) {
        match (self, target) {
            (Self::Texts(_), Target::Class(class)) => {
                let values: Vec<f32> = logits.iter().flatten().flat_map(|output| output.values.iter().copied()).collect();
                (surprise(&values, *class), 1)
            }
            (Self::Texts(_), Target::Number(value)) => {
                let found = logits.iter().flatten().flat_map(|output| &output.values).next().copied().unwrap_or(f32::NAN);
                ((f64::from(found) - f64::from(*value)).powi(2), 1)
            }
            (Self::Words(words), Target::Tags(tags)) => {
                let places = logits.iter().flatten().flat_map(|output| output.values.chunks(output.width.max(1)));
                let counted = words.words.iter().zip(places).filter_map(|(word, values)| Some((tags.get((*word)?)?, values)));
                counted.fold((0.0, 0), |(sum, count), (&tag, values)| (sum + surprise(values, tag), count + 1))
            }
            (Self::Windows(windows), Target::Answers(answers)) => {
                let each = windows.iter().zip(logits).map(|(window, row)| {
                    let (first, last) = window.span(answers.first());
                    let ends = row.iter().zip([first, last]).map(|(output, at)| surprise(&output.values, at as usize));
                    0.5 * ends.sum::<f64>()
                });
                (each.sum(), windows.len())
            }
            _ => (f64::NAN, 1),
        }
    }
}

/// Runs inputs through a model, as [`row_logits`] does: for each input the outputs for each of its sequences.
///
/// # Errors
/// Those of `run`.
pub fn input_logits<E>(
    inputs: &[EncodedInput],
    rows: usize,
    lengths: Lengths,
    pad: u32,
    run: &mut RunBatch<'_, E>,
) -> Result<Vec<Vec<SequenceLogits>>, E> {
    let sequences: Vec<&Sequence> = inputs.iter().flat_map(EncodedInput::sequences).collect();
    let mut all = row_logits(&sequences, rows, lengths, pad, run)?.into_iter();
    Ok(inputs.iter().map(|input| all.by_ref().take(input.sequences().len()).collect()).collect())
}

/// The place of the highest value, the first of equals; 0 of none.
fn likeliest(values: &[f32]) -> usize {
    let best = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]).then(b.cmp(&a)));
    best.unwrap_or(0)
}

/// Logarithm of the sum of exponentials.
fn log_sum(values: &[f32]) -> f64 {
    let most = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    f64::from(most) + values.iter().map(|&x| f64::from(x - most).exp()).sum::<f64>().ln()
}

fn softmax(values: &[f32]) -> Vec<f32> {
    let sum = log_sum(values);
    values.iter().map(|&x| (f64::from(x) - sum).exp() as f32).collect()
}

/// The cross-entropy of one row of logits with a class, nats.
fn surprise(values: &[f32], class: usize) -> f64 {
    log_sum(values) - values.get(class).map_or(f64::NAN, |&x| f64::from(x))
}
