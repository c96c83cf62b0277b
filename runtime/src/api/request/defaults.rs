//! `generation_config.json`: the sampling that a checkpoint asks for where a request names none.
//!
//! Like vLLM, this takes the numbers and leaves `do_sample` aside: a client of OpenAI's API asks for greedy decoding
//! with `temperature: 0`.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::model::{ModelError, generation_config};

/// Sampling parameters of requests that name none.
#[derive(Clone, Debug, PartialEq)]
pub struct Defaults {
    /// Divides the logits; `None` if the checkpoint names none.
    pub temperature: Option<f32>,
    /// Sum of probabilities that is kept.
    pub top_p: f32,
    /// Tokens that are kept.
    pub top_k: Option<usize>,
    /// Share of the most probable token's probability that a token needs.
    pub min_p: f32,
    /// Divides the logits of tokens that were there before.
    pub repetition_penalty: f32,
    /// Tokens of an answer.
    pub max_tokens: Option<usize>,
}

/// A `generation_config.json` that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DefaultsError {
    /// It cannot be read.
    #[error(transparent)]
    Read(#[from] ModelError),
    /// A number is outside its range.
    #[error("{path}: {reason}")]
    Range {
        /// The file.
        path: PathBuf,
        /// The number.
        reason: String,
    },
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            temperature: None,
            top_p: 1.0,
            top_k: None,
            min_p: 0.0,
            repetition_penalty: 1.0,
            max_tokens: None,
        }
    }
}

impl Defaults {
    /// Reads the file of a folder; without one, OpenAI's defaults.
    ///
    /// # Errors
    /// For a file that is no JSON, or a number outside its range.
    pub fn load(folder: &Path) -> Result<Self, DefaultsError> {
        let Some(json) = generation_config(folder)? else {
            return Ok(Self::default());
        };
        Self::from_json(&json).map_err(|reason| DefaultsError::Range {
            path: folder.join("generation_config.json"),
            reason,
        })
    }

    fn from_json(json: &Value) -> Result<Self, String> {
        let defaults = Self::default();
        let number = |name: &str, default: f32, fits: fn(f64) -> bool| match &json[name] {
            Value::Null => Ok(default),
            value => value
                .as_f64()
                .filter(|x| fits(*x))
                .map(|x| x as f32)
                .filter(|x| x.is_finite() && fits(f64::from(*x)))
                .ok_or_else(|| format!("{name} is {value}")),
        };
        let count = |name: &str| match &json[name] {
            Value::Null => Ok(None),
            value => value
                .as_u64()
                .map(|n| Some(n as usize).filter(|n| *n > 0))
                .ok_or_else(|| format!("{name} is {value}")),
        };
        Ok(Self {
            temperature: match &json["temperature"] {
                Value::Null => None,
                _ => Some(number("temperature", 1.0, |x| x >= 0.0)?),
            },
            top_p: number("top_p", defaults.top_p, |x| x > 0.0 && x <= 1.0)?,
            top_k: count("top_k")?,
            min_p: number("min_p", defaults.min_p, |x| (0.0..=1.0).contains(&x))?,
            repetition_penalty: number("repetition_penalty", defaults.repetition_penalty, |x| x > 0.0)?,
            max_tokens: count("max_new_tokens")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_are_taken_and_the_rest_is_openais() {
        let json =
            json!({"temperature": 0.6, "top_k": 0, "top_p": 0.9, "do_sample": false, "eos_token_id": [1]});
        let expected = Defaults {
            temperature: Some(0.6),
            top_p: 0.9,
            ..Defaults::default()
        };
        assert_eq!(Defaults::from_json(&json), Ok(expected));
        assert_eq!(Defaults::from_json(&json!({})), Ok(Defaults::default()));
    }

    #[test]
    fn a_number_that_makes_no_sense_is_named() {
        assert_eq!(
            Defaults::from_json(&json!({"top_p": 0})),
            Err("top_p is 0".into())
        );
        for (name, value) in [
            ("repetition_penalty", 1e300),
            ("repetition_penalty", 1e-60),
            ("temperature", 1e39),
        ] {
            let refused = Defaults::from_json(&json!({name: value})).unwrap_err();
            assert!(refused.starts_with(name), "{refused}");
        }
        assert_eq!(
            Defaults::from_json(&json!({"top_k": "x"})),
            Err("top_k is \"x\"".into())
        );
    }

    #[test]
    fn a_folder_without_the_file_has_openais_defaults() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(Defaults::load(folder.path()).unwrap(), Defaults::default());
        std::fs::write(folder.path().join("generation_config.json"), "[").unwrap();
        assert!(
            Defaults::load(folder.path())
                .unwrap_err()
                .to_string()
                .contains("generation_config.json")
        );
    }
}
