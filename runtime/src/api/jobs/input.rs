//! A job's `input` becomes a request to an OpenAI route, so each parameter is read in one place only.
//!
//! Owns the names of worker-vllm's `input`. The routes check the values.

use serde_json::{Map, Value, json};

use super::batches::BatchRule;
use crate::api::error::{ApiError, shortened};

/// Fields of `input`, and their effect.
pub const FIELDS: [(&str, &str); 10] = [
    ("prompt", "Text to continue."),
    (
        "messages",
        "A conversation, or the text of one message of the user, which the chat template writes; takes precedence over `prompt`.",
    ),
    (
        "apply_chat_template",
        "Makes `prompt` a message of the user; default: false.",
    ),
    ("sampling_params", "Options of the answer: the table below."),
    (
        "stream",
        "Makes output in batches of tokens, for `/stream`; default: false.",
    ),
    (
        "max_batch_size",
        "Largest number of tokens of a batch; default: DEFAULT_BATCH_SIZE.",
    ),
    (
        "min_batch_size",
        "Number of tokens of the first batch; default: DEFAULT_MIN_BATCH_SIZE.",
    ),
    (
        "batch_size_growth_factor",
        "The factor from one batch size to the next; default: DEFAULT_BATCH_SIZE_GROWTH_FACTOR.",
    ),
    (
        "openai_route",
        "Instead of the fields above: a route below `/v1`.",
    ),
    (
        "openai_input",
        "The body of that route; without it the method is GET.",
    ),
];

/// Sampling parameters with their defaults, which are worker-vllm's and not the checkpoint's.
pub const SAMPLING: &[(&str, Option<&str>)] = &[
    ("n", Some("1")),
    ("best_of", None),
    ("presence_penalty", Some("0.0")),
    ("frequency_penalty", Some("0.0")),
    ("repetition_penalty", Some("1.0")),
    ("temperature", Some("1.0")),
    ("top_p", Some("1.0")),
    ("top_k", Some("-1")),
    ("min_p", Some("0.0")),
    ("use_beam_search", None),
    ("length_penalty", None),
    ("early_stopping", None),
    ("stop", None),
    ("stop_token_ids", None),
    ("ignore_eos", None),
    ("max_tokens", Some("16")),
    ("skip_special_tokens", None),
    ("spaces_between_special_tokens", None),
    // Parameters of vLLM that worker-vllm does not document.
    ("seed", None),
    ("min_tokens", None),
    ("include_stop_str_in_output", None),
    ("logit_bias", None),
    ("bad_words", None),
    ("allowed_token_ids", None),
    ("truncate_prompt_tokens", None),
];

/// A request of a job to this server.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// Path of the route.
    pub path: String,
    /// Body; `None` for the method GET.
    pub body: Option<Value>,
    /// How the answer becomes output.
    pub output: OutputKind,
}

/// How an answer becomes the output of a job.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OutputKind {
    /// Batches of tokens, each with the usage so far.
    Tokens {
        /// Number of answers to the prompt.
        n: usize,
        /// Sizes of the batches; `None`: one batch.
        rule: Option<BatchRule>,
    },
    /// The answer of the OpenAI route.
    OpenAi {
        /// Sizes of the batches of a stream's events; `None`: a complete answer.
        rule: Option<BatchRule>,
    },
}

/// Those of the names in `input` that are unknown.
pub fn unknown_fields<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let is_known = |name: &str| FIELDS.iter().any(|(known, _)| *known == name);
    let unknown = names.filter(|name| !is_known(name));
    unknown.map(|name| format!("input.{name}")).collect()
}

/// Reads the `input` of a job. `model` is the name of the model in the request, `rule` the default of the batch sizes.
///
/// # Errors
/// [`ApiError`] for absent and wrong values.
pub fn read(input: &Map<String, Value>, model: &str, rule: BatchRule) -> Result<Call, ApiError> {
    match given(input, "openai_route") {
        Some(route) => openai(route, input, rule),
        None => tokens(input, model, rule),
    }
}

fn given<'a>(input: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    input.get(name).filter(|value| !value.is_null())
}

fn openai(route: &Value, input: &Map<String, Value>, rule: BatchRule) -> Result<Call, ApiError> {
    let path = route
        .as_str()
        .map(|path| path.strip_prefix("/openai").unwrap_or(path))
        .filter(|path| path.starts_with("/v1/") && path.bytes().all(|byte| byte.is_ascii_graphic()))
        .ok_or_else(|| ApiError::invalid("openai_route", "a path below /v1/", route))?;
    let body =
        given(input, "openai_input").filter(|body| body.as_object().is_none_or(|body| !body.is_empty()));
    // `/v1/models` is the only route with the method GET.
    let is_read = path.starts_with("/v1/models");
    if body.is_none() && !is_read {
        return Err(ApiError::missing("openai_input"));
    }
    let is_streamed = body.is_some_and(|body| body["stream"] == Value::Bool(true));
    Ok(Call {
        path: path.to_string(),
        body: body.filter(|_| !is_read).cloned(),
        output: OutputKind::OpenAi {
            rule: is_streamed.then_some(rule),
        },
    })
}

fn tokens(input: &Map<String, Value>, model: &str, rule: BatchRule) -> Result<Call, ApiError> {
    let flag = |name: &str| match given(input, name) {
        None => Ok(false),
        Some(Value::Bool(flag)) => Ok(*flag),
        Some(other) => Err(ApiError::invalid(name, "true or false", other)),
    };
    let (path, name, prompt) = match (given(input, "messages"), given(input, "prompt")) {
        (Some(Value::String(text)), _) => {
            let messages = json!([{"role": "user", "content": text}]);
            ("/v1/chat/completions", "messages", messages)
        }
        (Some(messages), _) => ("/v1/chat/completions", "messages", messages.clone()),
        (None, Some(prompt)) if flag("apply_chat_template")? => {
            let messages = json!([{"role": "user", "content": prompt}]);
            ("/v1/chat/completions", "messages", messages)
        }
        (None, Some(prompt)) if prompt.is_string() => ("/v1/completions", "prompt", prompt.clone()),
        (None, Some(prompt)) => return Err(ApiError::invalid("prompt", "a string", prompt)),
        (None, None) => {
            return Err(ApiError::Missing {
                param: "prompt".into(),
            });
        }
    };
    let mut body = sampling(input)?;
    let n = body["n"].as_u64().unwrap_or(1) as usize;
    body.insert("model".into(), model.into());
    body.insert(name.into(), prompt);
    let rule = flag("stream")?.then(|| sizes(input, rule)).transpose()?;
    if rule.is_some() {
        body.insert("stream".into(), true.into());
        let options = json!({"include_usage": true, "continuous_usage_stats": true});
        body.insert("stream_options".into(), options);
    }
    Ok(Call {
        path: path.into(),
        body: Some(Value::Object(body)),
        output: OutputKind::Tokens { n, rule },
    })
}

fn sampling(input: &Map<String, Value>) -> Result<Map<String, Value>, ApiError> {
    let mut params = match given(input, "sampling_params") {
        None => Map::new(),
        Some(Value::Object(params)) => params.clone(),
        Some(other) => return Err(ApiError::invalid("sampling_params", "an object", other)),
    };
    let is_known = |name: &str| SAMPLING.iter().any(|(known, _)| *known == name);
    if let Some(name) = params.keys().find(|name| !is_known(name)) {
        let known: Vec<&str> = SAMPLING.iter().map(|(name, _)| *name).collect();
        return Err(ApiError::Contradiction {
            param: format!("sampling_params.{}", shortened(name)),
            reason: format!("unknown parameter; the parameters are {}", known.join(", ")),
        });
    }
    params.retain(|_, value| !value.is_null());
    let searches = params.get("use_beam_search") == Some(&Value::Bool(true));
    for (name, default) in SAMPLING {
        // A beam search does not sample, so it has no temperature.
        let is_given = params.contains_key(*name) || (searches && *name == "temperature");
        if let (Some(default), false) = (default, is_given) {
            let default = serde_json::from_str(default).expect("the table holds JSON");
            params.insert((*name).to_string(), default);
        }
    }
    Ok(params)
}

/// The sizes of a job's batches; 0 means absent.
fn sizes(input: &Map<String, Value>, rule: BatchRule) -> Result<BatchRule, ApiError> {
    let size = |name: &str, default: u32| match given(input, name) {
        None => Ok(default),
        Some(value) => match value.as_u64().map(u32::try_from) {
            Some(Ok(0)) => Ok(default),
            Some(Ok(size)) => Ok(size),
            _ => Err(ApiError::invalid(name, "a whole number of at least 1", value)),
        },
    };
    let growth = match given(input, "batch_size_growth_factor") {
        None => rule.growth,
        Some(value) => match value.as_f64().filter(|x| x.is_finite() && *x >= 0.0) {
            Some(0.0) => rule.growth,
            Some(growth) => growth,
            None => {
                return Err(ApiError::invalid(
                    "batch_size_growth_factor",
                    "a positive number",
                    value,
                ));
            }
        },
    };
    Ok(BatchRule {
        n_max: size("max_batch_size", rule.n_max)?,
        n_min: size("min_batch_size", rule.n_min)?,
        growth,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULE: BatchRule = BatchRule {
        n_max: 50,
        n_min: 1,
        growth: 3.0,
    };

    fn call(input: Value) -> Result<Call, String> {
        read(input.as_object().unwrap(), "tiny", RULE).map_err(|error| error.to_string())
    }

    #[test]
    fn a_prompt_is_a_completion_with_the_documented_defaults() {
        let call = call(json!({"prompt": "Hi", "sampling_params": {"top_k": 5, "stop": null}})).unwrap();
        let expected = json!({
            "top_k": 5, "n": 1, "presence_penalty": 0.0, "frequency_penalty": 0.0, "repetition_penalty": 1.0,
            "temperature": 1.0, "top_p": 1.0, "min_p": 0.0, "max_tokens": 16, "model": "tiny", "prompt": "Hi",
        });
        assert_eq!(
            (call.path.as_str(), call.body),
            ("/v1/completions", Some(expected))
        );
        assert_eq!(call.output, OutputKind::Tokens { n: 1, rule: None });
    }

    #[test]
    fn a_beam_search_has_no_temperature() {
        let params = json!({"use_beam_search": true, "n": 2});
        let body = call(json!({"prompt": "Hi", "sampling_params": params}))
            .unwrap()
            .body
            .unwrap();
        assert_eq!(
            (&body["temperature"], &body["top_p"]),
            (&Value::Null, &json!(1.0))
        );
    }

    #[test]
    fn messages_override_the_prompt_and_a_template_makes_it_one() {
        let messages = json!([{"role": "user", "content": "Ho"}]);
        let chat = |input: Value| {
            let call = call(input).unwrap();
            assert_eq!(call.path, "/v1/chat/completions");
            call.body.unwrap()["messages"].clone()
        };
        assert_eq!(chat(json!({"prompt": "Hi", "messages": messages})), messages);
        assert_eq!(chat(json!({"messages": "Ho"})), messages);
        let own = chat(json!({"prompt": "Ho", "apply_chat_template": true}));
        assert_eq!(own, messages);
    }

    #[test]
    fn a_stream_has_the_jobs_own_sizes() {
        let rule = |input: Value| match call(input).unwrap().output {
            OutputKind::Tokens { rule, .. } | OutputKind::OpenAi { rule } => rule,
        };
        assert_eq!(rule(json!({"prompt": "Hi", "stream": true})), Some(RULE));
        let own = json!({
            "prompt": "Hi", "stream": true, "max_batch_size": 8, "min_batch_size": 2, "batch_size_growth_factor": 2
        });
        let expected = BatchRule {
            n_max: 8,
            n_min: 2,
            growth: 2.0,
        };
        assert_eq!(rule(own), Some(expected));
        let openai = json!({"openai_route": "/v1/completions", "openai_input": {"stream": true}});
        assert_eq!(rule(openai), Some(RULE));
    }

    #[test]
    fn an_openai_route_gets_its_body_unchanged() {
        let models = call(json!({"openai_route": "/openai/v1/models"})).unwrap();
        assert_eq!((models.path.as_str(), models.body), ("/v1/models", None));
        let body = json!({"model": "x", "prompt": "Hi"});
        let plain = call(json!({"openai_route": "/v1/completions", "openai_input": body})).unwrap();
        assert_eq!((plain.path.as_str(), plain.body), ("/v1/completions", Some(body)));
    }

    #[test]
    fn an_error_names_the_wrong_field() {
        let error = |input: Value| call(input).unwrap_err();
        assert_eq!(error(json!({})), "prompt is missing");
        assert!(error(json!({"prompt": 7})).starts_with("prompt must be a string"));
        let unknown = error(json!({"prompt": "Hi", "sampling_params": {"temprature": 1}}));
        assert!(
            unknown.starts_with("sampling_params.temprature: unknown parameter"),
            "{unknown}"
        );
        assert!(error(json!({"prompt": "Hi", "sampling_params": 1})).contains("an object"));
        let bare = error(json!({"openai_route": "/v1/completions", "openai_input": {}}));
        assert_eq!(bare, "openai_input is missing");
        assert!(error(json!({"prompt": "Hi", "stream": 1})).starts_with("stream must be true or false"));
        for route in ["/metrics", "/v1/../drain x", "v1/models", "/internal/load"] {
            assert!(
                error(json!({"openai_route": route})).starts_with("openai_route"),
                "{route}"
            );
        }
        for (name, value) in [
            ("max_batch_size", json!(-1)),
            ("min_batch_size", json!("2")),
            ("batch_size_growth_factor", json!(-0.5)),
        ] {
            assert!(error(json!({"prompt": "Hi", "stream": true, name: value})).starts_with(name));
        }
        let names = ["prompt", "batch_size"].into_iter();
        assert_eq!(unknown_fields(names), ["input.batch_size"]);
    }
}
