//! `shaderlm graph`

use super::{
    CliResult,
    common::{DeviceArgs, refuse},
};
use shaderlm::{
    gpu::Capabilities,
    graph::{Graph, dot, gradients, rows},
    models::{Model, gpt2::{Context, Gpt2, parameters}},
    ops::TensorType,
};
use std::{io::Write, path::PathBuf};

/// Show a model's plan: operations, shapes, kernels, bytes and floating-point operations
#[derive(clap::Args)]
pub struct GraphCommand {
    /// A folder, or a repository of the Hub; by default the model in this program
    #[arg(long, value_name = "DIR|REPO")]
    model: Option<String>,
    /// Rows
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch: usize,
    /// Tokens a row; the model's context by default
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// With the loss and the backward pass
    #[arg(long)]
    backward: bool,
    /// Also write the recorded graph in Graphviz's language
    #[arg(long, value_name = "FILE")]
    dot: Option<PathBuf>,
    #[command(flatten)]
    device: DeviceArgs,
}

impl GraphCommand {
    pub fn run(self) -> CliResult {
        let model = Model::chosen(self.model.as_deref())?;
        let config = &model.config;
        let context = self.context.unwrap_or(config.n_positions);
        if self.batch == 0 || context == 0 || context > config.n_positions {
            return refuse(format!(
                "--batch {} --context {context}: at least 1 each, and no more context than the model's {}",
                self.batch, config.n_positions
            ));
        }
        let shape = [self.batch, context];
        let mut g = Graph::new();
        let ids = g.input("ids", TensorType::u32(shape));
        let gpt2 = Gpt2::new(config);
        let mut outputs = Vec::new();
        if self.backward {
            let targets = g.input("targets", TensorType::u32(shape));
            let loss = gpt2.loss(&mut g, ids, targets, None)?;
            let variables = parameters(config)
                .into_iter()
                .map(|p| g.variable(&p.name, TensorType::f32(p.shape)))
                .collect::<Result<Vec<_>, _>>()?;
            outputs.push(loss);
            outputs.extend(gradients(&mut g, loss, &variables)?.into_iter().flatten());
        } else {
            let states = gpt2.hidden_states(&mut g, ids, Context::Whole { keys: None })?;
            outputs.push(gpt2.head(&mut g, states[states.len() - 1])?);
        }
        if let Some(path) = &self.dot {
            std::fs::write(path, dot(&g)).map_err(|e| format!("--dot {}: {e}", path.display()))?;
        }
        let engine = self.device.engine()?;
        let portable;
        let caps = match engine.capabilities() {
            Some(caps) => caps,
            None => {
                portable = Capabilities::portable();
                &portable
            }
        };
        let table = rows(&g, &outputs, caps)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "plan for {}", engine.device_name())?;
        writeln!(out, "{:<12} {:<20} {:<22} {:>10} {:>10}  kernel", "layer", "operation", "shape", "MB", "MFLOP")?;
        for row in &table {
            writeln!(
                out,
                "{:<12} {:<20} {:<22} {:>10.3} {:>10.3}  {}",
                row.layer,
                row.operation,
                row.shape,
                row.bytes as f64 / 1e6,
                row.flops as f64 / 1e6,
                row.kernel
            )?;
        }
        let total = |f: fn(&shaderlm::graph::Row) -> u64| table.iter().map(f).sum::<u64>();
        writeln!(
            out,
            "{} operations, {:.1} MB, {:.3} GFLOP; {} parameters",
            table.len(),
            total(|r| r.bytes) as f64 / 1e6,
            total(|r| r.flops) as f64 / 1e9,
            config.parameters()
        )?;
        Ok(())
    }
}
