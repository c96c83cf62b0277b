//! The answer of an OpenAI route becomes the output of a job, item by item.

use serde_json::{Value, json};

use super::batches::Batcher;
use super::input::OutputKind;

/// Finds the data of server-sent events in bytes that can end anywhere.
#[derive(Debug, Default)]
pub struct EventReader {
    bytes: Vec<u8>,
}

impl EventReader {
    /// Adds bytes, and returns the data of the events that they complete.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.bytes.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.bytes.windows(2).position(|pair| pair == b"\n\n") {
            let event: Vec<u8> = self.bytes.drain(..end + 2).collect();
            let event = String::from_utf8_lossy(&event[..end]);
            // Other lines are names of events, and comments that keep the connection open.
            let data: Vec<&str> = event
                .lines()
                .filter_map(|line| line.strip_prefix("data: "))
                .collect();
            if !data.is_empty() {
                events.push(data.join("\n"));
            }
        }
        events
    }
}

/// The form of a stream's events in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventFormat {
    /// The text of server-sent events.
    Raw,
    /// The objects in the events.
    Objects,
}

/// Makes output items from a stream. Each item is a JSON text.
#[derive(Debug)]
pub struct Collector {
    batcher: Batcher,
    content: Content,
    has_ended: bool,
}

#[derive(Debug)]
enum Content {
    Tokens {
        /// Texts of the batch, by answer.
        texts: Vec<Vec<String>>,
        /// Number of tokens without text so far, by answer.
        n_textless: Vec<u64>,
        n_prompt: u64,
        n_generated: u64,
    },
    Events {
        format: EventFormat,
        batch: Vec<String>,
    },
}

impl Collector {
    /// A collector for the stream of a call; `None` if its answer is not a stream.
    pub fn new(output: OutputKind, format: EventFormat) -> Option<Self> {
        let (rule, content) = match output {
            OutputKind::Tokens { n, rule } => {
                let texts = vec![Vec::new(); n];
                let content = Content::Tokens {
                    texts,
                    n_textless: vec![0; n],
                    n_prompt: 0,
                    n_generated: 0,
                };
                (rule?, content)
            }
            OutputKind::OpenAi { rule } => {
                let batch = Vec::new();
                (rule?, Content::Events { format, batch })
            }
        };
        Some(Self {
            batcher: Batcher::new(rule),
            content,
            has_ended: false,
        })
    }

    /// Adds an event, and returns the items that it completes.
    ///
    /// # Errors
    /// The message of an event that reports an error.
    pub fn event(&mut self, data: &str) -> Result<Vec<String>, String> {
        let json: Value = match data {
            "[DONE]" => {
                self.has_ended = true;
                Value::Null
            }
            data => serde_json::from_str(data).map_err(|error| error.to_string())?,
        };
        if let Some(error) = error_of(&json) {
            return Err(error);
        }
        let mut items = Vec::new();
        match &mut self.content {
            Content::Events { format, batch } => {
                match format {
                    EventFormat::Raw => batch.push(format!("data: {data}\n\n")),
                    EventFormat::Objects if self.has_ended => return Ok(items),
                    EventFormat::Objects => batch.push(data.to_string()),
                }
                if self.batcher.fills() {
                    items.extend(self.flush());
                }
            }
            Content::Tokens { .. } => {
                let n_before = self.count(&json["usage"]);
                for choice in json["choices"].as_array().into_iter().flatten() {
                    self.token(choice, n_before, &mut items);
                }
            }
        }
        Ok(items)
    }

    /// Returns the last item.
    ///
    /// # Errors
    /// If the stream is incomplete.
    pub fn end(mut self) -> Result<Option<String>, String> {
        if !self.has_ended {
            return Err("the answer is incomplete".into());
        }
        Ok((!self.batcher.is_empty()).then(|| self.flush()).flatten())
    }

    /// Stores the usage so far, and returns the number of tokens since the event before.
    fn count(&mut self, usage: &Value) -> u64 {
        let Content::Tokens {
            n_prompt,
            n_generated,
            ..
        } = &mut self.content
        else {
            return 0;
        };
        let n_before = *n_generated;
        *n_prompt = usage["prompt_tokens"].as_u64().unwrap_or(*n_prompt);
        *n_generated = usage["completion_tokens"]
            .as_u64()
            .unwrap_or(*n_generated)
            .max(n_before);
        *n_generated - n_before
    }

    /// Adds the tokens of an event. As in worker-vllm, a token without text, such as half of a character, is an empty text.
    fn token(&mut self, choice: &Value, n_new: u64, items: &mut Vec<String>) {
        let (text, idx) = (text_of(choice), choice["index"].as_u64().unwrap_or(0) as usize);
        let Content::Tokens { n_textless, .. } = &mut self.content else {
            return;
        };
        let Some(n_waiting) = n_textless.get_mut(idx) else {
            return;
        };
        *n_waiting += n_new;
        if text.is_empty() && choice["finish_reason"].is_null() {
            return;
        }
        let n = std::mem::take(n_waiting).max(u64::from(!text.is_empty()));
        for left in (0..n).rev() {
            let Content::Tokens { texts, .. } = &mut self.content else {
                return;
            };
            texts[idx].push(if left == 0 {
                text.to_string()
            } else {
                String::new()
            });
            if self.batcher.fills() {
                items.extend(self.flush());
            }
        }
    }

    fn flush(&mut self) -> Option<String> {
        match &mut self.content {
            Content::Tokens {
                texts,
                n_prompt,
                n_generated,
                ..
            } => {
                let taken: Vec<Vec<String>> = texts.iter_mut().map(std::mem::take).collect();
                Some(token_batch(&taken, *n_prompt, *n_generated))
            }
            Content::Events { format, batch } => {
                let batch = std::mem::take(batch);
                Some(match format {
                    EventFormat::Raw => Value::String(batch.concat()).to_string(),
                    EventFormat::Objects => format!("[{}]", batch.join(",")),
                })
            }
        }
    }
}

/// The single item of a complete answer.
///
/// # Errors
/// If the body is not JSON.
pub fn whole(output: OutputKind, body: &str) -> Result<String, String> {
    let OutputKind::Tokens { .. } = output else {
        return Ok(body.to_string());
    };
    let body: Value = serde_json::from_str(body).map_err(|error| error.to_string())?;
    let choices = body["choices"].as_array().into_iter().flatten();
    let texts: Vec<Vec<String>> = choices.map(|choice| vec![text_of(choice).to_string()]).collect();
    let n = |name: &str| body["usage"][name].as_u64().unwrap_or(0);
    Ok(token_batch(&texts, n("prompt_tokens"), n("completion_tokens")))
}

/// The message of a body that reports an error.
pub fn error_of(body: &Value) -> Option<String> {
    let error = body.get("error").filter(|error| !error.is_null())?;
    Some(
        error["message"]
            .as_str()
            .map_or_else(|| error.to_string(), str::to_string),
    )
}

fn text_of(choice: &Value) -> &str {
    let texts = [
        &choice["text"],
        &choice["delta"]["content"],
        &choice["message"]["content"],
    ];
    texts.into_iter().find_map(Value::as_str).unwrap_or_default()
}

fn token_batch(texts: &[Vec<String>], n_prompt: u64, n_generated: u64) -> String {
    let choices: Vec<Value> = texts.iter().map(|tokens| json!({"tokens": tokens})).collect();
    json!({"choices": choices, "usage": {"input": n_prompt, "output": n_generated}}).to_string()
}

#[cfg(test)]
mod tests {
    use super::super::batches::BatchRule;
    use super::*;

    const RULE: BatchRule = BatchRule {
        n_max: 4,
        n_min: 1,
        growth: 2.0,
    };

    fn chunk(idx: usize, text: &str, n_generated: u64) -> String {
        json!({
            "choices": [{"index": idx, "delta": {"content": text}}],
            "usage": {"prompt_tokens": 7, "completion_tokens": n_generated},
        })
        .to_string()
    }

    fn collected(output: OutputKind, format: EventFormat, events: &[String]) -> Result<Vec<Value>, String> {
        let mut collector = Collector::new(output, format).unwrap();
        let mut items = Vec::new();
        for event in events {
            items.extend(collector.event(event)?);
        }
        items.extend(collector.end()?);
        Ok(items
            .iter()
            .map(|item| serde_json::from_str(item).unwrap())
            .collect())
    }

    #[test]
    fn tokens_are_batched_and_those_without_text_count() {
        let output = OutputKind::Tokens {
            n: 2,
            rule: Some(RULE),
        };
        let events = [
            chunk(0, "", 1),
            chunk(0, "a", 1),
            chunk(1, "b", 2),
            chunk(0, "", 3),
            chunk(0, "é", 4),
            "[DONE]".into(),
        ];
        let items = collected(output, EventFormat::Raw, &events).unwrap();
        let item = |first: &[&str], second: &[&str], n: u64| json!({"choices": [{"tokens": first}, {"tokens": second}], "usage": {"input": 7, "output": n}});
        assert_eq!(
            items,
            [item(&["a"], &[], 1), item(&[""], &["b"], 4), item(&["é"], &[], 4)]
        );
    }

    #[test]
    fn openai_events_are_raw_texts_or_objects() {
        let output = OutputKind::OpenAi { rule: Some(RULE) };
        let events = ["{\"a\":1}".to_string(), "{\"a\":2}".into(), "[DONE]".into()];
        let raw = collected(output, EventFormat::Raw, &events).unwrap();
        assert_eq!(
            raw,
            [
                json!("data: {\"a\":1}\n\n"),
                json!("data: {\"a\":2}\n\ndata: [DONE]\n\n")
            ]
        );
        let objects = collected(output, EventFormat::Objects, &events).unwrap();
        assert_eq!(objects, [json!([{"a": 1}]), json!([{"a": 2}])]);
    }

    #[test]
    fn an_incomplete_stream_and_a_reported_error_fail() {
        let output = OutputKind::OpenAi { rule: Some(RULE) };
        let events = [json!({"error": {"message": "no"}}).to_string()];
        assert_eq!(collected(output, EventFormat::Raw, &events).unwrap_err(), "no");
        let cut = collected(output, EventFormat::Raw, &["{}".to_string()]);
        assert_eq!(cut.unwrap_err(), "the answer is incomplete");
    }

    #[test]
    fn a_complete_answer_is_one_item() {
        let output = OutputKind::Tokens { n: 1, rule: None };
        let body =
            json!({"choices": [{"text": "a b"}], "usage": {"prompt_tokens": 3, "completion_tokens": 2}});
        let item = whole(output, &body.to_string()).unwrap();
        assert_eq!(
            item,
            r#"{"choices":[{"tokens":["a b"]}],"usage":{"input":3,"output":2}}"#
        );
        assert!(Collector::new(output, EventFormat::Raw).is_none());
    }

    #[test]
    fn events_are_found_wherever_the_bytes_end() {
        let text = ": alive\n\ndata: {\"é\":1}\n\nevent: x\ndata: 2\n\ndata: [DO";
        for at in 0..text.len() {
            let mut reader = EventReader::default();
            let (first, second) = text.as_bytes().split_at(at);
            let mut events = reader.push(first);
            events.extend(reader.push(second));
            assert_eq!(events, ["{\"é\":1}", "2"], "{at}");
        }
    }
}
