//! Guesses at what comes next, from the text itself: where the newest tokens have occurred before, what followed them then (Saxena,
//! "Prompt lookup decoding", 2023).

/// How many of the newest tokens are looked for: the most first.
const MATCHED: std::ops::RangeInclusive<usize> = 2..=4;
/// How far back.
const BACK: usize = 4096;
/// The most steps without a guess, after guesses that were wrong.
const PATIENCE: usize = 16;

/// A text, and how well guessing goes.
#[derive(Default)]
pub(super) struct Drafter {
    text: Vec<u32>,
    /// Steps without a guess that are left, and those after the next wrong one.
    pause: usize,
    next_pause: usize,
}

impl Drafter {
    /// Begins with a text.
    pub fn new(text: Vec<u32>) -> Self {
        Self { text, ..Self::default() }
    }

    /// The text goes on so.
    pub fn extend(&mut self, tokens: &[u32]) {
        if self.text.len() > 2 * BACK {
            self.text.drain(..self.text.len() - BACK);
        }
        self.text.extend_from_slice(tokens);
    }

    /// The newest token.
    pub fn newest(&self) -> u32 {
        self.text.last().copied().unwrap_or(0)
    }

    /// Up to `most` tokens that may come next.
    pub fn draft(&mut self, most: usize) -> Vec<u32> {
        if self.pause > 0 {
            self.pause -= 1;
            return Vec::new();
        }
        let text = &self.text[self.text.len().saturating_sub(BACK)..];
        for n in MATCHED.rev() {
            if text.len() <= n || most == 0 {
                continue;
            }
            let (before, newest) = (&text[..text.len() - 1], &text[text.len() - n..]);
            if let Some(at) = before.windows(n).rposition(|tokens| tokens == newest) {
                let follows = &text[at + n..];
                return follows[..most.min(follows.len())].to_vec();
            }
        }
        Vec::new()
    }

    /// Of the last guess so many tokens were right.
    pub fn learn(&mut self, right: usize) {
        if right > 0 {
            self.next_pause = 0;
        } else {
            self.pause = self.next_pause;
            self.next_pause = (2 * self.next_pause).clamp(1, PATIENCE);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{BACK, Drafter};

    #[test]
    fn what_followed_the_longest_match_last() {
        let draft = |text: &[u32], most| Drafter::new(text.to_vec()).draft(most);
        assert_eq!(draft(&[1, 2, 3, 9, 1, 2, 4, 8, 1, 2], 2), [4, 8], "the latest of equals");
        assert_eq!(draft(&[7, 1, 2, 3, 1, 2, 4, 7, 1, 2], 3), [3, 1, 2], "a longer match before a later one");
        assert_eq!(draft(&[1, 2, 1, 2], 9), [1, 2], "no more than there is");
        assert_eq!(draft(&[5, 5, 5], 4), [5]);
        assert!(draft(&[1, 2, 3], 4).is_empty() && draft(&[1], 4).is_empty() && draft(&[], 4).is_empty());
        assert!(draft(&[1, 2, 1, 2], 0).is_empty());
    }

    #[test]
    fn wrong_guesses_become_rare_and_a_right_one_ends_that() {
        let mut drafter = Drafter::new(vec![1, 2, 1, 2]);
        let mut guesses = 0;
        for _ in 0..200 {
            if !drafter.draft(1).is_empty() {
                guesses += 1;
                drafter.learn(0);
            }
        }
        assert!((10..25).contains(&guesses), "{guesses} of 200");
        while drafter.draft(1).is_empty() {}
        drafter.learn(1);
        assert!(!drafter.draft(1).is_empty());
    }

    #[test]
    fn a_long_text_is_not_kept() {
        let mut drafter = Drafter::default();
        (0..100_000).for_each(|i| drafter.extend(&[i]));
        assert!(drafter.text.len() <= 2 * BACK + 1);
        assert_eq!(drafter.newest(), 99_999);
    }
}
