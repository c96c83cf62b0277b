//! Which form of a message's content a template expects: a text, or a list of parts.

use std::borrow::Cow;

use serde_json::{Map, Value, json};

use super::{Body, ChatTemplate, Conversation, Ending};

/// The form of `content`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ContentFormat {
    /// A text; parts are joined.
    #[default]
    Text,
    /// A list of parts, as OpenAI's API has it; a text is one part.
    Parts,
}

/// Not part of any template.
const PROBE: &str = "qzprobezq";

impl ContentFormat {
    /// What a template expects, found by giving it both: a template that walks through parts makes nothing, or
    /// single letters, of a text.
    pub fn detect(template: &ChatTemplate) -> Self {
        let Body::Compiled(environment) = &template.body else {
            return Self::Text;
        };
        let conversation = Conversation {
            messages: Vec::new(),
            ending: Ending::GenerationPrompt,
            variables: Map::new(),
        };
        let writes = |content: Value| {
            let messages = [json!({"role": "user", "content": content})];
            let text = template
                .write(environment, &messages, &conversation)
                .unwrap_or_default();
            // A template that takes parts for a text writes them as Python does.
            text.contains(PROBE) && !text.contains("'type'") && !text.contains("\"type\"")
        };
        let takes_text = writes(json!(PROBE));
        if !takes_text && writes(json!([{"type": "text", "text": PROBE}])) {
            Self::Parts
        } else {
            Self::Text
        }
    }

    /// Messages whose contents, texts or lists of text parts, have this form.
    pub(super) fn of_all(self, messages: &[Value]) -> Vec<Value> {
        let of = |message: &Value| {
            let content = &message["content"];
            let content = match self {
                Self::Text if content.is_array() => Value::String(text(content).into_owned()),
                Self::Parts if content.is_string() => json!([{"type": "text", "text": content}]),
                Self::Text | Self::Parts => return message.clone(),
            };
            let mut message = message.clone();
            message["content"] = content;
            message
        };
        messages.iter().map(of).collect()
    }
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
        ContentFormat::detect(&ChatTemplate::compile(source, BTreeMap::new()).unwrap())
    }

    #[test]
    fn a_template_is_given_what_it_can_read() {
        let text = "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}";
        assert_eq!(detected(text), ContentFormat::Text);
        let parts = "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}{{ part.text }}\
                     {% endif %}{% endfor %}{% endfor %}";
        assert_eq!(detected(parts), ContentFormat::Parts);
        let both = "{% for m in messages %}{% if m.content is string %}{{ m.content }}{% else %}\
                    {% for part in m.content %}{{ part.text }}{% endfor %}{% endif %}{% endfor %}";
        assert_eq!(detected(both), ContentFormat::Text);
        assert_eq!(detected("{{ raise_exception('no') }}"), ContentFormat::Text);
        assert_eq!(detected("{{ messages | tojson }}"), ContentFormat::Text);
    }

    #[test]
    fn contents_take_the_form_that_is_expected() {
        let parts = json!([{"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]);
        let text = json!([{"role": "user", "content": "a"}]);
        let of = |format: ContentFormat, messages: &Value| {
            format.of_all(messages.as_array().unwrap())[0]["content"].clone()
        };
        assert_eq!(of(ContentFormat::Text, &parts), "a\nb");
        assert_eq!(of(ContentFormat::Text, &text), "a");
        assert_eq!(of(ContentFormat::Parts, &parts), parts[0]["content"]);
        assert_eq!(
            of(ContentFormat::Parts, &text),
            json!([{"type": "text", "text": "a"}])
        );
    }
}
