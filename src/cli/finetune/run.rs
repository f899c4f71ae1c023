//! A fine-tuning run: steps, evaluations, log, bar, the best checkpoint, early stopping and Ctrl-C.

use super::Finetune;
use crate::cli::{
    CliResult,
    common::{progress_bar, say, stop_flag, words},
};
use indicatif::ProgressBar;
use shaderlm::{
    checkpoint::remove_leftovers,
    graph::{Engine, Graph},
    models::{Config, FineTuning, Parameter, save},
    ops::Tensor,
    text::Tokenizer,
    train::{
        Log, Objective, ParameterType, Record, Settings, TrainError, Trainer,
        tasks::{EncodedInput, Lengths, Order, TaskData, TrainingRow, input_logits, judge},
    },
};
use std::{collections::BTreeMap, sync::atomic::Ordering, time::Instant};

type Figures = BTreeMap<String, f64>;

/// Examples that are held out.
pub struct HeldOut {
    pub data: TaskData,
    pub inputs: Vec<EncodedInput>,
    pub null_threshold: Option<f32>,
}

/// An evaluation.
struct Evaluation {
    step: usize,
    loss: f64,
    figures: Figures,
}

impl Evaluation {
    /// What checkpoints are compared by, higher is better. What is not defined is worse than all else.
    fn merit(&self, metric: &str) -> f64 {
        let value = if metric == "loss" { Some(-self.loss) } else { self.figures.get(metric).copied() };
        value.filter(|value| !value.is_nan()).unwrap_or(f64::NEG_INFINITY)
    }
}

/// All that a run needs besides its flags.
pub struct Run<'a> {
    pub flags: &'a Finetune,
    pub metric: &'a str,
    pub tuning: FineTuning<'a>,
    pub parameters: Vec<Parameter>,
    /// What the learning rate of each is multiplied by.
    pub rates: Vec<f32>,
    pub tokenizer: &'a Tokenizer,
    pub rows: Vec<TrainingRow>,
    pub held_out: HeldOut,
    pub settings: Settings,
}

impl Run<'_> {
    /// Trains to the end, until nothing has become better for long, or until Ctrl-C.
    pub fn go(&self, engine: &mut Engine) -> CliResult {
        let Self { flags, metric, tuning, .. } = self;
        let stop = stop_flag()?;
        let slower = |(parameter, &rate): (&Parameter, &f32)| ParameterType { rate, ..parameter.trained() };
        let types: Vec<_> = self.parameters.iter().zip(&self.rates).map(slower).collect();
        let loss = |g: &mut Graph, inputs: &[Tensor], rng: Option<Tensor>| tuning.loss(g, inputs, rng);
        let objective = Objective { inputs: tuning.inputs(), loss: &loss };
        let mut trainer = Trainer::new(engine, &types, &objective, self.settings.clone())?;
        // A log or a folder that cannot be written is found now, not after an hour; the log first, so that nothing is left of
        // a run that does not begin.
        let mut log = Log::open(flags.log.as_deref(), 0)?;
        std::fs::create_dir_all(&flags.out).map_err(|e| format!("--out {}: {e}", flags.out.display()))?;
        remove_leftovers(&flags.out);
        let steps = self.settings.schedule.steps;
        let bar = progress_bar(steps, "{bar:24} {pos}/{len}  {msg}  {eta} left")?;

        let a_step = flags.batch * flags.accumulate;
        let every = flags.eval_every.unwrap_or(self.rows.len().div_ceil(a_step));
        let mut order = Order::new(self.rows.len(), flags.seed);
        let mut best: Option<Evaluation> = None;
        let (mut done, mut without_gain, mut stopped, mut skipped) = (0, 0, false, String::new());
        for step in 0..steps {
            let begin = Instant::now();
            let mut batches = Vec::with_capacity(flags.accumulate);
            for part in 0..flags.accumulate {
                let first = step * a_step + part * flags.batch;
                let rows: Vec<_> = (first..first + flags.batch).map(|place| &self.rows[order.at(place)]).collect();
                batches.push(tuning.batch(&rows));
            }
            let outcome = trainer.step(engine, step, &batches)?;
            done = step + 1;
            skipped = outcome.skipped();
            let tokens = a_step * tuning.choices * tuning.time;
            let mut record = Record {
                step: done,
                loss: Some(outcome.loss),
                grad_norm: Some(outcome.grad_norm),
                lr: Some(outcome.rate),
                eval_loss: None,
                tokens_per_second: Some(tokens as f64 / begin.elapsed().as_secs_f64()),
                figures: outcome.scaling().collect(),
            };
            stopped = stop.load(Ordering::SeqCst);
            if !stopped && (done == steps || (every > 0 && done % every == 0)) {
                let evaluation = self.evaluate(engine, &mut trainer, done, &bar)?;
                let epoch = (done * a_step) as f64 / self.rows.len() as f64;
                bar.suspend(|| {
                    say!(
                        "step {done} (epoch {epoch:.2}): loss {:.4}, held-out loss {:.4}{}",
                        outcome.loss,
                        evaluation.loss,
                        words(&evaluation.figures)
                    );
                });
                record.eval_loss = Some(evaluation.loss);
                record.figures.extend(evaluation.figures.iter().map(|(name, value)| (format!("eval_{name}"), *value)));
                let (merit, before) = (evaluation.merit(metric), best.as_ref().map(|best| (best.merit(metric), best.loss)));
                without_gain = if before.is_none_or(|before| merit > before.0) { 0 } else { without_gain + 1 };
                // Of equals the one with the lower loss: few examples soon have no more to tell.
                if before.is_none_or(|before| merit > before.0 || (merit == before.0 && evaluation.loss < before.1)) {
                    self.save(engine)?;
                    best = Some(evaluation);
                }
            }
            log.write(&record)?;
            bar.set_position(done as u64);
            bar.set_message(format!("loss {:.4}  lr {:.2e}", outcome.loss, outcome.rate));
            if stopped || flags.patience.is_some_and(|patience| without_gain >= patience) {
                break;
            }
        }
        bar.finish_and_clear();
        self.summary(done, stopped, &skipped, best.as_ref());
        Ok(())
    }

    /// The loss and the metrics over the held-out examples.
    fn evaluate(
        &self,
        engine: &mut Engine,
        trainer: &mut Trainer,
        step: usize,
        bar: &ProgressBar,
    ) -> Result<Evaluation, TrainError> {
        let HeldOut { data, inputs, null_threshold } = &self.held_out;
        let rows = self.tuning.rows * self.tuning.choices;
        let mut batches = 0;
        let logits = input_logits(inputs, rows, Lengths::Fixed(self.tuning.time), self.tuning.pad, &mut |text| {
            batches += 1;
            bar.set_message(format!("evaluating, batch {batches}"));
            Ok::<_, TrainError>(trainer.evaluate(engine, &self.tuning.unlabelled(text))?.1)
        })?;
        let (loss, figures) = judge(data, inputs, &logits, *null_threshold);
        Ok(Evaluation { step, loss, figures })
    }

    fn save(&self, engine: &Engine) -> CliResult {
        let config: &Config = self.tuning.config;
        let flags = self.flags;
        Ok(save(&flags.out, config, &self.parameters, engine, Some(self.tokenizer), flags.dtype.into())?)
    }

    fn summary(&self, done: usize, stopped: bool, skipped: &str, best: Option<&Evaluation>) {
        let (steps, out) = (self.settings.schedule.steps, self.flags.out.display());
        let end = if stopped {
            format!("stopped at step {done} of {steps}")
        } else if done < steps {
            let patience = self.flags.patience.unwrap_or_default();
            format!("stopped early at step {done} of {steps}, after {patience} evaluations without a better {}", self.metric)
        } else {
            format!("{steps} steps done")
        };
        match best {
            Some(Evaluation { step, loss, figures }) => {
                say!(
                    "{end}; best {} at step {step}: held-out loss {loss:.4}{}{skipped}; model in {out}",
                    self.metric,
                    words(figures)
                );
            }
            None => say!("{end}, before the first evaluation; nothing was saved"),
        }
    }
}
