//! `shaderlm embed`

use super::{
    CliResult,
    common::{DeviceArgs, progress_bar, refuse, texts_or_lines},
    profile::ProfileArgs,
};
use rayon::prelude::*;
use shaderlm::{
    checkpoint::{StoredType, write_safetensors},
    models::{BIBLE, EmbedSettings, Model, Pooling, SentenceSettings, embed},
    text::{SpecialTokens, TextError, Tokenizer},
};
use std::{borrow::Cow, collections::BTreeMap, io::Write, path::PathBuf};

/// Turn texts into vectors
///
/// Texts are the arguments, or the lines of standard input. Pooling and normalising are as the folder says
/// (sentence-transformers' modules.json), or else the mean without normalising.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    shaderlm embed \"a cat on a mat\" \"two dogs\" --model sentence-transformers/all-MiniLM-L6-v2 --json\n  \
    shaderlm embed --model ./minilm --output vectors.safetensors < sentences.txt")]
pub struct Embed {
    /// Texts
    text: Vec<String>,
    /// A folder, or a repository of the Hub, of a BERT, DistilBERT, ALBERT or ELECTRA; by default an ALBERT that knows nothing but
    /// the Bible
    #[arg(long, value_name = "DIR|REPO")]
    model: Option<String>,
    /// How the hidden states of a text become one vector
    #[arg(long, value_enum)]
    pooling: Option<Pooling>,
    /// Divide each vector by its length, whatever the folder says
    #[arg(long)]
    normalize: bool,
    /// The safetensors file to write: `embeddings` F32 [texts, width]
    #[arg(long, value_name = "FILE.safetensors", required_unless_present = "json")]
    output: Option<PathBuf>,
    /// Write one JSON object a text to standard output
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    device: DeviceArgs,
    #[command(flatten)]
    profile: ProfileArgs,
}

/// [CLS] text [SEP], and whether it had to be cut.
fn encode(tokenizer: &Tokenizer, special: SpecialTokens, text: &str, longest: usize) -> Result<(Vec<u32>, bool), TextError> {
    let mut ids = vec![special.cls];
    ids.extend(tokenizer.encode(text, false)?);
    let cut = ids.len() + 1 > longest;
    ids.truncate(longest - 1);
    ids.push(special.sep);
    Ok((ids, cut))
}

impl Embed {
    pub fn run(self) -> CliResult {
        self.profile.begin()?;
        let model = Model::chosen(self.model.as_deref(), &BIBLE)?;
        let folder = SentenceSettings::of(&model)?;
        let tokenizer = model.tokenizer()?;
        let special = tokenizer.special_tokens()?;
        let context = model.config.positions();
        let longest = folder.longest.unwrap_or(context).min(context);
        if longest < 3 {
            return refuse(format!("{}: a context of {longest} leaves no room for text", model.place()));
        }
        let texts = texts_or_lines(&self.text)?;
        let encoded = texts.par_iter().map(|text| encode(&tokenizer, special, text, longest)).collect::<Result<Vec<_>, _>>()?;
        let cut = encoded.iter().filter(|e| e.1).count();
        if cut > 0 {
            eprintln!("shaderlm: {cut} of {} texts were cut to {longest} tokens", texts.len());
        }
        let ids: Vec<_> = encoded.into_iter().map(|e| e.0).collect();
        let settings = EmbedSettings {
            pooling: self.pooling.unwrap_or(folder.pooling),
            normalize: self.normalize || folder.normalize,
            pad: special.pad,
        };
        let mut engine = self.device.engine()?;
        let bar = progress_bar(ids.len(), "{bar:30} {pos}/{len} texts, {per_sec}, {eta} left")?;
        let vectors = embed(&model, &mut engine, &ids, settings, |done| bar.set_position(done as u64))?;
        bar.finish_and_clear();
        engine.save_pipelines();
        if let Some(path) = &self.output {
            let shape = vec![vectors.len(), vectors[0].len()];
            let flat = vectors.concat();
            let tensor = ("embeddings".to_owned(), StoredType::F32, shape, Cow::Borrowed(bytemuck::cast_slice(&flat)));
            write_safetensors(path, &[tensor], &BTreeMap::from([("format".to_owned(), "pt".to_owned())]))?;
        }
        if self.json {
            let mut out = std::io::BufWriter::new(std::io::stdout().lock());
            for (text, vector) in texts.iter().zip(&vectors) {
                writeln!(out, "{}", serde_json::json!({ "text": text, "embedding": vector }))?;
            }
            out.flush()?;
        }
        Ok(())
    }
}
