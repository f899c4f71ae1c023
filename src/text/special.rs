//! The special tokens of encoders, and where words begin.

use serde_json::Value;

/// The ids of an encoder's special tokens: BERT's `[CLS] [SEP] [MASK] [PAD] [UNK]`, ALBERT's `[CLS] [SEP] [MASK] <pad> <unk>`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SpecialTokens {
    /// Begins every sequence; its last hidden state stands for the whole.
    pub cls: u32,
    /// Ends every segment.
    pub sep: u32,
    /// Stands where a token is to be predicted.
    pub mask: u32,
    /// Fills rows up.
    pub pad: u32,
    /// Stands for what the vocabulary cannot write.
    pub unk: Option<u32>,
}

impl SpecialTokens {
    /// Whether `id` is one of them.
    pub fn contains(&self, id: u32) -> bool {
        [self.cls, self.sep, self.mask, self.pad].contains(&id) || self.unk == Some(id)
    }
}

/// How a vocabulary's tokens say whether they begin a word.
#[derive(Debug, Clone)]
pub(super) enum Marks {
    /// Pieces that go on with a word begin with this (WordPiece: `##`).
    Continuing(String),
    /// Words begin with `▁` (SentencePiece).
    Metaspace,
    /// Words begin with the character of a space, `Ġ` (byte-level BPE).
    ByteLevel,
    /// Tokens do not say: each is a word.
    Unmarked,
}

impl Marks {
    /// From a parsed `tokenizer.json`.
    pub(super) fn of(json: &Value) -> Self {
        let prefix = json["model"]["continuing_subword_prefix"].as_str().unwrap_or_default();
        let splits_by = |kind: &str| {
            let own = &json["pre_tokenizer"];
            let parts = own["pretokenizers"].as_array().into_iter().flatten();
            std::iter::once(own).chain(parts).any(|part| part["type"] == kind)
        };
        if !prefix.is_empty() {
            Self::Continuing(prefix.to_owned())
        } else if splits_by("Metaspace") || json["model"]["type"] == "Unigram" {
            Self::Metaspace
        } else if splits_by("ByteLevel") {
            Self::ByteLevel
        } else {
            Self::Unmarked
        }
    }

    /// Whether a token begins a word.
    pub(super) fn begins_word(&self, token: &str) -> bool {
        match self {
            Self::Continuing(prefix) => !token.starts_with(prefix.as_str()),
            Self::Metaspace => begins_sentence_piece(token),
            Self::ByteLevel => {
                // Space, newline, tab and carriage return in GPT-2's alphabet.
                token.starts_with(['Ġ', 'Ċ', 'ĉ', 'č']) || token.chars().all(|c| c.is_ascii_punctuation())
            }
            Self::Unmarked => true,
        }
    }

    /// The text of a token, with a space before it where one stands before it in a text; `None` where only the decoder knows.
    pub(super) fn piece(&self, token: &str) -> Option<String> {
        match self {
            Self::Continuing(prefix) => {
                Some(token.strip_prefix(prefix.as_str()).map_or_else(|| format!(" {token}"), str::to_owned))
            }
            Self::Metaspace => Some(token.replace('▁', " ")),
            Self::ByteLevel | Self::Unmarked => None,
        }
    }
}

/// `_is_start_piece_sp` of google-research/albert's create_pretraining_data.py: a piece goes on with a word only if it is
/// made of English letters (and punctuation between them); punctuation, digits and pieces with any other character stand
/// for themselves, because many scripts have no spaces. Runs of punctuation count as punctuation, too.
fn begins_sentence_piece(token: &str) -> bool {
    const PUNCTUATION: &str = "!\"#$%&()*+,-./:;?@[\\]^_`{|}~€£";
    let letters = token.chars().any(|c| c.is_ascii_alphabetic());
    let others = token.chars().any(|c| !c.is_ascii_alphabetic() && !PUNCTUATION.contains(c));
    token.starts_with('▁') || !letters || others
}
