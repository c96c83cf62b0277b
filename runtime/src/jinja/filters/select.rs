//! The filters that apply another filter or a test to each item.

use crate::jinja::arguments::Arguments;
use crate::jinja::error::{Error, Result, failed};
use crate::jinja::iterate::{Iter, iterate};
use crate::jinja::meter::Meter;
use crate::jinja::predicates;
use crate::jinja::value::{Produce, Value};

use super::lists::{Path, follow};

/// How a filter is called by its name.
type Filter = fn(&str, &Value, Arguments, &Meter) -> Result<Value>;

/// Calls a filter of this file; `filter` calls any filter.
pub(super) fn call(name: &str, value: &Value, mut arguments: Arguments, filter: Filter) -> Result<Value> {
    let step = if name == "map" {
        mapping(arguments, filter)?
    } else {
        let first = |arguments: &mut Arguments| match arguments.positional.is_empty() {
            true => None,
            false => Some(arguments.positional.remove(0)),
        };
        let path = match name.ends_with("attr") {
            true => {
                let path = first(&mut arguments);
                Path::of(&path.ok_or_else(|| failed("Missing parameter for attribute name"))?)?
            }
            false => Path::default(),
        };
        let test = first(&mut arguments).map(|test| name_of(&test)).transpose()?;
        Step::Select {
            path,
            test,
            arguments,
            keeps: name.starts_with("select"),
        }
    };
    Value::stream(
        value,
        Steps {
            source: value.clone(),
            items: None,
            step,
        },
    )
}

fn name_of(value: &Value) -> Result<String> {
    let name = value.as_str().map(str::to_owned);
    name.ok_or_else(|| failed(format!("a name is expected, not {}", value.type_name())))
}

fn mapping(mut arguments: Arguments, filter: Filter) -> Result<Step> {
    let is_attribute = |(name, _): &&(String, Value)| name == "attribute";
    if arguments.positional.is_empty() && arguments.named.iter().any(|named| is_attribute(&named)) {
        let [attribute, default] = arguments.bind("map", ["attribute", "default"], 1)?;
        return Ok(Step::Attribute {
            path: Path::of(&attribute.unwrap_or(Value::None))?,
            default: default.filter(|default| !matches!(default, Value::None)),
        });
    }
    if arguments.positional.is_empty() {
        return Err(failed("map requires a filter argument"));
    }
    let name = name_of(&arguments.positional.remove(0))?;
    Ok(Step::Filter {
        name,
        arguments,
        filter,
    })
}

/// A generator that applies a step to each item.
#[derive(Debug)]
struct Steps {
    source: Value,
    /// `None` before the first item is asked for.
    items: Option<Iter>,
    step: Step,
}

#[derive(Debug)]
enum Step {
    Attribute {
        path: Path,
        default: Option<Value>,
    },
    Filter {
        name: String,
        arguments: Arguments,
        filter: Filter,
    },
    Select {
        path: Path,
        test: Option<String>,
        arguments: Arguments,
        /// The items that pass the test are kept, not dropped.
        keeps: bool,
    },
}

impl Produce for Steps {
    fn next(&mut self, meter: &Meter) -> Result<Option<Value>> {
        let items = match &mut self.items {
            Some(items) => items,
            // jinja2 asks for the truth of the source first, so none and false have no items.
            None if !self.source.is_true() => return Ok(None),
            None => self.items.insert(iterate(&self.source)?),
        };
        while let Some(item) = items.next(meter)? {
            if let Some(found) = self.step.apply(item, meter)? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }
}

impl Step {
    /// What becomes of an item; `None` if it is dropped.
    fn apply(&self, item: Value, meter: &Meter) -> Result<Option<Value>> {
        match self {
            Self::Attribute { path, default } => {
                let found = follow(&item, path, meter)?;
                Ok(Some(match default {
                    Some(default) if found.is_undefined() => default.clone(),
                    _ => found,
                }))
            }
            Self::Filter {
                name,
                arguments,
                filter,
            } => filter(name, &item, arguments.clone(), meter).map(Some),
            Self::Select {
                path,
                test,
                arguments,
                keeps,
            } => {
                let value = follow(&item, path, meter)?;
                let passes = match test {
                    Some(test) => predicates::call(test, &value, arguments.clone(), meter)?,
                    None => value.is_true(),
                };
                Ok::<_, Error>((passes == *keeps).then_some(item))
            }
        }
    }
}
