//! The keys for clients: from a setting, or from a file that may change while the process runs.

use std::path::PathBuf;

use crds::settings::{Layer, ProcessSettings, Settings};

use super::{ConfigError, file};

/// The variable whose form the file has.
const VARIABLE: &str = "OPENAI_API_KEYS";

/// The keys that a client may use.
#[derive(Clone, PartialEq, Eq)]
pub struct ApiKeysConfig {
    /// The keys at the start; none: no key is required.
    pub keys: Vec<String>,
    /// The file that contained them; its keys replace them when it changes.
    pub file: Option<ApiKeysFile>,
}

/// A file with keys, as OPENAI_API_KEYS has them, or with one key per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKeysFile {
    path: PathBuf,
}

impl ApiKeysConfig {
    /// The keys of the settings.
    ///
    /// # Errors
    /// [`ConfigError`] for two sources of keys, and for a file without valid keys.
    pub(super) fn of(process: &ProcessSettings) -> Result<Self, ConfigError> {
        match (process.api_key(), process.api_keys_file()) {
            (Some(_), Some(_)) => Err(ConfigError::Exclusive {
                first: "OPENAI_API_KEYS",
                second: "API_KEYS_FILE",
            }),
            (keys, None) => Ok(Self {
                keys: keys.unwrap_or_default(),
                file: None,
            }),
            (None, Some(path)) => {
                let file = ApiKeysFile { path: path.into() };
                Ok(Self {
                    keys: file.read()?,
                    file: Some(file),
                })
            }
        }
    }
}

impl ApiKeysFile {
    /// The keys that the file contains now, at least one.
    ///
    /// # Errors
    /// [`ConfigError`] if it cannot be read or has no valid keys. The error contains no key.
    pub fn read(&self) -> Result<Vec<String>, ConfigError> {
        let empty = || ConfigError::NoKeys {
            path: self.path.clone(),
        };
        let text = file::read(&self.path)?;
        let text = match text.trim() {
            "" => return Err(empty()),
            list if list.starts_with('[') => list.to_owned(),
            lines => lines.replace(['\n', '\r'], ","),
        };
        let name = self.path.display().to_string();
        let layer = Layer::from_env(&name, [(VARIABLE.to_owned(), text)])?;
        Settings::merge(&[layer]).process.api_key().ok_or_else(empty)
    }
}

impl std::fmt::Debug for ApiKeysConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { keys, file } = self;
        let n_keys = keys.len();
        f.debug_struct("ApiKeysConfig")
            .field("n_keys", &n_keys)
            .field("file", file)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<String>, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, text).unwrap();
        let process = ProcessSettings {
            api_keys_file: Some(path.display().to_string()),
            ..ProcessSettings::default()
        };
        let config = ApiKeysConfig::of(&process).map_err(|error| {
            let failure = error.failure();
            format!("{} {}", failure.message, failure.remedy)
        })?;
        Ok(config.keys)
    }

    #[test]
    fn a_file_has_a_list_or_lines() {
        let both = Ok(vec!["first".to_owned(), "second".to_owned()]);
        for text in [
            "first,second",
            "first, second\n",
            "first\nsecond\n",
            "first\r\n\r\nsecond",
            "[\"first\",\n \"second\"]\n",
        ] {
            assert_eq!(read(text), both, "{text:?}");
        }
        assert_eq!(read(r#"["a,b"]"#), Ok(vec!["a,b".to_owned()]));
    }

    #[test]
    fn a_file_without_keys_is_refused_and_no_key_is_told() {
        for text in [
            "",
            " \n",
            ",",
            "[]",
            r#"[""]"#,
            "[7]",
            r#"["hidden", 7]"#,
            "[\"hidden\"",
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains("keys") && !error.contains("hidden"), "{error}");
        }
        let missing = ProcessSettings {
            api_keys_file: Some("no/such/file".to_owned()),
            ..ProcessSettings::default()
        };
        let error = ApiKeysConfig::of(&missing).unwrap_err().failure().message;
        assert!(error.starts_with("cannot read no/such/file: "), "{error}");
    }

    #[test]
    fn there_is_one_source_of_keys() {
        let both = ProcessSettings {
            api_key: Some(vec!["first".to_owned()]),
            api_keys_file: Some("keys".to_owned()),
            ..ProcessSettings::default()
        };
        let error = ApiKeysConfig::of(&both).unwrap_err().to_string();
        assert_eq!(error, "OPENAI_API_KEYS and API_KEYS_FILE are both given");
    }
}
