//! ELECTRA's pre-training (Clark et al. 2020, section 2; google-research/electra's `PretrainingModel`): the generator learns
//! to predict masked tokens, a sample of what it predicts replaces them, and the discriminator learns to tell which tokens
//! were replaced. No gradient flows through the sample. Also what the paper compares this with (section 3.4).
//!
//! Shapes: B rows, T tokens a row, S = B N slots: N predictions a row, some of them unused.

use super::{
    Config, ConfigError, Dropout, ElectraConfig, Encoder, Head, Missing, Mode, Model, ModelError, Parameter, Text,
    electra::Electra, heads, load::initialise,
};
use crate::{
    graph::{Engine, Graph},
    ops::{self, HostTensor, IGNORE, OpError, Recorder, Sample, Tensor, TensorType},
    train::{Batch, Loss, PretrainBatch},
};
use std::collections::HashSet;

/// What the generator shares with the discriminator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Tie {
    /// All embeddings: of tokens, positions and segments, and their layer norm
    All,
    /// The embeddings of tokens
    Tokens,
    /// Nothing
    None,
}

/// What the second network learns (section 3.4 and table 5).
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ReplacedObjective {
    /// For each token whether it was replaced
    #[value(name = "electra")]
    Electra,
    /// The same, for the masked tokens only
    #[value(name = "electra-15")]
    MaskedOnly,
    /// The masked tokens, where replacements stand for them instead of [MASK]
    ReplaceMlm,
    /// All tokens, with a mechanism that copies those that were not replaced
    AllTokensMlm,
    /// The masked tokens, without a generator: a BERT
    Mlm,
}

impl ReplacedObjective {
    /// Whether there is a generator.
    pub fn generates(self) -> bool {
        self != Self::Mlm
    }
    /// Whether the second network tells replaced tokens from others.
    pub fn discriminates(self) -> bool {
        matches!(self, Self::Electra | Self::MaskedOnly)
    }
    /// The second network's head.
    pub fn head(self) -> Head {
        if self.discriminates() { Head::Replaced } else { Head::MaskedLm }
    }
}

/// Both networks, and how they are trained together.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplacedTokens {
    /// The generator's shape.
    pub generator: ElectraConfig,
    /// The discriminator's shape, or that of what it is compared with.
    pub discriminator: ElectraConfig,
    /// What they share.
    pub tie: Tie,
    /// What the second network learns.
    pub objective: ReplacedObjective,
    /// Divides the generator's logits before a sample is drawn.
    pub temperature: f32,
    /// Weight of the generator's loss.
    pub generator_weight: f32,
    /// Weight of the second network's loss.
    pub discriminator_weight: f32,
}

/// Sizes of a micro-batch, and how it is recorded.
#[derive(Debug, Clone, Copy)]
pub struct ReplacedBatch {
    /// Rows, B.
    pub rows: usize,
    /// Tokens a row, T.
    pub context: usize,
    /// Predictions a row, N.
    pub predictions: usize,
    /// Dropout in training.
    pub dropout: f32,
    /// Recompute each layer's activations in the backward pass.
    pub recompute: bool,
}

/// Places of what [`ReplacedTokens::loss`] lets the host read, in [`Loss::others`].
#[derive(Debug, Clone, Copy, Default)]
pub struct ReplacedOutputs {
    /// The generator's loss `[]`, nats, and its likeliest tokens `[S]`.
    pub generator: Option<[usize; 2]>,
    /// The second network's loss `[]`, nats.
    pub loss: usize,
    /// Its logits `[B,T]` of tokens' having been replaced, or its likeliest tokens `[S]` (with `AllTokensMlm` `[B T]`).
    pub found: usize,
    /// What it reads `[B,T]`, and 1 where that is not the original, else 0, [`IGNORE`] for padding, `[B,T]`.
    pub replaced: Option<[usize; 2]>,
}

/// What the generator's variables are called in the engine. Tied ones are the discriminator's.
fn in_generator(tie: Tie, name: &str) -> String {
    let tied = match tie {
        Tie::All => name.starts_with("electra.embeddings."),
        Tie::Tokens => name == "electra.embeddings.word_embeddings.weight",
        Tie::None => false,
    };
    if tied { in_discriminator(name) } else { format!("generator.{name}") }
}

/// What the discriminator's are called.
fn in_discriminator(name: &str) -> String {
    format!("discriminator.{name}")
}

/// What the copying head's are called, which is built like the discriminator's.
fn in_copy_head(name: &str) -> String {
    name.replace("discriminator_predictions.", "copy_predictions.")
}

impl ReplacedTokens {
    /// Checks that the networks fit together.
    ///
    /// # Errors
    /// What does not fit, in words.
    pub fn check(&self) -> Result<(), String> {
        let (g, d) = (&self.generator, &self.discriminator);
        let mut same = vec![("vocab_size", g.vocab_size, d.vocab_size)];
        if self.tie != Tie::None {
            same.push(("embedding_size", g.embedding_size, d.embedding_size));
        }
        if self.tie == Tie::All {
            same.push(("max_position_embeddings", g.max_position_embeddings, d.max_position_embeddings));
            same.push(("type_vocab_size", g.type_vocab_size, d.type_vocab_size));
        }
        match same.into_iter().find(|(_, generator, discriminator)| generator != discriminator) {
            Some((name, generator, discriminator)) => Err(format!(
                "the generator and the discriminator do not fit together: {name} is {generator} in one and {discriminator} in the other"
            )),
            None => Ok(()),
        }
    }

    /// The engine's name of a variable of the generator.
    pub fn generator_variable(&self) -> impl Fn(&str) -> String + Send + Sync + 'static {
        let tie = self.tie;
        move |name| in_generator(tie, name)
    }

    /// The engine's name of a variable of the discriminator.
    pub fn discriminator_variable(&self) -> impl Fn(&str) -> String + Send + Sync + 'static {
        in_discriminator
    }

    /// The generator's parameters, by Hugging Face's names.
    ///
    /// # Errors
    /// An activation that is not supported.
    pub fn generator_parameters(&self) -> Result<Vec<Parameter>, OpError> {
        let network = Electra { config: &self.generator, mode: Mode::default() };
        heads::parameters(&network, Head::MaskedLm, 2, false)
    }

    /// The second network's parameters, by Hugging Face's names. It has none for the copying head of `AllTokensMlm`, which is
    /// built like the discriminator's and means something else: `copy_predictions`.
    ///
    /// # Errors
    /// An activation that is not supported.
    pub fn discriminator_parameters(&self) -> Result<Vec<Parameter>, OpError> {
        let network = Electra { config: &self.discriminator, mode: Mode::default() };
        let mut list = heads::parameters(&network, self.objective.head(), 2, false)?;
        if self.objective == ReplacedObjective::AllTokensMlm {
            let encoder = network.parameters().len();
            let mut head = heads::parameters(&network, Head::Replaced, 2, false)?.split_off(encoder);
            head.iter_mut().for_each(|p| p.name = in_copy_head(&p.name));
            list.extend(head);
        }
        Ok(list)
    }

    /// All parameters by the engine's names, tied ones once.
    ///
    /// # Errors
    /// An activation that is not supported.
    pub fn parameters(&self) -> Result<Vec<Parameter>, OpError> {
        let mut list: Vec<_> = self.discriminator_parameters()?;
        list.iter_mut().for_each(|p| p.name = in_discriminator(&p.name));
        if self.objective.generates() {
            let mut known: HashSet<_> = list.iter().map(|p| p.name.clone()).collect();
            for mut parameter in self.generator_parameters()? {
                parameter.name = in_generator(self.tie, &parameter.name);
                if known.insert(parameter.name.clone()) {
                    list.push(parameter);
                }
            }
        }
        Ok(list)
    }

    /// Fresh weights of both networks.
    ///
    /// # Errors
    /// No memory on the device.
    pub fn initialise(&self, engine: &mut Engine, seed: u32) -> Result<(), ModelError> {
        Ok(initialise(&self.parameters().map_err(crate::graph::GraphError::from)?, engine, seed)?)
    }

    /// Loads both networks, and returns the names of what the files do not have and begins afresh: all that is the generator's
    /// alone, where there is none.
    ///
    /// # Errors
    /// A weight has another shape or type than the configuration says, or tied ones differ.
    pub fn load(
        &self,
        generator: Option<&Model>,
        discriminator: &Model,
        engine: &mut Engine,
        seed: u32,
    ) -> Result<Vec<String>, ModelError> {
        let op = crate::graph::GraphError::from;
        let list = self.discriminator_parameters().map_err(op)?;
        let fresh = discriminator.upload_as(engine, &list, Missing::Initialise(seed), &in_discriminator)?;
        let mut fresh: Vec<_> = fresh.into_iter().map(|name| in_discriminator(&name)).collect();
        if !self.objective.generates() {
            return Ok(fresh);
        }
        let tie = self.tie;
        let (tied, mut own): (Vec<_>, Vec<_>) = self
            .generator_parameters()
            .map_err(op)?
            .into_iter()
            .partition(|p| in_generator(tie, &p.name) == in_discriminator(&p.name));
        let Some(generator) = generator else {
            own.iter_mut().for_each(|p| p.name = in_generator(tie, &p.name));
            initialise(&own, engine, seed.wrapping_add(1))?;
            fresh.push("generator".to_owned());
            return Ok(fresh);
        };
        for parameter in &tied {
            if generator.weight(parameter)?.f() != discriminator.weight(parameter)?.f() {
                return Err(ModelError::Weight {
                    place: generator.place().to_owned(),
                    name: parameter.name.clone(),
                    reason: format!("it is not that of {}; give a --tie that does not share it", discriminator.place()),
                });
            }
        }
        let more =
            generator.upload_as(engine, &own, Missing::Initialise(seed.wrapping_add(1)), &|name| in_generator(tie, name))?;
        fresh.extend(more.into_iter().map(|name| in_generator(tie, &name)));
        Ok(fresh)
    }

    /// Name and type of each input: the original ids, the masked ones, segments, the mask of padding, then where tokens are
    /// masked and what stood there, and the key of the sample's random numbers.
    pub fn inputs(&self, batch: &ReplacedBatch) -> Vec<(&'static str, TensorType)> {
        let text = TensorType::u32([batch.rows, batch.context]);
        let slots = TensorType::u32([batch.rows * batch.predictions]);
        vec![
            ("ids", text.clone()),
            ("masked_ids", text.clone()),
            ("token_types", text.clone()),
            ("attention_mask", text),
            ("masked_positions", slots.clone()),
            ("masked_labels", slots),
            ("noise", TensorType::u32([2])),
        ]
    }

    /// Values of [`inputs`](Self::inputs) for text of `context` tokens a row.
    pub fn values(&self, text: PretrainBatch, context: usize, noise: [u32; 2]) -> Batch {
        let shape = [text.ids.len() / context, context];
        let slots = [text.masked_positions.len()];
        vec![
            HostTensor::uints(shape, text.original_ids),
            HostTensor::uints(shape, text.ids),
            HostTensor::uints(shape, text.token_types),
            HostTensor::uints(shape, text.attention_mask),
            HostTensor::uints(slots, text.masked_positions),
            HostTensor::uints(slots, text.masked_labels),
            HostTensor::uints([2], noise.to_vec()),
        ]
    }

    /// Records the loss for [`inputs`](Self::inputs). `rng` is dropout's random state; absent in evaluation.
    ///
    /// # Errors
    /// Shapes do not fit.
    pub fn loss(
        &self,
        g: &mut Graph,
        inputs: &[Tensor],
        rng: Option<Tensor>,
        batch: &ReplacedBatch,
    ) -> Result<(Loss, ReplacedOutputs), OpError> {
        let &[ids, masked_ids, types, keys, places, labels, noise] = inputs else {
            return Err(OpError::new("the step takes seven inputs"));
        };
        let mode = |first_place| Mode {
            dropout: rng.map(|rng| Dropout { rate: batch.dropout, rng }),
            recompute: batch.recompute && rng.is_some(),
            first_place,
        };
        let text = |ids| Text { ids, types: Some(types), keys: Some(keys) };
        let mut others = Vec::new();
        let mut outputs = ReplacedOutputs::default();
        let mut keep = |tensor| {
            others.push(tensor);
            others.len() - 1
        };

        let mut total = None;
        let (mut input, mut replaced) = (masked_ids, None);
        if self.objective.generates() {
            let network = Electra { config: &self.generator, mode: mode(0) };
            let logits = g.renamed(self.generator_variable(), |g| {
                g.layer("generator", |g| {
                    let last = last_state(g, &network, &text(masked_ids))?;
                    let rows = at_places(g, last, places)?;
                    (&network as &dyn Encoder).whole_masked_lm(g, rows)
                })
            })?;
            let loss = ops::cross_entropy(g, logits, labels, IGNORE)?;
            outputs.generator = Some([keep(loss), keep(ops::likeliest(g, logits)?)]);
            total = Some(ops::scale(g, loss, self.generator_weight)?);
            let drawn = ops::sample(g, logits, None, noise, Sample::plain(self.temperature))?;
            input = ops::place_tokens(g, ids, places, labels, drawn)?;
            let differs = ops::replaced_labels(g, ids, input, keys)?;
            outputs.replaced = Some([keep(input), keep(differs)]);
            replaced = Some(differs);
        }

        // Its places of dropout come after the generator's.
        let network = Electra { config: &self.discriminator, mode: mode(1 << 16) };
        let (loss, found) = g.renamed(self.discriminator_variable(), |g| {
            g.layer("discriminator", |g| {
                let last = last_state(g, &network, &text(input))?;
                self.second(g, &network, last, Wanted { ids, places, labels, replaced })
            })
        })?;
        outputs.loss = keep(loss);
        outputs.found = keep(found);
        let weighted = ops::scale(g, loss, self.discriminator_weight)?;
        let loss = match total {
            Some(total) => ops::add(g, total, weighted)?,
            None => weighted,
        };
        Ok((Loss { loss, others }, outputs))
    }

    /// The second network's loss, and what it found.
    fn second(&self, g: &mut Graph, network: &dyn Encoder, last: Tensor, wanted: Wanted) -> Result<(Tensor, Tensor), OpError> {
        let Wanted { ids, places, labels, replaced } = wanted;
        let replaced = |what: &str| replaced.ok_or_else(|| OpError::new(format!("{what} needs a generator")));
        match self.objective {
            ReplacedObjective::Electra | ReplacedObjective::MaskedOnly => {
                let mut counted = replaced("replaced-token detection")?;
                if self.objective == ReplacedObjective::MaskedOnly {
                    counted = ops::only_places(g, counted, places, labels)?;
                }
                let logits = network.replaced(g, last)?;
                Ok((ops::binary_cross_entropy(g, logits, counted)?, logits))
            }
            ReplacedObjective::ReplaceMlm | ReplacedObjective::Mlm => {
                let rows = at_places(g, last, places)?;
                let logits = network.whole_masked_lm(g, rows)?;
                Ok((ops::cross_entropy(g, logits, labels, IGNORE)?, ops::likeliest(g, logits)?))
            }
            ReplacedObjective::AllTokensMlm => {
                let replaced = replaced("all-tokens MLM")?;
                let copy = g.renamed(in_copy_head, |g| network.replaced(g, last))?;
                let shape = g.ty(last).shape.clone();
                let rows = ops::reshape(g, last, [shape.rows(), shape.width()])?;
                let logits = network.whole_masked_lm(g, rows)?;
                let flat = |g: &mut Graph, tensor| ops::reshape(g, tensor, [shape.rows()]);
                let original = flat(g, ids)?;
                let losses = ops::cross_entropy_rows(g, logits, original, IGNORE)?;
                let (copy, replaced) = (flat(g, copy)?, flat(g, replaced)?);
                Ok((ops::copy_mixture(g, losses, copy, replaced)?, ops::likeliest(g, logits)?))
            }
        }
    }

    /// Both configurations as [`Config`]s with their classes' names: the generator's, then the second network's.
    ///
    /// # Errors
    /// A shape that cannot be.
    pub fn configs(&self, place: &std::path::Path) -> Result<[Config; 2], ConfigError> {
        let named = |config: &ElectraConfig, head: Head| {
            let mut config = Config::Electra(config.clone());
            let architecture = head.architecture(&config);
            if let Some(rest) = config.rest_mut() {
                rest.architectures = vec![architecture];
            }
            config.check().map_err(|reason| ConfigError { path: place.to_owned(), reason })?;
            Ok(config)
        };
        Ok([named(&self.generator, Head::MaskedLm)?, named(&self.discriminator, self.objective.head())?])
    }
}

/// What the second network is to find.
struct Wanted {
    /// `[B,T]`
    ids: Tensor,
    /// `[S]`
    places: Tensor,
    /// `[S]`
    labels: Tensor,
    /// `[B,T]`, if there is a generator.
    replaced: Option<Tensor>,
}

/// The last layer's output, `[B,T,H]`.
fn last_state(g: &mut Graph, network: &dyn Encoder, text: &Text) -> Result<Tensor, OpError> {
    let states = network.hidden_states(g, text)?;
    Ok(states[states.len() - 1])
}

/// Hidden states at some places, `[B,T,H], [S] -> [S,H]`.
fn at_places(g: &mut Graph, last: Tensor, places: Tensor) -> Result<Tensor, OpError> {
    let shape = g.ty(last).shape.clone();
    let rows = ops::reshape(g, last, [shape.rows(), shape.width()])?;
    ops::embedding(g, rows, places)
}
