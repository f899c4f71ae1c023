//! Tokens to train on. The batch of a step depends on (seed, step) only, so a resumed run sees what it would have seen.

use super::{Batch, TrainError};
use crate::ops::{HostTensor, IGNORE, random::threefry};
use std::path::{Path, PathBuf};

/// Token ids and, for each, the id that follows it.
#[derive(Debug, Clone)]
pub struct TokenBatch {
    /// `[batch, context]`
    pub ids: Vec<u32>,
    /// `[batch, context]`; [`IGNORE`] where nothing is predicted.
    pub targets: Vec<u32>,
}

impl TokenBatch {
    /// Targets that are counted.
    pub fn counted(&self) -> usize {
        self.targets.iter().filter(|&&t| t != IGNORE).count()
    }

    /// Ids and targets as inputs of a causal language model, `[batch, context]` each.
    pub fn feed(self, context: usize) -> Batch {
        let shape = [self.ids.len() / context, context];
        vec![HostTensor::uints(shape, self.ids), HostTensor::uints(shape, self.targets)]
    }
}

/// Fowler, Noll and Vo's hash (FNV-1a), a word at a time.
pub(super) fn fnv1a(words: impl Iterator<Item = u64>) -> u64 {
    words.fold(0xcbf2_9ce4_8422_2325, |hash, word| (hash ^ word).wrapping_mul(0x0100_0000_01b3))
}

/// Tokens for training and tokens held out.
pub struct Corpus {
    /// Training tokens.
    pub train: Vec<u32>,
    /// Held-out tokens; empty if none were asked for.
    pub held_out: Vec<u32>,
}

/// Reads text files whole, one after another.
///
/// # Errors
/// A file cannot be read, is empty, or is not UTF-8 (the place of the first bad byte is named).
pub fn read_texts(files: &[PathBuf]) -> Result<Vec<String>, TrainError> {
    files
        .iter()
        .map(|path| {
            let fail = |reason: String| TrainError::Data { path: path.clone(), reason };
            let bytes = std::fs::read(path).map_err(|e| fail(e.to_string()))?;
            if bytes.is_empty() {
                return Err(fail("the file is empty".into()));
            }
            String::from_utf8(bytes).map_err(|e| fail(format!("not UTF-8 text: a bad byte at {}", e.utf8_error().valid_up_to())))
        })
        .collect()
}

impl Corpus {
    /// Splits `tokens`: the last `fraction` of them are held out, unless `eval` tokens are given.
    ///
    /// # Errors
    /// Fewer tokens than one window of `context` and its target, on either side.
    pub fn new(tokens: Vec<u32>, eval: Option<Vec<u32>>, fraction: f64, context: usize, file: &Path) -> Result<Self, TrainError> {
        let short = |count: usize, what: &str| TrainError::Data {
            path: file.to_owned(),
            reason: format!("{count} {what} tokens are fewer than one window of --context {context} and its target"),
        };
        let (train, held_out) = match eval {
            Some(eval) => (tokens, eval),
            None => {
                let kept = (tokens.len() as f64 * (1.0 - fraction)) as usize;
                let held_out = tokens[kept..].to_vec();
                let mut train = tokens;
                train.truncate(kept);
                (train, held_out)
            }
        };
        if train.len() < context + 1 {
            return Err(short(train.len(), "training"));
        }
        if !held_out.is_empty() && held_out.len() < 2 {
            return Err(short(held_out.len(), "held-out"));
        }
        Ok(Self { train, held_out })
    }

    /// What the tokens are, in short: another text, or another tokenizer, gives another.
    pub fn fingerprint(&self) -> String {
        let hash = fnv1a(self.train.iter().chain(&self.held_out).map(|&token| token.into()));
        format!("{}+{} tokens {hash:016x}", self.train.len(), self.held_out.len())
    }

    /// The batch of micro-batch `micro` of step `step`: windows at random places, as in nanoGPT.
    pub fn batch(&self, seed: u32, step: usize, micro: usize, batch: usize, context: usize) -> TokenBatch {
        let places = (self.train.len() - context) as u64;
        let mut result = TokenBatch { ids: Vec::new(), targets: Vec::new() };
        for row in 0..batch {
            // Key: the seed and a stream of its own; counter: the step and the row within it.
            let words = threefry([seed, 0xDA7A], [step as u32, (micro * batch + row) as u32]);
            let wide = u64::from(words[0]) << 32 | u64::from(words[1]);
            let start = ((u128::from(wide) * u128::from(places)) >> 64) as usize;
            result.ids.extend(&self.train[start..start + context]);
            result.targets.extend(&self.train[start + 1..start + context + 1]);
        }
        result
    }
}

/// transformers' labels, which stand at the place of the token itself, as targets, which stand where it is predicted:
/// rows of `time` moved to the left by one, the last place ignored.
pub fn next_tokens(labels: &[u32], time: usize) -> Vec<u32> {
    labels.chunks(time).flat_map(|row| row[1..].iter().copied().chain([IGNORE])).collect()
}

/// Cuts `tokens` into batches of windows of `context` tokens that start `stride` apart, so that with `stride == context`
/// each token but the first is predicted once. With a shorter stride a token is counted only in the first window that
/// holds it. The last windows are filled up with ignored targets.
pub fn windows(tokens: &[u32], context: usize, stride: usize, batch: usize) -> Vec<TokenBatch> {
    let mut rows: Vec<(Vec<u32>, Vec<u32>)> = Vec::new();
    let mut counted = 0;
    let mut start = 0;
    while counted + 1 < tokens.len() {
        let end = (start + context).min(tokens.len() - 1);
        let mut ids = tokens[start..end].to_vec();
        let mut targets: Vec<u32> = (start..end).map(|i| if i >= counted { tokens[i + 1] } else { IGNORE }).collect();
        ids.resize(context, 0);
        targets.resize(context, IGNORE);
        rows.push((ids, targets));
        counted = end;
        start += stride;
    }
    rows.chunks(batch)
        .map(|rows| {
            let mut result = TokenBatch { ids: Vec::new(), targets: Vec::new() };
            for (ids, targets) in rows {
                result.ids.extend(ids);
                result.targets.extend(targets);
            }
            result.ids.resize(batch * context, 0);
            result.targets.resize(batch * context, IGNORE);
            result
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_predict_every_token_once() {
        let tokens: Vec<u32> = (100..123).collect();
        for (context, stride) in [(4, 4), (5, 2), (7, 7), (30, 30), (6, 1)] {
            for batch in [1, 3] {
                let mut seen = Vec::new();
                for b in windows(&tokens, context, stride, batch) {
                    assert_eq!(b.ids.len(), batch * context);
                    for (id, target) in b.ids.iter().zip(&b.targets).filter(|(_, t)| **t != IGNORE) {
                        assert_eq!(id + 1, *target);
                        seen.push(*target);
                    }
                }
                assert_eq!(seen, tokens[1..], "context {context}, stride {stride}");
            }
        }
    }

    #[test]
    fn batches_depend_on_seed_and_step_alone() {
        let corpus = Corpus { train: (0..1000).collect(), held_out: vec![] };
        let a = corpus.batch(1, 7, 0, 4, 8);
        assert_eq!(a.ids, corpus.batch(1, 7, 0, 4, 8).ids);
        assert_ne!(a.ids, corpus.batch(1, 8, 0, 4, 8).ids);
        assert_ne!(a.ids, corpus.batch(2, 7, 0, 4, 8).ids);
        assert_ne!(a.ids, corpus.batch(1, 7, 1, 4, 8).ids);
        assert!(a.ids.iter().zip(&a.targets).all(|(i, t)| i + 1 == *t));
    }
}
