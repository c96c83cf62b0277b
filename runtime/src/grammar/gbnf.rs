//! Translates GBNF, the notation of llama.cpp and XGrammar (`root ::= …`), into Lark's.
//!
//! Owns the syntax, and which repetitions become one terminal. A terminal matches as much text as it can and never
//! backtracks, so a repetition becomes one only where the text after it cannot begin with more of it.

mod chars;
mod parse;

use std::cell::Cell;
use std::fmt::Write as _;

use super::bounds::STEPS;
use super::error::Refusal;
use super::lark::{EMPTY, literal};
use chars::Chars;
use parse::{Item, Node, Rule, parse};

/// Rounds until the sets of first and following characters are complete, at most. Each round adds to a set.
const ROUNDS_MAX: usize = 100;

/// Whether a grammar is in this notation, and not in Lark's.
pub(super) fn is_gbnf(text: &str) -> bool {
    let mut without_comments = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    without_comments.any(|line| line.contains("::="))
}

/// Translates a grammar, which starts with the rule `root`.
///
/// # Errors
/// What is wrong with the grammar, and in which line.
pub(super) fn translate(text: &str) -> Result<String, Refusal> {
    let rules = parse(text)?;
    let root = rules.iter().position(|rule| rule.name == "root");
    let root = root.ok_or("it has no rule named root")?;
    let sets = Sets::of(&rules)?;
    let mut lark = format!("start: {}\n", rule_name(root));
    for (idx, rule) in rules.iter().enumerate() {
        let follow = &sets.follow[idx];
        let body = sets.alternatives(&rule.alternatives, follow)?;
        let _ = writeln!(lark, "{}: {body}", rule_name(idx));
    }
    Ok(lark)
}

/// The name of a rule in Lark.
fn rule_name(idx: usize) -> String {
    format!("r{idx}")
}

/// What the texts of a rule, or of a part of one, begin with.
#[derive(Clone, Debug, Default, PartialEq)]
struct First {
    chars: Chars,
    /// Whether the empty text is one of them.
    is_nullable: bool,
}

/// What the texts of each rule begin with, and which characters may follow them.
struct Sets {
    first: Vec<First>,
    follow: Vec<Chars>,
    /// Items and ranges of characters that were handled so far.
    n_steps: Cell<usize>,
}

impl Sets {
    fn of(rules: &[Rule]) -> Result<Sets, Refusal> {
        let mut sets = Sets {
            first: vec![First::default(); rules.len()],
            follow: vec![Chars::default(); rules.len()],
            n_steps: Cell::new(0),
        };
        for _ in 0..ROUNDS_MAX {
            let before = (sets.first.clone(), sets.follow.clone());
            for (idx, rule) in rules.iter().enumerate() {
                sets.first[idx] = sets.first_of_any(&rule.alternatives)?;
            }
            for (idx, rule) in rules.iter().enumerate() {
                let follow = sets.follow[idx].clone();
                sets.add_follow(&rule.alternatives, &follow)?;
            }
            if before == (sets.first.clone(), sets.follow.clone()) {
                return Ok(sets);
            }
        }
        Err("its rules are nested too deeply".into())
    }

    /// Adds a set to another.
    fn join(&self, set: &mut Chars, other: &Chars) -> Result<(), Refusal> {
        self.count(set.n_ranges() + other.n_ranges())?;
        set.add(other);
        Ok(())
    }

    /// Counts a step that handles this number of ranges.
    fn count(&self, n_ranges: usize) -> Result<(), Refusal> {
        let n_steps = self.n_steps.get() + 1 + n_ranges;
        self.n_steps.set(n_steps);
        STEPS.check(n_steps)
    }

    fn first_of_any(&self, alternatives: &[Vec<Item>]) -> Result<First, Refusal> {
        let mut first = First::default();
        for items in alternatives {
            let of_items = self.first_of_all(items)?;
            self.join(&mut first.chars, &of_items.chars)?;
            first.is_nullable |= of_items.is_nullable;
        }
        Ok(first)
    }

    fn first_of_all(&self, items: &[Item]) -> Result<First, Refusal> {
        let mut chars = Chars::default();
        for item in items {
            let first = self.first_of_item(item)?;
            self.join(&mut chars, &first.chars)?;
            if !first.is_nullable {
                return Ok(First {
                    chars,
                    is_nullable: false,
                });
            }
        }
        Ok(First {
            chars,
            is_nullable: true,
        })
    }

    fn first_of_item(&self, item: &Item) -> Result<First, Refusal> {
        let first = self.first_of_node(&item.node)?;
        Ok(First {
            is_nullable: first.is_nullable || item.min == 0,
            ..first
        })
    }

    fn first_of_node(&self, node: &Node) -> Result<First, Refusal> {
        let first = match node {
            Node::Literal(text) => First {
                chars: Chars::of_ranges(text.chars().next().map(|char| (char, char))),
                is_nullable: text.is_empty(),
            },
            Node::Class(chars) => First {
                chars: chars.clone(),
                is_nullable: false,
            },
            Node::Rule(idx) => self.first[*idx].clone(),
            Node::Group(alternatives) => self.first_of_any(alternatives)?,
        };
        self.count(first.chars.n_ranges())?;
        Ok(first)
    }

    /// Adds what follows each rule that `alternatives` name. `follow` is what follows the alternatives.
    fn add_follow(&mut self, alternatives: &[Vec<Item>], follow: &Chars) -> Result<(), Refusal> {
        for items in alternatives {
            let mut next = follow.clone();
            for item in items.iter().rev() {
                let before = self.before(item, &next)?;
                match &item.node {
                    Node::Rule(rule) => {
                        let mut follow = std::mem::take(&mut self.follow[*rule]);
                        self.join(&mut follow, &before.inside)?;
                        self.follow[*rule] = follow;
                    }
                    Node::Group(inner) => self.add_follow(inner, &before.inside)?,
                    Node::Literal(_) | Node::Class(_) => {}
                }
                next = before.outside;
            }
        }
        Ok(())
    }

    /// What may follow the parts before and inside an item that `next` follows.
    fn before(&self, item: &Item, next: &Chars) -> Result<Before, Refusal> {
        let First { chars, is_nullable } = self.first_of_item(item)?;
        self.count(chars.n_ranges() + next.n_ranges())?;
        let mut inside = next.clone();
        if item.max != Some(1) {
            self.join(&mut inside, &chars)?;
        }
        let mut outside = chars;
        if is_nullable {
            self.join(&mut outside, next)?;
        }
        Ok(Before { inside, outside })
    }

    fn alternatives(&self, alternatives: &[Vec<Item>], follow: &Chars) -> Result<String, Refusal> {
        let written = alternatives.iter().map(|items| self.sequence(items, follow));
        Ok(written.collect::<Result<Vec<_>, _>>()?.join(" | "))
    }

    fn sequence(&self, items: &[Item], follow: &Chars) -> Result<String, Refusal> {
        if items.is_empty() {
            return Ok(EMPTY.to_owned());
        }
        let mut next = follow.clone();
        let mut written = Vec::with_capacity(items.len());
        for item in items.iter().rev() {
            let before = self.before(item, &next)?;
            written.push(if self.is_terminal(item, &next)? {
                terminal(item)
            } else {
                let body = self.node(&item.node, &before.inside)?;
                format!("{body}{}", repetition(item.min, item.max))
            });
            next = before.outside;
        }
        written.reverse();
        Ok(written.join(" "))
    }

    fn node(&self, node: &Node, follow: &Chars) -> Result<String, Refusal> {
        Ok(match node {
            Node::Literal(text) => literal(text),
            Node::Class(chars) => format!("/{}/", chars.to_regex()),
            Node::Rule(idx) => rule_name(*idx),
            Node::Group(alternatives) => format!("({})", self.alternatives(alternatives, follow)?),
        })
    }

    /// Whether one terminal can match all repetitions of an item. `next` is what follows the last one.
    fn is_terminal(&self, item: &Item, next: &Chars) -> Result<bool, Refusal> {
        let repeats = (item.min, item.max) != (1, Some(1));
        Ok(repeats && self.is_prefix_free(&item.node)? && !self.first_of_node(&item.node)?.chars.meets(next))
    }

    /// Whether the node names no rule, and none of its texts is empty or a prefix of another.
    fn is_prefix_free(&self, node: &Node) -> Result<bool, Refusal> {
        let alternatives = match node {
            Node::Literal(text) => return Ok(!text.is_empty()),
            Node::Class(_) => return Ok(true),
            Node::Rule(_) => return Ok(false),
            Node::Group(alternatives) => alternatives,
        };
        let mut seen = Chars::default();
        for items in alternatives {
            let first = self.first_of_all(items)?.chars;
            if items.is_empty() || seen.meets(&first) {
                return Ok(false);
            }
            self.join(&mut seen, &first)?;
            for item in items {
                let is_one = item.max == Some(item.min) && item.min > 0;
                if !is_one || !self.is_prefix_free(&item.node)? {
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }
}

/// What may follow the parts of a sequence.
struct Before {
    /// Follows one text of an item: another text of it, or what comes after it.
    inside: Chars,
    /// Follows the part before an item: the item, or what comes after it if the item may be empty.
    outside: Chars,
}

/// An item without rules as one regular expression that never matches the empty text.
fn terminal(item: &Item) -> String {
    let repeated = format!("/{}{}/", regex(&item.node), repetition(item.min.max(1), item.max));
    if item.min == 0 {
        format!("({repeated})?")
    } else {
        repeated
    }
}

fn regex(node: &Node) -> String {
    match node {
        Node::Literal(text) => format!("(?:{})", text.chars().map(chars::escaped).collect::<String>()),
        Node::Class(chars) => chars.to_regex(),
        Node::Rule(_) => unreachable!("a terminal names no rule"),
        Node::Group(alternatives) => {
            let item = |item: &Item| format!("{}{}", regex(&item.node), repetition(item.min, item.max));
            let all = |items: &Vec<Item>| items.iter().map(item).collect::<String>();
            format!(
                "(?:{})",
                alternatives.iter().map(all).collect::<Vec<_>>().join("|")
            )
        }
    }
}

fn repetition(min: u32, max: Option<u32>) -> String {
    match (min, max) {
        (1, Some(1)) => String::new(),
        (0, None) => "*".to_owned(),
        (1, None) => "+".to_owned(),
        (min, None) => format!("{{{min},}}"),
        (min, Some(max)) => format!("{{{min},{max}}}"),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn n_steps(grammar: &str) -> usize {
        let sets = Sets::of(&parse(grammar).unwrap()).unwrap();
        sets.n_steps.get()
    }

    #[test]
    fn the_translation_of_a_sequence_is_linear() {
        for item in ["\"a\"? ", "[a-f]* ", "(\"a\" | \"b\"?) "] {
            let [few, many] = [500, 1000].map(|n| n_steps(&format!("root ::= {}", item.repeat(n))));
            assert!(many < 2 * few + few / 10, "{item}: {few} and {many} steps");
        }
    }

    #[test]
    fn a_translation_of_too_many_steps_is_refused() {
        let rules: String = (0..99)
            .map(|idx| format!("r{idx} ::= {}\n", format!("r{}? ", idx + 1).repeat(300)))
            .collect();
        let classes: String = (0..2000)
            .map(|idx| char::from_u32(0x3000 + 2 * idx).unwrap())
            .collect();
        for grammar in [
            format!("root ::= r0\n{rules}r99 ::= \"a\""),
            format!("root ::= {}\nx ::= [{classes}]", "x? ".repeat(10_000)),
        ] {
            let refused = translate(&grammar);
            assert!(matches!(refused, Err(Refusal::TooLarge { .. })), "{refused:?}");
        }
    }

    /// What may follow an item of a sequence, by definition: what the first of the items after it that is not empty
    /// begins with, and what follows the sequence if all may be empty.
    fn defined(sets: &Sets, items: &[Item], follow: &Chars) -> Chars {
        let mut chars = Chars::default();
        for item in items {
            let first = sets.first_of_item(item).unwrap();
            chars.add(&first.chars);
            if !first.is_nullable {
                return chars;
            }
        }
        chars.add(follow);
        chars
    }

    proptest! {
        #[test]
        fn what_precedes_an_item_follows_from_what_follows_it(
            items in prop::collection::vec((0..6usize, 0..4usize), 1..8),
        ) {
            let nodes = ["\"a\"", "\"\"", "[b-d]", "(\"e\"?)", "(\"f\" | \"\" \"g\")", "x"];
            let repetitions = ["", "?", "*", "{2}"];
            let items: Vec<String> =
                items.iter().map(|(node, repetition)| format!("{}{}", nodes[*node], repetitions[*repetition])).collect();
            let grammar = format!("root ::= {}\nx ::= \"h\"?", items.join(" "));
            let rules = parse(&grammar).unwrap();
            let sets = Sets::of(&rules).unwrap();
            let items = &rules[0].alternatives[0];
            let follow = Chars::of_ranges([('z', 'z')]);
            let mut next = follow.clone();
            for idx in (0..items.len()).rev() {
                prop_assert_eq!(&next, &defined(&sets, &items[idx + 1..], &follow));
                next = sets.before(&items[idx], &next).unwrap().outside;
            }
            prop_assert_eq!(next, defined(&sets, items, &follow));
        }
    }
}
