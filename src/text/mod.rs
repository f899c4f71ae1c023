//! Text and tokens.

mod charsmap;
mod check;
mod error;
mod gpt2;
mod special;
mod stream;
mod tokenizer;
mod train;
mod unigram;
mod wordpiece;

pub use error::TextError;
pub use special::SpecialTokens;
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
pub use train::{train_bpe, train_unigram, train_wordpiece};

/// The token between texts, in GPT-2's vocabulary and in those that are made here.
pub const END_OF_TEXT: &str = "<|endoftext|>";
