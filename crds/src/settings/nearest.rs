//! The known name that is most like an unknown one, for error messages.

use super::{SETTINGS, Setting, foreign};

/// Edits per length of a name up to which another one is like it.
const EDITS_PER_LENGTH_MAX: f64 = 0.4;

/// The flag that is most like this one, without dashes; `None` if none is.
pub(super) fn flag(name: &str) -> Option<String> {
    let foreign = foreign().flat_map(|foreign| foreign.flags().collect::<Vec<_>>());
    let known = SETTINGS.iter().map(Setting::flag).chain(foreign);
    let distances = known.map(|known| (strsim::damerau_levenshtein(name, &known), known));
    let (distance, nearest) = distances.min_by_key(|(distance, _)| *distance)?;
    let is_like = distance as f64 <= name.chars().count() as f64 * EDITS_PER_LENGTH_MAX;
    is_like.then_some(nearest)
}
