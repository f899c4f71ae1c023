//! Generation: prompts in chunks, tokens in submissions of any length, guesses, and long texts; on the adapter, as on a GPU, and on the
//! CPU.

use crate::harness::{engine, engine_as_hardware};
use shaderlm::{
    graph::Engine,
    models::{
        Missing, Model, SHAKESPEARE,
        generate::{Generator, Sampling},
        gpt2::parameters,
    },
};

fn engines() -> [(&'static str, Engine); 3] {
    [("adapter", engine()), ("adapter as a GPU", engine_as_hardware()), ("CPU", Engine::cpu())]
}

fn sampling(temperature: f32, seed: u32) -> Sampling {
    Sampling { temperature, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed }
}

/// Prompts of these lengths, of ids that repeat themselves.
fn prompts(lengths: &[usize], vocab: usize) -> Vec<Vec<u32>> {
    let id = |row: usize, i: usize| ((i % 5 * 7 + row * 3 + 1) % vocab) as u32;
    lengths.iter().enumerate().map(|(row, &n)| (0..n).map(|i| id(row, i)).collect()).collect()
}

/// What is written after `prompts`: so many tokens each, after `settings` were made.
fn text(
    engine: &mut Engine,
    model: &Model,
    prompts: &[Vec<u32>],
    (count, capacity): (usize, usize),
    sampling: Sampling,
    settings: impl FnOnce(&mut Generator<'_>),
) -> (Vec<Vec<u32>>, [usize; 2]) {
    let config = model.gpt2().unwrap();
    let mut generator = Generator::new(engine, config, prompts.len(), capacity, sampling).unwrap();
    settings(&mut generator);
    generator.prompt(prompts).unwrap();
    generator.decode(count - 1).unwrap();
    let stats = generator.stats;
    (generator.tokens().iter().map(|text| text[..count].to_vec()).collect(), [stats.guessed_tokens, stats.right_tokens])
}

fn built_in(engine: &mut Engine) -> Model {
    let model = Model::built_in(&SHAKESPEARE).unwrap();
    model.upload(engine, &parameters(model.gpt2().unwrap()), Missing::Refuse).unwrap();
    model
}

#[test]
fn chunks_of_prompts_change_nothing() {
    for (device, mut engine) in engines() {
        let model = built_in(&mut engine);
        for lengths in [&[37][..], &[29, 3, 12]] {
            let prompts = prompts(lengths, 200);
            let mut write = |chunk| text(&mut engine, &model, &prompts, (12, 60), sampling(0.0, 0), |g| g.set_chunk(chunk)).0;
            let whole = write(512);
            for chunk in [1, 10, 37, 40] {
                assert_eq!(write(chunk), whole, "prompts of {lengths:?} in chunks of {chunk} on the {device}");
            }
        }
    }
}

/// The very same text, with and without guesses, alone and in a batch, at any temperature.
#[test]
fn guesses_change_nothing() {
    for (device, mut engine) in engines() {
        let model = built_in(&mut engine);
        for (lengths, count) in [(&[40][..], 60), (&[30, 4, 17], 30)] {
            for (temperature, top_k) in [(0.0, 0), (0.7, 0), (1.0, 40)] {
                let prompts = prompts(lengths, 200);
                let sampling = Sampling { top_k, ..sampling(temperature, 5) };
                let mut write = |guess: Option<usize>| {
                    text(&mut engine, &model, &prompts, (count, 110), sampling, |g| guess.into_iter().for_each(|n| g.speculate(n).unwrap()))
                };
                let (plain, none) = write(None);
                assert_eq!(none, [0, 0]);
                for guess in [1, 4, 15] {
                    let (guessed, [tokens, right]) = write(Some(guess));
                    assert_eq!(guessed, plain, "{guess} at once, temperature {temperature}, {lengths:?} on the {device}");
                    assert!(right <= tokens);
                    // A greedy model with a prompt that repeats itself repeats itself.
                    assert!(temperature > 0.0 || right > 0, "{tokens} guesses, none right, on the {device}");
                }
            }
        }
    }
}

/// A batch whose cache is full stops there, guesses or not.
#[test]
fn no_token_beyond_the_cache() {
    let mut engine = engine();
    let model = built_in(&mut engine);
    for guess in [None, Some(6)] {
        let prompts = prompts(&[9, 4], 200);
        let mut generator = Generator::new(&mut engine, model.gpt2().unwrap(), 2, 20, sampling(0.0, 0)).unwrap();
        guess.into_iter().for_each(|n| generator.speculate(n).unwrap());
        generator.prompt(&prompts).unwrap();
        generator.decode(1000).unwrap();
        let lengths: Vec<_> = generator.tokens().iter().map(Vec::len).collect();
        assert_eq!(lengths[0], 12, "the newest token has no place in the cache, which has room for 20: {lengths:?}");
        assert_eq!(generator.next(&[1, 1]).unwrap(), 0);
        generator.restart(&[vec![5, 6], vec![7]]).unwrap();
        assert_eq!(generator.tokens()[0].len(), 13);
        assert!(generator.next(&[1, 1]).unwrap() > 0, "there is room again");
    }
}

/// However many tokens a submission takes.
#[test]
fn a_text_is_the_same_in_submissions_of_any_length() {
    let mut engine = engine();
    let model = built_in(&mut engine);
    let mut write = |ms| {
        let bound = std::time::Duration::from_millis(ms);
        text(&mut engine, &model, &prompts(&[7, 3], 200), (150, 200), sampling(1.0, 3), |g| g.set_bound(bound)).0
    };
    assert_eq!(write(0), write(250));
}

/// Has the program write `count` tokens, forgetting the older half whenever the context is full: its ids, after memory and speed in the
/// second half of the time were those in the first.
#[cfg(target_os = "linux")]
fn long_text(count: usize) -> serde_json::Value {
    let count = count.to_string();
    let args = ["generate", "ROMEO:", "--slide", "--seed", "3", "--temperature", "1", "--json", "--max-tokens", &count];
    let mut child = crate::cli::shaderlm().args(args).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || std::io::read_to_string(&mut out).unwrap());
    let path = format!("/proc/{}/statm", child.id());
    let mut resident = Vec::new();
    while child.try_wait().unwrap().is_none() {
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        resident.extend(text.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).map(|pages| pages * 4));
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(child.wait().unwrap().success());
    // The beginning is compiling; the end, printing and taking down.
    let (halfway, end) = (resident[resident.len() / 2], resident[resident.len() * 9 / 10]);
    eprintln!("{count} tokens: {halfway} kB halfway, {end} kB at the end");
    assert!(end < halfway + 4096, "{count} tokens: {halfway} kB halfway, {end} kB at the end");
    crate::cli::json(&reader.join().unwrap())["ids"].clone()
}

#[cfg(target_os = "linux")]
#[test]
fn a_long_text_takes_no_more_memory() {
    assert_eq!(long_text(3000).as_array().unwrap().len(), 3000);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes minutes: cargo test --release --test kernels -- --ignored hundred_thousand_tokens"]
fn hundred_thousand_tokens() {
    let first = long_text(100_000);
    assert_eq!(first.as_array().unwrap().len(), 100_000);
    assert!(first == long_text(100_000), "the same seed writes the same text");
}
