//! `shaderlm classify`

use super::{
    CliResult,
    common::{DeviceArgs, number_in, refuse, say, words},
    profile::ProfileArgs,
};
use serde_json::{Value, json};
use shaderlm::{
    models::{Head, Mode, Model, Predictor, with_article},
    train::tasks::{
        Columns, EncodedInput, Encoder, Found, Lengths, Target, Task, TaskData, TaskFault, TaskInput, input_logits, read_inputs,
        task_figures,
    },
};
use std::{error::Error, io::IsTerminal, path::PathBuf};

/// Lengths of rows are multiples of this, so that few plans serve all texts.
const STEP: usize = 16;

/// Do with a model what `finetune` has taught it
///
/// Texts are the arguments, or the examples of --data, or the lines of standard input. For each, in this order, a line is
/// printed: the label and its probability, tab between them; a number; the best choice and its probability; an answer and its
/// score. Models for tokens print a line a word (words stand between spaces) and a blank line after each text. If --data has
/// labels, how well the model does follows on standard error.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm classify \"A fine film.\" --model sst\n  \
    shaderlm classify --data reviews.tsv --model sst --json > found.jsonl\n  \
    cat sentences.txt | shaderlm classify --model names\n  \
    shaderlm classify \"A man sleeps.\" --pair \"Nobody is awake.\" --model mnli\n  \
    shaderlm classify \"Ann was born in Oslo.\" --question \"Where was Ann born?\" --model squad\n  \
    shaderlm classify \"The sky is\" --choice blue --choice loud --model swag")]
pub struct Classify {
    /// Texts; for a model that answers questions the contexts, for one that chooses the prompts
    texts: Vec<String>,
    /// A folder that `finetune` wrote (or transformers), or a repository of the Hub
    #[arg(long, value_name = "DIR|REPO")]
    model: String,
    /// A file of examples as `finetune` takes them, with labels or without
    #[arg(long, value_name = "FILE", conflicts_with_all = ["texts", "pair", "question", "choices"])]
    data: Option<PathBuf>,
    /// The second text of a pair
    #[arg(long, value_name = "TEXT")]
    pair: Option<String>,
    /// The question that is to be answered from the text
    #[arg(long, value_name = "TEXT")]
    question: Option<String>,
    /// One of the choices; at least two
    #[arg(long = "choice", value_name = "TEXT")]
    choices: Vec<String>,
    /// Give no answer where that scores higher than the best one by more than X (for models that have learnt to)
    #[arg(long, value_name = "X", value_parser = number_in(-1e9, 1e9), allow_negative_numbers = true)]
    null_threshold: Option<f32>,
    /// The column of the text (the question, the prompt, the words), where it has an unusual name
    #[arg(long, value_name = "NAME", requires = "data")]
    text_column: Option<String>,
    /// The column of the second text (the context)
    #[arg(long, value_name = "NAME", requires = "data")]
    pair_column: Option<String>,
    /// The column of the label
    #[arg(long, value_name = "NAME", requires = "data")]
    label_column: Option<String>,
    /// Print a JSON object a text, with the probabilities of all classes
    #[arg(long)]
    json: bool,
    /// Texts at once
    #[arg(long, value_name = "N", default_value_t = 32)]
    batch: usize,
    /// Tokens to which texts are cut; the model's context by default
    #[arg(long, value_name = "N")]
    context: Option<usize>,
    /// Tokens from one window of a question's context to the next
    #[arg(long, value_name = "N", default_value_t = 128)]
    doc_stride: usize,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// What the model is to be given, and what should come out where that is known.
type Examples = (Vec<TaskInput>, Option<Vec<Target>>);

impl Classify {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        if self.batch == 0 {
            return refuse("--batch 0: must be at least 1");
        }
        let model = Model::open(&self.model)?;
        drop(model.encoder(Mode::default())?);
        let Some(task) = model.config.task() else {
            return refuse(format!(
                "{}: it is {}, which has no task; `shaderlm finetune` teaches it one",
                model.place(),
                with_article(model.config.architectures().first().map_or("model without architectures", String::as_str))
            ));
        };
        let tokenizer = model.tokenizer()?;
        let special = tokenizer.special_tokens()?;
        let positions = model.config.positions();
        let context = match self.context {
            Some(context) if context > positions => {
                return refuse(format!("--context {context}: the model's is {positions}"));
            }
            Some(context) => context,
            None => positions,
        };
        let encoder = Encoder::new(&tokenizer, special.cls, special.sep, context)?;
        let labels = model.config.task_labels(task);
        let (inputs, targets) = self.inputs(task, &labels)?;
        let encoded = encoder.inputs(&inputs.iter().collect::<Vec<_>>(), self.doc_stride)?;
        let cut = encoded.iter().filter(|input| input.is_cut()).count();
        if cut > 0 {
            eprintln!("shaderlm: {cut} of {} texts are longer than {context} tokens and lost their end", inputs.len());
        }

        let mut predictor = Predictor::new(&model, Head::of_task(task), self.device.engine()?)?;
        let sequences: usize = encoded.iter().map(|input| input.sequences().len()).sum();
        let rows = self.batch.min(sequences.max(1));
        let lengths = Lengths::Multiples { of: STEP, most: context };
        let logits = input_logits(&encoded, rows, lengths, special.pad, &mut |text| predictor.run(text))?;
        predictor.save_pipelines();
        let read = |((input, encoded), logits): ((&TaskInput, &EncodedInput), &Vec<_>)| {
            encoded.read(task, input, logits, self.null_threshold)
        };
        let found: Vec<_> = inputs.iter().zip(&encoded).zip(&logits).map(read).collect();
        for (input, found) in inputs.iter().zip(&found) {
            let text = if self.json { as_json(input, found, &labels).to_string() } else { as_text(input, found, &labels) };
            say!("{text}");
        }
        if let Some(targets) = targets {
            let figures = task_figures(task, &labels, &found, &targets.iter().collect::<Vec<_>>());
            eprintln!("{} examples{}", found.len(), words(&figures));
        }
        Ok(())
    }

    /// The examples of --data, or the texts.
    fn inputs(&self, task: Task, labels: &[String]) -> Result<Examples, Box<dyn Error>> {
        let Some(path) = &self.data else { return Ok((self.texts(task)?, None)) };
        let columns =
            Columns { text: self.text_column.clone(), pair: self.pair_column.clone(), label: self.label_column.clone() };
        match TaskData::read_against(path, task, &columns, labels) {
            Ok(data) => {
                let (inputs, targets) = data.examples.into_iter().map(|e| (e.input, e.target)).unzip();
                Ok((inputs, Some(targets)))
            }
            Err(error) if self.label_column.is_some() => Err(error.into()),
            // Without (good) labels the inputs may do; if they do not, that is the error.
            Err(error) => {
                let inputs = read_inputs(path, task, &columns)?;
                let missing = matches!(*error.fault, TaskFault::UnknownColumn { .. })
                    || (task == Task::Tokens && matches!(*error.fault, TaskFault::EmptyLabel));
                if !missing {
                    eprintln!("shaderlm: the labels are not used: {error}");
                }
                Ok((inputs, None))
            }
        }
    }

    /// Inputs from the arguments, or from the lines of standard input.
    fn texts(&self, task: Task) -> Result<Vec<TaskInput>, Box<dyn Error>> {
        let single = matches!(task, Task::Classify | Task::Regress);
        for (flag, given, fits) in [
            ("--pair", self.pair.is_some(), single),
            ("--question", self.question.is_some(), task == Task::QuestionAnswering),
            ("--choice", !self.choices.is_empty(), task == Task::Choice),
        ] {
            if given && !fits {
                return refuse(format!("{flag}: the model's task is {task}"));
            }
        }
        if task == Task::Choice && self.choices.len() < 2 {
            return refuse("give at least two of --choice: the model chooses among them");
        }
        let question = match (&self.question, task) {
            (None, Task::QuestionAnswering) => return refuse("give --question: the model answers one from the text"),
            (question, _) => question.clone().unwrap_or_default(),
        };
        let texts = if !self.texts.is_empty() {
            self.texts.clone()
        } else if std::io::stdin().is_terminal() {
            return refuse("give a text, --data FILE, or lines on standard input");
        } else {
            let all = std::io::read_to_string(std::io::stdin()).map_err(|e| format!("standard input: {e}"))?;
            all.lines().map(str::to_owned).collect()
        };
        let input = |text: String| match task {
            Task::Classify | Task::Regress => TaskInput::Text { first: text, second: self.pair.clone() },
            Task::Tokens => TaskInput::Words(text.split_whitespace().map(str::to_owned).collect()),
            Task::QuestionAnswering => TaskInput::Question { id: None, question: question.clone(), context: text },
            Task::Choice => TaskInput::Choice { prompt: text, choices: self.choices.clone() },
        };
        Ok(texts.into_iter().map(input).collect())
    }
}

/// The name of a class, or the choice.
fn name<'a>(input: &'a TaskInput, labels: &'a [String], class: usize) -> &'a str {
    let names = if let TaskInput::Choice { choices, .. } = input { choices } else { labels };
    names.get(class).map_or("", String::as_str)
}

/// What is printed for people and for `cut`.
fn as_text(input: &TaskInput, found: &Found, labels: &[String]) -> String {
    match (found, input) {
        (Found::Class { class, probabilities }, _) => {
            let probability = probabilities.get(*class).copied().unwrap_or(f32::NAN);
            format!("{}\t{probability:.4}", name(input, labels, *class))
        }
        (Found::Number(value), _) => format!("{value:.4}"),
        (Found::Tags(tags), TaskInput::Words(all)) => {
            let line = |(word, tag): (&String, &Option<(usize, f32)>)| match tag {
                Some((class, probability)) => format!("{word}\t{}\t{probability:.4}\n", name(input, labels, *class)),
                // Beyond the context.
                None => format!("{word}\t\t\n"),
            };
            all.iter().zip(tags).map(line).collect()
        }
        (Found::Tags(_), _) => String::new(),
        (Found::Answer { prediction, none }, _) => {
            let score = prediction.as_ref().map_or(f32::NAN, |p| if *none { p.null_score } else { p.score });
            format!("{}\t{score:.4}", found.answer().replace(['\t', '\n', '\r'], " "))
        }
    }
}

/// A number with the digits of an f32; null if it is none.
fn number(value: f32) -> Value {
    value.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

fn as_json(input: &TaskInput, found: &Found, labels: &[String]) -> Value {
    match (found, input) {
        (Found::Class { class, probabilities }, TaskInput::Choice { choices, .. }) => json!({
            "choice": class,
            "text": choices.get(*class),
            "probabilities": probabilities.iter().copied().map(number).collect::<Vec<_>>(),
        }),
        (Found::Class { class, probabilities }, _) => json!({
            "label": name(input, labels, *class),
            "probability": probabilities.get(*class).copied().map(number),
            "probabilities": labels.iter().cloned().zip(probabilities.iter().copied().map(number))
                .collect::<serde_json::Map<_, _>>(),
        }),
        (Found::Number(value), _) => json!({ "value": number(*value) }),
        (Found::Tags(tags), _) => {
            let all: &[String] = if let TaskInput::Words(all) = input { all } else { &[] };
            let word = |(word, tag): (&String, &Option<(usize, f32)>)| {
                json!({
                    "word": word,
                    "label": tag.map(|(class, _)| name(input, labels, class)),
                    "probability": tag.map(|(_, probability)| number(probability)),
                })
            };
            json!({ "words": all.iter().zip(tags).map(word).collect::<Vec<_>>() })
        }
        (Found::Answer { prediction, none }, TaskInput::Question { id, context, .. }) => {
            // In characters, as `answer_start` is.
            let place = |byte: usize| context.get(..byte).map(|before| before.chars().count());
            let prediction_of = |f: &dyn Fn(&shaderlm::train::tasks::Prediction) -> Value| prediction.as_ref().map(f);
            let mut object = json!({
                "answer": found.answer(),
                "start": prediction.as_ref().filter(|_| !none).and_then(|p| place(p.range.start)),
                "end": prediction.as_ref().filter(|_| !none).and_then(|p| place(p.range.end)),
                "score": prediction_of(&|p| number(p.score)),
                "null_score": prediction_of(&|p| number(p.null_score)),
            });
            if let Some(id) = id {
                object["id"] = id.as_str().into();
            }
            object
        }
        (Found::Answer { .. }, _) => Value::Null,
    }
}
