//! `--profile`: the trace's file, the table on standard error, and Ctrl-C.

use super::CliResult;
use shaderlm::{
    checkpoint::{check_writable, write_atomic},
    gpu::{Ceilings, DeviceChoice, Effort},
    graph::{Engine, Profiler},
};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// `--profile`
#[derive(clap::Args)]
pub struct ProfileArgs {
    /// Write what each dispatch of a few runs takes as a trace for Perfetto or chrome://tracing, and print a table
    #[arg(long, value_name = "FILE.json")]
    profile: Option<PathBuf>,
}

/// The profile that this process makes. Ctrl-C arrives on another thread and must find it.
struct Session {
    file: PathBuf,
    /// The profiler, and what the device was chosen by, once it is open.
    on: Option<(Arc<Profiler>, DeviceChoice)>,
    /// Ceilings that are known already.
    ceilings: Option<Ceilings>,
}

static SESSION: Mutex<Option<Session>> = Mutex::new(None);

/// Works on the session, if there is one.
fn with_session<T>(work: impl FnOnce(&mut Session) -> T) -> Option<T> {
    SESSION.lock().unwrap_or_else(PoisonError::into_inner).as_mut().map(work)
}

impl ProfileArgs {
    /// Makes sure that the file can be written, before any work begins. The engine that is opened next is profiled.
    pub fn begin(&self) -> CliResult {
        let Some(file) = &self.profile else { return Ok(()) };
        check_writable(file).map_err(|e| format!("--profile {e}"))?;
        let session = Session { file: file.clone(), on: None, ceilings: None };
        *SESSION.lock().unwrap_or_else(PoisonError::into_inner) = Some(session);
        super::common::on_interrupt()?;
        Ok(())
    }
}

/// Has `engine`, opened by `choice`, profiled if `--profile` asks for it.
pub fn attach(engine: &mut Engine, choice: &DeviceChoice) {
    with_session(|session| {
        session.ceilings = Ceilings::remembered(engine.capabilities());
        // `auto` may have fallen back to the CPU.
        let choice = if engine.capabilities().is_some() { choice.clone() } else { DeviceChoice::Cpu };
        session.on = Some((engine.profile(), choice));
    });
}

/// Writes the trace and prints the table, at the end of a command that `succeeded` or not. Measures the device's ceilings,
/// briefly, if they are not known.
pub fn finish(succeeded: bool) -> CliResult {
    let session = SESSION.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(Session { file, on: Some((profiler, choice)), ceilings }) = session else { return Ok(()) };
    let profile = profiler.collected();
    if profile.is_empty() && !succeeded {
        return Ok(());
    }
    write(&file, &profiler)?;
    let ceilings = ceilings.or_else(|| {
        if profile.is_empty() || !succeeded {
            return None;
        }
        eprintln!("shaderlm: measuring what the device can reach, once (shaderlm bench ceilings does it more carefully)");
        match Ceilings::measure(&choice, Effort::Brief, &mut |_, _, _| {}) {
            Ok(found) => {
                found.remember();
                Some(found)
            }
            Err(error) => {
                eprintln!("shaderlm: the device's ceilings could not be measured: {error}");
                None
            }
        }
    });
    eprint!("{}", profile.table(ceilings.as_ref()));
    eprintln!("trace in {}", file.display());
    Ok(())
}

/// Writes the trace and prints the table when Ctrl-C ends the process.
pub fn interrupted() {
    // Whoever holds the session is about to write it.
    let Some((file, profiler, ceilings)) =
        with_session(|s| s.on.as_ref().map(|on| (s.file.clone(), on.0.clone(), s.ceilings.clone()))).flatten()
    else {
        return;
    };
    match write(&file, &profiler) {
        Ok(()) => eprint!("\n{}trace in {}\n", profiler.collected().table(ceilings.as_ref()), file.display()),
        Err(error) => eprintln!("error: {error}"),
    }
}

fn write(file: &Path, profiler: &Profiler) -> CliResult {
    let profile = profiler.collected();
    Ok(write_atomic(file, |out| profile.write_trace(out)).map_err(|e| format!("--profile {e}"))?)
}
