//! `shaderlm fill`

use super::{
    CliResult,
    common::{DeviceArgs, refuse, texts_or_lines},
    profile::ProfileArgs,
};
use serde_json::json;
use shaderlm::{
    models::{BIBLE, Candidate, Filler, Model},
    text::{SpecialTokens, Tokenizer},
};
use std::io::Write;

/// Fill in the masked words of a text
///
/// Each [MASK] in TEXT is one token. With several, each is filled in by itself, the others still masked. Without TEXT, each
/// line of standard input is one.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm fill \"In the beginning God [MASK] the heaven and the earth.\"\n  \
    shaderlm fill \"Paris is the [MASK] of France.\" --model google-bert/bert-base-uncased\n  \
    shaderlm fill \"the [MASK] and the earth\" --model ./my-albert --top 3 --json")]
pub struct Fill {
    /// The text, with [MASK] where a word is missing
    text: Vec<String>,
    /// A folder, or a repository of the Hub, of a BERT, DistilBERT, ALBERT or ELECTRA generator with a
    /// masked-LM head; by default an ALBERT that knows nothing but the Bible
    #[arg(long, value_name = "DIR|REPO")]
    model: Option<String>,
    /// Likeliest tokens to show for each mask
    #[arg(long, value_name = "N", default_value_t = 5)]
    top: usize,
    /// One JSON object a text
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

impl Fill {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        if self.top == 0 {
            return refuse("--top 0: must be at least 1");
        }
        let model = Model::chosen_network(self.model.as_deref(), "generator", &BIBLE)?;
        let tokenizer = model.tokenizer()?;
        let special = tokenizer.special_tokens()?;
        let texts = texts_or_lines(&self.text)?;
        let encoded = texts
            .iter()
            .map(|text| self.encode(text, &tokenizer, special, model.config.positions()))
            .collect::<Result<Vec<_>, _>>()?;
        let mut engine = self.device.engine()?;
        {
            let mut filler = Filler::new(&model, &mut engine)?;
            let mut out = std::io::stdout().lock();
            for (text, ids) in texts.iter().zip(&encoded) {
                let masks: Vec<usize> = (0..ids.len()).filter(|&i| ids[i] == special.mask).collect();
                let found = filler.fill(ids, &masks, self.top)?;
                let page = Page { tokenizer: &tokenizer, special, ids, masks: &masks };
                if self.json {
                    writeln!(out, "{}", page.object(text, &found)?)?;
                } else {
                    page.print(&mut out, text, &found)?;
                }
            }
        }
        engine.save_pipelines();
        Ok(())
    }

    /// [CLS] text [SEP]
    fn encode(
        &self,
        text: &str,
        tokenizer: &Tokenizer,
        special: SpecialTokens,
        context: usize,
    ) -> Result<Vec<u32>, Box<dyn std::error::Error>> {
        let mask = tokenizer.id_to_token(special.mask).unwrap_or_default();
        let mut ids = vec![special.cls];
        ids.extend(tokenizer.encode(text, true)?);
        ids.push(special.sep);
        if !ids.contains(&special.mask) {
            return refuse(format!("there is no {mask} in {text:?}; put one where a word is missing"));
        }
        if ids.len() > context {
            return refuse(format!("{text:?} has {} tokens; the model's context is {context}", ids.len()));
        }
        Ok(ids)
    }
}

/// What is printed for a text.
struct Page<'a> {
    tokenizer: &'a Tokenizer,
    special: SpecialTokens,
    ids: &'a [u32],
    masks: &'a [usize],
}

impl Page<'_> {
    /// The text with `id` at `mask`.
    fn filled(&self, mask: usize, id: u32) -> Result<String, Box<dyn std::error::Error>> {
        let mut ids = self.ids.to_vec();
        ids[mask] = id;
        let inner = &ids[1..ids.len() - 1];
        let text = self.tokenizer.decode(inner)?;
        // Some decoders take away the space before a special token.
        let other = self.tokenizer.id_to_token(self.special.mask).unwrap_or_default();
        Ok(text.replace(&other, &format!(" {other}")).replace("  ", " ").trim_start().to_owned())
    }

    /// The token as it is written within a text.
    fn word(&self, id: u32) -> String {
        let token = self.tokenizer.id_to_token(id).unwrap_or_default();
        if self.special.contains(id) { token } else { token.trim_start_matches('▁').to_owned() }
    }

    fn object(&self, text: &str, found: &[Vec<Candidate>]) -> Result<serde_json::Value, Box<dyn std::error::Error>> {
        let mut masks = Vec::new();
        for (&mask, candidates) in self.masks.iter().zip(found) {
            let mut list = Vec::new();
            for c in candidates {
                list.push(json!({
                    "id": c.id, "token": self.tokenizer.id_to_token(c.id), "probability": c.probability,
                    "text": self.filled(mask, c.id)?,
                }));
            }
            masks.push(json!({ "position": mask, "candidates": list }));
        }
        Ok(json!({ "text": text, "ids": self.ids, "masks": masks }))
    }

    fn print(&self, out: &mut impl Write, text: &str, found: &[Vec<Candidate>]) -> CliResult {
        writeln!(out, "{text}")?;
        for (i, (&mask, candidates)) in self.masks.iter().zip(found).enumerate() {
            if self.masks.len() > 1 {
                writeln!(out, "mask {}", i + 1)?;
            }
            for c in candidates {
                writeln!(out, "  {:.4}  {:<16} {}", c.probability, self.word(c.id), self.filled(mask, c.id)?)?;
            }
        }
        Ok(())
    }
}
