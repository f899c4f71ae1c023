//! Greedy generation with a cache of keys and values, one text.

use std::time::Instant;

use burn::tensor::{Device, Int, Tensor, TensorData};
use serde_json::json;

use crate::model::{Config, Gpt2, Past};
use crate::paced::Outcome;
use crate::weights::Weights;
use crate::{Args, causal_mask, time, wait};

/// `count` positions from `first`, [1, count].
fn positions(first: usize, count: usize, device: &Device) -> Tensor<2, Int> {
    let at: Vec<i32> = (first..first + count).map(|i| i as i32).collect();
    Tensor::from_data(TensorData::new(at, [1, count]), device)
}

fn read(tokens: Tensor<2, Int>) -> Outcome<Vec<i32>> {
    tokens.try_into_vec_as::<i32>().map_err(|error| format!("could not read the tokens: {error:?}").into())
}

/// A repetition reads the prompt and writes `--tokens`, the first of which comes with the prompt. Tokens stay on the device to the end.
pub fn run(args: &Args, config: &Config, device: &Device) -> Outcome<()> {
    let (length, count) = (args.prompt_tokens as usize, args.tokens as usize);
    if length + count > config.context + 1 {
        return Err(format!("--prompt-tokens {length} and --tokens {count} do not fit --context {}", config.context).into());
    }
    let mut model = Gpt2::new(config, device);
    if let Some(file) = &args.weights {
        model.load(&Weights::open(file, device)?)?;
    }
    let prompt: Vec<i32> = (0..length).map(|i| (i * 104_729 % config.vocab) as i32).collect();
    let prompt = Tensor::<2, Int>::from_data(TensorData::new(prompt, [1, length]), device);
    let mask = causal_mask(length, device);
    // As a program that generates has them: made once.
    let places: Vec<_> = (length..length + count).map(|at| positions(at, 1, device)).collect();
    let beginning = positions(0, length, device);
    wait(device)?;
    time(args, device, "generate", || {
        let mut past: Vec<Past> = vec![None; config.layers];
        let begin = Instant::now();
        let mut tokens = vec![model.next(prompt.clone(), beginning.clone(), Some(&mask), &mut past, config)];
        wait(device)?;
        let first = begin.elapsed().as_secs_f64();
        let after = Instant::now();
        for place in places.iter().take(count - 1) {
            let last = tokens[tokens.len() - 1].clone();
            tokens.push(model.next(last, place.clone(), None, &mut past, config));
        }
        let ids = read(Tensor::cat(tokens, 1))?;
        let rest = after.elapsed().as_secs_f64();
        Ok(json!({
            "type": args.precision.name(),
            "first_token_ms": first * 1e3,
            "prompt_tokens_per_s": length as f64 / first,
            "decode_tokens_per_s": (count - 1) as f64 / rest,
            "ids": ids,
        }))
    })
}
