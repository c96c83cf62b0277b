//! The limits of clients, as a file of YAML names them.

use std::{
    collections::{BTreeMap, HashMap},
    fmt,
};

use crds::keys::HASH_CHARS;
use serde::Deserialize;

use super::directory::Key;

/// The name of clients that need no key.
pub(super) const NO_KEY: &str = "none";
/// Clients that share one account, because there are too many.
pub(super) const OTHERS: &str = "others";
/// Largest limit. A larger one is refused, because it is a mistake.
const LIMIT_MAX: i64 = 1_000_000_000_000;
const NAME_CHARS_MAX: usize = 63;

/// What a key may use of a ModelDeployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Limit {
    pub(super) requests_per_minute: Option<u64>,
    pub(super) tokens_per_minute: Option<u64>,
}

/// All limits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Limits {
    default: Limit,
    models: BTreeMap<String, Limit>,
    /// By name.
    keys: BTreeMap<String, Limit>,
    /// The names of hashes.
    names: HashMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct File {
    default: LimitFields,
    models: BTreeMap<String, LimitFields>,
    keys: Vec<KeyFields>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
struct LimitFields {
    requests_per_minute: Option<i64>,
    tokens_per_minute: Option<i64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct KeyFields {
    name: String,
    hashes: Vec<String>,
    requests_per_minute: Option<i64>,
    tokens_per_minute: Option<i64>,
}

impl Limits {
    /// The limits of a file; none if it is empty.
    ///
    /// # Errors
    /// It is not of the form, or a value makes no sense; the text names it.
    pub(super) fn parse(contents: &[Vec<u8>]) -> Result<Limits, String> {
        let text = contents.concat();
        let text =
            std::str::from_utf8(&text).map_err(|error| format!("the limits are not UTF-8: {error}"))?;
        let file: Option<File> = match text.trim() {
            "" => None,
            text => serde_saphyr::from_str(text).map_err(|error| error.to_string())?,
        };
        let file = file.unwrap_or_default();
        let mut limits = Limits {
            default: limit("default", file.default)?,
            ..Limits::default()
        };
        for (model, fields) in file.models {
            let parts: Vec<&str> = model.split('/').collect();
            if parts.len() != 2 || parts.contains(&"") {
                return Err(format!(
                    "models: '{model}' is not NAMESPACE/NAME of a ModelDeployment"
                ));
            }
            let limit = limit(format_args!("models.{model}"), fields)?;
            limits.models.insert(model, limit);
        }
        for key in file.keys {
            limits.add(key)?;
        }
        Ok(limits)
    }

    fn add(&mut self, key: KeyFields) -> Result<(), String> {
        let name = key.name;
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
        if name.is_empty() || name.len() > NAME_CHARS_MAX || !name.chars().all(is_plain) {
            return Err(format!(
                "keys: a name must have 1 to {NAME_CHARS_MAX} letters, digits, '-', '_' and '.', and '{name}' does not"
            ));
        }
        if [NO_KEY, OTHERS].contains(&name.as_str()) || is_hash(&name) {
            return Err(format!(
                "keys: the name '{name}' has a meaning of its own. Choose another one"
            ));
        }
        let fields = LimitFields {
            requests_per_minute: key.requests_per_minute,
            tokens_per_minute: key.tokens_per_minute,
        };
        let limit = limit(format_args!("keys.{name}"), fields)?;
        for (idx, hash) in key.hashes.into_iter().enumerate() {
            if !is_hash(&hash) {
                return Err(format!(
                    "keys.{name}.hashes[{idx}] is not a hash of {HASH_CHARS} hexadecimal digits. Never write a key itself \
                     here"
                ));
            }
            if let Some(other) = self.names.insert(hash.clone(), name.clone()) {
                return Err(format!(
                    "keys: the hash {hash} belongs to '{other}' and to '{name}'"
                ));
            }
        }
        match self.keys.insert(name.clone(), limit) {
            None => Ok(()),
            Some(_) => Err(format!(
                "keys: '{name}' appears twice. A name may have several hashes"
            )),
        }
    }

    /// The name of the key with this hash.
    pub(super) fn name(&self, hash: &str) -> Option<&str> {
        self.names.get(hash).map(String::as_str)
    }

    /// What a client may use of a ModelDeployment: the limit of its key, else that of the ModelDeployment, else the default.
    pub(super) fn of(&self, model: &Key, client: &str) -> Limit {
        let of_model = self.models.get(&format!("{}/{}", model.namespace, model.name));
        let levels = [self.keys.get(client), of_model, Some(&self.default)];
        let first = |field: fn(&Limit) -> Option<u64>| levels.into_iter().flatten().find_map(field);
        Limit {
            requests_per_minute: first(|limit| limit.requests_per_minute),
            tokens_per_minute: first(|limit| limit.tokens_per_minute),
        }
    }
}

fn is_hash(text: &str) -> bool {
    text.len() == HASH_CHARS && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn limit(at: impl fmt::Display, fields: LimitFields) -> Result<Limit, String> {
    let checked = |name: &str, value: Option<i64>| match value {
        None => Ok(None),
        Some(value @ 1..=LIMIT_MAX) => Ok(Some(value.unsigned_abs())),
        Some(value) => Err(format!(
            "{at}.{name}: {value} is not between 1 and {LIMIT_MAX}. Leave it out for no limit"
        )),
    };
    Ok(Limit {
        requests_per_minute: checked("requestsPerMinute", fields.requests_per_minute)?,
        tokens_per_minute: checked("tokensPerMinute", fields.tokens_per_minute)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Limits, String> {
        Limits::parse(&[text.as_bytes().to_vec()])
    }

    #[test]
    fn what_is_said_of_a_key_comes_before_its_model_and_that_before_the_default() {
        let hash = "0".repeat(HASH_CHARS);
        let limits = parse(&format!(
            "default: {{requestsPerMinute: 1, tokensPerMinute: 2}}\n\
             models: {{a/chat: {{requestsPerMinute: 3}}}}\n\
             keys: [{{name: team-a, hashes: ['{hash}'], requestsPerMinute: 4}}]\n"
        ))
        .unwrap();
        let of = |name: &str, hash: &str| {
            let model = Key {
                namespace: "a".into(),
                name: name.into(),
            };
            let limit = limits.of(&model, hash);
            [limit.requests_per_minute, limit.tokens_per_minute]
        };
        assert_eq!(of("other", NO_KEY), [Some(1), Some(2)]);
        assert_eq!(of("chat", NO_KEY), [Some(3), Some(2)]);
        assert_eq!(of("chat", "team-a"), [Some(4), Some(2)]);
        assert_eq!(limits.name(&hash), Some("team-a"));
        for empty in ["", "\n# nothing\n", "{}", "null"] {
            assert_eq!(parse(empty).unwrap(), Limits::default(), "{empty}");
        }
    }

    #[test]
    fn values_that_make_no_sense_are_refused_by_name() {
        let hash = "0".repeat(HASH_CHARS);
        for (text, named) in [
            (
                "default: {requestsPerMinute: 0}",
                "default.requestsPerMinute: 0 is not between",
            ),
            (
                "models: {a/b: {tokensPerMinute: -5}}",
                "models.a/b.tokensPerMinute: -5 is not between",
            ),
            ("models: {b: {}}", "'b' is not NAMESPACE/NAME"),
            ("default: {requestsPerHour: 3}", "requestsPerHour"),
            ("default: {requestsPerMinute: many}", "many"),
            ("keys: [{name: none, hashes: []}]", "'none' has a meaning"),
            ("keys: [{name: 'a b', hashes: []}]", "'a b' does not"),
            (
                "keys: [{name: a, hashes: []}, {name: a, hashes: []}]",
                "'a' appears twice",
            ),
            (
                "keys: [{name: a, hashes: [sk-secret]}]",
                "keys.a.hashes[0] is not a hash",
            ),
            (
                &format!("keys: [{{name: a, hashes: ['{hash}']}}, {{name: b, hashes: ['{hash}']}}]"),
                "belongs to 'a' and to 'b'",
            ),
        ] {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text}: {error}");
            assert!(!error.contains("sk-secret"), "perhaps it is a key: {error}");
        }
    }
}
