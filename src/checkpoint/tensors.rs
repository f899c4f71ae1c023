//! Safetensors files.

use super::{CheckpointError, StoredType, header, replace};
use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::tensor::{TensorInfo, View};
use std::{
    borrow::Cow,
    collections::BTreeMap,
    fs::{self, File},
    io,
    ops::Deref,
    path::Path,
};

/// A tensor to be written: name, element type, shape, and little-endian bytes.
pub type StoredTensor<'a> = (String, StoredType, Vec<usize>, Cow<'a, [u8]>);

/// The bytes of a file, wherever they are.
enum Bytes {
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
        let fail = |source| CheckpointError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(fail)?;
        let about = file.metadata().map_err(fail)?;
        if about.is_dir() {
            return Err(CheckpointError::damaged(path.display(), "it is a folder, not a safetensors file"));
        }
        if about.len() == 0 {
            return Err(CheckpointError::damaged(path.display(), "it is empty"));
        }
        // Safety: the mapping is read only; a file that another program cuts short meanwhile ends this one, as it would
        // any reader of mapped files. Checkpoints of ours are never changed in place, only replaced.
        let map = unsafe { Mmap::map(&file) }.map_err(fail)?;
        Self::new(path.display().to_string(), Bytes::Mapped(map))
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
    // Names that end alike are what was meant, as a rule.
    let ending = name.rsplit('.').next().unwrap_or(name);
    names.sort_by_key(|n| (!n.ends_with(ending), n.len()));
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
        CheckpointError::Type {
            place: self.place.to_owned(),
            name: self.name.to_owned(),
            found: self.dtype.to_string(),
            wanted,
        }
    }
}

/// A tensor as the safetensors crate wants it.
struct Stored<'a>(&'a StoredTensor<'a>);

impl View for Stored<'_> {
    fn dtype(&self) -> StoredType {
        self.0.1
    }
    fn shape(&self) -> &[usize] {
        &self.0.2
    }
    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.0.3)
    }
    fn data_len(&self) -> usize {
        self.0.3.len()
    }
}

/// Writes `tensors` and `metadata` to `path`, atomically.
///
/// # Errors
/// The folder cannot be written to, or the disk is full; then `path` is as it was.
pub fn write_safetensors(
    path: &Path,
    tensors: &[StoredTensor<'_>],
    metadata: &BTreeMap<String, String>,
) -> Result<(), CheckpointError> {
    let metadata = metadata.clone().into_iter().collect();
    replace(path, |temporary| {
        // The crate makes its files readable by their owner alone; ours have the permissions that files have here.
        let permissions = File::create(temporary)?.metadata()?.permissions();
        let views = tensors.iter().map(|tensor| (&tensor.0, Stored(tensor)));
        safetensors::serialize_to_file(views, Some(metadata), temporary).map_err(|error| match error {
            safetensors::SafeTensorError::IoError(error) => error,
            other => io::Error::other(other),
        })?;
        fs::set_permissions(temporary, permissions)
    })
}
