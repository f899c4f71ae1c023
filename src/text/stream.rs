//! Text as it comes, a token at a time.

use super::{TextError, Tokenizer};

/// A character takes at most four tokens; what is still incomplete then is no character.
const LONGEST_CHARACTER: usize = 4;

/// Turns tokens into text: gives out what is certain, and holds back incomplete characters and what may become a stop text.
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    stops: Vec<String>,
    /// Tokens given out last, for context, then those that are held back.
    window: Vec<u32>,
    /// How many of the window have been given out.
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
        if !self.stopped && self.out < self.window.len() {
            let before = self.tokenizer.decode(&self.window[..self.out]).unwrap_or_default();
            let all = self.tokenizer.decode(&self.window).unwrap_or_default();
            rest.push_str(all.get(before.len()..).unwrap_or_default());
            self.out = self.window.len();
        }
        rest
    }

    /// The text that a token completes.
    fn decoded(&mut self, id: u32) -> Result<String, TextError> {
        if !self.tokenizer.has(id) {
            // A model may have more rows than its tokenizer has tokens.
            let mut text = self.finish_window()?;
            text.push('\u{FFFD}');
            return Ok(text);
        }
        self.window.push(id);
        let before = self.tokenizer.decode(&self.window[..self.out])?;
        let all = self.tokenizer.decode(&self.window)?;
        let new = all.get(before.len()..).unwrap_or_default();
        let waiting = self.window.len() - self.out;
        if new.ends_with('\u{FFFD}') {
            if waiting < LONGEST_CHARACTER {
                return Ok(String::new());
            }
            return self.finish_window();
        }
        let new = new.to_owned();
        self.window.drain(..self.out);
        self.out = self.window.len();
        Ok(new)
    }

    /// Gives out everything in the window, complete or not.
    fn finish_window(&mut self) -> Result<String, TextError> {
        let before = self.tokenizer.decode(&self.window[..self.out])?;
        let all = self.tokenizer.decode(&self.window)?;
        self.window.clear();
        self.out = 0;
        Ok(all.get(before.len()..).unwrap_or_default().to_owned())
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
