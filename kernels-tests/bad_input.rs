//! Input that a user or a stranger may give, beyond what the files and the command line's own tests cover: sizes that no
//! memory holds, files that are no files, disks that are full.

use crate::cli::{failure, fixture, run, shaderlm, success};
use std::{fs, path::Path, process::Command};

/// The tiny model without an adapter; what is tested here is the same on any device.
fn on_cpu(args: &[&str]) -> Command {
    let mut command = shaderlm();
    command.args(args).args(["--device", "cpu"]);
    command
}

fn fails(args: &[&str]) -> String {
    failure(run(&mut on_cpu(args)))
}

/// `train gpt2` of a tiny model for two steps.
fn train(data: &Path, out: &Path) -> Vec<String> {
    let sizes = ["--layers", "1", "--heads", "2", "--width", "16", "--context", "16", "--batch", "3", "--steps", "2"];
    let files = ["train", "gpt2", "--device", "cpu", "--data", data.to_str().unwrap(), "--out", out.to_str().unwrap()];
    [&files[..], &sizes].concat().into_iter().map(str::to_owned).collect()
}

#[test]
fn more_tokens_than_the_context_has_room_for() {
    let model = fixture("tiny");
    let ids = |n: usize| vec!["1"; n].join(",");
    // The context is 32: after 3 tokens there is room for 30, the last of which need not be read again.
    let generate = |n: usize, more: &[&str]| {
        let ids = ids(n);
        let args = ["generate", "--model", &model, "--temperature", "0", "--ids", &ids];
        run(&mut on_cpu(&[&args[..], more].concat()))
    };
    let error = failure(generate(3, &["--max-tokens", "31"]));
    assert!(error.contains("--max-tokens 31") && error.contains("room for 30") && error.contains("--slide"), "{error}");
    assert_eq!(success(generate(3, &["--max-tokens", "30"])).split(',').count(), 30);
    assert_eq!(success(generate(3, &[])).split(',').count(), 30, "by default as much as there is room for");
    assert_eq!(success(generate(3, &["--max-tokens", "31", "--slide"])).split(',').count(), 31);
    // A prompt that is too long is not helped by fewer tokens or by sliding.
    for more in [&[][..], &["--slide"], &["--max-tokens", "1"]] {
        let error = failure(generate(40, more));
        assert!(error.contains("the prompt has 40 tokens") && !error.contains("--max-tokens"), "{error}");
    }
}

#[test]
fn sizes_beyond_any_memory_are_refused() {
    let model = fixture("tiny");
    for batch in ["99999999999", "9223372036854775807"] {
        for more in [&[][..], &["--backward"]] {
            let error = fails(&[&["graph", "--model", &model, "--batch", batch], more].concat());
            assert!(error.contains("2^32 elements") && error.contains("embedding"), "{error}");
        }
    }
    // Of windows there are no more than the text has, whatever --batch says.
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("text.txt");
    fs::write(&data, "the king speaks and no one hears him\n".repeat(9)).unwrap();
    let out = folder.path().join("model");
    success(run(shaderlm().args(train(&data, &out))));
    let measure = |batch: &str| {
        let args = ["perplexity", "--json", "--model", out.to_str().unwrap(), "--data", data.to_str().unwrap(), "--batch", batch];
        let value: serde_json::Value = serde_json::from_str(&success(run(&mut on_cpu(&args)))).unwrap();
        (value["tokens"].as_u64().unwrap(), value["loss"].as_f64().unwrap())
    };
    let (few, many) = (measure("2"), measure("99999999999"));
    assert_eq!(few.0, many.0);
    assert!((few.1 - many.1).abs() < 1e-5, "{few:?} {many:?}");
}

/// A named pipe instead of weights must not make us wait for ever; a tensor's likeliest names come first.
#[cfg(unix)]
#[test]
fn weights_that_are_no_file() {
    let folder = tempfile::tempdir().unwrap();
    let model = folder.path();
    fs::copy(Path::new(&fixture("tiny")).join("config.json"), model.join("config.json")).unwrap();
    let weights = model.join("model.safetensors");
    let error = || fails(&["generate", "--ids", "1", "--model", model.to_str().unwrap()]);
    assert!(Command::new("mkfifo").arg(&weights).status().unwrap().success());
    assert!(error().contains("model.safetensors: it is a pipe or a device"), "{}", error());
    fs::remove_file(&weights).unwrap();
    std::os::unix::fs::symlink("/dev/zero", &weights).unwrap();
    assert!(error().contains("model.safetensors: it is a pipe or a device"), "{}", error());
    fs::remove_file(&weights).unwrap();
    std::os::unix::fs::symlink("nowhere", &weights).unwrap();
    assert!(error().contains("model.safetensors"), "{}", error());

    fs::remove_file(&weights).unwrap();
    let text = fs::read(Path::new(&fixture("tiny")).join("model.safetensors")).unwrap();
    let from = b"transformer.h.1.attn.c_attn.weight";
    let at = text.windows(from.len()).position(|w| w == from).unwrap();
    let mut renamed = text.clone();
    renamed[at..at + 11].copy_from_slice(b"transformed");
    fs::write(&weights, renamed).unwrap();
    let error = error();
    assert!(error.contains("it has transformed.h.1.attn.c_attn.weight, transformer.h.0.attn.c_attn.weight"), "{error}");
}

/// A disk that is full: here a limit on the size of files, which any user may set and which fails a write in its midst as a
/// full disk does (with EFBIG for ENOSPC). Nothing half-written is left, and what was there stays.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_nothing_half_written() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let data = here.join("text.txt");
    fs::write(&data, "the king speaks and no one hears him\n".repeat(99)).unwrap();
    // `blocks` of 512 bytes; the signal that comes with the limit is ignored, as it does not come from a full disk.
    let limited = |blocks: usize, args: &[String]| {
        let mut command = Command::new("sh");
        command.args(["-c", &format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\""), "sh", env!("CARGO_BIN_EXE_shaderlm")]);
        command.args(args).env("SHADERLM_DEVICE", "cpu").stdin(std::process::Stdio::null());
        run(&mut command)
    };
    let names = |folder: &Path| {
        let mut names: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    // The state of 97 kB does not fit; with room for it the run goes through.
    let out = here.join("model");
    let error = failure(limited(40, &train(&data, &out)));
    assert!(error.contains("state.safetensors"), "{error}");
    assert_eq!(names(&out), Vec::<String>::new());
    success(limited(400, &train(&data, &out)));
    let before: Vec<_> = names(&out).iter().map(|name| fs::read(out.join(name)).unwrap()).collect();
    assert_eq!(before.len(), 5);
    let resume = [train(&data, &out), vec!["--resume".into()]].concat();
    assert!(failure(limited(40, &resume)).contains("safetensors"));
    assert_eq!(names(&out).iter().map(|name| fs::read(out.join(name)).unwrap()).collect::<Vec<_>>(), before);

    let model = fixture("tiny");
    let case = fixture("tiny/case.safetensors");
    let strings = |args: &[&str]| args.iter().map(|&a| a.to_owned()).collect::<Vec<_>>();
    for (file, args) in [
        ("tok.json", &["tokenizer", "train", "--data", data.to_str().unwrap(), "--vocab", "280", "--out"][..]),
        ("plan.dot", &["graph", "--model", &model, "--backward", "--dot"]),
        ("logits.safetensors", &["forward", "--model", &model, "--input", &case, "--output"]),
        ("grads.safetensors", &["backward", "--model", &model, "--input", &case, "--output"]),
    ] {
        let path = here.join(file);
        fs::write(&path, "what was there").unwrap();
        let error = failure(limited(1, &strings(&[args, &[path.to_str().unwrap()]].concat())));
        assert!(error.contains(file), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "what was there", "{file}");
        assert!(!names(here).iter().any(|name| name.ends_with(".tmp")), "{:?}", names(here));
        success(limited(9999, &strings(&[args, &[path.to_str().unwrap()]].concat())));
        assert!(fs::metadata(&path).unwrap().len() > 512, "{file} is long enough to have been cut short");
    }
}

/// `--output /dev/stdout` and the like: a pipe is written into, and stays a pipe.
#[cfg(unix)]
#[test]
fn a_pipe_is_written_into() {
    use std::os::unix::fs::FileTypeExt;
    let folder = tempfile::tempdir().unwrap();
    let (pipe, file) = (folder.path().join("pipe"), folder.path().join("file"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let reader = Command::new("cat").arg(&pipe).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let model = fixture("tiny");
    let graph = |to: &Path| success(run(&mut on_cpu(&["graph", "--model", &model, "--dot", to.to_str().unwrap()])));
    graph(&pipe);
    graph(&file);
    let read = reader.wait_with_output().unwrap().stdout;
    assert!(read.starts_with(b"digraph") && read == fs::read(&file).unwrap());
    assert!(fs::metadata(&pipe).unwrap().file_type().is_fifo(), "the pipe was replaced by a file");
}
