//! The names of the methods that values have.

use crate::jinja::value::Value;

const TEXT: [&str; 46] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
    "translate",
    "encode",
];

const DICT: [&str; 5] = ["copy", "get", "items", "keys", "values"];
const LIST: [&str; 3] = ["copy", "count", "index"];
const TUPLE: [&str; 2] = ["count", "index"];
const FLOAT: [&str; 1] = ["is_integer"];
const INT: [&str; 1] = ["bit_length"];
/// Methods that change a value; templates must not use them.
const CHANGES_DICT: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const CHANGES_LIST: [&str; 8] = [
    "append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove",
];

/// The method `name` of a value.
pub(in crate::jinja) fn find(value: &Value, name: &str) -> Option<&'static str> {
    let names: &[&'static str] = match value {
        Value::Text(_) => &TEXT,
        Value::Dict(_) => &DICT,
        Value::List(_) => &LIST,
        Value::Tuple(_) | Value::Range(_) => &TUPLE,
        Value::Float(_) => &FLOAT,
        Value::Int(_) | Value::Big(_) | Value::Bool(_) => &INT,
        _ => &[],
    };
    names.iter().find(|known| **known == name).copied()
}

/// Whether the method would change the value.
pub(in crate::jinja) fn is_change(value: &Value, name: &str) -> bool {
    match value {
        Value::Dict(_) => CHANGES_DICT.contains(&name),
        Value::List(_) => CHANGES_LIST.contains(&name),
        _ => false,
    }
}
