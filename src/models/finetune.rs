//! Fine-tuning (Devlin et al., "BERT: pre-training of deep bidirectional transformers", 2019, section 4): an encoder with the
//! head that a task wants, and its loss on rows of examples.

use super::{
    Config, Dropout, Head, Missing, Mode, Model, ModelError, Parameter, Rest, Text, encoder,
    heads::{self, Labels},
    initialise,
};
use crate::{
    graph::{Engine, Graph},
    ops::{self, HostTensor, IGNORE, OpError, Tensor, TensorType},
    train::{
        Batch, Loss,
        tasks::{RowTarget, Task, TextBatch, TrainingRow},
    },
};

/// Added to the logits of choices that an example does not have: their probability is 0.
const NO_CHOICE: f32 = -1e9;

impl Head {
    /// The head that does a task.
    pub fn of_task(task: Task) -> Self {
        match task {
            Task::Classify | Task::Regress => Self::Sequence,
            Task::Tokens => Self::Tokens,
            Task::QuestionAnswering => Self::Questions,
            Task::Choice => Self::Choice,
        }
    }
}

impl Config {
    /// The task that the model was fine-tuned for, by its architecture; `None` if for none of ours.
    pub fn task(&self) -> Option<Task> {
        match Head::parse(self.architectures().first()?)? {
            Head::Sequence if self.rest().is_some_and(Rest::regression) => Some(Task::Regress),
            Head::Sequence => Some(Task::Classify),
            Head::Tokens => Some(Task::Tokens),
            Head::Questions => Some(Task::QuestionAnswering),
            Head::Choice => Some(Task::Choice),
            Head::Base | Head::MaskedLm | Head::PreTraining | Head::NextSentence | Head::Replaced => None,
        }
    }

    /// Names of the classes of a task that has them; empty for others.
    pub fn task_labels(&self, task: Task) -> Vec<String> {
        let rest = self.rest().filter(|_| task.has_labels());
        rest.map(|rest| (0..rest.labels()).map(|i| rest.label(i)).collect()).unwrap_or_default()
    }

    /// The same model for `task`, as transformers describes it: the class of its head, the labels' names, and whether it is
    /// about classes or numbers.
    #[must_use]
    pub fn for_task(&self, task: Task, labels: &[String]) -> Self {
        let mut config = self.clone();
        let architecture = Head::of_task(task).architecture(&config);
        if let Some(rest) = config.rest_mut() {
            rest.architectures = vec![architecture];
            (rest.id2label, rest.label2id) = (None, None);
            match task {
                Task::Classify | Task::Tokens => rest.set_labels(labels),
                // One output, which transformers knows by the number of labels.
                Task::Regress => rest.set_labels(&["LABEL_0".to_owned()]),
                // transformers' own default is what these heads have.
                Task::QuestionAnswering | Task::Choice => {}
            }
            rest.problem_type = match task {
                Task::Classify => Some("single_label_classification".into()),
                Task::Regress => Some("regression".into()),
                _ => None,
            };
        }
        config
    }
}

/// A model on rows of a task's examples.
pub struct FineTuning<'a> {
    /// The model, as [`Config::for_task`] makes it.
    pub config: &'a Config,
    /// The task.
    pub task: Task,
    /// Rows of a micro-batch.
    pub rows: usize,
    /// Sequences of a row: the most choices that an example has, else 1.
    pub choices: usize,
    /// Tokens of a sequence.
    pub time: usize,
    /// Probability that an element is dropped in training.
    pub dropout: f32,
    /// The id of `[PAD]`.
    pub pad: u32,
}

impl FineTuning<'_> {
    fn labels(&self) -> usize {
        self.config.rest().map_or(2, Rest::labels)
    }

    /// Whether the model tells the two texts of a pair from each other by token types.
    fn has_types(&self) -> bool {
        let sizes = encoder(self.config, Mode::default()).and_then(|encoder| encoder.sizes().ok());
        sizes.is_some_and(|sizes| sizes.types > 1)
    }

    /// All parameters of the model with its head.
    ///
    /// # Errors
    /// It is no encoder.
    pub fn parameters(&self) -> Result<Vec<Parameter>, OpError> {
        let encoder = encoder(self.config, Mode::default()).ok_or_else(no_encoder)?;
        heads::parameters(&*encoder, Head::of_task(self.task), self.labels(), false)
    }

    /// How fast a parameter learns: `decay` to the power of the layers between it and the head (Clark et al. 2020, appendix B,
    /// and `_get_layer_lrs` of the reference; first in Howard and Ruder 2018). Embeddings are layer 0.
    ///
    /// # Errors
    /// The layers share their parameters, which then stand at no one depth.
    pub fn layer_rate(&self, name: &str, decay: f32) -> Result<f32, OpError> {
        if decay == 1.0 {
            return Ok(1.0);
        }
        let encoder = encoder(self.config, Mode::default()).ok_or_else(no_encoder)?;
        if let Config::Albert(_) = self.config {
            return Err(OpError::new("the layers of an ALBERT share their parameters, which then learn at one rate"));
        }
        let prefix = encoder.heads().prefix;
        let layer = name.split_once(".layer.").and_then(|(_, rest)| rest.split('.').next()?.parse::<usize>().ok());
        let head = encoder.sizes()?.layers + 2;
        let depth = match layer {
            Some(layer) => layer + 1,
            None if name.starts_with(prefix) && name.contains(".embeddings") => 0,
            None => head,
        };
        Ok(decay.powi((head - depth) as i32))
    }

    /// Loads `parameters` from `model`, and returns the names of those that begin afresh: those that the file does not have,
    /// and the last layer if it was for another task or other labels.
    ///
    /// # Errors
    /// A weight has another shape or type than the configuration says.
    pub fn load(
        &self,
        model: &Model,
        parameters: &[Parameter],
        engine: &mut Engine,
        seed: u32,
    ) -> Result<Vec<String>, ModelError> {
        let same =
            model.config.task() == Some(self.task) && model.config.task_labels(self.task) == self.config.task_labels(self.task);
        let last = |p: &Parameter| p.name.starts_with("classifier.") || p.name.starts_with("qa_outputs.");
        let (renewed, kept): (Vec<_>, Vec<_>) = parameters.iter().cloned().partition(|p| !same && last(p));
        let mut fresh = model.upload(engine, &kept, Missing::Initialise(seed))?;
        // Another seed, because fresh weights follow from the seed and the place in the list.
        initialise(&renewed, engine, seed.wrapping_add(1))?;
        fresh.extend(renewed.into_iter().map(|p| p.name));
        Ok(fresh)
    }

    /// Name and type of each input: ids, token types if the model has them, the mask, then what is to come out.
    pub fn inputs(&self) -> Vec<(&'static str, TensorType)> {
        let text = TensorType::u32([self.rows * self.choices, self.time]);
        let mut inputs = vec![("input_ids", text.clone())];
        if self.has_types() {
            inputs.push(("token_type_ids", text.clone()));
        }
        inputs.push(("attention_mask", text.clone()));
        let each = TensorType::u32([self.rows]);
        match self.task {
            Task::Classify => inputs.push(("labels", each)),
            Task::Regress => inputs.push(("labels", TensorType::f32([self.rows]))),
            Task::Tokens => inputs.push(("labels", text)),
            Task::QuestionAnswering => inputs.extend([("start_positions", each.clone()), ("end_positions", each)]),
            Task::Choice => {
                inputs.extend([("labels", each), ("choice_bias", TensorType::f32([self.rows, self.choices]))]);
            }
        }
        inputs
    }

    /// Records the loss for [`inputs`](Self::inputs). In evaluation the host also reads the head's outputs.
    ///
    /// # Errors
    /// Sequences are longer than the model's context.
    pub fn loss(&self, g: &mut Graph, inputs: &[Tensor], rng: Option<Tensor>) -> Result<Loss, OpError> {
        let mode = Mode { dropout: rng.map(|rng| Dropout { rate: self.dropout, rng }), ..Mode::default() };
        let encoder = encoder(self.config, mode).ok_or_else(no_encoder)?;
        let types = usize::from(self.has_types());
        let text = Text { ids: inputs[0], types: (types == 1).then(|| inputs[1]), keys: Some(inputs[1 + types]) };
        let wanted = &inputs[2 + types..];
        let head = Head::of_task(self.task);
        let mut outputs = heads::outputs(g, &*encoder, head, self.labels(), (false, self.choices), &text)?;
        let others = if rng.is_none() { outputs.named.iter().map(|output| output.1).collect() } else { Vec::new() };
        let labels = match self.task {
            Task::QuestionAnswering => Labels::Span(wanted[0], wanted[1]),
            _ => Labels::One(wanted[0]),
        };
        if self.task == Task::Choice {
            outputs.named[0].1 = ops::add(g, outputs.named[0].1, wanted[1])?;
        }
        let loss = heads::loss(g, &outputs, labels, self.task == Task::Regress)?;
        Ok(Loss { loss, others })
    }

    /// Values of the inputs for as many rows as a micro-batch has.
    pub fn batch(&self, rows: &[&TrainingRow]) -> Batch {
        let mut text = TextBatch::new(self.rows * self.choices, self.time, self.pad);
        let mut wanted = Wanted::new(self);
        for (i, row) in rows.iter().enumerate() {
            row.sequences.iter().enumerate().for_each(|(choice, sequence)| text.put(i * self.choices + choice, sequence));
            wanted.put(self, i, row);
        }
        self.values(&text, wanted)
    }

    /// Values of the inputs for sequences alone, to read what the head gives for them. What is to come out is not known then,
    /// so that the loss means nothing.
    pub fn unlabelled(&self, text: &TextBatch) -> Batch {
        self.values(text, Wanted::new(self))
    }

    fn values(&self, text: &TextBatch, wanted: Wanted) -> Batch {
        let shape = [text.rows, text.time];
        let mut values = vec![HostTensor::uints(shape, text.ids.clone())];
        if self.has_types() {
            values.push(HostTensor::uints(shape, text.types.clone()));
        }
        values.push(HostTensor::uints(shape, text.mask.clone()));
        match self.task {
            Task::Classify => values.push(HostTensor::uints([self.rows], wanted.classes)),
            Task::Regress => values.push(HostTensor::floats([self.rows], wanted.numbers)),
            Task::Tokens => values.push(HostTensor::uints(shape, wanted.classes)),
            Task::QuestionAnswering => {
                values.extend([wanted.classes, wanted.ends].map(|places| HostTensor::uints([self.rows], places)));
            }
            Task::Choice => {
                values.push(HostTensor::uints([self.rows], wanted.classes));
                values.push(HostTensor::floats([self.rows, self.choices], wanted.numbers));
            }
        }
        values
    }
}

/// What is to come out of a micro-batch.
struct Wanted {
    /// Classes of rows or of tokens, or first tokens of answers.
    classes: Vec<u32>,
    /// Last tokens of answers.
    ends: Vec<u32>,
    /// Numbers, or what is added to the logits of choices.
    numbers: Vec<f32>,
}

impl Wanted {
    fn new(tuning: &FineTuning<'_>) -> Self {
        let classes = if tuning.task == Task::Tokens { tuning.rows * tuning.time } else { tuning.rows };
        Self { classes: vec![IGNORE; classes], ends: vec![IGNORE; tuning.rows], numbers: vec![0.0; tuning.rows * tuning.choices] }
    }

    fn put(&mut self, tuning: &FineTuning<'_>, i: usize, row: &TrainingRow) {
        match &row.target {
            RowTarget::Class(class) => {
                self.classes[i] = *class;
                self.numbers[i * tuning.choices..(i + 1) * tuning.choices][row.sequences.len()..].fill(NO_CHOICE);
            }
            RowTarget::Number(value) => self.numbers[i] = *value,
            RowTarget::Span(first, last) => (self.classes[i], self.ends[i]) = (*first, *last),
            RowTarget::Tags(tags) => {
                let start = i * tuning.time;
                let length = tags.len().min(tuning.time);
                self.classes[start..start + length].copy_from_slice(&tags[..length]);
            }
        }
    }
}

fn no_encoder() -> OpError {
    OpError::new("it is no encoder")
}
