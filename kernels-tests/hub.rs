//! `--model owner/name` against a small server on this machine that answers as the Hub does: download, cache, token,
//! offline, and what is said when there is nothing to be had.

use crate::cli::{failure, run, shaderlm, success};
use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex},
    thread,
};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";
const TOKEN: &str = "hf_secret";

/// Requests so far: method and path.
type Requests = Arc<Mutex<Vec<String>>>;

struct Hub {
    address: String,
    requests: Requests,
}

impl Hub {
    /// Serves the files of `folder` as `tiny/gpt2` and `tiny/sentences`, and the same with a token as `tiny/gated`.
    fn start(folder: PathBuf) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let requests = Requests::default();
        let seen = requests.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (folder, seen) = (folder.clone(), seen.clone());
                thread::spawn(move || while answer(&stream, &folder, &seen).is_some() {});
            }
        });
        Self { address, requests }
    }

    fn count(&self) -> usize {
        self.requests.lock().unwrap().len()
    }

    /// `shaderlm generate` of three tokens.
    fn generate(&self, model: &str, home: &Path, env: &[(&str, &str)]) -> Command {
        let args = ["generate", "--ids", "1,2,3", "--max-tokens", "3", "--temperature", "0", "--seed", "1", "--json"];
        self.command(&args, model, home, env)
    }

    /// A command with a cache of its own and nothing of the user's environment.
    fn command(&self, args: &[&str], model: &str, home: &Path, env: &[(&str, &str)]) -> Command {
        let mut command = shaderlm();
        command.args(args).args(["--model", model]);
        for name in ["HF_TOKEN", "HF_TOKEN_PATH", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"] {
            command.env_remove(name);
        }
        command.env("HF_HOME", home).env("HF_ENDPOINT", &self.address).env("HOME", home);
        for name in ["http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
            command.env_remove(name);
        }
        command.envs(env.iter().copied());
        command
    }
}

/// Answers one request; `None` when the client has gone.
fn answer(stream: &TcpStream, folder: &Path, requests: &Requests) -> Option<()> {
    let mut reader = BufReader::new(stream.try_clone().ok()?);
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|&n| n > 0)?;
    let mut words = line.split_whitespace();
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        match line.trim().split_once(": ") {
            Some((name, value)) => headers.insert(name.to_lowercase(), value.to_owned()),
            None => break,
        };
    }
    requests.lock().unwrap().push(format!("{method} {path}"));
    let (status, extra, body) = respond(&path, &headers, folder);
    let mut out = stream;
    write!(out, "HTTP/1.1 {status}\r\nContent-Length: {}\r\n{extra}\r\n", body.len()).ok()?;
    if method != "HEAD" {
        out.write_all(&body).ok()?;
    }
    out.flush().ok()
}

fn respond(path: &str, headers: &HashMap<String, String>, folder: &Path) -> (&'static str, String, Vec<u8>) {
    let none = |status, code: &str| (status, format!("X-Error-Code: {code}\r\nX-Error-Message: {code}\r\n"), Vec::new());
    let parts: Vec<_> = path.trim_start_matches('/').splitn(5, '/').collect();
    let [owner, name, "resolve", revision, file] = parts[..] else { return none("404 Not Found", "RepoNotFound") };
    if owner != "tiny" || !["gpt2", "sentences", "gated"].contains(&name) {
        // As the Hub does: who has no token is not told whether there is such a repository.
        let status = if headers.contains_key("authorization") { "404 Not Found" } else { "401 Unauthorized" };
        return none(status, "RepoNotFound");
    }
    if name == "gated" && headers.get("authorization").map(String::as_str) != Some(&format!("Bearer {TOKEN}")) {
        return none("401 Unauthorized", "GatedRepo");
    }
    if revision != "main" && revision != COMMIT {
        return none("404 Not Found", "RevisionNotFound");
    }
    match std::fs::read(folder.join(file)) {
        Ok(body) => {
            let tag = format!("{:x}", body.iter().fold(7u64, |h, &b| h.wrapping_mul(31).wrapping_add(u64::from(b))));
            ("200 OK", format!("ETag: \"{tag}\"\r\nX-Repo-Commit: {COMMIT}\r\n"), body)
        }
        // The commit tells the client to remember that the file is not there.
        Err(_) => {
            let (status, headers, body) = none("404 Not Found", "EntryNotFound");
            (status, format!("{headers}X-Repo-Commit: {COMMIT}\r\n"), body)
        }
    }
}

/// A repository: a fixture's weights and a tokenizer.
fn repository(fixture: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/gpt2").join(fixture);
    for entry in std::fs::read_dir(source).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().contains("model") || path.ends_with("config.json") {
            std::fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    let characters: String = ('0'..='o').take(60).collect();
    let tokenizer = shaderlm::text::Tokenizer::chars(&characters).unwrap();
    std::fs::write(folder.path().join("tokenizer.json"), tokenizer.to_json().unwrap()).unwrap();
    folder
}

#[test]
fn downloads_then_uses_the_cache() {
    let (files, home) = (repository("tiny"), tempfile::tempdir().unwrap());
    let hub = Hub::start(files.path().to_owned());
    let first = success(run(&mut hub.generate("tiny/gpt2", home.path(), &[])));
    let requests = hub.count();
    assert!(requests >= 3, "{requests} requests");
    let cached = home.path().join("hub/models--tiny--gpt2/snapshots").join(COMMIT);
    for name in ["config.json", "model.safetensors", "tokenizer.json"] {
        assert!(cached.join(name).exists(), "{name} is not in the cache");
    }
    // The folder that the cache holds, the revision, offline, and the Hub gone: the same text.
    assert_eq!(success(run(&mut hub.generate(cached.to_str().unwrap(), home.path(), &[]))), first);
    assert_eq!(hub.count(), requests, "a folder asks nobody");
    assert_eq!(success(run(&mut hub.generate(&format!("tiny/gpt2@{COMMIT}"), home.path(), &[]))), first);
    let before = hub.count();
    assert_eq!(success(run(&mut hub.generate("tiny/gpt2", home.path(), &[("HF_HUB_OFFLINE", "1")]))), first);
    assert_eq!(hub.count(), before, "offline asks nobody");
    let gone = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    assert_eq!(success(run(&mut hub.generate("tiny/gpt2", home.path(), &gone))), first);
}

/// A repository as sentence-transformers writes it: a tiny BERT whose vocabulary is a list of words, and modules that say
/// to pool by the largest and to normalise.
fn sentences() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/encoders/bert-base-model");
    for name in ["config.json", "model.safetensors"] {
        std::fs::copy(source.join(name), folder.path().join(name)).unwrap();
    }
    let module = |n: usize, path: &str, kind: &str| {
        let kind = format!("sentence_transformers.models.{kind}");
        serde_json::json!({ "idx": n, "name": n.to_string(), "path": path, "type": kind })
    };
    let modules = [module(0, "", "Transformer"), module(1, "1_Pooling", "Pooling"), module(2, "2_Normalize", "Normalize")];
    let pooling = serde_json::json!({
        "word_embedding_dimension": 21,
        "pooling_mode_mean_tokens": false,
        "pooling_mode_max_tokens": true,
    });
    std::fs::create_dir(folder.path().join("1_Pooling")).unwrap();
    let vocabulary = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\na\ncat\ndog\nsleep\n##s\n";
    for (name, text) in [
        ("vocab.txt", vocabulary.to_owned()),
        ("modules.json", serde_json::to_string(&modules).unwrap()),
        ("1_Pooling/config.json", pooling.to_string()),
        ("sentence_bert_config.json", r#"{"max_seq_length": 5, "do_lower_case": false}"#.into()),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

#[test]
fn sentence_transformers_from_the_hub() {
    let (files, home) = (sentences(), tempfile::tempdir().unwrap());
    let hub = Hub::start(files.path().to_owned());
    let embed = |more: &[&str], env: &[(&str, &str)]| {
        let args = [&["embed", "--json", "A cat sleeps", "dogs"], more].concat();
        run(&mut hub.command(&args, "tiny/sentences", home.path(), env))
    };
    let output = embed(&[], &[]);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("1 of 2 texts were cut to 5 tokens"), "sentence_bert_config.json was not heeded: {said}");
    let first = success(output);
    let vectors = |text: &str| -> Vec<Vec<f32>> {
        let line = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["embedding"].clone();
        text.lines().map(|l| serde_json::from_value(line(l)).unwrap()).collect()
    };
    let near = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    let found = vectors(&first);
    assert_eq!(found.iter().map(Vec::len).collect::<Vec<_>>(), [21, 21]);
    for vector in &found {
        let length = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        assert!((length - 1.0).abs() < 1e-5, "2_Normalize was not heeded: {length}");
    }
    assert!(!near(&found[0], &found[1]));
    let cached = home.path().join("hub/models--tiny--sentences/snapshots").join(COMMIT);
    for name in ["vocab.txt", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"] {
        assert!(cached.join(name).exists(), "{name} is not in the cache");
    }
    // What the modules say is what was done: the same as with flags on the bare files, and not the mean.
    let bare = tempfile::tempdir().unwrap();
    for name in ["config.json", "model.safetensors", "vocab.txt"] {
        std::fs::copy(files.path().join(name), bare.path().join(name)).unwrap();
    }
    let flags = |more: &[&str]| {
        let args = [&["embed", "--json", "dogs", "--model", bare.path().to_str().unwrap()], more].concat();
        vectors(&success(run(shaderlm().args(args)))).remove(0)
    };
    assert!(near(&flags(&["--pooling", "max", "--normalize"]), &found[1]));
    assert!(!near(&flags(&["--pooling", "mean", "--normalize"]), &found[1]));
    // Offline, and with the Hub gone, from the cache: the same bytes.
    let requests = hub.count();
    assert_eq!(success(embed(&[], &[("HF_HUB_OFFLINE", "1")])), first);
    assert_eq!(hub.count(), requests, "offline asks nobody");
    assert_eq!(success(embed(&[], &[("HF_ENDPOINT", "http://127.0.0.1:9")])), first);
}

#[test]
fn sentencepiece_alone_is_told_how_to_convert() {
    let (files, home) = (sentences(), tempfile::tempdir().unwrap());
    std::fs::rename(files.path().join("vocab.txt"), files.path().join("spiece.model")).unwrap();
    let hub = Hub::start(files.path().to_owned());
    let error = failure(run(&mut hub.command(&["embed", "--json", "dogs"], "tiny/sentences", home.path(), &[])));
    assert!(error.contains("spiece.model") && error.contains("save_pretrained"), "{error}");
}

#[test]
fn sharded_repositories() {
    let (files, home) = (repository("sharded"), tempfile::tempdir().unwrap());
    let hub = Hub::start(files.path().to_owned());
    let sharded = success(run(&mut hub.generate("tiny/gpt2", home.path(), &[])));
    assert!(sharded.contains("\"ids\""), "{sharded}");
    // Without a connection the cache knows that there is no model.safetensors, and goes on to the shards.
    let gone = [("HF_ENDPOINT", "http://127.0.0.1:9")];
    assert_eq!(success(run(&mut hub.generate("tiny/gpt2", home.path(), &gone))), sharded);
}

#[test]
fn tokens_open_gated_repositories() {
    let (files, home) = (repository("tiny"), tempfile::tempdir().unwrap());
    let hub = Hub::start(files.path().to_owned());
    let error = failure(run(&mut hub.generate("tiny/gated", home.path(), &[])));
    assert!(error.contains("HF_TOKEN"), "{error}");
    success(run(&mut hub.generate("tiny/gated", home.path(), &[("HF_TOKEN", TOKEN)])));
    // The token that `hf auth login` stores.
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("token"), TOKEN).unwrap();
    success(run(&mut hub.generate("tiny/gated", home.path(), &[])));
}

#[test]
fn what_cannot_be_had_is_said() {
    let (files, home) = (repository("tiny"), tempfile::tempdir().unwrap());
    std::fs::remove_file(files.path().join("model.safetensors")).unwrap();
    let hub = Hub::start(files.path().to_owned());
    let error = |model: &str, env: &[(&str, &str)]| failure(run(&mut hub.generate(model, home.path(), env)));
    let text = error("tiny/other", &[]);
    assert!(text.contains("tiny/other") && text.contains("no such repository"), "{text}");
    let text = error("tiny/other", &[("HF_TOKEN", TOKEN)]);
    assert!(text.contains("tiny/other") && text.contains("check name"), "{text}");
    let text = error("tiny/gpt2", &[]);
    assert!(text.contains("model.safetensors"), "{text}");
    let text = error("tiny/gpt2@nope", &[]);
    assert!(text.contains("nope"), "{text}");
    let text = error("tiny/never", &[("HF_HUB_OFFLINE", "1")]);
    assert!(text.contains("HF_HUB_OFFLINE"), "{text}");
    let text = error("tiny/never", &[("HF_ENDPOINT", "http://127.0.0.1:9")]);
    assert!(text.contains("cannot be reached"), "{text}");
    for name in ["./no/such", "nofolder", "../x", "a/b/c"] {
        let text = error(name, &[]);
        assert!(text.contains("no such folder"), "{text}");
    }
}
