//! Each kernel that can do some work, one after the other, checked against the simplest.

use super::{Case, Report};
use shaderlm::{
    graph::{Engine, Graph, Plan, PlanOptions, decisions},
    ops::{Precision, Tensor},
};
use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
};

/// Where operands may be rounded they are stored so.
pub fn options(precision: Precision, operands: &[Tensor]) -> PlanOptions {
    let halves = if precision == Precision::Mixed { operands.to_vec() } else { Vec::new() };
    PlanOptions { precision, halves, ..PlanOptions::default() }
}

/// The lists of kernels between which a plan of `outputs` chooses.
///
/// # Errors
/// There is no adapter, or the graph does not fit it.
pub fn lists(engine: &Engine, g: &Graph, outputs: &[Tensor], options: &PlanOptions) -> Result<Vec<Vec<String>>, Box<dyn Error>> {
    let Some(caps) = engine.capabilities() else {
        return Err("--kernels needs an adapter; the CPU has one way to compute".into());
    };
    Ok(decisions(g, outputs, caps, options)?.into_iter().map(|decision| decision.kernels).collect())
}

/// Times the kernels called `names` in turn on the work that `plan` makes for the kernel of a number, and whose results are to differ
/// by no more than `wrong`, squared and as a part of their size. One that goes wrong is a line in the table, and takes no turn.
///
/// # Errors
/// No device opens any more, or there is no memory for all of them.
pub fn each(
    engine: &mut Engine,
    report: &mut Report,
    (series, wrong): (&str, f64),
    names: &[String],
    plan: impl Fn(&mut Engine, usize) -> Result<(Plan, Vec<Tensor>), Box<dyn Error>>,
    case: impl Fn(Plan, String) -> Case<'static>,
) -> Result<(), Box<dyn Error>> {
    let mut expected: Option<Vec<f32>> = None;
    let mut fit = Vec::new();
    for (choice, name) in names.iter().enumerate() {
        let mut right = || -> Result<(), Box<dyn Error>> {
            let (mut plan, outputs) = plan(engine, choice)?;
            plan.run(engine)?;
            let mut found = Vec::new();
            for output in outputs {
                found.extend_from_slice(plan.get(output)?.f());
            }
            let off = error(&found, expected.get_or_insert_with(|| found.clone()));
            if off > wrong {
                return Err(format!("wrong: squared error {off:.1e} of the simplest kernel's result").into());
            }
            Ok(())
        };
        // naga panics at some of what it cannot translate.
        let reason = match catch_unwind(AssertUnwindSafe(&mut right)) {
            Ok(Ok(())) => {
                fit.push((choice, name));
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => "a panic, above".into(),
        };
        report.failed(series, name, reason.lines().next().unwrap_or_default());
        // The next gets a device that is not touched by it.
        *engine = super::engine()?;
    }
    let mut cases = Vec::new();
    for (choice, name) in fit {
        cases.push(case(plan(engine, choice)?.0, name.clone()));
    }
    report.group(engine, cases)
}

/// The squared error of `found` as a part of the squared size of `expected`; what is no number is an infinite one.
fn error(found: &[f32], expected: &[f32]) -> f64 {
    let off: f64 = found.iter().zip(expected).map(|(f, e)| f64::from(f - e).powi(2)).sum();
    let size: f64 = expected.iter().map(|&e| f64::from(e).powi(2)).sum();
    let part = off / size.max(f64::MIN_POSITIVE);
    if part.is_nan() { f64::INFINITY } else { part }
}
