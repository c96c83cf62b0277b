//! Templates of the dialect, and what they make of conversations.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::*;

fn conversation(messages: Json, ending: Ending) -> Conversation {
    Conversation {
        messages: messages.as_array().unwrap().clone(),
        ending,
        variables: json!({"enable_thinking": false}).as_object().unwrap().clone(),
    }
}

fn render_with(source: &str, conversation: &Conversation) -> Result<String, String> {
    let tokens = BTreeMap::from([
        ("bos_token", "<s>".to_string()),
        ("eos_token", "</s>".to_string()),
    ]);
    let template = ChatTemplate::compile(source, tokens).map_err(|error| error.to_string())?;
    template.render(conversation).map_err(|error| error.to_string())
}

fn check(source: &str, expected: &str) {
    let hi = conversation(
        json!([{"role": "user", "content": " hi "}]),
        Ending::GenerationPrompt,
    );
    assert_eq!(render_with(source, &hi).as_deref(), Ok(expected), "{source}");
}

fn refusal(source: &str) -> String {
    let hi = conversation(
        json!([{"role": "user", "content": "hi"}]),
        Ending::GenerationPrompt,
    );
    render_with(source, &hi).unwrap_err()
}

const CHATML: &str = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

#[test]
fn developers_become_the_system_if_the_template_does_not_know_them() {
    let messages = json!([{"role": "developer", "content": "a"}]);
    let of = |source: &str| render_with(source, &conversation(messages.clone(), Ending::Messages)).unwrap();
    assert_eq!(of("{{ messages[0].role }}"), "system");
    assert_eq!(of("{{ messages[0].role }}{# developer #}"), "developer");
}

#[test]
fn chatml_has_the_requested_ending() {
    let messages = json!([{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Well, "}]);
    let render = |ending| render_with(CHATML, &conversation(messages.clone(), ending)).unwrap();
    let both = "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell, <|im_end|>\n";
    assert_eq!(render(Ending::Messages), both);
    assert_eq!(
        render(Ending::GenerationPrompt),
        format!("{both}<|im_start|>assistant\n")
    );
    assert_eq!(
        render(Ending::OpenMessage),
        "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\nWell, "
    );
}

#[test]
fn an_open_message_ends_behind_its_content_wherever_the_text_occurs() {
    let of = |source: &str, content: Json| {
        let messages = json!([{"role": "user", "content": "a"}, {"role": "assistant", "content": content}]);
        render_with(source, &conversation(messages, Ending::OpenMessage))
    };
    let before = "<|im_start|>user\na<|im_end|>\n<|im_start|>assistant\n";
    for content in [
        "<",
        "im",
        "|",
        "e",
        "\n",
        " a",
        "a ",
        "a",
        "",
        " ",
        "END_OF_OPEN_MESSAGE_0_ ",
    ] {
        assert_eq!(of(CHATML, json!(content)), Ok(format!("{before}{content}")));
    }
    let parts = json!([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}, {"type": "image"}]);
    let walks = "{% for m in messages %}[{% for p in m.content %}{{ p.text }}{% endfor %}]{% endfor %}";
    assert_eq!(of(walks, parts.clone()).as_deref(), Ok("[a][ab"));
    assert_eq!(of(CHATML, parts), Ok(format!("{before}a\nb")));
    // A template that trims contents trims the end of this one, and what it writes again behind it is gone.
    let trims =
        "{% for m in messages %}[{{ m.content | trim }}]{% endfor %}(end of {{ messages | length }}, a)";
    assert_eq!(of(trims, json!(" a \n")).as_deref(), Ok("[a][a"));
    assert!(
        of("{{ messages[0].content }}", json!("b"))
            .unwrap_err()
            .contains("continue_final_message")
    );
}

#[test]
fn contents_stay_as_they_were_sent_where_the_template_reads_both() {
    let both = "{% for m in messages %}{% if m.content is string %}{{ m.content | trim }}{% else %}\
                {% for p in m.content %}{{ p.text }}{% endfor %}{% endif %};{% endfor %}";
    let messages = json!([
        {"role": "user", "content": [{"type": "text", "text": " One."}, {"type": "text", "text": "Two. "}]},
        {"role": "user", "content": " three "},
    ]);
    let messages = conversation(messages, Ending::Messages);
    assert_eq!(render_with(both, &messages).as_deref(), Ok(" One.Two. ;three;"));
    // A template that refuses a text is given its part.
    let strict = both.replace(
        "{{ m.content | trim }}",
        "{{ raise_exception('empty') if not m.content else m.content }}",
    );
    let empty = conversation(json!([{"role": "user", "content": ""}]), Ending::Messages);
    assert_eq!(render_with(&strict, &empty).as_deref(), Ok(";"));
}

#[test]
fn tools_choose_the_template_tool_use() {
    let named = [
        ("tool_use".to_owned(), "T{{ tools | length }}".to_owned()),
        ("rag".to_owned(), "R".to_owned()),
    ];
    let config = TokenizerConfig {
        chat_template: Some("D".into()),
        named_chat_templates: named.into(),
        ..TokenizerConfig::default()
    };
    let template = ChatTemplate::choose(None, &config).unwrap().unwrap();
    let mut hi = conversation(json!([]), Ending::Messages);
    assert_eq!(template.render(&hi).unwrap(), "D");
    hi.variables.insert("tools".into(), json!([{"type": "function"}]));
    assert_eq!(template.render(&hi).unwrap(), "T1");
    assert_eq!(template.named("rag").unwrap().render(&hi).unwrap(), "R");
    assert!(template.named("other").is_none());
    let custom = ChatTemplate::choose(Some("C"), &config).unwrap().unwrap();
    assert_eq!(custom.render(&hi).unwrap(), "C");
}

#[test]
fn the_dialect_of_the_hub() {
    check(
        "{{ bos_token }}{{ messages[0]['content'] | trim | upper }}",
        "<s>HI",
    );
    check("{{ {'b': 1, 'a': '<é>'} | tojson }}", r#"{"b": 1, "a": "<é>"}"#);
    check(
        "{{ [1, {'a': []}] | tojson(indent=2) }}",
        "[\n  1,\n  {\n    \"a\": []\n  }\n]",
    );
    check(
        "{% set x = 'a,b'.split(',') %}{{ x[-1] }}{{ 'abc'[::-1] }}",
        "bcba",
    );
    check(
        "{{ 'a-b'.removeprefix('a-') }}{{ 'c.x'.removesuffix('.x') }}{{ ' d '.strip() }}",
        "bcd",
    );
    check(
        "{% for i in range(3) %}{% if i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
        "02",
    );
    check(
        "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
        "1",
    );
    check(
        "{%- macro m(a, b=2) -%}{{ a }}{{ b }}{%- endmacro -%}{{ m(1) }}",
        "12",
    );
    check("{{ messages | map(attribute='role') | join(',') }}", "user");
    check(
        "{{ True }} {{ None }} {{ enable_thinking is false }} {{ x is defined }}",
        "True None True False",
    );
    check(
        "{{ messages | selectattr('role', 'equalto', 'user') | list | length }}",
        "1",
    );
    check(
        "{%- if tools %}t{% endif -%} {{ tools is none }} {{ documents is none }} {{ nothing is defined }}",
        "True True False",
    );
    check("  {% if true %}\n  a\n  {% endif %}\n", "  a\n");
    check("a {%- generation -%} b {% endgeneration %} c", "ab  c");
}

#[test]
fn a_custom_template_wins_over_the_checkpoints() {
    let config = TokenizerConfig {
        chat_template: Some("its {{ eos_token }}".into()),
        eos_token: Some("</s>".into()),
        ..TokenizerConfig::default()
    };
    let hi = conversation(json!([]), Ending::Messages);
    let render = |custom| {
        ChatTemplate::choose(custom, &config)
            .unwrap()
            .unwrap()
            .render(&hi)
            .unwrap()
    };
    assert_eq!(render(None), "its </s>");
    assert_eq!(render(Some("mine")), "mine");
    assert!(
        ChatTemplate::choose(None, &TokenizerConfig::default())
            .unwrap()
            .is_none()
    );
}

#[test]
fn a_template_can_read_the_clock() {
    let hi = conversation(json!([]), Ending::Messages);
    let year: i32 = render_with("{{ strftime_now('%Y') }}", &hi)
        .unwrap()
        .parse()
        .unwrap();
    assert!(year >= 2025);
    assert!(refusal("{{ strftime_now('%') }}").contains("strftime_now"));
}

#[test]
fn an_exception_of_a_template_is_the_error() {
    assert_eq!(
        refusal("{{ raise_exception('roles must alternate') }}"),
        "roles must alternate"
    );
    assert!(refusal("{{ messages.nothing.at_all }}").contains("'list object' has no attribute 'nothing'"));
}

#[test]
fn a_template_that_does_not_compile_is_named_with_its_line() {
    let error = ChatTemplate::compile("a\n{% if %}", BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("line 2"), "{error}");
}

#[test]
fn variables_of_a_client_replace_tokens_and_not_the_messages() {
    let mut hi = conversation(json!([{"role": "user", "content": "hi"}]), Ending::Messages);
    hi.variables.insert("messages".into(), json!([]));
    hi.variables.insert("bos_token".into(), json!("own"));
    assert_eq!(
        render_with("{{ messages | length }}{{ bos_token }}", &hi).unwrap(),
        "1own"
    );
}
