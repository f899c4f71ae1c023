//! Times matrix products on the adapter: `cargo bench --bench matmul [-- M,N,K[,nn|nt|tn]...]`.

use shaderlm::{
    gpu::Autotune,
    graph::{Engine, EngineOptions, Graph, PlanOptions},
    ops::{self, HostTensor, Layout, TensorType},
};
use std::time::Instant;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let device = std::env::var("SHADERLM_DEVICE").unwrap_or_else(|_| "auto".into()).parse()?;
    let mut engine = Engine::new(&EngineOptions { device, notice: true, autotune: Autotune::default() })?;
    println!("{}", engine.device_name());
    let wanted: Vec<String> = std::env::args().skip(1).filter(|a| !a.starts_with("--")).collect();
    let shapes = if wanted.is_empty() {
        ["768,768,768,nn", "512,1024,256,nn", "512,256,1024,nt", "512,4096,256,nt", "256,1024,512,tn", "4096,256,512,tn"]
            .map(String::from)
            .to_vec()
    } else {
        wanted
    };
    for shape in shapes {
        let parts: Vec<_> = shape.split(',').collect();
        let [m, n, k] = [0, 1, 2].map(|i| parts.get(i).and_then(|p| p.parse::<usize>().ok()).unwrap_or(256));
        let kind = parts.get(3).copied().unwrap_or("nn");
        let layout = Layout { transpose_a: kind == "tn", transpose_b: kind == "nt", ..Layout::default() };
        let mut g = Graph::new();
        let a_shape = if layout.transpose_a { [k, m] } else { [m, k] };
        let b_shape = if layout.transpose_b { [n, k] } else { [k, n] };
        let a = g.input("a", TensorType::f32(a_shape));
        let b = g.input("b", TensorType::f32(b_shape));
        let y = ops::matmul_with(&mut g, a, b, None, layout)?;
        let mut plan = engine.compile(g, &[y], &PlanOptions::default())?;
        plan.set(a, HostTensor::floats(a_shape, vec![0.5; m * k]))?;
        plan.set(b, HostTensor::floats(b_shape, vec![0.25; n * k]))?;
        let mut times = Vec::new();
        for _ in 0..9 {
            let start = Instant::now();
            plan.run(&mut engine)?;
            plan.wait()?;
            times.push(start.elapsed().as_secs_f64());
        }
        times.sort_by(f64::total_cmp);
        let median = times[times.len() / 2];
        let gflops = 2.0 * (m * n * k) as f64 / median / 1e9;
        println!("{shape:>20}  {:8.3} ms  {gflops:7.1} GFLOP/s  (best {:.3} ms)", median * 1e3, times[0] * 1e3);
    }
    Ok(())
}
