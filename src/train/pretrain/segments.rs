//! Which pieces of text make an example: segments of documents, one or two, as the papers' reference code chooses them
//! (`create_instances_from_document` in create_pretraining_data.py of google-research/bert and google-research/albert).
//!
//! Like the reference, a document is taken in chunks of consecutive sentences up to a target length, which is the whole
//! context or now and then a random shorter one; a chunk is divided between two sentences at random; and the longer segment
//! is cut at its beginning or end, at random, until both fit. What differs, and why:
//! - The target is drawn for each chunk, not for each document: a corpus may be a few long books.
//! - A chunk of one sentence, which the reference pairs with a random document whatever the objective, is divided within the
//!   sentence where a word begins. So sentence order never pairs documents, and next-sentence labels stay balanced. A
//!   sentence of one word takes the next one in; if there is none, it is skipped.
//! - A random next segment comes from another document always, not only after ten tries.
//! - Without pairing, what does not fit goes into the next example instead of being cut off.

use super::{Documents, Pairing, PretrainSettings, Stream};
use crate::text::Tokenizer;
use rayon::iter::{IntoParallelIterator, ParallelIterator};
use std::ops::Range;

/// How often consecutive segments are left as one (`create_example` in build_pretraining_dataset.py of
/// google-research/electra).
const UNDIVIDED: f64 = 0.1;

/// Purposes of random streams, so that they differ.
const CHUNKS: u32 = 0x5E61;
const ORDER: u32 = 0x5E62;

/// Where an example's text comes from: places in [`Documents::tokens`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Instance {
    pub first: Range<usize>,
    /// Empty where there is one segment only.
    pub second: Range<usize>,
    /// Next sentence: 1 if the second segment is random; sentence order: 1 if they are swapped.
    pub label: Option<u32>,
}

/// The examples of an epoch, in the order in which they come: a function of the seed and the epoch.
pub(super) fn plan(documents: &Documents, tokenizer: &Tokenizer, settings: &PretrainSettings, epoch: u64) -> Vec<Instance> {
    let mut instances: Vec<Instance> = (0..documents.len())
        .into_par_iter()
        .flat_map_iter(|document| {
            let stream = Stream::new(settings.seed, CHUNKS, epoch, document as u64);
            Planner { documents, tokenizer, settings, document, stream }.document()
        })
        .collect();
    Stream::new(settings.seed, ORDER, epoch, 0).shuffle(&mut instances);
    instances
}

/// Takes one document apart.
struct Planner<'a> {
    documents: &'a Documents,
    tokenizer: &'a Tokenizer,
    settings: &'a PretrainSettings,
    document: usize,
    stream: Stream,
}

impl Planner<'_> {
    fn document(mut self) -> Vec<Instance> {
        match self.settings.pairing {
            Pairing::Single => self.singles(),
            Pairing::NextSentence | Pairing::SentenceOrder | Pairing::Consecutive => self.pairs(),
        }
    }

    /// About how many tokens an example is to have, special ones not counted.
    fn target(&mut self) -> usize {
        let most = self.settings.text_tokens();
        if self.stream.chance(f64::from(self.settings.short_probability)) { 2 + self.stream.below(most - 1) } else { most }
    }

    /// The tokens of sentences that follow each other.
    fn tokens(&self, sentences: Range<usize>) -> Range<usize> {
        self.documents.sentence(sentences.start).start..self.documents.sentence(sentences.end - 1).end
    }

    /// Consecutive spans of the target length, each ending where a word does if it can.
    fn singles(&mut self) -> Vec<Instance> {
        let text = self.tokens(self.documents.document(self.document));
        let mut result = Vec::new();
        let mut start = text.start;
        while start < text.end {
            let most = text.end.min(start + self.target());
            let end =
                if most == text.end { most } else { (start + 1..=most).rev().find(|&at| self.begins_word(at)).unwrap_or(most) };
            result.push(Instance { first: start..end, second: end..end, label: None });
            start = end;
        }
        result
    }

    fn pairs(&mut self) -> Vec<Instance> {
        let sentences = self.documents.document(self.document);
        let mut result = Vec::new();
        let mut start = sentences.start;
        while start < sentences.end {
            let target = self.target();
            let mut end = start + 1;
            while end < sentences.end
                && (self.tokens(start..end).len() < target || (end == start + 1 && self.word_places(start).is_empty()))
            {
                end += 1;
            }
            let (instance, used) = self.pair(start..end, target);
            result.extend(instance);
            start += used;
        }
        result
    }

    /// An example from a chunk of sentences, and how many of them it used up.
    fn pair(&mut self, chunk: Range<usize>, target: usize) -> (Option<Instance>, usize) {
        let text = self.tokens(chunk.clone());
        if self.settings.pairing == Pairing::Consecutive && (chunk.len() == 1 || self.stream.chance(UNDIVIDED)) {
            // One [SEP] less.
            let end = text.end.min(text.start + self.settings.text_tokens() + 1);
            return (Some(Instance { first: text.start..end, second: end..end, label: None }), chunk.len());
        }
        let within = chunk.len() == 1;
        let (middle, before) = if within {
            let places = self.word_places(chunk.start);
            if places.is_empty() {
                return (None, 1);
            }
            (places[self.stream.below(places.len())], 1)
        } else {
            let before = 1 + self.stream.below(chunk.len() - 1);
            (self.documents.sentence(chunk.start + before).start, before)
        };
        let (mut first, mut second) = (text.start..middle, middle..text.end);
        let mut used = chunk.len();
        if self.settings.pairing == Pairing::Consecutive {
            self.truncate(&mut first, &mut second);
            return (Some(Instance { first, second, label: None }), used);
        }
        let positive = self.stream.chance(0.5);
        if positive && self.settings.pairing == Pairing::SentenceOrder {
            std::mem::swap(&mut first, &mut second);
        } else if positive {
            second = self.random_segment(target.saturating_sub(first.len()), within);
            // The sentences that were not used are put back.
            used = before;
        }
        self.truncate(&mut first, &mut second);
        (Some(Instance { first, second, label: Some(u32::from(positive)) }), used)
    }

    /// Sentences of another document, from a random one on, up to `length` tokens. `within` begins amid the first one, as
    /// a sentence does that was divided: else its beginning would tell the label.
    fn random_segment(&mut self, length: usize, within: bool) -> Range<usize> {
        let other = self.stream.below(self.documents.len() - 1);
        let sentences = self.documents.document(other + usize::from(other >= self.document));
        let from = sentences.start + self.stream.below(sentences.len());
        let places = if within { self.word_places(from) } else { Vec::new() };
        let start = if places.is_empty() { self.documents.sentence(from).start } else { places[self.stream.below(places.len())] };
        let mut ends = (from..sentences.end).map(|sentence| self.documents.sentence(sentence).end);
        let end = ends.clone().find(|end| end - start >= length).or(ends.next_back());
        start..end.unwrap_or(start)
    }

    /// Cuts the longer segment (the second of equals) at its beginning or end until both fit.
    fn truncate(&mut self, first: &mut Range<usize>, second: &mut Range<usize>) {
        while first.len() + second.len() > self.settings.text_tokens() {
            let longer = if first.len() > second.len() { &mut *first } else { &mut *second };
            if self.stream.chance(0.5) {
                longer.start += 1;
            } else {
                longer.end -= 1;
            }
        }
    }

    /// Where words begin within a sentence, its own beginning aside.
    fn word_places(&self, sentence: usize) -> Vec<usize> {
        let text = self.documents.sentence(sentence);
        (text.start + 1..text.end).filter(|&at| self.begins_word(at)).collect()
    }

    fn begins_word(&self, at: usize) -> bool {
        self.tokenizer.begins_word(self.documents.tokens()[at])
    }
}
