//! The form in which a template expects the content of a message: a text, or a list of parts.

use std::borrow::Cow;

use crds::settings::ContentFormat;
use serde_json::{Map, Value, json};

use super::{Body, ChatTemplate, Conversation, Ending};

/// Not part of any template.
const PROBE: &str = "qzprobezq";

/// The form that a template can read, found by trying both: a template that iterates over parts writes nothing, or
/// single letters, for a text. `Auto` for a template that is not compiled in this process.
pub(super) fn detect(template: &ChatTemplate) -> ContentFormat {
    let Body::Compiled(environment) = &template.body else {
        return ContentFormat::Auto;
    };
    let conversation = Conversation {
        messages: Vec::new(),
        ending: Ending::GenerationPrompt,
        variables: Map::new(),
    };
    let writes = |content: Value| {
        let messages = [json!({"role": "user", "content": content})];
        let text = template.write(environment, &messages, &conversation);
        let text = text.unwrap_or_default();
        // A template that takes parts for a text writes them as Python does.
        text.contains(PROBE) && !text.contains("'type'") && !text.contains("\"type\"")
    };
    let reads_text = writes(json!(PROBE));
    if !reads_text && writes(json!([{"type": "text", "text": PROBE}])) {
        ContentFormat::Openai
    } else {
        ContentFormat::String
    }
}

/// The messages with contents in this form; with `Auto`, as they are.
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

/// A content as one text; parts are joined by line ends, as vLLM does it.
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

    use super::*;

    fn detected(source: &str) -> ContentFormat {
        detect(&ChatTemplate::compile(source, BTreeMap::new()).unwrap())
    }

    #[test]
    fn a_template_is_given_what_it_can_read() {
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
    fn contents_take_the_form_that_is_expected() {
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
