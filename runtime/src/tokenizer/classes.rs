//! The older files of a vocabulary, as a `tokenizer.json`: `vocab.json` with `merges.txt`, `vocab.txt`, and the pieces of
//! a sentencepiece model.
//!
//! Owns what the Python classes do around such a vocabulary. Source: transformers, `tokenization_{gpt2, roberta, qwen2,
//! bert, mpnet, albert, deberta_v2}.py`. The library computes the tokens. Must not know files or their names.

use serde_json::{Map, Value, json};

use super::config::TokenizerConfig;
use super::sentencepiece::Pieces;
use super::special::AddedToken;

/// What a class does around its vocabulary.
#[derive(Debug)]
struct Class {
    /// Values of `tokenizer_class`, without a final `Fast`.
    names: &'static [&'static str],
    /// Values of `model_type` in config.json, for checkpoints that name no class.
    model_types: &'static [&'static str],
    /// How texts are split and normalised.
    splits: Splits,
    /// The tokens around a text.
    frame: Frame,
    /// Names of special tokens, for configurations that do not have them.
    tokens: &'static [(&'static str, &'static str)],
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Splits {
    /// Words with the space before them; each byte is a character.
    Gpt2,
    /// The same with a pattern of its own, after NFC.
    Qwen2,
    /// Words and punctuation, without spaces.
    Bert,
    /// Pieces of words, after compatibility decomposition.
    Albert,
    /// Pieces of words, after the rules of the file.
    Deberta,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Frame {
    /// None, unless the configuration adds them.
    None,
    /// `<s> A </s>`, `<s> A </s> </s> B </s>`
    Roberta,
    /// `[CLS] A [SEP]`, `[CLS] A [SEP] B [SEP]`
    Bert,
}

const QWEN2_PATTERN: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const GPT2_TOKENS: &[(&str, &str)] = &[
    ("bos_token", "<|endoftext|>"),
    ("eos_token", "<|endoftext|>"),
    ("unk_token", "<|endoftext|>"),
];
const ROBERTA_TOKENS: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("sep_token", "</s>"),
    ("cls_token", "<s>"),
    ("unk_token", "<unk>"),
    ("pad_token", "<pad>"),
    ("mask_token", "<mask>"),
];
const BERT_TOKENS: &[(&str, &str)] = &[
    ("unk_token", "[UNK]"),
    ("sep_token", "[SEP]"),
    ("pad_token", "[PAD]"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];
const ALBERT_TOKENS: &[(&str, &str)] = &[
    ("unk_token", "<unk>"),
    ("sep_token", "[SEP]"),
    ("pad_token", "<pad>"),
    ("cls_token", "[CLS]"),
    ("mask_token", "[MASK]"),
];
const MPNET_TOKENS: &[(&str, &str)] = &[
    ("bos_token", "<s>"),
    ("eos_token", "</s>"),
    ("sep_token", "</s>"),
    ("cls_token", "<s>"),
    ("unk_token", "[UNK]"),
    ("pad_token", "<pad>"),
    ("mask_token", "<mask>"),
];

/// Classes of `vocab.json` and `merges.txt`.
static OF_MERGES: [Class; 3] = [
    Class {
        names: &["GPT2Tokenizer", "CodeGenTokenizer"],
        model_types: &[
            "gpt2",
            "opt",
            "gpt_neo",
            "gptj",
            "gpt_bigcode",
            "codegen",
            "phi",
            "starcoder2",
        ],
        splits: Splits::Gpt2,
        frame: Frame::None,
        tokens: GPT2_TOKENS,
    },
    Class {
        names: &[
            "RobertaTokenizer",
            "BartTokenizer",
            "LongformerTokenizer",
            "LEDTokenizer",
        ],
        model_types: &["roberta", "bart", "longformer", "led"],
        splits: Splits::Gpt2,
        frame: Frame::Roberta,
        tokens: ROBERTA_TOKENS,
    },
    Class {
        names: &["Qwen2Tokenizer"],
        model_types: &["qwen2", "qwen2_moe", "qwen3", "qwen3_moe"],
        splits: Splits::Qwen2,
        frame: Frame::None,
        tokens: &[("eos_token", "<|endoftext|>"), ("pad_token", "<|endoftext|>")],
    },
];

/// Classes of `vocab.txt`.
static OF_WORDS: [Class; 2] = [
    Class {
        names: &["BertTokenizer", "DistilBertTokenizer", "ElectraTokenizer"],
        model_types: &["bert", "distilbert", "electra"],
        splits: Splits::Bert,
        frame: Frame::Bert,
        tokens: BERT_TOKENS,
    },
    Class {
        names: &["MPNetTokenizer"],
        model_types: &["mpnet"],
        splits: Splits::Bert,
        frame: Frame::Roberta,
        tokens: MPNET_TOKENS,
    },
];

/// Classes of a sentencepiece model.
static OF_PIECES: [Class; 2] = [
    Class {
        names: &["AlbertTokenizer"],
        model_types: &["albert"],
        splits: Splits::Albert,
        frame: Frame::Bert,
        tokens: ALBERT_TOKENS,
    },
    Class {
        names: &["DebertaV2Tokenizer"],
        model_types: &["deberta-v2"],
        splits: Splits::Deberta,
        frame: Frame::Bert,
        tokens: BERT_TOKENS,
    },
];

/// How much lower ALBERT scores a piece that joins a digit and a comma, so that none is used.
const DIGIT_COMMA_PENALTY: f32 = 100.0;

impl Class {
    /// The class that a configuration names.
    fn of(classes: &'static [Class], config: &TokenizerConfig) -> Result<&'static Class, String> {
        let model_type = config.model_type.as_deref().unwrap_or_default();
        let Some(name) = config.tokenizer_class.as_deref() else {
            let known = classes
                .iter()
                .find(|class| class.model_types.contains(&model_type));
            return known.ok_or_else(|| {
                let names: Vec<&str> = classes.iter().flat_map(|class| class.names).copied().collect();
                format!(
                    "tokenizer_config.json names no tokenizer_class, and none follows from model_type {model_type:?}; \
                     supported are {}",
                    names.join(", ")
                )
            });
        };
        let stem = name.strip_suffix("Fast").unwrap_or(name);
        let known = classes.iter().find(|class| class.names.contains(&stem));
        known.ok_or_else(|| {
            let names: Vec<&str> = classes.iter().flat_map(|class| class.names).copied().collect();
            format!(
                "tokenizer_class {name:?} is not supported for this vocabulary; supported are {}",
                names.join(", ")
            )
        })
    }

    /// The text of a named special token.
    fn token<'a>(&self, name: &str, config: &'a TokenizerConfig) -> Option<&'a str> {
        let own = match name {
            "bos_token" => &config.bos_token,
            "eos_token" => &config.eos_token,
            "pad_token" => &config.pad_token,
            "unk_token" => &config.unk_token,
            "cls_token" => &config.cls_token,
            "sep_token" => &config.sep_token,
            "mask_token" => &config.mask_token,
            _ => &None,
        };
        let default = self.tokens.iter().find(|(known, _)| *known == name);
        own.as_deref().or(default.map(|(_, text)| *text))
    }
}

/// A vocabulary in the making.
struct Vocabulary {
    class: &'static Class,
    ids: Map<String, Value>,
}

/// The `tokenizer.json` of `vocab.json` and `merges.txt`. The configuration gets the special tokens of the class.
///
/// # Errors
/// What is wrong with the files, or that the class is not supported.
pub(super) fn of_merges(vocab: &[u8], merges: &[u8], config: &mut TokenizerConfig) -> Result<Value, String> {
    let class = Class::of(&OF_MERGES, config)?;
    let ids: Map<String, Value> =
        serde_json::from_slice(vocab).map_err(|error| format!("vocab.json: {error}"))?;
    let merges = std::str::from_utf8(merges).map_err(|error| format!("merges.txt: {error}"))?;
    let lines = merges
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("#version"));
    let prefix = config.add_prefix_space.unwrap_or(false);
    let byte_level = |use_regex: bool| json!({"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": true, "use_regex": use_regex});
    let split = json!({"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": false});
    let (normalizer, pre_tokenizer) = match class.splits {
        Splits::Qwen2 => (
            json!({"type": "NFC"}),
            json!({"type": "Sequence", "pretokenizers": [split, byte_level(false)]}),
        ),
        _ => (Value::Null, byte_level(true)),
    };
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": "", "end_of_word_suffix": "",
        "fuse_unk": false, "byte_fallback": false, "ignore_merges": false, "vocab": &ids,
        "merges": lines.collect::<Vec<_>>(),
    });
    let vocabulary = Vocabulary { class, ids };
    vocabulary.json(
        config,
        model,
        json!({
            "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "decoder": byte_level(true),
        }),
    )
}

/// The `tokenizer.json` of `vocab.txt`, whose lines are tokens. The configuration gets the special tokens of the class.
///
/// # Errors
/// What is wrong with the file, or that the class is not supported.
pub(super) fn of_words(words: &[u8], config: &mut TokenizerConfig) -> Result<Value, String> {
    let class = Class::of(&OF_WORDS, config)?;
    let words = std::str::from_utf8(words).map_err(|error| error.to_string())?;
    let ids: Map<String, Value> = words
        .lines()
        .zip(0_u32..)
        .map(|(word, id)| (word.to_owned(), json!(id)))
        .collect();
    let unknown = class.token("unk_token", config).unwrap_or_default();
    if !ids.contains_key(unknown) {
        return Err(format!("the token {unknown:?} for unknown words is missing"));
    }
    let model = json!({
        "type": "WordPiece", "unk_token": unknown, "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
        "vocab": &ids,
    });
    let normalizer = json!({
        "type": "BertNormalizer", "clean_text": true,
        "handle_chinese_chars": config.tokenize_chinese_chars.unwrap_or(true),
        "strip_accents": config.strip_accents, "lowercase": config.do_lower_case.unwrap_or(true),
    });
    let vocabulary = Vocabulary { class, ids };
    vocabulary.json(
        config,
        model,
        json!({
            "normalizer": normalizer, "pre_tokenizer": {"type": "BertPreTokenizer"},
            "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        }),
    )
}

/// The `tokenizer.json` of a sentencepiece model. The configuration gets the special tokens of the class.
///
/// # Errors
/// What is wrong with the file, or that the class is not supported.
pub(super) fn of_pieces(file: &[u8], config: &mut TokenizerConfig) -> Result<Value, String> {
    let class = Class::of(&OF_PIECES, config)?;
    let mut pieces = Pieces::parse(file)?;
    let metaspace =
        json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": true});
    let replace =
        |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let lowercase = |is_default: bool| {
        let is_wanted = config.do_lower_case.unwrap_or(is_default);
        is_wanted.then(|| json!({"type": "Lowercase"}))
    };
    let mut normalizers: Vec<Value> = Vec::new();
    let mut pre_tokenizers: Vec<Value> = Vec::new();
    if class.splits == Splits::Albert {
        normalizers.extend(["``", "''"].map(|quotes| replace(json!({"String": quotes}), "\"")));
        if !config.keep_accents {
            normalizers.extend([json!({"type": "NFKD"}), json!({"type": "StripAccents"})]);
        }
        normalizers.extend(lowercase(true));
        normalizers.extend(pieces.rules);
        pre_tokenizers.push(json!({"type": "WhitespaceSplit"}));
        for (text, score) in &mut pieces.scores {
            let before = text.strip_suffix(',').and_then(|rest| rest.chars().next_back());
            if before.is_some_and(char::is_numeric) {
                *score -= DIGIT_COMMA_PENALTY;
            }
        }
    } else {
        normalizers.extend(lowercase(false));
        normalizers.extend(pieces.rules);
        normalizers.extend([
            replace(json!({"Regex": r"\s{2,}|[\n\r\t]"}), " "),
            json!({"type": "NFC"}),
            json!({"type": "Strip", "strip_left": false, "strip_right": true}),
        ]);
        if config.split_by_punct {
            pre_tokenizers.push(json!({"type": "Punctuation", "behavior": "Isolated"}));
        }
    }
    pre_tokenizers.push(metaspace.clone());
    config
        .added_tokens
        .extend(pieces.marks.into_iter().map(|(content, is_special)| AddedToken {
            is_special,
            ..AddedToken::special(content, None)
        }));
    let ids = pieces.scores.iter().zip(0_u32..);
    let vocabulary = Vocabulary {
        class,
        ids: ids.map(|((text, _), id)| (text.clone(), json!(id))).collect(),
    };
    let model = json!({
        "type": "Unigram", "unk_id": pieces.unknown, "vocab": pieces.scores, "byte_fallback": false,
    });
    vocabulary.json(
        config,
        model,
        json!({
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": {"type": "Sequence", "pretokenizers": pre_tokenizers}, "decoder": metaspace,
        }),
    )
}

impl Vocabulary {
    /// Joins the parts of a `tokenizer.json`.
    fn json(mut self, config: &mut TokenizerConfig, model: Value, parts: Value) -> Result<Value, String> {
        let added = self.added_tokens(config);
        let post_processor = self.post_processor(config)?;
        for (field, text) in [
            ("bos_token", &mut config.bos_token),
            ("eos_token", &mut config.eos_token),
        ] {
            let default = self.class.tokens.iter().find(|(name, _)| *name == field);
            *text = text.take().or(default.map(|(_, text)| (*text).to_owned()));
        }
        Ok(json!({
            "version": "1.0", "truncation": null, "padding": null, "added_tokens": added,
            "normalizer": parts["normalizer"], "pre_tokenizer": parts["pre_tokenizer"],
            "post_processor": post_processor, "decoder": parts["decoder"], "model": model,
        }))
    }

    /// The tokens that are recognised verbatim: those of the configuration, then the named ones of the class. A token
    /// that the vocabulary does not have gets the next free id, as in Python.
    fn added_tokens(&mut self, config: &TokenizerConfig) -> Vec<Value> {
        let mut added: Vec<(u64, Value)> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        let named = self
            .class
            .tokens
            .iter()
            .filter_map(|(name, _)| self.class.token(name, config));
        let declared = config.added_tokens.iter().map(|token| {
            let flags = (token.is_special, token.strips_left, token.strips_right);
            (token.content.as_str(), token.id, flags)
        });
        let all = declared.chain(named.map(|text| (text, None, (true, false, false))));
        for (content, id, (is_special, strips_left, strips_right)) in all {
            if content.is_empty() || !seen.insert(content) {
                continue;
            }
            let own = self.ids.get(content).and_then(Value::as_u64);
            let free = || {
                let in_vocabulary = self.ids.values().filter_map(Value::as_u64);
                in_vocabulary
                    .chain(added.iter().map(|(id, _)| *id))
                    .max()
                    .map_or(0, |last| last + 1)
            };
            let id = own.or(id.map(u64::from)).unwrap_or_else(free);
            // The class of RoBERTa lets its mask remove the space before it.
            let strips_left = strips_left || self.class.frame == Frame::Roberta && content == "<mask>";
            added.push((id, json!({
                "id": id, "content": content, "single_word": false, "lstrip": strips_left, "rstrip": strips_right,
                "normalized": false, "special": is_special,
            })));
        }
        added.sort_by_key(|(id, _)| *id);
        for (id, token) in &added {
            self.ids.insert(
                token["content"].as_str().unwrap_or_default().to_owned(),
                json!(id),
            );
        }
        added.into_iter().map(|(_, token)| token).collect()
    }

    /// What adds the tokens around a text.
    fn post_processor(&self, config: &TokenizerConfig) -> Result<Value, String> {
        let mark = |name: &str| -> Result<(String, Value), String> {
            let text = self.class.token(name, config).unwrap_or_default();
            let id = self
                .ids
                .get(text)
                .ok_or_else(|| format!("the {name} {text:?} is missing"))?;
            Ok((text.to_owned(), id.clone()))
        };
        Ok(match self.class.frame {
            Frame::None => {
                json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true})
            }
            Frame::Bert => {
                json!({"type": "BertProcessing", "cls": mark("cls_token")?, "sep": mark("sep_token")?})
            }
            Frame::Roberta => json!({
                "type": "RobertaProcessing", "cls": mark("cls_token")?, "sep": mark("sep_token")?,
                "trim_offsets": true, "add_prefix_space": config.add_prefix_space.unwrap_or(false),
            }),
        })
    }
}
