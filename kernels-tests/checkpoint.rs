//! Safetensors files and folders: what is right comes back, what is wrong is named, and nothing is half-written.

use shaderlm::checkpoint::{
    CheckpointError, SafeTensorsFile, StoredType, Weights, read_config, remove_leftovers, save_folder, write_atomic,
    write_safetensors,
};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

fn file(header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

/// The error for a file of these bytes.
fn refused(folder: &Path, bytes: &[u8]) -> String {
    let path = folder.join("model.safetensors");
    fs::write(&path, bytes).unwrap();
    match SafeTensorsFile::open(&path) {
        Ok(_) => panic!("{:?} was taken", String::from_utf8_lossy(&bytes[..bytes.len().min(200)])),
        Err(error) => error.to_string(),
    }
}

#[test]
fn every_type_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let floats = [1.5f32, -2.0, 0.25];
    let bytes = |v: Vec<Vec<u8>>| Cow::Owned(v.concat());
    let tensors = vec![
        ("f32".to_owned(), StoredType::F32, vec![3], bytes(floats.iter().map(|x| x.to_le_bytes().to_vec()).collect())),
        (
            "f64".to_owned(),
            StoredType::F64,
            vec![3, 1],
            bytes(floats.iter().map(|&x| f64::from(x).to_le_bytes().to_vec()).collect()),
        ),
        (
            "f16".to_owned(),
            StoredType::F16,
            vec![1, 3],
            bytes(floats.iter().map(|&x| half::f16::from_f32(x).to_le_bytes().to_vec()).collect()),
        ),
        (
            "bf16".to_owned(),
            StoredType::BF16,
            vec![3],
            bytes(floats.iter().map(|&x| half::bf16::from_f32(x).to_le_bytes().to_vec()).collect()),
        ),
        ("i64".to_owned(), StoredType::I64, vec![2], bytes(vec![(-100i64).to_le_bytes().to_vec(), 7i64.to_le_bytes().to_vec()])),
        ("i32".to_owned(), StoredType::I32, vec![2], bytes(vec![(-100i32).to_le_bytes().to_vec(), 7i32.to_le_bytes().to_vec()])),
        ("u8".to_owned(), StoredType::U8, vec![2], bytes(vec![vec![0, 255]])),
        ("empty".to_owned(), StoredType::F32, vec![0, 4], bytes(vec![])),
        ("scalar".to_owned(), StoredType::F32, vec![], bytes(vec![9f32.to_le_bytes().to_vec()])),
    ];
    let metadata = BTreeMap::from([("format".to_owned(), "pt".to_owned())]);
    write_safetensors(&path, &tensors, &metadata).unwrap();
    let read = SafeTensorsFile::open(&path).unwrap();
    assert_eq!(read.metadata(), &metadata);
    assert_eq!(read.names().count(), tensors.len());
    for name in ["f32", "f64", "f16", "bf16"] {
        assert_eq!(read.tensor(name).unwrap().to_f32().unwrap(), floats, "{name}");
    }
    assert_eq!(read.tensor("i64").unwrap().to_i64().unwrap(), [-100, 7]);
    assert_eq!(read.tensor("i32").unwrap().to_i64().unwrap(), [-100, 7]);
    assert_eq!(read.tensor("u8").unwrap().to_i64().unwrap(), [0, 255]);
    assert_eq!(read.tensor("empty").unwrap().shape, [0, 4]);
    assert_eq!(read.tensor("scalar").unwrap().to_f32().unwrap(), [9.0]);
    assert!(read.tensor("i64").unwrap().to_f32().unwrap_err().to_string().contains("tensor i64 is of type"));
    let error = read.tensor("f33").err().unwrap().to_string();
    assert!(error.contains("f33") && error.contains("x.safetensors") && error.contains("f32"), "{error}");
}

#[test]
fn hostile_files_are_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    let tensor = |name: &str, shape: &str, start: u64, end: u64| {
        format!("\"{name}\":{{\"dtype\":\"F32\",\"shape\":{shape},\"data_offsets\":[{start},{end}]}}")
    };
    let a = tensor("a", "[2]", 0, 8);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("empty", vec![]),
        ("at least 8", b"1234".to_vec()),
        ("cut short", file(&format!("{{{a}}}"), &[0; 8])[..20].to_vec()),
        ("cut short", file(&format!("{{{a}}}"), &[0; 7])),
        ("more than 100000000", [u64::MAX.to_le_bytes().to_vec(), vec![b'{'; 64]].concat()),
        ("more than 100000000", [100_000_001u64.to_le_bytes().to_vec(), vec![b'{'; 64]].concat()),
        ("UTF-8", [8u64.to_le_bytes().to_vec(), vec![0xff; 8]].concat()),
        ("damaged", file("{\"a\":", &[])),
        ("damaged", file("[1,2]", &[])),
        ("a is there twice", file(&format!("{{{a},{a}}}"), &[0; 8])),
        ("within another tensor", file(&format!("{{{a},{}}}", tensor("b", "[2]", 4, 12)), &[0; 12])),
        ("b: its bytes begin at 12", file(&format!("{{{a},{}}}", tensor("b", "[1]", 12, 16)), &[0; 16])),
        ("a: its bytes are", file(&format!("{{{}}}", tensor("a", "[3]", 0, 8)), &[0; 8])),
        ("a: its bytes are", file(&format!("{{{}}}", tensor("a", "[2]", 8, 0)), &[0; 8])),
        ("too large", file(&format!("{{{}}}", tensor("a", "[4294967296,4294967296,4294967296]", 0, 8)), &[0; 8])),
        ("end at byte 8", file(&format!("{{{a}}}"), &[0; 20])),
        ("tensor a", file("{\"a\":{\"dtype\":\"F33\",\"shape\":[2],\"data_offsets\":[0,8]}}", &[0; 8])),
        ("tensor a", file("{\"a\":{\"dtype\":\"F32\",\"shape\":[-2],\"data_offsets\":[0,8]}}", &[0; 8])),
        ("tensor a", file("{\"a\":7}", &[0; 8])),
        ("git lfs pull", b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 5\n".to_vec()),
    ];
    for (word, bytes) in cases {
        let error = refused(here, &bytes);
        assert!(error.contains(word) && error.contains("model.safetensors"), "{word:?} is not in {error:?}");
    }
    assert!(SafeTensorsFile::open(here).err().unwrap().to_string().contains("folder"));
    let error = SafeTensorsFile::open(&here.join("no.safetensors")).err().unwrap().to_string();
    assert!(error.contains("no.safetensors"), "{error}");
}

#[test]
fn random_damage_never_panics() {
    let good = fs::read(fixture("tiny/model.safetensors")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize + 8;
    for i in 0..400u32 {
        let words = shaderlm::ops::random::threefry([i, 3], [1, 4]);
        let mut bytes = good.clone();
        if i % 4 == 0 {
            bytes.truncate(words[0] as usize % good.len());
        } else {
            bytes[words[0] as usize % header] = words[1] as u8;
        }
        fs::write(&path, &bytes).unwrap();
        if let Ok(file) = SafeTensorsFile::open(&path) {
            for name in file.names() {
                file.tensor(name).unwrap().to_f32().unwrap_or_default();
            }
        }
    }
}

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures/gpt2").join(path)
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("state");
    write_atomic(&path, |out| out.write_all(b"old")).unwrap();
    let full = || io::Error::from(io::ErrorKind::StorageFull);
    let error = write_atomic(&path, |out| out.write_all(b"half of the new").and(Err(full()))).unwrap_err();
    assert!(matches!(&error, CheckpointError::Io { .. }) && error.to_string().contains("state"), "{error}");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    write_atomic(&path, |out| out.write_all(b"new")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    // Killed in the midst of it: the next run clears up, and touches nothing else.
    for name in [".state.4711.tmp", ".state.x.tmp", "state.12.tmp", ".hidden"] {
        fs::write(folder.path().join(name), "x").unwrap();
    }
    remove_leftovers(folder.path());
    assert!(!folder.path().join(".state.4711.tmp").exists());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 4);
    assert!(write_atomic(&folder.path().join("no/such"), |_| Ok(())).unwrap_err().to_string().contains("such"));
}

#[test]
fn shards_must_be_what_the_index_says() {
    assert!(Weights::open(&fixture("sharded")).unwrap().names().count() > 20);
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| fs::copy(fixture("sharded").join(name), folder.path().join(name)).map(|_| ()).unwrap();
    for name in ["model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors", "model.safetensors.index.json"] {
        copy(name);
    }
    let error = || Weights::open(folder.path()).err().unwrap().to_string();
    assert!(error().contains("model-00003-of-00003.safetensors"), "{}", error());
    copy("model-00003-of-00003.safetensors");
    assert!(Weights::open(folder.path()).is_ok());
    let index = folder.path().join("model.safetensors.index.json");
    for (text, word) in [
        ("{", "index.json"),
        ("{}", "weight_map"),
        (r#"{"weight_map":{"x":"../model-00001-of-00003.safetensors"}}"#, "beside it"),
        (r#"{"weight_map":{"x":"/etc/passwd"}}"#, "beside it"),
        (r#"{"weight_map":{"x":7}}"#, "no text"),
        (r#"{"weight_map":{"x":"model-00001-of-00003.safetensors"}}"#, "x should be in"),
    ] {
        fs::write(&index, text).unwrap();
        assert!(error().contains(word), "{word}: {}", error());
    }
    fs::remove_file(&index).unwrap();
    assert!(error().contains("neither"), "{}", error());
    fs::write(folder.path().join("pytorch_model.bin"), "x").unwrap();
    assert!(error().contains("save_pretrained"), "{}", error());
}

#[test]
fn folders() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("a/b");
    let config = serde_json::json!({ "model_type": "gpt2" });
    let tensors = [("x".to_owned(), StoredType::F32, vec![1], Cow::Borrowed(&[0u8, 0, 128, 63][..]))];
    let tokenizer = shaderlm::text::Tokenizer::bytes().unwrap();
    save_folder(&place, &config, &tensors, Some(&tokenizer)).unwrap();
    assert_eq!(read_config(&place).unwrap(), config);
    assert_eq!(Weights::open(&place).unwrap().get("x").unwrap().to_f32().unwrap(), [1.0]);
    let mut names: Vec<_> = fs::read_dir(&place).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"]);
    for text in ["", "[]", "{", "7"] {
        fs::write(place.join("config.json"), text).unwrap();
        assert!(read_config(&place).unwrap_err().to_string().contains("config.json"), "{text}");
    }
    fs::remove_file(place.join("config.json")).unwrap();
    assert!(read_config(&place).unwrap_err().to_string().contains("config.json"));
}
