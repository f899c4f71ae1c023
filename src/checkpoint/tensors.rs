//! Safetensors files.

use super::{CheckpointError, StoredType, header, write_atomic};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{Metadata, TensorInfo};
use std::{
    borrow::Cow,
    cmp::Reverse,
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    ops::Deref,
    path::Path,
};

/// A tensor to be written: name, element type, shape, and little-endian bytes.
pub type StoredTensor<'a> = (String, StoredType, Vec<usize>, Cow<'a, [u8]>);

/// The bytes of a file, wherever they are.
pub(super) enum Bytes {
    Mapped(Mmap),
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

/// Maps `path`, which must be `kind`, such as "a safetensors file".
pub(super) fn map_file(path: &Path, kind: &str) -> Result<Bytes, CheckpointError> {
    let fail = |source| CheckpointError::Io { path: path.to_owned(), source };
    // Asked before it is opened: opening a pipe waits for somebody to write into it.
    let about = fs::metadata(path).map_err(fail)?;
    if !about.is_file() {
        let found = if about.is_dir() { "a folder" } else { "a pipe or a device" };
        return Err(CheckpointError::damaged(path.display(), format!("it is {found}, not {kind}")));
    }
    let file = File::open(path).map_err(fail)?;
    if about.len() == 0 {
        return Err(CheckpointError::damaged(path.display(), "it is empty"));
    }
    // Safety: the mapping is read only; a file that another program cuts short meanwhile ends this one, as it would
    // any reader of mapped files. Checkpoints of ours are never changed in place, only replaced.
    Ok(Bytes::Mapped(unsafe { Mmap::map(&file) }.map_err(fail)?))
}

/// A safetensors file whose header has been checked; the data stays in the file until it is asked for.
pub struct SafeTensorsFile {
    place: String,
    bytes: Bytes,
    header: header::Header,
}

/// A tensor in a file.
pub struct TensorRef<'a> {
    /// Element type.
    pub dtype: StoredType,
    /// Shape.
    pub shape: Vec<usize>,
    /// Little-endian elements, of no particular alignment.
    pub bytes: &'a [u8],
    place: &'a str,
    name: &'a str,
}

impl SafeTensorsFile {
    /// Opens and checks `path`.
    ///
    /// # Errors
    /// There is no such file, or it is damaged.
    pub fn open(path: &Path) -> Result<Self, CheckpointError> {
        Self::new(path.display().to_string(), map_file(path, "a safetensors file")?)
    }

    /// Checks a file that is in the program. `place` is its name in errors.
    ///
    /// # Errors
    /// It is damaged.
    pub fn from_static(place: &str, bytes: &'static [u8]) -> Result<Self, CheckpointError> {
        Self::new(place.to_owned(), Bytes::Static(bytes))
    }

    fn new(place: String, bytes: Bytes) -> Result<Self, CheckpointError> {
        let header = header::read(&bytes).map_err(|reason| CheckpointError::damaged(&place, reason))?;
        Ok(Self { place, bytes, header })
    }

    /// Names of its tensors, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.header.tensors.keys().map(String::as_str)
    }

    /// Whether it has a tensor `name`.
    pub fn contains(&self, name: &str) -> bool {
        self.header.tensors.contains_key(name)
    }

    /// The free text in its header.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.header.metadata
    }

    /// Its tensor `name`.
    ///
    /// # Errors
    /// There is none.
    pub fn tensor(&self, name: &str) -> Result<TensorRef<'_>, CheckpointError> {
        let Some((name, info)) = self.header.tensors.get_key_value(name) else {
            return Err(missing(&self.place, name, self.names()));
        };
        let TensorInfo { dtype, shape, data_offsets: (start, end) } = info;
        let bytes = &self.bytes[self.header.data + start..self.header.data + end];
        Ok(TensorRef { dtype: *dtype, shape: shape.clone(), bytes, place: &self.place, name })
    }
}

/// That `name` is not there, with some names that are.
pub(super) fn missing<'a>(place: &str, name: &str, names: impl Iterator<Item = &'a str>) -> CheckpointError {
    let mut names: Vec<_> = names.collect();
    let count = names.len();
    // Names that end alike are what was meant, as a rule: the same tensor under another prefix, or of another block.
    let parts_alike = |other: &str| name.rsplit('.').zip(other.rsplit('.')).take_while(|(a, b)| a == b).count();
    names.sort_by_cached_key(|n| (Reverse(parts_alike(n)), n.len()));
    names.truncate(4);
    let mut has = if names.is_empty() { "none at all".to_owned() } else { names.join(", ") };
    if count > names.len() {
        has += &format!(" and {} more", count - names.len());
    }
    CheckpointError::Missing { place: place.to_owned(), name: name.to_owned(), has }
}

impl TensorRef<'_> {
    /// Its elements as f32.
    ///
    /// # Errors
    /// They are not floats.
    pub fn to_f32(&self) -> Result<Vec<f32>, CheckpointError> {
        Ok(match self.dtype {
            StoredType::F32 => bytemuck::pod_collect_to_vec(self.bytes),
            StoredType::F16 => self.map(|b| f16::from_le_bytes(b).to_f32()),
            StoredType::BF16 => self.map(|b| bf16::from_le_bytes(b).to_f32()),
            StoredType::F64 => self.map(|b| f64::from_le_bytes(b) as f32),
            _ => return Err(self.refused("F32, F16, BF16 or F64")),
        })
    }

    /// Its elements as i64.
    ///
    /// # Errors
    /// They are not integers.
    pub fn to_i64(&self) -> Result<Vec<i64>, CheckpointError> {
        Ok(match self.dtype {
            StoredType::I64 => self.map(i64::from_le_bytes),
            StoredType::I32 => self.map(|b| i64::from(i32::from_le_bytes(b))),
            StoredType::U32 => self.map(|b| i64::from(u32::from_le_bytes(b))),
            StoredType::U8 | StoredType::BOOL => self.map(|[b]| i64::from(b)),
            _ => return Err(self.refused("I64, I32, U32, U8 or BOOL")),
        })
    }

    fn map<const N: usize, T>(&self, read: impl Fn([u8; N]) -> T) -> Vec<T> {
        self.bytes.as_chunks().0.iter().map(|&chunk| read(chunk)).collect()
    }

    fn refused(&self, wanted: &'static str) -> CheckpointError {
        CheckpointError::Type { place: self.place.to_owned(), name: self.name.to_owned(), found: self.dtype.to_string(), wanted }
    }
}

/// Writes `tensors` and `metadata` to `path`, atomically.
///
/// The header is the safetensors crate's; its own writer would leave a file of a random name behind if it is killed.
///
/// # Errors
/// The folder cannot be written to, or the disk is full; then `path` is as it was.
pub fn write_safetensors(
    path: &Path,
    tensors: &[StoredTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), CheckpointError> {
    // The order of Python's safetensors: wide elements first, so that all are aligned, then by name.
    let mut order: Vec<_> = tensors.iter().collect();
    order.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let (mut infos, mut end) = (Vec::new(), 0);
    for (name, dtype, shape, bytes) in &order {
        let start = end;
        end += bytes.len();
        infos.push((name.clone(), TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (start, end) }));
    }
    let fail = |reason: String| CheckpointError::damaged(path.display(), reason);
    let header = Metadata::new(Some(metadata.clone().into_iter().collect()), infos).map_err(|e| fail(e.to_string()))?;
    let mut header = serde_json::to_vec(&header).map_err(|e| fail(e.to_string()))?;
    header.resize(header.len().next_multiple_of(8), b' ');
    write_atomic(path, |out| {
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        order.iter().try_for_each(|tensor| out.write_all(&tensor.3))
    })
}
