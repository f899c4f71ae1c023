//! What a device reaches in a matrix product: what the time of a prompt is measured against.

use shaderlm::{
    graph::{Engine, Graph, GraphError, PlanOptions},
    ops::{self, HostTensor, TensorType},
};
use std::time::{Duration, Instant};

/// The product is done again and again for about so long, several times.
const LONG: Duration = Duration::from_millis(60);
const TIMES: usize = 5;

/// The best rate of the product `[m,k] x [k,n]` in 32-bit floats, by the kernel that plans take: floating-point operations a second.
///
/// # Errors
/// No memory for it, or a fault of the device.
pub(super) fn product_rate(engine: &mut Engine, [m, k, n]: [usize; 3]) -> Result<f64, GraphError> {
    const NAMES: [&str; 2] = ["bench.a", "bench.b"];
    let mut g = Graph::new();
    let mut factors = Vec::new();
    for (name, shape) in NAMES.into_iter().zip([[m, k], [k, n]]) {
        let values = (0..shape[0] * shape[1]).map(|i| (i % 17) as f32 / 8.0 - 1.0).collect();
        engine.set(name, &HostTensor::floats(shape, values))?;
        factors.push(g.variable(name, TensorType::f32(shape))?);
    }
    let y = ops::matmul(&mut g, factors[0], factors[1])?;
    let mut plan = engine.compile(g, &[y], &PlanOptions::named("product"))?;
    let mut time = |engine: &mut Engine, times: usize| -> Result<f64, GraphError> {
        let begin = Instant::now();
        plan.run_times(engine, times)?;
        plan.wait()?;
        Ok(begin.elapsed().as_secs_f64() / times as f64)
    };
    // The first run warms up, the second tells how many make the wait negligible.
    time(engine, 1)?;
    let times = (LONG.as_secs_f64() / time(engine, 1)?.max(1e-9)).ceil().clamp(1.0, 1000.0) as usize;
    let mut best = f64::INFINITY;
    for _ in 0..TIMES {
        best = best.min(time(engine, times)?);
    }
    NAMES.into_iter().for_each(|name| engine.remove(name));
    Ok((2 * m * k * n) as f64 / best.max(1e-12))
}
