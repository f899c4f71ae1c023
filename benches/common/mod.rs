//! What the benchmarks of models share.

use shaderlm::graph::DispatchTime;
use std::{collections::BTreeMap, error::Error, io::BufRead, time::Instant};

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

/// A row a kernel variant, the longest first. Short dispatches are overstated: each is submitted and waited for by itself.
pub fn print_profile(times: &[DispatchTime]) {
    let mut rows: BTreeMap<&str, (usize, f64, u64)> = BTreeMap::new();
    for t in times {
        let row = rows.entry(&t.kernel).or_default();
        *row = (row.0 + 1, row.1 + t.time.as_secs_f64() * 1e3, row.2 + t.flops);
    }
    let total: f64 = rows.values().map(|row| row.1).sum();
    let mut rows: Vec<_> = rows.into_iter().collect();
    rows.sort_by(|a, b| b.1.1.total_cmp(&a.1.1));
    println!("{:>6} {:>9} {:>6} {:>9}  kernel", "calls", "ms", "share", "GFLOP/s");
    for (kernel, (calls, ms, flops)) in rows {
        println!("{calls:>6} {ms:>9.2} {:>5.1}% {:>9.2}  {kernel}", 100.0 * ms / total, flops as f64 / ms / 1e6);
    }
    println!("{:>6} {total:>9.2}", times.len());
}
