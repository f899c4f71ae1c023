//! SentencePiece's table of characters (`precompiled_charsmap`), looked through before the tokenizers crate uses it: the
//! crate trusts its places and panics at damaged ones.
//!
//! The table is the length of a trie in bytes, the trie (32-bit units of a double array, as darts-clone has it), and texts
//! that end with a zero byte. A unit at place `p ^ c` is the child of `p` by the byte `c` if its label is `c`; its own
//! children are around `p ^ c ^ offset`, where the place of the text stands if it has one.

use base64::{Engine, prelude::BASE64_STANDARD};
use serde_json::Value;

/// Checks every table in a `tokenizer.json`'s normalizer, however deep.
pub(super) fn check_tables(normalizer: &Value) -> Result<(), String> {
    match normalizer {
        Value::Object(map) => {
            if map.get("type").is_some_and(|kind| kind == "Precompiled") || map.contains_key("precompiled_charsmap") {
                let table = map.get("precompiled_charsmap").and_then(Value::as_str);
                let bytes = table.and_then(|table| BASE64_STANDARD.decode(table).ok());
                bytes.and_then(|bytes| check_table(&bytes)).ok_or("its precompiled_charsmap is damaged")?;
            }
            map.values().try_for_each(check_tables)
        }
        Value::Array(list) => list.iter().try_for_each(check_tables),
        _ => Ok(()),
    }
}

/// `None` if some text would lead the search out of the trie or out of the texts.
fn check_table(table: &[u8]) -> Option<()> {
    let (size, rest) = table.split_first_chunk()?;
    let (trie, texts) = rest.split_at_checked((u32::from_le_bytes(*size) / 4 * 4) as usize)?;
    let texts = std::str::from_utf8(texts).ok()?;
    let units: Vec<u32> = trie.as_chunks().0.iter().map(|&unit| u32::from_le_bytes(unit)).collect();
    let offset = |unit: u32| ((unit as usize) >> 10) << ((unit & 0x200) >> 6);
    let mut seen = vec![false; units.len()];
    let mut open = vec![offset(*units.first()?)];
    while let Some(place) = open.pop() {
        if place | 0xFF >= units.len() {
            return None;
        }
        if std::mem::replace(&mut seen[place], true) {
            continue;
        }
        for byte in 1..=255 {
            let unit = units[place ^ byte as usize];
            if unit & 0x8000_00FF != byte {
                continue;
            }
            let child = place ^ byte as usize ^ offset(unit);
            if unit & 0x100 != 0 && !texts.is_char_boundary((units.get(child)? & 0x7FFF_FFFF) as usize) {
                return None;
            }
            open.push(child);
        }
    }
    Some(())
}
