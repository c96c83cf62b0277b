//! Blocks of calls that are neither JSON nor the syntax of a language: elements, sections and named objects.
//!
//! Each function parses a block with its marks. Sources are the chat templates of the models' repositories.

use futures::FutureExt;
use openai_protocol::common::Tool;
use serde_json::Value;
use tool_parser::parsers::Gemma4Parser;
use tool_parser::traits::ToolParser;

use super::arguments::{Arguments, with_literals};
use super::pythonic::ParsedCall;

/// Parses a block with a parser of the crate.
pub(super) fn calls(parser: impl ToolParser, block: &str, tools: &[Tool]) -> Vec<ParsedCall> {
    // These parsers are futures that never wait.
    let parsed = parser.parse_complete_with_tools(block, tools).now_or_never();
    let Some(Ok((_, calls))) = parsed else {
        return Vec::new();
    };
    let functions = calls.into_iter().map(|call| call.function);
    let parsed = functions.map(|call| ParsedCall {
        arguments: literals_read(call.arguments, &call.name, tools),
        name: call.name,
        id: None,
    });
    parsed.collect()
}

fn literals_read(arguments: String, name: &str, tools: &[Tool]) -> String {
    let Ok(mut object) = serde_json::from_str::<Value>(&arguments) else {
        return arguments;
    };
    let before = object.clone();
    with_literals(&mut object, name, tools);
    if object == before {
        arguments
    } else {
        object.to_string()
    }
}

/// Elements with a name: the text before the name, the text after it, and the end of the element.
#[derive(Clone, Copy, Debug)]
struct Element(&'static str, &'static str, &'static str);

impl Element {
    /// The next element of `text`: its name, its content, and the text after it. Small models omit the end of an element,
    /// so it also ends where the next begins or an outer one ends.
    fn next<'t>(self, text: &'t str, others: &[&str]) -> Option<(&'t str, &'t str, &'t str)> {
        let Self(open, named, close) = self;
        let (_, rest) = text.split_once(open)?;
        let (name, rest) = rest.split_once(named)?;
        if let Some((content, rest)) = rest.split_once(close) {
            // The element ended before if another begins inside it.
            if !content.contains(open) {
                return Some((name, content, rest));
            }
        }
        let ends = others.iter().chain([&open]).filter_map(|mark| rest.find(mark));
        let (content, rest) = rest.split_at(ends.min().unwrap_or(rest.len()));
        Some((name, content, rest))
    }
}

/// `<function=NAME><parameter=NAME>VALUE</parameter></function>`.
pub(super) fn functions(block: &str, tools: &[Tool]) -> Vec<ParsedCall> {
    let function = Element("<function=", ">", "</function>");
    let parameter = Element("<parameter=", ">", "</parameter>");
    elements(block, tools, [function, parameter])
}

/// `<invoke name="NAME"><parameter name="NAME">VALUE</parameter></invoke>`.
pub(super) fn invocations(block: &str, tools: &[Tool]) -> Vec<ParsedCall> {
    let invoke = Element("<invoke name=\"", "\">", "</invoke>");
    let parameter = Element("<parameter name=\"", "\">", "</parameter>");
    elements(block, tools, [invoke, parameter])
}

fn elements(block: &str, tools: &[Tool], [call, parameter]: [Element; 2]) -> Vec<ParsedCall> {
    let mut calls = Vec::new();
    let mut rest = block;
    while let Some((name, mut content, after)) = call.next(rest, &[]) {
        let name = name.trim();
        let mut arguments = Arguments::of(name, tools);
        while let Some((name, value, after)) = parameter.next(content, &[call.2]) {
            // Templates write a line end at both ends of a value.
            let value = value.strip_prefix('\n').unwrap_or(value);
            arguments.add(name.trim(), value.strip_suffix('\n').unwrap_or(value));
            content = after;
        }
        calls.push(ParsedCall {
            name: name.to_owned(),
            arguments: arguments.object(),
            id: None,
        });
        rest = after;
    }
    calls
}

/// `<function=NAME>{…}</function>`.
pub(super) fn function_objects(block: &str, _: &[Tool]) -> Vec<ParsedCall> {
    let function = Element("<function=", ">", "</function>");
    let call = function.next(block, &[]).and_then(|(name, content, _)| {
        let arguments = content.trim();
        let object: Value = serde_json::from_str(arguments).ok()?;
        object.is_object().then(|| ParsedCall {
            name: name.trim().to_owned(),
            arguments: arguments.to_owned(),
            id: None,
        })
    });
    call.into_iter().collect()
}

/// `<|tool_call_begin|>functions.NAME:N<|tool_call_argument_begin|>{…}<|tool_call_end|>`. The template writes nothing but
/// the id, so the model's own id is kept. The numbers of two calls with one id are made different.
pub(super) fn numbered(block: &str, _: &[Tool]) -> Vec<ParsedCall> {
    let mut calls: Vec<ParsedCall> = Vec::new();
    for part in block.split("<|tool_call_begin|>").skip(1) {
        let Some((id, rest)) = part.split_once("<|tool_call_argument_begin|>") else {
            continue;
        };
        let arguments = rest.split("<|tool_call_end|>").next().unwrap_or(rest).trim();
        let numbered = id.trim().rsplit_once(':');
        let Some((named, number)) = numbered.and_then(|(named, n)| Some((named, n.parse::<u32>().ok()?)))
        else {
            continue;
        };
        if serde_json::from_str::<Value>(arguments).is_err() {
            continue;
        }
        let id_of = |number: u32| Some(format!("{named}:{number}"));
        let is_free = |number: &u32| calls.iter().all(|call| call.id != id_of(*number));
        let Some(number) = (number..=u32::MAX).find(is_free) else {
            continue;
        };
        calls.push(ParsedCall {
            name: named.strip_prefix("functions.").unwrap_or(named).to_owned(),
            arguments: arguments.to_owned(),
            id: id_of(number),
        });
    }
    calls
}

/// `[{"NAME": {…}}]` between marks.
pub(super) fn named_objects(block: &str, _: &[Tool]) -> Vec<ParsedCall> {
    let (Some(start), Some(end)) = (block.find('['), block.rfind(']')) else {
        return Vec::new();
    };
    let listed: Option<Vec<serde_json::Map<String, Value>>> = block
        .get(start..=end)
        .and_then(|list| serde_json::from_str(list).ok());
    let members = listed.into_iter().flatten().flatten();
    let objects = members.filter(|(_, arguments)| arguments.is_object());
    let calls = objects.map(|(name, arguments)| ParsedCall {
        name,
        arguments: arguments.to_string(),
        id: None,
    });
    calls.collect()
}

/// `call:NAME{KEY:VALUE}`, with the quotation marks and the marks of Gemma 4, or those of FunctionGemma.
pub(super) fn gemma(block: &str, tools: &[Tool]) -> Vec<ParsedCall> {
    let block = block
        .replace("<start_function_call>", "<|tool_call>")
        .replace("<end_function_call>", "<tool_call|>")
        .replace("<escape>", "<|\"|>");
    calls(Gemma4Parser::default(), &block, tools)
}
