//! What can be wrong with text and tokenizers.

use std::{io, path::PathBuf};

/// A fault in text or a tokenizer.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A tokenizer's file that is damaged.
    #[error("{place}: {reason}")]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// Text that a tokenizer cannot write.
    #[error("the tokenizer has no token for {character:?} (U+{code:04X})", code = *character as u32)]
    Character {
        /// The first such character.
        character: char,
    },
    /// A token that the tokenizer does not have.
    #[error("{id} is no token; the tokenizer has ids 0 to {last}")]
    Token {
        /// The token.
        id: u32,
        /// The highest that it has.
        last: usize,
    },
    /// A tokenizer without a special token that encoders need.
    #[error(
        "the tokenizer has no {token}; BERT, ALBERT and ELECTRA need one that has, such as `shaderlm tokenizer train --kind wordpiece` makes"
    )]
    Special {
        /// The token.
        token: &'static str,
    },
    /// Text that nothing can be learnt from.
    #[error("{}: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A setting out of range.
    #[error("{flag}: {reason}")]
    Setting {
        /// The flag.
        flag: &'static str,
        /// What it must be.
        reason: String,
    },
    /// The tokenizer could not be written.
    #[error(transparent)]
    Write(#[from] Box<crate::checkpoint::CheckpointError>),
}

impl TextError {
    pub(super) fn damaged(place: impl ToString, reason: impl ToString) -> Self {
        Self::Damaged { place: place.to_string(), reason: reason.to_string() }
    }
}
