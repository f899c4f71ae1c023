//! How well a model does a task, by the metrics that the field reports for it.

use super::{
    EncodedInput, Found, SequenceLogits, Target, Task, TaskData,
    metrics::{accuracy, answer_f1, exact_match, f1, f1_macro, f1_tokens, matthews, pearson, spearman},
};
use std::collections::BTreeMap;

impl Task {
    /// Its metrics; the first one is what checkpoints are chosen by unless another is asked for. Higher is better.
    pub fn metrics(self) -> &'static [&'static str] {
        match self {
            Self::Classify => &["accuracy", "f1", "matthews"],
            Self::Regress => &["pearson", "spearman"],
            Self::Tokens => &["f1", "accuracy"],
            Self::QuestionAnswering => &["f1", "exact_match"],
            Self::Choice => &["accuracy"],
        }
    }
}

/// The mean loss over `data` and its metrics, from the outputs for each sequence of each input. The loss is summed here and not
/// on the device, over the examples themselves: what fills the last batch up never counts, whatever the task.
pub fn judge(
    data: &TaskData,
    inputs: &[EncodedInput],
    logits: &[Vec<SequenceLogits>],
    null_threshold: Option<f32>,
) -> (f64, BTreeMap<String, f64>) {
    let (mut sum, mut count) = (0.0, 0);
    let mut found = Vec::with_capacity(inputs.len());
    for ((example, input), logits) in data.examples.iter().zip(inputs).zip(logits) {
        let (loss, counted) = input.loss(&example.target, logits);
        (sum, count) = (sum + loss, count + counted);
        found.push(input.read(data.task, &example.input, logits, null_threshold));
    }
    let targets: Vec<&Target> = data.examples.iter().map(|example| &example.target).collect();
    (sum / count.max(1) as f64, task_figures(data.task, &data.labels, &found, &targets))
}

/// The label of words that are nothing of what is looked for.
const OUTSIDE: &str = "O";

/// The metrics of a task by name, from what was found and what should have been. Correlations that are not defined are left
/// out. F1 is that of class 1 if there are two classes, else the mean over classes; of words it leaves `O` out.
pub fn task_figures(task: Task, labels: &[String], found: &[Found], targets: &[&Target]) -> BTreeMap<String, f64> {
    let both = || found.iter().zip(targets);
    let mut figures = BTreeMap::new();
    let mut put = |name: &str, value: f64| {
        figures.insert(name.to_owned(), value);
    };
    match task {
        Task::Classify | Task::Choice => {
            let pairs: Vec<_> = both()
                .filter_map(|(found, target)| match (found, target) {
                    (Found::Class { class, .. }, Target::Class(expected)) => Some((*class, *expected)),
                    _ => None,
                })
                .collect();
            put("accuracy", accuracy(&pairs));
            if task == Task::Classify {
                put("f1", if labels.len() == 2 { f1(&pairs, 1) } else { f1_macro(&pairs) });
                put("matthews", matthews(&pairs));
            }
        }
        Task::Regress => {
            let pairs: Vec<_> = both()
                .filter_map(|(found, target)| match (found, target) {
                    (Found::Number(found), Target::Number(expected)) => Some((f64::from(*found), f64::from(*expected))),
                    _ => None,
                })
                .collect();
            pearson(&pairs).into_iter().for_each(|value| put("pearson", value));
            spearman(&pairs).into_iter().for_each(|value| put("spearman", value));
        }
        Task::Tokens => {
            let mut pairs = Vec::new();
            for (found, target) in both() {
                if let (Found::Tags(found), Target::Tags(expected)) = (found, target) {
                    // A word beyond the context was not found: it is of no class, and so wrong.
                    let class = |tag: &Option<(usize, f32)>| tag.map_or(usize::MAX, |(class, _)| class);
                    pairs.extend(found.iter().map(class).zip(expected.iter().copied()));
                }
            }
            let outside = labels.iter().position(|label| label == OUTSIDE).unwrap_or(labels.len());
            put("accuracy", accuracy(&pairs));
            put("f1", f1_tokens(&pairs, outside));
        }
        Task::QuestionAnswering => {
            let (mut exact, mut overlap) = (0.0, 0.0);
            for (found, target) in both() {
                if let Target::Answers(answers) = target {
                    let answers: Vec<&str> = answers.iter().map(|answer| answer.text.as_str()).collect();
                    exact += f64::from(u8::from(exact_match(found.answer(), &answers)));
                    overlap += answer_f1(found.answer(), &answers);
                }
            }
            let count = found.len().max(1) as f64;
            put("exact_match", exact / count);
            put("f1", overlap / count);
        }
    }
    figures
}
