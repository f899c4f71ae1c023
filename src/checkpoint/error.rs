//! What can be wrong with a checkpoint.

use std::{io, path::PathBuf};

/// A fault in reading or writing a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file system refused.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file that is damaged, or not what its name says.
    #[error("{place}: {reason}")]
    Damaged {
        /// The file.
        place: String,
        /// What is wrong, and what to do.
        reason: String,
    },
    /// A tensor that is not there.
    #[error("{place}: there is no tensor {name}; it has {has}")]
    Missing {
        /// The file or folder.
        place: String,
        /// The tensor's name.
        name: String,
        /// Some names that are there.
        has: String,
    },
    /// A tensor of another type than its use asks for.
    #[error("{place}: tensor {name} is of type {found}; it must be {wanted}")]
    Type {
        /// The file.
        place: String,
        /// The tensor's name.
        name: String,
        /// Its type.
        found: String,
        /// The types that would do.
        wanted: &'static str,
    },
    /// `--model` names neither a folder nor a repository that can be had.
    #[error("model {model}: {reason}")]
    Model {
        /// What was asked for.
        model: String,
        /// Why it cannot be had, and what to do.
        reason: String,
    },
}

impl CheckpointError {
    pub(super) fn damaged(place: impl ToString, reason: impl Into<String>) -> Self {
        Self::Damaged { place: place.to_string(), reason: reason.into() }
    }
}
