//! Models: each file reads like its paper, and names its weights as Hugging Face does.

mod albert;
mod bert;
mod blocks;
mod built_in;
mod config;
mod detect;
mod distilbert;
mod electra;
mod embed;
mod encoder;
mod fill;
mod finetune;
pub mod generate;
mod gguf;
pub mod gpt2;
pub mod heads;
mod load;
mod loss;
mod narrow;
pub mod perplexity;
mod predict;
mod quantize;
mod record;
mod replaced;
mod sentence;
mod stack;

pub use albert::Albert;
pub use bert::Bert;
pub use blocks::{Dropout, Init, Mode, Parameter};
pub use built_in::{BIBLE, BIBLE_ELECTRA, BuiltIn, SHAKESPEARE};
pub use config::{
    AlbertConfig, BertConfig, Config, ConfigError, DistilBertConfig, ElectraConfig, Gpt2Config, HiddenAct, Rest, Sharing,
};
pub use detect::Detector;
pub use distilbert::DistilBert;
pub use electra::Electra;
pub use embed::{EmbedSettings, embed};
pub use encoder::{Dense, Encoder, HeadNames, Sizes, Text, encoder};
pub use fill::{Candidate, Filler};
pub use finetune::FineTuning;
pub use heads::Head;
pub use load::{Missing, Model, ModelError, initialise, save, save_as, with_article};
pub use narrow::{Quantization, Weight, WeightFormat};
pub use predict::Predictor;
pub use quantize::{Kept, Quantized, quantize};
pub use record::{Inputs, Recording, pair_label};
pub use replaced::{ReplacedBatch, ReplacedObjective, ReplacedOutputs, ReplacedTokens, Tie};
pub use sentence::{Pooling, SentenceSettings};
