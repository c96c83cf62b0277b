//! Reads a block of variables: a YAML or JSON list or map, a `.env` file, or the options of a docker command.

use serde_json::Value;

/// Most bytes of a block.
const BLOCK_BYTES_MAX: usize = 1 << 20;
/// Deepest level of a YAML document at which a list of variables is looked for.
const DEPTH_MAX: usize = 16;

/// One variable of a block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// What the block gives for it.
    pub given: Given,
}

/// What a block gives for a variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Given {
    /// A value.
    Text(String),
    /// A key of a Secret.
    Secret {
        /// Name of the Secret.
        name: String,
        /// Key in it.
        key: String,
    },
    /// Only the name: the value was in the shell, in a docker secret, or somewhere else.
    Elsewhere,
}

/// Why a block cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockError {
    /// There is no variable in it.
    #[error(
        "the block has no variables: expected a YAML list 'env:', lines NAME=VALUE, or docker options -e NAME=VALUE"
    )]
    NoVariables,
    /// It is too large.
    #[error("the block has {bytes} bytes; at most {BLOCK_BYTES_MAX} are read")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A line of a `.env` file has another form. The text may be a secret, so it is not repeated.
    #[error("line {line} of the block is not NAME=VALUE")]
    Line {
        /// Number of the line, from 1.
        line: usize,
    },
    /// A quotation mark has no partner.
    #[error("a quotation mark in the block is not closed (it begins in line {line})")]
    OpenQuote {
        /// Number of the line, from 1.
        line: usize,
    },
    /// It is no YAML.
    #[error("the block is not valid YAML: {reason}")]
    Yaml {
        /// The parser's words.
        reason: String,
    },
    /// An item of the list is not a variable.
    #[error("item {item} of the list of variables has no name")]
    Item {
        /// Number of the item, from 1.
        item: usize,
    },
}

/// The variables of a block, in its order.
///
/// # Errors
/// [`BlockError`] where the block has none of the known forms.
pub fn read(text: &str) -> Result<Vec<Variable>, BlockError> {
    if text.len() > BLOCK_BYTES_MAX {
        return Err(BlockError::TooLarge { bytes: text.len() });
    }
    let text = text.trim_start_matches('\u{feff}');
    let is_significant = |line: &&str| !line.is_empty() && !line.starts_with('#');
    let first = text.lines().map(str::trim).find(is_significant);
    let first = first.ok_or(BlockError::NoVariables)?;
    let variables = if assignment(first).is_some() {
        dotenv(text)?
    } else if is_docker(first, text) {
        docker(text)?
    } else {
        yaml(text)?
    };
    if variables.is_empty() {
        return Err(BlockError::NoVariables);
    }
    Ok(variables)
}

/// Name and rest of `NAME=…`, with or without `export`.
fn assignment(line: &str) -> Option<(&str, &str)> {
    let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
    let (name, rest) = line.split_once('=')?;
    let name = name.trim_end();
    let mut chars = name.chars();
    let is_name = chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_');
    is_name.then_some((name, rest))
}

fn dotenv(text: &str) -> Result<Vec<Variable>, BlockError> {
    let mut variables = Vec::new();
    let mut lines = text.lines().enumerate();
    while let Some((idx, line)) = lines.next() {
        let trimmed = line.trim();
        if trimmed.is_empty() || trimmed.starts_with('#') {
            continue;
        }
        let (name, rest) = assignment(trimmed).ok_or(BlockError::Line { line: idx + 1 })?;
        let mut rest = rest.trim_start().to_string();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''));
        let value = match quote {
            None => unquoted(&rest),
            Some(quote) => loop {
                if let Some(value) = quoted(&rest, quote) {
                    break value;
                }
                // A quoted value may have several lines.
                let (_, next) = lines.next().ok_or(BlockError::OpenQuote { line: idx + 1 })?;
                rest.push('\n');
                rest.push_str(next);
            },
        };
        variables.push(Variable {
            name: name.to_string(),
            given: Given::Text(value),
        });
    }
    Ok(variables)
}

/// The text up to a comment.
fn unquoted(rest: &str) -> String {
    let end = rest.find(" #").unwrap_or(rest.len());
    rest[..end].trim_end().to_string()
}

/// The text between the quotation mark at the start of `rest` and its partner; `None` without one.
fn quoted(rest: &str, quote: char) -> Option<String> {
    let mut value = String::new();
    let mut chars = rest.chars().skip(1);
    while let Some(char) = chars.next() {
        match char {
            _ if char == quote => return Some(value),
            '\\' if quote == '"' => match chars.next()? {
                'n' => value.push('\n'),
                't' => value.push('\t'),
                escaped @ ('"' | '\\' | '$') => value.push(escaped),
                other => value.extend(['\\', other]),
            },
            _ => value.push(char),
        }
    }
    None
}

/// Options of docker that name a variable.
const DOCKER_OPTIONS: [&str; 4] = ["-e", "--env", "--build-arg", "--secret"];

fn is_docker(first: &str, text: &str) -> bool {
    let is_option = |word: &str| {
        DOCKER_OPTIONS
            .iter()
            .any(|option| word == *option || word.starts_with(&format!("{option}=")))
    };
    let begins = |word: &str| first.split_whitespace().take(2).any(|first| first == word);
    begins("docker") || begins("podman") || first.starts_with("-e") || is_option(first_word(text))
}

fn first_word(text: &str) -> &str {
    text.split_whitespace().next().unwrap_or_default()
}

fn docker(text: &str) -> Result<Vec<Variable>, BlockError> {
    let text = text.replace("\\\r\n", " ").replace("\\\n", " ");
    let words = shlex::split(&text).ok_or(BlockError::OpenQuote { line: 1 })?;
    let mut variables = Vec::new();
    let mut words = words.into_iter();
    while let Some(word) = words.next() {
        let (option, value) = match word.split_once('=') {
            Some((option, value)) if DOCKER_OPTIONS.contains(&option) => {
                (option.to_string(), Some(value.to_string()))
            }
            _ if DOCKER_OPTIONS.contains(&word.as_str()) => (word, words.next()),
            _ => match word.strip_prefix("-e").filter(|rest| assignment(rest).is_some()) {
                Some(rest) => ("-e".to_string(), Some(rest.to_string())),
                None => continue,
            },
        };
        let Some(value) = value else { continue };
        variables.push(docker_variable(&option, &value));
    }
    Ok(variables)
}

fn docker_variable(option: &str, value: &str) -> Variable {
    if option == "--secret" {
        let id = value.split(',').find_map(|part| part.strip_prefix("id="));
        return Variable {
            name: id.unwrap_or(value).to_string(),
            given: Given::Elsewhere,
        };
    }
    match value.split_once('=') {
        Some((name, value)) => Variable {
            name: name.to_string(),
            given: Given::Text(value.to_string()),
        },
        None => Variable {
            name: value.to_string(),
            given: Given::Elsewhere,
        },
    }
}

fn yaml(text: &str) -> Result<Vec<Variable>, BlockError> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).map_err(|error| BlockError::Yaml {
        reason: error.to_string().lines().next().unwrap_or_default().to_string(),
    })?;
    let mut variables = Vec::new();
    for document in &documents {
        match document {
            Value::Array(items) => variables.extend(list(items)?),
            Value::Object(_) => {
                let mut found = Vec::new();
                find_lists(document, 0, &mut found);
                if found.is_empty() {
                    found.push(document);
                }
                for block in found {
                    match block {
                        Value::Array(items) => variables.extend(list(items)?),
                        other => variables.extend(map(other)),
                    }
                }
            }
            _ => return Err(BlockError::NoVariables),
        }
    }
    Ok(variables)
}

/// Every list or map of variables in a manifest, a compose file or a template.
fn find_lists<'a>(value: &'a Value, depth: usize, found: &mut Vec<&'a Value>) {
    if depth > DEPTH_MAX {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                let is_block = matches!(name.as_str(), "env" | "environment");
                if is_block && (inner.is_array() || inner.is_object()) {
                    found.push(inner);
                } else {
                    find_lists(inner, depth + 1, found);
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| find_lists(item, depth + 1, found)),
        _ => {}
    }
}

fn list(items: &[Value]) -> Result<Vec<Variable>, BlockError> {
    let variable = |(idx, item): (usize, &Value)| {
        let variable = match item {
            Value::String(text) => Some(docker_variable("-e", text)),
            Value::Object(fields) => {
                let name = fields.get("name").or_else(|| fields.get("key"));
                name.and_then(Value::as_str).map(|name| Variable {
                    name: name.to_string(),
                    given: given(fields.get("value"), &item["valueFrom"]),
                })
            }
            _ => None,
        };
        variable.ok_or(BlockError::Item { item: idx + 1 })
    };
    items.iter().enumerate().map(variable).collect()
}

fn given(value: Option<&Value>, from: &Value) -> Given {
    let reference = &from["secretKeyRef"];
    match (value, reference["name"].as_str(), reference["key"].as_str()) {
        (None, Some(name), Some(key)) => Given::Secret {
            name: name.to_string(),
            key: key.to_string(),
        },
        (None, ..) if !from.is_null() => Given::Elsewhere,
        _ => Given::Text(scalar(value.unwrap_or(&Value::Null))),
    }
}

fn map(value: &Value) -> Vec<Variable> {
    let fields = value.as_object().into_iter().flatten();
    fields
        .map(|(name, value)| Variable {
            name: name.clone(),
            given: Given::Text(scalar(value)),
        })
        .collect()
}

/// A YAML value as the text that a container would get.
fn scalar(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
