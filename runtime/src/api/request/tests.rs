//! Requests against the shipped tokenizer: accepted parameters have their documented effect, and errors name the wrong
//! ones.

use std::path::Path;
use std::sync::LazyLock;

use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::parameters::{CHAT_COMPLETIONS, COMPLETIONS};
use super::*;
use crate::api::error::ApiError;
use crate::api::text::STOP_BYTES_MAX;
use crate::chat_template::ChatTemplate;
use crate::config::ServedNames;
use crate::engine::{EarlyStopping, GenerateRequest, SamplingParams};
use crate::grammar::Grammars;
use crate::model::Lengths;
use crate::model::Task;
use crate::preparation::Budget;
use crate::tokenizer::{Begin, Special, Tokenizer};

struct Fixture {
    tokenizer: Tokenizer,
    template: ChatTemplate,
    served: ServedNames,
    defaults: Defaults,
    grammars: Grammars,
    budget: Budget,
}

static FIXTURE: LazyLock<Fixture> = LazyLock::new(|| {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-trained");
    let tokenizer = Tokenizer::load(&folder).unwrap();
    let template = ChatTemplate::choose(None, tokenizer.config()).unwrap().unwrap();
    let grammars = Grammars::new(tokenizer.tokens(), &[2], tokenizer.tokens().n_ids()).unwrap();
    Fixture {
        tokenizer,
        grammars,
        template,
        served: ServedNames {
            first: "tiny".into(),
            others: vec!["alias".into()],
        },
        defaults: Defaults::default(),
        budget: Budget::unlimited(),
    }
});

fn rules(defaults: &Defaults) -> Rules<'_> {
    Rules {
        served: &FIXTURE.served,
        task: Task::Generate,
        embedding_size: 64,
        lengths: &Lengths::Whole,
        max_logprobs: Some(20),
        max_model_len: 2048,
        defaults,
        template: Some(&FIXTURE.template),
        response_role: "assistant",
        grammars: Ok(&FIXTURE.grammars),
        strict: false,
        formats: crate::parsers::Formats::default(),
        tokenizer: &FIXTURE.tokenizer,
        budget: &FIXTURE.budget,
    }
}

fn completed(extra: Value) -> Result<Prepared, ApiError> {
    let body = merged(json!({"model": "tiny", "prompt": "Hello"}), extra);
    completion(body.to_string().as_bytes(), &rules(&FIXTURE.defaults))
}

fn chatted(extra: Value) -> Result<Prepared, ApiError> {
    let body = merged(
        json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}),
        extra,
    );
    chat(body.to_string().as_bytes(), &rules(&FIXTURE.defaults))
}

fn merged(mut body: Value, extra: Value) -> Value {
    for (name, value) in extra.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

fn sampling(prepared: &Prepared) -> &SamplingParams {
    match &prepared.answers.method {
        Method::Sample { sampling, .. } => sampling,
        Method::Search(_) => panic!("it searches"),
    }
}

fn generated(prepared: &Prepared) -> Vec<GenerateRequest> {
    match prepared.work() {
        Work::Generate(requests) => requests,
        Work::Search(_) => panic!("it searches"),
    }
}

fn text(prompt: &Prompt) -> String {
    FIXTURE.tokenizer.tokens().decode(&prompt.ids, Special::Show)
}

#[test]
fn a_bare_completion_has_openais_defaults() {
    let prepared = completed(json!({})).unwrap();
    assert_eq!(prepared.model, "tiny");
    assert_eq!(prepared.answers.max_tokens, Some(16));
    assert_eq!(sampling(&prepared), &SamplingParams::default());
    assert_eq!(prepared.answers.stream, None);
    assert_eq!(generated(&prepared).len(), 1);
}

#[test]
fn a_chat_is_what_the_template_writes() {
    let prepared = chatted(json!({})).unwrap();
    assert_eq!(
        text(&prepared.prompts[0]),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"
    );
    assert_eq!(prepared.answers.max_tokens, None);
    let bare = chatted(json!({"add_generation_prompt": false})).unwrap();
    let as_variable = chatted(json!({"chat_template_kwargs": {"add_generation_prompt": false}})).unwrap();
    assert_eq!(text(&as_variable.prompts[0]), text(&bare.prompts[0]));
    assert_eq!(text(&bare.prompts[0]), "<|im_start|>user\nHi<|im_end|>\n");
    let open =
        json!({"continue_final_message": true, "messages": [{"role": "assistant", "content": "Well,"}]});
    assert_eq!(
        text(&chatted(open).unwrap().prompts[0]),
        "<|im_start|>assistant\nWell,"
    );
}

#[test]
fn a_requests_value_takes_precedence_over_the_checkpoints() {
    let defaults = Defaults {
        temperature: Some(0.6),
        top_k: Some(50),
        max_tokens: Some(99),
        ..Defaults::default()
    };
    let with = |extra| {
        let body = merged(json!({"model": "tiny", "prompt": "Hello"}), extra);
        completion(body.to_string().as_bytes(), &rules(&defaults)).unwrap()
    };
    let of = |prepared: &Prepared| {
        let sampling = sampling(prepared);
        (sampling.temperature, sampling.top_k, prepared.answers.max_tokens)
    };
    let silent = with(json!({"temperature": null}));
    assert_eq!(of(&silent), (0.6, Some(50), Some(99)));
    let given = with(json!({"temperature": 0, "top_k": -1, "max_tokens": 3.0}));
    assert_eq!(of(&given), (0.0, None, Some(3)));
}

#[test]
fn prompts_come_in_four_forms() {
    let prompts = |value: Value| completed(json!({"prompt": value, "echo": true})).unwrap().prompts;
    let hello = FIXTURE.tokenizer.encode("Hello", Begin::Add).unwrap();
    assert_eq!(prompts(json!("Hello"))[0].ids, hello);
    assert_eq!(prompts(json!(["Hello", "Hello"])).len(), 2);
    assert_eq!(
        prompts(json!(hello)),
        [Prompt {
            ids: hello.clone(),
            echo: Some("Hello".into())
        }]
    );
    assert_eq!(prompts(json!([hello, [5]]))[1].ids, [5]);
}

#[test]
fn several_answers_to_a_prompt_are_one_request() {
    let prepared = completed(json!({"n": 3, "seed": -1, "prompt": ["a", "b"]})).unwrap();
    let requests = generated(&prepared);
    let of = |request: &GenerateRequest| (request.n, request.sampling.seed);
    assert_eq!(
        requests.iter().map(of).collect::<Vec<_>>(),
        [(3, Some(u64::MAX)); 2]
    );
}

#[test]
fn unknown_parameters_are_reported_and_those_without_effect_are_not() {
    let prepared =
        completed(json!({"temprature": 1, "user": "me", "best_of": 1, "cache_salt": "a", "x": null}))
            .unwrap();
    assert_eq!(prepared.ignored, ["temprature"]);
    assert!(chatted(json!({"vllm_xargs": {"a": 1}, "thinking_token_budget": -1})).is_ok());
    assert_eq!(
        chatted(json!({"thinking_token_budget": 9})).unwrap_err().param(),
        Some("thinking_token_budget")
    );
}

#[test]
fn a_prompt_that_is_certainly_too_long_is_refused_before_it_is_encoded() {
    let error = completed(json!({"prompt": "a ".repeat(1 << 20)})).unwrap_err();
    assert_eq!(
        (error.param(), error.facts().code),
        (Some("prompt"), Some("context_length_exceeded"))
    );
}

#[test]
fn the_error_of_a_model_without_template_contains_advice() {
    let body = json!({"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}).to_string();
    let without = Rules {
        template: None,
        ..rules(&FIXTURE.defaults)
    };
    let error = chat(body.as_bytes(), &without).unwrap_err();
    assert!(error.to_string().contains("CUSTOM_CHAT_TEMPLATE"), "{error}");
}

#[test]
fn an_error_names_the_wrong_parameter() {
    let long = "x".repeat(STOP_BYTES_MAX + 1);
    let common = [
        (json!({"model": "gpt-5"}), "model", "unknown_model"),
        (json!({"model": 5}), "model", "invalid_value"),
        (json!({"temperature": -0.1}), "temperature", "invalid_value"),
        (json!({"temperature": "hot"}), "temperature", "invalid_value"),
        (json!({"top_p": -0.1}), "top_p", "invalid_value"),
        (json!({"top_p": 1.1}), "top_p", "invalid_value"),
        (json!({"top_k": -2}), "top_k", "invalid_value"),
        (json!({"top_k": 1.5}), "top_k", "invalid_value"),
        (json!({"min_p": 2}), "min_p", "invalid_value"),
        (
            json!({"presence_penalty": 3}),
            "presence_penalty",
            "invalid_value",
        ),
        (
            json!({"frequency_penalty": -3}),
            "frequency_penalty",
            "invalid_value",
        ),
        (
            json!({"repetition_penalty": 0}),
            "repetition_penalty",
            "invalid_value",
        ),
        (json!({"n": 0}), "n", "invalid_value"),
        (json!({"n": 1000}), "n", "invalid_value"),
        (json!({"seed": 1.5}), "seed", "invalid_value"),
        (json!({"seed": "x"}), "seed", "invalid_value"),
        (json!({"max_tokens": -1}), "max_tokens", "invalid_value"),
        (json!({"min_tokens": -1}), "min_tokens", "invalid_value"),
        (json!({"stop": ""}), "stop", "invalid_value"),
        (json!({"stop": 3}), "stop", "invalid_value"),
        (json!({"stop": ["a", long]}), "stop[1]", "invalid_value"),
        (json!({"stop": vec!["a"; 65]}), "stop", "invalid_value"),
        (json!({"stop_token_ids": [-1]}), "stop_token_ids", "invalid_value"),
        (json!({"stop_token_ids": "a"}), "stop_token_ids", "invalid_value"),
        (json!({"ignore_eos": 1}), "ignore_eos", "invalid_value"),
        (json!({"stream": "yes"}), "stream", "invalid_value"),
        (
            json!({"stream_options": {"include_usage": true}}),
            "stream_options",
            "contradiction",
        ),
        (
            json!({"stream": true, "stream_options": 1}),
            "stream_options",
            "invalid_value",
        ),
        (
            json!({"stream": true, "stream_options": {"include_usage": 1}}),
            "stream_options.include_usage",
            "invalid_value",
        ),
        (json!({"best_of": 2, "n": 3}), "best_of", "invalid_value"),
        (json!({"best_of": 2, "stream": true}), "best_of", "contradiction"),
        (json!({"length_penalty": 2}), "use_beam_search", "contradiction"),
        (
            json!({"use_beam_search": true, "top_k": 2}),
            "top_k",
            "contradiction",
        ),
        (
            json!({"use_beam_search": true, "temperature": 1}),
            "temperature",
            "contradiction",
        ),
        (
            json!({"early_stopping": "soon"}),
            "early_stopping",
            "invalid_value",
        ),
        (
            json!({"truncate_prompt_tokens": 0}),
            "truncate_prompt_tokens",
            "invalid_value",
        ),
        (json!({"request_id": "a b"}), "request_id", "invalid_value"),
        (json!({"cache_salt": 1}), "cache_salt", "invalid_value"),
        (json!({"cache_salt": ""}), "cache_salt", "invalid_value"),
    ];
    for (extra, param, label) in common {
        for error in [
            completed(extra.clone()).unwrap_err(),
            chatted(extra.clone()).unwrap_err(),
        ] {
            assert_eq!(
                (error.param(), error.facts().label),
                (Some(param), label),
                "{extra}"
            );
        }
    }
    let completions = [
        (json!({"prompt": null}), "prompt", "missing"),
        (json!({"prompt": []}), "prompt", "invalid_value"),
        (json!({"prompt": {"a": 1}}), "prompt", "invalid_value"),
        (json!({"prompt": [1, "a"]}), "prompt", "invalid_value"),
        (json!({"prompt": ["a", 1]}), "prompt", "invalid_value"),
        (json!({"prompt": [-1]}), "prompt", "invalid_value"),
        (json!({"prompt": vec!["a"; 129]}), "prompt", "invalid_value"),
        (json!({"logprobs": 21}), "logprobs", "invalid_value"),
        (json!({"logprobs": true}), "logprobs", "invalid_value"),
    ];
    for (extra, param, label) in completions {
        let error = completed(extra.clone()).unwrap_err();
        assert_eq!(
            (error.param(), error.facts().label),
            (Some(param), label),
            "{extra}"
        );
    }
    let chats = [
        (json!({"messages": null}), "messages", "missing"),
        (json!({"messages": []}), "messages", "invalid_value"),
        (json!({"messages": "Hi"}), "messages", "invalid_value"),
        (json!({"logprobs": 1}), "logprobs", "invalid_value"),
        (json!({"top_logprobs": 3}), "top_logprobs", "contradiction"),
        (
            json!({"logprobs": true, "top_logprobs": 21}),
            "top_logprobs",
            "invalid_value",
        ),
        (
            json!({"max_completion_tokens": 0}),
            "max_completion_tokens",
            "invalid_value",
        ),
        (json!({"max_tokens": 0}), "max_tokens", "invalid_value"),
        (
            json!({"chat_template": "{{ 1 "}),
            "chat_template",
            "contradiction",
        ),
        (json!({"documents": ["a"]}), "documents", "invalid_value"),
        (
            json!({"chat_template_kwargs": []}),
            "chat_template_kwargs",
            "invalid_value",
        ),
        (
            json!({"chat_template_kwargs": {"messages": []}}),
            "chat_template_kwargs",
            "contradiction",
        ),
        (
            json!({"continue_final_message": true, "add_generation_prompt": true}),
            "continue_final_message",
            "contradiction",
        ),
    ];
    for (extra, param, label) in chats {
        let error = chatted(extra.clone()).unwrap_err();
        assert_eq!(
            (error.param(), error.facts().label),
            (Some(param), label),
            "{extra}"
        );
    }
}

#[test]
fn an_error_has_the_clients_name_of_the_wrong_parameter() {
    let long = "a ".repeat(1 << 20);
    let rules = rules(&FIXTURE.defaults);
    let turns =
        json!([{"role": "user", "content": "Hi"}, {"role": "user", "content": [{"type": "input_audio"}]}]);
    let call = json!([{"type": "function_call", "call_id": "1", "name": "f", "arguments": 7}]);
    let output = json!([{"type": "function_call_output", "call_id": "1", "output": 7}]);
    let flat = json!([{"type": "function", "name": "a b"}]);
    let items = [
        (json!({"max_output_tokens": 0}), "max_output_tokens"),
        (json!({"reasoning": {"effort": 3}}), "reasoning.effort"),
        (
            json!({"text": {"format": {"type": "json_schema"}}}),
            "text.format.schema",
        ),
        (
            json!({"text": {"format": {"type": "json_schema", "schema": {"type": "x"}}}}),
            "text.format",
        ),
        (json!({"tools": flat}), "tools[0].name"),
        (
            json!({"tool_choice": {"type": "allowed_tools", "mode": "none"}}),
            "tool_choice.mode",
        ),
        (
            json!({"instructions": "Be brief.", "input": turns}),
            "input[1].content[0]",
        ),
        (
            json!({"instructions": "Be brief.", "input": call}),
            "input[0].arguments",
        ),
        (json!({"input": output}), "input[0].output"),
        (json!({"input": long}), "input"),
    ];
    for (extra, param) in items {
        let body = merged(json!({"input": "Hi"}), extra).to_string();
        let error = response(body.as_bytes(), &rules).unwrap_err();
        assert_eq!(error.param(), Some(param), "{error}");
        assert!(
            param == "input" || error.to_string().starts_with(param),
            "{error}"
        );
    }
    let turns =
        json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": [{"type": "text"}]}]);
    let messages = [
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"temperature": 1.1}), "temperature"),
        (json!({"stop_sequences": ["a", ""]}), "stop_sequences[1]"),
        (
            json!({"tools": [{"name": "a b", "input_schema": {}}]}),
            "tools[0].name",
        ),
        (
            json!({"tools": [{"name": "f", "input_schema": 3}]}),
            "tools[0].input_schema",
        ),
        (
            json!({"system": "Be brief.", "messages": turns}),
            "messages[1].content[0].text",
        ),
    ];
    for (extra, param) in messages {
        let least = json!({"max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]});
        let body = merged(least, extra).to_string();
        let error = anthropic(body.as_bytes(), &rules).unwrap_err();
        assert_eq!(error.param(), Some(param), "{error}");
        assert!(error.to_string().starts_with(param), "{error}");
    }
}

#[test]
fn parameters_that_models_do_not_have_are_accepted_without_effect() {
    assert!(chatted(json!({"verbosity": "low", "prediction": {"type": "content", "content": "Hi"}})).is_ok());
    let answered = |extra: Value| {
        let body = merged(json!({"input": "Hi"}), extra).to_string();
        response(body.as_bytes(), &rules(&FIXTURE.defaults)).map(drop)
    };
    assert_eq!(answered(json!({"text": {"verbosity": "low"}})), Ok(()));
    assert_eq!(answered(json!({"truncation": "auto"})), Ok(()));
    let long = answered(json!({"truncation": "auto", "input": "a ".repeat(1 << 20)})).unwrap_err();
    assert!(
        long.to_string().contains("reduce the length of the input"),
        "{long}"
    );
}

#[test]
fn a_body_that_is_not_an_object_is_refused() {
    for body in [
        "",
        "{",
        "nonsense",
        "[]",
        "null",
        "7",
        "\"a\"",
        &"[".repeat(10_000),
    ] {
        let error = completion(body.as_bytes(), &rules(&FIXTURE.defaults)).unwrap_err();
        assert_eq!(error.facts().status, 400, "{body:.20}");
    }
}

#[test]
fn a_request_that_names_no_model_means_the_first() {
    assert_eq!(completed(json!({"model": null})).unwrap().model, "tiny");
    assert_eq!(completed(json!({"model": ""})).unwrap().model, "tiny");
    assert_eq!(completed(json!({"model": "alias"})).unwrap().model, "alias");
}

#[test]
fn a_chat_has_the_temperature_of_the_documents() {
    assert_eq!(sampling(&chatted(json!({})).unwrap()).temperature, 0.7);
    assert_eq!(sampling(&completed(json!({})).unwrap()).temperature, 1.0);
}

#[test]
fn parts_that_are_left_out_are_named() {
    let hosted = json!({"type": "web_search_20250305", "name": "web_search", "max_uses": 8});
    let function = json!({"type": "function", "name": "f"});
    let chat_function = json!({"type": "function", "function": {"name": "f"}});
    let user = json!([{"role": "user", "content": "Hi"}]);
    let item = json!({"type": "web_search_call", "id": "ws_1"});
    let (tool, call) = ("tools[0]:web_search_20250305", "input[1]:web_search_call");
    let rules = rules(&FIXTURE.defaults);
    let strict = Rules {
        strict: true,
        ..rules
    };
    let chat_body = json!({"messages": user, "tools": [hosted, chat_function]}).to_string();
    let messages_body = json!({"messages": user, "max_tokens": 5, "tools": [hosted]}).to_string();
    let response_body = json!({"input": [user[0], item], "tools": [hosted, function]}).to_string();
    let prepare = |rules: &Rules<'_>| {
        [
            chat(chat_body.as_bytes(), rules),
            anthropic(messages_body.as_bytes(), rules),
            response(response_body.as_bytes(), rules).map(|response| response.prepared),
        ]
    };
    let ignored = prepare(&rules).map(|prepared| prepared.unwrap().ignored);
    assert_eq!(ignored, [vec![tool], vec![tool], vec![call, tool]]);
    for error in prepare(&strict).map(Result::unwrap_err) {
        assert!(matches!(error, ApiError::UnknownParameter { .. }), "{error}");
    }
}

#[test]
fn unknown_parameters_are_refused_in_strict_mode() {
    let rules = Rules {
        strict: true,
        formats: crate::parsers::Formats::default(),
        ..rules(&FIXTURE.defaults)
    };
    let body = json!({"prompt": "a", "temprature": 1}).to_string();
    let error = completion(body.as_bytes(), &rules).unwrap_err();
    assert_eq!(
        (error.param(), error.facts().code),
        (Some("temprature"), Some("unknown_parameter"))
    );
}

#[test]
fn a_top_p_of_0_is_greedy() {
    let greedy = completed(json!({"top_p": 0, "temperature": 1.5})).unwrap();
    assert_eq!(
        (sampling(&greedy).temperature, sampling(&greedy).top_p),
        (0.0, 1.0)
    );
}

#[test]
fn a_beam_search_has_as_many_beams_as_best_of() {
    let params = |extra: Value| {
        let body = merged(json!({"use_beam_search": true}), extra);
        match completed(body).unwrap().answers.method {
            Method::Search(params) => (params.width, params.length_penalty, params.early_stopping),
            Method::Sample { .. } => panic!("it draws"),
        }
    };
    assert_eq!(params(json!({})), (1, 1.0, EarlyStopping::Heuristic));
    let requested =
        json!({"n": 2, "best_of": 4, "length_penalty": 0.5, "early_stopping": true, "temperature": 0});
    assert_eq!(params(requested), (4, 0.5, EarlyStopping::AtOnce));
    assert_eq!(
        params(json!({"n": 3, "early_stopping": "never"})),
        (3, 1.0, EarlyStopping::Never)
    );
}

#[test]
fn prompts_are_shortened_on_the_requested_side() {
    let ids = |extra: Value| {
        completed(merged(json!({"prompt": [1, 2, 3, 4, 5]}), extra))
            .unwrap()
            .prompts[0]
            .clone()
    };
    assert_eq!(ids(json!({"truncate_prompt_tokens": 2})).ids, [4, 5]);
    let right = json!({"truncate_prompt_tokens": 2, "truncation_side": "right"});
    assert_eq!(ids(right).ids, [1, 2]);
    assert_eq!(ids(json!({"truncate_prompt_tokens": 9})).ids, [1, 2, 3, 4, 5]);
    let long = json!({"prompt": vec![5; 3000], "truncate_prompt_tokens": -1, "max_tokens": 48});
    assert_eq!(completed(long).unwrap().prompts[0].ids.len(), 2000);
}

#[test]
fn a_chat_can_have_a_template_of_its_own() {
    let template = "{{ documents[0].text }}|{{ messages[0].content }}|{{ mood }}";
    let own = json!({
        "chat_template": template,
        "documents": [{"text": "D"}],
        "chat_template_kwargs": {"mood": "good"},
    });
    assert_eq!(text(&chatted(own).unwrap().prompts[0]), "D|Hi|good");
}

type Read = fn(&[u8], &Rules<'_>) -> Result<(), ApiError>;

/// A route's table, its smallest body, its reader, and the model's task.
type Table = (&'static parameters::Body, Value, Read, Task);

const EMBED: Task = Task::Embed {
    normalises: true,
    closing_token: None,
};

fn tables() -> Vec<Table> {
    let messages = || json!({"messages": [{"role": "user", "content": "Hi"}]});
    let text = || json!({"prompt": "Hello"});
    vec![
        (
            &COMPLETIONS,
            text(),
            |body, rules| completion(body, rules).map(drop),
            Task::Generate,
        ),
        (
            &CHAT_COMPLETIONS,
            messages(),
            |body, rules| chat(body, rules).map(drop),
            Task::Generate,
        ),
        (
            &parameters::RESPONSES,
            json!({"input": "Hi"}),
            |body, rules| response(body, rules).map(drop),
            Task::Generate,
        ),
        (
            &parameters::MESSAGES,
            merged(messages(), json!({"max_tokens": 8})),
            |body, rules| anthropic(body, rules).map(drop),
            Task::Generate,
        ),
        (
            &parameters::MESSAGE_TOKENS,
            messages(),
            |body, rules| anthropic_prompt(body, rules).map(drop),
            Task::Generate,
        ),
        (
            &parameters::EMBEDDINGS,
            json!({}),
            |body, rules| embeddings(body, rules).map(drop),
            EMBED,
        ),
        (
            &parameters::SCORES,
            json!({}),
            |body, rules| scores(body, rules).map(drop),
            EMBED,
        ),
        (
            &parameters::RERANKING,
            json!({"query": "a"}),
            |body, rules| ranking(body, rules).map(drop),
            EMBED,
        ),
        (
            &parameters::TOKENIZATION,
            json!({}),
            |body, rules| tokenized(body, rules).map(drop),
            Task::Generate,
        ),
        (
            &parameters::DETOKENIZATION,
            json!({"tokens": [5]}),
            |body, rules| detokenized(body, rules).map(drop),
            Task::Generate,
        ),
    ]
}

/// The parameters without which a parameter has no effect.
fn needs(body: &parameters::Body, name: &str) -> Value {
    let messages = |role: &str| json!([{"role": role, "content": "a"}]);
    match (body.route, name) {
        (_, "stream_options") => json!({"stream": true}),
        ("/v1/chat/completions", "top_logprobs") => json!({"logprobs": true}),
        (_, "early_stopping") => json!({"use_beam_search": true}),
        (_, "continue_final_message") => json!({"messages": messages("assistant")}),
        (
            "/v1/embeddings" | "/tokenize",
            "chat_template" | "chat_template_kwargs" | "add_generation_prompt" | "tools",
        ) => {
            json!({"messages": messages("user")})
        }
        ("/v1/embeddings", name) if name != "input" && name != "messages" => json!({"input": "a"}),
        ("/tokenize", name) if !["prompt", "content", "messages"].contains(&name) => json!({"prompt": "a"}),
        ("/v1/rerank", name) if name != "documents" && name != "texts" => json!({"documents": ["b"]}),
        ("/v1/score", "text_1" | "queries" | "data_1") => json!({"text_2": "b"}),
        ("/v1/score", "text_2" | "documents" | "items" | "data_2") => json!({"text_1": "a"}),
        ("/v1/score", _) => json!({"text_1": "a", "text_2": "b"}),
        (_, "tool_choice" | "parallel_tool_calls") if body.route.starts_with("/v1/") => {
            let tools = body.get("tools").map_or("null", |tools| tools.example);
            json!({"tools": serde_json::from_str::<Value>(tools).unwrap()})
        }
        (_, "function_call") => {
            let functions = body
                .get("functions")
                .map_or("null", |functions| functions.example);
            json!({"functions": serde_json::from_str::<Value>(functions).unwrap()})
        }
        _ => json!({}),
    }
}

/// Every parameter of the tables is read as they describe it.
#[test]
fn the_table_is_what_is_read() {
    for (body, least, read, task) in tables() {
        let rules = Rules {
            strict: true,
            task,
            formats: crate::parsers::Formats::default(),
            ..rules(&FIXTURE.defaults)
        };
        for parameter in body.parameters() {
            let name = parameter.name;
            let example: Value = serde_json::from_str(parameter.example).expect(name);
            let mut request = merged(least.clone(), needs(body, name));
            request[name] = example;
            let outcome = read(request.to_string().as_bytes(), &rules);
            match parameter.support {
                // This tokenizer has no tokens for it.
                _ if name == "suffix" => {
                    let error = outcome.unwrap_err();
                    assert!(error.to_string().contains("fill in the middle"), "{error}");
                }
                parameters::Support::Honoured | parameters::Support::NoEffect(_) => {
                    assert_eq!(outcome, Ok(()), "{} {request}", body.route);
                }
                parameters::Support::Refused(_) => {
                    let error = outcome.expect_err(name);
                    assert_eq!((error.param(), error.facts().label), (Some(name), "unsupported"));
                }
            }
            assert!(
                !parameter.doc.is_empty() || parameter.support != parameters::Support::Honoured,
                "{name}"
            );
            parameter.kind.schema();
        }
    }
}

/// Routes share readers, not tables. Whatever a client sends, no reader reads a name that the route's table does not have.
#[test]
fn every_name_of_every_table_can_be_sent_to_every_route() {
    let names: std::collections::BTreeSet<&str> = tables()
        .iter()
        .flat_map(|(body, ..)| body.parameters().map(|parameter| parameter.name))
        .collect();
    let values = [
        json!(true),
        json!(1),
        json!("x"),
        json!(["x"]),
        json!({"type": "x"}),
    ];
    for (body, least, read, task) in tables() {
        let rules = Rules {
            task,
            ..rules(&FIXTURE.defaults)
        };
        for (name, value) in names
            .iter()
            .flat_map(|name| values.iter().map(move |value| (name, value)))
        {
            let mut request = merged(least.clone(), needs(body, name));
            request[name] = value.clone();
            let is_of_client =
                |error: ApiError| assert!((400..500).contains(&error.facts().status), "{error}");
            // A reader panics if it reads a name that the table does not have.
            read(request.to_string().as_bytes(), &rules).unwrap_or_else(is_of_client);
        }
    }
}

#[test]
fn a_required_call_excludes_other_forms() {
    let tools = || json!([{"type": "function", "function": {"name": "f"}}]);
    let forms = json!({
        "structured_outputs": {"regex": "a"}, "guided_json": {"type": "object"}, "guided_regex": "a",
        "guided_choice": ["a"], "guided_grammar": "root ::= \"a\"",
    });
    for (name, form) in forms.as_object().unwrap() {
        let with = |choice: Value| chatted(json!({"tools": tools(), "tool_choice": choice, name: form}));
        for choice in [
            json!("required"),
            json!({"type": "function", "function": {"name": "f"}}),
        ] {
            let error = with(choice).unwrap_err();
            assert_eq!(error.param(), Some(name.as_str()));
            assert!(
                error
                    .to_string()
                    .contains("structured outputs or tools, not both"),
                "{error}"
            );
        }
        assert!(with(json!("auto")).is_ok(), "{name}");
    }
    let answer =
        json!({"tools": tools(), "tool_choice": "required", "response_format": {"type": "json_object"}});
    assert!(chatted(answer).is_ok());
}

#[test]
fn minus_one_means_the_vocabulary_where_that_is_allowed() {
    let read = |max_logprobs: Option<usize>, requested: i64| {
        let rules = Rules {
            max_logprobs,
            ..rules(&FIXTURE.defaults)
        };
        let body = json!({"prompt": "a", "logprobs": requested, "prompt_logprobs": requested}).to_string();
        let prepared = completion(body.as_bytes(), &rules)?;
        Ok::<_, ApiError>([prepared.answers.logprobs, prepared.prompt_logprobs])
    };
    let all = Some(FIXTURE.tokenizer.tokens().n_ids());
    assert_eq!(read(None, -1), Ok([all, all]));
    assert_eq!(read(None, i64::MAX), Ok([all, all]));
    assert_eq!(read(None, 3), Ok([Some(3), Some(3)]));
    for requested in [-2, -1, 21] {
        let error = read(Some(20), requested).unwrap_err();
        assert_eq!(
            (error.param(), error.facts().label),
            (Some("logprobs"), "invalid_value")
        );
    }
    assert!(read(None, -2).is_err());
    let chat = json!({"logprobs": true, "top_logprobs": -1});
    assert_eq!(chatted(chat).unwrap_err().param(), Some("top_logprobs"));
}

#[test]
fn a_response_takes_what_ends_and_shapes_an_answer() {
    let responded = |extra: Value| {
        let body = merged(json!({"input": "Hi"}), extra).to_string();
        response(body.as_bytes(), &rules(&FIXTURE.defaults)).map(|response| response.prepared.answers)
    };
    let answers = responded(json!({
        "stop": "a", "ignore_eos": true, "structured_outputs": {"regex": "a"}, "top_k": 3, "cache_salt": "mine",
        "include": ["message.output_text.logprobs"], "top_logprobs": 2,
    }))
    .unwrap();
    assert!(answers.ignore_eos && answers.grammar.is_some() && answers.cache_salt != 0);
    assert_eq!(answers.logprobs, Some(2));
    assert_eq!(responded(json!({"top_logprobs": 2})).unwrap().logprobs, None);
    let refused = |extra: Value| responded(extra).unwrap_err().to_string();
    let twice = json!({"structured_outputs": {"regex": "a"}, "text": {"format": {"type": "json_object"}}});
    assert!(refused(twice).starts_with("structured_outputs"));
    let background = refused(json!({"background": true}));
    assert!(
        background.contains("background can only be used when `store` is true"),
        "{background}"
    );
}

#[test]
fn two_names_of_an_embeddings_length_agree() {
    let of_embedder = Rules {
        task: EMBED,
        ..rules(&FIXTURE.defaults)
    };
    let read = |extra: Value| {
        let body = merged(json!({"input": "a"}), extra).to_string();
        embeddings(body.as_bytes(), &of_embedder).map(|prepared| (prepared.normalises, prepared.encoding))
    };
    let plain = |normalises| Ok((normalises, Encoding::Float));
    assert_eq!(read(json!({})), plain(None));
    assert_eq!(read(json!({"use_activation": false})), plain(Some(false)));
    assert_eq!(
        read(json!({"use_activation": true, "normalize": true})),
        plain(Some(true))
    );
    let differing = read(json!({"use_activation": false, "normalize": true}));
    assert_eq!(differing.unwrap_err().param(), Some("use_activation"));
    let bytes = json!({"encoding_format": "base64", "embed_dtype": "bfloat16", "endianness": "big"});
    let encoding = Encoding::Base64(Number::Bfloat16, Endianness::Big);
    assert_eq!(read(bytes), Ok((None, encoding)));
    for (name, value) in [
        ("embed_dtype", "fp8_e4m3"),
        ("endianness", "middle"),
        ("encoding_format", "bytes"),
    ] {
        assert_eq!(read(json!({name: value})).unwrap_err().param(), Some(name));
    }
}

#[test]
fn the_usage_so_far_is_sent_only_with_the_last() {
    let options_of = |options: Value| {
        let prepared = chatted(json!({"stream": true, "stream_options": options})).unwrap();
        let options = prepared.answers.stream.unwrap();
        [options.include_usage, options.continuous_usage_stats]
    };
    assert_eq!(
        options_of(json!({"continuous_usage_stats": true})),
        [false, false]
    );
    let both = json!({"include_usage": true, "continuous_usage_stats": true});
    assert_eq!(options_of(both), [true, true]);
}

#[test]
fn a_text_without_answer_may_fill_the_context() {
    let n_kept = |closing_token: Option<u32>| {
        let of_embedder = Rules {
            task: Task::Embed {
                normalises: true,
                closing_token,
            },
            max_model_len: 64,
            ..rules(&FIXTURE.defaults)
        };
        let body = json!({"input": "word ".repeat(99), "truncate_prompt_tokens": -1}).to_string();
        let prepared = embeddings(body.as_bytes(), &of_embedder).unwrap();
        let prompt = prepared.requests[0].prompt.clone();
        (prompt.len(), prompt.ids().last())
    };
    assert_eq!(n_kept(None).0, 64);
    assert_eq!(n_kept(Some(9)), (64, Some(9)));
}

#[test]
fn vectors_of_one_salt_share_a_cache() {
    let of_embedder = Rules {
        task: EMBED,
        ..rules(&FIXTURE.defaults)
    };
    let salt = |extra: Value| {
        let body = merged(json!({"input": "a"}), extra).to_string();
        embeddings(body.as_bytes(), &of_embedder).map(|prepared| prepared.requests[0].cache_salt)
    };
    assert_eq!(salt(json!({})), Ok(0));
    assert_eq!(salt(json!({"cache_salt": "a"})), salt(json!({"cache_salt": "a"})));
    assert_ne!(salt(json!({"cache_salt": "a"})), salt(json!({"cache_salt": "b"})));
    assert_eq!(
        salt(json!({"cache_salt": ""})).unwrap_err().param(),
        Some("cache_salt")
    );
}

#[test]
fn tokenized_messages_show_their_tools() {
    let tokens = |extra: Value| {
        let template =
            "{% for tool in tools or [] %}{{ tool.function.name }} {% endfor %}{{ messages[0].content }}";
        let body = merged(
            json!({"messages": [{"role": "user", "content": "Hi"}], "chat_template": template}),
            extra,
        )
        .to_string();
        tokenized(body.as_bytes(), &rules(&FIXTURE.defaults)).map(|tokenized| {
            FIXTURE
                .tokenizer
                .tokens()
                .decode(&tokenized.tokens, Special::Show)
        })
    };
    let tools = json!({"tools": [{"type": "function", "function": {"name": "get_weather"}}]});
    assert_eq!(tokens(tools).unwrap(), "get_weather Hi");
    assert_eq!(tokens(json!({})).unwrap(), "Hi");
    let refused = tokens(json!({"tools": [{"type": "function"}]})).unwrap_err();
    assert_eq!(refused.param(), Some("tools[0].function"));
}

#[test]
fn a_conversation_is_embedded_as_its_flags_say() {
    let of_embedder = Rules {
        task: EMBED,
        ..rules(&FIXTURE.defaults)
    };
    let embedded = |extra: Value| {
        let body = merged(
            json!({"messages": [{"role": "assistant", "content": "Hi"}]}),
            extra,
        );
        let prepared = embeddings(body.to_string().as_bytes(), &of_embedder)?;
        let prompt = &prepared.requests[0].prompt;
        let ids: Vec<u32> = prompt.ids().collect();
        Ok::<_, ApiError>(FIXTURE.tokenizer.tokens().decode(&ids, Special::Show))
    };
    let messages = "<|im_start|>assistant\nHi";
    assert_eq!(embedded(json!({})).unwrap(), format!("{messages}<|im_end|>\n"));
    let begun = embedded(json!({"add_generation_prompt": true})).unwrap();
    assert_eq!(begun, format!("{messages}<|im_end|>\n<|im_start|>assistant\n"));
    assert_eq!(
        embedded(json!({"continue_final_message": true})).unwrap(),
        messages
    );
    let own = json!({"chat_template": "{{ messages[0].content }} {{ mood }}", "chat_template_kwargs": {"mood": "there"}});
    assert_eq!(embedded(own).unwrap(), "Hi there");
    let both = json!({"add_generation_prompt": true, "continue_final_message": true});
    assert_eq!(
        embedded(both).unwrap_err().param(),
        Some("continue_final_message")
    );
}

#[test]
fn only_a_cross_encoder_has_an_activation() {
    let scored = |task: Task, requested: bool| {
        let body = json!({"text_1": "a", "text_2": "b", "use_activation": requested}).to_string();
        let rules = Rules {
            task,
            ..rules(&FIXTURE.defaults)
        };
        scores(body.as_bytes(), &rules)
    };
    let encoder = Task::Score { n_labels: 1 };
    assert!(scored(encoder, true).unwrap().activates);
    assert!(!scored(encoder, false).unwrap().activates);
    assert!(scored(EMBED, false).is_ok());
    assert_eq!(scored(EMBED, true).unwrap_err().param(), Some("use_activation"));
}

#[test]
fn a_text_is_filled_in_where_the_tokenizer_has_marks_for_it() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../examples/models/tiny-trained/tokenizer.json");
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(&path).unwrap()).unwrap();
    let added = json["added_tokens"].as_array_mut().unwrap();
    let first = 9000;
    for (idx, mark) in ["<fim_prefix>", "<fim_suffix>", "<fim_middle>", "<|endoftext|>"]
        .iter()
        .enumerate()
    {
        added.push(json!({
            "id": first + idx, "content": mark, "special": true, "single_word": false, "lstrip": false,
            "rstrip": false, "normalized": false,
        }));
    }
    let config = crate::tokenizer::TokenizerConfig::default();
    let tokenizer = Tokenizer::from_bytes(&path, json.to_string().as_bytes(), config).unwrap();
    let rules = Rules {
        tokenizer: &tokenizer,
        ..rules(&FIXTURE.defaults)
    };
    let body = json!({"prompt": "Hello", "suffix": " there", "stop_token_ids": [3]});
    let prepared = completion(body.to_string().as_bytes(), &rules).unwrap();
    let shown = tokenizer.tokens().decode(&prepared.prompts[0].ids, Special::Show);
    assert_eq!(shown, "<fim_prefix>Hello<fim_suffix> there<fim_middle>");
    let end = tokenizer.tokens().id_of("<|endoftext|>").unwrap();
    assert_eq!(prepared.answers.stop_token_ids, [3, end]);
    let tokens = json!({"prompt": [5], "suffix": " there"});
    let error = completion(tokens.to_string().as_bytes(), &rules).unwrap_err();
    assert_eq!(error.param(), Some("suffix"));
}

/// Texts that a model may write as thoughts, content, and arguments of a call.
fn any_text() -> impl Strategy<Value = String> {
    prop_oneof![
        Just(String::new()),
        Just("{\"city\": \"Oslo\", \"days\": [1, 2]}".to_owned()),
        "\\PC{0,12}",
        // The beginning of an object, as of an answer that is cut off.
        (0..24_usize).prop_map(|end| "{\"a\": [1, \"b\\\"c\"], \"d\": null}"[..end].to_owned()),
    ]
}

/// The answers of the three routes with these thoughts, this content and a call with these arguments.
fn answers((thoughts, content, arguments): (&str, &str, Option<&str>)) -> [Value; 3] {
    let or_null = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let calls = arguments.map(|arguments| {
        let function = json!({"name": "f", "arguments": arguments});
        json!([{"id": "call_1", "type": "function", "function": function}])
    });
    let message = json!({"role": "assistant", "content": or_null(content), "refusal": null,
        "reasoning": or_null(thoughts), "reasoning_content": or_null(thoughts), "tool_calls": calls});
    let (mut blocks, mut items) = (Vec::new(), Vec::new());
    if !thoughts.is_empty() {
        blocks.push(json!({"type": "thinking", "thinking": thoughts, "signature": ""}));
        let parts = json!([{"type": "reasoning_text", "text": thoughts}]);
        items.push(json!({"id": "rs_1", "type": "reasoning", "summary": [], "content": parts, "status": "incomplete"}));
    }
    if !content.is_empty() {
        blocks.push(json!({"type": "text", "text": content}));
        let parts = json!([{"type": "output_text", "text": content, "annotations": [], "logprobs": []}]);
        items.push(json!({"id": "msg_1", "type": "message", "role": "assistant", "content": parts, "status": "completed"}));
    }
    if let Some(arguments) = arguments {
        let input: Map<String, Value> = serde_json::from_str(arguments).unwrap_or_default();
        blocks.push(json!({"type": "tool_use", "id": "toolu_1", "name": "f", "input": input}));
        items.push(json!({"id": "fc_1", "type": "function_call", "call_id": "call_1", "name": "f", "arguments": arguments, "status": "incomplete"}));
    }
    [message, Value::Array(blocks), Value::Array(items)]
}

proptest! {
    #[test]
    fn every_answer_is_a_valid_history(thoughts in any_text(), content in any_text(), arguments in prop::option::of(any_text())) {
        let [message, blocks, items] = answers((&thoughts, &content, arguments.as_deref()));
        let user = json!({"role": "user", "content": "Hi"});
        let rules = rules(&FIXTURE.defaults);
        let body = json!({"messages": [user, message, user]}).to_string();
        prop_assert!(chat(body.as_bytes(), &rules).is_ok(), "{body}");
        let turn = json!({"role": "assistant", "content": blocks});
        let body = json!({"max_tokens": 5, "messages": [user, turn, user]}).to_string();
        prop_assert!(anthropic(body.as_bytes(), &rules).is_ok(), "{body}");
        let input: Vec<Value> = [user.clone()].into_iter().chain(items.as_array().cloned().unwrap_or_default()).chain([user]).collect();
        let body = json!({"input": input}).to_string();
        prop_assert!(response(body.as_bytes(), &rules).is_ok(), "{body}");
    }
}

#[test]
fn a_text_that_is_longer_than_any_prompt_is_cut_before_it_is_encoded_or_refused() {
    let bytes_max = FIXTURE.tokenizer.prompt_bytes_max(2048);
    let long = "Hello, world. ".repeat(bytes_max / 14 + 1);
    let truncated = |side: &str| {
        let body = json!({"prompt": format!("first {long} last"), "truncate_prompt_tokens": 4, "truncation_side": side,
            "add_special_tokens": false});
        completed(body).unwrap().prompts[0].ids.clone()
    };
    let ids = |text: &str| FIXTURE.tokenizer.encode(text, Begin::Leave).unwrap();
    assert!(ids(&format!(" {long} last")).ends_with(&truncated("left")));
    assert!(ids(&format!("first {long}")).starts_with(&truncated("right")));
    // All of this text would be encoded.
    assert_eq!(
        completed(json!({"prompt": long})).unwrap_err().facts().label,
        "too_long"
    );
    let body = json!({"model": "tiny", "prompt": long}).to_string();
    let error = tokenized(body.as_bytes(), &rules(&FIXTURE.defaults)).unwrap_err();
    assert_eq!((error.facts().status, error.facts().label), (400, "too_long"));
}

#[test]
fn light_work_does_not_compile_a_grammar() {
    let budget = Budget::light();
    let rules = Rules {
        budget: &budget,
        ..rules(&FIXTURE.defaults)
    };
    let body = |extra: Value| merged(json!({"model": "tiny", "prompt": "Hello"}), extra).to_string();
    assert!(completion(body(json!({})).as_bytes(), &rules).is_ok());
    assert!(completion(body(json!({"guided_regex": "a"})).as_bytes(), &rules).is_err());
    let long = "a ".repeat(10_000);
    assert!(
        completion(
            body(json!({"prompt": long, "truncate_prompt_tokens": 1})).as_bytes(),
            &rules
        )
        .is_err()
    );
}
