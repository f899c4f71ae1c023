//! Text as it comes, a token at a time.

use super::{TextError, Tokenizer};

/// Tokens that are decoded again with each new one, at most: broken bytes could go on for ever.
const LONGEST_WINDOW: usize = 64;

/// Turns tokens into text: gives out what is certain, and holds back incomplete characters and what may become a stop text.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    stops: Vec<String>,
    /// The newest tokens.
    window: Vec<u32>,
    /// Bytes of the window's text that have been given out.
    out: usize,
    held: String,
    stopped: bool,
}

impl<'a> TextStream<'a> {
    /// A stream that ends at the first of `stops`; empty ones do not count.
    pub fn new(tokenizer: &'a Tokenizer, stops: Vec<String>) -> Self {
        let stops = stops.into_iter().filter(|s| !s.is_empty()).collect();
        Self { tokenizer, stops, window: Vec::new(), out: 0, held: String::new(), stopped: false }
    }

    /// Takes a token and returns the text that is certain now.
    ///
    /// # Errors
    /// The tokenizer cannot decode.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        if self.stopped {
            return Ok(String::new());
        }
        let text = self.decoded(id)?;
        self.held.push_str(&text);
        Ok(self.certain())
    }

    /// Whether a stop text has come. The text before it has been returned; it and what follows is not.
    pub fn stopped(&self) -> bool {
        self.stopped
    }

    /// What was held back, at the end.
    pub fn finish(&mut self) -> String {
        let mut rest = std::mem::take(&mut self.held);
        if !self.stopped {
            let text = self.tokenizer.decode(&self.window).unwrap_or_default();
            rest.push_str(text.get(self.out..).unwrap_or_default());
            self.out = text.len();
        }
        rest
    }

    /// The text that a token completes: all but a replacement character at the end, which may be the beginning of a
    /// character (what stands before it, later bytes do not change).
    fn decoded(&mut self, id: u32) -> Result<String, TextError> {
        let known = self.tokenizer.has(id);
        if known {
            self.window.push(id);
        }
        let text = self.tokenizer.decode(&self.window)?;
        let waits = known && self.window.len() < LONGEST_WINDOW && text.ends_with('\u{FFFD}');
        let end = text.len() - if waits { '\u{FFFD}'.len_utf8() } else { 0 };
        let mut new = text.get(self.out..end).unwrap_or_default().to_owned();
        self.out = end.max(self.out);
        if !known {
            // A model may have more rows than its tokenizer has tokens.
            self.window.clear();
            self.out = 0;
            new.push('\u{FFFD}');
        } else if !waits {
            // The token itself stays, as context: some tokenizers write the first token of a text otherwise.
            self.window = vec![id];
            self.out = self.tokenizer.decode(&self.window)?.len();
        }
        Ok(new)
    }

    /// The part of what is held that no stop text can reach.
    fn certain(&mut self) -> String {
        if let Some(at) = self.stops.iter().filter_map(|stop| self.held.find(stop.as_str())).min() {
            self.stopped = true;
            self.held.truncate(at);
            return std::mem::take(&mut self.held);
        }
        let begins_stop = |tail: &str| self.stops.iter().any(|stop| stop.starts_with(tail));
        let keep = self.held.char_indices().map(|(at, _)| at).find(|&at| begins_stop(&self.held[at..]));
        let rest = self.held.split_off(keep.unwrap_or(self.held.len()));
        std::mem::replace(&mut self.held, rest)
    }
}
