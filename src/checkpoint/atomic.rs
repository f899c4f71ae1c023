//! Files that are replaced as a whole: whoever reads sees the old one or the new one, even after a power cut.

use super::CheckpointError;
use std::{
    fs::{self, File},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
};

/// Writes `path` through a temporary file beside it, which is synced and then renamed.
///
/// # Errors
/// The folder cannot be written to, or the disk is full; then `path` is as it was, and no temporary file is left.
pub fn write_atomic(
    path: &Path,
    write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>,
) -> Result<(), CheckpointError> {
    replace(path, |temporary| {
        let mut out = BufWriter::new(File::create(temporary)?);
        write(&mut out)?;
        out.flush()
    })
}

/// As [`write_atomic`], for writers that want a path: `write` makes the file that it is given.
///
/// # Errors
/// As [`write_atomic`].
pub fn replace(path: &Path, write: impl FnOnce(&Path) -> io::Result<()>) -> Result<(), CheckpointError> {
    let temporary = temporary_name(path);
    let result = write(&temporary)
        .and_then(|()| File::options().write(true).open(&temporary)?.sync_all())
        .and_then(|()| fs::rename(&temporary, path))
        .and_then(|()| sync_folder(path));
    result.map_err(|source| {
        // Whether it is there at all depends on what failed.
        let _ = fs::remove_file(&temporary);
        CheckpointError::Io { path: path.to_owned(), source }
    })
}

/// A name in the same folder, so that the rename stays within one file system.
fn temporary_name(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.{}.tmp", process::id()))
}

/// The rename itself is durable once the folder is synced. Windows has no such call.
fn sync_folder(path: &Path) -> io::Result<()> {
    if cfg!(unix) {
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(folder)?.sync_all()?;
    }
    Ok(())
}
