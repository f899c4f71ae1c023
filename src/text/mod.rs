//! Text and tokens.

mod check;
mod error;
mod gpt2;
mod stream;
mod tokenizer;
mod train;

pub use error::TextError;
pub use stream::TextStream;
pub use tokenizer::Tokenizer;
pub use train::train_bpe;

/// The token between texts, in GPT-2's vocabulary and in those that are made here.
pub const END_OF_TEXT: &str = "<|endoftext|>";
