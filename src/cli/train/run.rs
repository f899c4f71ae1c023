//! A run: steps, evaluations, log, bar, checkpoints, Ctrl-C and resuming, whatever is trained.

use super::flags::Flags;
use crate::cli::{
    CliResult,
    common::{progress_bar, say, stop_flag, words},
};
use shaderlm::{
    checkpoint::remove_leftovers,
    graph::Engine,
    models::{Config, Parameter, save_as},
    text::Tokenizer,
    train::{Batch, Log, Objective, Outcome, Record, Settings, TrainError, Trainer, load_state, save_state},
};
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Instant,
};

/// Named figures, for the log and the bar.
pub type Figures = BTreeMap<String, f64>;

/// A part of a whole; 0 of nothing.
pub fn ratio((part, whole): (f64, f64)) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// What a run trains on, and how it is judged.
pub trait Task {
    /// The micro-batches of a step: a function of the step alone.
    fn batches(&self, step: usize) -> Vec<Batch>;
    /// Figures of a step besides its loss.
    fn figures(&self, _batches: &[Batch], _outcome: &Outcome) -> Figures {
        Figures::new()
    }
    /// The loss over the held-out text, nats, and figures; `None` if nothing is held out.
    fn evaluate(
        &self,
        engine: &mut Engine,
        trainer: &mut Trainer,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Option<(f64, Figures)>, TrainError>;
}

/// A model that a run keeps, as a folder.
pub struct Kept<'a> {
    /// Below --out; empty for --out itself.
    pub folder: &'static str,
    pub config: &'a Config,
    /// By Hugging Face's names.
    pub parameters: &'a [Parameter],
    /// The engine's name of a parameter.
    pub variable: &'a dyn Fn(&str) -> String,
}

/// A run about to begin: the models' weights are in the engine.
pub struct Run<'a> {
    pub flags: &'a Flags,
    pub models: Vec<Kept<'a>>,
    /// All that is trained, by the engine's names.
    pub parameters: &'a [Parameter],
    pub tokenizer: &'a Tokenizer,
    pub settings: Settings,
    /// What the data is; a resumed run must have the same.
    pub data: String,
}

impl Run<'_> {
    /// Everything that the losses depend on.
    fn fingerprint(&self) -> String {
        let shape = |model: &Kept<'_>| model.config.to_json().map(|v| v.to_string()).unwrap_or_default();
        let shapes = self.models.iter().map(shape).collect::<Vec<_>>().join(", ");
        format!("{shapes}, dropout {}, data {}, {:?}", self.flags.dropout, self.data, self.settings)
    }

    /// Trains to the end, or until Ctrl-C.
    pub fn go(&self, engine: &mut Engine, objective: &Objective<'_>, task: &dyn Task) -> CliResult {
        let flags = self.flags;
        let stop = stop_flag()?;
        let types: Vec<_> = self.parameters.iter().map(Parameter::trained).collect();
        let mut trainer = Trainer::new(engine, &types, objective, self.settings.clone())?;
        let mut first = 0;
        let state_file = flags.state_file();
        if flags.resume && state_file.exists() {
            first = load_state(&state_file, engine, trainer.state(), &self.fingerprint())?;
        } else if flags.resume {
            eprintln!("shaderlm: {} is not there yet; beginning at step 1", state_file.display());
        }
        // A log or a folder that cannot be written is found now, not after an hour; the log first, so that nothing is left of
        // a run that does not begin.
        let log = Log::open(flags.log.as_deref(), first)?;
        std::fs::create_dir_all(&flags.out).map_err(|e| format!("--out {}: {e}", flags.out.display()))?;
        self.models.iter().for_each(|model| remove_leftovers(&flags.out.join(model.folder)));
        remove_leftovers(&flags.out);
        if first == 0 {
            // The state of a run that is overwritten goes first, so that --resume never mixes two runs.
            self.save_state(engine, &trainer, 0)?;
        }
        self.save_models(engine)?;
        if flags.stats {
            self.print_stats(engine, &trainer);
        }
        self.steps(engine, &mut trainer, task, first, log, &stop)?;
        engine.save_pipelines();
        Ok(())
    }

    fn print_stats(&self, engine: &Engine, trainer: &Trainer) {
        let s = trainer.stats();
        eprintln!(
            "{} on {}: {} parameters, {} dispatches in {} submissions a step, {:.3} GFLOP; {} bytes of activations planned, \
             {} bytes in the arena, {} bytes in images, {} bytes of parameters and optimizer state",
            self.models.iter().map(|model| model.config.kind()).next().unwrap_or_default(),
            engine.device_name(),
            self.parameters.iter().map(|p| p.shape.elements()).sum::<usize>(),
            s.dispatches,
            s.submissions,
            s.flops as f64 / 1e9,
            s.planned_bytes,
            s.peak_bytes,
            s.image_bytes,
            s.variable_bytes
        );
    }

    fn steps(
        &self,
        engine: &mut Engine,
        trainer: &mut Trainer,
        task: &dyn Task,
        first: usize,
        mut log: Log,
        stop: &AtomicBool,
    ) -> CliResult {
        let flags = self.flags;
        let bar = progress_bar(flags.steps, "{bar:24} {pos}/{len}  {msg}  {eta} left")?;
        bar.set_position(first as u64);
        let tokens_a_step = self.settings.batch * self.settings.accumulate * self.settings.context;
        let mut held_out: Option<(f64, Figures)> = None;
        let mut saved = None;
        let mut done = first;
        let (mut last_loss, mut skipped) = (f32::NAN, String::new());
        for step in first..flags.steps {
            let begin = Instant::now();
            let batches = task.batches(step);
            let outcome = trainer.step(engine, step, &batches)?;
            done = step + 1;
            last_loss = outcome.loss;
            skipped = outcome.skipped();
            let speed = tokens_a_step as f64 / begin.elapsed().as_secs_f64();
            let due = |every: usize| done == flags.steps || (every > 0 && done % every == 0);
            let mut figures = task.figures(&batches, &outcome);
            let shown = words(&figures);
            figures.extend(outcome.scaling());
            let mut eval_loss = None;
            if due(flags.eval_every) {
                let evaluated = task.evaluate(engine, trainer, &|i, n| bar.set_message(format!("evaluating {i}/{n}")))?;
                if let Some((loss, found)) = &evaluated {
                    eval_loss = Some(*loss);
                    bar.suspend(|| {
                        say!("step {done}: loss {:.4}, held-out loss {loss:.4}{}", outcome.loss, words(found));
                    });
                    figures.extend(found.iter().map(|(name, value)| (format!("eval_{name}"), *value)));
                }
                held_out = evaluated;
            }
            log.write(&Record {
                step: done,
                loss: Some(outcome.loss),
                grad_norm: Some(outcome.grad_norm),
                lr: Some(outcome.rate),
                eval_loss,
                tokens_per_second: Some(speed),
                figures,
            })?;
            bar.set_position(done as u64);
            bar.set_message(format!(
                "loss {:.4}{shown}{}  {speed:.0} tokens/s  lr {:.2e}",
                outcome.loss,
                held_out.as_ref().map(|e| format!(" (held out {:.4})", e.0)).unwrap_or_default(),
                outcome.rate
            ));
            let stopping = stop.load(Ordering::SeqCst);
            if due(flags.save_every) || stopping {
                self.save_state(engine, trainer, done)?;
                self.save_models(engine)?;
                saved = Some(done);
            }
            if stopping {
                break;
            }
        }
        bar.finish_and_clear();
        if saved.is_none() && done == first {
            say!("nothing to do: {first} steps are done already");
        } else if done < flags.steps {
            say!("stopped and saved at step {done} of {}; --resume goes on", flags.steps);
        } else {
            let held_out = held_out.map(|(loss, figures)| format!(", held-out loss {loss:.4}{}", words(&figures)));
            say!(
                "{} steps done: loss {last_loss:.4}{}{skipped}; model in {}",
                flags.steps,
                held_out.unwrap_or_default(),
                flags.out.display()
            );
        }
        Ok(())
    }

    fn save_state(&self, engine: &Engine, trainer: &Trainer, step: usize) -> CliResult {
        let names: Vec<_> = trainer.state().iter().map(|(name, _)| name.clone()).collect();
        Ok(save_state(&self.flags.state_file(), engine, &names, step, &self.fingerprint())?)
    }

    fn save_models(&self, engine: &Engine) -> CliResult {
        let flags = self.flags;
        for Kept { folder, config, parameters, variable } in &self.models {
            let place = flags.out.join(folder);
            std::fs::create_dir_all(&place).map_err(|e| format!("--out {}: {e}", place.display()))?;
            save_as(&place, config, parameters, engine, Some(self.tokenizer), flags.dtype.into(), variable)?;
        }
        Ok(())
    }
}
