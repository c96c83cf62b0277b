//! Parameters of the routes that generate text.

use super::table::Support::{NoEffect, Refused};
use super::table::{Body, Kind, Parameter, flag, inert, integer, number, object, other, refused, text};

const TOKEN_IDS: &str = r#"{"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}, "maxItems": 256}"#;
const PROMPTS: &str = r#"{"anyOf": [
    {"type": "string"},
    {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}},
    {"type": "array", "minItems": 1, "maxItems": 128, "items": {"type": "string"}},
    {"type": "array", "minItems": 1, "maxItems": 128, "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}}}
]}"#;
pub(super) const MESSAGE_LIST: &str = r#"{"type": "array", "minItems": 1, "items": {
    "type": "object",
    "properties": {
        "role": {"type": "string", "minLength": 1, "maxLength": 64},
        "content": {"anyOf": [
            {"type": "string"},
            {"type": "null"},
            {"type": "array", "items": {"type": "object", "properties": {"type": {"const": "text"}, "text": {"type": "string"}}, "required": ["type", "text"]}}
        ]},
        "tool_call_id": {"type": "string"}
    },
    "required": ["role", "content"]
}}"#;
const STOP: &str = r#"{"anyOf": [{"type": "string", "minLength": 1, "maxLength": 128}, {"type": "array", "maxItems": 64, "items": {"type": "string", "minLength": 1, "maxLength": 128}}]}"#;
const STREAM_OPTIONS_SCHEMA: &str = r#"{"type": "object", "properties": {"include_usage": {"type": "boolean"}, "continuous_usage_stats": {"type": "boolean"}}}"#;
const BIASES: &str = r#"{"type": "object", "propertyNames": {"pattern": "^[0-9]{1,9}$"}, "additionalProperties": {"type": "number", "minimum": -100, "maximum": 100}}"#;

pub(super) const MODEL: &[Parameter] =
    &[text("model", "the served model", "\"tiny\"").doc("Name of the model; `/v1/models` lists the names.")];

const TEMPERATURE: &[Parameter] = &[number(
    "temperature",
    0.0..=2.0,
    "the checkpoint's, else 1 (messages: 0.7)",
    "0.5",
)
.doc("Divides the logits. 0 always selects the most probable token.")];

const SAMPLING: &[Parameter] = &[
    number("top_p", 0.0..=1.0, "the checkpoint's, else 1", "0.9")
        .doc("Keeps the smallest set of most probable tokens whose probabilities reach this sum; 0 keeps the most probable token."),
    integer("top_k", -1..=i64::MAX, "the checkpoint's, else -1", "5")
        .doc("Keeps this number of most probable tokens; -1 or 0 keeps all."),
    number("min_p", 0.0..=1.0, "0", "0.1")
        .doc("Keeps tokens whose probability is at least this fraction of the highest one."),
    number("repetition_penalty", 1e-6..=1e6, "the checkpoint's, else 1", "1.1")
        .doc("Above 1, tokens of the prompt and the answer become less probable."),
    number("presence_penalty", -2.0..=2.0, "0", "0.5")
        .doc("Subtracted from the logits of tokens that the answer contains."),
    number("frequency_penalty", -2.0..=2.0, "0", "0.5")
        .doc("Subtracted from the logits of tokens that the answer contains, once per occurrence."),
    other("logit_bias", "an object of up to 1024 token ids with numbers from -100 to 100", BIASES, "{\"5\": -100}")
        .doc("Added to the logits of these tokens."),
    other("allowed_token_ids", "a non-empty list of token ids", r#"{"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}}"#, "[1, 2, 3, 4, 5, 6, 7, 8]")
        .doc("Only these tokens are sampled."),
    other("bad_words", "a list of up to 128 strings, each of 1 to 512 bytes", r#"{"type": "array", "maxItems": 128, "items": {"type": "string", "minLength": 1, "maxLength": 128}}"#, "[\"never\"]")
        .doc("Texts that the answer must not contain, as the tokenizer writes them."),
    integer("seed", i64::MIN..=i64::MAX, "random", "7")
        .doc("Makes sampling repeatable: the same seed gives the same text in any batch. Answer i of n uses the seed plus i."),
];

const ANSWERS: &[Parameter] = &[
    integer("n", 1..=128, "1", "2").doc("Number of answers to each prompt."),
    integer("best_of", 1..=128, "n", "3")
        .doc("Number of answers that are generated; the n most probable ones are returned. In a beam search, the number of beams."),
    flag("use_beam_search", "false")
        .doc("Searches for the most probable texts instead of sampling, like `generate` in transformers."),
    number("length_penalty", f64::NEG_INFINITY..=f64::INFINITY, "1", "1")
        .doc("In a beam search, the score of a text is divided by its length to this power."),
    other("early_stopping", "true, false or \"never\"", r#"{"enum": [true, false, "never"]}"#, "false")
        .doc("When a beam search ends. true: when enough texts are finished; false: when a better text is unlikely; \"never\": when a better text is impossible."),
    integer("min_tokens", 0..=i64::MAX, "0", "2").doc("Number of tokens before the model, a stop token or a stop text may end an answer."),
    PRIORITY,
];

const ENDING: &[Parameter] = &[
    other(
        "stop",
        "a string or a list of up to 64 strings, each of 1 to 512 bytes",
        STOP,
        "[\"###\"]",
    )
    .doc("Texts that end an answer. The answer does not contain them."),
    other(
        "stop_token_ids",
        "a list of up to 256 token ids",
        TOKEN_IDS,
        "[7]",
    )
    .doc("Tokens that end an answer."),
    flag("include_stop_str_in_output", "false").doc("The answer contains the text or token that ended it."),
    flag("ignore_eos", "false").doc("The model's own end token does not end an answer."),
    flag("skip_special_tokens", "true").doc("The text does not contain special tokens."),
    flag("spaces_between_special_tokens", "true")
        .doc("Spaces between special tokens, as Python's slow tokenizers write them.")
        .support(NoEffect(
            "special tokens are written without spaces, as fast tokenizers write them",
        )),
];

const PROMPT: &[Parameter] = &[
    flag("echo", "false").doc("The answer begins with the prompt; in a chat with the last message, if that has the role of answers."),
    integer("truncate_prompt_tokens", -1..=i64::MAX, "no truncation", "64")
        .doc("Keeps this number of tokens of each prompt; -1: as many as fit into the context together with the answer."),
    Parameter::new("truncation_side", Kind::Choice(&["left", "right"]), "left", "\"right\"").doc("The side on which tokens are removed."),
    integer("prompt_logprobs", -1..=i64::MAX, "none", "1")
        .doc("Log-probabilities of the prompt's tokens, with this number of alternatives to each; -1: all, if MAX_LOGPROBS is -1. At most 1048576 in one answer, counted for each choice, token and alternative."),
];

const OUTPUT: &[Parameter] = &[
    CACHE_SALT,
    flag("stream", "false").doc("Sends the answer while it is generated, as server-sent events."),
    other(
        "stream_options",
        "an object",
        STREAM_OPTIONS_SCHEMA,
        "{\"include_usage\": true}",
    )
    .doc("`include_usage`: a last event contains the usage; with `continuous_usage_stats` each event contains the usage so far."),
    flag("return_token_ids", "false").doc("Adds `prompt_token_ids`, and `token_ids` to each choice."),
    flag("return_tokens_as_token_ids", "false").doc("Log-probabilities name tokens by their ids, such as `token_id:5`."),
    text("request_id", "random", "\"my-request\"")
        .doc("Part of the answer's `id`; the header X-Request-Id takes precedence."),
];

const PRIORITY: Parameter = integer("priority", i32::MIN as i64..=i32::MAX as i64, "0", "0")
    .doc("Requests with a smaller number run first, if SCHEDULING_POLICY is `priority`.");

const CACHE_SALT: Parameter = text("cache_salt", "none", "\"mine\"")
    .doc("The prompt shares cached blocks only with prompts of the same salt.");

const STRUCTURED_OUTPUTS: Parameter = other(
    "structured_outputs",
    "an object with one of json, regex, choice, grammar, json_object, structural_tag",
    r#"{"type": "object"}"#,
    "{\"choice\": [\"a\", \"b\"]}",
);

const SCHEMA_OR_TEXT: &str = r#"{"anyOf": [{"type": "object"}, {"type": "string"}]}"#;

const STRUCTURE: &[Parameter] = &[
    other("json_schema", "a JSON Schema, as an object or as a string", SCHEMA_OR_TEXT, "{\"type\": \"boolean\"}").doc("llama.cpp's name of `guided_json`."),
    text("grammar", "none", "\"root ::= \\\"a\\\" | \\\"b\\\"\"").doc("llama.cpp's name of `guided_grammar`."),
    other("response_format", "an object with a type", r#"{"type": "object", "properties": {"type": {"enum": ["text", "json_object", "json_schema", "structural_tag"]}, "json_schema": {"type": "object"}}, "required": ["type"]}"#, "{\"type\": \"json_object\"}")
        .doc("`json_object`, `json_schema` or `structural_tag`: the answer always has this form. An object of a schema has only the members in its `properties`, unless `additionalProperties` allows others."),
    other("guided_json", "a JSON Schema, as an object or as a string", SCHEMA_OR_TEXT, "{\"type\": \"boolean\"}")
        .doc("The answer is JSON that is valid against this schema."),
    text("guided_regex", "none", "\"[0-9]{3}\"").doc("The complete answer matches this regular expression."),
    other("guided_choice", "a non-empty list of up to 1024 strings", r#"{"type": "array", "minItems": 1, "maxItems": 1024, "items": {"type": "string", "minLength": 1}}"#, "[\"yes\", \"no\"]")
        .doc("The answer is one of these texts."),
    text("guided_grammar", "none", "\"root ::= \\\"a\\\" | \\\"b\\\"\"").doc("The answer follows this grammar, in GBNF/EBNF or Lark."),
    text("guided_decoding_backend", "auto", "\"outlines\"")
        .doc("Names of other engines' libraries are accepted; there is one implementation for all of them."),
    text("guided_whitespace_pattern", "none", "\" ?\"").support(Refused(&[])).doc("The white space of JSON is always bounded in the same way."),
    STRUCTURED_OUTPUTS.doc("vLLM's newer parameter for all of these."),
];

const COMPLETION: &[Parameter] = &[
    other("prompt", "a string, a list of token ids, or a non-empty list of up to 128 of them", PROMPTS, "\"Hello\"").doc("The text to continue."),
    text("suffix", "none", "\"end\"").doc("The answer fills the gap between the prompt and this text; needs a model whose tokenizer has fill-in-the-middle tokens."),
    integer("max_tokens", 0..=i64::MAX, "the checkpoint's, else 16", "5").doc("Largest number of tokens of an answer. With 0 the answer is empty, or the prompt if `echo` is true."),
    integer("logprobs", -1..=i64::MAX, "none", "2").doc("Log-probabilities of the answer's tokens, with this number of alternatives to each; -1: all, if MAX_LOGPROBS is -1."),
    flag("add_special_tokens", "true").doc("The tokenizer adds the tokens with which a text begins."),
];

const CHAT: &[Parameter] = &[
    other(
        "messages",
        "a non-empty list of messages",
        MESSAGE_LIST,
        "[{\"role\": \"user\", \"content\": \"Hi\"}]",
    )
    .doc("The conversation."),
    integer(
        "max_completion_tokens",
        1..=i64::MAX,
        "as many as fit into the context",
        "5",
    )
    .doc("Largest number of tokens of an answer. An answer also ends where the context ends."),
    integer("max_tokens", 1..=i64::MAX, "as many as fit into the context", "5")
        .doc("The older name of `max_completion_tokens`."),
    flag("logprobs", "false").doc("Log-probabilities of the answer's tokens."),
    integer("top_logprobs", -1..=i64::MAX, "0", "0")
        .doc("Number of alternatives to each token; needs `logprobs`. -1: all, if MAX_LOGPROBS is -1."),
    flag("add_special_tokens", "false")
        .doc("The tokenizer adds the tokens with which a text begins to the text of the template."),
    flag("add_generation_prompt", "true").doc("The template writes the beginning of an answer."),
    flag("continue_final_message", "false").doc("The answer continues the last message."),
    other(
        "documents",
        "a list of up to 1024 objects",
        r#"{"type": "array", "maxItems": 1024, "items": {"type": "object"}}"#,
        "[{\"title\": \"T\", \"text\": \"D\"}]",
    )
    .doc("Documents for the template, which may write them into the prompt."),
    text("chat_template", "the model's", "\"{{ messages[0].content }}\"")
        .doc("A template that replaces the model's, in Jinja, or the name of one of the model's templates, such as `rag`."),
    object("chat_template_kwargs", "{\"enable_thinking\": false}").doc("Further variables of the template."),
    text("reasoning_effort", "the template's", "\"low\"").doc("A variable of the template."),
];

/// Names of requests and clients.
pub(super) const NAMES: &[Parameter] = &[
    inert("user", "it names the user; answers do not depend on it"),
    inert("metadata", "answers are not stored"),
    inert("store", "answers are not stored"),
    inert("service_tier", "there is one tier"),
    inert(
        "safety_identifier",
        "it names the user; answers do not depend on it",
    ),
    inert(
        "prompt_cache_key",
        "prompts with the same beginning always share cached blocks",
    ),
    inert(
        "prompt_cache_retention",
        "the cache keeps as much as it has room for",
    ),
    inert("session_id", "it names the session; answers do not depend on it"),
];

pub(super) const ELSEWHERE: &[Parameter] = &[
    refused("kv_transfer_params", &[]).doc("Prefill and decode run in the same process here."),
    refused("logits_processors", &[]).doc("This server does not run a client's code."),
    refused("logprob_token_ids", &[]).doc("Use `top_logprobs`."),
    refused("mm_processor_kwargs", &[]).doc("Models here read text."),
    refused("prompt_embeds", &[]).doc("Prompts are texts or token ids."),
    refused("repetition_detection", &[]).doc("Use `frequency_penalty` or `max_tokens`."),
    inert(
        "vllm_xargs",
        "they are arguments of vLLM's plugins, which this server does not have",
    ),
];

const CHAT_ELSEWHERE: &[Parameter] = &[
    refused("audio", &[]).doc("Models here write text."),
    refused("modalities", &["[\"text\"]"]).doc("Models here write text."),
    inert("prediction", "predicted outputs are not used"),
    refused("thinking_token_budget", &["-1"]).doc("Use `max_completion_tokens`; -1: no limit."),
    inert(
        "verbosity",
        "models have no such parameter; request it in a message",
    ),
    refused("web_search_options", &[])
        .doc("This server does not access other services; send a tool instead."),
];

pub(super) const TOOL_LIST: &str = r#"{"type": "array", "maxItems": 512, "items": {
    "type": "object",
    "properties": {
        "type": {"const": "function"},
        "function": {
            "type": "object",
            "properties": {
                "name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,128}$"},
                "description": {"type": "string"},
                "parameters": {"type": "object"},
                "strict": {"anyOf": [{"type": "boolean"}, {"type": "null"}]}
            },
            "required": ["name"]
        }
    },
    "required": ["type", "function"]
}}"#;
const TOOL_CHOICE: &str = r#"{"anyOf": [
    {"enum": ["none", "auto", "required"]},
    {"type": "object", "properties": {"type": {"const": "function"}, "function": {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}}, "required": ["type", "function"]},
    {"type": "object", "properties": {"type": {"const": "allowed_tools"}, "allowed_tools": {"type": "object", "properties": {"mode": {"enum": ["auto", "required"]}, "tools": {"type": "array", "minItems": 1, "items": {"type": "object"}}}, "required": ["mode", "tools"]}}, "required": ["type", "allowed_tools"]}
]}"#;
const FUNCTIONS: &str = r#"{"type": "array", "maxItems": 512, "items": {
    "type": "object",
    "properties": {"name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,128}$"}, "parameters": {"type": "object"}},
    "required": ["name"]
}}"#;
const FUNCTION_CALL: &str = r#"{"anyOf": [{"enum": ["none", "auto"]}, {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}]}"#;
pub(super) const TOOL_EXAMPLE: &str = r#"[{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {"city": {"type": "string"}}}}}]"#;

const TOOLS: &[Parameter] = &[
    other("tools", "a list of at most 512 tools", TOOL_LIST, TOOL_EXAMPLE)
        .doc("The tools that the model may call. The chat template writes them into the prompt; TOOL_CALL_PARSER finds the calls. Tools that are not functions are left out; the header `x-slipway-ignored-parameters` names them."),
    other("tool_choice", "none, auto, required, an object with a function's name, or one of type allowed_tools", TOOL_CHOICE, "\"none\"")
        .doc("Whether the model calls a tool. auto: the model decides; required: at least one call; an object: a call of this function; none: no call. `allowed_tools`: only these tools, with a `mode` of auto or required."),
    flag("parallel_tool_calls", "true").doc("false: at most one call is returned."),
    other("functions", "a list of at most 512 functions", FUNCTIONS, "[{\"name\": \"get_weather\"}]")
        .doc("The older name of `tools`; the answer contains a call as `function_call`."),
    other("function_call", "none, auto, or an object with a name", FUNCTION_CALL, "\"none\"")
        .doc("The older name of `tool_choice`."),
    flag("include_reasoning", "true").doc("false: the answer does not contain thoughts."),
];

const RESPONSE: &[Parameter] = &[
    other("input", "a string or a list of 1 to 8192 items", r#"{"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "maxItems": 8192, "items": {"type": "object"}}]}"#, "\"Hi\"")
        .doc("The conversation: items of type `message`, `reasoning`, `function_call` and `function_call_output`. Calls of custom tools and of a local shell become calls of functions; calls that another server ran are left out, and the header `x-slipway-ignored-parameters` names them."),
    text("instructions", "none", "\"Be brief.\"").doc("A system message before the input."),
    integer("max_output_tokens", 1..=i64::MAX, "as many as fit into the context", "5").doc("Largest number of tokens of an answer. An answer also ends where the context ends."),
    other("tools", "a list of at most 512 tools", r#"{"type": "array", "maxItems": 512, "items": {"type": "object", "properties": {"type": {"const": "function"}, "name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,128}$"}, "parameters": {"type": "object"}}, "required": ["type", "name"]}}"#, "[{\"type\": \"function\", \"name\": \"get_weather\"}]")
        .doc("The functions that the model may call. Tools of other types are left out; the header `x-slipway-ignored-parameters` names them."),
    other("tool_choice", "none, auto, required, an object with a function's name, or one of type allowed_tools", r#"{"anyOf": [{"enum": ["none", "auto", "required"]}, {"type": "object", "properties": {"type": {"const": "function"}, "name": {"type": "string"}}, "required": ["type", "name"]}, {"type": "object", "properties": {"type": {"const": "allowed_tools"}, "mode": {"enum": ["auto", "required"]}, "tools": {"type": "array", "minItems": 1, "items": {"type": "object"}}}, "required": ["type", "mode", "tools"]}]}"#, "\"auto\"")
        .doc("Whether the model calls a tool. `allowed_tools`: only these tools."),
    flag("parallel_tool_calls", "true").doc("false: at most one call is returned."),
    other("text", "an object with a format", r#"{"type": "object", "properties": {"format": {"type": "object", "properties": {"type": {"enum": ["text", "json_object", "json_schema"]}}, "required": ["type"]}}}"#, "{\"format\": {\"type\": \"text\"}}")
        .doc("`json_object` or `json_schema`: the answer always has this form. `verbosity` has no effect."),
    other("reasoning", "an object with an effort", r#"{"type": "object", "properties": {"effort": {"anyOf": [{"type": "string"}, {"type": "null"}]}}}"#, "{\"effort\": \"low\"}")
        .doc("`effort` is a variable of the template."),
    flag("include_reasoning", "true").doc("false: the answer does not contain thoughts."),
    flag("stream", "false").doc("Sends the answer while it is generated, as typed events."),
    object("chat_template_kwargs", "{\"enable_thinking\": false}").doc("Further variables of the template."),
    text("request_id", "random", "\"my-request\"").doc("A name for the log."),
    PRIORITY,
    refused("previous_response_id", &[]).doc("Answers are not stored here; send the complete conversation as input."),
    refused("conversation", &[]).doc("Answers are not stored here; send the complete conversation as input."),
    refused("background", &[])
        .doc("background can only be used when `store` is true, and answers are not stored here; use a stream or wait."),
    refused("truncation", &["disabled", "auto"])
        .doc("Input is never shortened here; also with auto, input that is too long is an error 400. Send fewer items."),
    STRUCTURED_OUTPUTS.doc("vLLM's parameter for further forms; it cannot be used together with a format in `text`."),
    CACHE_SALT,
    other("include", "a list of strings", r#"{"type": "array", "items": {"type": "string"}}"#, "[\"message.output_text.logprobs\"]")
        .doc("`message.output_text.logprobs`: log-probabilities of the text's tokens. Other values have no effect."),
    integer("top_logprobs", -1..=i64::MAX, "0", "1")
        .doc("Number of alternatives to each token, if `include` requests log-probabilities; -1: all, if MAX_LOGPROBS is -1."),
    inert("stream_options", "events are not obfuscated"),
    inert("max_tool_calls", "it limits tools that a server runs, and this server runs none"),
    refused("prompt", &[]).doc("Prompts are not stored here; send the instructions."),
];

const MESSAGE: &[Parameter] = &[
    other("messages", "a non-empty list of messages", r#"{"type": "array", "minItems": 1, "items": {
        "type": "object",
        "properties": {"role": {"enum": ["user", "assistant", "system"]}, "content": {"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}},
        "required": ["role", "content"]
    }}"#, "[{\"role\": \"user\", \"content\": \"Hi\"}]")
        .doc("The conversation: texts, and blocks of type text, thinking, tool_use, tool_result, and others that contain a text. System messages are joined with `system`. If the last message is the assistant's, the answer continues it."),
    integer("max_tokens", 1..=i64::MAX, "none", "5").doc("Largest number of tokens of an answer. An answer also ends where the context ends."),
    number("temperature", 0.0..=1.0, "the checkpoint's, else 0.7", "0.5")
        .doc("Divides the logits. 0 always selects the most probable token."),
    other("system", "a string or a list of blocks of type text", r#"{"anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "object"}}]}"#, "\"Be brief.\"")
        .doc("A system message before the others."),
    other("stop_sequences", "a list of up to 64 strings, each of 1 to 512 bytes", STOP, "[\"###\"]").doc("Texts that end an answer. The answer does not contain them."),
    other("tools", "a list of at most 512 tools", r#"{"type": "array", "maxItems": 512, "items": {"type": "object", "properties": {"name": {"type": "string", "pattern": "^[a-zA-Z0-9_.-]{1,128}$"}, "input_schema": {"type": "object"}}, "required": ["name", "input_schema"]}}"#, "[{\"name\": \"get_weather\", \"input_schema\": {\"type\": \"object\"}}]")
        .doc("The tools that the model may call. Tools with a type of Anthropic's, such as web_search, are left out; the header `x-slipway-ignored-parameters` names them."),
    other("tool_choice", "an object of type auto, any, tool or none", r#"{"type": "object", "properties": {"type": {"enum": ["auto", "any", "tool", "none"]}, "name": {"type": "string"}}, "required": ["type"]}"#, "{\"type\": \"none\"}")
        .doc("Whether the model calls a tool. `disable_parallel_tool_use`: at most one call."),
    other("thinking", "an object of type enabled, adaptive or disabled", r#"{"type": "object", "properties": {"type": {"enum": ["enabled", "adaptive", "disabled"]}}, "required": ["type"]}"#, "{\"type\": \"disabled\"}")
        .doc("Sets the template's variable `enable_thinking`, unless `chat_template_kwargs` sets it. A budget has no effect."),
    flag("stream", "false").doc("Sends the answer while it is generated, as typed events."),
    object("chat_template_kwargs", "{\"enable_thinking\": false}").doc("Further variables of the template."),
    inert("metadata", "answers are not stored"),
    inert("service_tier", "there is one tier"),
    refused("container", &[]).doc("This server runs no tools of its own."),
    refused("mcp_servers", &[]).doc("This server does not access other services; send a tool instead."),
];

/// `POST /v1/responses`.
pub const RESPONSES: Body = Body {
    route: "/v1/responses",
    groups: &[RESPONSE, MODEL, TEMPERATURE, SAMPLING, ENDING, NAMES],
    required: &["input"],
};

/// `POST /v1/messages`.
pub const MESSAGES: Body = Body {
    route: "/v1/messages",
    groups: &[MESSAGE, MODEL, SAMPLING],
    required: &["messages", "max_tokens"],
};

/// `POST /v1/messages/count_tokens`.
pub const MESSAGE_TOKENS: Body = Body {
    route: "/v1/messages/count_tokens",
    groups: &[MESSAGE, MODEL, SAMPLING],
    required: &["messages"],
};

/// `POST /v1/completions`.
pub const COMPLETIONS: Body = Body {
    route: "/v1/completions",
    groups: &[
        COMPLETION,
        MODEL,
        TEMPERATURE,
        SAMPLING,
        ANSWERS,
        ENDING,
        PROMPT,
        OUTPUT,
        STRUCTURE,
        NAMES,
        ELSEWHERE,
    ],
    required: &["prompt"],
};

/// `POST /v1/chat/completions`.
pub const CHAT_COMPLETIONS: Body = Body {
    route: "/v1/chat/completions",
    groups: &[
        CHAT,
        TOOLS,
        MODEL,
        TEMPERATURE,
        SAMPLING,
        ANSWERS,
        ENDING,
        PROMPT,
        OUTPUT,
        STRUCTURE,
        NAMES,
        ELSEWHERE,
        CHAT_ELSEWHERE,
    ],
    required: &["messages"],
};
