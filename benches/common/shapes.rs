//! The sizes of the models that benchmarks are named after.

use clap::ValueEnum;

/// A published model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// GPT-2 124M (Radford et al. 2019)
    #[value(name = "gpt2-124m")]
    Gpt2Small,
    /// GPT-2 355M
    #[value(name = "gpt2-355m")]
    Gpt2Medium,
    /// ALBERT-base (Lan et al. 2020)
    AlbertBase,
    /// ELECTRA-small (Clark et al. 2020)
    ElectraSmall,
}

/// Its sizes.
#[derive(Clone, Copy, Debug)]
pub struct Numbers {
    pub name: &'static str,
    pub vocab: usize,
    /// Of the residual stream.
    pub width: usize,
    pub heads: usize,
    /// Of the feed-forward layer.
    pub inner: usize,
    pub layers: usize,
    /// Of the token table.
    pub embedding: usize,
    /// Whether a linear layer's weight is stored [in, out], as in GPT-2, and not [out, in].
    pub weights_in_out: bool,
}

impl Shape {
    pub const ALL: [Self; 4] = [Self::Gpt2Small, Self::Gpt2Medium, Self::AlbertBase, Self::ElectraSmall];

    pub fn numbers(self) -> Numbers {
        let gpt2 = |name, width, heads, layers| Numbers {
            name,
            vocab: 50257,
            width,
            heads,
            inner: 4 * width,
            layers,
            embedding: width,
            weights_in_out: true,
        };
        let encoder = |name, vocab, width, heads| Numbers {
            name,
            vocab,
            width,
            heads,
            inner: 4 * width,
            layers: 12,
            embedding: 128,
            weights_in_out: false,
        };
        match self {
            Self::Gpt2Small => gpt2("gpt2-124m", 768, 12, 12),
            Self::Gpt2Medium => gpt2("gpt2-355m", 1024, 16, 24),
            Self::AlbertBase => encoder("albert-base", 30000, 768, 12),
            Self::ElectraSmall => encoder("electra-small", 30522, 256, 4),
        }
    }
}
