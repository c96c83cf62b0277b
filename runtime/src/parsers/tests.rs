//! The pieces of each format, which do not depend on how the text is split into chunks.

use std::sync::Arc;

use openai_protocol::common::Tool;
use proptest::prelude::*;
use serde_json::json;

use super::*;

fn tools() -> Arc<[Tool]> {
    let tool = |name: &str| {
        json!({"type": "function", "function": {"name": name, "parameters": {"type": "object", "properties": {
            "city": {"type": "string"}, "days": {"type": "integer"}, "tags": {"type": "array"}
        }}}})
    };
    serde_json::from_value(json!([tool("get_weather"), tool("search")])).unwrap()
}

fn formats(calls: &str, reasoning: &str, template: &str) -> Formats {
    let names = FormatNames {
        calls: calls.into(),
        reasoning: reasoning.into(),
        reads_chosen_calls: true,
    };
    let template = Template {
        source: template,
        render: &|_, _| None,
    };
    names.formats(Some(&template)).unwrap()
}

fn chosen(name: &str) -> ParserPlan {
    let format = formats(name, "none", "").calls.unwrap();
    ParserPlan {
        calls: Some(Calls::Chosen {
            format,
            tools: tools(),
        }),
        ids: format.ids,
        ..ParserPlan::default()
    }
}

fn thinking(name: &str, prompt: &str) -> ParserPlan {
    let format = formats("none", name, "").reasoning.unwrap();
    let begins = format.begins(prompt);
    ParserPlan {
        reasoning: Some(Reasoning { format, begins }),
        ..ParserPlan::default()
    }
}

/// Pieces as one text: `[r]` reasoning, `[c]` content, `[index name]` a call and its arguments.
fn shown(pieces: &[Piece]) -> String {
    let mut shown = String::new();
    let mut last = "";
    for piece in pieces {
        let (kind, text) = match piece {
            Piece::Reasoning(text) => ("[r]", text),
            Piece::Content(text) => ("[c]", text),
            Piece::Call { index, name, .. } => {
                shown.push_str(&format!("[{index} {name}]"));
                last = "";
                continue;
            }
            Piece::Arguments { text, .. } => ("", text),
        };
        if kind != last {
            shown.push_str(kind);
        }
        last = kind;
        shown.push_str(text);
    }
    shown
}

fn parsed(plan: &ParserPlan, parts: &[&str]) -> String {
    let mut parser = OutputParser::new(plan);
    let mut pieces: Vec<Piece> = parts
        .iter()
        .flat_map(|part| parser.push((*part).to_string()))
        .collect();
    pieces.extend(parser.finish());
    shown(&pieces)
}

const CASES: &[(&str, &str, &str)] = &[
    (
        "hermes",
        "Sure.\n<tool_call>\n{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Os}lo\", \"days\": 2}}\n</tool_call>",
        "[c]Sure.[0 get_weather]{\"city\": \"Os}lo\", \"days\": 2}",
    ),
    (
        "hermes",
        "<tool_call>\n{\"arguments\": {\"q\": [1, {\"a\": \"\\\"\"}]}, \"name\": \"search\"}\n</tool_call>\n<tool_call>\n{\"name\": \"search\", \"arguments\": {}}\n</tool_call> Done. ",
        "[0 search]{\"q\": [1, {\"a\": \"\\\"\"}]}[1 search]{}[c]Done. ",
    ),
    ("hermes", "a < b <tool", "[c]a < b <tool"),
    (
        "hermes",
        "<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call>",
        "[c]<tool_call>\n{\"name\": \"nope\", \"arguments\": {}}\n</tool_call>",
    ),
    (
        "hermes",
        "<tool_call>hm</tool_call>",
        "[c]<tool_call>hm</tool_call>",
    ),
    ("hermes", "<tool_call></tool_call>", "[c]<tool_call></tool_call>"),
    (
        "hermes",
        "<tool_call>{\"name\": <tool_call>{\"name\": \"search\"}</tool_call>",
        "[c]<tool_call>{\"name\":[0 search]{}",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"search\", \"arguments\": {\"q\": 1}\n</tool_call>!",
        "[0 search]{\"q\": 1}[c]!",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"search\", \"arguments\": \"{\\\"q\\\": 1}\"}</tool_call>",
        "[0 search]{\"q\": 1}",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"get_weather\", \"arguments\": {\"city\": \"Os",
        "[0 get_weather]{\"city\": \"Os",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"get_weath",
        "[c]<tool_call>{\"name\": \"get_weath",
    ),
    (
        "llama3_json",
        "<|python_tag|>{\"name\": \"search\", \"parameters\": {\"q\": \"x\"}}; {\"name\": \"search\", \"parameters\": {}}",
        "[0 search]{\"q\": \"x\"}[1 search]{}",
    ),
    (
        "llama3_json",
        "\n{\"name\": \"search\", \"parameters\": {}}",
        "[0 search]{}",
    ),
    ("llama3_json", "{\"a\": 1}", "[c]{\"a\": 1}"),
    (
        "llama3_json",
        "Use {\"name\": \"search\"}",
        "[c]Use {\"name\": \"search\"}",
    ),
    (
        "mistral",
        "[TOOL_CALLS] [{\"name\": \"search\", \"arguments\": {\"q\": 1}}, {\"name\": \"get_weather\", \"arguments\": {}}]",
        "[0 search]{\"q\": 1}[1 get_weather]{}",
    ),
    (
        "mistral",
        "Hi[TOOL_CALLS]search[ARGS]{\"q\": 1}[TOOL_CALLS]get_weather{\"city\": \"x\"}",
        "[c]Hi[0 search]{\"q\": 1}[1 get_weather]{\"city\": \"x\"}",
    ),
    (
        "mistral",
        "[TOOL_CALLS]search[CALL_ID]abc[ARGS]{}",
        "[0 search]{}",
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_weather>\n<parameter=city>\n7\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        "[0 get_weather]{\"city\":\"7\",\"days\":2}",
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=get_w",
        "[c]<tool_call>\n<function=get_w",
    ),
    (
        "glm45",
        "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Oslo</arg_value>\n</tool_call>",
        "[0 get_weather]{\"city\":\"Oslo\"}",
    ),
    (
        "deepseek_v3",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>search\n```json\n{\"q\": \"x\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "[0 search]{\"q\":\"x\"}",
    ),
    (
        "deepseek_v31",
        "Hm<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>search<｜tool▁sep｜>{\"q\": \"x\"}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "[c]Hm[0 search]{\"q\":\"x\"}",
    ),
    (
        "kimi_k2",
        "<|tool_calls_section_begin|><|tool_call_begin|>functions.search:0<|tool_call_argument_begin|>{\"q\": 1}<|tool_call_end|><|tool_calls_section_end|>",
        "[0 search]{\"q\": 1}",
    ),
    (
        "minimax_m2",
        "<minimax:tool_call>\n<invoke name=\"search\">\n<parameter name=\"city\">x</parameter>\n</invoke>\n</minimax:tool_call>",
        "[0 search]{\"city\":\"x\"}",
    ),
    (
        "deepseek_v32",
        "<｜DSML｜function_calls>\n<｜DSML｜invoke name=\"search\">\n<｜DSML｜parameter name=\"city\" string=\"true\">x</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜function_calls>",
        "[0 search]{\"city\":\"x\"}",
    ),
    (
        "step3",
        "<｜tool_calls_begin｜><｜tool_call_begin｜>function<｜tool_sep｜><steptml:invoke name=\"search\"><steptml:parameter name=\"city\">x</steptml:parameter></steptml:invoke><｜tool_call_end｜><｜tool_calls_end｜>",
        "[0 search]{\"city\":\"x\"}",
    ),
    (
        "pythonic",
        "[get_weather(city='Oslo', days=2), search(tags=['a', True])]",
        "[0 get_weather]{\"city\":\"Oslo\",\"days\":2}[1 search]{\"tags\":[\"a\",true]}",
    ),
    ("pythonic", "[1, 2] are numbers", "[c][1, 2] are numbers"),
    (
        "cohere",
        "<|START_ACTION|>[\n{\"tool_call_id\": \"0\", \"tool_name\": \"search\", \"parameters\": {\"q\": 1}}\n]<|END_ACTION|>",
        "[0 search]{\"q\": 1}",
    ),
    (
        "phi4_mini_json",
        "functools[{\"name\": \"search\", \"arguments\": {}}]",
        "[0 search]{}",
    ),
    (
        "granite",
        "<|tool_call|>[{\"name\": \"search\", \"arguments\": {}}]",
        "[0 search]{}",
    ),
    (
        "jamba",
        "<tool_calls>[{\"name\": \"search\", \"arguments\": {}}]</tool_calls>",
        "[0 search]{}",
    ),
    (
        "internlm",
        "<|action_start|><|plugin|>\n{\"name\": \"search\", \"parameters\": {}}<|action_end|>",
        "[0 search]{}",
    ),
    (
        "json",
        "[{\"name\": \"search\", \"arguments\": {}}] ok",
        "[0 search]{}[c]ok",
    ),
    (
        "openai",
        "<|channel|>analysis<|message|>I a < b<|end|><|start|>assistant<|channel|>commentary<|message|>One moment.<|end|><|start|>assistant<|channel|>commentary to=functions.search <|constrain|>json<|message|>{\"q\": 1}<|call|>",
        "[r]I a < b[c]One moment.[0 search]{\"q\": 1}",
    ),
    (
        "openai",
        " to=functions.get_weather<|channel|>commentary json<|message|>{}<|call|><|start|>assistant to=functions.search<|channel|>commentary<|message|>{\"q",
        "[0 get_weather]{}[1 search]{\"q",
    ),
    (
        "openai",
        "<|channel|>commentary to=functions.nope <|message|>{}<|end|><|start|>assistant<|channel|>final<|message|>Hi <|end",
        "[c]{}Hi <|end",
    ),
    (
        "hermes",
        "<tool_call>{\"name\": \"search\", \"arguments\": {\"q\": \"a\nb\tc\"}}</tool_call>",
        "[0 search]{\"q\": \"a\\nb\\tc\"}",
    ),
    (
        "hermes",
        "<tool_call>{\"arguments\": {\"q\": \"a\nb\"}, \"name\": \"search\"}</tool_call>",
        "[0 search]{\"q\": \"a\\nb\"}",
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=search>\n<parameter=tags>\n['a', 2,]\n</parameter>\n<parameter=city>\n  if a:\n    [b]\n</parameter>\n</function>\n</tool_call>",
        "[0 search]{\"tags\":[\"a\",2],\"city\":\"  if a:\\n    [b]\"}",
    ),
    (
        "qwen3_coder",
        "<tool_call>\n<function=search>\n<parameter=city>\na\n<parameter=days>\n2\n</function>\n<function=search>\n</function>\n</tool_call>",
        "[0 search]{\"city\":\"a\",\"days\":2}[1 search]{}",
    ),
    (
        "glm45",
        "<tool_call>search\n<arg_key>tags</arg_key>\n<arg_value>['a', {'b': None}]</arg_value>\n</tool_call>",
        "[0 search]{\"tags\":[\"a\",{\"b\":null}]}",
    ),
    (
        "seed_oss",
        "Hm.<seed:tool_call>\n<function=search>\n<parameter=city>x</parameter>\n</function>\n</seed:tool_call>",
        "[c]Hm.[0 search]{\"city\":\"x\"}",
    ),
    (
        "functionary_v31",
        "<function=search>{\"q\": 1}</function><function=get_weather>{}</function>",
        "[0 search]{\"q\": 1}[1 get_weather]{}",
    ),
    (
        "functionary_v32",
        "all\nHm > 1\n>>>search\n{\"q\": 1}>>>get_weather\n{}",
        "[c]Hm > 1[0 search]{\"q\": 1}[1 get_weather]{}",
    ),
    (
        "functionary_v32",
        "Just a text\nand more",
        "[c]Just a text\nand more",
    ),
    (
        "gemma4",
        "<|tool_call>call:search{city:<|\"|>a}, b<|\"|>,days:2,tags:[<|\"|>c<|\"|>]}<tool_call|>",
        "[0 search]{\"city\": \"a}, b\", \"days\": 2, \"tags\": [\"c\"]}",
    ),
    (
        "functiongemma",
        "<start_function_call>call:search{city:<escape>x<escape>}<end_function_call>",
        "[0 search]{\"city\": \"x\"}",
    ),
    (
        "apertus",
        "<|tools_prefix|>[{\"search\": {\"q\": 1}}, {\"get_weather\": {}}]<|tools_suffix|>",
        "[0 search]{\"q\":1}[1 get_weather]{}",
    ),
    (
        "deepseek_v4",
        "<｜DSML｜tool_calls>\n<｜DSML｜invoke name=\"search\">\n<｜DSML｜parameter name=\"city\" string=\"true\">x</｜DSML｜parameter>\n</｜DSML｜invoke>\n</｜DSML｜tool_calls>",
        "[0 search]{\"city\":\"x\"}",
    ),
    (
        "command_r",
        "Action: ```json\n[\n  {\"tool_name\": \"search\", \"parameters\": {\"q\": 1}}\n]```",
        "[0 search]{\"q\": 1}",
    ),
    (
        "gigachat3",
        "Hm<|message_sep|>\n\nfunction call<|role_sep|>\n{\"name\": \"search\", \"arguments\": {}}",
        "[c]Hm[0 search]{}",
    ),
    (
        "gigachat3",
        "<|function_call|>{\"name\": \"search\", \"arguments\": {}}",
        "[0 search]{}",
    ),
    (
        "granite-20b-fc",
        "<function_call> {\"name\": \"search\", \"arguments\": {}}",
        "[0 search]{}",
    ),
    (
        "nemotron",
        "<TOOLCALL>[{\"name\": \"search\", \"arguments\": {}}]</TOOLCALL>",
        "[0 search]{}",
    ),
    (
        "longcat",
        "<longcat_tool_call>{\"name\": \"search\", \"arguments\": {}}</longcat_tool_call>",
        "[0 search]{}",
    ),
    (
        "lfm2",
        "<|tool_call_start|>[search(city='x'), get_weather()]<|tool_call_end|>Wait.",
        "[0 search]{\"city\":\"x\"}[1 get_weather]{}[c]Wait.",
    ),
    (
        "olmo3",
        "<function_calls>\nsearch(city=\"x\")\nget_weather()\n</function_calls>",
        "[0 search]{\"city\":\"x\"}[1 get_weather]{}",
    ),
    ("openai", "to be <|or", "[c]to be <|or"),
    ("openai", "<|channel|>final", ""),
];

#[test]
fn every_format_is_parsed() {
    for (name, text, expected) in CASES {
        assert_eq!(&parsed(&chosen(name), &[text]), expected, "{name}: {text}");
    }
    for format in super::formats::tool_formats() {
        let is_tested = CASES.iter().any(|(name, ..)| format.names.contains(name));
        assert!(is_tested || format.names[0] == "glm47", "{:?}", format.names);
    }
}

#[test]
fn reasoning_precedes_the_answer() {
    let cases = [
        ("qwen3", "user", "<think>\nhm\n</think>\n\nHi\n", "[r]hm[c]Hi\n"),
        ("qwen3", "user", "Hi <think>no</think>", "[c]Hi <think>no</think>"),
        (
            "qwen3",
            "assistant\n<think>\n",
            "hm</think>Hi</think>",
            "[r]hm[c]Hi</think>",
        ),
        ("qwen3", "<think>\n\n</think>\n\n", "Hi", "[c]Hi"),
        ("qwen3", "user", "<think>cut o", "[r]cut o"),
        ("deepseek_r1", "user", "hm</think>Hi", "[r]hm[c]Hi"),
        (
            "deepseek_r1",
            "user",
            "<think>a < b</thin k</think>",
            "[r]a < b</thin k",
        ),
        ("deepseek_r1", "user", "only this", "[r]only this"),
        ("mistral", "user", "[THINK]a[/THINK]b", "[r]a[c]b"),
        (
            "granite",
            "user",
            "Here is my thought process: a Here is my response: b",
            "[r]a[c]b",
        ),
        ("seed_oss", "user", "<seed:think>a</seed:think>b", "[r]a[c]b"),
        (
            "openai_gptoss",
            "<|start|>assistant",
            "<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>analysis<|message|>b<|channel|>final<|message|>c <",
            "[r]ab[c]c <",
        ),
    ];
    for (name, prompt, text, expected) in cases {
        assert_eq!(
            parsed(&thinking(name, prompt), &[text]),
            expected,
            "{name}: {text}"
        );
        let chars: Vec<String> = text.chars().map(String::from).collect();
        let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
        assert_eq!(
            parsed(&thinking(name, prompt), &chars),
            expected,
            "{name}: {text}"
        );
    }
}

#[test]
fn a_call_may_end_reasoning_that_is_open() {
    let plan = ParserPlan {
        reasoning: thinking("qwen3", "<think>").reasoning,
        ..chosen("hermes")
    };
    let call = "<tool_call>{\"name\": \"search\", \"arguments\": {\"q\": 1}}</tool_call>";
    let other = "<tool_call>{\"name\": \"nope\"}</tool_call>";
    for (text, expected) in [
        (format!("hm\n{call}\n"), "[r]hm[0 search]{\"q\": 1}".to_owned()),
        (
            format!("hm\n{call}\n{call}"),
            "[r]hm[0 search]{\"q\": 1}[1 search]{\"q\": 1}".to_owned(),
        ),
        // A mention, an unknown tool and a call that is not complete are reasoning.
        (format!("hm {call} or so"), format!("[r]hm {call} or so")),
        (format!("hm {call}</think>Hi"), format!("[r]hm {call}[c]Hi")),
        (
            format!("<tool_call> opens a call</think>{call}"),
            "[r]<tool_call> opens a call[0 search]{\"q\": 1}".to_owned(),
        ),
        (format!("hm {other}"), format!("[r]hm {other}")),
        (format!("hm {}", &call[..29]), format!("[r]hm {}", &call[..29])),
    ] {
        assert_eq!(parsed(&plan, &[&text]), expected, "{text}");
        let chars: Vec<String> = text.chars().map(String::from).collect();
        let chars: Vec<&str> = chars.iter().map(String::as_str).collect();
        assert_eq!(parsed(&plan, &chars), expected, "{text}");
    }
}

#[test]
fn ids_are_those_that_the_template_accepts() {
    let ids = |plan: &ParserPlan, text: &str| {
        let mut parser = OutputParser::new(plan);
        let mut parts = Parts::default();
        parts.extend(parser.push(text.to_owned()));
        parts.extend(parser.finish());
        parts.calls.into_iter().map(|call| call.id).collect::<Vec<_>>()
    };
    let call = |id: &str| format!("<|tool_call_begin|>{id}<|tool_call_argument_begin|>{{}}<|tool_call_end|>");
    let section = |calls: &str| format!("<|tool_calls_section_begin|>{calls}<|tool_calls_section_end|>");
    let two = call("functions.search:3") + &call("functions.get_weather:4");
    let kimi = chosen("kimi_k2");
    assert_eq!(
        ids(&kimi, &section(&two)),
        ["functions.search:3", "functions.get_weather:4"]
    );
    let same = section(&(call("functions.search:0") + &call("functions.search:0")));
    assert_eq!(ids(&kimi, &same), ["functions.search:0", "functions.search:1"]);
    let listed =
        "[{\"name\": \"search\", \"parameters\": {}}, {\"name\": \"get_weather\", \"parameters\": {}}]";
    let required = ParserPlan {
        calls: Some(Calls::Listed { tools: tools() }),
        n_calls_before: 2,
        ..kimi
    };
    assert_eq!(
        ids(&required, listed),
        ["functions.search:2", "functions.get_weather:3"]
    );
    let mistral = chosen("mistral");
    let given = "[TOOL_CALLS]search[CALL_ID]a1b2c3d4e[ARGS]{}[TOOL_CALLS]search[CALL_ID]x[ARGS]{}";
    let given = ids(&mistral, given);
    assert_eq!((given[0].as_str(), given[1].len()), ("a1b2c3d4e", 9));
    let required = ParserPlan {
        calls: Some(Calls::Listed { tools: tools() }),
        ..mistral
    };
    assert!(ids(&required, listed).iter().all(|id| id.len() == 9));
}

/// Writes a call with a name, a key and a value.
type WriteCall = fn(&str, &str, &str) -> String;

/// What a template writes of messages with a text, and with a call of the tool.
fn rendered(write: WriteCall) -> impl Fn(Vec<serde_json::Value>, serde_json::Value) -> Option<String> {
    move |messages, tools| {
        let last = messages.last()?;
        let function = &last["tool_calls"][0]["function"];
        let answer = match function["arguments"].as_object() {
            Some(arguments) => {
                let (key, value) = arguments.iter().next()?;
                write(function["name"].as_str()?, key, value.as_str()?)
            }
            None => last["content"].as_str()?.to_owned(),
        };
        Some(format!(
            "{tools}<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
        ))
    }
}

#[test]
fn a_template_that_writes_a_call_shows_its_format() {
    let cases: &[(WriteCall, Option<&str>)] = &[
        (
            |name, key, value| {
                format!(
                    "<tool_call>\n{{\"name\": \"{name}\", \"arguments\": {{\"{key}\": \"{value}\"}}}}\n</tool_call>"
                )
            },
            Some("hermes"),
        ),
        (
            |name, key, value| {
                format!("<|tool_call|>[{{\"name\": \"{name}\", \"arguments\": {{\"{key}\": \"{value}\"}}}}]")
            },
            Some("granite"),
        ),
        (
            |name, key, value| {
                format!(
                    "<tool_call>\n<function={name}>\n<parameter={key}>\n{value}\n</parameter>\n</function>\n</tool_call>"
                )
            },
            Some("qwen3_coder"),
        ),
        (
            |name, key, value| {
                format!(
                    "<seed:tool_call>\n<function={name}>\n<parameter={key}>{value}</parameter>\n</function>\n</seed:tool_call>"
                )
            },
            Some("seed_oss"),
        ),
        (
            |name, key, value| {
                format!(
                    "<tool_call>{name}\n<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n</tool_call>"
                )
            },
            Some("glm45"),
        ),
        (
            |name, key, value| {
                format!("<tool_call>{name}<arg_key>{key}</arg_key><arg_value>{value}</arg_value></tool_call>")
            },
            Some("glm47"),
        ),
        (
            |name, key, value| format!("<function={name}>{{\"{key}\": \"{value}\"}}</function>"),
            Some("functionary_v31"),
        ),
        (
            |name, key, value| format!("[{name}({key}=\"{value}\")]"),
            Some("pythonic"),
        ),
        (
            |name, key, value| format!("{name}\n{{\"{key}\": \"{value}\"}}"),
            Some("functionary_v32"),
        ),
        (
            |name, key, value| {
                format!("[{{\"name\": \"{name}\", \"arguments\": {{\"{key}\": \"{value}\"}}}}]")
            },
            Some("xlam"),
        ),
        (
            |name, key, value| {
                format!("{{\"name\": \"{name}\", \"parameters\": {{\"{key}\": \"{value}\"}}}}")
            },
            Some("llama3_json"),
        ),
        (
            |name, key, value| {
                format!(
                    "<think>\n</think>\n<|START_ACTION|>[{{\"tool_name\": \"{name}\", \"parameters\": {{\"{key}\": \"{value}\"}}}}]<|END_ACTION|>"
                )
            },
            Some("cohere"),
        ),
        (|name, key, value| format!("<call {name} {key}={value}>"), None),
    ];
    for (write, expected) in cases {
        let render = rendered(*write);
        // Its words are those of another format.
        let template = Template {
            source: "<tool_call>",
            render: &render,
        };
        let names = FormatNames {
            calls: "auto".into(),
            reasoning: "none".into(),
            reads_chosen_calls: true,
        };
        let calls = names.formats(Some(&template)).unwrap().calls;
        assert_eq!(
            calls.map(|format| format.names[0]),
            *expected,
            "{}",
            write("f", "k", "v")
        );
    }
}

#[test]
fn instructions_count_where_calls_have_no_marks() {
    let json = rendered(|name, key, value| {
        format!("\n{{\"name\": \"{name}\", \"arguments\": {{\"{key}\": \"{value}\"}}}}")
    });
    let asks = |instructions: &str| {
        let render = |messages: Vec<serde_json::Value>, tools: serde_json::Value| {
            Some(format!("{instructions}\n{}", json(messages, tools)?))
        };
        let template = Template {
            source: "functools[",
            render: &render,
        };
        let names = FormatNames {
            calls: "auto".into(),
            reasoning: "none".into(),
            reads_chosen_calls: true,
        };
        let calls = names.formats(Some(&template)).unwrap().calls;
        calls.map(|format| format.names[0])
    };
    assert_eq!(
        asks("Call tools with functools[{\"name\": …}]."),
        Some("phi4_mini_json")
    );
    assert_eq!(asks("Call tools."), Some("llama3_json"));
}

#[test]
fn forced_calls_follow_reasoning() {
    let think = thinking("qwen3", "<think>");
    let named = Calls::Named {
        name: "search".into(),
    };
    let named = ParserPlan {
        calls: Some(named),
        ..think.clone()
    };
    assert_eq!(
        parsed(&named, &["a</thi", "nk>\n\n{\"q\":", " 1}"]),
        "[r]a[0 search]{\"q\": 1}"
    );
    let listed = ParserPlan {
        calls: Some(Calls::Listed { tools: tools() }),
        ..think
    };
    let two =
        "a</think>[{\"name\":\"search\",\"parameters\":{\"q\":1}},{\"name\":\"search\",\"parameters\":{}}]";
    assert_eq!(parsed(&listed, &[two]), "[r]a[0 search]{\"q\":1}[1 search]{}");
    let single = ParserPlan {
        single_call: true,
        ..listed
    };
    assert_eq!(parsed(&single, &[two]), "[r]a[0 search]{\"q\":1}");
}

#[test]
fn an_empty_plan_changes_nothing() {
    assert_eq!(
        parsed(&ParserPlan::default(), &[" <think>", "\n", ""]),
        "[c] <think>\n"
    );
}

#[test]
fn a_template_determines_its_formats() {
    let calls = |template: &str| {
        formats("auto", "auto", template)
            .calls
            .map(|format| format.names[0])
    };
    assert_eq!(calls("<tool_call>\\n{\"name\": <function-name>"), Some("hermes"));
    assert_eq!(
        calls("<tool_call>\\n<function=x>\\n<parameter=y>"),
        Some("qwen3_coder")
    );
    assert_eq!(calls("[TOOL_CALLS]"), Some("mistral"));
    assert_eq!(
        calls("<|start|>assistant<|channel|>final<|message|>"),
        Some("openai")
    );
    assert_eq!(calls("{{ message['content'] }}"), None);
    let reasoning = |template: &str| {
        formats("auto", "auto", template)
            .reasoning
            .map(|format| format.names[0])
    };
    assert_eq!(reasoning("content.split('</think>')"), Some("qwen3"));
    assert_eq!(reasoning("{{ content }}"), None);
    assert!(formats("none", "none", "<tool_call></think>").calls.is_none());
    let names = |calls: &str, reads_chosen_calls| FormatNames {
        calls: calls.into(),
        reasoning: "auto".into(),
        reads_chosen_calls,
    };
    assert!(names("hermes", false).formats(None).unwrap().calls.is_none());
    let error = names("herms", true).formats(None).unwrap_err().to_string();
    assert!(error.contains("'herms'") && error.contains("hermes"), "{error}");
}

/// The chunks of `text` between these places.
fn cut<'a>(text: &'a str, places: &[prop::sample::Index]) -> Vec<&'a str> {
    let mut at: Vec<usize> = places
        .iter()
        .map(|place| place.index(text.len() + 1))
        .filter(|at| text.is_char_boundary(*at))
        .chain([0, text.len()])
        .collect();
    at.sort_unstable();
    at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect()
}

const FRAGMENTS: &[&str] = &[
    "<tool_call>",
    "</tool_call>",
    "{",
    "}",
    "[",
    "]",
    "\"name\"",
    ":",
    "\"search\"",
    "\"arguments\"",
    ",",
    " ",
    "\n",
    "{\"q\": \"<\"}",
    "<think>",
    "</think>",
    "[TOOL_CALLS]",
    "search",
    "[ARGS]",
    "<|python_tag|>",
    "é",
    "<",
    "\\\"",
    "<function=search>",
    "</function>",
    "{\"name\": \"search\", \"arguments\": {\"q\": 1}}",
    "</",
    "null",
    ";",
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "search(city='a')",
    "<arg_key>",
    "</arg_value>",
    "<parameter=city>",
    "<|channel|>",
    "analysis",
    "<|message|>",
    "<|start|>",
    " to=functions.search",
    "<|call|>",
];

proptest! {
    #[test]
    fn chunks_do_not_matter(
        case in prop::sample::select(CASES),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let (name, text, expected) = case;
        prop_assert_eq!(&parsed(&chosen(name), &cut(text, &places)), expected);
    }

    #[test]
    fn any_text_is_parsed_equally_in_any_chunks_and_is_not_lost(
        format in prop::sample::select(super::formats::tool_formats()),
        thinks in any::<bool>(),
        fragments in prop::collection::vec(prop::sample::select(FRAGMENTS), 0..16),
        places in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let text = fragments.concat();
        let plan = ParserPlan {
            reasoning: thinks.then(|| thinking("qwen3", "").reasoning).flatten(),
            ..chosen(format.names[0])
        };
        let unsplit = parsed(&plan, &[&text]);
        prop_assert_eq!(&parsed(&plan, &cut(&text, &places)), &unsplit);
        // Headers of messages are dropped.
        if !thinks && !unsplit.contains("[0 ") && !format.has_messages() {
            prop_assert_eq!(unsplit.strip_prefix("[c]").unwrap_or(&unsplit), &text);
        }
    }
}
