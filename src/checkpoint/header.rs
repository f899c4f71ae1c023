//! The header of a safetensors file, read with suspicion: the safetensors crate checks much of this too, but takes the last
//! of two tensors of one name, and does not say which tensor is wrong.

use safetensors::{Dtype, tensor::TensorInfo};
use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, Visitor},
};
use std::{
    collections::{BTreeMap, HashSet},
    fmt,
};

/// The largest header that is read, bytes; the format's own limit.
const LARGEST: u64 = 100_000_000;
/// What a file of Git's large-file storage begins with when its contents have not been fetched.
const LFS: &[u8] = b"version https://git-lfs";

/// What a header says.
pub struct Header {
    /// Tensors by name; offsets count from [`Header::data`].
    pub tensors: BTreeMap<String, TensorInfo>,
    /// The free text of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// First byte of the data in the file.
    pub data: usize,
}

/// The JSON object in its order, with no name twice.
struct Entries {
    tensors: Vec<(String, TensorInfo)>,
    metadata: BTreeMap<String, String>,
}

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Entries;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut seen = HashSet::new();
                let mut entries = Entries { tensors: Vec::new(), metadata: BTreeMap::new() };
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        return Err(A::Error::custom(format!("{name} is there twice")));
                    }
                    if name == "__metadata__" {
                        entries.metadata = map.next_value()?;
                    } else {
                        let info = map.next_value().map_err(|e| A::Error::custom(format!("tensor {name}: {e}")))?;
                        entries.tensors.push((name, info));
                    }
                }
                Ok(entries)
            }
        }
        deserializer.deserialize_map(Names)
    }
}

/// Reads and checks the header of a whole file: every tensor's bytes lie within the file, fit its shape and type, and
/// neither overlap nor leave a hole.
///
/// # Errors
/// What is wrong, in words.
pub fn read(file: &[u8]) -> Result<Header, String> {
    if file.starts_with(LFS) {
        return Err("it is a pointer of Git's large-file storage, not the file itself; run git lfs pull".into());
    }
    let Some((length, rest)) = file.split_first_chunk::<8>() else {
        return Err(format!("it has {} bytes; a safetensors file has at least 8", file.len()));
    };
    let length = u64::from_le_bytes(*length);
    if length > LARGEST {
        return Err(format!("its header claims {length} bytes; more than {LARGEST} are not read. Is it a safetensors file?"));
    }
    if length > rest.len() as u64 {
        return Err(format!("its header claims {length} bytes and {} follow; the file is cut short", rest.len()));
    }
    let (json, data) = rest.split_at(length as usize);
    let json = std::str::from_utf8(json).map_err(|e| format!("its header is not UTF-8: {e}"))?;
    let entries: Entries = serde_json::from_str(json).map_err(|e| format!("its header is damaged: {e}"))?;
    check(&entries.tensors, data.len())?;
    Ok(Header { tensors: entries.tensors.into_iter().collect(), metadata: entries.metadata, data: 8 + length as usize })
}

fn check(tensors: &[(String, TensorInfo)], length: usize) -> Result<(), String> {
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by_key(|(_, info)| info.data_offsets);
    let mut reached = 0;
    for (name, info) in order {
        let (start, end) = info.data_offsets;
        let wanted =
            bytes(info.dtype, &info.shape).ok_or_else(|| format!("tensor {name}: a shape of {:?} is too large", info.shape))?;
        if end < start || end - start != wanted {
            return Err(format!(
                "tensor {name}: its bytes are {start} to {end}, and {:?} of {} takes {wanted}",
                info.shape, info.dtype
            ));
        }
        if end > length {
            return Err(format!("tensor {name}: its bytes end at {end}, and the file's data at {length}; it is cut short"));
        }
        if start < reached {
            return Err(format!("tensor {name}: its bytes begin at {start}, within another tensor that ends at {reached}"));
        }
        if start > reached {
            return Err(format!("tensor {name}: its bytes begin at {start}, and those before it end at {reached}"));
        }
        reached = end;
    }
    if reached != length {
        return Err(format!("its tensors end at byte {reached}, and the file's data at {length}"));
    }
    Ok(())
}

/// Bytes of a tensor; `None` if the number overflows or an element is not whole bytes.
fn bytes(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1usize, |n, &size| n.checked_mul(size))?;
    let bits = elements.checked_mul(dtype.bitsize())?;
    (bits % 8 == 0).then_some(bits / 8)
}
