//! Rows with named cells, from CSV, TSV or JSON lines.

use super::{TaskError, TaskFault};
use csv::{ReaderBuilder, StringRecord};
use serde_json::{Map, Value};
use std::{fs, path::Path};

/// A row of a table: CSV's and TSV's cells are all strings, those of JSON lines are any JSON.
pub(super) struct Row {
    /// Its first line in the file, counted from 1.
    pub line: usize,
    /// Its cells by their columns' names.
    pub cells: Map<String, Value>,
}

/// The file as text, without the byte-order mark of some editors, lines ending with `\n` alone.
pub(super) fn read_text(path: &Path) -> Result<String, TaskError> {
    let bytes = fs::read(path).map_err(|e| TaskError::file(path, TaskFault::Io(e)))?;
    let text = String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let line = 1 + e.as_bytes()[..at].iter().filter(|&&b| b == b'\n').count();
        TaskError::line(path, line, TaskFault::Format(format!("not UTF-8 text: a bad byte at {at}")))
    })?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    Ok(if text.contains("\r\n") { text.replace("\r\n", "\n") } else { text })
}

/// The ending of the file's name, in small letters.
pub(super) fn extension(path: &Path) -> String {
    path.extension().map(|e| e.to_string_lossy().to_lowercase()).unwrap_or_default()
}

/// The rows of a `.csv`, `.tsv` or `.jsonl` with the contents `text`; `None` for another ending.
pub(super) fn rows(path: &Path, text: &str) -> Result<Option<Vec<Row>>, TaskError> {
    match extension(path).as_str() {
        "csv" => separated(path, text, b',', true).map(Some),
        // As GLUE's: a quotation mark is a character like others.
        "tsv" => separated(path, text, b'\t', false).map(Some),
        "jsonl" => json_lines(path, text).map(Some),
        _ => Ok(None),
    }
}

fn separated(path: &Path, text: &str, delimiter: u8, quoting: bool) -> Result<Vec<Row>, TaskError> {
    let mut reader = ReaderBuilder::new()
        .delimiter(delimiter)
        .quoting(quoting)
        .terminator(csv::Terminator::Any(b'\n'))
        .has_headers(false)
        .flexible(true)
        .from_reader(text.as_bytes());
    let mut header: Option<Vec<String>> = None;
    let mut rows = Vec::new();
    let mut record = StringRecord::new();
    // The crate counts from the end of the row before, so from blank lines between them.
    let (mut line, mut counted) = (1, 0);
    loop {
        let start = reader.position().byte() as usize;
        let blank = text.as_bytes()[start..].iter().take_while(|&&b| b == b'\n').count();
        line += text.as_bytes()[counted..start + blank].iter().filter(|&&b| b == b'\n').count();
        counted = start + blank;
        let fail = |reason: String| TaskError::line(path, line, TaskFault::Format(reason));
        if !reader.read_record(&mut record).map_err(|e| fail(e.to_string()))? {
            return Ok(rows);
        }
        let Some(names) = &header else {
            let names: Vec<String> = record.iter().map(|name| name.trim().to_owned()).collect();
            if let Some(twice) = names.iter().enumerate().find(|(i, name)| names[..*i].contains(name)) {
                return Err(fail(format!("the header names the column {:?} twice", twice.1)));
            }
            header = Some(names);
            continue;
        };
        if record.len() != names.len() {
            return Err(fail(format!("{} cells, and the header has {}", record.len(), names.len())));
        }
        let cells = names.iter().cloned().zip(record.iter().map(Value::from)).collect();
        rows.push(Row { line, cells });
    }
}

fn json_lines(path: &Path, text: &str) -> Result<Vec<Row>, TaskError> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(i, line)| {
            let fail = |reason: String| TaskError::line(path, i + 1, TaskFault::Format(reason));
            match serde_json::from_str(line) {
                Ok(Value::Object(cells)) => Ok(Row { line: i + 1, cells }),
                Ok(_) => Err(fail("it is not a JSON object".into())),
                Err(e) => Err(fail(format!("it is not JSON: {e}"))),
            }
        })
        .collect()
}
