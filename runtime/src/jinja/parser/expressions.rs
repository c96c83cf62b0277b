//! Expressions, from the loosest operator to the tightest.

use super::stream::{Stream, described};
use crate::jinja::error::Result;
use crate::jinja::lexer::Kind;
use crate::jinja::number::parse_integer;
use crate::jinja::syntax::{
    ArgumentList, Call, Comparison, Condition, Constant, Expr, Named, Operator, Target,
};

const COMPARISONS: [(&str, Comparison); 6] = [
    ("==", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<=", Comparison::LessEqual),
    (">=", Comparison::GreaterEqual),
    ("<", Comparison::Less),
    (">", Comparison::Greater),
];
const SUMS: [(&str, Operator); 2] = [("+", Operator::Add), ("-", Operator::Sub)];
const PRODUCTS: [(&str, Operator); 4] = [
    ("*", Operator::Mul),
    ("/", Operator::Div),
    ("//", Operator::FloorDiv),
    ("%", Operator::Mod),
];
const POWERS: [(&str, Operator); 1] = [("**", Operator::Pow)];

/// Whether an expression may be a condition, `a if b else c`.
#[derive(Clone, Copy)]
enum Conditions {
    Allowed,
    Refused,
}

/// An expression.
pub(super) fn expression(stream: &mut Stream) -> Result<Expr> {
    stream.enter()?;
    let mut value = or(stream)?;
    let mut n_levels = 1;
    while stream.skip_name("if") {
        stream.enter()?;
        n_levels += 1;
        let test = or(stream)?;
        let otherwise = match stream.skip_name("else") {
            true => Some(expression(stream)?),
            false => None,
        };
        value = Expr::Condition(Box::new(Condition {
            test,
            then: value,
            otherwise,
        }));
    }
    stream.leave(n_levels);
    Ok(value)
}

/// An expression or a tuple without brackets; `ends` are names that end it.
pub(super) fn tuple(stream: &mut Stream, ends: &[&str]) -> Result<Expr> {
    listed(stream, Conditions::Allowed, ends)
}

/// The same, without conditions.
pub(super) fn without_condition(stream: &mut Stream, ends: &[&str]) -> Result<Expr> {
    listed(stream, Conditions::Refused, ends)
}

fn listed(stream: &mut Stream, conditions: Conditions, ends: &[&str]) -> Result<Expr> {
    let mut items = Vec::new();
    let mut is_tuple = false;
    while !ends_tuple(stream, ends) {
        items.push(match conditions {
            Conditions::Allowed => expression(stream)?,
            Conditions::Refused => or(stream)?,
        });
        if !stream.skip_operator(",") {
            break;
        }
        is_tuple = true;
    }
    match (items.len(), is_tuple) {
        (0, false) => {
            let found = described(stream.current());
            Err(stream.error(format!("Expected an expression, got {found}")))
        }
        (1, false) => Ok(items.remove(0)),
        _ => Ok(Expr::Tuple(items)),
    }
}

fn ends_tuple(stream: &Stream, ends: &[&str]) -> bool {
    matches!(
        stream.current(),
        Kind::VariableEnd | Kind::BlockEnd | Kind::Operator(")")
    ) || ends.iter().any(|end| stream.is_name(end))
}

/// What a value is assigned to.
pub(super) fn assigned(stream: &mut Stream, ends: &[&str]) -> Result<Target> {
    let mut targets = Vec::new();
    let mut is_tuple = false;
    while !ends_tuple(stream, ends) && !stream.is_operator("=") {
        targets.push(target(stream)?);
        if !stream.skip_operator(",") {
            break;
        }
        is_tuple = true;
    }
    match (targets.len(), is_tuple) {
        (0, _) => Err(stream.error("expected a name to assign to")),
        (1, false) => Ok(targets.remove(0)),
        _ => Ok(Target::Tuple(targets)),
    }
}

fn target(stream: &mut Stream) -> Result<Target> {
    if stream.skip_operator("(") {
        stream.enter()?;
        let inside = assigned(stream, &[])?;
        stream.leave(1);
        stream.expect_operator(")")?;
        return Ok(inside);
    }
    let name = stream.name()?;
    let symbol = stream.symbol(&name)?;
    if stream.skip_operator(".") {
        return Ok(Target::Attribute(symbol, stream.name()?));
    }
    Ok(Target::Name(symbol))
}

fn or(stream: &mut Stream) -> Result<Expr> {
    let mut left = and(stream)?;
    let mut n_levels = 0;
    while stream.skip_name("or") {
        stream.enter()?;
        n_levels += 1;
        left = Expr::Or(Box::new(left), Box::new(and(stream)?));
    }
    stream.leave(n_levels);
    Ok(left)
}

fn and(stream: &mut Stream) -> Result<Expr> {
    let mut left = not(stream)?;
    let mut n_levels = 0;
    while stream.skip_name("and") {
        stream.enter()?;
        n_levels += 1;
        left = Expr::And(Box::new(left), Box::new(not(stream)?));
    }
    stream.leave(n_levels);
    Ok(left)
}

fn not(stream: &mut Stream) -> Result<Expr> {
    if !stream.skip_name("not") {
        return comparison(stream);
    }
    stream.enter()?;
    let value = not(stream)?;
    stream.leave(1);
    Ok(Expr::Not(Box::new(value)))
}

fn comparison(stream: &mut Stream) -> Result<Expr> {
    let first = sum(stream)?;
    let mut others = Vec::new();
    loop {
        let is_not_in =
            stream.is_name("not") && matches!(stream.behind(), Some(Kind::Name(name)) if name == "in");
        let symbol = COMPARISONS.iter().find(|(symbol, _)| stream.is_operator(symbol));
        let comparison = match symbol {
            Some((_, comparison)) => *comparison,
            None if stream.is_name("in") => Comparison::In,
            None if is_not_in => Comparison::NotIn,
            None => break,
        };
        stream.next();
        if is_not_in {
            stream.next();
        }
        others.push((comparison, sum(stream)?));
    }
    if others.is_empty() {
        return Ok(first);
    }
    Ok(Expr::Compare(Box::new(first), others))
}

fn sum(stream: &mut Stream) -> Result<Expr> {
    chain(stream, &SUMS, concat)
}

fn concat(stream: &mut Stream) -> Result<Expr> {
    let mut items = vec![product(stream)?];
    while stream.skip_operator("~") {
        items.push(product(stream)?);
    }
    if items.len() == 1 {
        return Ok(items.remove(0));
    }
    Ok(Expr::Concat(items))
}

fn product(stream: &mut Stream) -> Result<Expr> {
    chain(stream, &PRODUCTS, power)
}

fn power(stream: &mut Stream) -> Result<Expr> {
    chain(stream, &POWERS, unary)
}

/// Operands that `next` reads, between some of these operators.
fn chain(
    stream: &mut Stream,
    operators: &[(&str, Operator)],
    next: fn(&mut Stream) -> Result<Expr>,
) -> Result<Expr> {
    let mut left = next(stream)?;
    let mut n_levels = 0;
    while let Some((_, operator)) = operators.iter().find(|(symbol, _)| stream.is_operator(symbol)) {
        stream.next();
        stream.enter()?;
        n_levels += 1;
        left = Expr::Binary(*operator, Box::new(left), Box::new(next(stream)?));
    }
    stream.leave(n_levels);
    Ok(left)
}

fn unary(stream: &mut Stream) -> Result<Expr> {
    let value = signed(stream)?;
    filters(stream, value)
}

/// An operand without filters, which bind looser than a sign.
fn signed(stream: &mut Stream) -> Result<Expr> {
    stream.enter()?;
    let value = if stream.skip_operator("-") {
        Expr::Negative(Box::new(signed(stream)?))
    } else if stream.skip_operator("+") {
        Expr::Positive(Box::new(signed(stream)?))
    } else {
        primary(stream)?
    };
    let value = postfix(stream, value)?;
    stream.leave(1);
    Ok(value)
}

fn primary(stream: &mut Stream) -> Result<Expr> {
    let token = stream.next();
    let constant = match token.kind {
        Kind::Name(name) => match name.as_str() {
            "true" | "True" => Constant::Bool(true),
            "false" | "False" => Constant::Bool(false),
            "none" | "None" => Constant::None,
            _ => return Ok(Expr::Name(stream.symbol(&name)?)),
        },
        Kind::Text(mut text) => {
            while let Kind::Text(_) = stream.current()
                && let Kind::Text(more) = stream.next().kind
            {
                text.push_str(&more);
            }
            Constant::Text(text)
        }
        Kind::Integer(digits) => integer(stream, &digits)?,
        Kind::Float(number) => Constant::Float(number),
        Kind::Operator("(") => return bracketed(stream),
        Kind::Operator("[") => {
            return Ok(Expr::List(separated(stream, "]", expression)?));
        }
        Kind::Operator("{") => {
            let entry = |stream: &mut Stream| {
                let key = expression(stream)?;
                stream.expect_operator(":")?;
                Ok((key, expression(stream)?))
            };
            return Ok(Expr::Dict(separated(stream, "}", entry)?));
        }
        other => return Err(stream.error(format!("unexpected {}", described(&other)))),
    };
    Ok(Expr::Constant(stream.constant(constant)))
}

fn integer(stream: &Stream, digits: &str) -> Result<Constant> {
    let number = parse_integer(digits, 0).ok_or_else(|| stream.error("an integer has too many digits"))?;
    Ok(match i64::try_from(&number) {
        Ok(number) => Constant::Int(number),
        Err(_) => Constant::Big(number.to_string()),
    })
}

fn bracketed(stream: &mut Stream) -> Result<Expr> {
    if stream.skip_operator(")") {
        return Ok(Expr::Tuple(Vec::new()));
    }
    let value = tuple(stream, &[])?;
    stream.expect_operator(")")?;
    Ok(value)
}

/// Items with commas between them, up to `end`.
fn separated<T>(
    stream: &mut Stream,
    end: &'static str,
    item: impl Fn(&mut Stream) -> Result<T>,
) -> Result<Vec<T>> {
    let mut items = Vec::new();
    while !stream.skip_operator(end) {
        if !items.is_empty() {
            stream.expect_operator(",")?;
            if stream.skip_operator(end) {
                break;
            }
        }
        items.push(item(stream)?);
    }
    Ok(items)
}

/// Attributes, items and calls behind a value.
fn postfix(stream: &mut Stream, mut value: Expr) -> Result<Expr> {
    let mut n_levels = 0;
    loop {
        value = if stream.skip_operator(".") {
            attribute(stream, value)?
        } else if stream.skip_operator("[") {
            item(stream, value)?
        } else if stream.is_operator("(") {
            call(stream, value)?
        } else {
            stream.leave(n_levels);
            return Ok(value);
        };
        stream.enter()?;
        n_levels += 1;
    }
}

/// Filters, tests and calls behind a value.
fn filters(stream: &mut Stream, mut value: Expr) -> Result<Expr> {
    let mut n_levels = 0;
    loop {
        value = if stream.skip_operator("|") {
            filter(stream, value)?
        } else if stream.skip_name("is") {
            test(stream, value)?
        } else if stream.is_operator("(") {
            call(stream, value)?
        } else {
            stream.leave(n_levels);
            return Ok(value);
        };
        stream.enter()?;
        n_levels += 1;
    }
}

/// A filter, and those behind it.
pub(super) fn filtered(stream: &mut Stream, value: Expr) -> Result<Expr> {
    let mut value = filter(stream, value)?;
    let mut n_levels = 0;
    while stream.skip_operator("|") {
        stream.enter()?;
        n_levels += 1;
        value = filter(stream, value)?;
    }
    stream.leave(n_levels);
    Ok(value)
}

fn filter(stream: &mut Stream, value: Expr) -> Result<Expr> {
    let name = dotted_name(stream)?;
    let arguments = match stream.is_operator("(") {
        true => argument_list(stream)?,
        false => ArgumentList::default(),
    };
    Ok(Expr::Filter(Box::new(Named {
        name,
        value,
        arguments,
    })))
}

fn dotted_name(stream: &mut Stream) -> Result<String> {
    let mut name = stream.name()?;
    while stream.skip_operator(".") {
        name.push('.');
        name.push_str(&stream.name()?);
    }
    Ok(name)
}

fn test(stream: &mut Stream, value: Expr) -> Result<Expr> {
    let is_negated = stream.skip_name("not");
    let name = dotted_name(stream)?;
    let begins_value = match stream.current() {
        Kind::Name(name) => !matches!(name.as_str(), "else" | "or" | "and"),
        Kind::Text(_) | Kind::Integer(_) | Kind::Float(_) | Kind::Operator("[" | "{") => true,
        _ => false,
    };
    let arguments = if stream.is_operator("(") {
        argument_list(stream)?
    } else if begins_value {
        if stream.is_name("is") {
            return Err(stream.error("You cannot chain multiple tests with is"));
        }
        let value = primary(stream)?;
        ArgumentList {
            positional: vec![postfix(stream, value)?],
            ..ArgumentList::default()
        }
    } else {
        ArgumentList::default()
    };
    let test = Expr::Test(Box::new(Named {
        name,
        value,
        arguments,
    }));
    Ok(match is_negated {
        true => Expr::Not(Box::new(test)),
        false => test,
    })
}

fn attribute(stream: &mut Stream, value: Expr) -> Result<Expr> {
    match stream.next().kind {
        Kind::Name(name) => Ok(Expr::Attribute(Box::new(value), name)),
        Kind::Integer(digits) => {
            let idx = integer(stream, &digits)?;
            let idx = Expr::Constant(stream.constant(idx));
            Ok(Expr::Item(Box::new(value), Box::new(idx)))
        }
        _ => Err(stream.error("expected name or number")),
    }
}

fn item(stream: &mut Stream, value: Expr) -> Result<Expr> {
    let value = Box::new(value);
    if stream.skip_operator("]") {
        return Ok(Expr::Item(value, Box::new(Expr::Tuple(Vec::new()))));
    }
    let first = match subscript(stream)? {
        Subscript::Slice(bounds) => {
            stream.expect_operator("]")?;
            return Ok(Expr::Slice(value, bounds));
        }
        Subscript::Item(first) if stream.skip_operator("]") => {
            return Ok(Expr::Item(value, Box::new(first)));
        }
        Subscript::Item(first) => first,
    };
    stream.expect_operator(",")?;
    let mut items = vec![first];
    items.extend(separated(stream, "]", expression)?);
    Ok(Expr::Item(value, Box::new(Expr::Tuple(items))))
}

enum Subscript {
    Item(Expr),
    Slice(Box<[Option<Expr>; 3]>),
}

fn subscript(stream: &mut Stream) -> Result<Subscript> {
    let start = match stream.is_operator(":") {
        true => None,
        false => Some(expression(stream)?),
    };
    Ok(match start {
        Some(item) if !stream.is_operator(":") => Subscript::Item(item),
        start => Subscript::Slice(Box::new(bounds(stream, start)?)),
    })
}

/// The bounds of a slice behind its start.
fn bounds(stream: &mut Stream, start: Option<Expr>) -> Result<[Option<Expr>; 3]> {
    let bound = |stream: &mut Stream| -> Result<Option<Expr>> {
        if !stream.skip_operator(":") || stream.is_operator(":") || stream.is_operator("]") {
            return Ok(None);
        }
        Ok(Some(expression(stream)?))
    };
    Ok([start, bound(stream)?, bound(stream)?])
}

fn call(stream: &mut Stream, callee: Expr) -> Result<Expr> {
    let arguments = argument_list(stream)?;
    Ok(Expr::Call(Box::new(Call { callee, arguments })))
}

/// The arguments of a call, brackets included.
fn argument_list(stream: &mut Stream) -> Result<ArgumentList> {
    stream.expect_operator("(")?;
    let mut list = ArgumentList::default();
    let mut n = 0;
    while !stream.skip_operator(")") {
        if n > 0 {
            stream.expect_operator(",")?;
            if stream.skip_operator(")") {
                break;
            }
        }
        n += 1;
        argument(stream, &mut list)?;
    }
    Ok(list)
}

fn argument(stream: &mut Stream, list: &mut ArgumentList) -> Result<()> {
    let has_rest = list.rest.is_some() || list.named_rest.is_some();
    let is_named = matches!(stream.current(), Kind::Name(_)) && stream.behind() == Some(&Kind::Operator("="));
    let invalid = if stream.is_operator("*") {
        has_rest
    } else if stream.is_operator("**") || is_named {
        list.named_rest.is_some()
    } else {
        has_rest || !list.named.is_empty()
    };
    if invalid {
        return Err(stream.error("invalid syntax for function call expression"));
    }
    if stream.skip_operator("*") {
        list.rest = Some(expression(stream)?);
    } else if stream.skip_operator("**") {
        list.named_rest = Some(expression(stream)?);
    } else if is_named {
        let name = stream.name()?;
        stream.expect_operator("=")?;
        list.named.push((name, expression(stream)?));
    } else {
        list.positional.push(expression(stream)?);
    }
    Ok(())
}
