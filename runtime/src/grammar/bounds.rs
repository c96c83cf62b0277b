//! The bounds of constraints: how large and how deep what a request sends may be.

use super::error::Refusal;

/// The largest size of a part of a constraint.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bound {
    pub(super) size_max: usize,
    unit: &'static str,
}

/// Of a JSON schema, as JSON.
pub(super) const SCHEMA: Bound = Bound::new(1 << 20, "bytes");
/// Of a grammar or a regular expression.
pub(super) const TEXT: Bound = Bound::new(256 << 10, "bytes");
/// Of a grammar: the compiler recurses from one rule to the next.
pub(super) const RULES: Bound = Bound::new(2000, "rules");
/// Of brackets inside brackets: parsers recurse there.
pub(super) const DEPTH: Bound = Bound::new(100, "levels of brackets");
/// Of nested repeats in a regular expression, multiplied. Each is a state of the lexer.
pub(super) const REPEATS: Bound = Bound::new(20_000, "nested repeats");
/// Of a list of choices.
pub(super) const CHOICES: Bound = Bound::new(10_000, "choices");
/// Of all choices together.
pub(super) const CHOICE_BYTES: Bound = Bound::new(256 << 10, "bytes");

impl Bound {
    const fn new(size_max: usize, unit: &'static str) -> Self {
        Self { size_max, unit }
    }

    /// # Errors
    /// [`Refusal::TooLarge`] for a size beyond the bound.
    pub(super) fn check(&self, size: usize) -> Result<(), Refusal> {
        let Self { size_max, unit } = *self;
        if size <= size_max {
            return Ok(());
        }
        Err(Refusal::TooLarge { size, unit, size_max })
    }
}

/// Checks how many brackets are open at once, including those in strings.
///
/// # Errors
/// [`Refusal::TooLarge`] for more than [`DEPTH`].
pub(super) fn check_depth(text: &str) -> Result<(), Refusal> {
    let (mut depth, mut deepest) = (0usize, 0);
    for byte in text.bytes() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        deepest = deepest.max(depth);
    }
    DEPTH.check(deepest)
}
