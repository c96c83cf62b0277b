//! Renders many templates in one process, for the comparison with jinja2 (`e2e/tests/http/test_templates.py`).
//!
//! Reads lines of JSON, `{"template": …, "variables": {…}}`, and writes one line for each: `{"text": …}` or
//! `{"error": …}`.

use std::io::{BufRead, Write};

use runtime::jinja::Template;
use serde_json::{Map, Value, json};

fn main() -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let job: Value = serde_json::from_str(&line?)?;
        let none = Map::new();
        let variables: Vec<(&str, &Value)> = job["variables"]
            .as_object()
            .unwrap_or(&none)
            .iter()
            .map(|(name, value)| (name.as_str(), value))
            .collect();
        let source = job["template"].as_str().unwrap_or_default();
        let rendered = Template::parse(source).and_then(|template| template.render(&variables));
        let answer = match rendered {
            Ok(text) => json!({"text": text}),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(out, "{answer}")?;
    }
    Ok(())
}
