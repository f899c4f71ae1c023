//! What was measured on an adapter: for each kind of work the kernels that can do it, and how long each took. Kept in the
//! user's cache folder, a file an adapter and driver.

use super::cache;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, hash_map::DefaultHasher},
    fs,
    hash::{Hash, Hasher},
    path::PathBuf,
    sync::Mutex,
};

/// Whether kernels are chosen by measuring.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Autotune {
    /// By rules of thumb
    Off,
    /// By what was measured before; on a real GPU large work that was not is measured, for three seconds at most, in mixed
    /// precision for thirty
    #[default]
    On,
    /// By measuring whatever was not measured before, however long it takes
    Full,
}

/// How long a kernel took, milliseconds; none for one whose results were wrong.
pub type Timings = BTreeMap<String, Option<f64>>;

/// The file.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Table {
    adapter: String,
    work: BTreeMap<String, Timings>,
}

/// Measurements of one adapter.
#[derive(Debug, Default)]
pub struct Tuning {
    /// When to measure.
    pub policy: Autotune,
    table: Mutex<Table>,
    path: Option<PathBuf>,
}

impl Tuning {
    /// What is known of the adapter that `about` describes. A file that cannot be read is as if it were not there.
    pub(super) fn open(about: String, policy: Autotune) -> Self {
        if policy == Autotune::Off {
            return Self { policy, ..Self::default() };
        }
        let mut hasher = DefaultHasher::new();
        // Other versions have other kernels.
        (&about, env!("CARGO_PKG_VERSION")).hash(&mut hasher);
        let path = cache::folder().map(|folder| folder.join(format!("tuning-{:016x}.json", hasher.finish())));
        let read = path.as_ref().and_then(|path| fs::read(path).ok());
        let table: Option<Table> = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let table = table.filter(|table| table.adapter == about).unwrap_or(Table { adapter: about, work: BTreeMap::new() });
        Self { policy, table: Mutex::new(table), path }
    }

    /// The kernels that were measured for `work`.
    pub fn timings(&self, work: &str) -> Option<Timings> {
        self.table.lock().ok()?.work.get(work).cloned()
    }

    /// The fastest of `kernels` for `work` that gave right results, if all were measured.
    pub fn best(&self, work: &str, kernels: &[String]) -> Option<usize> {
        let timings = self.timings(work)?;
        let mut best: Option<(usize, f64)> = None;
        for (i, kernel) in kernels.iter().enumerate() {
            if let Some(time) = *timings.get(kernel)?
                && best.is_none_or(|(_, least)| time < least)
            {
                best = Some((i, time));
            }
        }
        best.map(|b| b.0)
    }

    /// Everything that was measured: kinds of work with their kernels.
    pub fn all(&self) -> BTreeMap<String, Timings> {
        self.table.lock().map(|table| table.work.clone()).unwrap_or_default()
    }

    /// Remembers measurements, on disk too. A file that cannot be written costs only time at the next start.
    pub fn remember(&self, work: &str, timings: Timings) {
        let Ok(mut table) = self.table.lock() else { return };
        table.work.insert(work.to_owned(), timings);
        let (Some(path), Ok(bytes)) = (&self.path, serde_json::to_vec_pretty(&*table)) else { return };
        cache::write(path, &bytes);
    }
}
