//! Parameters of the routes that make vectors, and of the routes that only tokenize.

use super::generating::{ELSEWHERE, MESSAGE_LIST, MODEL, NAMES, TOOL_EXAMPLE, TOOL_LIST};
use super::table::Support::NoEffect;
use super::table::{Body, Kind, Parameter, flag, integer, object, other, text};

const INPUTS: &str = r#"{"anyOf": [
    {"type": "string"},
    {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}},
    {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "string"}},
    {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}}}
]}"#;
const TEXTS: &str = r#"{"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "maxItems": 2048, "items": {"type": "string"}}]}"#;

const POOLED: &[Parameter] = &[
    flag("add_special_tokens", "true")
        .doc("The tokenizer adds the tokens with which a text begins and ends."),
    integer("truncate_prompt_tokens", -1..=i64::MAX, "no truncation", "64")
        .doc("Keeps this number of tokens of each text; -1: as many as fit into the context."),
    Parameter::new(
        "truncation_side",
        Kind::Choice(&["left", "right"]),
        "right",
        "\"left\"",
    )
    .doc("The side on which tokens are removed."),
    integer("priority", i32::MIN as i64..=i32::MAX as i64, "0", "0")
        .support(NoEffect("texts are computed in the order of their arrival"))
        .doc("Requests with a smaller number run first."),
    text("cache_salt", "none", "\"mine\"").doc("Texts share cached blocks only with texts of the same salt."),
    text("request_id", "random", "\"my-request\"").doc("Part of the answer's `id`."),
];

const EMBEDDING: &[Parameter] = &[
    other(
        "input",
        "a string, a list of token ids, or a non-empty list of up to 2048 of them",
        INPUTS,
        "[\"Hello\", \"World\"]",
    )
    .doc("The texts to make vectors of."),
    other(
        "messages",
        "a non-empty list of messages",
        MESSAGE_LIST,
        "[{\"role\": \"user\", \"content\": \"Hi\"}]",
    )
    .doc("Instead of `input`: one conversation, which the chat template writes."),
    flag("add_generation_prompt", "false").doc("The template writes the beginning of an answer."),
    Parameter::new(
        "encoding_format",
        Kind::Choice(&["float", "base64"]),
        "float",
        "\"base64\"",
    )
    .doc("Numbers, or the bytes of the numbers in base64."),
    Parameter::new(
        "embed_dtype",
        Kind::Choice(&["float32", "float16", "bfloat16"]),
        "float32",
        "\"float16\"",
    )
    .doc("Type of the numbers in base64."),
    Parameter::new(
        "endianness",
        Kind::Choice(&["native", "little", "big"]),
        "native",
        "\"big\"",
    )
    .doc("Order of the bytes of a number in base64."),
    integer("dimensions", 1..=i64::MAX, "the model's", "64")
        .doc("Length of a vector. Only models that were trained for it allow other lengths than their own."),
    flag("normalize", "the model's").doc("Vectors are scaled to length 1."),
    flag("use_activation", "the model's").doc("vLLM's newer name of `normalize`."),
];

/// Only a cross-encoder has an activation; an embedding model compares vectors.
const USE_ACTIVATION: Parameter = Parameter::new("use_activation", Kind::Flag, "true", "false")
    .doc("The model's activation is applied to the scores of a cross-encoder; false: raw scores.");

const SCORE: &[Parameter] = &[
    USE_ACTIVATION,
    Parameter::new("encoding_format", Kind::Choice(&["float"]), "float", "\"float\"")
        .doc("Scores are numbers."),
    other(
        "text_1",
        "a string, or a non-empty list of up to 2048 strings",
        TEXTS,
        "\"A question\"",
    )
    .doc("One text for all texts of `text_2`, or one for each."),
    other(
        "text_2",
        "a string, or a non-empty list of up to 2048 strings",
        TEXTS,
        "[\"One\", \"Two\"]",
    )
    .doc("The texts to score."),
    other(
        "queries",
        "a string, or a non-empty list of up to 2048 strings",
        TEXTS,
        "\"A question\"",
    )
    .doc("Another name of `text_1`."),
    other(
        "documents",
        "a string, or a non-empty list of up to 2048 strings",
        TEXTS,
        "[\"One\", \"Two\"]",
    )
    .doc("Another name of `text_2`."),
    other(
        "items",
        "a string, or a non-empty list of up to 2048 strings",
        TEXTS,
        "[\"One\", \"Two\"]",
    )
    .doc("Another name of `text_2`."),
    other(
        "data_1",
        "a string, or a non-empty list of up to 2048 strings",
        TEXTS,
        "\"A question\"",
    )
    .doc("Another name of `text_1`."),
    other(
        "data_2",
        "a string, or a non-empty list of up to 2048 strings",
        TEXTS,
        "[\"One\", \"Two\"]",
    )
    .doc("Another name of `text_2`."),
];

const DOCUMENTS: &str = r#"{"type": "array", "minItems": 1, "maxItems": 2048, "items": {"anyOf": [{"type": "string"}, {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}]}}"#;

const RERANK: &[Parameter] = &[
    USE_ACTIVATION,
    text("query", "none", "\"A question\"").doc("The text that documents are compared with."),
    other("documents", "a non-empty list of up to 2048 strings, or objects with a text", DOCUMENTS, "[\"One\", \"Two\"]")
        .doc("The documents to rank."),
    other("texts", "a non-empty list of up to 2048 strings, or objects with a text", DOCUMENTS, "[\"One\", \"Two\"]")
        .doc("The name of `documents` in Text Embeddings Inference; the answer is then a list of objects with `index` and `score`."),
    integer("top_n", 0..=i64::MAX, "all", "1").doc("Number of results, the best first; 0: all."),
    flag("return_documents", "true").doc("Results contain their document."),
    integer("max_tokens_per_doc", 1..=i64::MAX, "no truncation", "64").doc("Keeps this number of tokens of each document."),
];

const TOKENIZED: &[Parameter] = &[
    text("prompt", "none", "\"Hello\"")
        .doc("A text, at most as long as the longest possible prompt; or send `messages`."),
    text("content", "none", "\"Hello\"").doc("llama.cpp's name of `prompt`."),
    flag("add_special", "false")
        .doc("With `content`, the tokenizer adds the tokens with which a text begins."),
    flag("with_pieces", "false").doc("Tokens are objects with `id` and `piece`, the text of the token."),
    other(
        "messages",
        "a non-empty list of messages",
        MESSAGE_LIST,
        "[{\"role\": \"user\", \"content\": \"Hi\"}]",
    )
    .doc("A conversation, which the chat template writes."),
    flag("add_special_tokens", "true; with messages false")
        .doc("The tokenizer adds the tokens with which a text begins."),
    flag("return_token_strs", "false").doc("Adds the text of each token."),
    flag("add_generation_prompt", "true").doc("The template writes the beginning of an answer."),
    other("tools", "a list of at most 512 tools", TOOL_LIST, TOOL_EXAMPLE)
        .doc("Tools that the chat template writes into the prompt; needs `messages`."),
];

/// How `messages` become a text. `add_generation_prompt` is not here because its default depends on the route.
const CONVERSATION: &[Parameter] = &[
    flag("continue_final_message", "false").doc("The prompt ends inside the last message."),
    text("chat_template", "the model's", "\"{{ messages[0].content }}\"")
        .doc("A template that replaces the model's, in Jinja, or the name of one of the model's templates, such as `rag`."),
    object("chat_template_kwargs", "{\"enable_thinking\": false}").doc("Further variables of the template."),
];

const DETOKENIZED: &[Parameter] = &[other(
    "tokens",
    "a list of up to 1048576 token ids",
    r#"{"type": "array", "maxItems": 1048576, "items": {"type": "integer", "minimum": 0, "maximum": 4294967295}}"#,
    "[5, 6]",
)
.doc("The tokens to decode.")];

/// `POST /v1/embeddings`.
pub const EMBEDDINGS: Body = Body {
    route: "/v1/embeddings",
    groups: &[EMBEDDING, CONVERSATION, MODEL, POOLED, NAMES, ELSEWHERE],
    required: &[],
};

/// `POST /v1/score`.
pub const SCORES: Body = Body {
    route: "/v1/score",
    groups: &[SCORE, MODEL, POOLED, NAMES, ELSEWHERE],
    required: &[],
};

/// `POST /v1/rerank`.
pub const RERANKING: Body = Body {
    route: "/v1/rerank",
    groups: &[RERANK, MODEL, POOLED, NAMES, ELSEWHERE],
    required: &["query"],
};

/// `POST /tokenize`.
pub const TOKENIZATION: Body = Body {
    route: "/tokenize",
    groups: &[TOKENIZED, CONVERSATION, MODEL],
    required: &[],
};

/// `POST /detokenize`.
pub const DETOKENIZATION: Body = Body {
    route: "/detokenize",
    groups: &[DETOKENIZED, MODEL],
    required: &["tokens"],
};
