//! What templates make of values, as jinja2 does in transformers' environment.
//!
//! `e2e/tests/http/test_templates.py` compares thousands of templates with jinja2; these are the rules by name.

use serde_json::json;

use super::{Error, Template};

fn render(source: &str) -> Result<String, String> {
    let messages = json!([{"role": "user", "content": "hi", "calls": [{"id": 1}]}]);
    let floats = json!([1e-5, 1e-7, 1e16, 1e22, 100000.0, -0.0, 5e-324]);
    let template = Template::parse(source).map_err(|error| error.to_string())?;
    let rendered = template.render(&[("messages", &messages), ("floats", &floats)]);
    rendered.map_err(|error| error.to_string())
}

fn check(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        assert_eq!(render(source).as_deref(), Ok(*expected), "{source}");
    }
}

fn refuse(cases: &[(&str, &str)]) {
    for (source, expected) in cases {
        let error = render(source).unwrap_err();
        assert!(error.contains(expected), "{source}: {error}");
    }
}

#[test]
fn white_space_around_tags() {
    check(&[
        ("  {% if true %}\n  a\n  {% endif %}\nb\n\n", "  a\nb\n"),
        ("  {%+ if true %}x{% endif %}", "  x"),
        ("a {%- if true -%} b {% endif %} c", "ab  c"),
        ("a{% raw %}\nb{% endraw %}\nc", "a\nbc"),
        ("x\r\n{% if true %}\r\ny\r{% endif %}", "x\ny\n"),
        ("{#- {% generation %} -#}\n{{ 1 }}{# }} #}", "1"),
        ("a {% generation %}\n b\n{% endgeneration %}\nc", "a  b\nc"),
        ("{{ '{% generation %}' }}", "{% generation %}"),
        ("{ {{ 1 }} } %} #}", "{ 1 } %} #}"),
    ]);
}

#[test]
fn undefined_values_are_empty_until_they_are_used() {
    check(&[
        (
            "{{ x }}{{ x | length }}{{ x | list }}{{ x ~ 1 }}{{ x == y }}",
            "0[]1True",
        ),
        (
            "{{ '' | default('d', boolean=true) }}{{ x | default('e') }}{{ '%s' % x }}",
            "de",
        ),
        (
            "{% for i in x %}{% else %}none{% endfor %}{{ x | items | list }}",
            "none[]",
        ),
    ]);
    refuse(&[
        ("a\n{{ x.y }}", "'x' is undefined (line 2)"),
        ("{{ x + 1 }}", "'x' is undefined"),
        ("{{ messages[0].z.y }}", "'dict object' has no attribute 'z'"),
        ("{{ x | tojson }}", "Undefined is not JSON serializable"),
    ]);
}

#[test]
fn numbers_are_pythons() {
    check(&[
        (
            "{{ floats | tojson }}",
            "[1e-05, 1e-07, 1e+16, 1e+22, 100000.0, -0.0, 5e-324]",
        ),
        (
            "{{ 123456789012345678901234567890 + 1 }}",
            "123456789012345678901234567891",
        ),
        (
            "{{ -7 // 2 }} {{ -7 % 3 }} {{ 7 / 2 }} {{ 2 ** 70 }} {{ +1 }}",
            "-4 2 3.5 1180591620717411303424 1",
        ),
        (
            "{{ 2.5 | round }} {{ 2.675 | round(2) }} {{ '7.9' | int }} {{ 1e400 }}",
            "2.0 2.67 7 inf",
        ),
        (
            "{{ 1 == 1.0 == true }} {{ {1: 'a', true: 'b'} }}",
            "True {1: 'b'}",
        ),
    ]);
    refuse(&[("{{ 1 // 0 }}", "by zero"), ("{{ 10 ** 5000 }}", "4300 digits")]);
}

#[test]
fn json_is_that_of_json_dumps() {
    check(&[
        (
            "{{ {'b': 1, 'a': '<é🚲>'} | tojson }}",
            r#"{"b": 1, "a": "<é🚲>"}"#,
        ),
        (
            "{{ [1, {'b': 2}] | tojson(separators=(',', ':')) }}",
            r#"[1,{"b":2}]"#,
        ),
        (
            "{{ 'é🚲' | tojson(ensure_ascii=True) }}",
            r#""\u00e9\ud83d\udeb2""#,
        ),
        (
            "{{ {'b': 1, 'a': []} | tojson(sort_keys=true, indent=2) }}",
            "{\n  \"a\": [],\n  \"b\": 1\n}",
        ),
        (
            "{{ {1: 2, none: 3, 1.5: 4} | tojson }}",
            r#"{"1": 2, "null": 3, "1.5": 4}"#,
        ),
    ]);
}

#[test]
fn texts_have_pythons_methods() {
    check(&[
        (
            "{{ 'a,b,c'.rsplit(',', 1) }} {{ 'abc'.index('c') }} {{ 'a-b'.partition('-')[2] }}",
            "['a,b', 'c'] 2 b",
        ),
        (
            "{{ '7'.zfill(3) }} {{ \"it's\".title() }} {{ \"it's\" | title }}",
            "007 It'S It's",
        ),
        (
            "{{ '%s is %03d' % ('a', 3) }} {{ '{:>4}|{!r}'.format(1, 'b') }}",
            "a is 003    1|'b'",
        ),
        (
            "{{ 'abc'[::-1] }} {{ 'é🚲x'[1] }} {{ 'aaa' | replace('a', 'b', 1) }}",
            "cba 🚲 baa",
        ),
        ("{{ ['it\\'s', 'a\\n'] }}", "[\"it's\", 'a\\n']"),
        ("{{ ('<' | safe) + '<' }} {{ '<' | e }}", "<&lt; &lt;"),
    ]);
}

#[test]
fn loops_know_where_they_are() {
    check(&[
        (
            "{% for c in 'Hi' %}{{ c }}{{ ',' if not loop.last }}{{ loop.length }}{% endfor %}",
            "H,2i2",
        ),
        (
            "{% for i in [1, 2, 3] if i != 2 %}{{ loop.index }}{{ loop.nextitem }};{% endfor %}",
            "13;2;",
        ),
        (
            "{% for i in [1, [2]] recursive %}{{ loop(i) if i is iterable else i }}{% endfor %}",
            "12",
        ),
        (
            "{% for i in range(5) %}{% if i == 3 %}{% break %}{% elif i == 1 %}{% continue %}{% endif %}{{ i }}{% endfor %}",
            "02",
        ),
        (
            "{% set ns = namespace(n=0) %}{% for i in [1, 2] %}{% set ns.n = ns.n + i %}{% set x = i %}{% endfor %}{{ ns.n }}{{ x }}",
            "3",
        ),
        (
            "{% set x = [1, 2] | map('string') %}{{ x | join }}{{ x | join }}",
            "12",
        ),
    ]);
}

#[test]
fn macros_bind_arguments_as_python_does() {
    check(&[
        (
            "{% macro m(a, b=a) %}{{ a }}{{ b }}{{ varargs }}{% endmacro %}{{ m(1) }}{{ m(1, 2, 3) }}",
            "11()12(3,)",
        ),
        (
            "{% macro m() %}{{ caller('x') }}{% endmacro %}{% call(y) m() %}<{{ y }}>{% endcall %}",
            "<x>",
        ),
        (
            "{% macro m() %}{{ later }}{% endmacro %}{% set later = 1 %}{{ m() }}",
            "1",
        ),
    ]);
    refuse(&[
        (
            "{% macro m(a) %}{% endmacro %}{{ m(1, 2) }}",
            "not more than 1 argument",
        ),
        (
            "{% macro m(a) %}{% endmacro %}{{ m(b=2) }}",
            "no keyword argument 'b'",
        ),
    ]);
}

#[test]
fn a_template_changes_nothing_but_namespaces() {
    refuse(&[
        ("{{ messages.append(1) }}", "unsafe"),
        ("{{ messages[0].pop('role') }}", "unsafe"),
        ("{{ messages.__class__.a }}", "unsafe"),
        ("{% set messages.a = 1 %}", "non-namespace"),
        ("{% include 'a' %}", "needs other templates"),
    ]);
}

#[test]
fn long_and_deep_inputs_are_lawful() {
    let call = |n: usize| json!({"role": "assistant", "calls": [{"id": n, "name": "f"}]});
    let result = |n: usize| json!({"role": "tool", "id": n});
    let messages = (0..400).flat_map(|n| [call(n), result(n)]).collect();
    let mut schema = json!({"type": "string"});
    for _ in 0..60 {
        schema = json!({"type": "array", "items": {"type": "object", "properties": {"a": schema}}});
    }
    let looks_up = "{% for m in messages %}{% if m.role == 'tool' %}{% set ns = namespace(name='') %}\
                    {% for n in messages %}{% for c in n.calls or [] %}{% if c.id == m.id %}\
                    {% set ns.name = c.name %}{% endif %}{% endfor %}{% endfor %}{{ ns.name }}{% endif %}{% endfor %}";
    let walks = "{% macro w(s) %}{{ s.type[0] }}{% if s.items is mapping %}{{ w(s['items']) }}{% endif %}\
                 {% for k, v in (s.properties or {}).items() %}({{ w(v) }}){% endfor %}{% endmacro %}{{ w(schema) }}";
    let walks = walks.replace("s.items is mapping", "'items' in s");
    let of = |source: &str, name: &str, value| Template::parse(source).unwrap().render(&[(name, &value)]);
    assert_eq!(of(looks_up, "messages", messages), Ok("f".repeat(400)));
    let expected = "ao(".repeat(60) + "s" + &")".repeat(60);
    assert_eq!(of(&walks, "schema", schema), Ok(expected));
}

#[test]
fn a_hostile_template_ends() {
    let grows = |start: &str, next: &str| {
        format!(
            "{{% set ns = namespace(x={start}) %}}{{% for i in range(99999) %}}{{% set ns.x = {next} %}}{{% endfor %}}"
        )
    };
    let doubled = "{% set ns = namespace(x=[1], y=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}\
                   {% set ns.y = [ns.y, ns.y] %}{% endfor %}{{ ns.x == ns.y }}";
    refuse(&[
        (doubled, "steps"),
        ("{{ 'x' * 999999999999 }}", "steps"),
        (&grows("'ab'", "ns.x ~ ns.x"), "memory"),
        (&grows("[1]", "[ns.x]"), "values"),
        (&grows("[1]", "ns.x | map('string')"), "values"),
        ("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}", "calls"),
        ("{{ '%1000000000d' % 1 }}", "width"),
        (&format!("{{{{ {}1 }}}}", "-".repeat(9999)), "256 deep"),
        (&format!("{{{{ 1{} }}}}", "+1".repeat(9999)), "256 deep"),
        (&"{% if 1 %}".repeat(9999), "256 deep"),
    ]);
    let chain = grows("none", "namespace(x=ns.x)") + "{{ ns }}";
    refuse(&[(&chain, "printed values")]);
    let circle = "{% set ns = namespace(a=1) %}{% set ns.x = [ns] %}{{ ns }}";
    check(&[(circle, "<Namespace {'a': 1, 'x': [<Namespace {...}>]}>")]);
    // Circles and long chains of references are no leak and end no stack.
    for next in ["namespace(x=ns.x, y=ns)", "[cycler(ns.x), loop]"] {
        assert_eq!(render(&grows("none", next)), Ok(String::new()));
    }
}

#[test]
fn a_syntax_error_has_its_line() {
    assert!(matches!(
        Template::parse("a\n{% if %}"),
        Err(Error::Syntax { line: 2, .. })
    ));
    refuse(&[
        ("{% foo %}", "unknown tag 'foo'"),
        ("{{ 1 ", "end of template"),
        ("{% if 1 %}", "endif"),
        ("{{ (1] }}", "expected ')'"),
        ("{# a", "comment"),
        ("{{ 1 | nofilter }}", "No filter named 'nofilter'"),
        ("{% break %}", "outside of a loop"),
    ]);
}
