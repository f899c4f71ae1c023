//! What subcommands share: the device, wrong settings, texts, Ctrl-C, progress bars.

use super::profile;
use indicatif::{ProgressBar, ProgressStyle, style::TemplateError};
use shaderlm::{
    gpu::{Autotune, DeviceChoice},
    graph::{Engine, EngineOptions, GraphError},
};
use std::{
    io::{IsTerminal, Read},
    sync::{
        Arc, Mutex, Once, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

/// `--device`
#[derive(clap::Args)]
pub struct DeviceArgs {
    /// Where to run: auto, cpu, a number from `shaderlm devices`, or a part of an adapter's name
    #[arg(long, env = "SHADERLM_DEVICE", default_value = "auto", value_name = "DEVICE")]
    pub device: DeviceChoice,
    /// Choose kernels by measuring
    #[arg(long, env = "SHADERLM_AUTOTUNE", value_enum, default_value_t, value_name = "WHEN")]
    pub autotune: Autotune,
}

impl DeviceArgs {
    /// Opens the device.
    pub fn engine(&self) -> Result<Engine, GraphError> {
        let options = EngineOptions { device: self.device.clone(), notice: true, autotune: self.autotune };
        let mut engine = Engine::new(&options)?;
        profile::attach(&mut engine, &self.device);
        Ok(engine)
    }
}

/// A setting that does not fit, as one sentence with the flag in it.
pub fn refuse<T>(message: impl Into<String>) -> Result<T, Box<dyn std::error::Error>> {
    Err(message.into().into())
}

/// Parses a number that must be finite and within a range, for clap.
pub fn number_in(low: f32, high: f32) -> impl Fn(&str) -> Result<f32, String> + Clone {
    move |text| {
        let value: f32 = text.parse().map_err(|_| format!("{text:?} is not a number"))?;
        if value.is_finite() && value >= low && value <= high { Ok(value) } else { Err(format!("must be from {low} to {high}")) }
    }
}

/// The flag that the first Ctrl-C sets, where somebody looks at one.
static STOP: Mutex<Option<Arc<AtomicBool>>> = Mutex::new(None);
static HANDLER: Once = Once::new();

/// Has Ctrl-C write the profile before it ends the process, unless somebody looks at the stop flag.
pub fn on_interrupt() -> Result<(), ctrlc::Error> {
    let mut result = Ok(());
    HANDLER.call_once(|| {
        result = ctrlc::set_handler(|| {
            let flag = STOP.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if flag.is_none_or(|flag| flag.swap(true, Ordering::SeqCst)) {
                profile::interrupted();
                leave(130);
            }
        });
    });
    result
}

/// Ends the process while another thread may be in the driver. Nothing is torn down before: libraries that were would crash
/// that thread.
fn leave(code: i32) -> ! {
    #[cfg(unix)]
    // Safety: it ends the process, and runs nothing in it.
    unsafe {
        libc::_exit(code)
    }
    #[cfg(not(unix))]
    std::process::exit(code)
}

/// A flag that Ctrl-C sets. A second Ctrl-C does not wait for whoever looks at it.
pub fn stop_flag() -> Result<Arc<AtomicBool>, ctrlc::Error> {
    let stop = Arc::new(AtomicBool::new(false));
    *STOP.lock().unwrap_or_else(PoisonError::into_inner) = Some(stop.clone());
    on_interrupt()?;
    Ok(stop)
}

/// Figures as words.
pub fn words(figures: &std::collections::BTreeMap<String, f64>) -> String {
    figures.iter().map(|(name, value)| format!(", {} {value:.4}", name.replace('_', " "))).collect()
}

/// Colour is for eyes only (https://no-color.org).
pub fn colour() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Prints a line to standard output. Work that takes long goes on when nobody reads it any more.
macro_rules! say {
    ($($arg:tt)*) => {{
        use std::io::Write as _;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}
pub(crate) use say;

/// The arguments, or else the lines of standard input: at least one text, none empty.
pub fn texts_or_lines(arguments: &[String]) -> Result<Vec<String>, Box<dyn std::error::Error>> {
    let mut texts = arguments.to_vec();
    if texts.is_empty() && !std::io::stdin().is_terminal() {
        let mut bytes = Vec::new();
        std::io::stdin().read_to_end(&mut bytes)?;
        let text = String::from_utf8(bytes)
            .map_err(|e| format!("standard input is not UTF-8: a bad byte at {}", e.utf8_error().valid_up_to()))?;
        texts = text.lines().map(str::to_owned).collect();
    }
    if texts.is_empty() {
        return refuse("there is no text; give some as arguments, or lines on standard input");
    }
    match texts.iter().position(|text| text.trim().is_empty()) {
        Some(at) => refuse(format!("text {} is empty", at + 1)),
        None => Ok(texts),
    }
}

/// A progress bar on standard error, silent when that is no terminal. `template` is indicatif's.
pub fn progress_bar(length: usize, template: &str) -> Result<ProgressBar, TemplateError> {
    let bar = if std::io::stderr().is_terminal() { ProgressBar::new(length as u64) } else { ProgressBar::hidden() };
    bar.set_style(ProgressStyle::with_template(template)?);
    Ok(bar)
}
