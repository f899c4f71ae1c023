//! `shaderlm train gpt2`

use super::{
    flags::{Defaults, Flags},
    run::{Figures, Kept, Run, Task},
};
use crate::cli::{CliResult, common::refuse};
use shaderlm::{
    graph::{Engine, Graph},
    models::{
        Config, Dropout, Gpt2Config, Missing, Mode, Model,
        gpt2::{Gpt2, parameters},
        initialise,
    },
    ops::{Tensor, TensorType},
    text::Tokenizer,
    train::{Batch, Corpus, Objective, TokenBatch, TrainError, Trainer, read_texts, windows},
};
use std::path::Path;

/// Train a GPT-2 from scratch, or go on from a folder with --init
///
/// DIR gets config.json, model.safetensors and tokenizer.json, which `shaderlm generate --model DIR` and transformers load,
/// and state.safetensors, from which --resume goes on as if nothing had happened. Ctrl-C saves and stops.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm train gpt2 --data shakespeare.txt --out play --tokenizer chars\n  \
    shaderlm tokenizer train --data *.txt --vocab 2048 --out tok.json\n  \
    shaderlm train gpt2 --data *.txt --out mine --tokenizer tok.json --layers 6 --heads 6 --width 384 --context 256\n  \
    shaderlm train gpt2 --data letters.txt --out tuned --init openai-community/gpt2 --lr 3e-5 --steps 500")]
pub struct TrainGpt2 {
    #[command(flatten)]
    flags: Flags,
    /// bytes, chars (those of the data), gpt2 (its 50,257 tokens), or a tokenizer.json
    #[arg(long, value_name = "bytes|chars|gpt2|FILE", conflicts_with = "init")]
    tokenizer: Option<String>,
    /// A size of the paper instead of --layers, --heads and --width: 124m, 355m, 774m or 1.5b
    #[arg(long, value_name = "SIZE", conflicts_with_all = ["layers", "heads", "width"])]
    size: Option<String>,
}

const DEFAULTS: Defaults = Defaults::GPT2;

/// Text between files, where the tokenizer has a token for it.
fn encode_all(tokenizer: &Tokenizer, texts: &[String]) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
    let mut tokens = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        if i > 0 {
            tokens.extend(tokenizer.end_of_text());
        }
        tokens.extend(tokenizer.encode(text, false)?);
    }
    Ok(tokens)
}

/// Windows of the training tokens at random places.
struct NextTokens<'a> {
    flags: &'a Flags,
    context: usize,
    corpus: &'a Corpus,
    held_out: Vec<TokenBatch>,
}

impl Task for NextTokens<'_> {
    fn batches(&self, step: usize) -> Vec<Batch> {
        let f = self.flags;
        let batch = |micro| self.corpus.batch(f.seed, step, micro, f.batch, self.context).feed(self.context);
        (0..f.accumulate).map(batch).collect()
    }

    fn evaluate(
        &self,
        engine: &mut Engine,
        trainer: &mut Trainer,
        progress: &dyn Fn(usize, usize),
    ) -> Result<Option<(f64, Figures)>, TrainError> {
        let (mut sum, mut count) = (0.0, 0usize);
        for (i, batch) in self.held_out.iter().enumerate() {
            let counted = batch.counted();
            let (loss, _) = trainer.evaluate(engine, &batch.clone().feed(self.context))?;
            sum += f64::from(loss) * counted as f64;
            count += counted;
            progress(i + 1, self.held_out.len());
        }
        Ok((count > 0).then(|| (sum / count as f64, Figures::new())))
    }
}

impl TrainGpt2 {
    pub fn run(self) -> CliResult {
        let flags = &self.flags;
        flags.check("")?;
        let init = flags.init()?;
        let texts = read_texts(&flags.data)?;
        let eval_texts = read_texts(&flags.eval_data)?;
        let tokenizer = self.make_tokenizer(init.as_ref(), &texts, &eval_texts)?;
        let gpt2 = self.config(init.as_ref(), &tokenizer)?;
        let config = Config::Gpt2(gpt2.clone());
        let context = flags.context(&config)?;
        let tokens = encode_all(&tokenizer, &texts)?;
        let eval_tokens = if eval_texts.is_empty() { None } else { Some(encode_all(&tokenizer, &eval_texts)?) };
        let corpus = Corpus::new(tokens, eval_tokens, f64::from(flags.eval_fraction), context, &flags.data[0])?;

        let mut engine = flags.device.engine()?;
        let list = parameters(&gpt2);
        match &init {
            Some(model) => drop(model.upload(&mut engine, &list, Missing::Refuse)?),
            None => initialise(&list, &mut engine, flags.seed)?,
        }
        let shape = [flags.batch, context];
        let loss = |g: &mut Graph, inputs: &[Tensor], rng: Option<Tensor>| {
            let mode = Mode {
                dropout: rng.map(|rng| Dropout { rate: flags.dropout, rng }),
                recompute: flags.recompute && rng.is_some(),
                ..Mode::default()
            };
            Ok(Gpt2 { config: &gpt2, mode }.loss(g, inputs[0], inputs[1], None)?.into())
        };
        let inputs = ["ids", "targets"].map(|name| (name, TensorType::u32(shape))).to_vec();
        let task =
            NextTokens { flags, context, held_out: windows(&corpus.held_out, context, context, flags.batch), corpus: &corpus };
        Run {
            flags,
            models: vec![Kept { folder: "", config: &config, parameters: &list, variable: &str::to_owned }],
            parameters: &list,
            tokenizer: &tokenizer,
            settings: flags.settings(context, &DEFAULTS),
            data: corpus.fingerprint(),
        }
        .go(&mut engine, &Objective { inputs, loss: &loss }, &task)
    }

    fn make_tokenizer(
        &self,
        init: Option<&Model>,
        texts: &[String],
        eval_texts: &[String],
    ) -> Result<Tokenizer, Box<dyn std::error::Error>> {
        if let Some(model) = init {
            return Ok(model.tokenizer()?);
        }
        Ok(match self.tokenizer.as_deref().unwrap_or("bytes") {
            "bytes" => Tokenizer::bytes()?,
            "chars" => Tokenizer::chars(&[texts, eval_texts].concat().concat())?,
            "gpt2" => Tokenizer::gpt2()?,
            file => Tokenizer::from_file(Path::new(file))?,
        })
    }

    fn config(&self, init: Option<&Model>, tokenizer: &Tokenizer) -> Result<Gpt2Config, Box<dyn std::error::Error>> {
        let flags = &self.flags;
        let (embd_pdrop, resid_pdrop, attn_pdrop) = (flags.dropout, flags.dropout, 0.0);
        if let Some(model) = init {
            return Ok(Gpt2Config { embd_pdrop, resid_pdrop, attn_pdrop, ..model.gpt2()?.clone() });
        }
        let sized = match &self.size {
            Some(size) => match Gpt2Config::named(size) {
                Some(config) => config,
                None => return refuse(format!("--size {size}: there are 124m, 355m, 774m and 1.5b")),
            },
            None => Gpt2Config { n_layer: flags.layers, n_head: flags.heads, n_embd: flags.width, ..Gpt2Config::default() },
        };
        let config = Gpt2Config {
            vocab_size: flags.vocab(tokenizer)?,
            n_positions: flags.context.unwrap_or(64),
            embd_pdrop,
            resid_pdrop,
            attn_pdrop,
            bos_token_id: tokenizer.end_of_text(),
            eos_token_id: tokenizer.end_of_text(),
            ..sized
        };
        config.check().map_err(|e| format!("{e} (--layers, --heads, --width, --context, --vocab)"))?;
        Ok(config)
    }
}
