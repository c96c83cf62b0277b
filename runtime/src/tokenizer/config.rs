//! `tokenizer_config.json`, `chat_template.jinja` and the like: what a checkpoint says about its own text.

use std::path::Path;

use serde_json::Value;

use super::TokenizerError;

/// Largest of these files, in bytes.
const BYTES_MAX: u64 = 64 << 20;

/// The fields that matter here; all may be absent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenizerConfig {
    /// Template that turns messages into a prompt.
    pub chat_template: Option<String>,
    /// Text of the token that begins a sequence.
    pub bos_token: Option<String>,
    /// Text of the token that ends a sequence.
    pub eos_token: Option<String>,
    /// Text of the token that fills.
    pub pad_token: Option<String>,
    /// Text of the token for what is not in the vocabulary.
    pub unk_token: Option<String>,
    /// Whether a sequence begins with `bos_token`; absent: as `tokenizer.json` says.
    pub add_bos_token: Option<bool>,
}

impl TokenizerConfig {
    /// Reads the files of a folder. A `chat_template.jinja` wins over the template in the JSON file.
    ///
    /// # Errors
    /// For a file that is there and cannot be used.
    pub fn load(folder: &Path) -> Result<Self, TokenizerError> {
        let path = folder.join("tokenizer_config.json");
        let mut config = match read(&path)? {
            Some(text) => serde_json::from_str(&text)
                .map(|json| Self::from_json(&json))
                .map_err(|error| TokenizerError::Invalid {
                    path,
                    reason: error.to_string(),
                })?,
            None => Self::default(),
        };
        if let Some(template) = read(&folder.join("chat_template.jinja"))? {
            config.chat_template = Some(template);
        }
        Ok(config)
    }

    fn from_json(json: &Value) -> Self {
        let text = |value: &Value| value.as_str().map(str::to_string);
        let token = |field: &str| {
            let value = &json[field];
            text(value).or_else(|| text(&value["content"]))
        };
        Self {
            chat_template: chat_template(&json["chat_template"]),
            bos_token: token("bos_token"),
            eos_token: token("eos_token"),
            pad_token: token("pad_token"),
            unk_token: token("unk_token"),
            add_bos_token: json["add_bos_token"].as_bool(),
        }
    }
}

/// One template, or of several named ones the default.
fn chat_template(value: &Value) -> Option<String> {
    let named = |wanted: &str| {
        let entries = value.as_array()?;
        let entry = entries.iter().find(|entry| entry["name"] == wanted)?;
        entry["template"].as_str()
    };
    let first = || value.get(0)?["template"].as_str();
    value
        .as_str()
        .or_else(|| named("default"))
        .or_else(first)
        .map(str::to_string)
}

fn read(path: &Path) -> Result<Option<String>, TokenizerError> {
    let failed = |source| TokenizerError::Read {
        path: path.to_path_buf(),
        source,
    };
    match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed(error)),
        Ok(metadata) if metadata.len() > BYTES_MAX => Err(TokenizerError::Invalid {
            path: path.to_path_buf(),
            reason: format!("larger than {BYTES_MAX} bytes"),
        }),
        Ok(_) => std::fs::read_to_string(path).map(Some).map_err(failed),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn tokens_are_text_or_objects() {
        let config = TokenizerConfig::from_json(&json!({
            "bos_token": {"content": "<s>", "lstrip": false}, "eos_token": "</s>", "pad_token": null,
            "add_bos_token": true,
        }));
        let expected = TokenizerConfig {
            bos_token: Some("<s>".into()),
            eos_token: Some("</s>".into()),
            add_bos_token: Some(true),
            ..TokenizerConfig::default()
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn of_several_templates_the_default_is_taken() {
        let template = |value| TokenizerConfig::from_json(&json!({"chat_template": value})).chat_template;
        assert_eq!(template(json!("a")).as_deref(), Some("a"));
        let two = json!([{"name": "tool_use", "template": "t"}, {"name": "default", "template": "d"}]);
        assert_eq!(template(two).as_deref(), Some("d"));
        assert_eq!(
            template(json!([{"name": "x", "template": "t"}])).as_deref(),
            Some("t")
        );
        assert_eq!(template(json!([])), None);
        assert_eq!(template(json!(null)), None);
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
        std::fs::write(folder.path().join("tokenizer_config.json"), "{").unwrap();
        let error = TokenizerConfig::load(folder.path()).unwrap_err();
        assert!(error.to_string().contains("tokenizer_config.json"), "{error}");
    }
}
