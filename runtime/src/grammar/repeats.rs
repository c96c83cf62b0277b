//! How often the parts of a regular expression are repeated: repeats inside repeats multiply.

use super::bounds::REPEATS;
use super::error::Refusal;

/// Repeats of one part of an expression, so far.
#[derive(Clone, Copy, Default)]
struct Group {
    /// Of the last part.
    last: usize,
    /// The most of any part.
    most: usize,
    /// Number of repeats that are inside each other in the last part.
    n_nested: usize,
    /// The same in any part.
    n_nested_most: usize,
}

impl Group {
    fn add(&mut self, n: usize, n_nested: usize) {
        self.last = n;
        self.n_nested = n_nested;
        self.most = self.most.max(n);
        self.n_nested_most = self.n_nested_most.max(n_nested);
    }
}

/// Checks how often nested repeats of a regular expression repeat a part of it. A repeat alone has the bounds of its text.
///
/// # Errors
/// [`Refusal::TooLarge`] for more than [`REPEATS`].
pub(super) fn check_repeats(regex: &str) -> Result<(), Refusal> {
    let mut groups = vec![Group::default()];
    let (mut in_class, mut rest) = (false, regex.chars());
    while let Some(char) = rest.next() {
        match char {
            '(' if !in_class => {
                groups.push(Group::default());
                continue;
            }
            ')' if !in_class && groups.len() > 1 => {
                let inner = groups.pop().unwrap_or_default();
                if let Some(outer) = groups.last_mut() {
                    outer.add(inner.most.max(1), inner.n_nested_most);
                }
                continue;
            }
            _ => {}
        }
        let Some(group) = groups.last_mut() else { break };
        match char {
            '\\' => {
                rest.next();
                group.add(1, 0);
            }
            ']' => in_class = false,
            _ if in_class => {}
            '[' => {
                in_class = true;
                group.add(1, 0);
            }
            '{' => {
                let counts = rest.as_str().split('}').next().unwrap_or_default();
                if let Some(n) = largest(counts) {
                    let n_all = group.last.saturating_mul(n.max(1));
                    let n_nested = group.n_nested + 1;
                    if n_nested > 1 {
                        REPEATS.check(n_all)?;
                    }
                    group.add(n_all, n_nested);
                    rest = rest.as_str()[counts.len()..].chars();
                    rest.next();
                } else {
                    group.add(1, 0);
                }
            }
            _ => group.add(1, 0),
        }
    }
    Ok(())
}

/// The larger number of `m`, `m,` and `m,n`.
fn largest(counts: &str) -> Option<usize> {
    let (least, most) = counts.split_once(',').unwrap_or((counts, ""));
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| text.parse().unwrap_or(usize::MAX))
    };
    let least = number(least)?;
    Some(if most.is_empty() {
        least
    } else {
        number(most)?.max(least)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nested_repeats_multiply() {
        for regex in [
            "[a-z]{1,5000}",
            "(\\w+ ){1,1000}",
            "((a{1,50}){1,50}b{1,50}){2}",
            "(a{100}){50}(b{100}){50}",
            "\\({9999}\\({9999}",
            "[({]{9999}x{9999}",
            "a{b}{,5}{",
            "(()){9}",
        ] {
            assert_eq!(check_repeats(regex), Ok(()), "{regex}");
        }
        for regex in [
            "(((a{1,50}){1,50}){1,50}){1,50}",
            "(a{1000}){1000}",
            "(x(a|b{300}){300,}y)",
            "((?:[^)]{1,200})+-){200}",
            "(a{99999999999999999999}){2}",
        ] {
            assert!(check_repeats(regex).is_err(), "{regex}");
        }
    }
}
