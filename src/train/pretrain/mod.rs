//! What BERT, ALBERT and ELECTRA learn from: masked tokens, and pairs of segments.
//!
//! [`Documents`] is text, [`Pretraining`] makes examples of it as they are asked for; nothing is written to disk.

mod documents;
mod examples;
mod masking;
mod segments;
mod stream;

pub use documents::Documents;
pub use examples::{Example, PretrainBatch, Pretraining};
pub use stream::Stream;

use super::TrainError;

/// What is asked about the segments of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pairing {
    /// There is one segment only.
    Single,
    /// Whether the second follows the first or comes from another document (BERT).
    NextSentence,
    /// Whether two consecutive segments are in order or swapped (ALBERT).
    SentenceOrder,
    /// Nothing: there are two consecutive segments in order, or now and then one only (ELECTRA).
    Consecutive,
}

/// How tokens are hidden.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MaskRule {
    /// 80 % become `[MASK]`, 10 % a random token, 10 % stay (Devlin et al. 2019, section 3.1).
    Bert,
    /// 85 % become `[MASK]`, 15 % stay (google-research/electra's `pretrain_helpers.mask`).
    Electra {
        /// Whether a place may be drawn twice, as in the reference; it is then predicted twice.
        replacement: bool,
    },
}

/// How examples are made.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PretrainSettings {
    /// Most tokens of an example, special ones counted.
    pub context: usize,
    /// What is asked about segments.
    pub pairing: Pairing,
    /// Part of the tokens that is predicted.
    pub mask_probability: f32,
    /// Most tokens that are predicted in an example.
    pub max_predictions: usize,
    /// Longest n-gram that is masked as one: 1 in BERT, 3 in ALBERT.
    pub ngrams: usize,
    /// Mask whole words instead of tokens.
    pub whole_words: bool,
    /// How tokens are hidden. ELECTRA's rule knows neither words nor n-grams.
    pub mask_rule: MaskRule,
    /// How often an example is made shorter than it could be.
    pub short_probability: f32,
    /// Seed of all choices.
    pub seed: u32,
}

impl PretrainSettings {
    /// As in the papers: ALBERT's n-grams of up to three whole words with sentence order, BERT's single tokens otherwise.
    pub fn of_paper(pairing: Pairing, context: usize, seed: u32) -> Self {
        let albert = pairing == Pairing::SentenceOrder;
        Self {
            context,
            pairing,
            mask_probability: 0.15,
            max_predictions: 20,
            ngrams: if albert { 3 } else { 1 },
            whole_words: albert,
            mask_rule: MaskRule::Bert,
            short_probability: 0.1,
            seed,
        }
    }

    /// As in the ELECTRA paper: `probability` of single tokens, 0.15 (0.25 for large models), drawn with replacement, all of
    /// which are predicted.
    pub fn electra(context: usize, probability: f32, seed: u32) -> Self {
        Self {
            mask_probability: probability,
            // As the reference rounds.
            max_predictions: (((probability + 0.005) * context as f32) as usize).max(1),
            mask_rule: MaskRule::Electra { replacement: true },
            ..Self::of_paper(Pairing::Consecutive, context, seed)
        }
    }

    /// Most tokens of text in an example: without `[CLS]` and a `[SEP]` for each segment.
    pub(super) fn text_tokens(&self) -> usize {
        self.context - if self.pairing == Pairing::Single { 2 } else { 3 }
    }

    /// # Errors
    /// A setting is out of range.
    pub(super) fn check(&self) -> Result<(), TrainError> {
        let fail = |flag, reason: String| Err(TrainError::Setting { flag, reason });
        if self.context < 5 {
            return fail("--context", format!("{} leaves no room for text; must be at least 5", self.context));
        }
        // Places in a batch are 32-bit numbers.
        if self.context > 1 << 16 {
            return fail("--context", format!("{}: must be at most {}", self.context, 1 << 16));
        }
        for (flag, value) in [("--max-predictions", self.max_predictions), ("--ngrams", self.ngrams)] {
            if value == 0 || value > 1 << 16 {
                return fail(flag, format!("{value}: must be from 1 to {}", 1 << 16));
            }
        }
        if !(self.mask_probability > 0.0 && self.mask_probability <= 1.0) {
            return fail("--mask-probability", format!("{}: must be above 0 and at most 1", self.mask_probability));
        }
        if !(0.0..=1.0).contains(&self.short_probability) {
            return fail("--short-probability", format!("{}: must be from 0 to 1", self.short_probability));
        }
        Ok(())
    }
}
