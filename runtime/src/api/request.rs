//! From a request's body to checked work for the engine. Every input error is born here.
//!
//! Owns OpenAI's and vLLM's parameters: names, ranges, defaults. Nothing raw goes on from here, and no parameter that
//! a client could rely on is passed over in silence. Must not know HTTP, nor what the engine is doing.

mod answers;
mod anthropic;
mod constraint;
mod defaults;
mod fill_in;
mod messages;
mod names;
pub mod parameters;
mod params;
mod pooling;
mod prompt;
mod responses;
mod tokens;
mod tools;

pub use answers::{Answers, Method, StreamOptions};
pub use anthropic::tool_use_id;
pub use defaults::{Defaults, DefaultsError};
pub use names::Names;
pub use pooling::{
    Encoding, Endianness, Number, Pairing, PreparedEmbeddings, PreparedRanking, PreparedScores, RankingForm,
    embeddings, ranking, scores,
};
pub use prompt::Prompt;
pub use tokens::{Tokenized, detokenized, tokenized};
pub use tools::CallStyle;

use serde_json::{Map, Value};

use crate::api::error::{ApiError, shortened};
use crate::chat_template::{self, ChatTemplate, Conversation, Ending};
use crate::config::ServedNames;
use crate::engine::{BeamRequest, GenerateRequest};
use crate::grammar::{Constraint, GrammarError, Grammars};
use crate::model::Lengths;
use crate::model::Task;
use crate::parsers::{Formats, ParserPlan, Reasoning};
use crate::tokenizer::{Begin, Special, Tokenizer};
use constraint::Form;
use fill_in::fill_in;
use parameters::{CHAT_COMPLETIONS, COMPLETIONS, MESSAGES, RESPONSES};
use params::{Params, Rewrite};
use prompt::{Cut, PromptSource, encode, prompt_sources};
use tools::{ToolParams, ToolUse};

/// Prompts of one request.
const PROMPTS_MAX: usize = 128;
/// Documents of one conversation.
const DOCUMENTS_MAX: usize = 1024;
/// Longest request id, in bytes.
const REQUEST_ID_BYTES_MAX: usize = 128;
/// Tokens of a completion whose request names no number: OpenAI's default.
const COMPLETION_TOKENS_DEFAULT: usize = 16;
/// Temperature of a chat answer where neither request nor checkpoint names one: the documented default of vLLM workers.
const CHAT_TEMPERATURE_DEFAULT: f32 = 0.7;

/// What requests are checked against: fixed once the model is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Rules<'a> {
    /// Names that clients use for the model.
    pub served: &'a ServedNames,
    /// What the model is for.
    pub task: Task,
    /// Length of an embedding.
    pub embedding_size: usize,
    /// To which lengths an embedding may be cut.
    pub lengths: &'a Lengths,
    /// Alternatives that `logprobs` may ask for; `None`: all.
    pub max_logprobs: Option<usize>,
    /// Prompt and answer at most, tokens.
    pub max_model_len: usize,
    /// What the checkpoint asks for where the request names nothing.
    pub defaults: &'a Defaults,
    /// How messages become a prompt; `None` if the checkpoint does not say.
    pub template: Option<&'a ChatTemplate>,
    /// Role of answers.
    pub response_role: &'a str,
    /// Grammars over the model's tokens, or why there can be none.
    pub grammars: Result<&'a Grammars, &'a GrammarError>,
    /// Unknown parameters are refused instead of named.
    pub strict: bool,
    /// How the model writes calls and thoughts.
    pub formats: Formats,
}

/// A checked request: what to answer and how.
#[derive(Debug)]
pub struct Prepared {
    /// The served name that the client asked for.
    pub model: String,
    /// The prompts in their order.
    pub prompts: Vec<Prompt>,
    /// Name of the parameter that the prompts come from.
    pub prompt_param: &'static str,
    /// What the client calls parameters that have other names here.
    pub names: Names,
    /// How to answer each of them.
    pub answers: Answers,
    /// Alternatives to each of the prompts' tokens, where their log-probabilities are asked for.
    pub prompt_logprobs: Option<usize>,
    /// How calls are told.
    pub calls: CallStyle,
    /// The client's own name for the request.
    pub request_id: Option<String>,
    /// Parameters that mean nothing here, to be told to the client.
    pub ignored: Vec<String>,
}

/// A checked request to `/v1/responses`.
#[derive(Debug)]
pub struct PreparedResponse {
    /// What to answer and how.
    pub prepared: Prepared,
    /// The request, of which the answer repeats some.
    pub given: Map<String, Value>,
}

/// Work for the engine, one request per prompt.
#[derive(Debug)]
pub enum Work {
    /// Answers that are drawn.
    Generate(Vec<GenerateRequest>),
    /// Answers that are searched for.
    Search(Vec<BeamRequest>),
}

impl Prepared {
    /// Work for the engine: the answers to the first prompt, then those to the next.
    pub fn work(&self) -> Work {
        let ids = self.prompts.iter().map(|prompt| prompt.ids.clone());
        match &self.answers.method {
            Method::Sample { sampling, best_of } => Work::Generate(
                ids.map(|ids| self.answers.generate(ids, sampling, *best_of))
                    .collect(),
            ),
            Method::Search(params) => {
                Work::Search(ids.map(|ids| self.answers.search(ids, *params)).collect())
            }
        }
    }

    /// Tokens of all prompts.
    pub fn n_prompt_tokens(&self) -> usize {
        self.prompts.iter().map(|prompt| prompt.ids.len()).sum()
    }
}

/// Reads the body of `/v1/completions`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn completion(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<Prepared, ApiError> {
    let mut params = Params::parse(body, &COMPLETIONS, rules.strict)?;
    let model = generating_model(&mut params, rules)?;
    let sources = prompt_sources(&mut params, "prompt", PROMPTS_MAX)?.ok_or_else(|| missing("prompt"))?;
    let echoes = params.flag("echo")?.unwrap_or(false);
    let begin = begin(&mut params, Begin::Add)?;
    let logprobs = logprobs(&mut params, "logprobs", (rules, tokenizer))?;
    let max_tokens = params.count("max_tokens")?;
    let asked = max_tokens
        .or(rules.defaults.max_tokens)
        .or(Some(COMPLETION_TOKENS_DEFAULT));
    let n_answer = asked.unwrap_or(1).max(1);
    let cut = Cut::read(&mut params, rules.max_model_len, n_answer)?;
    let request_id = request_id(&mut params)?;
    let suffix = params.text("suffix")?.filter(|suffix| !suffix.is_empty());
    let form = constraint::form(&mut params)?;
    let sampling = (logprobs, 1.0, form.is_some());
    let mut answers = Answers::read(&mut params, (rules, tokenizer), sampling)?;
    answers.grammar = form.map(|form| form.compiled(None, rules)).transpose()?;
    answers.tells_each_token = answers.stream.is_some();
    let prompt_logprobs = answers.prompt_logprobs;
    if echoes && let Some(n_top) = logprobs {
        // As vLLM does it: what is echoed is scored too.
        answers.echoes_logprobs = true;
        answers.prompt_logprobs = Some(answers.prompt_logprobs.map_or(n_top, |n| n.max(n_top)));
    }
    answers.max_tokens = asked;
    if asked == Some(0) {
        answers.only_prompt = true;
        answers.max_tokens = Some(1);
    }
    let ignored = params.finish()?;
    let special = answers.special;
    let encode = |source| {
        let (ids, text) = match (source, &suffix) {
            (PromptSource::Text(text), Some(suffix)) => {
                let (ids, ends) = fill_in((&text, suffix), (begin, cut), rules, tokenizer)?;
                answers.stop_token_ids.extend(ends);
                (ids, Some(text))
            }
            (PromptSource::Tokens(_), Some(_)) => {
                return Err(contradiction("suffix", "it needs prompts that are texts"));
            }
            (PromptSource::Text(text), None) => (
                encode(&text, (begin, cut), rules, tokenizer, "prompt")?,
                Some(text),
            ),
            (PromptSource::Tokens(ids), None) => (cut.apply(ids), None),
        };
        let shown = |ids: &[u32]| tokenizer.tokens().decode(ids, special);
        let echo = echoes.then(|| text.filter(|_| !cut.shortens()).unwrap_or_else(|| shown(&ids)));
        Ok(Prompt { ids, echo })
    };
    let prompts = sources.into_iter().map(encode).collect::<Result<_, ApiError>>()?;
    Ok(Prepared {
        model,
        prompts,
        prompt_param: "prompt",
        names: Names::default(),
        answers,
        prompt_logprobs,
        calls: CallStyle::default(),
        request_id,
        ignored,
    })
}

/// Reads the body of `/v1/chat/completions`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong, the chat template's refusals included.
pub fn chat(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<Prepared, ApiError> {
    prepared_chat(
        Params::parse(body, &CHAT_COMPLETIONS, rules.strict)?,
        rules,
        tokenizer,
    )
}

/// Reads the body of `/v1/responses`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn response(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<PreparedResponse, ApiError> {
    let params = Params::parse(body, &RESPONSES, rules.strict)?;
    let given = params.fields().clone();
    let prepared = rewritten_chat(params, responses::to_chat, rules, tokenizer)?;
    Ok(PreparedResponse { prepared, given })
}

/// Reads the body of `/v1/messages`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn anthropic(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<Prepared, ApiError> {
    let params = Params::parse(body, &MESSAGES, rules.strict)?;
    if !params.has("max_tokens") {
        return Err(missing("max_tokens"));
    }
    anthropic_chat(params, rules, tokenizer)
}

/// Reads the body of `/v1/messages/count_tokens`.
///
/// # Errors
/// [`ApiError`] for everything a client can get wrong.
pub fn anthropic_prompt(body: &[u8], rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<Prepared, ApiError> {
    anthropic_chat(Params::parse(body, &MESSAGES, rules.strict)?, rules, tokenizer)
}

fn anthropic_chat(
    mut params: Params,
    rules: &Rules<'_>,
    tokenizer: &Tokenizer,
) -> Result<Prepared, ApiError> {
    // A chat's may be higher.
    params.check_number("temperature")?;
    rewritten_chat(params, anthropic::to_chat, rules, tokenizer)
}

/// Another route's body, as a chat whose errors name what the client wrote.
fn rewritten_chat(
    params: Params,
    rewrite: Rewrite,
    rules: &Rules<'_>,
    tokenizer: &Tokenizer,
) -> Result<Prepared, ApiError> {
    let (params, names, unknown) = params.into_body(&CHAT_COMPLETIONS, rewrite)?;
    let mut prepared = prepared_chat(params, rules, tokenizer).map_err(|error| names.restore(error))?;
    prepared.ignored.extend(unknown);
    prepared.names = names;
    Ok(prepared)
}

fn prepared_chat(mut params: Params, rules: &Rules<'_>, tokenizer: &Tokenizer) -> Result<Prepared, ApiError> {
    let model = generating_model(&mut params, rules)?;
    let mut conversation = conversation(&mut params, Ending::GenerationPrompt)?;
    let tools = tools(&mut params)?;
    if let Some(tools) = &tools {
        tools.show(&mut conversation);
        constraint::check_calls(tools, &params)?;
    }
    let hides_reasoning = params.flag("include_reasoning")? == Some(false);
    if let Some(effort) = params.text("reasoning_effort")? {
        conversation
            .variables
            .insert("reasoning_effort".into(), Value::String(effort));
    }
    if let Some(documents) = params.list("documents", DOCUMENTS_MAX, |item| item.as_object().cloned())? {
        let documents = documents.into_iter().map(Value::Object).collect();
        conversation
            .variables
            .insert("documents".into(), Value::Array(documents));
    }
    let template = own_template(&mut params, rules)?;
    let echoes = params.flag("echo")?.unwrap_or(false);
    let begin = begin(&mut params, Begin::Leave)?;
    let logprobs = chat_logprobs(&mut params, (rules, tokenizer))?;
    let newer = params.count("max_completion_tokens")?;
    let older = params.count("max_tokens")?;
    let mut names = Names::default();
    if newer.is_some() {
        names.add("max_tokens", "max_completion_tokens");
    }
    let max_tokens = newer.or(older).or(rules.defaults.max_tokens);
    let cut = Cut::read(&mut params, rules.max_model_len, max_tokens.unwrap_or(1))?;
    let request_id = request_id(&mut params)?;
    let form = constraint::form(&mut params)?;
    let sampling = (logprobs, CHAT_TEMPERATURE_DEFAULT, form.is_some());
    let mut answers = Answers::read(&mut params, (rules, tokenizer), sampling)?;
    answers.max_tokens = max_tokens;
    let ignored = params.finish()?;
    let text = rendered(&conversation, template.as_ref(), rules)?;
    let ids = encode(&text, (begin, cut), rules, tokenizer, "messages")?;
    read_parts(
        &mut answers,
        (tools.as_ref(), form),
        (&text, hides_reasoning),
        rules,
    )?;
    let echo = echoes.then(|| last_words(&conversation, rules.response_role));
    Ok(Prepared {
        model,
        prompts: vec![Prompt { ids, echo }],
        prompt_param: "messages",
        names,
        prompt_logprobs: answers.prompt_logprobs,
        answers,
        calls: tools.as_ref().map(ToolUse::style).unwrap_or_default(),
        request_id,
        ignored,
    })
}

fn tools(params: &mut Params) -> Result<Option<ToolUse>, ApiError> {
    let given = ToolParams {
        tools: params.take("tools"),
        tool_choice: params.take("tool_choice"),
        parallel_tool_calls: params.flag("parallel_tool_calls")?,
        functions: params.take("functions"),
        function_call: params.take("function_call"),
    };
    given.checked()
}

/// How the parts of an answer to this prompt are found, and the grammar of its form or of a call that must be made.
fn read_parts(
    answers: &mut Answers,
    (tools, form): (Option<&ToolUse>, Option<Form>),
    (prompt, hides_reasoning): (&str, bool),
    rules: &Rules<'_>,
) -> Result<(), ApiError> {
    let call = tools.map(ToolUse::schema).transpose()?.flatten();
    if call.is_some() && matches!(answers.method, Method::Search(_)) {
        return Err(contradiction(
            "tool_choice",
            "a beam search cannot follow a grammar",
        ));
    }
    let call = call.map(|schema| Form {
        param: "tool_choice",
        constraint: Constraint::JsonSchema(schema),
    });
    let reasoning = rules.formats.reasoning;
    // A form is that of the answer, and not of the thoughts before it.
    let preamble = reasoning.and_then(|format| format.preamble(prompt));
    let grammar = call.or(form).map(|form| form.compiled(preamble, rules));
    answers.grammar = grammar.transpose()?;
    let parsing = ParserPlan {
        reasoning: reasoning.map(|format| Reasoning {
            format,
            begins: format.begins(prompt),
        }),
        calls: tools.and_then(|tools| tools.calls(rules.formats)),
        single_call: tools.is_some_and(|tools| tools.single_call),
        hides_reasoning,
    };
    // Where special tokens mark the parts, the text has to show them.
    if parsing.needs_special_tokens() {
        answers.special = Special::Show;
    }
    answers.parsing = parsing;
    Ok(())
}

/// The last message, where the answer goes on with its role.
fn last_words(conversation: &Conversation, role: &str) -> String {
    let last = conversation.messages.last();
    let own = last.filter(|message| message["role"] == role);
    own.map(|message| chat_template::text(&message["content"]).into_owned())
        .unwrap_or_default()
}

/// The prompt that a template writes: the request's own, or the model's.
fn rendered(
    conversation: &Conversation,
    own: Option<&ChatTemplate>,
    rules: &Rules<'_>,
) -> Result<String, ApiError> {
    let template = own.or(rules.template).ok_or_else(|| ApiError::Template {
        param: "messages".into(),
        reason: "this model has none; set CUSTOM_CHAT_TEMPLATE, send chat_template, or use /v1/completions"
            .into(),
    })?;
    // Only rendering finds what is wrong with a request's own template.
    let param = if own.is_some() {
        "chat_template"
    } else {
        "messages"
    };
    template.render(conversation).map_err(|error| ApiError::Template {
        param: param.into(),
        reason: error.to_string(),
    })
}

/// The template that a request brings.
fn own_template(params: &mut Params, rules: &Rules<'_>) -> Result<Option<ChatTemplate>, ApiError> {
    let Some(source) = params.text("chat_template")? else {
        return Ok(None);
    };
    let tokens = rules
        .template
        .map(ChatTemplate::special_tokens)
        .unwrap_or_default();
    let compiled = ChatTemplate::of_request(&source, tokens);
    compiled.map(Some).map_err(|error| ApiError::Contradiction {
        param: "chat_template".into(),
        reason: error.to_string(),
    })
}

fn request_id(params: &mut Params) -> Result<Option<String>, ApiError> {
    let Some(id) = params.text("request_id")? else {
        return Ok(None);
    };
    let is_sane =
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic());
    if is_sane {
        Ok(Some(id))
    } else {
        let expected = "1 to 128 printable characters without spaces";
        Err(ApiError::invalid("request_id", expected, &Value::String(id)))
    }
}

/// The served model that is asked for; one that is not named is the first.
fn served_model(params: &mut Params, rules: &Rules<'_>) -> Result<String, ApiError> {
    let Some(model) = params.text("model")?.filter(|model| !model.is_empty()) else {
        return Ok(rules.served.first.clone());
    };
    if rules.served.contains(&model) {
        return Ok(model);
    }
    Err(ApiError::UnknownModel {
        model: shortened(&model),
        served: rules.served.to_vec(),
    })
}

fn generating_model(params: &mut Params, rules: &Rules<'_>) -> Result<String, ApiError> {
    let model = served_model(params, rules)?;
    match rules.task {
        Task::Generate => Ok(model),
        Task::Embed { .. } | Task::Score { .. } => Err(wrong_task(model, "generate text", rules.task)),
    }
}

fn wrong_task(model: String, wanted: &'static str, task: Task) -> ApiError {
    let does = match task {
        Task::Generate => "generates text",
        Task::Embed { .. } => "makes embeddings",
        Task::Score { n_labels: 1 } => "scores pairs of texts",
        Task::Score { .. } => "sorts texts into several classes",
    };
    ApiError::WrongTask { model, wanted, does }
}

fn begin(params: &mut Params, default: Begin) -> Result<Begin, ApiError> {
    Ok(match params.flag("add_special_tokens")? {
        None => default,
        Some(true) => Begin::Add,
        Some(false) => Begin::Leave,
    })
}

/// The conversation of `messages`, which ends as the request says, else with `ending`.
fn conversation(params: &mut Params, ending: Ending) -> Result<Conversation, ApiError> {
    let messages = messages::checked(params.required("messages")?)?;
    let adds_prompt = params.flag("add_generation_prompt")?;
    let ending = match (
        params.flag("continue_final_message")?.unwrap_or(false),
        adds_prompt,
    ) {
        (true, Some(true)) => {
            let reason = "an answer that continues the last message has no add_generation_prompt";
            return Err(contradiction("continue_final_message", reason));
        }
        (true, _) => Ending::OpenMessage,
        (false, Some(false)) => Ending::Messages,
        (false, Some(true)) => Ending::GenerationPrompt,
        (false, None) => ending,
    };
    let variables: Map<String, Value> = params.object("chat_template_kwargs")?.unwrap_or_default();
    Ok(Conversation {
        messages,
        ending,
        variables,
    })
}

/// How many alternatives are asked for; -1, where it is allowed, means the whole vocabulary.
fn logprobs(
    params: &mut Params,
    name: &str,
    (rules, tokenizer): (&Rules<'_>, &Tokenizer),
) -> Result<Option<usize>, ApiError> {
    let Some(asked) = params.integer(name)? else {
        return Ok(None);
    };
    match (usize::try_from(asked), rules.max_logprobs) {
        (Ok(n), Some(n_max)) if n <= n_max => Ok(Some(n)),
        (_, Some(n_max)) => {
            let expected = format!("a whole number from 0 to {n_max}");
            Err(ApiError::invalid(name, expected, &asked.into()))
        }
        (n, None) => Ok(Some(n.unwrap_or(usize::MAX).min(tokenizer.tokens().n_ids()))),
    }
}

fn chat_logprobs(params: &mut Params, sources: (&Rules<'_>, &Tokenizer)) -> Result<Option<usize>, ApiError> {
    let is_asked = params.flag("logprobs")?.unwrap_or(false);
    match (is_asked, logprobs(params, "top_logprobs", sources)?) {
        (true, n_top) => Ok(Some(n_top.unwrap_or(0))),
        (false, None | Some(0)) => Ok(None),
        (false, Some(_)) => Err(contradiction("top_logprobs", "it needs logprobs to be true")),
    }
}

fn missing(param: &str) -> ApiError {
    ApiError::Missing { param: param.into() }
}

fn contradiction(param: &str, reason: &str) -> ApiError {
    ApiError::Contradiction {
        param: param.into(),
        reason: reason.into(),
    }
}

#[cfg(test)]
mod tests;
