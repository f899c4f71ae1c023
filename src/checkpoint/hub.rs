//! Models of the Hugging Face Hub, through its own client: cache, token, endpoint and offline behaviour are as in Python
//! (HF_HOME, HF_HUB_CACHE, HF_TOKEN, HF_ENDPOINT, HF_HUB_OFFLINE).

use super::CheckpointError;
use hf_hub::{
    HFClientSync, HFError,
    progress::{DownloadEvent, ProgressEvent, ProgressHandler},
};
use indicatif::{ProgressBar, ProgressStyle};
use std::{
    fs,
    io::IsTerminal,
    path::{Path, PathBuf},
};

/// The folder that `model` names: itself, if it is one; else the Hub's repository `owner/name`, perhaps with `@revision`,
/// downloaded into the Hub's cache, from which alone it comes the next time if there is no connection.
///
/// # Errors
/// There is no such folder or repository, it needs a token, or it is not in the cache and cannot be downloaded.
pub fn resolve_model(model: &str) -> Result<PathBuf, CheckpointError> {
    let path = Path::new(model);
    if path.is_dir() {
        return Ok(path.to_owned());
    }
    let fail = |reason: String| CheckpointError::Model { model: model.to_owned(), reason };
    if path.exists() {
        return Err(fail(
            "it is a file; give the folder that holds config.json and model.safetensors, or a GPT-2's .gguf file".into(),
        ));
    }
    let (id, revision) = model.split_once('@').unwrap_or((model, "main"));
    let parts: Vec<_> = id.split('/').collect();
    let word = |w: &&str| !w.is_empty() && w.chars().all(|c| c.is_ascii_alphanumeric() || "-_.".contains(c));
    let [owner, name] = parts[..] else {
        return Err(fail(
            "there is no such folder, and a repository of the Hub is written owner/name, such as openai-community/gpt2".into(),
        ));
    };
    if ![owner, name].iter().all(word) || owner.starts_with('.') || revision.is_empty() {
        return Err(fail("there is no such folder".into()));
    }
    let repository = Repository { owner, name, revision, offline: offline() };
    repository.download().map_err(|error| fail(explained(&error, &repository)))
}

/// Whether the environment forbids connections, as Python's huggingface_hub reads it.
fn offline() -> bool {
    ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"]
        .iter()
        .any(|name| std::env::var(name).is_ok_and(|value| ["1", "ON", "YES", "TRUE"].contains(&value.to_uppercase().as_str())))
}

struct Repository<'a> {
    owner: &'a str,
    name: &'a str,
    revision: &'a str,
    offline: bool,
}

impl Repository<'_> {
    fn download(&self) -> Result<PathBuf, HFError> {
        let client = HFClientSync::new()?;
        let bar = bar();
        let config = self.file(&client, "config.json", &bar)?;
        match self.file(&client, "model.safetensors", &bar) {
            Ok(_) => {}
            Err(error) if absent(&error) => {
                let index = self.file(&client, "model.safetensors.index.json", &bar)?;
                for shard in shards(&index) {
                    self.file(&client, &shard, &bar)?;
                }
            }
            Err(error) => return Err(error),
        }
        if !self.optional(&client, "tokenizer.json", &bar)? {
            // spiece.model cannot be read, but what to do about it is said where it is.
            for name in ["vocab.json", "merges.txt", "spiece.model"] {
                self.optional(&client, name, &bar)?;
            }
        }
        if is_encoder(&config) {
            for name in ["vocab.txt", "tokenizer_config.json", "sentence_bert_config.json"] {
                self.optional(&client, name, &bar)?;
            }
            if self.optional(&client, "modules.json", &bar)? {
                self.optional(&client, "1_Pooling/config.json", &bar)?;
            }
        }
        bar.finish_and_clear();
        Ok(config.parent().map_or_else(PathBuf::new, Path::to_owned))
    }

    /// One file, downloaded or from the cache. Without a connection the cache also knows which files the Hub has said that it
    /// does not have; the client looks there for files alone.
    fn file(&self, client: &HFClientSync, name: &str, bar: &ProgressBar) -> Result<PathBuf, HFError> {
        bar.set_message(name.to_owned());
        let send = |offline: bool| {
            client
                .model(self.owner, self.name)
                .download_file()
                .filename(name)
                .revision(self.revision)
                .local_files_only(offline)
                .progress(Bar(bar.clone()))
                .send()
        };
        match send(self.offline) {
            Err(error @ (HFError::Request { .. } | HFError::Http { .. })) if !self.offline => match send(true) {
                Err(absent @ HFError::EntryNotFound { .. }) => Err(absent),
                _ => Err(error),
            },
            result => result,
        }
    }

    fn optional(&self, client: &HFClientSync, name: &str, bar: &ProgressBar) -> Result<bool, HFError> {
        match self.file(client, name, bar) {
            Ok(_) => Ok(true),
            Err(error) if absent(&error) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// Whether the repository is there and the file is not. Without a connection the cache cannot tell one from the other.
fn absent(error: &HFError) -> bool {
    matches!(error, HFError::EntryNotFound { .. } | HFError::LocalEntryNotFound { .. })
}

/// Whether the Hub says that there is no such repository; to somebody without a token it says 401.
fn unknown(error: &HFError) -> bool {
    match error {
        HFError::RepoNotFound { .. } => true,
        HFError::AuthRequired { context } => context.error_code.as_deref() == Some("RepoNotFound"),
        _ => false,
    }
}

/// Whether a configuration is of a model that may have a WordPiece vocabulary or sentence-transformers' modules beside it.
fn is_encoder(config: &Path) -> bool {
    let value: serde_json::Value =
        fs::read_to_string(config).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    value["model_type"] != "gpt2"
}

/// The files that an index names. What is wrong with it is said when the folder is opened.
fn shards(index: &Path) -> Vec<String> {
    let value: serde_json::Value =
        fs::read_to_string(index).ok().and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
    let mut names: Vec<String> = value["weight_map"]
        .as_object()
        .into_iter()
        .flat_map(|map| map.values())
        .filter_map(|name| name.as_str())
        .filter(|name| name.ends_with(".safetensors") && !name.contains(['/', '\\']))
        .map(str::to_owned)
        .collect();
    names.sort();
    names.dedup();
    names
}

/// What to do about a failed download.
fn explained(error: &HFError, repository: &Repository<'_>) -> String {
    let Repository { revision, offline, .. } = *repository;
    match error {
        HFError::LocalEntryNotFound { .. } if offline => {
            format!("it is not in the Hub's cache, and HF_HUB_OFFLINE forbids to download it ({error})")
        }
        error if unknown(error) => {
            "there is no such folder and no such repository on the Hub, or it is private: check the name, or set HF_TOKEN".into()
        }
        HFError::RevisionNotFound { revision, .. } => format!("the repository has no revision {revision}"),
        // The client does not tell a missing file from a missing repository or revision here.
        HFError::EntryNotFound { path, .. } => format!(
            "there is no {path} at revision {revision}: check name and revision; only repositories with config.json and \
             safetensors weights can be loaded"
        ),
        HFError::AuthRequired { .. } | HFError::Forbidden { .. } => {
            format!("the Hub wants a token that may read it: accept its terms there, and set HF_TOKEN ({error})")
        }
        HFError::Request { .. } => {
            format!(
                "it is not in the Hub's cache, and the Hub cannot be reached: {error}. With --model FOLDER no connection is needed"
            )
        }
        other => other.to_string(),
    }
}

/// A bar on stderr, silent when that is no terminal.
fn bar() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new(0);
    if let Ok(style) = ProgressStyle::with_template("{msg:32} {bar:24} {bytes}/{total_bytes}  {bytes_per_sec}  {eta} left") {
        bar.set_style(style);
    }
    bar
}

struct Bar(ProgressBar);

impl ProgressHandler for Bar {
    fn on_progress(&self, event: &ProgressEvent) {
        match event {
            ProgressEvent::Download(DownloadEvent::Start { total_bytes, .. }) => {
                self.0.set_length(*total_bytes);
                self.0.set_position(0);
            }
            ProgressEvent::Download(DownloadEvent::Progress { files }) => {
                self.0.set_position(files.iter().map(|f| f.bytes_completed).sum());
            }
            ProgressEvent::Download(DownloadEvent::AggregateProgress { bytes_completed, .. }) => {
                self.0.set_position(*bytes_completed);
            }
            _ => {}
        }
    }
}
