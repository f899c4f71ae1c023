//! Files that are replaced as a whole: whoever reads sees the old one or the new one, even after a power cut.

use super::CheckpointError;
use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
    process,
};

/// Writes `path` through a temporary file beside it, which is synced and then renamed. A pipe or a device that is there
/// already, such as /dev/stdout, is written into as it is: nothing may take its place.
///
/// # Errors
/// The folder cannot be written to, or the disk is full; then `path` is as it was, and no temporary file is left.
pub fn write_atomic(path: &Path, write: impl FnOnce(&mut BufWriter<File>) -> io::Result<()>) -> Result<(), CheckpointError> {
    let fail = |source| CheckpointError::Io { path: path.to_owned(), source };
    if fs::metadata(path).is_ok_and(|there| !there.is_file() && !there.is_dir()) {
        let mut out = BufWriter::new(OpenOptions::new().write(true).open(path).map_err(fail)?);
        return write(&mut out).and_then(|()| out.flush()).map_err(fail);
    }
    let temporary = temporary_name(path);
    let written = File::create(&temporary).and_then(|file| {
        let mut out = BufWriter::new(file);
        write(&mut out)?;
        out.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()
    });
    let result = written.and_then(|()| fs::rename(&temporary, path)).and_then(|()| sync_folder(path));
    result.map_err(|source| {
        // Whether it is there at all depends on what failed.
        let _ = fs::remove_file(&temporary);
        fail(source)
    })
}

/// Whether [`write_atomic`] could write `path` now: for finding out before the work whose result it is to hold.
///
/// # Errors
/// As [`write_atomic`]; `path` is as it was.
pub fn check_writable(path: &Path) -> Result<(), CheckpointError> {
    let fail = |source| CheckpointError::Io { path: path.to_owned(), source };
    match fs::metadata(path) {
        Ok(there) if there.is_dir() => Err(fail(io::ErrorKind::IsADirectory.into())),
        Ok(there) if !there.is_file() => OpenOptions::new().write(true).open(path).map(drop).map_err(fail),
        _ => {
            let temporary = temporary_name(path);
            File::create(&temporary).and_then(|_| fs::remove_file(&temporary)).map_err(fail)
        }
    }
}

/// Removes the temporary files that writers of `folder` left behind when they were killed.
pub fn remove_leftovers(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let parts: Vec<_> = name.rsplitn(3, '.').collect();
        if let ["tmp", process, _] = parts[..]
            && name.starts_with('.')
            && process.parse::<u32>().is_ok()
        {
            // If it cannot be removed it is in nobody's way.
            let _ = fs::remove_file(entry.path());
        }
    }
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
