//! GBNF, the notation of grammars that llama.cpp and XGrammar read (`root ::= …`), in the notation of Lark.
//!
//! Owns the syntax and which repetitions one terminal can stand for: a terminal takes as much text as it can and never
//! gives any back, so one is made of a repetition only where what follows cannot be mistaken for more of it.

mod chars;
mod parse;

use std::fmt::Write as _;

use chars::Chars;
use parse::{Item, Node, Rule, parse};

/// Rounds in which sets of first and following characters settle, at most; each adds to a set.
const ROUNDS_MAX: usize = 100;

/// Whether a grammar is in this notation rather than Lark's.
pub(super) fn is_gbnf(text: &str) -> bool {
    let mut without_comments = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default());
    without_comments.any(|line| line.contains("::="))
}

/// Writes a grammar for llguidance; its start is the rule `root`.
///
/// # Errors
/// What is wrong with it, and where.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
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

/// A name that Lark takes for a rule's.
fn rule_name(idx: usize) -> String {
    format!("r{idx}")
}

/// What texts of a rule, or a part of one, begin with.
#[derive(Clone, Debug, Default, PartialEq)]
struct First {
    chars: Chars,
    /// The empty text is one of them.
    is_nullable: bool,
}

/// What each rule's texts begin with, and what may follow them.
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
                sets.note_follow(&rule.alternatives, &follow);
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

    /// Notes what follows the rules that are named in `alternatives`, which `follow` follows.
    fn note_follow(&mut self, alternatives: &[Vec<Item>], follow: &Chars) {
        for items in alternatives {
            for (idx, item) in items.iter().enumerate() {
                let behind = self.behind(&items[idx + 1..], item, follow);
                match &item.node {
                    Node::Rule(rule) => self.follow[*rule].add(&behind),
                    Node::Group(inner) => self.note_follow(inner, &behind),
                    Node::Literal(_) | Node::Class(_) => {}
                }
            }
        }
    }

    /// What may follow one text of an item: one more of it, or what comes behind it.
    fn behind(&self, rest: &[Item], item: &Item, follow: &Chars) -> Chars {
        let mut behind = self.after(rest, follow);
        if item.max != Some(1) {
            behind.add(&self.first_of_node(&item.node).chars);
        }
        behind
    }

    fn after(&self, rest: &[Item], follow: &Chars) -> Chars {
        let first = self.first_of_all(rest);
        let mut after = first.chars;
        if first.is_nullable {
            after.add(follow);
        }
        after
    }

    fn alternatives(&self, alternatives: &[Vec<Item>], follow: &Chars) -> String {
        let written = alternatives.iter().map(|items| self.sequence(items, follow));
        written.collect::<Vec<_>>().join(" | ")
    }

    fn sequence(&self, items: &[Item], follow: &Chars) -> String {
        if items.is_empty() {
            return "\"\"".to_owned();
        }
        let written = items.iter().enumerate().map(|(idx, item)| {
            let rest = &items[idx + 1..];
            if self.is_terminal(item, &self.after(rest, follow)) {
                terminal(item)
            } else {
                let body = self.node(&item.node, &self.behind(rest, item, follow));
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

    /// Whether one terminal can stand for all repetitions of an item that `after` follows.
    fn is_terminal(&self, item: &Item, after: &Chars) -> bool {
        let repeats = (item.min, item.max) != (1, Some(1));
        let first = self.first_of_node(&item.node).chars;
        repeats && self.is_prefix_free(&item.node) && !first.meets(after)
    }

    /// Whether no text of a node begins another of its texts, nor is empty; true only of nodes that name no rule.
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
                    let is_apart = !seen.meets(&first);
                    seen.add(&first);
                    let is_free = |item: &Item| is_one(item) && self.is_prefix_free(&item.node);
                    is_apart && !items.is_empty() && items.iter().all(is_free)
                })
            }
        }
    }
}

/// A text as Lark writes it.
pub(super) fn literal(text: &str) -> String {
    serde_json::Value::from(text)
        .to_string()
        .replace('\u{7f}', "\\u007f")
}

/// An item without rules as one regular expression that is never empty.
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
        Node::Rule(_) => unreachable!("terminals name no rules"),
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
