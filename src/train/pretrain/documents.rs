//! Text as pre-training reads it: documents of sentences of tokens.

use crate::{
    text::Tokenizer,
    train::{TrainError, data::fnv1a},
};
use std::{
    fs::File,
    io::{BufRead, BufReader},
    ops::Range,
    path::{Path, PathBuf},
};

/// Bytes of text that are tokenized at once, in parallel.
const PIECE: usize = 1 << 20;

/// Documents of sentences, all tokens one after another.
pub struct Documents {
    tokens: Vec<u32>,
    /// Where each sentence begins among the tokens, and the end of the last one.
    sentences: Vec<usize>,
    /// Where each document begins among the sentences, and the end of the last one.
    documents: Vec<usize>,
    /// The first file, for messages.
    path: PathBuf,
}

impl Documents {
    /// Reads plain text: a sentence or a paragraph a line, blank lines between documents; a file's end also ends one (the
    /// format of google-research/bert's create_pretraining_data.py). `progress` hears of the bytes as they are done.
    ///
    /// # Errors
    /// A file cannot be read, is empty, is not UTF-8 or has no text, or the tokenizer cannot write it.
    pub fn read(files: &[PathBuf], tokenizer: &Tokenizer, progress: impl Fn(u64)) -> Result<Self, TrainError> {
        let mut result = Self::empty(files.first().cloned().unwrap_or_default());
        for path in files {
            result.read_file(path, tokenizer, &progress)?;
        }
        Ok(result)
    }

    fn empty(path: PathBuf) -> Self {
        Self { tokens: Vec::new(), sentences: vec![0], documents: vec![0], path }
    }

    fn read_file(&mut self, path: &Path, tokenizer: &Tokenizer, progress: &impl Fn(u64)) -> Result<(), TrainError> {
        let fail = |reason: String| TrainError::Data { path: path.to_owned(), reason };
        let mut file = BufReader::new(File::open(path).map_err(|e| fail(e.to_string()))?);
        let before = self.tokens.len();
        let mut read = 0;
        loop {
            let mut piece = Vec::new();
            while piece.len() < PIECE && file.read_until(b'\n', &mut piece).map_err(|e| fail(e.to_string()))? > 0 {}
            if piece.is_empty() {
                break;
            }
            let text = std::str::from_utf8(&piece)
                .map_err(|e| fail(format!("not UTF-8 text: a bad byte at {}", read + e.valid_up_to())))?;
            self.add_lines(text, tokenizer)?;
            read += piece.len();
            progress(piece.len() as u64);
        }
        self.end_document();
        if read == 0 {
            return Err(fail("the file is empty".into()));
        }
        if self.tokens.len() == before {
            return Err(fail("there is no text in it".into()));
        }
        Ok(())
    }

    fn add_lines(&mut self, text: &str, tokenizer: &Tokenizer) -> Result<(), TrainError> {
        let lines: Vec<&str> = text.lines().map(str::trim).collect();
        let encoded = tokenizer.encode_lines(lines.iter().copied().filter(|line| !line.is_empty()).collect())?;
        let mut encoded = encoded.iter();
        for line in lines {
            if line.is_empty() {
                self.end_document();
            } else if let Some(tokens) = encoded.next() {
                self.add_sentence(tokens);
            }
        }
        Ok(())
    }

    /// A line may have no tokens, if the tokenizer drops all its characters.
    fn add_sentence(&mut self, tokens: &[u32]) {
        if !tokens.is_empty() {
            self.tokens.extend(tokens);
            self.sentences.push(self.tokens.len());
        }
    }

    fn end_document(&mut self) {
        let end = self.sentences.len() - 1;
        if self.documents.last() != Some(&end) {
            self.documents.push(end);
        }
    }

    /// The last documents, with `fraction` of all tokens or a little more, apart from the others: (the others, the last).
    /// There are always two or more on either side if there are four, one if there are two, because next-sentence
    /// prediction needs a second one. A single document is divided between two of its sentences; if it has one only, or
    /// `fraction` is 0, nothing is held out.
    pub fn split(self, fraction: f64) -> (Self, Self) {
        let nothing = Self::empty(self.path.clone());
        if fraction <= 0.0 || self.is_empty() {
            return (self, nothing);
        }
        let wanted = self.tokens.len() - (self.tokens.len() as f64 * fraction.min(1.0)) as usize;
        let sentences = if self.len() > 1 {
            let least = (self.len() / 2).min(2);
            let begins = |document: usize| self.sentences[self.documents[document]];
            let first = (0..self.len()).rev().find(|&document| begins(document) <= wanted).unwrap_or(0);
            self.documents[first.clamp(least, self.len() - least)]
        } else {
            let count = self.sentences.len() - 1;
            if count < 2 {
                return (self, nothing);
            }
            let first = (0..count).rev().find(|&sentence| self.sentences[sentence] <= wanted).unwrap_or(0);
            first.clamp(1, count - 1)
        };
        (self.part(0..sentences), self.part(sentences..self.sentences.len() - 1))
    }

    /// Some of the sentences, with the documents that they are in.
    fn part(&self, sentences: Range<usize>) -> Self {
        let mut result = Self::empty(self.path.clone());
        for document in 0..self.len() {
            for sentence in self.document(document).filter(|s| sentences.contains(s)) {
                result.add_sentence(&self.tokens[self.sentence(sentence)]);
            }
            result.end_document();
        }
        result
    }

    /// Number of documents.
    pub fn len(&self) -> usize {
        self.documents.len() - 1
    }

    /// Whether there is no document.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// All tokens, one document after another.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The sentences of a document, by number.
    pub fn document(&self, document: usize) -> Range<usize> {
        self.documents[document]..self.documents[document + 1]
    }

    /// The tokens of a sentence, as places in [`Documents::tokens`]. Sentences of a document follow each other there.
    pub fn sentence(&self, sentence: usize) -> Range<usize> {
        self.sentences[sentence]..self.sentences[sentence + 1]
    }

    /// The first file they were read from.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// FNV-1a over the tokens and where sentences and documents end: another text, or another tokenizer, is another one.
    pub fn fingerprint(&self) -> u64 {
        let places = self.sentences.iter().chain(&self.documents).map(|&place| place as u64);
        fnv1a(self.tokens.iter().map(|&token| token.into()).chain(places))
    }
}
