//! One line of the log for each request, if a setting enables it.

use crds::settings::ServingSettings;
use serde_json::{Map, Value};

/// Fields that contain the prompt; the others are parameters.
const PROMPT_FIELDS: [&str; 14] = [
    "prompt",
    "messages",
    "input",
    "inputs",
    "instructions",
    "system",
    "suffix",
    "documents",
    "query",
    "queries",
    "text",
    "text_1",
    "text_2",
    "tokens",
];

/// Longest text of all parameters together, characters.
const PARAMETERS_CHARS_MAX: usize = 4096;

/// What is logged of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RequestLog {
    /// Characters of the prompt at most; `None` is all.
    pub n_chars_max: Option<usize>,
}

impl RequestLog {
    /// The log of the settings; `None` if requests are not logged.
    pub fn of(serving: &ServingSettings) -> Option<Self> {
        let log = Self {
            n_chars_max: serving.max_log_len().map(|n| n as usize),
        };
        (!serving.disable_log_requests()).then_some(log)
    }

    /// Logs a body.
    pub fn write(self, body: &[u8]) {
        let (prompt, parameters) = self.parts(body);
        tracing::info!(prompt, parameters, "received");
    }

    /// The prompt, and the parameters.
    fn parts(self, body: &[u8]) -> (String, String) {
        let Ok(Value::Object(fields)) = serde_json::from_slice(body) else {
            return ("no object".into(), String::new());
        };
        let (prompt, parameters): (Map<_, _>, Map<_, _>) = fields
            .into_iter()
            .partition(|(name, _)| PROMPT_FIELDS.contains(&name.as_str()));
        let shown = |fields: Map<String, Value>, n_max: usize| -> String {
            let text = match fields.values().next() {
                Some(Value::String(text)) if fields.len() == 1 => text.clone(),
                _ => Value::Object(fields).to_string(),
            };
            text.chars().take(n_max).collect()
        };
        let prompt = shown(prompt, self.n_chars_max.unwrap_or(usize::MAX));
        let parameters = Value::Object(parameters).to_string();
        (prompt, parameters.chars().take(PARAMETERS_CHARS_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_turn_the_log_on() {
        let mut serving = ServingSettings::default();
        assert_eq!(RequestLog::of(&serving), None);
        serving.disable_log_requests = Some(false);
        assert_eq!(RequestLog::of(&serving), Some(RequestLog { n_chars_max: None }));
        serving.max_log_len = Some(10);
        let log = RequestLog::of(&serving);
        assert_eq!(log.and_then(|log| log.n_chars_max), Some(10));
    }

    #[test]
    fn a_prompt_is_cut_and_the_parameters_stand_apart() {
        let parts = |n_chars_max, body: &str| RequestLog { n_chars_max }.parts(body.as_bytes());
        let body = r#"{"model": "m", "prompt": "Hällo you", "top_k": 3}"#;
        let parameters = r#"{"model":"m","top_k":3}"#.to_string();
        assert_eq!(parts(Some(3), body), ("Häl".into(), parameters.clone()));
        assert_eq!(parts(None, body), ("Hällo you".into(), parameters.clone()));
        assert_eq!(parts(Some(0), body), (String::new(), parameters));
        let chat = parts(None, r#"{"messages": [{"role": "user"}]}"#);
        assert_eq!(chat, (r#"{"messages":[{"role":"user"}]}"#.into(), "{}".into()));
        assert_eq!(parts(None, "[1"), ("no object".into(), String::new()));
    }
}
