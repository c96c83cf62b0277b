//! The tools of a request, whether the answer must call one, and the form that enforces it.

use std::collections::BTreeSet;
use std::sync::Arc;

use openai_protocol::common::Tool;
use serde_json::{Value, json};

use super::params::{Params, drop_nulls, set_default};
use crate::api::error::ApiError;
use crate::chat_template::Conversation;
use crate::grammar::{CallList, CallListLength, CallableTool, Constraint};
use crate::parsers::{Calls, Formats};

/// Tools of one request.
const TOOLS_MAX: usize = 512;
/// Longest name of a tool, in bytes: Anthropic's limit, which is larger than OpenAI's.
const NAME_BYTES_MAX: usize = 128;

/// The parameters about tools, unchecked.
#[derive(Debug, Default)]
pub(super) struct ToolParams {
    /// `tools`.
    pub tools: Option<Value>,
    /// `tool_choice`.
    pub tool_choice: Option<Value>,
    /// `parallel_tool_calls`.
    pub parallel_tool_calls: Option<bool>,
    /// OpenAI's older `functions`.
    pub functions: Option<Value>,
    /// OpenAI's older `function_call`.
    pub function_call: Option<Value>,
}

/// Whether and which tools an answer calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ToolChoice {
    /// None.
    None,
    /// The model decides.
    Auto,
    /// At least one.
    Required,
    /// The one with this name.
    Named(String),
}

/// How an answer shows its calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CallStyle {
    /// As calls that the model decided to make.
    #[default]
    Chosen,
    /// As calls of which at least one was required.
    Required,
    /// As the call that was required by name.
    Named,
    /// As a call of OpenAI's older functions.
    Legacy,
}

/// The tools of a request, checked.
#[derive(Clone, Debug)]
pub(super) struct ToolUse {
    /// The client's tools, for the template.
    pub shown: Vec<Value>,
    /// The same for the parser of calls.
    pub tools: Arc<[Tool]>,
    /// Whether and which tools an answer calls.
    pub choice: ToolChoice,
    /// The answer contains at most one call.
    pub single_call: bool,
    /// The client uses OpenAI's older functions instead of tools.
    pub is_legacy: bool,
}

impl ToolParams {
    /// Takes `tools`. Tools that a server would have to run are left out.
    pub(super) fn listed(params: &mut Params) -> Result<Self, ApiError> {
        let tools = params.take("tools");
        let listed = tools.iter().filter_map(Value::as_array).flatten();
        for (idx, tool) in listed.enumerate() {
            if let Some(kind) = hosted(tool) {
                params.leave_out(format!("tools[{idx}]:{kind}"))?;
            }
        }
        Ok(Self {
            tools,
            ..Self::default()
        })
    }

    /// Takes the parameters of a chat.
    pub(super) fn read(params: &mut Params) -> Result<Self, ApiError> {
        Ok(Self {
            tools: Self::listed(params)?.tools,
            tool_choice: params.take("tool_choice"),
            parallel_tool_calls: params.flag("parallel_tool_calls")?,
            functions: params.take("functions"),
            function_call: params.take("function_call"),
        })
    }

    /// The tools of the request; `None` if it has none.
    pub(super) fn checked(self) -> Result<Option<ToolUse>, ApiError> {
        let is_legacy = self.functions.is_some() && self.tools.is_none();
        let has_tools = self.functions.is_some() || self.tools.is_some();
        let has_choice = self.tool_choice.is_some() || self.function_call.is_some();
        let (path, choice_path, shown) = match (self.tools, self.functions) {
            (Some(tools), _) => ("tools", "tool_choice", tools),
            (None, Some(functions)) => ("functions", "function_call", wrapped(functions)),
            (None, None) => ("tools", "tool_choice", Value::Null),
        };
        let listed = match shown {
            Value::Null => Vec::new(),
            Value::Array(tools) if tools.len() <= TOOLS_MAX => tools,
            other => {
                let expected = format!("a list of at most {TOOLS_MAX} tools");
                return Err(ApiError::invalid(path, expected, &other));
            }
        };
        let (mut shown, mut tools) = (Vec::new(), Vec::new());
        for (idx, mut tool) in listed.into_iter().enumerate() {
            if hosted(&tool).is_none() {
                drop_nulls(&mut tool);
                if let Some(function) = tool.get_mut("function") {
                    drop_nulls(function);
                }
                tools.push(checked_tool(&format!("{path}[{idx}]"), &tool)?);
                shown.push(tool);
            }
        }
        let mut choice = self.tool_choice.or(self.function_call);
        if let Some(allowed) = choice.as_ref().filter(|choice| choice["type"] == "allowed_tools") {
            let Allowed { names, mode } = Allowed::read(choice_path, &allowed["allowed_tools"], &tools)?;
            shown.retain(|tool| {
                tool["function"]["name"]
                    .as_str()
                    .is_some_and(|name| names.contains(name))
            });
            tools.retain(|tool| names.contains(&tool.function.name));
            choice = Some(mode);
        }
        let choice = checked_choice(choice_path, choice.as_ref(), &tools)?;
        if !has_tools && choice != ToolChoice::None && has_choice {
            return Err(ApiError::contradiction(choice_path, "it needs tools"));
        }
        if tools.is_empty() {
            return Ok(None);
        }
        Ok(Some(ToolUse {
            shown,
            tools: tools.into(),
            choice,
            single_call: is_legacy || self.parallel_tool_calls == Some(false),
            is_legacy,
        }))
    }
}

impl ToolUse {
    /// Gives the tools to the template.
    pub(super) fn show(&self, conversation: &mut Conversation) {
        let shown = Value::Array(self.shown.clone());
        set_default(&mut conversation.variables, "tools", shown);
    }

    /// How calls are found in the answer.
    pub(super) fn calls(&self, formats: Formats) -> Option<Calls> {
        let tools = || Arc::clone(&self.tools);
        match &self.choice {
            ToolChoice::None => None,
            ToolChoice::Auto => formats.calls.map(|format| Calls::Chosen {
                format,
                tools: tools(),
            }),
            ToolChoice::Required => Some(Calls::Listed { tools: tools() }),
            ToolChoice::Named(name) => Some(Calls::Named { name: name.clone() }),
        }
    }

    /// How the answer shows calls.
    pub(super) fn style(&self) -> CallStyle {
        match &self.choice {
            _ if self.is_legacy => CallStyle::Legacy,
            ToolChoice::None | ToolChoice::Auto => CallStyle::Chosen,
            ToolChoice::Required => CallStyle::Required,
            ToolChoice::Named(_) => CallStyle::Named,
        }
    }

    /// The form of an answer that makes the required call: a list of calls, or the arguments of one. `None` if the model
    /// decides.
    pub(super) fn form(&self) -> Option<Constraint> {
        let callable = self.tools.iter().map(|tool| CallableTool {
            name: tool.function.name.clone(),
            parameters: arguments_schema(&tool.function.parameters),
        });
        match &self.choice {
            ToolChoice::None | ToolChoice::Auto => None,
            ToolChoice::Named(name) => {
                let mut callable = callable;
                let tool = callable.find(|tool| tool.name == *name);
                tool.map(|tool| Constraint::JsonSchema(tool.parameters))
            }
            ToolChoice::Required => Some(Constraint::Calls(CallList {
                tools: callable.collect(),
                length: if self.single_call {
                    CallListLength::One
                } else {
                    CallListLength::Any
                },
            })),
        }
    }
}

/// OpenAI's `allowed_tools`: some of the tools, and whether an answer must call one of them.
struct Allowed {
    names: BTreeSet<String>,
    /// `auto` or `required`.
    mode: Value,
}

impl Allowed {
    fn read(choice_path: &str, allowed: &Value, tools: &[Tool]) -> Result<Self, ApiError> {
        let path = format!("{choice_path}.allowed_tools");
        let mode = &allowed["mode"];
        if mode != "auto" && mode != "required" {
            return Err(ApiError::invalid(
                format!("{path}.mode"),
                "auto or required",
                mode,
            ));
        }
        let path = format!("{path}.tools");
        let listed = match &allowed["tools"] {
            Value::Array(listed) if !listed.is_empty() => listed,
            other => return Err(ApiError::invalid(path, "a non-empty list of tools", other)),
        };
        let known: BTreeSet<&str> = tools.iter().map(|tool| tool.function.name.as_str()).collect();
        let name = |(idx, tool): (usize, &Value)| {
            let name = name_of(tool).filter(|name| known.contains(name));
            name.map(str::to_owned).ok_or_else(|| {
                let path = format!("{path}[{idx}]");
                ApiError::invalid(path, "one of the tools, by type and name", tool)
            })
        };
        let offered = listed
            .iter()
            .enumerate()
            .filter(|(_, tool)| hosted(tool).is_none());
        Ok(Self {
            names: offered.map(name).collect::<Result<_, _>>()?,
            mode: mode.clone(),
        })
    }
}

/// The type of a tool that is not a function, such as `web_search`: a server would have to run it, or its calls have a
/// form of their own.
fn hosted(tool: &Value) -> Option<&str> {
    tool["type"].as_str().filter(|kind| *kind != "function")
}

/// The name of a function, which may be inside `function`.
fn name_of(tool: &Value) -> Option<&str> {
    tool["function"]["name"].as_str().or(tool["name"].as_str())
}

/// The schema of a tool's arguments; that of a tool without parameters accepts an empty object.
fn arguments_schema(parameters: &Value) -> Value {
    match parameters.as_object() {
        Some(fields) if !fields.is_empty() => parameters.clone(),
        _ => json!({"type": "object", "properties": {}, "additionalProperties": false}),
    }
}

fn wrapped(functions: Value) -> Value {
    match functions {
        Value::Array(functions) => functions
            .into_iter()
            .map(|function| json!({"type": "function", "function": function}))
            .collect(),
        other => other,
    }
}

fn checked_tool(path: &str, tool: &Value) -> Result<Tool, ApiError> {
    if !tool.is_object() {
        return Err(ApiError::invalid(path, "an object with type and function", tool));
    }
    if !tool["type"].is_string() {
        return Err(ApiError::missing(format!("{path}.type")));
    }
    let function = &tool["function"];
    let path = format!("{path}.function");
    if !function.is_object() {
        return Err(ApiError::invalid(
            path,
            "an object with name and parameters",
            function,
        ));
    }
    let is_name = |name: &str| (1..=NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_name_char);
    match &function["name"] {
        Value::Null => {
            return Err(ApiError::missing(format!("{path}.name")));
        }
        Value::String(name) if is_name(name) => {}
        other => {
            let expected = format!("up to {NAME_BYTES_MAX} letters, digits, _, - and .");
            return Err(ApiError::invalid(format!("{path}.name"), expected, other));
        }
    }
    let parameters = &function["parameters"];
    if !(parameters.is_null() || parameters.is_object()) {
        return Err(ApiError::invalid(
            format!("{path}.parameters"),
            "a JSON schema",
            parameters,
        ));
    }
    serde_json::from_value(tool.clone()).map_err(|_| ApiError::invalid(path, "a function", function))
}

fn is_name_char(char: char) -> bool {
    char.is_ascii_alphanumeric() || matches!(char, '_' | '-' | '.')
}

fn checked_choice(path: &str, choice: Option<&Value>, tools: &[Tool]) -> Result<ToolChoice, ApiError> {
    let word = choice.and_then(Value::as_str);
    let name = choice.and_then(name_of);
    let chosen = match (choice, word, name) {
        (None | Some(Value::Null), ..) | (_, Some("auto"), _) => ToolChoice::Auto,
        (_, Some("none"), _) => return Ok(ToolChoice::None),
        (_, Some("required"), _) => ToolChoice::Required,
        (_, None, Some(name)) => ToolChoice::Named(name.to_string()),
        (Some(other), ..) if hosted(other).is_some() => {
            let reason = "it requires a tool of a type that this server does not offer; it offers functions";
            return Err(ApiError::contradiction(path, reason));
        }
        (Some(other), ..) => {
            let expected = r#"auto, none, required, or {"type": "function", "function": {"name": …}}"#;
            return Err(ApiError::invalid(path, expected, other));
        }
    };
    let exists = match &chosen {
        ToolChoice::Named(name) => tools.iter().any(|tool| tool.function.name == *name),
        ToolChoice::Required => !tools.is_empty(),
        ToolChoice::Auto | ToolChoice::None => true,
    };
    if exists {
        return Ok(chosen);
    }
    let reason = "it requires a call of a tool that is not in the list of tools";
    Err(ApiError::contradiction(path, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str) -> Value {
        json!({"type": "function", "function": {"name": name, "parameters": {
            "type": "object", "properties": {"a": {"$ref": "#/$defs/A"}}, "$defs": {"A": {"type": "integer"}}
        }}})
    }

    fn params(tools: Value, tool_choice: Value) -> ToolParams {
        ToolParams {
            tools: Some(tools),
            tool_choice: Some(tool_choice),
            ..ToolParams::default()
        }
    }

    fn refused(tools: Value, tool_choice: Value) -> (String, &'static str) {
        let error = params(tools, tool_choice).checked().unwrap_err();
        (error.param().unwrap().to_string(), error.facts().label)
    }

    #[test]
    fn a_choice_becomes_a_form() {
        let form = |choice: Value| {
            let tools = params(json!([tool("f"), tool("g")]), choice).checked();
            tools.unwrap().unwrap().form()
        };
        let parameters = |name: &str| tool(name)["function"]["parameters"].clone();
        assert_eq!(form(json!("auto")), None);
        assert_eq!(form(json!("none")), None);
        let named = json!({"type": "function", "function": {"name": "g"}});
        assert_eq!(form(named), Some(Constraint::JsonSchema(parameters("g"))));
        let tools = ["f", "g"].map(|name| CallableTool {
            name: name.to_owned(),
            parameters: parameters(name),
        });
        let list = CallList {
            tools: tools.into(),
            length: CallListLength::Any,
        };
        assert_eq!(form(json!("required")), Some(Constraint::Calls(list)));
    }

    #[test]
    fn only_allowed_tools_remain() {
        let allowed = |mode: &str, tools: Value| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": tools}});
        let all = || json!([tool("f"), tool("g"), tool("h")]);
        let some =
            json!([{"type": "function", "function": {"name": "h"}}, {"type": "function", "name": "f"}]);
        for (mode, choice) in [("auto", ToolChoice::Auto), ("required", ToolChoice::Required)] {
            let tools = params(all(), allowed(mode, some.clone()))
                .checked()
                .unwrap()
                .unwrap();
            let names: Vec<&str> = tools
                .tools
                .iter()
                .map(|tool| tool.function.name.as_str())
                .collect();
            assert_eq!((names, tools.choice), (vec!["f", "h"], choice));
            assert_eq!(tools.shown, [tool("f"), tool("h")]);
        }
        let path = |of: &str| (format!("tool_choice.allowed_tools.{of}"), "invalid_value");
        assert_eq!(refused(all(), allowed("none", some)), path("mode"));
        assert_eq!(refused(all(), allowed("auto", json!([]))), path("tools"));
        let other = json!([{"type": "function", "function": {"name": "f"}}, {"type": "function", "function": {"name": "x"}}]);
        assert_eq!(refused(all(), allowed("auto", other)), path("tools[1]"));
        assert_eq!(refused(all(), json!({"type": "allowed_tools"})), path("mode"));
    }

    #[test]
    fn tools_that_are_not_functions_are_left_out() {
        let hosted = |kind: &str| json!({"type": kind, "name": "apply_patch"});
        let all = || json!([hosted("web_search"), tool("f"), hosted("custom"), {"type": "mcp", "server_label": "s"}]);
        let used = params(all(), json!("required")).checked().unwrap().unwrap();
        assert_eq!(
            (used.shown.as_slice(), used.tools.len()),
            ([tool("f")].as_slice(), 1)
        );
        // The error of another tool has its own index.
        let wrong = json!([hosted("web_search"), tool("a b")]);
        let path = "tools[1].function.name".to_string();
        assert_eq!(refused(wrong, json!("auto")), (path, "invalid_value"));
        assert!(
            params(json!([hosted("custom")]), json!("auto"))
                .checked()
                .unwrap()
                .is_none()
        );
        for choice in [
            json!({"type": "web_search"}),
            json!({"type": "custom", "name": "apply_patch"}),
            json!({"type": "mcp", "server_label": "s"}),
            json!({"type": "allowed_tools", "allowed_tools": {"mode": "required", "tools": [{"type": "web_search"}]}}),
        ] {
            let refusal = ("tool_choice".into(), "contradiction");
            assert_eq!(refused(all(), choice), refusal);
        }
        let none = params(json!([hosted("custom")]), json!("required")).checked();
        assert_eq!(none.unwrap_err().param(), Some("tool_choice"));
        let some = json!({"mode": "auto", "tools": [{"type": "mcp", "server_label": "s"}, {"type": "function", "name": "f"}]});
        let some = json!({"type": "allowed_tools", "allowed_tools": some});
        assert_eq!(params(all(), some).checked().unwrap().unwrap().tools.len(), 1);
    }

    #[test]
    fn null_counts_as_absent_in_a_tool() {
        let given = json!([{"type": "function", "function": {"name": "f", "description": null, "parameters": null, "strict": null}}]);
        let used = params(given, Value::Null).checked().unwrap().unwrap();
        assert_eq!(
            used.shown,
            [json!({"type": "function", "function": {"name": "f"}})]
        );
    }

    #[test]
    fn older_functions_are_tools() {
        let older = ToolParams {
            functions: Some(json!([{"name": "f"}])),
            function_call: Some(json!({"name": "f"})),
            ..ToolParams::default()
        };
        let tools = older.checked().unwrap().unwrap();
        assert!(tools.is_legacy && tools.single_call);
        assert_eq!(tools.choice, ToolChoice::Named("f".into()));
        assert_eq!(
            tools.shown,
            [json!({"type": "function", "function": {"name": "f"}})]
        );
    }

    #[test]
    fn an_error_has_the_path_of_the_wrong_value() {
        let auto = || json!("auto");
        assert_eq!(refused(json!("x"), auto()), ("tools".into(), "invalid_value"));
        assert_eq!(refused(json!([1]), auto()), ("tools[0]".into(), "invalid_value"));
        assert_eq!(refused(json!([{}]), auto()), ("tools[0].type".into(), "missing"));
        let nameless = json!([tool("f"), {"type": "function", "function": {}}]);
        assert_eq!(
            refused(nameless, auto()),
            ("tools[1].function.name".into(), "missing")
        );
        let spaced = json!([tool("a b")]);
        assert_eq!(
            refused(spaced, auto()),
            ("tools[0].function.name".into(), "invalid_value")
        );
        let listed = json!([{"type": "function", "function": {"name": "f", "parameters": []}}]);
        let path = "tools[0].function.parameters";
        assert_eq!(refused(listed, auto()), (path.into(), "invalid_value"));
        let other = json!({"type": "function", "function": {"name": "g"}});
        assert_eq!(
            refused(json!([tool("f")]), other),
            ("tool_choice".into(), "contradiction")
        );
        assert_eq!(
            refused(json!([]), json!("required")),
            ("tool_choice".into(), "contradiction")
        );
        assert_eq!(
            refused(json!([tool("f")]), json!("some")),
            ("tool_choice".into(), "invalid_value")
        );
        assert!(params(json!([]), auto()).checked().unwrap().is_none());
        let alone = |tool_choice: Value| ToolParams {
            tool_choice: Some(tool_choice),
            ..ToolParams::default()
        };
        assert!(alone(auto()).checked().is_err());
        assert!(alone(json!("none")).checked().unwrap().is_none());
    }
}
