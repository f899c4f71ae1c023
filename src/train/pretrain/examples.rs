//! Examples and batches of them.

use super::{
    Documents, MaskRule, Pairing, PretrainSettings, Stream,
    masking::Masking,
    segments::{Instance, plan},
};
use crate::{
    ops::IGNORE,
    text::{SpecialTokens, Tokenizer},
    train::TrainError,
};
use std::{
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The purpose of the random streams that mask.
const MASKS: u32 = 0x5E63;

/// A sequence to learn from: `[CLS] a [SEP] b [SEP]`, or `[CLS] a [SEP]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// `[length]`, masked, not filled up.
    pub ids: Vec<u32>,
    /// `[length]`: 0 for the first segment, 1 for the second.
    pub token_types: Vec<u32>,
    /// Where tokens are predicted, ascending; a place that ELECTRA's rule drew twice is there twice.
    pub masked_positions: Vec<u32>,
    /// What stood there.
    pub masked_labels: Vec<u32>,
    /// Next sentence: 1 if the second segment is random, 0 if it follows. Sentence order: 1 if swapped, 0 if in order.
    pub pair_label: Option<u32>,
}

/// Examples as rows of equal length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PretrainBatch {
    /// `[batch * context]`, masked, filled up with `[PAD]`.
    pub ids: Vec<u32>,
    /// `[batch * context]`: the same before it was masked.
    pub original_ids: Vec<u32>,
    /// `[batch * context]`, 0 where filled up.
    pub token_types: Vec<u32>,
    /// `[batch * context]`: 1 for text, 0 where filled up.
    pub attention_mask: Vec<u32>,
    /// `[batch * max_predictions]`: row * context + position; 0 where unused.
    pub masked_positions: Vec<u32>,
    /// `[batch * max_predictions]`; [`IGNORE`] where unused.
    pub masked_labels: Vec<u32>,
    /// `[batch]`; [`IGNORE`] without pairing.
    pub pair_labels: Vec<u32>,
}

/// Examples without end, epoch after epoch. Example i of an epoch is a function of (seed, epoch, i), so that a resumed run
/// sees what it would have seen.
pub struct Pretraining {
    documents: Documents,
    tokenizer: Tokenizer,
    special: SpecialTokens,
    settings: PretrainSettings,
    masking: Masking,
    plans: Mutex<Plans>,
}

/// What has been planned.
struct Plans {
    /// The running index at which each epoch begins, as far as is known; epochs differ in length.
    begins: Vec<u64>,
    epoch: u64,
    instances: Arc<Vec<Instance>>,
}

impl Pretraining {
    /// Prepares examples from `documents`, which `tokenizer` has read.
    ///
    /// # Errors
    /// The tokenizer lacks a special token, a setting is out of range, next-sentence prediction has fewer than two
    /// documents, or no text is long enough for an example.
    pub fn new(documents: Documents, tokenizer: &Tokenizer, settings: PretrainSettings) -> Result<Self, TrainError> {
        let special = tokenizer.special_tokens()?;
        settings.check()?;
        let fail = |reason: &str| TrainError::Data { path: documents.path().to_owned(), reason: reason.into() };
        if settings.pairing == Pairing::NextSentence && documents.len() == 1 {
            return Err(fail(
                "there is one document only, and next-sentence prediction takes its random sentences from another; \
                 put blank lines between documents, or predict sentence order (mlm+sop) instead",
            ));
        }
        let masking = Masking::new(tokenizer, special, settings);
        let instances = Arc::new(plan(&documents, tokenizer, &settings, 0));
        if instances.is_empty() {
            return Err(fail(if documents.is_empty() {
                "there is no text"
            } else {
                "no text is long enough: an example with a pair needs two sentences, or one of two words"
            }));
        }
        let plans = Plans { begins: vec![0, instances.len() as u64], epoch: 0, instances };
        Ok(Self { documents, tokenizer: tokenizer.clone(), special, settings, masking, plans: Mutex::new(plans) })
    }

    /// The settings.
    pub fn settings(&self) -> &PretrainSettings {
        &self.settings
    }

    /// The text.
    pub fn documents(&self) -> &Documents {
        &self.documents
    }

    /// The special tokens.
    pub fn special(&self) -> SpecialTokens {
        self.special
    }

    /// Number of examples in the first epoch; others differ a little.
    pub fn epoch_length(&self) -> u64 {
        self.lock().begins[1]
    }

    /// The example with a running index over all epochs.
    pub fn example(&self, index: u64) -> Example {
        let (mut ids, second, pair_label, mut stream) = self.text(index);
        let (masked_positions, masked_labels) = match self.settings.mask_rule {
            MaskRule::Bert => {
                let spans = self.masking.spans(&self.tokenizer, &ids, &mut stream);
                self.masking.apply(&mut ids, &spans, &mut stream)
            }
            MaskRule::Electra { replacement } => self.masking.electra(&mut ids, replacement, &mut stream),
        };
        let token_types = (0..ids.len()).map(|at| u32::from(at >= second)).collect();
        Example { ids, token_types, masked_positions, masked_labels, pair_label }
    }

    /// The n-grams of an example that BERT's rule predicts, as places in its ids, in the order in which they were drawn.
    pub fn spans(&self, index: u64) -> Vec<Range<usize>> {
        let (ids, _, _, mut stream) = self.text(index);
        self.masking.spans(&self.tokenizer, &ids, &mut stream)
    }

    /// The examples from `first` on, as `rows` rows.
    pub fn batch(&self, first: u64, rows: usize) -> PretrainBatch {
        let (context, most) = (self.settings.context, self.settings.max_predictions);
        let mut batch = PretrainBatch {
            ids: vec![self.special.pad; rows * context],
            original_ids: vec![self.special.pad; rows * context],
            token_types: vec![0; rows * context],
            attention_mask: vec![0; rows * context],
            masked_positions: vec![0; rows * most],
            masked_labels: vec![IGNORE; rows * most],
            pair_labels: vec![IGNORE; rows],
        };
        for row in 0..rows {
            let example = self.example(first + row as u64);
            let length = example.ids.len();
            let (start, slot) = (row * context, row * most);
            batch.ids[start..start + length].copy_from_slice(&example.ids);
            batch.original_ids[start..start + length].copy_from_slice(&example.ids);
            batch.token_types[start..start + length].copy_from_slice(&example.token_types);
            batch.attention_mask[start..start + length].fill(1);
            for (i, (&at, &label)) in example.masked_positions.iter().zip(&example.masked_labels).enumerate() {
                batch.masked_positions[slot + i] = start as u32 + at;
                batch.masked_labels[slot + i] = label;
                batch.original_ids[start + at as usize] = label;
            }
            batch.pair_labels[row] = example.pair_label.unwrap_or(IGNORE);
        }
        batch
    }

    /// An example before it is masked: ids, where the second segment begins, the pair's label, and the stream that masks.
    fn text(&self, index: u64) -> (Vec<u32>, usize, Option<u32>, Stream) {
        let (epoch, at, instances) = self.find(index);
        let instance = &instances[at];
        let tokens = self.documents.tokens();
        let mut ids = vec![self.special.cls];
        ids.extend(&tokens[instance.first.clone()]);
        ids.push(self.special.sep);
        let second = ids.len();
        if instance.label.is_some() || !instance.second.is_empty() {
            ids.extend(&tokens[instance.second.clone()]);
            ids.push(self.special.sep);
        }
        (ids, second, instance.label, Stream::new(self.settings.seed, MASKS, epoch, at as u64))
    }

    /// The epoch of a running index, the place in it, and its plan.
    fn find(&self, index: u64) -> (u64, usize, Arc<Vec<Instance>>) {
        let mut plans = self.lock();
        // Each epoch is planned once, to learn how long it is. A plan is never empty: whether a document has an example
        // depends on its sentences alone.
        while plans.begins.last().is_some_and(|&end| end <= index) {
            let epoch = plans.begins.len() as u64 - 1;
            self.plan(&mut plans, epoch);
            let end = plans.begins[epoch as usize] + plans.instances.len() as u64;
            plans.begins.push(end);
        }
        let epoch = plans.begins.partition_point(|&begin| begin <= index) as u64 - 1;
        if plans.epoch != epoch {
            self.plan(&mut plans, epoch);
        }
        (epoch, (index - plans.begins[epoch as usize]) as usize, plans.instances.clone())
    }

    fn plan(&self, plans: &mut Plans, epoch: u64) {
        plans.instances = Arc::new(plan(&self.documents, &self.tokenizer, &self.settings, epoch));
        plans.epoch = epoch;
    }

    fn lock(&self) -> MutexGuard<'_, Plans> {
        self.plans.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
