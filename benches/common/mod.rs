//! What the benchmarks of models share.

use shaderlm::{gpu::Ceilings, graph::{Engine, Profiler}};
use std::{error::Error, io::BufRead, time::Instant};

/// Runs `work` twice untimed, then once a repetition, and prints a JSON line for each. With `paced` a line {"what":..,"ready":true}
/// follows the warm-up, and each repetition waits for a line on standard input; ends at end of input.
pub fn time(
    what: &str,
    repeats: usize,
    paced: bool,
    mut work: impl FnMut() -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..2 {
        work()?;
    }
    if paced {
        println!("{}", serde_json::json!({ "what": what, "ready": true }));
    }
    let mut lines = std::io::stdin().lock().lines();
    for repetition in 0.. {
        if paced {
            if lines.next().transpose()?.is_none() {
                break;
            }
        } else if repetition == repeats {
            break;
        }
        let start = Instant::now();
        work()?;
        println!("{}", serde_json::json!({ "what": what, "ms": start.elapsed().as_secs_f64() * 1e3 }));
    }
    Ok(())
}

/// Runs `work` as often as a profile wants, and prints its table, with the ceilings if `shaderlm bench ceilings` has measured them.
pub fn print_profile(
    engine: &mut Engine,
    profiler: &Profiler,
    mut work: impl FnMut(&mut Engine) -> Result<(), Box<dyn Error>>,
) -> Result<(), Box<dyn Error>> {
    for _ in 0..5 {
        work(engine)?;
    }
    print!("{}", profiler.collected().table(Ceilings::remembered(engine.capabilities()).as_ref()));
    Ok(())
}
