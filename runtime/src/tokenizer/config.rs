//! The configuration of a tokenizer: `tokenizer_config.json`, `chat_template.jinja` and related files of a checkpoint.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::error::TokenizerError;
use super::file::read;
use super::special::AddedToken;

/// Largest of these files, in bytes.
const BYTES_MAX: u64 = 64 << 20;
/// Files of the folder of additional templates.
const ADDITIONAL_TEMPLATES_MAX: usize = 64;

/// The fields that this version uses. Each may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Template that turns messages into a prompt.
    pub chat_template: Option<String>,
    /// Further templates by their names, such as `tool_use`.
    pub named_chat_templates: BTreeMap<String, String>,
    /// Text of the token that begins a sequence.
    pub bos_token: Option<String>,
    /// Text of the token that ends a sequence.
    pub eos_token: Option<String>,
    /// Text of the padding token.
    pub pad_token: Option<String>,
    /// Text of the token for unknown text.
    pub unk_token: Option<String>,
    /// Text of the token that begins a sequence of an encoder.
    pub cls_token: Option<String>,
    /// Text of the token that separates two texts.
    pub sep_token: Option<String>,
    /// Text of the token that hides a word.
    pub mask_token: Option<String>,
    /// Whether a text begins with an added space, in byte-level vocabularies.
    pub add_prefix_space: Option<bool>,
    /// Whether BERT's texts become lower case.
    pub do_lower_case: Option<bool>,
    /// Whether ALBERT's texts keep their accents.
    pub keep_accents: bool,
    /// Whether each punctuation mark is a word to DeBERTa.
    pub split_by_punct: bool,
    /// Whether BERT's texts lose their accents.
    pub strip_accents: Option<bool>,
    /// Whether each Chinese character is a word to BERT.
    pub tokenize_chinese_chars: Option<bool>,
    /// Whether texts become lower case before all else: `do_lower_case` of sentence-transformers.
    pub lowers_texts: bool,
    /// `model_type` of config.json, from which the class follows where nothing names it.
    pub model_type: Option<String>,
    /// Whether a sequence begins with `bos_token`; `tokenizer.json` decides if absent.
    pub add_bos_token: Option<bool>,
    /// Whether a sequence ends with `eos_token`; `tokenizer.json` decides if absent.
    pub add_eos_token: Option<bool>,
    /// The Python class that reads the vocabulary.
    pub tokenizer_class: Option<String>,
    /// Whether each text between special tokens begins with an added space, the older behaviour of Python's slow
    /// tokenizers. True if absent.
    pub legacy: Option<bool>,
    /// Tokens that are recognised verbatim in a text.
    pub added_tokens: Vec<AddedToken>,
}

/// Fields that declare one special token each.
const NAMED_TOKENS: [&str; 7] = [
    "bos_token",
    "eos_token",
    "pad_token",
    "unk_token",
    "cls_token",
    "sep_token",
    "mask_token",
];

impl TokenizerConfig {
    /// Reads the files of a folder. `chat_template.jinja` and the files of `additional_chat_templates` replace the
    /// templates of `tokenizer_config.json`; `chat_template.json`, `special_tokens_map.json` and `added_tokens.json`
    /// fill in what it lacks.
    ///
    /// # Errors
    /// [`TokenizerError`] for a file that exists and cannot be used.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let json = |name: &str| read_json(folder.join(name));
        let map = json("special_tokens_map.json")?;
        let mut config = Self::from_json(&json("tokenizer_config.json")?);
        config.complete(&map, &json("added_tokens.json")?);
        let model = json("config.json").unwrap_or_default();
        config.model_type = model["model_type"].as_str().map(str::to_string);
        let class = model["tokenizer_class"].as_str().map(str::to_string);
        config.tokenizer_class = config.tokenizer_class.or(class);
        config.lowers_texts = json("sentence_bert_config.json")?["do_lower_case"] == true;
        if let Some(template) = read_text(folder.join("chat_template.jinja"))? {
            config.chat_template = Some(template);
        }
        for (name, template) in additional_templates(&folder.join("additional_chat_templates"))? {
            config.named_chat_templates.insert(name, template);
        }
        if config.chat_template.is_none() {
            // Repositories with a processor have this older file.
            let older = json("chat_template.json")?;
            (config.chat_template, config.named_chat_templates) = chat_templates(&older["chat_template"]);
        }
        Ok(config)
    }

    pub(super) fn from_json(json: &Value) -> Self {
        let token = |field: &str| content(&json[field]);
        let flag = |field: &str| json[field].as_bool();
        let (chat_template, named_chat_templates) = chat_templates(&json["chat_template"]);
        Self {
            chat_template,
            named_chat_templates,
            bos_token: token("bos_token"),
            eos_token: token("eos_token"),
            pad_token: token("pad_token"),
            unk_token: token("unk_token"),
            cls_token: token("cls_token"),
            sep_token: token("sep_token"),
            mask_token: token("mask_token"),
            add_prefix_space: flag("add_prefix_space"),
            do_lower_case: flag("do_lower_case"),
            keep_accents: flag("keep_accents") == Some(true),
            split_by_punct: flag("split_by_punct") == Some(true),
            strip_accents: flag("strip_accents"),
            tokenize_chinese_chars: flag("tokenize_chinese_chars"),
            lowers_texts: false,
            model_type: None,
            add_bos_token: json["add_bos_token"].as_bool(),
            add_eos_token: json["add_eos_token"].as_bool(),
            tokenizer_class: json["tokenizer_class"].as_str().map(str::to_string),
            legacy: json["legacy"].as_bool(),
            added_tokens: added_tokens(json),
        }
    }

    /// Fills in the fields that `tokenizer_config.json` lacks from the older files.
    fn complete(&mut self, special_tokens_map: &Value, added_tokens_json: &Value) {
        let ids = added_tokens_json.as_object().into_iter().flatten();
        let older = ids.filter_map(|(content, id)| {
            let id = u32::try_from(id.as_u64()?).ok()?;
            Some(AddedToken {
                is_special: false,
                ..AddedToken::special(content.clone(), Some(id))
            })
        });
        let map = Self::from_json(special_tokens_map);
        let special: Vec<AddedToken> = self.added_tokens.drain(..).chain(map.added_tokens).collect();
        let older: Vec<AddedToken> = older.collect();
        for mut token in special {
            let known = older.iter().find(|known| known.content == token.content);
            token.id = token.id.or(known.and_then(|known| known.id));
            self.added_tokens.push(token);
        }
        self.added_tokens.extend(older);
        let tokens = [
            (&mut self.bos_token, map.bos_token),
            (&mut self.eos_token, map.eos_token),
            (&mut self.pad_token, map.pad_token),
            (&mut self.unk_token, map.unk_token),
            (&mut self.cls_token, map.cls_token),
            (&mut self.sep_token, map.sep_token),
            (&mut self.mask_token, map.mask_token),
        ];
        for (own, mapped) in tokens {
            *own = own.take().or(mapped);
        }
    }
}

/// The text of a token, which is a string or an object.
fn content(value: &Value) -> Option<String> {
    let text = value.as_str().or_else(|| value["content"].as_str());
    text.map(str::to_string)
}

/// The tokens of `added_tokens_decoder`, the named special tokens and the additional ones.
fn added_tokens(json: &Value) -> Vec<AddedToken> {
    let flag = |token: &Value, name: &str| token[name].as_bool().unwrap_or(false);
    let declared = |token: &Value, id: Option<u32>| {
        Some(AddedToken {
            content: content(token)?,
            id,
            is_special: id.is_none() || flag(token, "special"),
            strips_left: flag(token, "lstrip"),
            strips_right: flag(token, "rstrip"),
        })
    };
    let with_ids = json["added_tokens_decoder"].as_object().into_iter().flatten();
    let with_ids = with_ids.filter_map(|(id, token)| declared(token, Some(id.parse().ok()?)));
    let named = NAMED_TOKENS.iter().map(|name| &json[*name]);
    let additional = json["additional_special_tokens"].as_array().into_iter().flatten();
    with_ids
        .chain(named.chain(additional).filter_map(|token| declared(token, None)))
        .collect()
}

/// The default template, and the others by their names. A single template has no name; of several without a default,
/// the first is it.
fn chat_templates(value: &Value) -> (Option<String>, BTreeMap<String, String>) {
    let listed = |entry: &Value| Some((text(&entry["name"])?, text(&entry["template"])?));
    let named: Vec<(String, String)> = match value {
        Value::String(only) => return (Some(only.clone()), BTreeMap::new()),
        Value::Array(entries) => entries.iter().filter_map(listed).collect(),
        Value::Object(entries) => {
            let entries = entries.iter();
            entries
                .filter_map(|(name, template)| Some((name.clone(), text(template)?)))
                .collect()
        }
        _ => Vec::new(),
    };
    let first = named.first().map(|(_, template)| template.clone());
    let mut named: BTreeMap<String, String> = named.into_iter().collect();
    (named.remove("default").or(first), named)
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// The templates of a folder, each a file `<name>.jinja`.
fn additional_templates(folder: &Path) -> Result<Vec<(String, String)>, TokenizerError> {
    let entries = match std::fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => {
            return Err(TokenizerError::Invalid {
                path: folder.to_owned(),
                reason: error.to_string(),
            });
        }
    };
    let mut templates = Vec::new();
    for entry in entries.flatten().take(ADDITIONAL_TEMPLATES_MAX) {
        let name = entry.file_name().into_string().ok();
        let name = name.and_then(|name| Some(name.strip_suffix(".jinja")?.to_owned()));
        if let (Some(name), Some(template)) = (name, read_text(entry.path())?) {
            templates.push((name, template));
        }
    }
    Ok(templates)
}

/// The value of a JSON file; null if the file does not exist.
fn read_json(path: PathBuf) -> Result<Value, TokenizerError> {
    let Some(bytes) = read(&path, BYTES_MAX)? else {
        return Ok(Value::Null);
    };
    serde_json::from_slice(&bytes).map_err(|error| TokenizerError::Invalid {
        path,
        reason: error.to_string(),
    })
}

fn read_text(path: PathBuf) -> Result<Option<String>, TokenizerError> {
    let text = read(&path, BYTES_MAX)?.map(String::from_utf8).transpose();
    text.map_err(|error| TokenizerError::Invalid {
        path,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_text_or_objects() {
        let config = TokenizerConfig::from_json(&json!({
            "bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
            "add_bos_token": true, "tokenizer_class": "LlamaTokenizer",
        }));
        let expected = TokenizerConfig {
            bos_token: Some("<s>".into()),
            eos_token: Some("</s>".into()),
            add_bos_token: Some(true),
            tokenizer_class: Some("LlamaTokenizer".into()),
            added_tokens: ["<s>", "</s>"]
                .map(|mark| AddedToken::special(mark.into(), None))
                .into(),
            ..TokenizerConfig::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn older_files_fill_in_what_the_config_lacks() {
        let mut config = TokenizerConfig::from_json(&json!({
            "eos_token": "</s>",
            "added_tokens_decoder": {"7": {"content": "<m>", "lstrip": true, "special": false}, "x": {"content": "y"}},
        }));
        let map = json!({"bos_token": "<s>", "eos_token": "<other>", "additional_special_tokens": ["<a>"]});
        config.complete(&map, &json!({"<a>": 9, "<b>": 10, "<c>": "no id"}));
        let summary: Vec<_> = config
            .added_tokens
            .iter()
            .map(|token| {
                (
                    token.content.as_str(),
                    token.id,
                    token.is_special,
                    token.strips_left,
                )
            })
            .collect();
        let expected = [
            ("<m>", Some(7), false, true),
            ("</s>", None, true, false),
            ("<s>", None, true, false),
            ("<other>", None, true, false),
            ("<a>", Some(9), true, false),
            ("<a>", Some(9), false, false),
            ("<b>", Some(10), false, false),
        ];
        assert_eq!(summary, expected);
        assert_eq!(
            (config.bos_token.as_deref(), config.eos_token.as_deref()),
            (Some("<s>"), Some("</s>"))
        );
    }

    #[test]
    fn several_templates_have_names_and_a_default() {
        let of = |value| chat_templates(&value);
        let named = |entries: &[(&str, &str)]| -> BTreeMap<String, String> {
            entries
                .iter()
                .map(|(name, template)| ((*name).to_owned(), (*template).to_owned()))
                .collect()
        };
        assert_eq!(of(json!("a")), (Some("a".into()), named(&[])));
        let two = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        assert_eq!(of(two), (Some("d".into()), named(&[("tool_use", "t")])));
        let object = json!({"tool_use": "t", "default": "d"});
        assert_eq!(of(object), (Some("d".into()), named(&[("tool_use", "t")])));
        let other = json!([{"name": "x", "template": "t"}]);
        assert_eq!(of(other), (Some("t".into()), named(&[("x", "t")])));
        assert_eq!(of(json!([])), (None, named(&[])));
        assert_eq!(of(json!(null)), (None, named(&[])));
    }

    #[test]
    fn the_template_of_a_processor_is_read_where_there_is_no_other() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(
            folder.path().join("chat_template.json"),
            r#"{"chat_template": "p"}"#,
        )
        .unwrap();
        let template = || TokenizerConfig::load(folder.path()).unwrap().chat_template;
        assert_eq!(template().as_deref(), Some("p"));
        std::fs::write(folder.path().join("chat_template.jinja"), "own").unwrap();
        assert_eq!(template().as_deref(), Some("own"));
    }

    #[test]
    fn a_template_file_wins_and_a_broken_config_is_named() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(
            TokenizerConfig::load(folder.path()).unwrap(),
            TokenizerConfig::default()
        );
        std::fs::write(
            folder.path().join("tokenizer_config.json"),
            r#"{"chat_template": "old"}"#,
        )
        .unwrap();
        std::fs::write(folder.path().join("chat_template.jinja"), "new").unwrap();
        let config = TokenizerConfig::load(folder.path()).unwrap();
        assert_eq!(config.chat_template.as_deref(), Some("new"));
        let more = folder.path().join("additional_chat_templates");
        std::fs::create_dir(&more).unwrap();
        std::fs::write(more.join("tool_use.jinja"), "tools").unwrap();
        let config = TokenizerConfig::load(folder.path()).unwrap();
        assert_eq!(config.named_chat_templates["tool_use"], "tools");
        std::fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
        let error = TokenizerConfig::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("tokenizer_config.json"), "{error}");
    }
}
