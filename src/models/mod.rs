//! Models: each file reads like its paper, and names its weights as Hugging Face does.

mod albert;
mod bert;
mod blocks;
mod built_in;
mod config;
mod distilbert;
mod embed;
mod encoder;
mod fill;
mod finetune;
pub mod generate;
pub mod gpt2;
pub mod heads;
mod load;
mod predict;
mod record;
mod sentence;

pub use albert::Albert;
pub use bert::Bert;
pub use blocks::{Dropout, Init, Mode, Parameter};
pub use built_in::{BuiltIn, SHAKESPEARE};
pub use config::{AlbertConfig, BertConfig, Config, ConfigError, DistilBertConfig, Gpt2Config, HiddenAct, Rest, Sharing};
pub use distilbert::DistilBert;
pub use embed::{EmbedSettings, embed};
pub use encoder::{Encoder, HeadNames, Sizes, Text, encoder};
pub use fill::{Candidate, Filler};
pub use finetune::FineTuning;
pub use heads::Head;
pub use load::{Missing, Model, ModelError, initialise, save};
pub use predict::Predictor;
pub use record::{Inputs, Recording, pair_label};
pub use sentence::{Pooling, SentenceSettings};
