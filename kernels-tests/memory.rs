//! Memory of a training step, against a count by hand.

use crate::harness::{engine, settings};
use shaderlm::{
    graph::{Graph, PlanOptions, PlanStats, gradients, memory},
    models::{
        Gpt2Config, Mode, Parameter,
        gpt2::{Gpt2, parameters},
        initialise,
    },
    ops::{Precision, Tensor, TensorType},
    train::{Objective, Settings, Trainer},
};

const LAYERS: usize = 12;
const WIDTH: usize = 96;
const HEADS: usize = 3;
const VOCAB: usize = 200;
/// Rows of the token table in memory, and logits of a token.
const WHOLE_VOCAB: usize = 256;
const BATCH: usize = 16;
const TIME: usize = 64;
const TOKENS: usize = BATCH * TIME;

fn planned(recompute: bool, precision: Precision) -> PlanStats {
    let base = Gpt2Config::default();
    let config = Gpt2Config { n_embd: WIDTH, n_head: HEADS, vocab_size: VOCAB, n_layer: LAYERS, n_positions: TIME, ..base };
    let mut engine = engine();
    initialise(&parameters(&config), &mut engine, 3).unwrap();
    let types: Vec<_> = parameters(&config).iter().map(Parameter::trained).collect();
    let settings = Settings { precision, ..settings(BATCH, TIME, 1e-3) };
    let model = Gpt2 { config: &config, mode: Mode { recompute, ..Mode::default() } };
    let loss = |g: &mut Graph, i: &[Tensor], _: Option<Tensor>| Ok(model.loss(g, i[0], i[1], None)?.into());
    let inputs = ["ids", "targets"].map(|name| (name, TensorType::u32([BATCH, TIME]))).to_vec();
    Trainer::new(&mut engine, &types, &Objective { inputs, loss: &loss }, settings).unwrap().stats()
}

/// Parameters of the model, counted by hand: both embeddings; a block's matrices (3, 1, 4 and 4 times C x C) with their biases and its two
/// layer norms; the last layer norm.
fn weights() -> usize {
    let block = 12 * WIDTH * WIDTH + 9 * WIDTH + 4 * WIDTH;
    (VOCAB + TIME) * WIDTH + LAYERS * block + 2 * WIDTH
}

/// Numbers that must live at once when the backward pass begins. For each token a block keeps: what its two layer norms take (2 C) and
/// give (2 C), q, k and v (3 C), what attention gives (C), and the wide layer before GELU and after (8 C); and one number a head
/// (log-sum-exp), two a layer norm. Then there are the last layer norm's input and result, and the logits, whose place their
/// gradient takes.
fn activations() -> usize {
    let block = 16 * WIDTH + HEADS + 4;
    TOKENS * (LAYERS * block + 2 * WIDTH + 2 + WHOLE_VOCAB)
}

#[test]
fn a_step_takes_the_memory_that_it_must() {
    let stats = planned(false, Precision::F32);
    // Weights and both moments are variables; the head reads the zeros behind the token table, too.
    assert_eq!(stats.variable_bytes as usize, 4 * (3 * weights() + (WHOLE_VOCAB - VOCAB) * WIDTH));
    let (found, must) = (stats.peak_bytes as usize, 4 * activations());
    // Gradients of weights come into being while activations go, so that they cost nothing more.
    assert!(found as f64 <= 1.1 * must as f64, "{found} bytes for {must}, {:.3} of them", found as f64 / must as f64);
    assert!(found as f64 >= 0.95 * must as f64, "the count is of something else: {found} bytes for {must}");
}

#[test]
fn mixed_precision_halves_the_activations() {
    let [whole, half] = [Precision::F32, Precision::Mixed].map(|precision| planned(false, precision));
    // Besides halves of what there was, the rounded copies of the weights.
    let must = (whole.peak_bytes as usize) / 2 + 2 * weights();
    let found = half.peak_bytes as usize;
    assert!(found as f64 <= 1.1 * must as f64, "{found} bytes for {must}");
}

/// Activations of GPT-2 124M over 8 x 1024 tokens by the plan of its loss and gradients, bytes.
fn activations_124m(recompute: bool, precision: Precision) -> u64 {
    let config = Gpt2Config::default();
    let mut g = Graph::new();
    let [ids, targets] = ["ids", "targets"].map(|name| g.input(name, TensorType::u32([8, 1024])));
    let model = Gpt2 { config: &config, mode: Mode { recompute, ..Mode::default() } };
    let loss = model.loss(&mut g, ids, targets, None).unwrap();
    let variables: Vec<_> =
        parameters(&config).into_iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape)).unwrap()).collect();
    let mut wanted = vec![loss];
    wanted.extend(gradients(&mut g, loss, &variables).unwrap().into_iter().flatten());
    let options = PlanOptions { precision, ..PlanOptions::default() };
    memory(&g, &wanted, engine().capabilities().unwrap(), &options).unwrap().arena
}

#[test]
fn recomputation_of_gpt2_124m() {
    for precision in [Precision::F32, Precision::Mixed] {
        let [kept, again] = [false, true].map(|recompute| activations_124m(recompute, precision));
        println!("{precision:?}: {kept} bytes, recomputed {again}");
        assert!(again * 3 <= kept, "{again} bytes of {kept}");
    }
}

#[test]
fn recomputation_cuts_activations_to_a_third() {
    let [kept, again] = [false, true].map(|recompute| planned(recompute, Precision::F32));
    assert!(again.peak_bytes * 3 <= kept.peak_bytes, "{} bytes of {}", again.peak_bytes, kept.peak_bytes);
    // The forward pass is a third of a step, so that no more than a third is added.
    assert!(again.flops as f64 <= 1.34 * kept.flops as f64, "{} operations instead of {}", again.flops, kept.flops);
}
