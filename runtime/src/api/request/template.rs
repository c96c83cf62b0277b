//! From `messages` and the parameters of the chat template to the text of a prompt.

use serde_json::{Map, Value};

use super::messages;
use super::params::Params;
use super::rules::Rules;
use crate::api::error::ApiError;
use crate::chat_template::{ChatTemplate, Conversation, Ending};

/// The conversation of `messages`. It ends as the request requires, or else with `ending`.
pub(super) fn conversation(params: &mut Params, ending: Ending) -> Result<Conversation, ApiError> {
    let messages = messages::checked(params.required("messages")?)?;
    let mut variables: Map<String, Value> = params.object("chat_template_kwargs")?.unwrap_or_default();
    if variables.contains_key("messages") {
        return Err(ApiError::contradiction(
            "chat_template_kwargs",
            "it cannot replace the messages; change the parameter messages",
        ));
    }
    // A client of vLLM may give the parameter as a variable, too.
    let as_variable = variables.remove("add_generation_prompt");
    let adds_prompt = match (params.flag("add_generation_prompt")?, as_variable) {
        (None, Some(value)) => Some(value.as_bool().ok_or_else(|| {
            ApiError::invalid(
                "chat_template_kwargs.add_generation_prompt",
                "true or false",
                &value,
            )
        })?),
        (own, _) => own,
    };
    let continues = params.flag("continue_final_message")?.unwrap_or(false);
    let ending = match (continues, adds_prompt) {
        (true, Some(true)) => {
            return Err(ApiError::contradiction(
                "continue_final_message",
                "it cannot be used together with add_generation_prompt",
            ));
        }
        (true, _) => Ending::OpenMessage,
        (false, Some(false)) => Ending::Messages,
        (false, Some(true)) => Ending::GenerationPrompt,
        (false, None) => ending,
    };
    Ok(Conversation {
        messages,
        ending,
        variables,
    })
}

/// The template that the request contains, or the model's template that it names.
pub(super) fn own_template(params: &mut Params, rules: &Rules<'_>) -> Result<Option<ChatTemplate>, ApiError> {
    let Some(source) = params.text("chat_template")? else {
        return Ok(None);
    };
    if let Some(named) = rules.template.and_then(|template| template.named(&source)) {
        return Ok(Some(named));
    }
    rules.budget.begin_heavy()?;
    let tokens = rules
        .template
        .map(ChatTemplate::special_tokens)
        .unwrap_or_default();
    let compiled = ChatTemplate::of_request(&source, tokens);
    compiled
        .map(Some)
        .map_err(|error| ApiError::contradiction("chat_template", error.to_string()))
}

/// The prompt that a template writes: the request's own template, or the model's.
pub(super) fn rendered(
    conversation: &Conversation,
    own: Option<&ChatTemplate>,
    rules: &Rules<'_>,
) -> Result<String, ApiError> {
    let template = own.or(rules.template).ok_or_else(|| ApiError::Template {
        param: "messages".into(),
        reason: "this model has no chat template; set CUSTOM_CHAT_TEMPLATE, send chat_template, or use \
                 /v1/completions"
            .into(),
    })?;
    rules.budget.check()?;
    // Most errors of a request's own template appear only when it runs.
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
