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
    ops::{HostTensor, StopTokens},
};

fn engines() -> [(&'static str, Engine); 3] {
    [("adapter", engine()), ("adapter as a GPU", engine_as_hardware()), ("CPU", Engine::cpu())]
}

fn sampling(temperature: f32, seed: u32) -> Sampling {
    Sampling { temperature, top_k: 0, top_p: 1.0, repetition_penalty: 1.0, seed, stops: StopTokens::none() }
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
                    text(&mut engine, &model, &prompts, (count, 110), sampling, |g| {
                        guess.into_iter().for_each(|n| g.speculate(n).unwrap())
                    })
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

/// A text ends with the first stop token, each of a batch by itself, and is what it would be without one up to there; however many
/// tokens a submission makes, and with guesses. Then nothing is left to do.
#[test]
fn texts_end_with_a_stop_token() {
    for (device, mut engine) in engines() {
        let model = built_in(&mut engine);
        for (lengths, temperature) in [(&[20][..], 0.0), (&[12, 3, 30], 1.0), (&[5, 9], 1.0)] {
            let (prompts, count) = (prompts(lengths, 200), 45);
            let plain = text(&mut engine, &model, &prompts, (count, 80), sampling(temperature, 7), |_| {}).0;
            // Tokens that come early in one text, and late or not at all in others.
            let stops = [plain[0][8], plain[plain.len() - 1][33]];
            let until =
                |text: &[u32]| text[..text.iter().position(|id| stops.contains(id)).map_or(text.len(), |at| at + 1)].to_vec();
            let expected: Vec<_> = plain.iter().map(|text| until(text)).collect();
            assert!(expected[0].len() <= 9 && expected.iter().all(|text| !text.is_empty()));
            let settings = Sampling { stops: StopTokens::of(&stops), ..sampling(temperature, 7) };
            for (ms, guess) in [(0, None), (250, None), (250, Some(5))] {
                let what = format!("prompts of {lengths:?}, bound of {ms} ms, guesses {guess:?} on the {device}");
                let mut generator = Generator::new(&mut engine, model.gpt2().unwrap(), prompts.len(), 80, settings).unwrap();
                generator.set_bound(std::time::Duration::from_millis(ms));
                guess.into_iter().for_each(|n| generator.speculate(n).unwrap());
                generator.prompt(&prompts).unwrap();
                generator.decode(count - 1).unwrap();
                let found: Vec<_> = generator.tokens().iter().map(|text| text[..text.len().min(count)].to_vec()).collect();
                assert_eq!(found, expected, "{what}");
                let ended: Vec<_> = expected.iter().map(|text| stops.contains(text.last().unwrap())).collect();
                assert!(ended[0] && generator.ended() == ended, "{what}: {ended:?} and {:?}", generator.ended());
                if ended.iter().all(|&ended| ended) {
                    let tokens: usize = expected.iter().map(Vec::len).sum();
                    assert_eq!(generator.next(&vec![9; prompts.len()]).unwrap(), 0, "{what}");
                    assert_eq!(generator.stats.decoded_tokens, tokens - prompts.len(), "{what}: what follows counts as decoded");
                }
            }
        }
    }
}

/// On the device a text that has ended stays at its place, while others go on; after a restart too.
#[test]
fn the_device_knows_which_texts_have_ended() {
    for (device, mut engine) in engines() {
        let model = built_in(&mut engine);
        let prompts = prompts(&[6, 4], 200);
        let plain = text(&mut engine, &model, &prompts, (40, 60), sampling(1.0, 2), |_| {}).0;
        let at = (2..30).find(|&at| !plain[1].contains(&plain[0][at]) && !plain[0][..at].contains(&plain[0][at])).unwrap();
        let stop = plain[0][at];
        let settings = Sampling { stops: StopTokens::of(&[stop]), ..sampling(1.0, 2) };
        let mut generator = Generator::new(&mut engine, model.gpt2().unwrap(), 2, 60, settings).unwrap();
        generator.prompt(&prompts).unwrap();
        generator.decode(39).unwrap();
        assert_eq!(generator.ended(), [true, false]);
        assert_eq!(generator.tokens()[0].len(), at + 1);
        let second = generator.tokens()[1].len();
        generator.restart(&[vec![3, 4, 5], plain[1][10..40].to_vec()]).unwrap();
        generator.decode(10).unwrap();
        assert_eq!(generator.ended(), [true, false], "on the {device}");
        assert_eq!(generator.tokens()[0].len(), at + 1, "nothing follows on the {device}");
        assert!(generator.tokens()[1].len() >= second + 11, "the other goes on on the {device}");
        let newest = *generator.tokens()[1].last().unwrap();
        drop(generator);
        let state = |name: &str| engine.get(name).unwrap().unwrap().u().to_vec();
        assert_eq!(state("generate.tokens")[0], stop, "on the {device}");
        // Tokens 3, 4, 5 and what is drawn after them, which is the newest: it has place 3, and stays there.
        assert_eq!(state("generate.positions")[0], 3, "on the {device}");
        assert!(state("generate.history").contains(&newest));
    }
}

/// A prompt may end with a stop token; its text does not.
#[test]
fn a_stop_token_in_a_prompt_ends_nothing() {
    let mut engine = engine();
    let model = built_in(&mut engine);
    let prompts = vec![vec![5, 6, 7]];
    let settings = Sampling { stops: StopTokens::of(&[7]), ..sampling(1.0, 4) };
    let mut generator = Generator::new(&mut engine, model.gpt2().unwrap(), 1, 40, settings).unwrap();
    generator.prompt(&prompts).unwrap();
    generator.decode(5).unwrap();
    assert!(generator.tokens()[0].len() > 1 || generator.tokens()[0] == [7]);
}

/// Prompts that begin alike, or as what the caches hold, are continued as each by itself would be.
#[test]
fn beginnings_that_prompts_share_go_through_the_model_once() {
    for (device, mut engine) in engines() {
        let model = built_in(&mut engine);
        let preamble = prompts(&[70], 200).remove(0);
        let with = |rest: &[u32]| [&preamble[..], rest].concat();
        let batch = [with(&[9, 8, 7]), with(&[50, 51, 52, 53, 54, 55, 56]), with(&[60]), with(&[9, 8, 1, 2])];
        let alone: Vec<_> = batch
            .iter()
            .map(|prompt| {
                text(&mut engine, &model, std::slice::from_ref(prompt), (12, 100), sampling(0.0, 0), |_| {}).0.remove(0)
            })
            .collect();
        for chunk in [512, 40, 7] {
            let mut generator = Generator::new(&mut engine, model.gpt2().unwrap(), 4, 100, sampling(0.0, 0)).unwrap();
            generator.set_chunk(chunk);
            generator.prompt(&batch).unwrap();
            let reused = generator.stats.reused_tokens;
            assert!(reused > 100, "{reused} tokens reused");
            generator.decode(11).unwrap();
            let found: Vec<_> = generator.tokens().iter().map(|text| text[..12].to_vec()).collect();
            assert_eq!(found, alone, "in chunks of {chunk} on the {device}");
        }
        // One after another, as questions after one preamble, and an answer with more after it.
        let mut generator = Generator::new(&mut engine, model.gpt2().unwrap(), 1, 100, sampling(0.0, 0)).unwrap();
        let mut before = 0;
        for (i, (prompt, expected)) in batch.iter().zip(&alone).enumerate() {
            generator.prompt(std::slice::from_ref(prompt)).unwrap();
            let reused = generator.stats.reused_tokens;
            assert_eq!(generator.stats.reused_tokens > before, i > 0, "{before}, {reused}");
            generator.decode(11).unwrap();
            let found = &generator.tokens()[0];
            let begin = found.len() - 12;
            assert_eq!(found[begin..], expected[..], "prompt {i} on the {device}");
            before = reused;
        }
        let answered = [&batch[3][..], &alone[3][..8]].concat();
        generator.prompt(&[answered]).unwrap();
        assert_eq!(generator.stats.reused_tokens - before, batch[3].len() + 7, "all but the newest token are there");
        generator.decode(3).unwrap();
        let found = &generator.tokens()[0];
        assert_eq!(found[found.len() - 4..], alone[3][8..], "an answer read again on the {device}");
        // What is forgotten is not reused.
        let before = generator.stats.reused_tokens;
        generator.forget();
        generator.prompt(&batch[..1]).unwrap();
        assert_eq!(generator.stats.reused_tokens, before);
    }
}

/// A batch of which some prompts are known from before.
#[test]
fn what_some_caches_hold_is_reused() {
    let mut engine = engine();
    let model = built_in(&mut engine);
    let long = prompts(&[50, 60], 200);
    let mut write = |first: Option<&[Vec<u32>]>, prompts: &[Vec<u32>], guess: Option<usize>| {
        let mut generator = Generator::new(&mut engine, model.gpt2().unwrap(), 2, 100, sampling(0.0, 0)).unwrap();
        guess.into_iter().for_each(|n| generator.speculate(n).unwrap());
        if let Some(first) = first {
            generator.prompt(first).unwrap();
            generator.decode(9).unwrap();
        }
        let before: Vec<_> = generator.tokens().iter().map(Vec::len).collect();
        generator.prompt(prompts).unwrap();
        generator.decode(14).unwrap();
        let texts = generator.tokens().iter().zip(before).map(|(text, before)| text[before..][..15].to_vec());
        (texts.collect::<Vec<_>>(), generator.stats.reused_tokens)
    };
    let changed = [[&long[0][..45], &[1, 2, 3, 4]].concat(), [&long[1][..20], &[5; 9]].concat()];
    let (plain, none) = write(None, &changed, None);
    assert_eq!(none, 0);
    for guess in [None, Some(5)] {
        let (found, reused) = write(Some(&long), &changed, guess);
        assert_eq!(found, plain, "guesses {guess:?}");
        // Of the second prompt 9 tokens are new, so both have 9 done, or a few more where that is a whole number of chunks.
        assert!(reused >= 40 + 20 - 8, "{reused}");
    }
}

/// The program with prompts that begin alike, each of which ends on its own at a character, and that are run once.
#[test]
fn prompts_of_one_call_share_and_stop_on_their_own() {
    let preamble = "Question: what is a king? Answer: a man with a crown.\nQuestion: what is a crown? Answer: ".repeat(2);
    let prompts = ["Gold", "A thing", "No"].map(|end| format!("{preamble}{end}"));
    let common = ["generate", "--max-tokens", "40", "--temperature", "0.9", "--seed", "5", "--stop", " ", "--json", "--stats"];
    let call = |prompts: &[String]| {
        let mut command = crate::cli::shaderlm();
        command.args(common);
        prompts.iter().for_each(|prompt| {
            command.args(["--prompt", prompt]);
        });
        let output = command.output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{out}{err}");
        (crate::cli::json(&out), err.into_owned())
    };
    let (batch, stats) = call(&prompts);
    assert!(stats.lines().any(|line| line.starts_with("reused")), "{stats}");
    let rows = batch.as_array().unwrap();
    assert_eq!(rows.len(), 3);
    for row in rows {
        let ids = row["ids"].as_array().unwrap();
        assert!(row["finish"] == "stop text" && !row["text"].as_str().unwrap().contains(' '), "{row}");
        assert_eq!(ids.iter().filter(|id| **id == *ids.last().unwrap()).count(), 1, "the space is the last token: {row}");
    }
    let (alone, stats) = call(&prompts[..1]);
    assert_eq!(alone["ids"], rows[0]["ids"]);
    assert!(!stats.contains("reused"), "{stats}");
}

/// What `bench generate` says of prompts and guesses.
#[test]
fn bench_of_prompts_and_guesses() {
    let call = |more: &[&str]| {
        let mut command = crate::cli::shaderlm();
        let output = command
            .args(["bench", "generate", "--prompt-tokens", "60", "--tokens", "24", "--batch", "2"])
            .args(more)
            .output()
            .unwrap();
        crate::cli::success(output)
    };
    let found = crate::cli::json(&call(&["--json"]));
    let measured = &found["measured"][0];
    let number = |name: &str| measured[name].as_f64().unwrap_or_else(|| panic!("{name} in {measured}"));
    assert!(number("prompt_gflops") > 0.0 && number("product_gflops") > 0.0);
    assert!((number("prompt_share") - number("prompt_gflops") / number("product_gflops")).abs() < 1e-6);
    assert_eq!(measured["product"][0], 120, "two prompts of 60 tokens");
    assert!(measured["guesses"].is_null());
    let found = crate::cli::json(&call(&["--json", "--speculate", "5"]));
    let guesses = &found["measured"][0]["guesses"];
    let (guessed, right) = (guesses["guessed"].as_u64().unwrap(), guesses["right"].as_u64().unwrap());
    assert!(guessed > 0 && right <= guessed && guesses["tokens_a_step"].as_f64().unwrap() >= 1.0, "{guesses}");
    let text = call(&["--speculate"]);
    assert!(text.contains("GFLOP/s") && text.contains("tokens a step"), "{text}");
    assert!(call(&[]).contains("dispatches"));
    assert!(call(&["--device", "cpu"]).contains("tokens/s"));
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let mut engine = engine();
    let model = built_in(&mut engine);
    let mut generator = Generator::new(&mut engine, model.gpt2().unwrap(), 2, 10, sampling(0.0, 0)).unwrap();
    for lengths in [&[3, 11][..], &[3, 0], &[3], &[1, 2, 3]] {
        let error = generator.prompt(&prompts(lengths, 200)).unwrap_err().to_string();
        assert!(error.contains("2 rows of 1 to 10"), "{error}");
    }
    generator.prompt(&prompts(&[10, 10], 200)).unwrap();
}

#[test]
fn copies_of_variables_stay_within_them() {
    for mut engine in [engine(), Engine::cpu()] {
        engine.set("from", &HostTensor::floats([7], (0..7).map(|i| i as f32).collect())).unwrap();
        engine.set("to", &HostTensor::floats([2, 5], vec![9.0; 10])).unwrap();
        engine.copy(("from", 2..4), ("to", &[0, 8, 5])).unwrap();
        assert_eq!(engine.get("to").unwrap().unwrap().f(), [2.0, 3.0, 9.0, 9.0, 9.0, 2.0, 3.0, 9.0, 2.0, 3.0]);
        for (from, range, to, places) in [
            ("from", 6..8, "to", vec![0]),
            ("from", 0..3, "to", vec![0, 8]),
            ("from", 0..3, "to", vec![usize::MAX]),
            ("from", 0..1, "from", vec![3]),
            ("nothing", 0..1, "to", vec![0]),
            ("from", 0..1, "nothing", vec![0]),
        ] {
            let error = engine.copy((from, range.clone()), (to, &places)).unwrap_err().to_string();
            assert!(error.contains("cannot be copied"), "{from} {range:?} {to} {places:?}: {error}");
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
    // The beginning is compiling, on a slow machine half of it; the end, printing and taking down.
    let (middle, end) = (resident[resident.len() * 2 / 3], resident[resident.len() * 19 / 20]);
    eprintln!("{count} tokens: {middle} kB after two thirds of the time, {end} kB at the end");
    assert!(end < middle + 4096, "{count} tokens: {middle} kB after two thirds of the time, {end} kB at the end");
    crate::cli::json(&reader.join().unwrap())["ids"].clone()
}

#[cfg(target_os = "linux")]
#[test]
fn a_long_text_takes_no_more_memory() {
    assert_eq!(long_text(5000).as_array().unwrap().len(), 5000);
}

#[cfg(target_os = "linux")]
#[test]
#[ignore = "takes minutes: cargo test --release --test kernels -- --ignored hundred_thousand_tokens"]
fn hundred_thousand_tokens() {
    let first = long_text(100_000);
    assert_eq!(first.as_array().unwrap().len(), 100_000);
    assert!(first == long_text(100_000), "the same seed writes the same text");
}
