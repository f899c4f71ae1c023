//! Files of examples: tables, CoNLL's lines, and SQuAD's JSON.

use super::{
    TaskError, TaskFault,
    data::{Answer, Columns, Raw, RawExample, Target, Task, TaskInput},
    table::{Row, extension, read_text, rows},
};
use serde_json::Value;
use std::path::Path;

/// Pairs of columns that hold a text and what goes with it, by the names of GLUE's and SuperGLUE's files.
const PAIRS: [(&str, &str); 8] = [
    ("sentence1", "sentence2"),
    ("premise", "hypothesis"),
    ("question1", "question2"),
    ("text1", "text2"),
    ("text", "text_pair"),
    ("question", "sentence"),
    ("question", "passage"),
    ("question", "context"),
];
/// Columns that hold a text alone.
const SINGLES: [&str; 3] = ["text", "sentence", "question"];

/// Reads a file by its ending and task.
pub(super) fn read(path: &Path, task: Task, columns: &Columns, labelled: bool) -> Result<Vec<RawExample>, TaskError> {
    let text = read_text(path)?;
    let examples = match (task, extension(path).as_str()) {
        (Task::Tokens, "tsv" | "conll" | "txt") => conll(path, &text, labelled)?,
        (Task::QuestionAnswering, "json") => squad(path, &text, labelled)?,
        (_, ending) => {
            let rows = if task == Task::Tokens && ending == "csv" { None } else { rows(path, &text)? };
            let wanted = task.extensions();
            let extension = || TaskError::file(path, TaskFault::Extension { task: task.word(), wanted });
            let table = Table { path, task, columns, labelled };
            rows.ok_or_else(extension)?.iter().map(|row| table.example(row)).collect::<Result<_, _>>()?
        }
    };
    if examples.is_empty() {
        let reason = "the file is empty or has only a header";
        return Err(TaskError::file(path, TaskFault::Examples { count: 0, reason }));
    }
    Ok(examples)
}

/// How the rows of a file are to be taken.
struct Table<'a> {
    path: &'a Path,
    task: Task,
    columns: &'a Columns,
    labelled: bool,
}

impl Table<'_> {
    fn fail(&self, row: &Row, column: &str, fault: TaskFault) -> TaskError {
        TaskError::line(self.path, row.line, fault).column(column)
    }

    fn example(&self, row: &Row) -> Result<RawExample, TaskError> {
        let (input, target, column) = match self.task {
            Task::Classify | Task::Regress => {
                let (first, second) = self.text_columns(row)?;
                let first = self.text(row, &first)?;
                let second = second.map(|column| self.text(row, &column)).transpose()?;
                let (target, column) = self.single_label(row)?;
                (TaskInput::Text { first, second }, target, column)
            }
            Task::Tokens => self.words(row)?,
            Task::QuestionAnswering => self.question(row)?,
            Task::Choice => self.choice(row)?,
        };
        Ok(RawExample { line: Some(row.line), label_column: column, input, target })
    }

    /// The column that `named` names, or the first of `defaults` that is there.
    fn column(
        &self,
        row: &Row,
        named: Option<&String>,
        defaults: &[&str],
        flag: Option<&'static str>,
    ) -> Result<String, TaskError> {
        let wanted: Vec<String> = match named {
            Some(name) => vec![name.clone()],
            None => defaults.iter().map(|name| (*name).to_owned()).collect(),
        };
        match wanted.iter().find(|name| row.cells.contains_key(*name)) {
            Some(name) => Ok(name.clone()),
            None => {
                let there = row.cells.keys().cloned().collect();
                Err(TaskError::line(self.path, row.line, TaskFault::UnknownColumn { wanted, there, flag }))
            }
        }
    }

    fn text_columns(&self, row: &Row) -> Result<(String, Option<String>), TaskError> {
        let Columns { text, pair, .. } = self.columns;
        if text.is_none() && pair.is_none() {
            let there = |name: &str| row.cells.contains_key(name);
            if let Some((first, second)) = PAIRS.into_iter().find(|(first, second)| there(first) && there(second)) {
                return Ok((first.into(), Some(second.into())));
            }
        }
        let singles: Vec<&str> = SINGLES.into_iter().chain(PAIRS.map(|(first, _)| first)).collect();
        // A column such as `sentence1` alone is a text too, but an error names only the usual ones.
        let defaults = if singles.iter().any(|name| row.cells.contains_key(*name)) { &singles[..] } else { &SINGLES };
        let first = self.column(row, text.as_ref(), defaults, Some("--text-column"))?;
        let second = match pair {
            Some(_) => Some(self.column(row, pair.as_ref(), &[], Some("--pair-column"))?),
            None => None,
        };
        Ok((first, second))
    }

    /// A cell as written; JSON's numbers and truth values are written out.
    fn cell(&self, row: &Row, column: &str) -> Result<String, TaskError> {
        written(row.cells.get(column).unwrap_or(&Value::Null))
            .ok_or_else(|| self.fail(row, column, TaskFault::Format("must be a string or a number".into())))
    }

    fn text(&self, row: &Row, column: &str) -> Result<String, TaskError> {
        let text = self.cell(row, column)?;
        if text.trim().is_empty() { Err(self.fail(row, column, TaskFault::EmptyText)) } else { Ok(text) }
    }

    /// The label of a whole example as it is written, and its column.
    fn label(&self, row: &Row) -> Result<(String, String), TaskError> {
        let named = self.columns.label.as_ref();
        let column = self.column(row, named, self.task.label_columns(), Some("--label-column"))?;
        let label = self.cell(row, &column)?.trim().to_owned();
        if label.is_empty() { Err(self.fail(row, &column, TaskFault::EmptyLabel)) } else { Ok((label, column)) }
    }

    fn single_label(&self, row: &Row) -> Result<(Option<Raw>, Option<String>), TaskError> {
        if !self.labelled {
            return Ok((None, None));
        }
        let (label, column) = self.label(row)?;
        if self.task == Task::Classify {
            return Ok((Some(Raw::Name(label)), Some(column)));
        }
        let number = label.parse::<f32>().ok().filter(|x| x.is_finite());
        match number {
            Some(number) => Ok((Some(Raw::Known(Target::Number(number))), Some(column))),
            None => Err(self.fail(row, &column, TaskFault::NotANumber { value: label })),
        }
    }

    /// A cell that is a list of strings or numbers, none of them empty.
    fn list(&self, row: &Row, column: &str, empty: fn() -> TaskFault) -> Result<Vec<String>, TaskError> {
        let wrong = || self.fail(row, column, TaskFault::Format("must be a list of strings or numbers".into()));
        let Some(Value::Array(cells)) = row.cells.get(column) else { return Err(wrong()) };
        let words = cells.iter().map(|cell| written(cell).ok_or_else(wrong)).collect::<Result<Vec<_>, _>>()?;
        if words.is_empty() || words.iter().any(|word| word.trim().is_empty()) {
            return Err(self.fail(row, column, empty()));
        }
        Ok(words)
    }

    fn words(&self, row: &Row) -> Result<(TaskInput, Option<Raw>, Option<String>), TaskError> {
        let Columns { text, label, .. } = self.columns;
        let column = self.column(row, text.as_ref(), &["tokens", "words"], Some("--text-column"))?;
        let words = self.list(row, &column, || TaskFault::EmptyText)?;
        if !self.labelled {
            return Ok((TaskInput::Words(words), None, None));
        }
        let column = self.column(row, label.as_ref(), self.task.label_columns(), Some("--label-column"))?;
        let names = self.list(row, &column, || TaskFault::EmptyLabel)?;
        if names.len() != words.len() {
            let reason = format!("{} labels for {} tokens", names.len(), words.len());
            return Err(self.fail(row, &column, TaskFault::Format(reason)));
        }
        Ok((TaskInput::Words(words), Some(Raw::Names(names)), Some(column)))
    }

    fn question(&self, row: &Row) -> Result<(TaskInput, Option<Raw>, Option<String>), TaskError> {
        let Columns { text, pair, label } = self.columns;
        let column = self.column(row, text.as_ref(), &["question"], Some("--text-column"))?;
        let question = self.text(row, &column)?;
        let column = self.column(row, pair.as_ref(), &["context"], Some("--pair-column"))?;
        let context = self.text(row, &column)?;
        let id = row.cells.get("id").and_then(written).filter(|id| !id.is_empty());
        let mut answers = Vec::new();
        let impossible = row.cells.get("is_impossible").and_then(written).is_some_and(|x| x.eq_ignore_ascii_case("true"));
        if self.labelled && !impossible {
            let fail = |column: &str, fault| self.fail(row, column, fault);
            // The datasets library's {"answers": {"text": [..], "answer_start": [..]}}, or a column each.
            if let (None, Some(both)) = (label, row.cells.get("answers")) {
                answers = answer_lists(both, &question, &context).map_err(|fault| fail("answers", fault))?;
            } else {
                let column = self.column(row, label.as_ref(), self.task.label_columns(), Some("--label-column"))?;
                let answer = self.cell(row, &column)?;
                if answer.trim().is_empty() {
                    return Err(fail(&column, TaskFault::EmptyLabel));
                }
                let start = self.cell(row, &self.column(row, None, &["answer_start"], None)?)?;
                let at = start.trim().parse().map_err(|_| fail("answer_start", TaskFault::NotANumber { value: start }))?;
                answers.push(locate(&question, &context, &answer, at).map_err(|fault| fail(&column, fault))?);
            }
        }
        let target = self.labelled.then_some(Raw::Known(Target::Answers(answers)));
        Ok((TaskInput::Question { id, question, context }, target, None))
    }

    fn choice(&self, row: &Row) -> Result<(TaskInput, Option<Raw>, Option<String>), TaskError> {
        let named = self.columns.text.as_ref();
        let column = self.column(row, named, &["prompt", "question", "startphrase"], Some("--text-column"))?;
        let prompt = self.text(row, &column)?;
        let mut choices = Vec::new();
        if matches!(row.cells.get("choices"), Some(Value::Array(_))) {
            choices = self.list(row, "choices", || TaskFault::EmptyText)?;
        } else {
            // `ending0` and so on are SWAG's.
            let prefix = if row.cells.contains_key("ending0") { "ending" } else { "choice" };
            let names = (0..).map(|i| format!("{prefix}{i}")).take_while(|name| row.cells.contains_key(name));
            for name in names {
                choices.push(self.text(row, &name)?);
            }
        }
        if choices.len() < 2 {
            let wanted = vec!["choice0".into(), "choice1".into(), "choices".into()];
            let there = row.cells.keys().cloned().collect();
            let fault = TaskFault::UnknownColumn { wanted, there, flag: None };
            let few = TaskFault::Format(format!("there must be at least 2 choices, not {}", choices.len()));
            return Err(TaskError::line(self.path, row.line, if choices.is_empty() { fault } else { few }));
        }
        if !self.labelled {
            return Ok((TaskInput::Choice { prompt, choices }, None, None));
        }
        let (label, column) = self.label(row)?;
        let number = label.parse().ok().filter(|&i: &usize| i < choices.len());
        let Some(class) = number.or_else(|| choices.iter().position(|choice| choice.trim() == label)) else {
            return Err(self.fail(row, &column, TaskFault::NotAChoice { value: label, last: choices.len() - 1 }));
        };
        Ok((TaskInput::Choice { prompt, choices }, Some(Raw::Known(Target::Class(class))), Some(column)))
    }
}

/// A JSON value as text: nothing is empty, and lists and objects are no text.
fn written(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Null => Some(String::new()),
        Value::Number(_) | Value::Bool(_) => Some(value.to_string()),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// The answer with its place, given in characters as Python counts them.
fn locate(question: &str, context: &str, answer: &str, at: i64) -> Result<Answer, TaskFault> {
    let begin = usize::try_from(at).ok().and_then(|at| context.char_indices().nth(at)).map(|(byte, _)| byte);
    match begin {
        Some(begin) if context[begin..].starts_with(answer) => {
            let start = begin + answer.len() - answer.trim_start().len();
            Ok(Answer { range: start..start + answer.trim().len(), text: answer.to_owned() })
        }
        _ => Err(TaskFault::Answer {
            question: question.to_owned(),
            answer: answer.to_owned(),
            at,
            found: context[begin.unwrap_or(context.len())..].chars().take(answer.chars().count()).collect(),
        }),
    }
}

/// `{"text": [..], "answer_start": [..]}`, of one length.
fn answer_lists(both: &Value, question: &str, context: &str) -> Result<Vec<Answer>, TaskFault> {
    let wrong = || TaskFault::Format(r#"must be {"text": [..], "answer_start": [..]}, of one length"#.into());
    let (Some(texts), Some(starts)) = (both["text"].as_array(), both["answer_start"].as_array()) else {
        return Err(wrong());
    };
    if texts.len() != starts.len() {
        return Err(wrong());
    }
    let pairs = texts.iter().zip(starts);
    pairs.map(|(text, at)| answer_at(text, at, question, context)).collect()
}

/// An answer of which JSON gives the text and the place.
fn answer_at(text: &Value, at: &Value, question: &str, context: &str) -> Result<Answer, TaskFault> {
    let wrong = || TaskFault::Format("an answer has a text and a whole number where it begins".into());
    let (text, at) = (text.as_str().ok_or_else(wrong)?, at.as_i64().ok_or_else(wrong)?);
    if text.trim().is_empty() {
        return Err(TaskFault::EmptyLabel);
    }
    locate(question, context, text, at)
}

/// A token and its label a line, a blank line after each sentence (Tjong Kim Sang and De Meulder, "Introduction to the
/// CoNLL-2003 shared task", 2003). Of more columns the first and the last count. A first line of `token` and `label` is a
/// header, and `-DOCSTART-` no sentence.
fn conll(path: &Path, text: &str, labelled: bool) -> Result<Vec<RawExample>, TaskError> {
    let mut examples = Vec::new();
    let (mut words, mut names, mut begin) = (Vec::new(), Vec::new(), 1);
    // A blank line more, so that the last sentence ends.
    for (i, line) in text.lines().chain([""]).enumerate() {
        if line.trim().is_empty() || line.starts_with("-DOCSTART-") {
            if !words.is_empty() {
                let input = TaskInput::Words(std::mem::take(&mut words));
                let names = std::mem::take(&mut names);
                let target = labelled.then_some(Raw::Names(names));
                examples.push(RawExample { line: Some(begin), label_column: None, input, target });
            }
            begin = i + 2;
            continue;
        }
        let separator = if line.contains('\t') { '\t' } else { ' ' };
        let cells: Vec<&str> = line.split(separator).map(str::trim).collect();
        if i == 0 && cells == ["token", "label"] {
            begin = 2;
            continue;
        }
        let fail = |fault| Err(TaskError::line(path, i + 1, fault));
        if cells[0].is_empty() {
            return fail(TaskFault::EmptyText);
        }
        words.push(cells[0].to_owned());
        if labelled {
            match cells[1..].last() {
                Some(label) if !label.is_empty() => names.push((*label).to_owned()),
                _ => return fail(TaskFault::EmptyLabel),
            }
        }
    }
    Ok(examples)
}

/// SQuAD's own file (Rajpurkar et al. 2016; version 2.0 with `is_impossible`, 2018): articles of paragraphs of questions.
fn squad(path: &Path, text: &str, labelled: bool) -> Result<Vec<RawExample>, TaskError> {
    let fail = |fault: TaskFault| TaskError::file(path, fault);
    let wrong = |what: &str| fail(TaskFault::Format(format!("it is not as SQuAD's: {what}")));
    let file: Value = serde_json::from_str(text).map_err(|e| wrong(&e.to_string()))?;
    let list = |value: &Value, key: &str| value[key].as_array().cloned().ok_or_else(|| wrong(&format!("no list {key:?}")));
    let string = |value: &Value, key: &str| match value[key].as_str() {
        Some(text) if text.trim().is_empty() => Err(fail(TaskFault::EmptyText).column(key)),
        Some(text) => Ok(text.to_owned()),
        None => Err(wrong(&format!("no string {key:?}"))),
    };
    let mut examples = Vec::new();
    for article in list(&file, "data")? {
        for paragraph in list(&article, "paragraphs")? {
            let context = string(&paragraph, "context")?;
            for entry in list(&paragraph, "qas")? {
                let question = string(&entry, "question")?;
                let mut answers = Vec::new();
                if labelled && entry["is_impossible"] != true {
                    for answer in list(&entry, "answers")? {
                        let found = answer_at(&answer["text"], &answer["answer_start"], &question, &context);
                        answers.push(found.map_err(|fault| fail(fault).column("answers"))?);
                    }
                }
                let id = entry["id"].as_str().map(str::to_owned);
                let input = TaskInput::Question { id, question, context: context.clone() };
                let target = labelled.then_some(Raw::Known(Target::Answers(answers)));
                examples.push(RawExample { line: None, label_column: None, input, target });
            }
        }
    }
    Ok(examples)
}
