//! The body of `/v1/chat/completions`, and other routes' bodies that are rewritten as one.

use serde_json::Value;

use super::answer_options::{AnswerOptions, Method, ReadOptions};
use super::constraint::{self, Form};
use super::logprobs::{PromptLogprobs, chat_logprobs};
use super::model::generating_model;
use super::parameters::CHAT_COMPLETIONS;
use super::params::{Params, Rewrite, set_default};
use super::prepared::Prepared;
use super::prompt::{Cut, Prompt, PromptOptions, begin, encode};
use super::renames::Renames;
use super::request_id::request_id;
use super::rules::Rules;
use super::template::{conversation, own_template, rendered};
use super::tools::{ToolParams, ToolUse};
use crate::api::error::ApiError;
use crate::chat_template::{self, Conversation, Ending};
use crate::parsers::{ParserPlan, Reasoning};
use crate::tokenizer::{Begin, Special};

/// Documents of one conversation.
const DOCUMENTS_MAX: usize = 1024;
/// Temperature where neither the request nor the checkpoint sets it: the documented default of vLLM workers.
const TEMPERATURE_DEFAULT: f32 = 0.7;

/// Reads the body of `/v1/chat/completions`.
///
/// # Errors
/// [`ApiError`] for every error of the client, errors of the chat template included.
pub fn chat(body: &[u8], rules: &Rules<'_>) -> Result<Prepared, ApiError> {
    prepared_chat(Params::parse(body, &CHAT_COMPLETIONS, rules)?, rules)
}

/// Reads another route's body as a chat. Its errors have the client's names.
pub(super) fn rewritten_chat(
    params: Params,
    rewrite: Rewrite,
    rules: &Rules<'_>,
) -> Result<Prepared, ApiError> {
    let rewritten = params.into_body(&CHAT_COMPLETIONS, rewrite)?;
    let renames = rewritten.renames;
    let mut prepared = prepared_chat(rewritten.params, rules).map_err(|error| renames.restore(error))?;
    prepared.ignored.extend(rewritten.unknown);
    prepared.renames = renames;
    Ok(prepared)
}

fn prepared_chat(mut params: Params, rules: &Rules<'_>) -> Result<Prepared, ApiError> {
    let model = generating_model(&mut params, rules)?;
    let mut conversation = conversation(&mut params, Ending::GenerationPrompt)?;
    let tools = ToolParams::read(&mut params)?.checked()?;
    if let Some(tools) = &tools {
        tools.show(&mut conversation);
        constraint::check_calls(tools, &params)?;
    }
    let hides_reasoning = params.flag("include_reasoning")? == Some(false);
    template_variables(&mut params, &mut conversation)?;
    let template = own_template(&mut params, rules)?;
    let echoes = params.flag("echo")?.unwrap_or(false);
    let begin = begin(&mut params, Begin::Leave)?;
    let logprobs = chat_logprobs(&mut params, rules)?;
    let newer = params.count("max_completion_tokens")?;
    let older = params.count("max_tokens")?;
    let mut renames = Renames::default();
    if newer.is_some() {
        renames.add("max_tokens", "max_completion_tokens");
    }
    let max_tokens = newer.or(older).or(rules.defaults.max_tokens);
    let cut = Cut::read(&mut params, rules.max_model_len, max_tokens)?;
    let request_id = request_id(&mut params)?;
    let form = constraint::form(&mut params)?;
    let options = ReadOptions {
        logprobs,
        temperature: TEMPERATURE_DEFAULT,
        has_form: form.is_some(),
    };
    let mut answers = AnswerOptions::read(&mut params, options, rules)?;
    answers.max_tokens = max_tokens;
    let ignored = params.finish()?;
    let text = rendered(&conversation, template.as_ref(), rules)?;
    let ids = encode(&text, PromptOptions { begin, cut }, rules, "messages")?;
    let echo = echoes.then(|| last_message(&conversation, rules.response_role));
    let prompts = vec![Prompt { ids, echo }];
    if let Some(n_top) = answers.prompt_logprobs {
        let wanted = PromptLogprobs {
            param: "prompt_logprobs",
            n_top,
            n_copies: 1,
        };
        wanted.check(&prompts)?;
    }
    let parts = PartsOfAnswer {
        tools: tools.as_ref(),
        form,
        hides_reasoning,
        n_calls_before: n_calls(&conversation),
    };
    parts.apply(&mut answers, &text, rules)?;
    Ok(Prepared {
        model,
        prompts,
        prompt_param: "messages",
        renames,
        prompt_logprobs: answers.prompt_logprobs,
        answers,
        calls: tools.as_ref().map(ToolUse::style).unwrap_or_default(),
        request_id,
        ignored,
    })
}

/// Gives the template the parameters that are its variables, unless the client sets them in `chat_template_kwargs`.
fn template_variables(params: &mut Params, conversation: &mut Conversation) -> Result<(), ApiError> {
    let variables = &mut conversation.variables;
    if let Some(effort) = params.text("reasoning_effort")? {
        set_default(variables, "reasoning_effort", Value::String(effort));
    }
    if let Some(documents) = params.list("documents", DOCUMENTS_MAX, |item| item.as_object().cloned())? {
        let documents = documents.into_iter().map(Value::Object).collect();
        set_default(variables, "documents", Value::Array(documents));
    }
    Ok(())
}

/// What a request requires of the parts of its answer: thoughts, content and calls.
struct PartsOfAnswer<'a> {
    tools: Option<&'a ToolUse>,
    form: Option<Form>,
    /// Thoughts are not part of the answer.
    hides_reasoning: bool,
    /// Calls of the conversation before the answer.
    n_calls_before: usize,
}

impl PartsOfAnswer<'_> {
    /// Sets how the parts of an answer to `prompt` are found, and the grammar of its form or of a required call.
    fn apply(self, answers: &mut AnswerOptions, prompt: &str, rules: &Rules<'_>) -> Result<(), ApiError> {
        let call = self.tools.and_then(ToolUse::form);
        if call.is_some() && matches!(answers.method, Method::Search(_)) {
            let reason = "a beam search cannot follow a grammar";
            return Err(ApiError::contradiction("tool_choice", reason));
        }
        let call = call.map(|constraint| Form {
            param: "tool_choice",
            constraint,
        });
        let reasoning = rules.formats.reasoning;
        // The form applies to the answer, not to the thoughts before it.
        let preamble = reasoning.and_then(|format| format.preamble(prompt));
        let grammar = call.or(self.form).map(|form| form.compiled(preamble, rules));
        answers.grammar = grammar.transpose()?;
        let parsing = ParserPlan {
            reasoning: reasoning.map(|format| Reasoning {
                format,
                begins: format.begins(prompt),
            }),
            calls: self.tools.and_then(|tools| tools.calls(rules.formats)),
            single_call: self.tools.is_some_and(|tools| tools.single_call),
            hides_reasoning: self.hides_reasoning,
            ids: rules.formats.calls.map(|format| format.ids).unwrap_or_default(),
            n_calls_before: self.n_calls_before,
        };
        // The parser needs special tokens in the text where they mark the parts.
        if parsing.needs_special_tokens() {
            answers.special = Special::Show;
        }
        answers.parsing = parsing;
        Ok(())
    }
}

/// The number of calls in a conversation.
fn n_calls(conversation: &Conversation) -> usize {
    let messages = conversation.messages.iter();
    let calls = messages.filter_map(|message| message["tool_calls"].as_array());
    calls.map(Vec::len).sum()
}

/// The text of the last message, if it has the role of answers.
fn last_message(conversation: &Conversation, role: &str) -> String {
    let last = conversation.messages.last();
    let own = last.filter(|message| message["role"] == role);
    own.map(|message| chat_template::text(&message["content"]).into_owned())
        .unwrap_or_default()
}
