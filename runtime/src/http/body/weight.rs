//! How much memory a JSON text takes once it is parsed, estimated while it arrives.
//!
//! `[[0],[0]]` takes a hundred times its length as values. Must not know what the values mean.

use serde_json::Value;

/// A value in a list: a list that grows has room for up to twice its values.
const VALUE_BYTES: usize = size_of::<Value>() * 3 / 2;
/// A list begins with room for four values.
const LIST_BYTES: usize = size_of::<Value>() * 4;
/// An object has room for four entries of a name and a value, and an index of them.
const OBJECT_BYTES: usize = (size_of::<Value>() + size_of::<String>()) * 4 + 128;
/// An entry of an object beyond the first: a name, a value, and a place in the index.
const ENTRY_BYTES: usize = size_of::<String>() + 64;

/// Counts the values of a JSON text that arrives in pieces.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Weight {
    n_bytes: usize,
    inside: Inside,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Inside {
    #[default]
    Nothing,
    Text,
    /// The next character of a text is escaped.
    Escape,
}

impl Weight {
    /// Bytes of the values so far.
    pub(super) fn n_bytes(self) -> usize {
        self.n_bytes
    }

    /// Adds a piece of the text.
    pub(super) fn push(&mut self, piece: &[u8]) {
        for byte in piece {
            let (n_bytes, inside) = match (self.inside, byte) {
                (Inside::Nothing, b'"') => (0, Inside::Text),
                (Inside::Nothing, b',') => (VALUE_BYTES, Inside::Nothing),
                (Inside::Nothing, b'[') => (LIST_BYTES, Inside::Nothing),
                (Inside::Nothing, b'{') => (OBJECT_BYTES, Inside::Nothing),
                (Inside::Nothing, b':') => (ENTRY_BYTES, Inside::Nothing),
                (Inside::Nothing, _) => (0, Inside::Nothing),
                (Inside::Text, b'\\') => (0, Inside::Escape),
                (Inside::Text, b'"') => (0, Inside::Nothing),
                (Inside::Text | Inside::Escape, _) => (1, Inside::Text),
            };
            self.n_bytes = self.n_bytes.saturating_add(n_bytes);
            self.inside = inside;
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn weight(pieces: &[&[u8]]) -> usize {
        let mut weight = Weight::default();
        pieces.iter().for_each(|piece| weight.push(piece));
        weight.n_bytes()
    }

    /// Bytes that a value holds, from its lengths: less than it takes, as lists and objects have room for more.
    fn n_bytes_at_least(value: &Value) -> usize {
        let held = match value {
            Value::Null | Value::Bool(_) | Value::Number(_) => 0,
            Value::String(text) => text.len(),
            Value::Array(items) => items.iter().map(n_bytes_at_least).sum(),
            Value::Object(fields) => fields
                .iter()
                .map(|(name, value)| size_of::<String>() + name.len() + n_bytes_at_least(value))
                .sum(),
        };
        size_of::<Value>() + held
    }

    fn value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<i32>().prop_map(Value::from),
            // Signs of JSON, escapes, and letters of several bytes.
            "[\\[\\]{},:\"\\\\\na-cé]{0,9}".prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
                prop::collection::btree_map("[a-z\"]{0,4}", inner, 0..8)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn it_is_no_less_than_what_the_values_hold_wherever_the_pieces_end(
            value in value(), at in any::<prop::sample::Index>(),
        ) {
            let value = json!({"input": value});
            let text = value.to_string();
            let (first, second) = text.as_bytes().split_at(at.index(text.len()));
            let n_bytes = weight(&[first, second]);
            prop_assert_eq!(n_bytes, weight(&[text.as_bytes()]));
            prop_assert!(n_bytes >= n_bytes_at_least(&value) - size_of::<Value>(), "{}", text);
        }
    }

    #[test]
    fn text_weighs_what_it_is_long() {
        let text = "[{},:".repeat(1000);
        let body = json!({"prompt": text}).to_string();
        let n_bytes = weight(&[body.as_bytes()]);
        assert!((text.len()..text.len() + 2000).contains(&n_bytes), "{n_bytes}");
        let arrays = weight(&[&b"[0],".repeat(1000)]);
        assert!(arrays > 300 * 1000, "{arrays}");
    }
}
