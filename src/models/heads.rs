//! Heads of encoders, by Hugging Face's names: their parameters, outputs and losses.

use super::{
    Config, Encoder, Parameter, Text,
    blocks::{Parameters, linear},
    encoder::{Dense, no_detector},
};
use crate::{
    graph::Graph,
    ops::{self, IGNORE, OpError, Recorder, Tensor},
};

/// What is put on an encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Head {
    /// Nothing: hidden states, and the pooler's output where there is one.
    Base,
    /// Logits of masked tokens.
    MaskedLm,
    /// Logits of masked tokens, and of a pair of segments: NSP for BERT, SOP for ALBERT.
    PreTraining,
    /// Logits of a pair of segments.
    NextSentence,
    /// A class, or a number, for each text.
    Sequence,
    /// A class for each token.
    Tokens,
    /// The first and the last token of an answer.
    Questions,
    /// One of several texts.
    Choice,
    /// For each token the logit of its having been replaced: what an ELECTRA is pre-trained for.
    Replaced,
}

/// Heads with what transformers' class names end in, and with short names for the command line.
const NAMES: [(Head, &str, &str); 9] = [
    (Head::Base, "Model", "base"),
    (Head::MaskedLm, "ForMaskedLM", "masked-lm"),
    (Head::PreTraining, "ForPreTraining", "pretraining"),
    (Head::NextSentence, "ForNextSentencePrediction", "next-sentence"),
    (Head::Sequence, "ForSequenceClassification", "sequence"),
    (Head::Tokens, "ForTokenClassification", "tokens"),
    (Head::Questions, "ForQuestionAnswering", "qa"),
    (Head::Choice, "ForMultipleChoice", "choice"),
    (Head::Replaced, "ForPreTraining", "replaced"),
];

impl Head {
    /// From a name: `masked-lm`, `ForMaskedLM` or `BertForMaskedLM`.
    pub fn parse(name: &str) -> Option<Self> {
        // The class of the same name as the others' that does something else.
        if name == "ElectraForPreTraining" {
            return Some(Self::Replaced);
        }
        let kinds = ["Bert", "DistilBert", "Albert", "Electra"];
        let bare = kinds.iter().find_map(|kind| name.strip_prefix(kind)).unwrap_or(name);
        NAMES.iter().find(|(_, suffix, short)| bare == *suffix || name == *short).map(|n| n.0)
    }

    /// Names that [`Head::parse`] takes, for messages.
    pub fn names() -> String {
        NAMES.map(|(_, suffix, short)| format!("{short} ({suffix})")).join(", ")
    }

    /// The name of transformers' class.
    pub fn architecture(self, config: &Config) -> String {
        let kind = match config {
            Config::Gpt2(_) => "GPT2",
            Config::Bert(_) => "Bert",
            Config::DistilBert(_) => "DistilBert",
            Config::Albert(_) => "Albert",
            Config::Electra(_) => "Electra",
        };
        let suffix = NAMES.iter().find(|n| n.0 == self).map_or("Model", |n| n.1);
        format!("{kind}{suffix}")
    }

    /// Whether it stands on the pooler.
    pub fn pools(self) -> bool {
        matches!(self, Self::PreTraining | Self::NextSentence | Self::Sequence | Self::Choice)
    }

    /// Whether its input is `[batch, choices, time]`.
    pub fn chooses(self) -> bool {
        self == Self::Choice
    }
}

/// All parameters of an encoder with a head for `labels` classes. `pooler`: a bare encoder has its pooler too.
pub fn parameters(encoder: &dyn Encoder, head: Head, labels: usize, pooler: bool) -> Result<Vec<Parameter>, OpError> {
    let (sizes, names) = (encoder.sizes()?, encoder.heads());
    let mut list = encoder.parameters();
    let mut more = Parameters::new(sizes.range);
    if let Some(name) = names.pooler.filter(|_| head.pools() || (head == Head::Base && pooler)) {
        more.linear(name, sizes.hidden, sizes.hidden);
    }
    if matches!(head, Head::MaskedLm | Head::PreTraining) {
        more.bias(names.decoder_bias, sizes.vocab);
        more.linear(names.transform, sizes.hidden, sizes.embedding);
        more.norm(names.transform_norm, sizes.embedding);
    }
    let before = match head {
        Head::Sequence => names.before_classes,
        Head::Choice => names.before_choice,
        _ => None,
    };
    if let Some(Dense { name, .. }) = before {
        more.linear(name, sizes.hidden, sizes.hidden);
    }
    match head {
        Head::PreTraining | Head::NextSentence if names.pair.is_empty() => {
            return Err(OpError::new("this kind of model has no head for pairs of segments"));
        }
        Head::PreTraining | Head::NextSentence => more.linear(names.pair, sizes.hidden, 2),
        Head::Sequence => more.linear(names.classes, sizes.hidden, labels),
        Head::Tokens => more.linear("classifier", sizes.hidden, labels),
        Head::Choice => more.linear("classifier", sizes.hidden, 1),
        Head::Questions => more.linear("qa_outputs", sizes.hidden, 2),
        Head::Replaced => {
            let [dense, prediction] = names.detector.ok_or_else(no_detector)?;
            more.linear(dense, sizes.hidden, sizes.hidden);
            more.linear(prediction, sizes.hidden, 1);
        }
        Head::Base | Head::MaskedLm => {}
    }
    list.extend(more.list);
    Ok(list)
}

/// What a head gives, by transformers' names.
pub struct Outputs {
    /// The embeddings' output and each layer's, `[B,T,H]`.
    pub hidden_states: Vec<Tensor>,
    /// Outputs of the head.
    pub named: Vec<(&'static str, Tensor)>,
}

/// Where the loss of a head comes from; labels are u32 with [`IGNORE`] for what is not counted.
#[derive(Clone, Copy)]
pub enum Labels {
    /// `[B,T]`, `[B]`, or for regression `[B]` f32.
    One(Tensor),
    /// Masked tokens `[B,T]`, and the pair `[B]`.
    Pair(Tensor, Tensor),
    /// First and last tokens of answers, `[B]` each.
    Span(Tensor, Tensor),
    /// 1 for each token that was replaced, else 0, `[B,T]`.
    Replaced(Tensor),
}

/// Records an encoder with its head. A [`Head::Choice`] takes the texts of all choices as rows, `choices` to an example.
///
/// # Errors
/// Shapes do not fit.
pub fn outputs(
    g: &mut Graph,
    encoder: &dyn Encoder,
    head: Head,
    labels: usize,
    (pooler, choices): (bool, usize),
    text: &Text,
) -> Result<Outputs, OpError> {
    let hidden_states = encoder.hidden_states(g, text)?;
    let last = hidden_states[hidden_states.len() - 1];
    let mut named = Vec::new();
    let names = encoder.heads();
    let dropped =
        |g: &mut Graph, x: Tensor| -> Result<Tensor, OpError> { encoder.mode().drop(g, x, 2 * encoder.sizes()?.layers + 1) };
    match head {
        Head::Base => {
            named.push(("last_hidden_state", last));
            if pooler && let Some(pooled) = encoder.pooled(g, last)? {
                named.push(("pooler_output", pooled));
            }
        }
        Head::MaskedLm => named.push(("logits", encoder.masked_lm(g, last)?)),
        Head::Replaced => named.push(("logits", encoder.replaced(g, last)?)),
        Head::PreTraining => {
            named.push(("prediction_logits", encoder.masked_lm(g, last)?));
            let pooled = encoder.summary(g, last, None)?;
            let name = if names.prefix == "albert" { "sop_logits" } else { "seq_relationship_logits" };
            named.push((name, encoder.pair(g, pooled)?));
        }
        Head::NextSentence => {
            let pooled = encoder.summary(g, last, None)?;
            named.push(("logits", encoder.pair(g, pooled)?));
        }
        Head::Sequence => {
            let summary = encoder.summary(g, last, names.before_classes)?;
            named.push(("logits", linear(g, summary, names.classes, labels)?));
        }
        Head::Tokens => {
            let last = dropped(g, last)?;
            named.push(("logits", linear(g, last, "classifier", labels)?));
        }
        Head::Questions => {
            let last = dropped(g, last)?;
            let both = linear(g, last, "qa_outputs", 2)?;
            for (i, name) in ["start_logits", "end_logits"].into_iter().enumerate() {
                let shape = g.ty(both).shape.clone();
                let one = ops::slice(g, both, 2, i..i + 1)?;
                named.push((name, ops::reshape(g, one, [shape.0[0], shape.0[1]])?));
            }
        }
        Head::Choice => {
            let summary = encoder.summary(g, last, names.before_choice)?;
            let each = linear(g, summary, "classifier", 1)?;
            let rows = g.ty(each).shape.rows();
            named.push(("logits", ops::reshape(g, each, [rows / choices, choices])?));
        }
    }
    Ok(Outputs { hidden_states, named })
}

/// Records the loss `[]` of a head's outputs, as transformers has it: mean cross-entropy, the sum of two for pre-training, the
/// mean of two for spans, the mean squared error for regression, and
/// the mean binary cross-entropy for replaced tokens.
///
/// # Errors
/// The head has no loss, or takes other labels.
pub fn loss(g: &mut Graph, outputs: &Outputs, labels: Labels, regression: bool) -> Result<Tensor, OpError> {
    let logits: Vec<_> = outputs.named.iter().map(|n| n.1).collect();
    let two = |g: &mut Graph, a: Tensor, b: Tensor| {
        let first = ops::cross_entropy(g, logits[0], a, IGNORE)?;
        let second = ops::cross_entropy(g, logits[1], b, IGNORE)?;
        ops::add(g, first, second)
    };
    g.layer("loss", |g| match labels {
        Labels::One(labels) if regression => {
            let rows = g.ty(logits[0]).shape.rows();
            let predictions = ops::reshape(g, logits[0], [rows])?;
            ops::mse(g, predictions, labels)
        }
        Labels::One(labels) => ops::cross_entropy(g, logits[0], labels, IGNORE),
        Labels::Pair(_, _) | Labels::Span(_, _) if logits.len() < 2 => {
            Err(OpError::new("this head has one output, and two kinds of labels were given"))
        }
        Labels::Pair(tokens, pair) => two(g, tokens, pair),
        Labels::Replaced(labels) => ops::binary_cross_entropy(g, logits[0], labels),
        Labels::Span(start, end) => {
            let sum = two(g, start, end)?;
            ops::scale(g, sum, 0.5)
        }
    })
}
