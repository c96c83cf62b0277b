//! Every parameter of the documents that this server replaces is accepted under the name they give it.
//!
//! The lists are the documents' tables: worker-vllm's README, SubModel's page on it, vLLM's page on its OpenAI server,
//! TI-ONE's page on its inference images. `docs/api.md` says what becomes of each.

use runtime::api::request::parameters::{Body, CHAT_COMPLETIONS, COMPLETIONS, SCORES};
use serde_json::{Value, json};

use crate::fixture::{Server, tiny};

/// worker-vllm and SubModel: Chat Completions, and the additional parameters supported by vLLM.
const CHAT: &[&str] = &[
    "messages",
    "model",
    "temperature",
    "top_p",
    "n",
    "max_tokens",
    "seed",
    "stop",
    "stream",
    "presence_penalty",
    "frequency_penalty",
    "logit_bias",
    "user",
    "best_of",
    "top_k",
    "ignore_eos",
    "use_beam_search",
    "stop_token_ids",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "add_generation_prompt",
    "echo",
    "repetition_penalty",
    "min_p",
    "length_penalty",
    "include_stop_str_in_output",
];

/// SubModel: Completions, and the additional parameters supported by vLLM.
const COMPLETION: &[&str] = &[
    "model",
    "prompt",
    "suffix",
    "max_tokens",
    "temperature",
    "top_p",
    "n",
    "stream",
    "logprobs",
    "echo",
    "stop",
    "seed",
    "presence_penalty",
    "frequency_penalty",
    "best_of",
    "logit_bias",
    "user",
    "top_k",
    "ignore_eos",
    "use_beam_search",
    "stop_token_ids",
    "skip_special_tokens",
    "spaces_between_special_tokens",
    "repetition_penalty",
    "min_p",
    "length_penalty",
    "include_stop_str_in_output",
];

/// TI-ONE: the service's request parameters.
const TI_ONE: &[&str] = &[
    "messages",
    "max_tokens",
    "stream",
    "temperature",
    "top_p",
    "top_k",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "stop",
    "ignore_eos",
    "seed",
];

/// vLLM's page: what its examples and notes send.
const VLLM_CHAT: &[&str] = &["guided_choice", "parallel_tool_calls", "user"];

async fn assert_accepted(server: &Server, body: &Body, path: &str, least: &Value, names: &[&str]) {
    for name in names {
        let parameter = body
            .get(name)
            .unwrap_or_else(|| panic!("{name} is not in the table of {path}"));
        let mut request = least.clone();
        request[*name] = serde_json::from_str(parameter.example).unwrap();
        let reply = server.post(path, request).await;
        // This model's tokenizer has no tokens for it; the answer says so.
        if *name == "suffix" {
            assert_eq!(reply.status, 400);
            assert!(reply.text.contains("fill in the middle"), "{}", reply.text);
            continue;
        }
        assert_eq!(reply.status, 200, "{path} {name}: {}", reply.text);
        assert!(
            !reply.headers.contains_key("x-slipway-ignored-parameters"),
            "{path} {name}"
        );
    }
}

#[tokio::test]
async fn every_parameter_of_the_documents_is_accepted() {
    let server = tiny(&[("strict-parameters", "true")]).await;
    let messages = json!({"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2});
    let prompt = json!({"prompt": "Hello", "max_tokens": 2});
    for path in ["/v1/chat/completions", "/openai/v1/chat/completions"] {
        for names in [CHAT, TI_ONE, VLLM_CHAT] {
            assert_accepted(&server, &CHAT_COMPLETIONS, path, &messages, names).await;
        }
    }
    assert_accepted(&server, &COMPLETIONS, "/v1/completions", &prompt, COMPLETION).await;
    for name in ["model", "text_1", "text_2"] {
        assert!(SCORES.get(name).is_some(), "{name}");
    }
}
