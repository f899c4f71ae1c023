//! Tokenizers: GPT-2's against transformers', and those that need no file.

use shaderlm::{
    checkpoint::save_folder,
    ops::random::threefry,
    text::{TextStream, Tokenizer, train_bpe},
};
use std::{fs, path::PathBuf};

fn fixture(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("kernels-tests/fixtures").join(path)
}

/// Text from everywhere in Unicode.
const WILD: &str = "naïve\tcafé  \n\n 你好，世界 Привет שלום नमस्ते 😀👨‍👩‍👧 e\u{301} \u{0}\u{7f} 𐍈 <|endoftext|> end\r\n";

#[test]
fn gpt2_equals_transformers() {
    let cases: serde_json::Value = serde_json::from_str(&fs::read_to_string(fixture("tokenizer/gpt2.json")).unwrap()).unwrap();
    let tokenizer = Tokenizer::gpt2().unwrap();
    assert_eq!(tokenizer.vocab_size(), 50_257);
    assert_eq!(tokenizer.end_of_text(), Some(50_256));
    let cases = cases.as_array().unwrap();
    assert!(cases.len() > 60);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        let ids = |key: &str| case[key].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect::<Vec<_>>();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids("plain"), "{text:?}");
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids("special"), "{text:?} with special tokens");
        assert_eq!(tokenizer.decode(&ids("plain")).unwrap(), text);
        assert_eq!(tokenizer.decode(&ids("special")).unwrap(), text);
    }
}

#[test]
fn bytes_and_characters_come_back() {
    let bytes = Tokenizer::bytes().unwrap();
    assert_eq!(bytes.vocab_size(), 257);
    let chars = Tokenizer::chars(WILD).unwrap();
    let all: String = (0..0x30_000).step_by(7).filter_map(char::from_u32).collect();
    for text in [WILD, "", " ", "\n\n", "a\n b", &all] {
        let ids = bytes.encode(text, false).unwrap();
        assert_eq!(ids.len(), text.len(), "a token a byte");
        assert_eq!(bytes.decode(&ids).unwrap(), text);
        if text.chars().all(|c| WILD.contains(c)) {
            let ids = chars.encode(text, false).unwrap();
            assert_eq!(ids.len(), text.chars().count(), "a token a character");
            assert_eq!(chars.decode(&ids).unwrap(), text);
        }
    }
    let error = chars.encode("abcZ", false).unwrap_err().to_string();
    assert!(error.contains("'b'"), "{error}");
    let mut sorted: Vec<char> = WILD.chars().collect();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(chars.vocab_size(), sorted.len());
    assert_eq!(chars.encode(&sorted[3].to_string(), false).unwrap(), [3], "ids go by code point");
    assert!(chars.end_of_text().is_none());
}

#[test]
fn long_texts_are_cut_without_a_trace() {
    let mut text = String::new();
    for i in 0u32.. {
        let words = threefry([i, 1], [2, 3]);
        text += ["First", " Citizen:", "\n", "\n\n", "  ", "you'll", " 123", "\n\t", "世界", "!\n"][words[0] as usize % 10];
        if text.len() > 400_000 {
            break;
        }
    }
    for tokenizer in [Tokenizer::gpt2().unwrap(), Tokenizer::bytes().unwrap(), Tokenizer::chars(&text).unwrap()] {
        let ids = tokenizer.encode(&text, false).unwrap();
        assert_eq!(tokenizer.decode(&ids).unwrap(), text);
        // With special tokens it is encoded in one piece; there are none in this text.
        assert_eq!(ids, tokenizer.encode(&text, true).unwrap());
    }
}

#[test]
fn streams_give_what_decoding_gives() {
    let gpt2 = Tokenizer::gpt2().unwrap();
    for (seed, tokenizer) in [&gpt2, &Tokenizer::bytes().unwrap(), &Tokenizer::chars(WILD).unwrap()].into_iter().enumerate() {
        let mut random: Vec<u32> =
            (0..3000).map(|i| threefry([seed as u32, 9], [i, 0])[0] % tokenizer.vocab_size() as u32).collect();
        random.extend(tokenizer.encode(WILD, false).unwrap());
        for ids in [random, tokenizer.encode(&WILD.repeat(5), false).unwrap()] {
            let mut stream = TextStream::new(tokenizer, Vec::new());
            let mut text: String = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
            text += &stream.finish();
            // Broken bytes may be cut into another number of replacement characters; what is text must be the same.
            let clean = |s: &str| s.split('\u{FFFD}').filter(|p| !p.is_empty()).map(str::to_owned).collect::<String>();
            assert_eq!(clean(&text), clean(&tokenizer.decode(&ids).unwrap()));
        }
    }
    // Whole characters come at once, incomplete ones never.
    let bytes = Tokenizer::bytes().unwrap();
    let mut stream = TextStream::new(&bytes, Vec::new());
    let pieces: Vec<_> = bytes.encode("a€😀", false).unwrap().iter().map(|&id| stream.push(id).unwrap()).collect();
    assert_eq!(pieces, ["a", "", "", "€", "", "", "", "😀"]);
    // A model may have more rows than there are tokens.
    assert_eq!(stream.push(9999).unwrap(), "\u{FFFD}");
}

#[test]
fn stop_texts_stop() {
    let chars = Tokenizer::chars("abcdefg\n").unwrap();
    let run = |stops: &[&str], text: &str| {
        let mut stream = TextStream::new(&chars, stops.iter().map(ToString::to_string).collect());
        let mut out = String::new();
        for id in chars.encode(text, false).unwrap() {
            out += &stream.push(id).unwrap();
            assert!(stops.iter().all(|s| s.is_empty() || !out.contains(s)));
        }
        let stopped = stream.stopped();
        out += &stream.finish();
        (out, stopped)
    };
    assert_eq!(run(&["cd"], "abcde"), ("ab".into(), true));
    assert_eq!(run(&["cde", "bc"], "abcde"), ("a".into(), true));
    assert_eq!(run(&["ccd"], "abccce"), ("abccce".into(), false));
    assert_eq!(run(&["ccd"], "abcccd"), ("abc".into(), true));
    assert_eq!(run(&["cx", ""], "abc"), ("abc".into(), false));
    assert_eq!(run(&["\n\n"], "ab\ncd\n\nef"), ("ab\ncd".into(), true));
}

#[test]
fn training_saving_and_loading() {
    let folder = tempfile::tempdir().unwrap();
    let (data, out) = (folder.path().join("data.txt"), folder.path().join("tokenizer.json"));
    fs::write(&data, "To be, or not to be: that is the question.\n\nÜber 世界!\n".repeat(40)).unwrap();
    let size = train_bpe(std::slice::from_ref(&data), 300, &out).unwrap();
    assert!((258..=300).contains(&size), "{size}");
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(tokenizer.vocab_size(), size);
    assert!(tokenizer.end_of_text().is_some());
    for text in ["To be, or not to be", WILD] {
        assert_eq!(tokenizer.decode(&tokenizer.encode(text, false).unwrap()).unwrap(), text);
    }
    assert!(tokenizer.encode("that is the question", false).unwrap().len() < 12, "merges were learnt");
    let again = Tokenizer::from_bytes(tokenizer.to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(again.encode(WILD, false).unwrap(), tokenizer.encode(WILD, false).unwrap());

    assert!(train_bpe(std::slice::from_ref(&data), 256, &out).unwrap_err().to_string().contains("--vocab"));
    fs::write(&data, b"ab\xff").unwrap();
    let error = train_bpe(std::slice::from_ref(&data), 300, &out).unwrap_err().to_string();
    assert!(error.contains("data.txt") && error.contains("byte at 2"), "{error}");
    fs::write(&data, "").unwrap();
    assert!(train_bpe(&[data], 300, &out).unwrap_err().to_string().contains("empty"));
}

#[test]
fn vocabulary_and_merges_make_the_same_tokenizer() {
    let folder = tempfile::tempdir().unwrap();
    let json: serde_json::Value = serde_json::from_str(&Tokenizer::gpt2().unwrap().to_json().unwrap()).unwrap();
    let mut vocabulary = json["model"]["vocab"].clone();
    vocabulary["<|endoftext|>"] = 50_256.into();
    fs::write(folder.path().join("vocab.json"), vocabulary.to_string()).unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("merges.txt"), "{error}");
    let merges = include_str!("../src/text/gpt2_merges.txt");
    fs::write(folder.path().join("merges.txt"), merges).unwrap();
    let (found, own) = (Tokenizer::from_folder(folder.path()).unwrap(), Tokenizer::gpt2().unwrap());
    assert_eq!(found.vocab_size(), own.vocab_size());
    for special in [false, true] {
        assert_eq!(found.encode(WILD, special).unwrap(), own.encode(WILD, special).unwrap());
    }
}

/// `vocab.txt` read as transformers' BertTokenizer reads it, with each of its settings.
#[test]
fn bert_equals_transformers() {
    let cases: serde_json::Value = serde_json::from_str(&fs::read_to_string(fixture("tokenizer/bert.json")).unwrap()).unwrap();
    let vocabulary = fs::read_to_string(fixture("tokenizer/bert/vocab.txt")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("vocab.txt"), &vocabulary).unwrap();
    let mut checked = 0;
    for (name, settings) in cases["settings"].as_object().unwrap() {
        let config = folder.path().join("tokenizer_config.json");
        if name == "uncased" {
            // The default, without any file.
            let _ = fs::remove_file(&config);
        } else {
            fs::write(&config, settings.to_string()).unwrap();
        }
        let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
        assert_eq!(tokenizer.vocab_size(), vocabulary.lines().count());
        for case in cases["cases"].as_array().unwrap().iter().filter(|case| case["settings"] == name.as_str()) {
            let text = case["text"].as_str().unwrap();
            let ids = |key: &str| case[key].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect::<Vec<_>>();
            assert_eq!(tokenizer.encode(text, false).unwrap(), ids("plain"), "{name}: {text:?}");
            assert_eq!(tokenizer.encode(text, true).unwrap(), ids("special"), "{name}: {text:?} with special tokens");
            assert_eq!(tokenizer.encode_lines(vec![text, "x"]).unwrap()[0], ids("plain"));
            checked += 1;
        }
    }
    assert!(checked > 300, "{checked}");

    let damaged = |vocabulary: &str, config: &str| {
        fs::write(folder.path().join("vocab.txt"), vocabulary).unwrap();
        fs::write(folder.path().join("tokenizer_config.json"), config).unwrap();
        Tokenizer::from_folder(folder.path()).unwrap_err().to_string()
    };
    let twice = damaged("[UNK]\na\nb\na\n", "{}");
    assert!(twice.contains("vocab.txt") && twice.contains("lines 2 and 4"), "{twice}");
    assert!(damaged("a\nb\n", "{}").contains("[UNK]"));
    assert!(damaged("[UNK]\n", "{").contains("tokenizer_config.json"));
    assert!(damaged("[UNK]\n", "{\"do_lower_case\": 1}").contains("do_lower_case"));
    fs::remove_file(folder.path().join("vocab.txt")).unwrap();
    assert!(Tokenizer::from_folder(folder.path()).unwrap_err().to_string().contains("vocab.txt"));
    fs::write(folder.path().join("spiece.model"), "x").unwrap();
    let error = Tokenizer::from_folder(folder.path()).unwrap_err().to_string();
    assert!(error.contains("save_pretrained") && error.contains(folder.path().to_str().unwrap()), "{error}");
}

/// Where words begin, by the rules of each kind of vocabulary, and the special tokens that a saved folder names.
#[test]
fn words_begin_where_they_should() {
    let unigram = |pieces: &[&str]| {
        let vocab: Vec<_> = pieces.iter().map(|piece| serde_json::json!([piece, -1.0])).collect();
        let json = serde_json::json!({ "model": { "type": "Unigram", "unk_id": 1, "vocab": vocab } });
        Tokenizer::from_bytes(json.to_string().as_bytes())
    };
    let pieces = [
        ("<pad>", true),
        ("<unk>", true),
        ("[CLS]", true),
        ("[SEP]", true),
        ("[MASK]", true),
        ("▁the", true),
        ("ing", false),
        ("S", false),
        (".", true),
        ("--", true),
        ("'", true),
        ("'s", true),
        ("19", true),
        ("世", true),
        ("▁", true),
        ("a-b", false),
    ];
    let albert = unigram(&pieces.map(|p| p.0)).unwrap();
    for (id, (piece, begins)) in pieces.iter().enumerate().filter(|(id, _)| !(2..5).contains(id)) {
        assert_eq!(albert.begins_word(id as u32), *begins, "{piece}");
    }
    assert_eq!((albert.piece(5).as_deref(), albert.piece(6).as_deref(), albert.piece(99)), (Some(" the"), Some("ing"), None));
    for (pieces, reason) in [(&["<pad>", "a", "b", "a"][..], "1 and 3"), (&["<pad>", "a", ""], "empty")] {
        let error = unigram(pieces).unwrap_err().to_string();
        assert!(error.contains(reason), "{error}");
    }
    let gpt2 = Tokenizer::gpt2().unwrap();
    let begins = |text: &str| gpt2.encode(text, false).unwrap().iter().map(|&id| gpt2.begins_word(id)).collect::<Vec<_>>();
    assert_eq!(begins(" unkingly, !\n"), [true, false, false, true, true, true]);
    assert!(gpt2.begins_word(50_256));
    assert!(gpt2.special_tokens().unwrap_err().to_string().contains("[CLS]"));

    let folder = tempfile::tempdir().unwrap();
    save_folder(folder.path(), &serde_json::json!({}), &[], Some(&albert)).unwrap();
    let about: serde_json::Value =
        serde_json::from_str(&fs::read_to_string(folder.path().join("tokenizer_config.json")).unwrap()).unwrap();
    for (name, token) in
        [("cls_token", "[CLS]"), ("sep_token", "[SEP]"), ("mask_token", "[MASK]"), ("pad_token", "<pad>"), ("unk_token", "<unk>")]
    {
        assert_eq!(about[name], token);
    }
}

#[test]
fn damaged_files_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    assert!(Tokenizer::from_file(&path).unwrap_err().to_string().contains("tokenizer.json"));
    let good = Tokenizer::bytes().unwrap().to_json().unwrap();
    let damaged = ["", "{", "[]", "{}", "null", &good[..good.len() / 2], &good.replace("\"BPE\"", "\"Other\""), "\u{0}"];
    for text in damaged {
        fs::write(&path, text).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{error}");
    }
    // Merges of nothing that is there, at which the crate itself would panic, and ids that are none or used twice.
    let value: serde_json::Value = serde_json::from_str(&good).unwrap();
    for (place, change) in [
        ("/model/merges", serde_json::json!([["a", "bcdefgh"]])),
        ("/model/merges", serde_json::json!(["ab"])),
        ("/model/merges", serde_json::json!([["a"]])),
        ("/model/merges", serde_json::json!([7])),
        ("/model/vocab", serde_json::json!({ "a": 0, "b": 0 })),
        ("/model/vocab", serde_json::json!({ "a": -1 })),
        ("/model/vocab", serde_json::json!({ "a": 5_000_000_000u64 })),
    ] {
        let mut changed = value.clone();
        *changed.pointer_mut(place).unwrap() = change.clone();
        fs::write(&path, changed.to_string()).unwrap();
        let error = Tokenizer::from_file(&path).unwrap_err().to_string();
        assert!(error.contains("tokenizer.json"), "{change}: {error}");
    }
    // SentencePiece's table of characters: places out of it would make the crate panic.
    let table = |units: &[u32], texts: &str| -> String {
        let bytes: Vec<u8> = [units.len() as u32 * 4].iter().chain(units).flat_map(|u| u.to_le_bytes()).collect();
        let bits: Vec<u8> =
            [&bytes, texts.as_bytes()].concat().iter().flat_map(|b| (0..8).rev().map(move |i| b >> i & 1)).collect();
        let letters = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text: String = bits
            .chunks(6)
            .map(|c| c.iter().fold(0, |v, b| v << 1 | b) << (6 - c.len()))
            .map(|v| char::from(letters[usize::from(v)]))
            .collect();
        text += &"=".repeat((4 - text.len() % 4) % 4);
        text
    };
    let with_table = |map: serde_json::Value| {
        let mut changed = value.clone();
        changed["normalizer"] = serde_json::json!({ "type": "Sequence", "normalizers": [map] });
        fs::write(&path, changed.to_string()).unwrap();
        Tokenizer::from_file(&path)
    };
    // The root's children are around 256; "a" has a text, whose place stands at 512, around which it has no child.
    let mut units = vec![0u32; 768];
    units[0] = 256 << 10;
    units[256 ^ 0x61] = (256 ^ 0x61 ^ 512) << 10 | 0x100 | 0x61;
    let good_table = |units: &[u32]| serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": table(units, "b\0") });
    let changed = with_table(good_table(&units)).unwrap();
    assert_eq!(changed.encode("cab", false).unwrap(), Tokenizer::bytes().unwrap().encode("cbb", false).unwrap());
    let damage = |place: usize, unit: u32| {
        let mut units = units.clone();
        units[place] = unit;
        good_table(&units)
    };
    for map in [
        damage(0, 4000 << 10),
        damage(256 ^ 0x61, 4000 << 10 | 0x61),
        damage(512, 77),
        good_table(&[]),
        good_table(&units[..700]),
        serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "$" }),
        serde_json::json!({ "type": "Precompiled", "precompiled_charsmap": "AAEA" }),
        serde_json::json!({ "type": "Precompiled" }),
        serde_json::json!({ "precompiled_charsmap": 3 }),
    ] {
        let error = with_table(map).unwrap_err().to_string();
        assert!(error.contains("precompiled_charsmap") && error.contains("tokenizer.json"), "{error}");
    }
    fs::write(&path, b"\xff\xfe").unwrap();
    assert!(Tokenizer::from_file(&path).unwrap_err().to_string().contains("UTF-8"));
    let error = Tokenizer::bytes().unwrap().decode(&[5, 257]).unwrap_err().to_string();
    assert!(error.contains("257") && error.contains("256"), "{error}");
}

/// BERT's own vocabulary, from the folder that tools/minilm.sh fetches, on awkward texts.
#[test]
fn a_real_wordpiece_vocabulary_equals_transformers() {
    let tokenizer = Tokenizer::from_folder(std::path::Path::new(&crate::embed::minilm())).unwrap();
    let cases: serde_json::Value = serde_json::from_str(&fs::read_to_string(fixture("tokenizer/minilm.json")).unwrap()).unwrap();
    let texts = cases["texts"].as_array().unwrap();
    assert!(texts.len() > 90);
    for case in texts {
        let text = case["text"].as_str().unwrap();
        let ids = |key: &str| case[key].as_array().unwrap().iter().map(|x| x.as_u64().unwrap() as u32).collect::<Vec<_>>();
        assert_eq!(tokenizer.encode(text, false).unwrap(), ids("plain"), "{text:?}");
        assert_eq!(tokenizer.encode(text, true).unwrap(), ids("special"), "{text:?} with special tokens");
    }
}
