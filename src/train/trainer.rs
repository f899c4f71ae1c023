//! The training step as one plan: forward, loss, backward, clipping and the optimizer.

use super::{Batch, Schedule, TrainError};
use crate::{
    graph::{DispatchTime, Engine, Graph, Plan, PlanOptions, PlanStats, gradients},
    ops::{self, AdamW, HostTensor, OpError, Recorder, Shape, Tensor, TensorType},
};

/// What the loss function is given to record with.
pub struct LossInputs {
    /// `[batch, context]` u32.
    pub ids: Tensor,
    /// `[batch, context]` u32: the next tokens.
    pub targets: Tensor,
    /// `[2]` u32, seed and step: dropout's random state. Absent in evaluation.
    pub rng: Option<Tensor>,
}

/// A parameter of the model.
#[derive(Debug, Clone)]
pub struct ParameterType {
    /// The variable's name.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
}

/// The rule that moves parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Optimizer {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    Adamw,
    /// Stochastic gradient descent with momentum (`--beta1`).
    Sgd,
}

/// How to train.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Rows of a micro-batch.
    pub batch: usize,
    /// Micro-batches a step.
    pub accumulate: usize,
    /// Tokens of a row.
    pub context: usize,
    /// The rule that moves parameters.
    pub optimizer: Optimizer,
    /// Learning rates.
    pub schedule: Schedule,
    /// Decay of matrices and embeddings; biases and layer norms have none.
    pub weight_decay: f32,
    /// Decay of the first moment, or the momentum.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Largest global norm of the gradient; 0 for no clipping.
    pub clip: f32,
    /// Seed of data order and dropout.
    pub seed: u32,
}

/// What a step gave.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    /// Mean loss over the step's tokens, nats.
    pub loss: f32,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f32,
    /// Learning rate.
    pub rate: f32,
}

/// A planned training step and a planned evaluation.
pub struct Trainer {
    settings: Settings,
    plan: Plan,
    micro: Vec<(Tensor, Tensor)>,
    rng: Tensor,
    hyper: Tensor,
    loss: Tensor,
    norm: Tensor,
    eval: Plan,
    eval_inputs: (Tensor, Tensor),
    eval_losses: Tensor,
    state: Vec<(String, Shape)>,
}

/// Records a mean loss `[]` for the inputs.
pub type LossFn<'a> = dyn Fn(&mut Graph, &LossInputs) -> Result<Tensor, OpError> + 'a;

impl Trainer {
    /// Plans the step and the evaluation. Parameters must be in `engine` already; moments begin at zero.
    ///
    /// # Errors
    /// The graph does not fit the device.
    pub fn new(
        engine: &mut Engine,
        parameters: &[ParameterType],
        loss: &LossFn<'_>,
        settings: Settings,
    ) -> Result<Self, TrainError> {
        let shape = [settings.batch, settings.context];
        let mut g = Graph::new();
        let rng = g.input("rng", TensorType::u32([2]));
        let hyper = g.input("hyper", TensorType::f32([3]));
        let variables: Vec<_> = parameters
            .iter()
            .map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone())))
            .collect::<Result<_, _>>()?;

        // Each micro-batch's backward pass follows its forward pass, so that only one set of activations is alive.
        let mut micro = Vec::new();
        let mut total: Option<Tensor> = None;
        let mut sums: Vec<Option<Tensor>> = vec![None; variables.len()];
        for _ in 0..settings.accumulate {
            let ids = g.input("ids", TensorType::u32(shape));
            let targets = g.input("targets", TensorType::u32(shape));
            let mean = loss(&mut g, &LossInputs { ids, targets, rng: Some(rng) })?;
            let part = if settings.accumulate > 1 {
                ops::scale(&mut g, mean, 1.0 / settings.accumulate as f32)?
            } else {
                mean
            };
            let found = gradients(&mut g, part, &variables)?;
            for (sum, grad) in sums.iter_mut().zip(found) {
                *sum = match (*sum, grad) {
                    (Some(sum), Some(grad)) => Some(ops::add(&mut g, sum, grad)?),
                    (sum, grad) => sum.or(grad),
                };
            }
            total = Some(match total {
                Some(total) => ops::add(&mut g, total, part)?,
                None => part,
            });
            micro.push((ids, targets));
        }
        let total = total.ok_or_else(|| TrainError::Setting { flag: "--accumulate", reason: "must be at least 1".into() })?;

        let grads: Vec<_> = sums.iter().flatten().copied().collect();
        let norm = g.layer("clip", |g| ops::global_norm(g, &grads))?;
        let factor = if settings.clip > 0.0 {
            Some(g.layer("clip", |g| ops::clip_factor(g, norm, settings.clip))?)
        } else {
            None
        };
        let mut state: Vec<_> = parameters.iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
        for ((parameter, &variable), grad) in parameters.iter().zip(&variables).zip(&sums) {
            let Some(grad) = *grad else { continue };
            let ty = g.ty(variable).clone();
            let first = format!("optimizer.first.{}", parameter.name);
            let second = format!("optimizer.second.{}", parameter.name);
            // Matrices and embeddings decay; biases and layer norms do not.
            let weight_decay = if parameter.shape.rank() > 1 { settings.weight_decay } else { 0.0 };
            let m = g.variable(&first, ty.clone())?;
            state.push((first, parameter.shape.clone()));
            match settings.optimizer {
                Optimizer::Adamw => {
                    let v = g.variable(&second, ty)?;
                    state.push((second, parameter.shape.clone()));
                    let rule = AdamW { beta1: settings.beta1, beta2: settings.beta2, eps: settings.eps, weight_decay };
                    g.layer("adamw", |g| ops::adamw(g, variable, grad, m, v, hyper, factor, rule))?;
                }
                Optimizer::Sgd => {
                    g.layer("sgd", |g| ops::sgd(g, variable, grad, Some(m), hyper, factor, settings.beta1, weight_decay))?;
                }
            }
        }
        let plan = engine.compile(g, &[total, norm], &PlanOptions::default())?;

        let mut g = Graph::new();
        let ids = g.input("ids", TensorType::u32(shape));
        let targets = g.input("targets", TensorType::u32(shape));
        let eval_losses = loss(&mut g, &LossInputs { ids, targets, rng: None })?;
        let eval = engine.compile(g, &[eval_losses], &PlanOptions::default())?;
        Ok(Self {
            settings,
            plan,
            micro,
            rng,
            hyper,
            loss: total,
            norm,
            eval,
            eval_inputs: (ids, targets),
            eval_losses,
            state,
        })
    }

    /// Runs step `step` (from 0) on its micro-batches.
    ///
    /// # Errors
    /// The device fails, or the loss is no number.
    pub fn step(&mut self, engine: &mut Engine, step: usize, batches: &[Batch]) -> Result<Outcome, TrainError> {
        let s = &self.settings;
        let shape = [s.batch, s.context];
        for (&(ids, targets), batch) in self.micro.iter().zip(batches) {
            self.plan.set(ids, HostTensor::uints(shape, batch.ids.clone()))?;
            self.plan.set(targets, HostTensor::uints(shape, batch.targets.clone()))?;
        }
        let rate = s.schedule.rate(step);
        let correction = |beta: f32| (1.0 - f64::from(beta).powi(step as i32 + 1)) as f32;
        self.plan.set(self.rng, HostTensor::uints([2], vec![s.seed, step as u32]))?;
        self.plan.set(self.hyper, HostTensor::floats([3], vec![rate, correction(s.beta1), correction(s.beta2)]))?;
        self.plan.run(engine)?;
        let loss = self.plan.get(self.loss)?.f()[0];
        let grad_norm = self.plan.get(self.norm)?.f()[0];
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step: step + 1, loss });
        }
        Ok(Outcome { loss, grad_norm, rate })
    }

    /// The mean loss over `batches`, weighted by their counted targets, nats a token.
    ///
    /// # Errors
    /// The device fails.
    pub fn evaluate(
        &mut self,
        engine: &mut Engine,
        batches: &[Batch],
        mut progress: impl FnMut(usize),
    ) -> Result<f64, TrainError> {
        let shape = [self.settings.batch, self.settings.context];
        let (mut sum, mut count) = (0.0, 0usize);
        for (i, batch) in batches.iter().enumerate() {
            self.eval.set(self.eval_inputs.0, HostTensor::uints(shape, batch.ids.clone()))?;
            self.eval.set(self.eval_inputs.1, HostTensor::uints(shape, batch.targets.clone()))?;
            self.eval.run(engine)?;
            let counted = batch.targets.iter().filter(|&&t| t != ops::IGNORE).count();
            sum += f64::from(self.eval.get(self.eval_losses)?.f()[0]) * counted as f64;
            count += counted;
            progress(i + 1);
        }
        Ok(sum / count.max(1) as f64)
    }

    /// Names and shapes of everything that a resumed run needs.
    pub fn state(&self) -> &[(String, Shape)] {
        &self.state
    }

    /// What each dispatch of the training step takes, run by itself on the last batch. It does move the parameters.
    ///
    /// # Errors
    /// The device fails.
    pub fn profile(&self) -> Result<Vec<DispatchTime>, TrainError> {
        Ok(self.plan.profile()?)
    }

    /// Sizes of the training step's plan.
    pub fn stats(&self) -> PlanStats {
        self.plan.stats()
    }
}
