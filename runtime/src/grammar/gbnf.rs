//! Translates GBNF, the notation of llama.cpp and XGrammar (`root ::= …`), into Lark's.
//!
//! Owns the syntax, and which repetitions become one terminal. A terminal matches as much text as it can and never
//! backtracks, so a repetition becomes one only where the text after it cannot begin with more of it.

mod chars;
mod parse;

use std::fmt::Write as _;

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
pub(super) fn translate(text: &str) -> Result<String, String> {
    let rules = parse(text)?;
    let root = rules.iter().position(|rule| rule.name == "root");
    let root = root.ok_or_else(|| "it has no rule named root".to_owned())?;
    let sets = Sets::of(&rules)?;
    let mut lark = format!("start: {}\n", rule_name(root));
    for (idx, rule) in rules.iter().enumerate() {
        let follow = &sets.follow[idx];
        let body = sets.alternatives(&rule.alternatives, follow);
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
}

impl Sets {
    fn of(rules: &[Rule]) -> Result<Sets, String> {
        let mut sets = Sets {
            first: vec![First::default(); rules.len()],
            follow: vec![Chars::default(); rules.len()],
        };
        for _ in 0..ROUNDS_MAX {
            let before = (sets.first.clone(), sets.follow.clone());
            for (idx, rule) in rules.iter().enumerate() {
                sets.first[idx] = sets.first_of_any(&rule.alternatives);
            }
            for (idx, rule) in rules.iter().enumerate() {
                let follow = sets.follow[idx].clone();
                sets.add_follow(&rule.alternatives, &follow);
            }
            if before == (sets.first.clone(), sets.follow.clone()) {
                return Ok(sets);
            }
        }
        Err("its rules are nested too deeply".to_owned())
    }

    fn first_of_any(&self, alternatives: &[Vec<Item>]) -> First {
        let mut first = First::default();
        for items in alternatives {
            let of_items = self.first_of_all(items);
            first.chars.add(&of_items.chars);
            first.is_nullable |= of_items.is_nullable;
        }
        first
    }

    fn first_of_all(&self, items: &[Item]) -> First {
        let mut chars = Chars::default();
        for item in items {
            let first = self.first_of_item(item);
            chars.add(&first.chars);
            if !first.is_nullable {
                return First {
                    chars,
                    is_nullable: false,
                };
            }
        }
        First {
            chars,
            is_nullable: true,
        }
    }

    fn first_of_item(&self, item: &Item) -> First {
        let first = self.first_of_node(&item.node);
        First {
            is_nullable: first.is_nullable || item.min == 0,
            ..first
        }
    }

    fn first_of_node(&self, node: &Node) -> First {
        match node {
            Node::Literal(text) => First {
                chars: text.chars().take(1).collect(),
                is_nullable: text.is_empty(),
            },
            Node::Class(chars) => First {
                chars: chars.clone(),
                is_nullable: false,
            },
            Node::Rule(idx) => self.first[*idx].clone(),
            Node::Group(alternatives) => self.first_of_any(alternatives),
        }
    }

    /// Adds what follows each rule that `alternatives` name. `follow` is what follows the alternatives.
    fn add_follow(&mut self, alternatives: &[Vec<Item>], follow: &Chars) {
        for items in alternatives {
            for (idx, item) in items.iter().enumerate() {
                let next = self.follow_of_item(item, &items[idx + 1..], follow);
                match &item.node {
                    Node::Rule(rule) => self.follow[*rule].add(&next),
                    Node::Group(inner) => self.add_follow(inner, &next),
                    Node::Literal(_) | Node::Class(_) => {}
                }
            }
        }
    }

    /// What may follow one text of an item: another text of it, or the rest of the sequence.
    fn follow_of_item(&self, item: &Item, rest: &[Item], follow: &Chars) -> Chars {
        let mut chars = self.first_of_rest(rest, follow);
        if item.max != Some(1) {
            chars.add(&self.first_of_node(&item.node).chars);
        }
        chars
    }

    /// What the rest of a sequence begins with, or what follows the sequence if the rest may be empty.
    fn first_of_rest(&self, rest: &[Item], follow: &Chars) -> Chars {
        let first = self.first_of_all(rest);
        let mut chars = first.chars;
        if first.is_nullable {
            chars.add(follow);
        }
        chars
    }

    fn alternatives(&self, alternatives: &[Vec<Item>], follow: &Chars) -> String {
        let written = alternatives.iter().map(|items| self.sequence(items, follow));
        written.collect::<Vec<_>>().join(" | ")
    }

    fn sequence(&self, items: &[Item], follow: &Chars) -> String {
        if items.is_empty() {
            return EMPTY.to_owned();
        }
        let written = items.iter().enumerate().map(|(idx, item)| {
            let rest = &items[idx + 1..];
            if self.is_terminal(item, &self.first_of_rest(rest, follow)) {
                terminal(item)
            } else {
                let body = self.node(&item.node, &self.follow_of_item(item, rest, follow));
                format!("{body}{}", repetition(item.min, item.max))
            }
        });
        written.collect::<Vec<_>>().join(" ")
    }

    fn node(&self, node: &Node, follow: &Chars) -> String {
        match node {
            Node::Literal(text) => literal(text),
            Node::Class(chars) => format!("/{}/", chars.to_regex()),
            Node::Rule(idx) => rule_name(*idx),
            Node::Group(alternatives) => format!("({})", self.alternatives(alternatives, follow)),
        }
    }

    /// Whether one terminal can match all repetitions of an item. `next` is what follows the last one.
    fn is_terminal(&self, item: &Item, next: &Chars) -> bool {
        let repeats = (item.min, item.max) != (1, Some(1));
        let first = self.first_of_node(&item.node).chars;
        repeats && self.is_prefix_free(&item.node) && !first.meets(next)
    }

    /// Whether the node names no rule, and none of its texts is empty or a prefix of another.
    fn is_prefix_free(&self, node: &Node) -> bool {
        let is_one = |item: &Item| item.max == Some(item.min) && item.min > 0;
        match node {
            Node::Literal(text) => !text.is_empty(),
            Node::Class(_) => true,
            Node::Rule(_) => false,
            Node::Group(alternatives) => {
                let mut seen = Chars::default();
                alternatives.iter().all(|items| {
                    let first = self.first_of_all(items).chars;
                    let is_disjoint = !seen.meets(&first);
                    seen.add(&first);
                    let is_free = |item: &Item| is_one(item) && self.is_prefix_free(&item.node);
                    is_disjoint && !items.is_empty() && items.iter().all(is_free)
                })
            }
        }
    }
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
