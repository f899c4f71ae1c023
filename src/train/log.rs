//! The log: one JSON object a line, one line a step.

use super::TrainError;
use crate::checkpoint::write_atomic;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs::{File, OpenOptions},
    io::Write,
    path::{Path, PathBuf},
};

/// One line of the log.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Record {
    /// The step, from 1.
    pub step: usize,
    /// Mean loss of the step's batch, nats a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loss: Option<f32>,
    /// Global norm of the gradient before clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grad_norm: Option<f32>,
    /// Learning rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lr: Option<f32>,
    /// Loss over the whole held-out text, nats a token.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eval_loss: Option<f64>,
    /// Tokens a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tokens_per_second: Option<f64>,
    /// What the objective tells besides: accuracies, parts of the loss.
    #[serde(flatten)]
    pub figures: BTreeMap<String, f64>,
}

/// A log file, or none.
pub struct Log {
    file: Option<(PathBuf, File)>,
}

impl Log {
    /// Opens the log. A resumed run keeps the lines up to `resumed` steps and writes on after them.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn open(path: Option<&Path>, resumed: usize) -> Result<Self, TrainError> {
        let Some(path) = path else { return Ok(Self { file: None }) };
        let fail = |source| TrainError::Log { path: path.to_owned(), source };
        // A fresh run does not read what is there: it may be a pipe, or a device.
        let before = if resumed > 0 { std::fs::read_to_string(path).unwrap_or_default() } else { String::new() };
        let kept: String = before
            .lines()
            .filter(|line| serde_json::from_str::<Record>(line).is_ok_and(|r| r.step <= resumed))
            .map(|line| format!("{line}\n"))
            .collect();
        if resumed > 0 {
            // Replaced as a whole, so that a kill in between loses no line.
            write_atomic(path, |out| out.write_all(kept.as_bytes()))?;
        }
        let file =
            OpenOptions::new().create(true).append(resumed > 0).write(true).truncate(resumed == 0).open(path).map_err(fail)?;
        Ok(Self { file: Some((path.to_owned(), file)) })
    }

    /// Writes a line.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&mut self, record: &Record) -> Result<(), TrainError> {
        let Some((path, file)) = &mut self.file else { return Ok(()) };
        let mut line = serde_json::to_string(record).unwrap_or_default();
        line.push('\n');
        file.write_all(line.as_bytes()).map_err(|source| TrainError::Log { path: path.clone(), source })
    }
}
