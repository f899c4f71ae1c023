//! Which tokens are hidden, and by what (Devlin et al. 2019, section 3.1; Lan et al. 2020, section 4.1; the reference is
//! `create_masked_lm_predictions` in google-research/albert's create_pretraining_data.py, and with single tokens the function
//! of that name in google-research/bert; for ELECTRA `mask` in google-research/electra's pretrain_helpers.py).
//!
//! It differs from the reference where that is a slip: special tokens (`[UNK]` too) are never masked and never put in as
//! random ones, an n-gram does not reach over `[SEP]`, and near a segment's end only lengths that fit are drawn.

use super::{PretrainSettings, Stream};
use crate::text::{SpecialTokens, Tokenizer};
use std::ops::Range;

/// Masks tokens.
pub(super) struct Masking {
    special: SpecialTokens,
    /// What may stand in for a token.
    ordinary: Vec<u32>,
    settings: PretrainSettings,
}

/// A word, or a token if words do not matter.
struct Unit {
    place: Range<usize>,
    /// Units from this one to the end of its segment, this one counted.
    left: usize,
}

impl Masking {
    pub fn new(tokenizer: &Tokenizer, special: SpecialTokens, settings: PretrainSettings) -> Self {
        let all = 0..tokenizer.vocab_size() as u32;
        let ordinary = all.filter(|&id| tokenizer.has(id) && !special.contains(id)).collect();
        Self { special, ordinary, settings }
    }

    /// Number of tokens that are predicted in a sequence: 15 % of all, special ones counted, as in the reference.
    fn budget(&self, length: usize) -> usize {
        // Halves go to the even number, as Python rounds.
        let share = (length as f32 * self.settings.mask_probability).round_ties_even() as usize;
        share.max(1).min(self.settings.max_predictions)
    }

    fn units(&self, tokenizer: &Tokenizer, ids: &[u32]) -> Vec<Unit> {
        let mut units: Vec<Unit> = Vec::new();
        let mut start = 0;
        // Special tokens end whatever word or segment they stand in.
        for segment in ids.split(|&id| self.special.contains(id)) {
            let first = units.len();
            for (at, &id) in (start..).zip(segment) {
                match units[first..].last_mut() {
                    Some(word) if self.settings.whole_words && !tokenizer.begins_word(id) => word.place.end = at + 1,
                    _ => units.push(Unit { place: at..at + 1, left: 0 }),
                }
            }
            units[first..].iter_mut().rev().zip(1..).for_each(|(unit, left)| unit.left = left);
            start += segment.len() + 1;
        }
        units
    }

    /// The n-grams to predict, as places in `ids`, in the order in which they were drawn. None overlap. Words that are longer
    /// than what may be predicted are left out, so that there may be none at all.
    pub fn spans(&self, tokenizer: &Tokenizer, ids: &[u32], stream: &mut Stream) -> Vec<Range<usize>> {
        let budget = self.budget(ids.len());
        let units = self.units(tokenizer, ids);
        let mut order: Vec<usize> = (0..units.len()).collect();
        let mut covered = vec![false; ids.len()];
        let (mut spans, mut taken) = (Vec::new(), 0);
        for i in 0..order.len() {
            if taken >= budget {
                break;
            }
            let other = i + stream.below(order.len() - i);
            order.swap(i, other);
            let first = order[i];
            let drawn = self.ngram(units[first].left, stream);
            let span = |n: usize| units[first].place.start..units[first + n - 1].place.end;
            // A shorter n-gram where the whole does not fit any more.
            let Some(span) = (1..=drawn).rev().map(span).find(|span| taken + span.len() <= budget) else { continue };
            if covered[span.clone()].contains(&true) {
                continue;
            }
            covered[span.clone()].fill(true);
            taken += span.len();
            spans.push(span);
        }
        spans
    }

    /// The length of an n-gram: n with a probability proportional to 1/n (Lan et al., section 4.1), at most `left`.
    fn ngram(&self, left: usize, stream: &mut Stream) -> usize {
        let most = self.settings.ngrams.min(left);
        let total: f64 = (1..=most).map(|n| 1.0 / n as f64).sum();
        let mut rest = stream.unit() * total;
        for n in 1..most {
            rest -= 1.0 / n as f64;
            if rest < 0.0 {
                return n;
            }
        }
        most
    }

    /// Hides the tokens of `spans`: 80 % become `[MASK]`, 10 % stay, 10 % become a random token. Returns their places, in
    /// ascending order, and what stood there.
    pub fn apply(&self, ids: &mut [u32], spans: &[Range<usize>], stream: &mut Stream) -> (Vec<u32>, Vec<u32>) {
        let mut places: Vec<usize> = spans.iter().flat_map(Clone::clone).collect();
        places.sort_unstable();
        let labels = places.iter().map(|&at| ids[at]).collect();
        for &at in &places {
            if stream.chance(0.8) {
                ids[at] = self.special.mask;
            } else if stream.chance(0.5) {
                ids[at] = self.ordinary[stream.below(self.ordinary.len())];
            }
        }
        (places.into_iter().map(|at| at as u32).collect(), labels)
    }

    /// Hides single tokens by ELECTRA's rule: 85 % become `[MASK]`, the others stay. Returns their places, in ascending
    /// order, and what stood there. With `replacement` a place may be drawn, and then returned, more than once; it becomes
    /// `[MASK]` if either draw says so.
    pub fn electra(&self, ids: &mut [u32], replacement: bool, stream: &mut Stream) -> (Vec<u32>, Vec<u32>) {
        let mut candidates: Vec<u32> = (0..ids.len() as u32).filter(|&at| !self.special.contains(ids[at as usize])).collect();
        let wanted = if candidates.is_empty() { 0 } else { self.budget(ids.len()) };
        let mut places = Vec::with_capacity(wanted);
        for _ in 0..wanted {
            if candidates.is_empty() {
                break;
            }
            let at = stream.below(candidates.len());
            places.push(if replacement { candidates[at] } else { candidates.swap_remove(at) });
        }
        places.sort_unstable();
        let labels = places.iter().map(|&at| ids[at as usize]).collect();
        for &at in &places {
            if stream.chance(0.85) {
                ids[at as usize] = self.special.mask;
            }
        }
        (places, labels)
    }
}
