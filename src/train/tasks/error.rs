//! What can be wrong with a task's file.

use std::{
    io,
    path::{Path, PathBuf},
};

/// A fault in a task's file, and where it is.
#[derive(Debug, thiserror::Error)]
#[error("{}{}: {fault}", path.display(), place(*line, column.as_deref()))]
pub struct TaskError {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1; `None` if it is about the whole file.
    pub line: Option<usize>,
    /// The column, or JSON's key.
    pub column: Option<String>,
    /// What is wrong.
    pub fault: Box<TaskFault>,
}

/// What is wrong with a task's file.
#[derive(Debug, thiserror::Error)]
pub enum TaskFault {
    /// The file system refused.
    #[error(transparent)]
    Io(io::Error),
    /// The file's name does not tell its format.
    #[error("for --task {task} the file's name must end with {wanted}")]
    Extension {
        /// The task.
        task: &'static str,
        /// The endings that can be read.
        wanted: &'static str,
    },
    /// What is not of the file's format.
    #[error("{0}")]
    Format(String),
    /// None of the columns that could be meant is there.
    #[error("there is no column {}; there are: {}{}", list(wanted, " or "), list(there, ", "), hint(*flag))]
    UnknownColumn {
        /// Those that were looked for.
        wanted: Vec<String>,
        /// Those that are there.
        there: Vec<String>,
        /// The command line's flag that names another, if one does.
        flag: Option<&'static str>,
    },
    /// There is nothing to read.
    #[error("the text is empty")]
    EmptyText,
    /// There is nothing to learn.
    #[error("the label is empty")]
    EmptyLabel,
    /// A label that the model has no class for.
    #[error("the training data has no label {label:?}; its labels are: {}", list(known, ", "))]
    UnseenLabel {
        /// The label.
        label: String,
        /// The training data's.
        known: Vec<String>,
    },
    /// A label that should be a number.
    #[error("{value:?} is not a number")]
    NotANumber {
        /// What is there instead.
        value: String,
    },
    /// A label that names no choice.
    #[error("{value:?} is neither the number of a choice (0 to {last}) nor a choice itself")]
    NotAChoice {
        /// What is there instead.
        value: String,
        /// The number of the last choice.
        last: usize,
    },
    /// An answer that its context does not have.
    #[error("question {question:?}: the answer {answer:?} is not in the context at character {at}; there is {found:?}")]
    Answer {
        /// The question.
        question: String,
        /// The answer.
        answer: String,
        /// Where it should be, characters.
        at: i64,
        /// What is there.
        found: String,
    },
    /// Too few classes to tell apart.
    #[error("there must be at least 2 different labels, and there {}", if *count == 1 { "is only 1" } else { "are none" })]
    Classes {
        /// Those that are there.
        count: usize,
    },
    /// Too few examples for what is asked.
    #[error("there are {count} examples; {reason}")]
    Examples {
        /// Those that are there.
        count: usize,
        /// Why they are too few.
        reason: &'static str,
    },
}

impl TaskError {
    /// About a whole file.
    pub(super) fn file(path: &Path, fault: TaskFault) -> Self {
        Self { path: path.to_owned(), line: None, column: None, fault: Box::new(fault) }
    }
    /// About a line of it.
    pub(super) fn line(path: &Path, line: usize, fault: TaskFault) -> Self {
        Self { line: Some(line), ..Self::file(path, fault) }
    }
    /// The same, in a column.
    #[must_use]
    pub(super) fn column(self, column: &str) -> Self {
        Self { column: Some(column.to_owned()), ..self }
    }
}

fn place(line: Option<usize>, column: Option<&str>) -> String {
    let line = line.map_or_else(String::new, |line| format!(", line {line}"));
    line + &column.map_or_else(String::new, |column| format!(", column {column}"))
}

fn hint(flag: Option<&str>) -> String {
    flag.map_or_else(String::new, |flag| format!("; {flag} names the one to take"))
}

/// The first of `names`, so that an error stays one line.
fn list(names: &[String], between: &str) -> String {
    const MOST: usize = 20;
    let shown = names[..names.len().min(MOST)].join(between);
    match names.len() {
        0 => "none".into(),
        n if n > MOST => format!("{shown} and {} more", n - MOST),
        _ => shown,
    }
}
