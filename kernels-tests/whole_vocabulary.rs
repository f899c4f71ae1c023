//! Masked-LM heads made up to whole tiles: losses, gradients and chosen tokens are those of the plain heads.

use crate::harness::{engine, engine_as_hardware, nmse};
use shaderlm::{
    graph::{Engine, Graph, PlanOptions, gradients},
    models::{Head, Missing, Mode, Model, Parameter, Text},
    ops::{self, HostTensor, IGNORE, Logits, Recorder, Sample, TensorType},
};

/// Of one of the encoders' fixtures: texts, and the places whose tokens are looked for.
const ROWS: usize = 2;
const TIME: usize = 11;
const PLACES: usize = 5;

/// What a head gives: the loss, the tokens that it finds likeliest and draws, and the gradients of all parameters.
struct Found {
    loss: f32,
    row_losses: Vec<f32>,
    likeliest: Vec<u32>,
    drawn: Vec<u32>,
    gradients: Vec<Vec<f32>>,
}

fn run(model: &Model, parameters: &[Parameter], whole: bool, mut engine: Engine) -> Found {
    model.upload(&mut engine, parameters, Missing::Refuse).unwrap();
    let encoder = model.encoder(Mode::default()).unwrap();
    // Every logit is below the zeros that stand behind them.
    let (bias, vocab) = (encoder.heads().decoder_bias, model.config.vocab_size());
    let low = (0..vocab).map(|i| -60.0 + (i % 7) as f32).collect();
    engine.set(bias, &HostTensor::floats([vocab], low)).unwrap();
    let mut g = Graph::new();
    let ids = g.input("ids", TensorType::u32([ROWS, TIME]));
    let [places, labels] = ["places", "labels"].map(|name| g.input(name, TensorType::u32([PLACES])));
    let rng = g.input("rng", TensorType::u32([2]));
    let states = encoder.hidden_states(&mut g, &Text { ids, types: None, keys: None }).unwrap();
    let last = states[states.len() - 1];
    let rows = ops::reshape(&mut g, last, [ROWS * TIME, encoder.sizes().unwrap().hidden]).unwrap();
    let picked = ops::embedding(&mut g, rows, places).unwrap();
    let logits: Logits = match whole {
        true => encoder.whole_masked_lm(&mut g, picked).unwrap(),
        false => encoder.masked_lm(&mut g, picked).unwrap().into(),
    };
    assert_eq!(g.ty(logits.tensor).shape.0, [PLACES, if whole { vocab.next_multiple_of(64) } else { vocab }]);
    let mean = ops::cross_entropy(&mut g, logits, labels, IGNORE).unwrap();
    let row_losses = ops::cross_entropy_rows(&mut g, logits, labels, IGNORE).unwrap();
    let sum = ops::sum(&mut g, row_losses).unwrap();
    let loss = ops::add(&mut g, mean, sum).unwrap();
    let likeliest = ops::likeliest(&mut g, logits).unwrap();
    let drawn = ops::sample(&mut g, logits, None, rng, Sample::plain(1.0)).unwrap();
    let variables: Vec<_> = parameters.iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone())).unwrap()).collect();
    let grads: Vec<_> = gradients(&mut g, loss, &variables).unwrap().into_iter().flatten().collect();
    let wanted: Vec<_> = [mean, row_losses, likeliest, drawn].into_iter().chain(grads.iter().copied()).collect();
    let mut plan = engine.compile(g, &wanted, &PlanOptions::default()).unwrap();
    let tokens = (0..ROWS * TIME).map(|i| (i * 7 % vocab) as u32).collect();
    plan.set(ids, HostTensor::uints([ROWS, TIME], tokens)).unwrap();
    plan.set(places, HostTensor::uints([PLACES], vec![1, 4, 9, 13, 20])).unwrap();
    plan.set(labels, HostTensor::uints([PLACES], vec![0, 3, IGNORE, vocab as u32 - 1, 5])).unwrap();
    plan.set(rng, HostTensor::uints([2], vec![5, 6])).unwrap();
    plan.run(&mut engine).unwrap();
    let floats = |tensor| plan.get(tensor).unwrap().f().to_vec();
    let uints = |tensor| plan.get(tensor).unwrap().u().to_vec();
    Found {
        loss: floats(mean)[0],
        row_losses: floats(row_losses),
        likeliest: uints(likeliest),
        drawn: uints(drawn),
        gradients: grads.iter().map(|&grad| floats(grad)).collect(),
    }
}

#[test]
fn masked_lm_heads_in_whole_tiles() {
    for name in ["bert-mlm", "distilbert-mlm", "albert-groups", "electra-mlm"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/encoders").join(name);
        let model = Model::open(path.to_str().unwrap()).unwrap();
        let parameters = model.parameters(Head::MaskedLm).unwrap();
        let expected = run(&model, &parameters, false, Engine::cpu());
        assert_ne!(model.config.vocab_size() % 64, 0, "{name}: the test is about vocabularies that are not made of whole tiles");
        for (device, engine) in [("GPU", engine()), ("GPU as hardware", engine_as_hardware()), ("CPU", Engine::cpu())] {
            let what = format!("{name} on the {device}");
            let found = run(&model, &parameters, true, engine);
            assert!((found.loss / expected.loss - 1.0).abs() < 1e-5, "{what}: loss {} not {}", found.loss, expected.loss);
            for (found, expected) in found.row_losses.iter().zip(&expected.row_losses) {
                assert!((found - expected).abs() < 1e-4, "{what}: loss of a row {found} not {expected}");
            }
            assert_eq!((found.likeliest, found.drawn), (expected.likeliest.clone(), expected.drawn.clone()), "{what}");
            assert_eq!(found.gradients.len(), expected.gradients.len());
            let steepest = expected.gradients.iter().flatten().fold(0f32, |a, x| a.max(x.abs()));
            for ((found, expected), p) in found.gradients.iter().zip(&expected.gradients).zip(&parameters) {
                let wide: Vec<_> = expected.iter().map(|&x| f64::from(x)).collect();
                let off = found.iter().zip(expected).fold(0f32, |a, (f, e)| a.max((f - e).abs()));
                // Gradients that vanish (of keys' biases) are noise.
                let fits = found.len() == expected.len() && (off <= 1e-6 * steepest || nmse(found, &wide) < 1e-8);
                assert!(fits, "{what}: gradient of {} differs by {off} from up to {steepest}", p.name);
            }
        }
    }
}
