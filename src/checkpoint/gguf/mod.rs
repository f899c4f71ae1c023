//! GGUF files, llama.cpp's: metadata, a list of tensors, and their data, all little-endian
//! (<https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>). Read with suspicion: nothing is believed before it is checked against
//! the length of the file, and nothing is reserved for what a count claims.

mod blocks;
mod reader;

pub use blocks::BlockType;

use super::{
    CheckpointError,
    tensors::{Bytes, map_file, missing},
};
use crate::ops::{OpError, Packed, Packing};
use reader::Reader;
use std::{
    collections::{BTreeMap, btree_map::Entry},
    ops::Range,
    path::Path,
};

/// The most tensors, and the most entries of metadata, that are read.
const MOST: u64 = 1 << 16;

/// A value of the metadata.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Whole numbers of all widths, and truth values.
    Int(i128),
    /// Floats.
    Float(f64),
    /// Text.
    Text(String),
    /// A list of texts.
    Texts(Vec<String>),
    /// A list of something else, which is not looked into.
    Other,
}

/// A tensor's place in the file.
struct Info {
    kind: BlockType,
    /// Outermost first.
    shape: Vec<usize>,
    /// Its bytes, from the beginning of the file.
    bytes: Range<usize>,
}

/// A GGUF file whose metadata and list of tensors have been checked; the data stays in the file until it is asked for.
pub struct Gguf {
    place: String,
    bytes: Bytes,
    metadata: BTreeMap<String, Value>,
    tensors: BTreeMap<String, Info>,
}

/// A tensor of a GGUF file.
pub struct GgufTensor<'a> {
    /// How its numbers are stored.
    pub kind: BlockType,
    /// Its shape, outermost dimension first.
    pub shape: &'a [usize],
    /// Its blocks.
    pub bytes: &'a [u8],
}

impl Gguf {
    /// Opens and checks `path`.
    ///
    /// # Errors
    /// There is no such file, or it is damaged.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        let (place, bytes) = (path.display().to_string(), map_file(path, "a GGUF file")?);
        let (metadata, tensors) = read(&bytes).map_err(|reason| CheckpointError::damaged(&place, reason))?;
        Ok(Self { place, bytes, metadata, tensors })
    }

    /// The metadata called `key`.
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.metadata.get(key)
    }

    /// A text of the metadata.
    ///
    /// # Errors
    /// It is not there, or something else.
    pub fn text(&self, key: &str) -> Result<&str, CheckpointError> {
        match self.get(key) {
            Some(Value::Text(text)) => Ok(text),
            found => Err(self.wrong(key, "a text", found)),
        }
    }

    /// A whole number of the metadata, from 0 to 2^32 - 1.
    ///
    /// # Errors
    /// It is not there, or something else.
    pub fn number(&self, key: &str) -> Result<u32, CheckpointError> {
        match self.get(key) {
            Some(Value::Int(number)) if u32::try_from(*number).is_ok() => Ok(*number as u32),
            found => Err(self.wrong(key, "a whole number below 2^32", found)),
        }
    }

    /// A list of texts of the metadata.
    ///
    /// # Errors
    /// It is not there, or something else.
    pub fn texts(&self, key: &str) -> Result<&[String], CheckpointError> {
        match self.get(key) {
            Some(Value::Texts(texts)) => Ok(texts),
            found => Err(self.wrong(key, "a list of texts", found)),
        }
    }

    fn wrong(&self, key: &str, wanted: &str, found: Option<&Value>) -> CheckpointError {
        let found = match found {
            None => "is not there".to_owned(),
            Some(Value::Texts(_) | Value::Other) => "is a list of something else".to_owned(),
            Some(Value::Text(text)) => format!("is {:?}", text.chars().take(40).collect::<String>()),
            Some(value) => format!("is {value:?}"),
        };
        CheckpointError::damaged(&self.place, format!("{key} must be {wanted}, and {found}"))
    }

    /// Whether it has a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Its tensor `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn tensor(&self, name: &str) -> Result<GgufTensor<'_>, CheckpointError> {
        match self.tensors.get(name) {
            Some(info) => Ok(GgufTensor { kind: info.kind, shape: &info.shape, bytes: &self.bytes[info.bytes.clone()] }),
            None => Err(missing(&self.place, name, self.tensors.keys().map(String::as_str))),
        }
    }
}

impl GgufTensor<'_> {
    /// Its numbers, in the file's order.
    pub fn to_f32(&self) -> Vec<f32> {
        self.kind.unpack(self.bytes)
    }

    /// It in narrow storage, if that holds its blocks; 4-bit blocks of 256, whose scales and minima are products, have these rounded
    /// to 16 bits. `None` where it does not.
    ///
    /// # Errors
    /// The packing is of another shape.
    pub fn packed(&self, packing: Packing) -> Result<Option<Packed>, OpError> {
        self.kind.parts(self.bytes).map(|parts| Packed::from_parts(packing, &parts)).transpose()
    }
}

type Contents = (BTreeMap<String, Value>, BTreeMap<String, Info>);

fn read(file: &[u8]) -> Result<Contents, String> {
    let mut reader = Reader::new(file);
    if reader.take(4, "the magic number")? != b"GGUF" {
        return Err("it does not begin with GGUF".into());
    }
    match reader.u32("the version")? {
        2 | 3 => {}
        version @ (0x0200_0000 | 0x0300_0000) => {
            return Err(format!("it is big-endian (version {version:#x}), which is not supported"));
        }
        version => return Err(format!("it is of version {version}; 2 and 3 are supported")),
    }
    let (tensors, entries) = (reader.u64("the number of tensors")?, reader.u64("the number of entries")?);
    for (count, what) in [(tensors, "tensors"), (entries, "entries of metadata")] {
        if count > MOST {
            return Err(format!("it claims {count} {what}; more than {MOST} are not read"));
        }
    }
    let mut metadata = BTreeMap::new();
    for _ in 0..entries {
        let key = reader.text("a key")?.to_owned();
        let value = reader.value().map_err(|e| format!("{key}: {e}"))?;
        match metadata.entry(key) {
            Entry::Occupied(known) => return Err(format!("{} is there twice", known.key())),
            Entry::Vacant(free) => drop(free.insert(value)),
        }
    }
    let alignment = match metadata.get("general.alignment") {
        None => 32,
        Some(Value::Int(n)) if (8..=1 << 20).contains(n) && n % 8 == 0 => *n as u64,
        Some(other) => return Err(format!("general.alignment is {other:?}; it must be a multiple of 8, up to {}", 1 << 20)),
    };
    let mut found = Vec::new();
    for _ in 0..tensors {
        found.push(tensor(&mut reader)?);
    }
    let data = (reader.place() as u64).next_multiple_of(alignment);
    Ok((metadata, placed(found, data, alignment, file.len() as u64)?))
}

/// A tensor as it stands in the list: its bytes, and where they begin within the data.
struct Listed {
    name: String,
    kind: BlockType,
    shape: Vec<usize>,
    bytes: u64,
    offset: u64,
}

fn tensor(reader: &mut Reader<'_>) -> Result<Listed, String> {
    let name = reader.text("a tensor's name")?.to_owned();
    let fail = |reason: String| format!("tensor {name}: {reason}");
    let rank = reader.u32("a tensor's rank").map_err(fail)?;
    if rank == 0 || rank > 4 {
        return Err(fail(format!("it has {rank} dimensions; 1 to 4 are supported")));
    }
    let mut shape = Vec::new();
    for _ in 0..rank {
        let size = reader.u64("a tensor's size").map_err(fail)?;
        shape.push(usize::try_from(size).map_err(|_| fail(format!("a dimension of {size} is too large")))?);
    }
    let kind = reader.u32("a tensor's type").map_err(fail)?;
    let kind =
        BlockType::new(kind).ok_or_else(|| fail(format!("its type is number {kind}; {} are supported", BlockType::NAMES)))?;
    let offset = reader.u64("a tensor's offset").map_err(fail)?;
    // The innermost comes first, and is what blocks run along.
    let (block, size) = kind.block();
    if shape[0] % block != 0 {
        return Err(fail(format!("rows of {} are not made of blocks of {block}", shape[0])));
    }
    let elements = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size));
    let bytes = elements.and_then(|n| (n / block).checked_mul(size)).filter(|_| elements.is_some_and(|n| n <= u32::MAX as usize));
    let bytes = bytes.ok_or_else(|| fail(format!("a shape of {shape:?} is too large")))? as u64;
    shape.reverse();
    Ok(Listed { name, kind, shape, bytes, offset })
}

/// Where the tensors are in the file; none may begin unaligned, end beyond the file, or overlap another.
fn placed(mut found: Vec<Listed>, data: u64, alignment: u64, length: u64) -> Result<BTreeMap<String, Info>, String> {
    found.sort_by_key(|tensor| tensor.offset);
    let (mut reached, mut tensors) = (0, BTreeMap::new());
    for tensor in found {
        let Listed { name, kind, shape, bytes, offset } = tensor;
        let fail = |reason: String| format!("tensor {name}: {reason}");
        if offset % alignment != 0 {
            return Err(fail(format!("its data begin at {offset}, which is no multiple of {alignment}")));
        }
        if offset < reached {
            return Err(fail(format!("its data begin at {offset}, within another tensor that ends at {reached}")));
        }
        let end = offset.checked_add(bytes).filter(|end| data.checked_add(*end).is_some_and(|end| end <= length));
        let Some(end) = end else {
            return Err(fail(format!(
                "its {bytes} bytes begin at {offset} of the data, and the file ends before; it is cut short"
            )));
        };
        reached = end;
        let info = Info { kind, shape, bytes: (data + offset) as usize..(data + end) as usize };
        if tensors.insert(name.clone(), info).is_some() {
            return Err(format!("tensor {name} is there twice"));
        }
    }
    Ok(tensors)
}
