//! The user's cache folder: what costs time to find out again, and nothing else.

use std::path::{Path, PathBuf};

/// The user's cache folder for shaderlm: `SHADERLM_CACHE`, else `$XDG_CACHE_HOME/shaderlm`, else `~/.cache/shaderlm`.
pub(super) fn folder() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    set("SHADERLM_CACHE").or_else(|| {
        set("XDG_CACHE_HOME")
            .or_else(|| set("LOCALAPPDATA"))
            .or_else(|| set("HOME").map(|home| home.join(".cache")))
            .map(|base| base.join("shaderlm"))
    })
}

/// Replaces the file as a whole. A cache that cannot be written costs only time at the next start, so failures are not reported.
pub(super) fn write(path: &Path, data: &[u8]) {
    let Some(folder) = path.parent() else { return };
    let temporary = path.with_extension(format!("{}.tmp", std::process::id()));
    if std::fs::create_dir_all(folder).is_ok() && std::fs::write(&temporary, data).is_ok() {
        let _ = std::fs::rename(&temporary, path);
    }
}
