//! From the logits of a question's windows to its answer, as BERT's `run_squad.py` finds it.

use super::ContextWindow;
use std::ops::Range;

/// Answers have at most so many tokens: `max_answer_length` of `run_squad.py`.
const LONGEST_ANSWER: usize = 30;

/// An answer that a model has found.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Where it is in the context, bytes.
    pub range: Range<usize>,
    /// The answer, as the context has it.
    pub text: String,
    /// The logit of its first token as start plus that of its last token as end.
    pub score: f32,
    /// The lowest sum of both logits at `[CLS]`: the question has no answer, if this is higher (by some threshold).
    pub null_score: f32,
}

/// The best answer of at most 30 tokens, from all windows of a question. `logits` has for each window those of the start
/// and of the end, one for each token of its sequence (more are not looked at). None if the context has no tokens, or no
/// logit of them is a number.
pub fn best_answer(context: &str, windows: &[ContextWindow], logits: &[(&[f32], &[f32])]) -> Option<Prediction> {
    let mut best: Option<(f32, Range<usize>)> = None;
    let mut null_score = f32::INFINITY;
    for (window, (starts, ends)) in windows.iter().zip(logits) {
        if let (Some(start), Some(end)) = (starts.first(), ends.first()) {
            null_score = null_score.min(start + end);
        }
        for (first, begin) in window.ranges.iter().enumerate().filter(|(first, _)| window.widest[*first]) {
            for (last, end) in window.ranges.iter().enumerate().skip(first).take(LONGEST_ANSWER) {
                let (Some(&start), Some(&stop)) = (starts.get(window.at + first), ends.get(window.at + last)) else {
                    continue;
                };
                let score = start + stop;
                if score > best.as_ref().map_or(f32::NEG_INFINITY, |best| best.0) {
                    best = Some((score, begin.start..end.end));
                }
            }
        }
    }
    let (score, range) = best?;
    Some(Prediction { text: context.get(range.clone())?.trim().to_owned(), range, score, null_score })
}
