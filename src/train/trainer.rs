//! The training step as one plan: forward, loss, backward, clipping and the optimizer.

use super::{Schedule, TrainError};
use crate::{
    graph::{Engine, Graph, Plan, PlanOptions, PlanStats, gradients},
    ops::{self, AdamW, AdamWTensor, HostTensor, Lamb, OpError, Precision, Recorder, Sgd, Shape, Tensor, TensorType},
};

/// What a model is trained on: the inputs of a micro-batch, and the loss that they give.
pub struct Objective<'a> {
    /// Name and type of each input.
    pub inputs: Vec<(&'static str, TensorType)>,
    /// Records the loss.
    pub loss: &'a LossFn<'a>,
}

/// Records the loss for the inputs, which come in the order of [`Objective::inputs`]. The last argument is dropout's random
/// state, `[2]` u32, seed (each micro-batch's own) and step; absent in evaluation.
pub type LossFn<'a> = dyn Fn(&mut Graph, &[Tensor], Option<Tensor>) -> Result<Loss, OpError> + 'a;

/// What a loss function records.
pub struct Loss {
    /// The mean loss `[]`, nats.
    pub loss: Tensor,
    /// What else the host reads: parts of the loss, predictions.
    pub others: Vec<Tensor>,
}

impl From<Tensor> for Loss {
    fn from(loss: Tensor) -> Self {
        Self { loss, others: Vec::new() }
    }
}

/// Values for [`Objective::inputs`].
pub type Batch = Vec<HostTensor<f32>>;

/// A parameter of the model.
#[derive(Debug, Clone)]
pub struct ParameterType {
    /// The variable's name.
    pub name: String,
    /// Its shape.
    pub shape: Shape,
    /// Whether weight decay (and LAMB's adaptation) applies to it: to matrices and embeddings, not to biases and layer norms.
    pub decays: bool,
    /// Multiplies the learning rate: layer-wise decay; 1 for none.
    pub rate: f32,
}

/// The rule that moves parameters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Optimizer {
    /// Adam with decoupled weight decay (Loshchilov and Hutter 2019).
    Adamw,
    /// Adam whose step is scaled to each parameter's norm (You et al. 2020), as in ALBERT's code: no bias correction.
    Lamb,
    /// Stochastic gradient descent with momentum (`--beta1`).
    Sgd,
}

/// How to train.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Rows of a micro-batch, for the record.
    pub batch: usize,
    /// Micro-batches a step.
    pub accumulate: usize,
    /// Tokens of a row, for the record.
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
    /// Whether AdamW's moments are divided by 1 - beta^step, as in PyTorch; the optimizers of BERT's, ALBERT's and ELECTRA's code
    /// do not. LAMB never does.
    pub bias_correction: bool,
    /// Largest global norm of the gradient; 0 for no clipping.
    pub clip: f32,
    /// What the step's forward and backward passes may round. The evaluation rounds nothing.
    pub precision: Precision,
    /// Seed of data order and dropout.
    pub seed: u32,
}

/// What a step gave.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// Mean loss over the step's micro-batches, nats.
    pub loss: f32,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f32,
    /// Learning rate.
    pub rate: f32,
    /// Of a mixed step: the loss scale that the next one has, and how many have been skipped in all because their gradients
    /// overflowed, this one among them if its norm is not finite.
    pub scale: Option<(f32, usize)>,
    /// Of each micro-batch, [`Loss::others`].
    pub others: Vec<Vec<HostTensor<f32>>>,
}

impl Outcome {
    /// Figures of mixed training, for the log; none of other training.
    pub fn scaling(&self) -> impl Iterator<Item = (String, f64)> {
        let figures = self.scale.map(|(scale, skipped)| [("loss_scale", f64::from(scale)), ("skipped_steps", skipped as f64)]);
        figures.into_iter().flatten().map(|(name, value)| (name.to_owned(), value))
    }

    /// How many steps were skipped, in words; empty if none were.
    pub fn skipped(&self) -> String {
        match self.scale {
            Some((_, skipped @ 1..)) => format!("; {skipped} of the steps skipped, since their gradients overflowed"),
            _ => String::new(),
        }
    }
}

/// A recorded micro-batch.
struct Micro {
    inputs: Vec<Tensor>,
    /// Dropout's random state.
    rng: Tensor,
    others: Vec<Tensor>,
}

/// The variable of [`ops::loss_scale`]'s state.
const LOSS_SCALE: &str = "optimizer.loss_scale";

/// A planned training step and a planned evaluation.
pub struct Trainer {
    settings: Settings,
    plan: Plan,
    micro: Vec<Micro>,
    hyper: Tensor,
    loss: Tensor,
    norm: Tensor,
    eval: Plan,
    eval_inputs: Vec<Tensor>,
    eval_loss: Loss,
    state: Vec<(String, Shape)>,
}

impl Trainer {
    /// Plans the step and the evaluation. Parameters must be in `engine` already; moments begin at zero.
    ///
    /// # Errors
    /// The graph does not fit the device.
    pub fn new(
        engine: &mut Engine,
        parameters: &[ParameterType],
        objective: &Objective<'_>,
        settings: Settings,
    ) -> Result<Self, TrainError> {
        let mut g = Graph::new();
        let hyper = g.input("hyper", TensorType::f32([3]));
        let variables: Vec<_> =
            parameters.iter().map(|p| g.variable(&p.name, TensorType::f32(p.shape.clone()))).collect::<Result<_, _>>()?;
        let feed =
            |g: &mut Graph| -> Vec<Tensor> { objective.inputs.iter().map(|(name, ty)| g.input(name, ty.clone())).collect() };

        let scaling =
            if settings.precision == Precision::Mixed { Some(g.variable(LOSS_SCALE, TensorType::f32([3]))?) } else { None };
        // Each micro-batch's backward pass follows its forward pass, so that only one set of activations is alive.
        let mut micro = Vec::new();
        let mut total: Option<Tensor> = None;
        let mut sums: Vec<Option<Tensor>> = vec![None; variables.len()];
        for _ in 0..settings.accumulate {
            let inputs = feed(&mut g);
            let rng = g.input("rng", TensorType::u32([2]));
            let Loss { loss: mean, others } = (objective.loss)(&mut g, &inputs, Some(rng))?;
            let part = if settings.accumulate > 1 { ops::scale(&mut g, mean, 1.0 / settings.accumulate as f32)? } else { mean };
            let scaled = match scaling {
                Some(state) => {
                    let scale = ops::slice(&mut g, state, 0, 0..1)?;
                    let scale = ops::reshape(&mut g, scale, [])?;
                    ops::mul(&mut g, part, scale)?
                }
                None => part,
            };
            let found = gradients(&mut g, scaled, &variables)?;
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
            micro.push(Micro { inputs, rng, others });
        }
        let total = total.ok_or_else(|| TrainError::Setting { flag: "--accumulate", reason: "must be at least 1".into() })?;

        let grads: Vec<_> = sums.iter().flatten().copied().collect();
        let mut norm = g.layer("clip", |g| ops::global_norm(g, &grads))?;
        let clip = (settings.clip > 0.0).then_some(settings.clip);
        let mut factor = None;
        let mut state: Vec<_> = parameters.iter().map(|p| (p.name.clone(), p.shape.clone())).collect();
        if let Some(scaling) = scaling {
            let [of_scaled, without] = g.layer("clip", |g| ops::loss_scale(g, norm, scaling, clip))?;
            (factor, norm) = (Some(of_scaled), without);
            engine.set(LOSS_SCALE, &HostTensor::floats([3], vec![ops::FIRST_LOSS_SCALE, 0.0, 0.0]))?;
            state.push((LOSS_SCALE.into(), Shape::from([3])));
        } else if let Some(most) = clip {
            factor = Some(g.layer("clip", |g| ops::clip_factor(g, norm, most))?);
        }
        let mut moved = Vec::new();
        for ((parameter, &variable), grad) in parameters.iter().zip(&variables).zip(&sums) {
            let Some(grad) = *grad else { continue };
            let ty = g.ty(variable).clone();
            let first = format!("optimizer.first.{}", parameter.name);
            let second = format!("optimizer.second.{}", parameter.name);
            let weight_decay = if parameter.decays { settings.weight_decay } else { 0.0 };
            let rate_scale = parameter.rate;
            let Settings { beta1, beta2, eps, .. } = settings;
            let m = g.variable(&first, ty.clone())?;
            state.push((first, parameter.shape.clone()));
            match settings.optimizer {
                Optimizer::Adamw => {
                    let v = g.variable(&second, ty)?;
                    state.push((second, parameter.shape.clone()));
                    moved.push(AdamWTensor { parameter: variable, grad, m, v, weight_decay, rate_scale });
                }
                Optimizer::Lamb => {
                    let v = g.variable(&second, ty)?;
                    state.push((second, parameter.shape.clone()));
                    let rule = Lamb { beta1, beta2, eps, weight_decay, adapt: parameter.decays, rate_scale };
                    g.layer("lamb", |g| ops::lamb(g, variable, grad, m, v, hyper, factor, rule))?;
                }
                Optimizer::Sgd => {
                    let rule = Sgd { momentum: beta1, weight_decay, rate_scale };
                    g.layer("sgd", |g| ops::sgd(g, variable, grad, Some(m), hyper, factor, rule))?;
                }
            }
        }
        if !moved.is_empty() {
            let Settings { beta1, beta2, eps, .. } = settings;
            let rule = AdamW { beta1, beta2, eps, weight_decay: 0.0, rate_scale: 1.0 };
            g.layer("adamw", |g| ops::adamw_all(g, &moved, hyper, factor, rule))?;
        }
        let mut outputs = vec![total, norm];
        outputs.extend(micro.iter().flat_map(|m| &m.others));
        let plan = engine.compile(g, &outputs, &PlanOptions { precision: settings.precision, ..PlanOptions::named("train") })?;

        let mut g = Graph::new();
        let eval_inputs = feed(&mut g);
        let eval_loss = (objective.loss)(&mut g, &eval_inputs, None)?;
        let outputs: Vec<_> = [eval_loss.loss].into_iter().chain(eval_loss.others.iter().copied()).collect();
        let eval = engine.compile(g, &outputs, &PlanOptions::named("evaluate"))?;
        Ok(Self { settings, plan, micro, hyper, loss: total, norm, eval, eval_inputs, eval_loss, state })
    }

    /// Runs step `step` (from 0) on its micro-batches.
    ///
    /// # Errors
    /// The device fails, or the loss is no number.
    pub fn step(&mut self, engine: &mut Engine, step: usize, batches: &[Batch]) -> Result<Outcome, TrainError> {
        let s = &self.settings;
        for (part, (micro, batch)) in self.micro.iter().zip(batches).enumerate() {
            // A state of its own: with the same one for all, the micro-batches of a step would drop the same units (and a
            // generator would draw with the same noise), so that they would not be independent samples as the rows of one
            // large batch are. The first keeps the plain seed.
            let seed = s.seed.wrapping_add((part as u32).wrapping_mul(0x9E37_79B9));
            self.plan.set(micro.rng, HostTensor::uints([2], vec![seed, step as u32]))?;
            for (&input, value) in micro.inputs.iter().zip(batch) {
                self.plan.set(input, value.clone())?;
            }
        }
        let rate = s.schedule.rate(step);
        // A skipped step has not moved the moments, so that it does not count.
        let taken = step - self.scale(engine)?.map_or(0, |(_, skipped)| skipped.min(step));
        let correction = |beta: f32| if s.bias_correction { (1.0 - f64::from(beta).powi(taken as i32 + 1)) as f32 } else { 1.0 };
        self.plan.set(self.hyper, HostTensor::floats([3], vec![rate, correction(s.beta1), correction(s.beta2)]))?;
        self.plan.run(engine)?;
        let loss = self.plan.get(self.loss)?.f()[0];
        let grad_norm = self.plan.get(self.norm)?.f()[0];
        if !loss.is_finite() {
            return Err(TrainError::Diverged { step: step + 1, loss });
        }
        let read = |micro: &Micro| micro.others.iter().map(|&t| self.plan.get(t)).collect::<Result<Vec<_>, _>>();
        let others = self.micro.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok(Outcome { loss, grad_norm, rate, scale: self.scale(engine)?, others })
    }

    /// The loss scale and the number of steps skipped, of mixed training.
    fn scale(&self, engine: &Engine) -> Result<Option<(f32, usize)>, TrainError> {
        if self.settings.precision == Precision::F32 {
            return Ok(None);
        }
        Ok(engine.get(LOSS_SCALE)?.map(|state| (state.f()[0], state.f()[2] as usize)))
    }

    /// The loss of one batch without dropout, nats, and [`Loss::others`].
    ///
    /// # Errors
    /// The device fails.
    pub fn evaluate(&mut self, engine: &mut Engine, batch: &Batch) -> Result<(f32, Vec<HostTensor<f32>>), TrainError> {
        for (&input, value) in self.eval_inputs.iter().zip(batch) {
            self.eval.set(input, value.clone())?;
        }
        self.eval.run(engine)?;
        let others = self.eval_loss.others.iter().map(|&t| self.eval.get(t)).collect::<Result<Vec<_>, _>>()?;
        Ok((self.eval.get(self.eval_loss.loss)?.f()[0], others))
    }

    /// Names and shapes of everything that a resumed run needs.
    pub fn state(&self) -> &[(String, Shape)] {
        &self.state
    }

    /// Sizes of the training step's plan.
    pub fn stats(&self) -> PlanStats {
        self.plan.stats()
    }
}
