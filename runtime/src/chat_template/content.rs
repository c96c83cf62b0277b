//! The form in which a template reads the content of a message: a text, or a list of parts.

use std::borrow::Cow;

use crds::settings::ContentFormat;
use serde_json::{Value, json};

/// A text that no template contains.
const PROBE: &str = "qzprobezq";

/// Detects the form that a template reads: `write` renders a message with a content. A template that iterates over
/// parts writes nothing, or single letters, for a text.
pub(super) fn detect(write: impl Fn(Value) -> String) -> ContentFormat {
    let writes_probe = |content: Value| {
        let text = write(content);
        // A template that takes a list for a text writes it in Python's syntax.
        text.contains(PROBE) && !text.contains("'type'") && !text.contains("\"type\"")
    };
    let reads_text = writes_probe(json!(PROBE));
    if !reads_text && writes_probe(json!([{"type": "text", "text": PROBE}])) {
        ContentFormat::Openai
    } else {
        ContentFormat::String
    }
}

/// The messages with their contents in this form; unchanged for `Auto`.
pub(super) fn with_contents(messages: &[Value], format: ContentFormat) -> Vec<Value> {
    let converted = |message: &Value| {
        let content = &message["content"];
        let content = match format {
            ContentFormat::String if content.is_array() => Value::String(text(content).into_owned()),
            ContentFormat::Openai if content.is_string() => json!([{"type": "text", "text": content}]),
            ContentFormat::Auto | ContentFormat::String | ContentFormat::Openai => return message.clone(),
        };
        let mut message = message.clone();
        message["content"] = content;
        message
    };
    messages.iter().map(converted).collect()
}

/// A content as one text. Line ends join the parts, as in vLLM.
pub fn text(content: &Value) -> Cow<'_, str> {
    match content {
        Value::String(text) => Cow::Borrowed(text),
        Value::Array(parts) => {
            let texts = parts.iter().filter_map(|part| part["text"].as_str());
            Cow::Owned(texts.collect::<Vec<_>>().join("\n"))
        }
        _ => Cow::Borrowed(""),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::compiled::CompiledTemplate;
    use super::*;

    fn detected(source: &str) -> ContentFormat {
        let template = CompiledTemplate::compile(source, BTreeMap::new());
        template.unwrap().content_format()
    }

    #[test]
    fn the_form_that_a_template_reads_is_detected() {
        let text = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        assert_eq!(detected(text), ContentFormat::String);
        let parts = "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}\
                     {% endif %}{% endfor %}{% endfor %}";
        assert_eq!(detected(parts), ContentFormat::Openai);
        let both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
                    {% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}";
        assert_eq!(detected(both), ContentFormat::String);
        assert_eq!(detected("{{ raise_exception('no') }}"), ContentFormat::String);
        assert_eq!(detected("{{ messages | tojson }}"), ContentFormat::String);
    }

    #[test]
    fn contents_are_converted_to_the_form() {
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
        let text = json!([{"role": "user", "content": "a"}]);
        let of = |format: ContentFormat, messages: &Value| {
            with_contents(messages.as_array().unwrap(), format)[0]["content"].clone()
        };
        assert_eq!(of(ContentFormat::String, &parts), "a\nb");
        assert_eq!(of(ContentFormat::String, &text), "a");
        assert_eq!(of(ContentFormat::Openai, &parts), parts[0]["content"]);
        assert_eq!(
            of(ContentFormat::Openai, &text),
            json!([{"type": "text", "text": "a"}])
        );
    }
}
