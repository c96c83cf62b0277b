//! A vocabulary without the pipeline that a `tokenizer.json` would bring: what Python's slow tokenizers do around it.
//!
//! Owns special tokens in a text, where texts between them begin, and what a class puts before a prompt.

use super::bytes::{Leading, Token, TokenBytes};
use super::sentencepiece::{Opening, SentencePiece};
use super::special::{AddedToken, AddedTokens, Part};
use super::tiktoken::Tiktoken;
use super::{Edge, Frame, ID_MAX, TokenizerConfig, TokenizerError};

/// The class of ChatGLM 1 to 3, and its marks, numbered after the pieces: from `tokenization_chatglm.py` of
/// THUDM/chatglm3-6b.
const CHATGLM: &str = "ChatGLMTokenizer";
const CHATGLM_MARKS: [&str; 9] = [
    "[MASK]",
    "[gMASK]",
    "[sMASK]",
    "sop",
    "eop",
    "<|system|>",
    "<|user|>",
    "<|assistant|>",
    "<|observation|>",
];

/// What classes put before a prompt, whatever the configuration says.
const PREFIXES: [(&str, [&str; 2]); 2] = [
    (CHATGLM, ["[gMASK]", "sop"]),
    ("ChatGLM4Tokenizer", ["[gMASK]", "<sop>"]),
];

/// A vocabulary and what surrounds it.
#[derive(Debug)]
pub(super) struct Plain {
    words: Words,
    added: AddedTokens,
    /// Where a text gets the space that begins a word.
    opens: Opens,
}

/// The vocabulary.
#[derive(Debug)]
pub(super) enum Words {
    SentencePiece(Box<SentencePiece>),
    Tiktoken(Tiktoken),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    EveryText,
    First,
}

impl Plain {
    pub(super) fn new(words: Words, config: &TokenizerConfig) -> Self {
        let mut declared = config.added_tokens.clone();
        match &words {
            Words::SentencePiece(model) if config.tokenizer_class.as_deref() == Some(CHATGLM) => {
                let mark =
                    |(id, content): (u32, &&str)| AddedToken::special((*content).to_string(), Some(id));
                declared.extend((model.n_ids()..).zip(&CHATGLM_MARKS).map(mark));
            }
            Words::Tiktoken(tiktoken) if tiktoken.is_qwen() => declared.extend(tiktoken.qwen_marks()),
            Words::SentencePiece(_) | Words::Tiktoken(_) => {}
        }
        let added = AddedTokens::new(&declared, |content| words.id(content));
        let opens = if config.legacy == Some(false) {
            Opens::First
        } else {
            Opens::EveryText
        };
        Self { words, added, opens }
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for (idx, part) in self.added.split(text).into_iter().enumerate() {
            match (part, &self.words) {
                (Part::Token(id), _) => ids.push(id),
                (Part::Text(text), Words::Tiktoken(tiktoken)) => tiktoken.encode(text, &mut ids),
                (Part::Text(text), Words::SentencePiece(model)) => {
                    let opening = if idx == 0 || self.opens == Opens::EveryText {
                        Opening::Model
                    } else {
                        Opening::None
                    };
                    model.encode(text, opening, &mut ids);
                }
            }
        }
        ids
    }

    /// The bytes of every token.
    ///
    /// # Errors
    /// [`TokenizerError`] for a vocabulary that is too large.
    pub(super) fn tokens(&self) -> Result<TokenBytes, TokenizerError> {
        let (mut tokens, leading): (Vec<Token>, Leading) = match &self.words {
            Words::SentencePiece(model) => (model.tokens().collect(), model.leading()),
            Words::Tiktoken(tiktoken) => (tiktoken.tokens(), Leading::Kept),
        };
        for (token, id) in self.added.iter() {
            if id > ID_MAX {
                return Err(TokenizerError::Id { id });
            }
            let idx = id as usize;
            if idx >= tokens.len() {
                tokens.resize(idx + 1, Token::default());
            }
            tokens[idx] = Token {
                bytes: token.content.clone().into_bytes(),
                is_special: token.is_special,
            };
        }
        TokenBytes::gather(tokens.into_iter(), leading)
    }

    /// What a prompt begins and ends with.
    pub(super) fn frame(&self, config: &TokenizerConfig) -> Frame {
        let class = config.tokenizer_class.as_deref();
        let prefix = PREFIXES.iter().find(|(name, _)| Some(*name) == class);
        let model = match &self.words {
            Words::SentencePiece(model) => Some(&**model),
            Words::Tiktoken(_) => None,
        };
        let id = |token: &Option<String>| self.id(token.as_deref()?);
        let bos = id(&config.bos_token).or(model.and_then(SentencePiece::bos));
        let eos = id(&config.eos_token).or(model.and_then(SentencePiece::eos));
        // The classes of Llama, Baichuan, InternLM, Orion and Yi all add `<s>` unless they are told otherwise.
        let adds_bos = config
            .add_bos_token
            .or((model.is_some() && class.is_some()).then_some(true));
        let begin = match prefix {
            Some((_, marks)) => Edge {
                ids: marks.iter().filter_map(|mark| self.id(mark)).collect(),
                text: None,
                is_wanted: Some(true),
            },
            None => Edge::new(bos, config.bos_token.clone(), adds_bos),
        };
        Frame {
            begin,
            end: Edge::new(eos, config.eos_token.clone(), config.add_eos_token),
        }
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.words.id(token))
    }
}

impl Words {
    fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::SentencePiece(model) => model.id(token),
            Self::Tiktoken(tiktoken) => tiktoken.id(token),
        }
    }
}
