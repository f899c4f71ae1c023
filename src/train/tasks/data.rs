//! Examples of downstream tasks, from the files that people keep them in.

use super::{TaskError, TaskFault, read::read};
use crate::ops::random::threefry;
use std::{collections::BTreeSet, fmt, ops::Range, path::Path, str::FromStr};

/// What is learnt from examples.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Task {
    /// One of several classes for a text or a pair of texts.
    Classify,
    /// A number for a text or a pair of texts.
    Regress,
    /// A label for each word.
    Tokens,
    /// The part of a context that answers a question, as in SQuAD.
    QuestionAnswering,
    /// The one of several texts that goes with a prompt.
    Choice,
}

impl Task {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Classify, Self::Regress, Self::Tokens, Self::QuestionAnswering, Self::Choice];

    /// Its name on the command line.
    pub fn word(self) -> &'static str {
        match self {
            Self::Classify => "classify",
            Self::Regress => "regress",
            Self::Tokens => "tokens",
            Self::QuestionAnswering => "qa",
            Self::Choice => "choice",
        }
    }

    /// Whether its labels are names, which the model keeps.
    pub fn has_labels(self) -> bool {
        matches!(self, Self::Classify | Self::Tokens)
    }

    /// Columns that may hold its label.
    pub(super) fn label_columns(self) -> &'static [&'static str] {
        match self {
            Self::Classify => &["label", "gold_label", "class", "is_duplicate"],
            Self::Regress => &["label", "score"],
            Self::Tokens => &["labels", "tags", "ner_tags", "pos_tags"],
            Self::QuestionAnswering => &["answer_text"],
            Self::Choice => &["label"],
        }
    }

    /// Endings of files that can be read.
    pub(super) fn extensions(self) -> &'static str {
        match self {
            Self::Tokens => ".jsonl, or .tsv, .conll or .txt with a token and its label a line",
            Self::QuestionAnswering => ".jsonl, .tsv or .csv, or .json as SQuAD's",
            _ => ".tsv, .csv or .jsonl",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl FromStr for Task {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|task| task.word() == word);
        found.ok_or_else(|| format!("{word:?} is no task; there are classify, regress, tokens, qa and choice"))
    }
}

/// Which columns to take, where they have unusual names.
#[derive(Debug, Clone, Default)]
pub struct Columns {
    /// The text, the question, the prompt, or the words: `--text-column`.
    pub text: Option<String>,
    /// The second text of a pair, or the context of a question: `--pair-column`.
    pub pair: Option<String>,
    /// The label: `--label-column`.
    pub label: Option<String>,
}

/// What a model is given.
#[derive(Debug, Clone, PartialEq)]
pub enum TaskInput {
    /// To classify, or to give a number to.
    Text {
        /// The text.
        first: String,
        /// What goes with it.
        second: Option<String>,
    },
    /// The words of a sentence.
    Words(Vec<String>),
    /// To answer from a context.
    Question {
        /// What the file calls it, if it does.
        id: Option<String>,
        /// The question.
        question: String,
        /// The text that has the answer.
        context: String,
    },
    /// To choose from.
    Choice {
        /// What the choices are for.
        prompt: String,
        /// At least two.
        choices: Vec<String>,
    },
}

/// An answer to a question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Where it is in the context, bytes, less white space at its ends.
    pub range: Range<usize>,
    /// The answer.
    pub text: String,
}

/// What a model should say.
#[derive(Debug, Clone, PartialEq)]
pub enum Target {
    /// A place in [`TaskData::labels`], or the number of a choice.
    Class(usize),
    /// A finite number.
    Number(f32),
    /// For each word a place in [`TaskData::labels`].
    Tags(Vec<usize>),
    /// Answers that are all right; training takes the first. None if the context does not answer the question.
    Answers(Vec<Answer>),
}

/// An input and what should come out.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskExample {
    /// What the model is given.
    pub input: TaskInput,
    /// What it should say.
    pub target: Target,
}

/// Examples of a task.
#[derive(Debug, Clone, PartialEq)]
pub struct TaskData {
    /// Which task.
    pub task: Task,
    /// In the order of the file.
    pub examples: Vec<TaskExample>,
    /// Names of the classes, sorted (as numbers if they all are); none for tasks without.
    pub labels: Vec<String>,
}

/// A target before its label has a number.
pub(super) enum Raw {
    Name(String),
    Names(Vec<String>),
    Known(Target),
}

/// An example before its label has a number.
pub(super) struct RawExample {
    pub line: Option<usize>,
    pub label_column: Option<String>,
    pub input: TaskInput,
    /// None if no label was asked for.
    pub target: Option<Raw>,
}

impl TaskData {
    /// Reads a file of training examples; the labels are those that occur in it.
    ///
    /// # Errors
    /// The file cannot be read, an example of it cannot be used, or there are fewer than two classes.
    pub fn read(path: &Path, task: Task, columns: &Columns) -> Result<Self, TaskError> {
        let examples = read(path, task, columns, true)?;
        let names: BTreeSet<&String> = examples
            .iter()
            .flat_map(|example| match &example.target {
                Some(Raw::Name(name)) => std::slice::from_ref(name),
                Some(Raw::Names(names)) => names,
                _ => &[],
            })
            .collect();
        let mut labels: Vec<String> = names.into_iter().cloned().collect();
        if labels.iter().all(|label| label.parse::<i64>().is_ok()) {
            labels.sort_by_key(|label| label.parse::<i64>().unwrap_or_default());
        }
        if task.has_labels() && labels.len() < 2 {
            return Err(TaskError::file(path, TaskFault::Classes { count: labels.len() }));
        }
        Self::numbered(path, task, examples, labels)
    }

    /// Reads a file of evaluation examples whose labels are among `labels`, the training data's or the model's.
    ///
    /// # Errors
    /// The file cannot be read, an example of it cannot be used, or a label is not among them.
    pub fn read_against(path: &Path, task: Task, columns: &Columns, labels: &[String]) -> Result<Self, TaskError> {
        let examples = read(path, task, columns, true)?;
        Self::numbered(path, task, examples, labels.to_vec())
    }

    /// Gives each label its number.
    fn numbered(path: &Path, task: Task, raw: Vec<RawExample>, labels: Vec<String>) -> Result<Self, TaskError> {
        let numbers: std::collections::HashMap<&str, usize> =
            labels.iter().enumerate().map(|(i, label)| (label.as_str(), i)).collect();
        let mut examples = Vec::with_capacity(raw.len());
        for RawExample { line, label_column, input, target } in raw {
            // Without a column the labels are on lines of their own, one after another.
            let lines = usize::from(task == Task::Tokens && label_column.is_none());
            let number = |(i, label): (usize, &String)| {
                numbers.get(label.as_str()).copied().ok_or_else(|| TaskError {
                    path: path.to_owned(),
                    line: line.map(|line| line + i * lines),
                    column: label_column.clone(),
                    fault: Box::new(TaskFault::UnseenLabel { label: label.clone(), known: labels.clone() }),
                })
            };
            let target = match target {
                Some(Raw::Name(name)) => Target::Class(number((0, &name))?),
                Some(Raw::Names(names)) => Target::Tags(names.iter().enumerate().map(number).collect::<Result<_, _>>()?),
                Some(Raw::Known(target)) => target,
                None => continue,
            };
            examples.push(TaskExample { input, target });
        }
        Ok(Self { task, examples, labels })
    }

    /// How often each class occurs: labels of examples or of words, or numbers of choices. Empty for other tasks.
    pub fn class_counts(&self) -> Vec<(String, usize)> {
        let most = self.examples.iter().map(|e| if let TaskInput::Choice { choices, .. } = &e.input { choices.len() } else { 0 });
        let classes = if self.task == Task::Choice { most.max().unwrap_or(0) } else { self.labels.len() };
        let mut counts = vec![0; classes];
        for class in self.examples.iter().flat_map(classes_of) {
            counts[class] += 1;
        }
        let name = |i: usize| self.labels.get(i).cloned().unwrap_or_else(|| i.to_string());
        counts.into_iter().enumerate().map(|(i, count)| (name(i), count)).collect()
    }

    /// Splits off `fraction` of the examples for evaluation, chosen by `seed`; both parts keep the file's order. The last
    /// examples of a class stay in training, so that no label is only in the evaluation part.
    ///
    /// # Errors
    /// There would be none on one of the sides; `path` is for the message.
    pub fn split(self, fraction: f64, seed: u32, path: &Path) -> Result<(Self, Self), TaskError> {
        let count = self.examples.len();
        let wanted = ((count as f64 * fraction).round() as usize).min(count.saturating_sub(1));
        let mut order: Vec<usize> = (0..count).collect();
        // Key: the seed and a stream of its own; the place itself settles the unlikely tie.
        order.sort_by_key(|&i| (threefry([seed, 0x7A5C], [i as u32, 0]), i));
        let mut left = vec![0_usize; self.labels.len()];
        if self.task.has_labels() {
            self.examples.iter().flat_map(classes_of).for_each(|class| left[class] += 1);
        }
        let mut held_out = vec![false; count];
        let mut taken = 0;
        for i in order {
            if taken == wanted {
                break;
            }
            if self.task.has_labels() {
                let classes = classes_of(&self.examples[i]);
                classes.iter().for_each(|&class| left[class] -= 1);
                if classes.iter().any(|&class| left[class] == 0) {
                    classes.iter().for_each(|&class| left[class] += 1);
                    continue;
                }
            }
            held_out[i] = true;
            taken += 1;
        }
        if taken == 0 {
            let reason = "they cannot be split into training and evaluation examples";
            return Err(TaskError::file(path, TaskFault::Examples { count, reason }));
        }
        let (mut train, mut evaluation) = (Vec::with_capacity(count - taken), Vec::with_capacity(taken));
        for (example, held_out) in self.examples.into_iter().zip(held_out) {
            if held_out { evaluation.push(example) } else { train.push(example) }
        }
        let part = |examples| Self { task: self.task, examples, labels: self.labels.clone() };
        Ok((part(train), part(evaluation)))
    }
}

/// The classes that an example has, once for each time.
fn classes_of(example: &TaskExample) -> Vec<usize> {
    match &example.target {
        Target::Class(class) => vec![*class],
        Target::Tags(tags) => tags.clone(),
        Target::Number(_) | Target::Answers(_) => Vec::new(),
    }
}

/// Reads a file of inputs alone, to predict for; columns of labels are not looked at.
///
/// # Errors
/// The file cannot be read, or an input of it cannot be used.
pub fn read_inputs(path: &Path, task: Task, columns: &Columns) -> Result<Vec<TaskInput>, TaskError> {
    Ok(read(path, task, columns, false)?.into_iter().map(|example| example.input).collect())
}
