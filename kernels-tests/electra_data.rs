//! What an ELECTRA learns from: its masks, and segments that follow each other.

use crate::pretrain::{Count, MASK, SEQUENCES, SPECIAL, plain, pretraining, segments, unique, unmasked};
use shaderlm::train::{MaskRule, PretrainSettings};

/// ELECTRA's masks: how many, 85 % hidden and 15 % left, never a random token, drawn again now and then or never.
#[test]
fn statistics_of_electras_masking() {
    let source = plain();
    for replacement in [true, false] {
        let settings =
            PretrainSettings { mask_rule: MaskRule::Electra { replacement }, ..PretrainSettings::electra(64, 0.15, 4) };
        assert_eq!(settings.max_predictions, 9);
        let data = pretraining(&source, settings);
        let (mut masked, mut single) = (Count::default(), 0);
        let (mut distinct, mut expected) = (0.0, 0.0);
        for index in 0..SEQUENCES {
            let example = data.example(index);
            let (length, places) = (example.ids.len(), &example.masked_positions);
            let due = (length as f64 * 0.15).round_ties_even().clamp(1.0, 9.0);
            assert_eq!(places.len(), due as usize, "of {length}");
            assert!(places.is_sorted() && example.pair_label.is_none());
            let second = example.token_types.contains(&1);
            single += u64::from(!second);
            let candidates = length as f64 - if second { 3.0 } else { 2.0 };
            expected += if replacement { candidates * (1.0 - (1.0 - 1.0 / candidates).powf(due)) } else { due };
            for draws in places.chunk_by(|a, b| a == b) {
                distinct += 1.0;
                let at = places.partition_point(|&place| place < draws[0]);
                let (id, label) = (example.ids[draws[0] as usize], example.masked_labels[at]);
                assert!(id == MASK || id == label, "no random tokens");
                assert!(label > MASK, "no special token is hidden");
                masked.add(id == MASK, 1.0 - 0.15f64.powi(draws.len() as i32));
            }
        }
        masked.check("masked");
        assert!((distinct / expected - 1.0f64).abs() < 1e-3, "{distinct} places, {expected} expected");
        let single = single as f64 / SEQUENCES as f64;
        assert!(single > 0.09 && single < 0.2, "{single} have one segment");
    }
}

/// What a batch holds besides what is masked; and segments that follow each other, filled up to the context.
#[test]
fn electras_segments_follow_each_other() {
    let (tokenizer, text, places) = unique();
    let source = (tokenizer, text);
    let data = pretraining(&source, PretrainSettings::electra(32, 0.15, 8));
    let again = pretraining(&source, PretrainSettings::electra(32, 0.15, 8));
    let document = |id: u32| places[id as usize - SPECIAL.len()].0;
    for index in 0..3000 {
        let example = data.example(index);
        assert_eq!(example, again.example(index));
        assert!(example.ids.len() <= 32);
        let [first, second] = segments(&example);
        assert!(first.windows(2).all(|w| w[0] + 1 == w[1]) && second.windows(2).all(|w| w[0] + 1 == w[1]));
        if let (Some(&last), Some(&next)) = (first.last(), second.first()) {
            assert!(last < next && document(last) == document(next), "in order, of one document");
        }
    }
    let batch = data.batch(40, 3);
    for row in 0..3 {
        let (example, at) = (data.example(40 + row as u64), row * 32);
        let length = example.ids.len();
        assert_eq!(batch.ids[at..at + length], example.ids);
        assert_eq!(batch.original_ids[at..at + length], unmasked(&example));
        assert!(batch.original_ids[at + length..at + 32].iter().all(|&id| id == 0));
    }
}
