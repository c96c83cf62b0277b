//! Parameters that clients of OpenAI and vLLM know and this version does not have: refused, never passed over.

use serde_json::Value;

/// What a parameter means that no route has taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// It asks for nothing that would change the answer.
    Nothing,
    /// Neither OpenAI nor vLLM has it.
    Unknown,
    /// It asks for something that this version does not do.
    Unsupported,
}

/// Refused unless the value asks for nothing: `false`, empty, or one of the texts or numbers beside the name.
const UNSUPPORTED: &[(&str, &[&str])] = &[
    ("allowed_token_ids", &[]),
    ("apply_chat_template", &[]),
    ("audio", &[]),
    ("bad_words", &[]),
    ("best_of", &[]),
    ("chat_template", &[]),
    ("documents", &[]),
    ("early_stopping", &[]),
    ("echo", &[]),
    ("function_call", &["none", "auto"]),
    ("functions", &[]),
    ("guided_choice", &[]),
    ("guided_decoding_backend", &[]),
    ("guided_grammar", &[]),
    ("guided_json", &[]),
    ("guided_regex", &[]),
    ("guided_whitespace_pattern", &[]),
    ("kv_transfer_params", &[]),
    ("length_penalty", &["1", "1.0"]),
    ("logit_bias", &[]),
    ("logits_processors", &[]),
    ("logprob_token_ids", &[]),
    ("mm_processor_kwargs", &[]),
    ("modalities", &["[\"text\"]"]),
    ("prediction", &[]),
    ("prompt_embeds", &[]),
    ("prompt_logprobs", &[]),
    ("reasoning_effort", &[]),
    ("repetition_detection", &[]),
    ("response_format", &["{\"type\":\"text\"}"]),
    ("return_token_ids", &[]),
    ("return_tokens_as_token_ids", &[]),
    ("structured_outputs", &[]),
    ("suffix", &[]),
    ("thinking_token_budget", &[]),
    ("tool_choice", &["none", "auto"]),
    ("tools", &[]),
    ("truncate_prompt_tokens", &[]),
    ("use_beam_search", &[]),
    ("verbosity", &["medium"]),
    ("vllm_xargs", &[]),
    ("web_search_options", &[]),
];

/// They name or sort requests; no answer depends on them.
const WITHOUT_EFFECT: &[&str] = &[
    "cache_salt",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "prompt_cache_retention",
    "request_id",
    "safety_identifier",
    "service_tier",
    "session_id",
    "spaces_between_special_tokens",
    "store",
    "user",
];

/// What a parameter that was left over means.
pub(super) fn meaning(name: &str, value: &Value) -> Meaning {
    let Some((_, harmless)) = UNSUPPORTED.iter().find(|(known, _)| *known == name) else {
        let is_known = value.is_null() || WITHOUT_EFFECT.contains(&name);
        return if is_known {
            Meaning::Nothing
        } else {
            Meaning::Unknown
        };
    };
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_string);
    let asks_nothing = match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) | Value::Number(_) => false,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
    };
    if asks_nothing || harmless.contains(&text.as_str()) {
        Meaning::Nothing
    } else {
        Meaning::Unsupported
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_value_that_asks_for_nothing_is_fine() {
        for (name, value) in [
            ("tools", json!([])),
            ("tools", json!(null)),
            ("tool_choice", json!("none")),
            ("response_format", json!({"type": "text"})),
            ("logit_bias", json!({})),
            ("use_beam_search", json!(false)),
            ("length_penalty", json!(1.0)),
            ("modalities", json!(["text"])),
            ("user", json!("me")),
            ("some_new_thing", json!(null)),
        ] {
            assert_eq!(meaning(name, &value), Meaning::Nothing, "{name} {value}");
        }
    }

    #[test]
    fn a_value_that_asks_for_something_is_refused() {
        for (name, value) in [
            ("tools", json!([{"type": "function"}])),
            ("tool_choice", json!("required")),
            ("response_format", json!({"type": "json_object"})),
            ("logit_bias", json!({"5": 1})),
            ("guided_json", json!({"type": "object"})),
            ("prompt_logprobs", json!(0)),
            ("length_penalty", json!(2)),
        ] {
            assert_eq!(meaning(name, &value), Meaning::Unsupported, "{name} {value}");
        }
        assert_eq!(meaning("temprature", &json!(1)), Meaning::Unknown);
    }
}
