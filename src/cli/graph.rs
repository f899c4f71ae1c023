//! `shaderlm graph`

use super::{
    CliResult,
    common::{DeviceArgs, refuse},
    forward::chosen_head,
};
use shaderlm::{
    checkpoint::write_atomic,
    gpu::Capabilities,
    graph::{Graph, Memory, PlanOptions, Row, decisions, dot, gradients, memory, rows},
    models::{Inputs, Mode, Model, Parameter, SHAKESPEARE},
    ops::{Precision, Tensor, TensorType},
};
use std::{error::Error, io::Write, path::PathBuf};

/// Which plan of which model, on which device.
#[derive(clap::Args)]
pub struct PlanArgs {
    /// A folder, or a repository of the Hub; by default the built-in GPT-2
    #[arg(long, value_name = "DIR|REPO")]
    model: Option<String>,
    /// Rows at once
    #[arg(long, value_name = "B", default_value_t = 1)]
    batch: usize,
    /// Tokens a row; the model's context by default
    #[arg(long, value_name = "T")]
    context: Option<usize>,
    /// Another head than config.json names, of an encoder: base, masked-lm, pretraining, next-sentence, sequence, tokens, qa, choice,
    /// replaced
    #[arg(long, value_name = "NAME")]
    head: Option<String>,
    /// With the loss and the backward pass
    #[arg(long)]
    backward: bool,
    /// Keep only what each layer begins with for the backward pass, and compute the rest again: less memory, more work
    #[arg(long, requires = "backward")]
    recompute: bool,
    /// What the plan may round
    #[arg(long, value_enum, default_value_t)]
    precision: Precision,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Show a model's plan: operations, shapes, kernels, bytes and floating-point operations
#[derive(clap::Args)]
pub struct GraphCommand {
    #[command(flatten)]
    plan: PlanArgs,
    /// Also write the recorded graph in Graphviz's language
    #[arg(long, value_name = "FILE")]
    dot: Option<PathBuf>,
}

impl GraphCommand {
    pub fn run(self) -> CliResult {
        let Recorded { graph: g, outputs, parameters } = self.plan.record()?;
        if let Some(path) = &self.dot {
            write_atomic(path, |out| out.write_all(dot(&g).as_bytes())).map_err(|e| format!("--dot {e}"))?;
        }
        let engine = self.plan.device.engine()?;
        let portable;
        let caps = match engine.capabilities() {
            Some(caps) => caps,
            None => {
                portable = Capabilities::portable();
                &portable
            }
        };
        let options = self.plan.options();
        let table = rows(&g, &outputs, caps, &options)?;
        let mut out = std::io::stdout().lock();
        writeln!(out, "plan for {}", engine.device_name())?;
        // As wide as the longest entry: an operation with several outputs has several shapes.
        let wide = |field: fn(&Row) -> &str, least: usize| table.iter().map(|r| field(r).len()).max().unwrap_or(0).max(least);
        let (l, o, s) = (wide(|r| &r.layer, 5), wide(|r| &r.operation, 9), wide(|r| &r.shape, 5));
        writeln!(out, "{:<l$}  {:<o$}  {:<s$} {:>10} {:>10}  kernel", "layer", "operation", "shape", "MB", "MFLOP")?;
        for row in &table {
            writeln!(
                out,
                "{:<l$}  {:<o$}  {:<s$} {:>10.3} {:>10.3}  {}",
                row.layer,
                row.operation,
                row.shape,
                row.bytes as f64 / 1e6,
                row.flops as f64 / 1e6,
                row.kernel
            )?;
        }
        let total = |f: fn(&Row) -> u64| table.iter().map(f).sum::<u64>();
        writeln!(
            out,
            "{} operations, {:.1} MB, {:.3} GFLOP; {} parameters",
            table.len(),
            total(|r| r.bytes) as f64 / 1e6,
            total(|r| r.flops) as f64 / 1e9,
            parameters.iter().map(|p| p.shape.elements()).sum::<usize>()
        )?;
        let Memory { arena, images, variables, .. } = memory(&g, &outputs, caps, &options)?;
        let mb = |bytes: u64| bytes as f64 / 1e6;
        writeln!(
            out,
            "memory: {:.1} MB for variables, {:.1} MB for what a run makes, {:.1} MB for images",
            mb(variables),
            mb(arena),
            mb(images)
        )?;
        let choices = decisions(&g, &outputs, caps, &options)?;
        if !choices.is_empty() {
            writeln!(out, "kernels that were chosen")?;
        }
        for decision in choices {
            let timings = caps.tuning.timings(&decision.work).unwrap_or_default();
            let (chosen, why) = match decision.measured {
                Some(best) => {
                    let time = timings.get(&decision.kernels[best]).copied().flatten().unwrap_or_default();
                    (best, format!("measured, {time:.3} ms, the fastest of {}", decision.kernels.len()))
                }
                None => (decision.rule, "by rule of thumb; `shaderlm tune` measures".to_owned()),
            };
            writeln!(out, "  {:<28}  {:<32}  {why}", decision.work, decision.kernels[chosen])?;
        }
        Ok(())
    }
}

/// A recorded model.
pub struct Recorded {
    pub graph: Graph,
    /// What is asked of it.
    pub outputs: Vec<Tensor>,
    pub parameters: Vec<Parameter>,
}

impl PlanArgs {
    /// How to plan.
    pub fn options(&self) -> PlanOptions {
        PlanOptions { precision: self.precision, ..PlanOptions::default() }
    }

    /// Records the model, with the loss and its gradients if they are wanted.
    pub fn record(&self) -> Result<Recorded, Box<dyn Error>> {
        let model = Model::chosen(self.model.as_deref(), &SHAKESPEARE)?;
        let head = chosen_head(&model, self.head.as_deref())?;
        let most = model.config.positions();
        let context = self.context.unwrap_or(most);
        if self.batch == 0 || context == 0 || context > most {
            return refuse(format!(
                "--batch {} --context {context}: at least 1 each, and no more context than the model's {most}",
                self.batch
            ));
        }
        let choices = if head.chooses() { 2 } else { 1 };
        let inputs = Inputs { rows: self.batch * choices, time: context, choices, mask: false, types: false };
        let parameters = model.parameters(head)?;
        let mut g = Graph::new();
        let recording = model.record(&mut g, head, inputs, Mode { recompute: self.recompute, ..Mode::default() })?;
        let mut outputs: Vec<_> = recording.outputs.named.iter().map(|n| n.1).collect();
        if self.backward {
            let (_, loss) = recording.loss(&mut g, &model.config, head)?;
            let variables = parameters
                .iter()
                .map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone())))
                .collect::<Result<Vec<_>, _>>()?;
            outputs = vec![loss];
            outputs.extend(gradients(&mut g, loss, &variables)?.into_iter().flatten());
        }
        Ok(Recorded { graph: g, outputs, parameters })
    }
}
