//! The tokens that begin and end a sequence.
//!
//! Owns whether `tokenizer_config.json` adds them to the tokens of an encoder or removes them.

/// What a sequence begins and ends with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Boundaries {
    pub(super) begin: Boundary,
    pub(super) end: Boundary,
}

/// The tokens at one end of a sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Boundary {
    pub(super) ids: Vec<u32>,
    /// How a text writes these tokens.
    pub(super) text: Option<String>,
    /// Whether a sequence has them. `None` leaves the choice to the encoder.
    pub(super) is_wanted: Option<bool>,
}

impl Boundary {
    pub(super) fn new(id: Option<u32>, text: Option<String>, is_wanted: Option<bool>) -> Self {
        Self {
            ids: id.into_iter().collect(),
            text,
            is_wanted,
        }
    }
}

impl Boundaries {
    /// Adds the tokens to `ids` or removes them, where the configuration is explicit. Tokens that the text itself
    /// contains stay.
    pub(super) fn apply(&self, text: &str, ids: &mut Vec<u32>) {
        let Self { begin, end } = self;
        let is_written = begin.text.as_deref().is_some_and(|mark| text.starts_with(mark));
        match (begin.is_wanted, ids.starts_with(&begin.ids)) {
            (Some(true), false) => drop(ids.splice(..0, begin.ids.iter().copied())),
            (Some(false), true) if !is_written => drop(ids.drain(..begin.ids.len())),
            _ => {}
        }
        let is_written = end.text.as_deref().is_some_and(|mark| text.ends_with(mark));
        match (end.is_wanted, ids.ends_with(&end.ids)) {
            (Some(true), false) => ids.extend_from_slice(&end.ids),
            (Some(false), true) if !is_written => ids.truncate(ids.len() - end.ids.len()),
            _ => {}
        }
    }
}
