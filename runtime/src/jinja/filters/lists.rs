//! The filters of lists and mappings.

use indexmap::IndexSet;

use crate::jinja::arguments::{Arguments, int};
use crate::jinja::attributes::item;
use crate::jinja::compare::{equal, less, sorted};
use crate::jinja::display::{string_or, write};
use crate::jinja::error::{Result, failed};
use crate::jinja::iterate::{Iter, items, iterate, reversed};
use crate::jinja::meter::{Meter, Output};
use crate::jinja::methods::text::cased;
use crate::jinja::operators::binary;
use crate::jinja::syntax::Operator;
use crate::jinja::value::{Key, Produce, Value};

pub(super) const NAMES: [&str; 14] = [
    "batch", "dictsort", "first", "groupby", "join", "last", "list", "max", "min", "reverse", "slice",
    "sort", "sum", "unique",
];

/// Calls a filter of this file.
pub(super) fn call(name: &str, value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    match name {
        "batch" | "slice" => portions(name, value, arguments, meter),
        "dictsort" => dictsort(value, arguments, meter),
        "first" => {
            arguments.none(name)?;
            let first = iterate(value)?.next(meter)?;
            Ok(first.unwrap_or_else(|| Value::undefined("No first item, sequence was empty.")))
        }
        "last" => {
            arguments.none(name)?;
            let last = reversed(value, meter)?.into_iter().next();
            Ok(last.unwrap_or_else(|| Value::undefined("No last item, sequence was empty.")))
        }
        "groupby" => groupby(value, arguments, meter),
        "join" => join(value, arguments, meter),
        "list" => {
            arguments.none(name)?;
            Value::list(items(value, meter)?, meter)
        }
        "max" | "min" => extreme(name, value, arguments, meter),
        "reverse" => {
            arguments.none(name)?;
            reverse(value, meter)
        }
        "sort" => sort(value, arguments, meter),
        "sum" => sum(value, arguments, meter),
        _ => unique(value, arguments, meter),
    }
}

/// A path of attributes and indices: `a.0.b`.
#[derive(Clone, Debug, Default)]
pub(super) struct Path(Vec<PathPart>);

#[derive(Clone, Debug)]
enum PathPart {
    Name(String),
    Index(Value),
}

impl Path {
    /// The path that an argument describes; none has no parts.
    pub(super) fn of(value: &Value) -> Result<Self> {
        let part = |text: &str| match text.parse() {
            Ok(idx) if text.bytes().all(|b| b.is_ascii_digit()) => PathPart::Index(Value::Int(idx)),
            _ => PathPart::Name(text.to_owned()),
        };
        Ok(Self(match value.defined()? {
            Value::None => Vec::new(),
            Value::Text(text) => text.as_str().split('.').map(part).collect(),
            other => vec![PathPart::Index(other.clone())],
        }))
    }
}

/// What a path leads to.
pub(super) fn follow(value: &Value, path: &Path, meter: &Meter) -> Result<Value> {
    let mut value = value.clone();
    for part in &path.0 {
        value = match part {
            PathPart::Name(name) => item(&value, &Value::text(name, meter)?, meter)?,
            PathPart::Index(idx) => item(&value, idx, meter)?,
        };
    }
    Ok(value)
}

/// A value by which others are sorted: texts in lower case, unless the case counts.
fn sort_key(value: Value, is_exact: bool, meter: &Meter) -> Result<Value> {
    match &value {
        Value::Text(text) if !is_exact => Value::text(&cased(text.as_str(), "lower"), meter),
        _ => Ok(value),
    }
}

fn is_true(value: &Option<Value>) -> bool {
    value.as_ref().is_some_and(Value::is_true)
}

/// Values with their keys, in the order of the keys.
fn by_key(pairs: Vec<(Value, Value)>, is_reversed: bool, meter: &Meter) -> Result<Vec<(Value, Value)>> {
    // A reversed order keeps equal values as they stood.
    sorted(
        pairs,
        &mut |a: &(Value, Value), b: &(Value, Value)| match is_reversed {
            true => less(&b.0, &a.0, "<", meter),
            false => less(&a.0, &b.0, "<", meter),
        },
    )
}

fn sort(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [reverse, case_sensitive, attribute] =
        arguments.bind("sort", ["reverse", "case_sensitive", "attribute"], 0)?;
    let paths = match &attribute {
        Some(Value::Text(text)) => {
            let names = text.as_str().split(',').map(|name| Value::text(name, meter));
            names.map(|name| Path::of(&name?)).collect::<Result<Vec<_>>>()?
        }
        Some(other) => vec![Path::of(other)?],
        None => vec![Path::default()],
    };
    let is_exact = is_true(&case_sensitive);
    let keyed = |item: Value| {
        let keys = paths
            .iter()
            .map(|path| sort_key(follow(&item, path, meter)?, is_exact, meter));
        let keys = Value::list(keys.collect::<Result<_>>()?, meter)?;
        Ok((keys, item))
    };
    let pairs = items(value, meter)?
        .into_iter()
        .map(keyed)
        .collect::<Result<_>>()?;
    let sorted = by_key(pairs, is_true(&reverse), meter)?;
    Value::list(sorted.into_iter().map(|(_, item)| item).collect(), meter)
}

fn dictsort(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [case_sensitive, by, reverse] = arguments.bind("dictsort", ["case_sensitive", "by", "reverse"], 0)?;
    let Value::Dict(dict) = value.defined()? else {
        return Err(failed(format!(
            "'{}' object has no attribute 'items'",
            value.type_name()
        )));
    };
    let by_value = match by.as_ref().map_or(Some("key"), Value::as_str) {
        Some("key") => false,
        Some("value") => true,
        _ => return Err(failed("You can only sort by either \"key\" or \"value\"")),
    };
    let is_exact = is_true(&case_sensitive);
    let pair = |(key, value): (&Key, &Value)| {
        let sorted_by = if by_value { value.clone() } else { key.0.clone() };
        let pair = Value::tuple(vec![key.0.clone(), value.clone()], meter)?;
        Ok((sort_key(sorted_by, is_exact, meter)?, pair))
    };
    let pairs = dict.entries.iter().map(pair).collect::<Result<_>>()?;
    let sorted = by_key(pairs, is_true(&reverse), meter)?;
    Value::list(sorted.into_iter().map(|(_, pair)| pair).collect(), meter)
}

fn groupby(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [attribute, default, case_sensitive] =
        arguments.bind("groupby", ["attribute", "default", "case_sensitive"], 1)?;
    let path = Path::of(&attribute.unwrap_or(Value::None))?;
    let is_exact = is_true(&case_sensitive);
    let name_of = |item: &Value| {
        let found = follow(item, &path, meter)?;
        Ok(match &default {
            Some(default) if found.is_undefined() && !matches!(default, Value::None) => default.clone(),
            _ => found,
        })
    };
    let keyed = |item: Value| Ok((sort_key(name_of(&item)?, is_exact, meter)?, item));
    let pairs: Result<Vec<_>> = items(value, meter)?.into_iter().map(keyed).collect();
    let mut groups: Vec<(Value, Vec<Value>)> = Vec::new();
    for (key, item) in by_key(pairs?, false, meter)? {
        match groups.last_mut() {
            Some((last, members)) if equal(last, &key, meter)? => members.push(item),
            _ => groups.push((key, vec![item])),
        }
    }
    let tuple = |(_, members): (Value, Vec<Value>)| {
        let name = name_of(&members[0])?;
        Value::tuple(vec![name, Value::list(members, meter)?], meter)
    };
    Value::list(groups.into_iter().map(tuple).collect::<Result<_>>()?, meter)
}

fn unique(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [case_sensitive, attribute] = arguments.bind("unique", ["case_sensitive", "attribute"], 0)?;
    let path = Path::of(&attribute.unwrap_or(Value::None))?;
    let mut seen = IndexSet::new();
    let mut found = Vec::new();
    for item in items(value, meter)? {
        let key = sort_key(follow(&item, &path, meter)?, is_true(&case_sensitive), meter)?;
        if seen.insert(Key::new(key, meter)?) {
            found.push(item);
        }
    }
    let list = Value::list(found, meter)?;
    stream_of(&list, &list)
}

fn extreme(name: &str, value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [case_sensitive, attribute] = arguments.bind(name, ["case_sensitive", "attribute"], 0)?;
    let path = Path::of(&attribute.unwrap_or(Value::None))?;
    let mut found: Option<(Value, Value)> = None;
    for item in items(value, meter)? {
        let key = sort_key(follow(&item, &path, meter)?, is_true(&case_sensitive), meter)?;
        let is_better = match &found {
            None => true,
            Some((best, _)) if name == "min" => less(&key, best, "<", meter)?,
            Some((best, _)) => less(best, &key, ">", meter)?,
        };
        if is_better {
            found = Some((key, item));
        }
    }
    let empty = || Value::undefined("No aggregated item, sequence was empty.");
    Ok(found.map_or_else(empty, |(_, item)| item))
}

fn sum(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [attribute, start] = arguments.bind("sum", ["attribute", "start"], 0)?;
    let path = Path::of(&attribute.unwrap_or(Value::None))?;
    let mut total = start.unwrap_or(Value::Int(0));
    if matches!(total, Value::Text(_)) {
        return Err(failed("sum() can't sum strings [use ''.join(seq) instead]"));
    }
    for item in items(value, meter)? {
        total = binary(Operator::Add, &total, &follow(&item, &path, meter)?, meter)?;
    }
    Ok(total)
}

fn join(value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [separator, attribute] = arguments.bind("join", ["d", "attribute"], 0)?;
    let path = Path::of(&attribute.unwrap_or(Value::None))?;
    let separator = string_or(separator, "", meter)?;
    let mut out = Output::new(meter)?;
    let mut items = iterate(value)?;
    let mut idx = 0;
    while let Some(item) = items.next(meter)? {
        if idx > 0 {
            out.push(&separator)?;
        }
        write(&follow(&item, &path, meter)?, &mut out)?;
        idx += 1;
    }
    Value::written(out)
}

fn reverse(value: &Value, meter: &Meter) -> Result<Value> {
    if let Value::Text(text) = value {
        meter.pass_over(text.as_str().len())?;
        let reversed: String = text.as_str().chars().rev().collect();
        return Value::text(&reversed, meter);
    }
    let list = match value {
        Value::Stream(_) => {
            let mut items = items(value, meter)?;
            items.reverse();
            return Value::list(items, meter);
        }
        other => Value::list(reversed(other, meter)?, meter)?,
    };
    stream_of(&list, &list)
}

fn portions(name: &str, value: &Value, arguments: Arguments, meter: &Meter) -> Result<Value> {
    let [n, fill] = arguments.bind(name, ["n", "fill_with"], 1)?;
    let n = int(&n.unwrap_or(Value::None), name)?;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let items = items(value, meter)?;
    let mut portions = Vec::new();
    if name == "batch" {
        let n = usize::try_from(n).unwrap_or(0);
        if n == 0 {
            return Err(failed("batch: the number of items is above 0"));
        }
        for portion in items.chunks(n) {
            let mut portion = portion.to_vec();
            if let Some(fill) = &fill {
                let _charge = meter.charge((n - portion.len()).saturating_mul(size_of::<Value>()))?;
                portion.resize(n, fill.clone());
            }
            portions.push(Value::list(portion, meter)?);
        }
    } else {
        let n = usize::try_from(n).unwrap_or(0);
        if n == 0 {
            return Err(failed("slice: the number of slices is above 0"));
        }
        let (n_each, n_longer) = (items.len() / n, items.len() % n);
        let mut rest = items.as_slice();
        for idx in 0..n {
            let (portion, behind) = rest.split_at(n_each + usize::from(idx < n_longer));
            rest = behind;
            let mut portion = portion.to_vec();
            if idx >= n_longer {
                portion.extend(fill.clone());
            }
            portions.push(Value::list(portion, meter)?);
        }
    }
    let list = Value::list(portions, meter)?;
    stream_of(&list, &list)
}

/// A generator over the items of a value.
pub(super) fn stream_of(source: &Value, items: &Value) -> Result<Value> {
    Value::stream(source, Plain(iterate(items)?))
}

#[derive(Debug)]
struct Plain(Iter);

impl Produce for Plain {
    fn next(&mut self, meter: &Meter) -> Result<Option<Value>> {
        self.0.next(meter)
    }
}
