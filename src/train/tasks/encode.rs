//! Examples as token ids, as BERT takes them (Devlin et al., "BERT: pre-training of deep bidirectional transformers",
//! 2019): `[CLS] a [SEP]`, or `[CLS] a [SEP] b [SEP]` with token type 1 from b on.

use super::{Answer, Target, TaskData, TaskExample, TaskInput};
use crate::{
    ops::IGNORE,
    text::{TextError, Tokenizer},
};
use rayon::prelude::*;
use std::ops::Range;

/// Tokens of a question that are kept: `max_query_length` of BERT's `run_squad.py`.
const LONGEST_QUESTION: usize = 64;
/// The fewest tokens that hold `[CLS] a [SEP] b [SEP]`.
const SHORTEST: usize = 5;

/// From texts to token ids.
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    cls: u32,
    sep: u32,
    context: usize,
}

/// The tokens of an example, not padded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sequence {
    /// `[time]`, with `[CLS]` and `[SEP]`.
    pub ids: Vec<u32>,
    /// `[time]`: token types, 0 for the first text, 1 for the second.
    pub types: Vec<u32>,
    /// How many tokens were left out because they did not fit.
    pub cut: usize,
}

/// The tokens of a sentence of words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WordSequence {
    /// Its tokens.
    pub sequence: Sequence,
    /// `[time]`: the number of the word whose first piece the token is. Words that do not fit have none.
    pub words: Vec<Option<usize>>,
}

/// A question with a part of its context: `[CLS] question [SEP] part [SEP]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextWindow {
    /// Its tokens; `cut` counts the question's.
    pub sequence: Sequence,
    /// Where the part begins in the sequence.
    pub at: usize,
    /// For each token of the part its bytes in the context.
    pub ranges: Vec<Range<usize>>,
    /// For each token of the part whether of all windows this one shows most around it: an answer begins only there, as in
    /// `run_squad.py`.
    pub widest: Vec<bool>,
}

/// An example as a model takes it.
#[derive(Debug, Clone, PartialEq)]
pub enum EncodedExample {
    /// Of `classify`.
    Class {
        /// The text or the pair.
        sequence: Sequence,
        /// Its class.
        label: u32,
    },
    /// Of `regress`.
    Number {
        /// The text or the pair.
        sequence: Sequence,
        /// Its number.
        value: f32,
    },
    /// Of `tokens`.
    Words {
        /// The sentence.
        sequence: WordSequence,
        /// `[time]`: the class of a word at its first piece, [`IGNORE`] elsewhere.
        targets: Vec<u32>,
    },
    /// Of `qa`.
    Question {
        /// All of the context, in overlapping parts.
        windows: Vec<ContextWindow>,
        /// For each window the first and the last token of the answer; (0, 0), `[CLS]`, where it is not in it.
        spans: Vec<(u32, u32)>,
    },
    /// Of `choice`.
    Choice {
        /// The prompt with each choice.
        sequences: Vec<Sequence>,
        /// The number of the right one.
        label: u32,
    },
}

/// All examples of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct EncodedTask {
    /// In the order of the file.
    pub examples: Vec<EncodedExample>,
    /// How many of them lost tokens because they did not fit the context.
    pub truncated: usize,
}

impl<'a> Encoder<'a> {
    /// An encoder for sequences of at most `context` tokens; `cls` and `sep` are the ids of `[CLS]` and `[SEP]`.
    ///
    /// # Errors
    /// `context` is below 5, or one of the two is no token.
    pub fn new(tokenizer: &'a Tokenizer, cls: u32, sep: u32, context: usize) -> Result<Self, TextError> {
        if context < SHORTEST {
            let reason = format!("{context} tokens are too few for [CLS] a [SEP] b [SEP]; at least {SHORTEST}");
            return Err(TextError::Setting { flag: "--context", reason });
        }
        match [cls, sep].into_iter().find(|&id| !tokenizer.has(id)) {
            Some(id) => Err(TextError::Token { id, last: tokenizer.vocab_size() - 1 }),
            None => Ok(Self { tokenizer, cls, sep, context }),
        }
    }

    /// A text, or a pair of texts of which the longer one loses its end first.
    ///
    /// # Errors
    /// The tokenizer cannot write the text.
    pub fn text(&self, first: &str, second: Option<&str>) -> Result<Sequence, TextError> {
        let mut a = self.tokenizer.encode(first, false)?;
        let mut b = second.map(|second| self.tokenizer.encode(second, false)).transpose()?;
        let before = a.len() + b.as_ref().map_or(0, Vec::len);
        match &mut b {
            None => a.truncate(self.context - 2),
            Some(b) => {
                let (keep_a, keep_b) = longest_first(a.len(), b.len(), self.context - 3);
                a.truncate(keep_a);
                b.truncate(keep_b);
            }
        }
        let cut = before - a.len() - b.as_ref().map_or(0, Vec::len);
        Ok(self.sequence(&a, b.as_deref(), cut))
    }

    /// `[CLS] a [SEP]` or `[CLS] a [SEP] b [SEP]`.
    fn sequence(&self, a: &[u32], b: Option<&[u32]>, cut: usize) -> Sequence {
        let mut ids = [&[self.cls], a, &[self.sep]].concat();
        let mut types = vec![0; ids.len()];
        if let Some(b) = b {
            ids.extend(b.iter().chain([&self.sep]));
            types.resize(ids.len(), 1);
        }
        Sequence { ids, types, cut }
    }

    /// A sentence of words, each of which begins a token of its own.
    ///
    /// # Errors
    /// The tokenizer cannot write a word.
    pub fn words(&self, words: &[String]) -> Result<WordSequence, TextError> {
        let (mut ids, mut places) = (Vec::new(), vec![None]);
        for (i, word) in words.iter().enumerate() {
            let pieces = self.tokenizer.encode(word, false)?;
            places.extend((0..pieces.len()).map(|piece| (piece == 0).then_some(i)));
            ids.extend(pieces);
        }
        let kept = ids.len().min(self.context - 2);
        let cut = ids.len() - kept;
        places.truncate(kept + 1);
        places.push(None);
        Ok(WordSequence { sequence: self.sequence(&ids[..kept], None, cut), words: places })
    }

    /// A question with its context, in windows that begin `stride` tokens apart (`doc_stride` of `run_squad.py`; 128
    /// there) and together show all of the context. A longer question than 64 tokens, or than half of what fits, loses its
    /// end.
    ///
    /// # Errors
    /// `stride` is 0, or the tokenizer cannot write a text.
    pub fn question(&self, question: &str, context: &str, stride: usize) -> Result<Vec<ContextWindow>, TextError> {
        if stride == 0 {
            return Err(TextError::Setting { flag: "--doc-stride", reason: "must be at least 1".into() });
        }
        let mut query = self.tokenizer.encode(question, false)?;
        let kept = query.len().min(LONGEST_QUESTION).min((self.context - 3) / 2);
        let cut = query.len() - kept;
        query.truncate(kept);
        let (document, ranges): (Vec<_>, Vec<_>) = self.tokenizer.encode_with_offsets(context)?.into_iter().unzip();
        let room = self.context - 3 - kept;
        let mut parts: Vec<Range<usize>> = Vec::new();
        loop {
            let start = parts.last().map_or(0, |last| last.start + stride.min(last.len()));
            let end = document.len().min(start + room);
            parts.push(start..end);
            if end == document.len() {
                break;
            }
        }
        // For each token the window that shows most around it; of equals the first.
        let mut widest = vec![0; document.len()];
        for (token, best) in widest.iter_mut().enumerate() {
            // Windows begin in order, so those that hold the token are neighbours.
            let first = parts.partition_point(|part| part.end <= token);
            let last = parts.partition_point(|part| part.start <= token);
            let shown = |i: &usize| {
                let (left, right) = (token - parts[*i].start, parts[*i].end - 1 - token);
                // run_squad's score: min(left, right) + 0.01 length, in hundredths.
                (100 * left.min(right) + parts[*i].len(), std::cmp::Reverse(*i))
            };
            *best = (first..last).max_by_key(shown).unwrap_or(0);
        }
        let windows = parts.into_iter().enumerate().map(|(i, part)| ContextWindow {
            sequence: self.sequence(&query, Some(&document[part.clone()]), cut),
            at: kept + 2,
            ranges: ranges[part.clone()].to_vec(),
            widest: part.map(|token| widest[token] == i).collect(),
        });
        Ok(windows.collect())
    }

    /// A prompt with each of its choices.
    ///
    /// # Errors
    /// The tokenizer cannot write a text.
    pub fn choices(&self, prompt: &str, choices: &[String]) -> Result<Vec<Sequence>, TextError> {
        choices.iter().map(|choice| self.text(prompt, Some(choice))).collect()
    }

    /// All examples of `data`; `stride` is of [`question`](Self::question).
    ///
    /// # Errors
    /// As of the functions for single inputs.
    pub fn task(&self, data: &TaskData, stride: usize) -> Result<EncodedTask, TextError> {
        let examples: Vec<_> = data.examples.par_iter().map(|example| self.example(example, stride)).collect::<Result<_, _>>()?;
        let truncated = examples.iter().filter(|example| example.cut() > 0).count();
        Ok(EncodedTask { examples, truncated })
    }

    /// One example.
    ///
    /// # Errors
    /// As of the functions for single inputs, or the target is of another task than the input.
    pub fn example(&self, example: &TaskExample, stride: usize) -> Result<EncodedExample, TextError> {
        Ok(match (&example.input, &example.target) {
            (TaskInput::Text { first, second }, target @ (Target::Class(_) | Target::Number(_))) => {
                let sequence = self.text(first, second.as_deref())?;
                match target {
                    Target::Number(value) => EncodedExample::Number { sequence, value: *value },
                    Target::Class(class) => EncodedExample::Class { sequence, label: *class as u32 },
                    Target::Tags(_) | Target::Answers(_) => return Err(mismatch()),
                }
            }
            (TaskInput::Words(words), Target::Tags(tags)) => {
                let sequence = self.words(words)?;
                let target = |word: &Option<usize>| word.and_then(|i| tags.get(i)).map_or(IGNORE, |&tag| tag as u32);
                let targets = sequence.words.iter().map(target).collect();
                EncodedExample::Words { sequence, targets }
            }
            (TaskInput::Question { question, context, .. }, Target::Answers(answers)) => {
                let windows = self.question(question, context, stride)?;
                let spans = windows.iter().map(|window| window.span(answers.first())).collect();
                EncodedExample::Question { windows, spans }
            }
            (TaskInput::Choice { prompt, choices }, Target::Class(class)) => {
                EncodedExample::Choice { sequences: self.choices(prompt, choices)?, label: *class as u32 }
            }
            _ => return Err(mismatch()),
        })
    }
}

fn mismatch() -> TextError {
    TextError::Setting { flag: "--task", reason: "an example has the target of another task".into() }
}

impl EncodedExample {
    /// How many tokens were left out because they did not fit.
    fn cut(&self) -> usize {
        match self {
            Self::Class { sequence, .. } | Self::Number { sequence, .. } => sequence.cut,
            Self::Words { sequence, .. } => sequence.sequence.cut,
            Self::Question { windows, .. } => windows.iter().map(|window| window.sequence.cut).sum(),
            Self::Choice { sequences, .. } => sequences.iter().map(|sequence| sequence.cut).sum(),
        }
    }
}

impl ContextWindow {
    /// The places in the sequence of the first and the last token of `answer`; (0, 0), `[CLS]`, if there is none or this
    /// part does not hold all of it.
    pub fn span(&self, answer: Option<&Answer>) -> (u32, u32) {
        let Some(Answer { range, .. }) = answer else { return (0, 0) };
        let held = |token: &Range<usize>| token.start < range.end && token.end > range.start;
        let (Some(first), Some(last)) = (self.ranges.iter().position(held), self.ranges.iter().rposition(held)) else {
            return (0, 0);
        };
        // A token of the part before or after the answer proves that nothing of the answer lies beyond the part.
        let begins = first > 0 || self.ranges[first].start <= range.start;
        let ends = last + 1 < self.ranges.len() || self.ranges[last].end >= range.end;
        if begins && ends { ((self.at + first) as u32, (self.at + last) as u32) } else { (0, 0) }
    }
}

/// How much of two texts of `a` and `b` tokens is kept so that they have `room` together: the longer one loses its last
/// token, the second one if both are as long, until they fit (`_truncate_seq_pair` of BERT's `run_classifier.py`).
fn longest_first(mut a: usize, mut b: usize, room: usize) -> (usize, usize) {
    while a + b > room {
        if a > b { a -= 1 } else { b -= 1 }
    }
    (a, b)
}
