//! A vocabulary without a `tokenizer.json`, and the steps that Python's slow tokenizers do around it.
//!
//! Owns the split of a text at special tokens, how the texts between them begin, and the tokens that a tokenizer class
//! adds before a prompt.

use super::boundaries::{Boundaries, Boundary};
use super::bytes::{ID_MAX, Leading, Token, TokenBytes};
use super::config::TokenizerConfig;
use super::error::TokenizerError;
use super::sentencepiece::{Opening, SentencePiece};
use super::special::{AddedToken, AddedTokens, Segment};
use super::tiktoken::Tiktoken;

/// The class of ChatGLM 1 to 3, and its special tokens, whose ids follow those of the pieces. Source:
/// `tokenization_chatglm.py` of THUDM/chatglm3-6b.
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

/// The tokens that classes always add before a prompt.
const PREFIXES: [(&str, [&str; 2]); 2] = [
    (CHATGLM, ["[gMASK]", "sop"]),
    ("ChatGLM4Tokenizer", ["[gMASK]", "<sop>"]),
];

/// The class whose sequences are `<s> A </s>` and `<s> A </s> </s> B </s>`, and the `model_type` of its models.
const XLM_ROBERTA: (&str, &str) = ("XLMRobertaTokenizer", "xlm-roberta");

/// The class whose sequences are `A </s>`, and the `model_type` of its models.
const T5: (&str, &str) = ("T5Tokenizer", "t5");

/// Tokens of T5 that stand for a gap in a text. The last one follows the pieces, and the first one is the last token.
const N_T5_GAPS: u32 = 100;

/// Whether a configuration is XLM-RoBERTa's.
pub(super) fn is_xlm_roberta(config: &TokenizerConfig) -> bool {
    is_class(config, XLM_ROBERTA)
}

/// Whether a configuration is T5's.
pub(super) fn is_t5(config: &TokenizerConfig) -> bool {
    is_class(config, T5)
}

fn is_class(config: &TokenizerConfig, (class, model_type): (&str, &str)) -> bool {
    match config.tokenizer_class.as_deref() {
        Some(name) => name.strip_suffix("Fast").unwrap_or(name) == class,
        None => config.model_type.as_deref() == Some(model_type),
    }
}

/// A vocabulary with its special tokens.
#[derive(Debug)]
pub(super) struct Plain {
    vocabulary: Vocabulary,
    added: AddedTokens,
    /// Which texts begin with the space that begins a word.
    opens: Opens,
    /// The tokens that begin and end a sequence of two texts, for a class that joins texts.
    frame: Option<[u32; 2]>,
}

/// The vocabulary.
#[derive(Debug)]
pub(super) enum Vocabulary {
    SentencePiece(Box<SentencePiece>),
    Tiktoken(Tiktoken),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opens {
    EveryText,
    First,
}

impl Plain {
    pub(super) fn new(vocabulary: Vocabulary, config: &TokenizerConfig) -> Self {
        let mut declared = config.added_tokens.clone();
        match &vocabulary {
            Vocabulary::SentencePiece(model) if config.tokenizer_class.as_deref() == Some(CHATGLM) => {
                let mark =
                    |(id, content): (u32, &&str)| AddedToken::special((*content).to_string(), Some(id));
                declared.extend((model.n_ids()..).zip(&CHATGLM_MARKS).map(mark));
            }
            Vocabulary::SentencePiece(model) if is_t5(config) => {
                let gap = |idx: u32| {
                    let id = model.n_ids() + N_T5_GAPS - 1 - idx;
                    AddedToken::special(format!("<extra_id_{idx}>"), Some(id))
                };
                declared.extend((0..N_T5_GAPS).map(gap));
            }
            // A declared token takes the id of one that is only a placeholder.
            Vocabulary::Tiktoken(tiktoken) => {
                let is_free = |mark: &&AddedToken| declared.iter().all(|token| token.id != mark.id);
                let free: Vec<AddedToken> = tiktoken.marks().iter().filter(is_free).cloned().collect();
                declared.extend(free);
            }
            Vocabulary::SentencePiece(_) => {}
        }
        let frame = match &vocabulary {
            Vocabulary::SentencePiece(model) if is_xlm_roberta(config) => model.bos().zip(model.eos()),
            Vocabulary::SentencePiece(_) | Vocabulary::Tiktoken(_) => None,
        };
        let added = AddedTokens::new(&declared, |content| vocabulary.id(content));
        let opens = if config.legacy == Some(false) {
            Opens::First
        } else {
            Opens::EveryText
        };
        Self {
            vocabulary,
            added,
            opens,
            frame: frame.map(<[u32; 2]>::from),
        }
    }

    /// The tokens of two texts as one sequence; `None` if the class does not join texts.
    pub(super) fn pair(&self, first: &[u32], second: &[u32]) -> Option<Vec<u32>> {
        let [begin, end] = self.frame?;
        Some([&[begin], first, &[end, end], second, &[end]].concat())
    }

    /// The ids of a text.
    pub(super) fn encode(&self, text: &str) -> Vec<u32> {
        let mut ids = Vec::new();
        for (idx, segment) in self.added.split(text).into_iter().enumerate() {
            match (segment, &self.vocabulary) {
                (Segment::Token(id), _) => ids.push(id),
                (Segment::Text(text), Vocabulary::Tiktoken(tiktoken)) => tiktoken.encode(text, &mut ids),
                (Segment::Text(text), Vocabulary::SentencePiece(model)) => {
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
        let (mut tokens, leading): (Vec<Token>, Leading) = match &self.vocabulary {
            Vocabulary::SentencePiece(model) => (model.tokens().collect(), model.leading()),
            Vocabulary::Tiktoken(tiktoken) => (tiktoken.tokens(), Leading::Kept),
        };
        for (token, id) in self.added.iter() {
            if id > ID_MAX {
                return Err(TokenizerError::Id { id, id_max: ID_MAX });
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

    /// The tokens that a prompt begins and ends with.
    pub(super) fn boundaries(&self, config: &TokenizerConfig) -> Boundaries {
        let class = config.tokenizer_class.as_deref();
        let prefix = PREFIXES.iter().find(|(name, _)| Some(*name) == class);
        let model = match &self.vocabulary {
            Vocabulary::SentencePiece(model) => Some(&**model),
            Vocabulary::Tiktoken(_) => None,
        };
        let id = |token: &Option<String>| self.id(token.as_deref()?);
        let bos = id(&config.bos_token).or(model.and_then(SentencePiece::bos));
        let eos = id(&config.eos_token).or(model.and_then(SentencePiece::eos));
        let (has_model, has_frame) = (model.is_some(), self.frame.is_some());
        let is_t5 = has_model && is_t5(config);
        let adds_eos = config.add_eos_token.or((is_t5 || has_frame).then_some(true));
        // The classes of Llama, Baichuan, InternLM, Orion and Yi all add `<s>` by default.
        let begins = has_model && class.is_some() && !is_t5 || has_frame;
        let adds_bos = config.add_bos_token.or(begins.then_some(true));
        let begin = match prefix {
            Some((_, marks)) => Boundary {
                ids: marks.iter().filter_map(|mark| self.id(mark)).collect(),
                text: None,
                is_wanted: Some(true),
            },
            None => Boundary::new(bos, config.bos_token.clone(), adds_bos),
        };
        Boundaries {
            begin,
            end: Boundary::new(eos, config.eos_token.clone(), adds_eos),
        }
    }

    fn id(&self, token: &str) -> Option<u32> {
        self.added.id(token).or_else(|| self.vocabulary.id(token))
    }
}

impl Vocabulary {
    fn id(&self, token: &str) -> Option<u32> {
        match self {
            Self::SentencePiece(model) => model.id(token),
            Self::Tiktoken(tiktoken) => tiktoken.id(token),
        }
    }
}
