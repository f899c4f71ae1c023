//! What prompts begin with alike goes through the model once: a prompt as what the caches hold from before, or several prompts of a
//! batch as each other.

use super::{Generator, prompt::Kind};
use crate::{graph::GraphError, models::gpt2::cache_name};

/// Tokens that a common beginning must save, over all prompts, to be worth a pass and a plan of its own.
const WORTH: usize = 64;

/// The names of the caches of a common beginning, and all others as they are.
pub(super) fn renamed(name: &str) -> String {
    if name.starts_with("cache.") { format!("shared.{name}") } else { name.to_owned() }
}

/// How many tokens two texts begin with alike.
fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl Generator<'_> {
    /// The caches hold nothing: the next prompts go through the model as a whole.
    pub fn forget(&mut self) {
        self.held.clear();
    }

    /// Tokens at the beginning of `prompt` whose keys and values the cache of `row` holds.
    fn held(&self, row: usize, prompt: &[u32]) -> usize {
        let Some(held) = self.held.get(row) else { return 0 };
        let since = &self.texts[row][self.began[row]..];
        // The newest token has not gone through the model yet.
        let written = &since[..since.len().saturating_sub(1)];
        let of_prompt = common(held, prompt);
        if of_prompt < held.len() { of_prompt } else { of_prompt + common(written, &prompt[of_prompt..]) }
    }

    /// Makes the caches hold what `prompts` begin with, as far as that is worth it. How many tokens of each they hold then, less than
    /// the whole prompt, and how many went through the model for it.
    pub(super) fn reuse(&mut self, prompts: &[Vec<u32>]) -> Result<(Vec<usize>, usize), GraphError> {
        // After the last token of each something is sampled.
        let before_last = |prompt: &[u32], tokens: usize| tokens.min(prompt.len().saturating_sub(1));
        let mut kept: Vec<_> =
            prompts.iter().enumerate().map(|(row, prompt)| before_last(prompt, self.held(row, prompt))).collect();
        self.forget();
        let Some(first) = prompts.first() else { return Ok((kept, 0)) };
        let longest = prompts.iter().map(Vec::len).max().unwrap_or(0);
        let rest = |kept: &[usize]| prompts.iter().zip(kept).map(|(prompt, kept)| prompt.len() - kept).max().unwrap_or(0);
        // Whole prompts have kernels of their own, which a few tokens less do not make up for.
        let worth = |kept: &[usize]| 8 * rest(kept) <= 7 * longest;
        let shared = prompts.iter().map(|prompt| before_last(prompt, common(first, prompt))).min().unwrap_or(0);
        let both: Vec<_> = kept.iter().map(|&kept| kept.max(shared)).collect();
        if worth(&both) && shared + self.batch * rest(&both) + WORTH <= self.batch * rest(&kept) {
            let missing: Vec<_> = (0..kept.len()).filter(|&row| kept[row] < shared).collect();
            self.share(&first[..shared], &missing)?;
            return Ok((both, shared));
        }
        if !worth(&kept) {
            kept.fill(0);
        }
        Ok((kept, 0))
    }

    /// Runs the model over `beginning` and copies its keys and values into the caches of `rows`.
    fn share(&mut self, beginning: &[u32], rows: &[usize]) -> Result<(), GraphError> {
        let tokens = beginning.len();
        let chunks = tokens.div_ceil(self.chunk.max(1));
        let texts = [beginning.to_vec()];
        for left in (1..=chunks).rev() {
            let kind = Kind { batch: 1, rows: tokens.div_ceil(chunks), whole: chunks == 1, last: false, shared: Some(tokens) };
            let mut made = self.prompt_plan(kind)?;
            self.run_prompt(&mut made, &texts, left)?;
            // Chunks are all of one kind; the last plan goes with the memory that it fills.
            if left > 1 {
                self.prompts.push(made);
            }
        }
        let (row, capacity) = (2 * self.config.n_embd, self.capacity);
        for cache in (0..self.config.n_layer).map(cache_name) {
            let from = renamed(&cache);
            let to: Vec<_> = rows.iter().map(|place| place * capacity * row).collect();
            self.engine.copy((&from, 0..tokens * row), (&cache, &to))?;
            self.engine.remove(&from);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::common;

    #[test]
    fn texts_that_begin_alike() {
        assert_eq!(common(&[1, 2, 3], &[1, 2, 4, 5]), 2);
        assert_eq!(common(&[1, 2], &[1, 2, 3]), 2);
        assert_eq!(common(&[1], &[2]), 0);
        assert_eq!(common(&[], &[2]), 0);
    }
}
