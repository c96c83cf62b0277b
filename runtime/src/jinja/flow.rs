//! Where values of a template come from, as far as its assignments and loops show.

use std::collections::BTreeSet;

use super::syntax::{Constant, Expr, Node, Statement, Symbol, Target, Tree};

/// Whether a template has a loop over the attribute `attribute` of the items of the variable `list`.
///
/// The names of what is assigned count in the whole template, as if it had no scopes.
pub(super) fn loops_over(tree: &Tree, list: &str, attribute: &str) -> bool {
    let Some(list) = tree.names.iter().position(|name| name == list) else {
        return false;
    };
    let mut assignments = Vec::new();
    gather(&tree.body, &mut assignments);
    let lists = with_copies(
        BTreeSet::from([Symbol(list as u32)]),
        &assignments,
        &|expr, names| matches!(plain(expr), Expr::Name(name) if names.contains(name)),
    );
    let is_list = |expr: &Expr| matches!(plain(expr), Expr::Name(name) if lists.contains(name));
    let items = assignments.iter().filter_map(|assignment| match assignment {
        Assignment::Item(name, expr) if is_list(expr) => Some(*name),
        _ => None,
    });
    let items: BTreeSet<Symbol> = items.collect();
    let is_item = |expr: &Expr| match plain(expr) {
        Expr::Name(name) => items.contains(name),
        // `messages[0]` is an item too.
        Expr::Item(value, _) => is_list(value),
        _ => false,
    };
    let is_attribute = |expr: &Expr| match plain(expr) {
        Expr::Attribute(value, name) => name == attribute && is_item(value),
        Expr::Item(value, index) => {
            let is_name = matches!(&**index, Expr::Constant(idx)
                if matches!(&tree.constants[*idx], Constant::Text(text) if text == attribute));
            is_name && is_item(value)
        }
        _ => false,
    };
    let copies = with_copies(BTreeSet::new(), &assignments, &|expr, names| {
        is_attribute(expr) || matches!(plain(expr), Expr::Name(name) if names.contains(name))
    });
    assignments.iter().any(|assignment| match assignment {
        Assignment::Item(_, expr) => {
            is_attribute(expr) || matches!(plain(expr), Expr::Name(name) if copies.contains(name))
        }
        Assignment::Value(..) => false,
    })
}

/// An assignment of a template.
enum Assignment<'t> {
    Value(Symbol, &'t Expr),
    /// The variable of a loop over this value.
    Item(Symbol, &'t Expr),
}

/// The names, and those that are assigned what `is_copy` admits.
fn with_copies(
    mut names: BTreeSet<Symbol>,
    assignments: &[Assignment<'_>],
    is_copy: &dyn Fn(&Expr, &BTreeSet<Symbol>) -> bool,
) -> BTreeSet<Symbol> {
    loop {
        let n = names.len();
        for assignment in assignments {
            if let Assignment::Value(name, expr) = assignment
                && is_copy(expr, &names)
            {
                names.insert(*name);
            }
        }
        if names.len() == n {
            return names;
        }
    }
}

/// An expression without the filters, tests and slices around it.
fn plain(expr: &Expr) -> &Expr {
    match expr {
        Expr::Filter(filter) => plain(&filter.value),
        Expr::Slice(value, _) => plain(value),
        other => other,
    }
}

fn gather<'t>(nodes: &'t [Node], found: &mut Vec<Assignment<'t>>) {
    for node in nodes {
        match &node.statement {
            Statement::For(definition) => {
                if let Target::Name(name) = definition.target {
                    found.push(Assignment::Item(name, &definition.iterable));
                }
                gather(&definition.body, found);
                gather(&definition.otherwise, found);
            }
            Statement::If(branches, otherwise) => {
                branches.iter().for_each(|(_, body)| gather(body, found));
                gather(otherwise, found);
            }
            Statement::Set(Target::Name(name), value) => found.push(Assignment::Value(*name, value)),
            Statement::With(values, body) => {
                for (target, value) in values {
                    if let Target::Name(name) = target {
                        found.push(Assignment::Value(*name, value));
                    }
                }
                gather(body, found);
            }
            Statement::Macro(definition) => gather(&definition.body, found),
            Statement::CallBlock(caller, _) => gather(&caller.body, found),
            Statement::SetBlock(_, _, body) | Statement::FilterBlock(_, body) | Statement::Scope(body) => {
                gather(body, found);
            }
            Statement::Block(block) => gather(&block.body, found),
            _ => {}
        }
    }
}
