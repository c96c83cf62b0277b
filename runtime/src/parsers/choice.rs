//! The formats of a model: those that the settings name, or those of its chat template.

use crds::settings::OpenaiSettings;

use super::formats::{REASONING_FORMATS, ReasoningFormat, TOOL_FORMATS, ToolFormat};
use super::recognition::{Template, Written, WrittenCall, written_calls};

/// The name of an unknown format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no parser '{name}'; available are auto, none, {}", known.join(", "))]
pub struct UnknownParser {
    /// The requested name.
    pub name: String,
    /// All names.
    pub known: Vec<&'static str>,
}

/// The names of the formats in the settings. `auto` means the format of the chat template, `none` means no format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatNames {
    /// Of calls.
    pub calls: String,
    /// Of reasoning.
    pub reasoning: String,
    /// Whether calls are parsed if the model may choose to make none.
    pub reads_chosen_calls: bool,
}

/// The formats of a model.
#[derive(Clone, Copy, Debug, Default)]
pub struct Formats {
    /// Of calls that the model chooses to make.
    pub calls: Option<&'static ToolFormat>,
    /// Of reasoning.
    pub reasoning: Option<&'static ReasoningFormat>,
}

impl FormatNames {
    /// Reads the names from the settings and checks that they exist.
    ///
    /// # Errors
    /// [`UnknownParser`] for an unknown name.
    pub fn of(openai: &OpenaiSettings) -> Result<Self, UnknownParser> {
        let names = Self {
            calls: openai.tool_call_parser(),
            reasoning: openai.reasoning_parser(),
            reads_chosen_calls: openai.enable_auto_tool_choice(),
        };
        names.formats(None)?;
        Ok(names)
    }

    /// The formats of a model with this chat template.
    ///
    /// # Errors
    /// [`UnknownParser`] for an unknown name.
    pub fn formats(&self, template: Option<&Template<'_>>) -> Result<Formats, UnknownParser> {
        let reasoning_of = |template: &Template<'_>| {
            let mut formats = REASONING_FORMATS.iter();
            formats.find(|format| template.has_all(format.template_words))
        };
        let calls = choose(
            &self.calls,
            TOOL_FORMATS,
            |format| format.names,
            || template.filter(|_| self.reads_chosen_calls).and_then(calls_of),
        )?;
        let reasoning = choose(
            &self.reasoning,
            REASONING_FORMATS,
            |format| format.names,
            || template.and_then(reasoning_of),
        )?;
        Ok(Formats {
            calls: calls.filter(|_| self.reads_chosen_calls),
            reasoning,
        })
    }
}

/// The format of a template's calls.
fn calls_of(template: &Template<'_>) -> Option<&'static ToolFormat> {
    let by_words = || {
        TOOL_FORMATS
            .iter()
            .find(|format| template.has_all(format.template_words))
    };
    // A history may be written in another way than the calls for which the prompt asks.
    let asked_in = |call: &WrittenCall| by_words().filter(|format| call.shows(format.opens));
    match written_calls(template.render, TOOL_FORMATS) {
        Written::Read(format, call) if !call.shows(format.opens) => Some(asked_in(&call).unwrap_or(format)),
        Written::Read(format, _) => Some(format),
        Written::No => by_words(),
        Written::Unread(call) => {
            let asked = asked_in(&call);
            if asked.is_none() {
                tracing::warn!(
                    call = call.message(),
                    "no parser reads the calls of this chat template, so they stay text; TOOL_CALL_PARSER names a parser"
                );
            }
            asked
        }
    }
}

fn choose<T>(
    setting: &str,
    formats: &'static [T],
    names: fn(&T) -> &'static [&'static str],
    automatic: impl Fn() -> Option<&'static T>,
) -> Result<Option<&'static T>, UnknownParser> {
    match setting {
        "none" => return Ok(None),
        "auto" => return Ok(automatic()),
        _ => {}
    }
    let named = formats.iter().find(|format| names(format).contains(&setting));
    named.map(Some).ok_or_else(|| UnknownParser {
        name: setting.to_string(),
        known: formats.iter().flat_map(names).copied().collect(),
    })
}
