//! The functions that every template has.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;

use indexmap::IndexMap;
use jiff::Zoned;

use super::arguments::{Arguments, dict_of, int, text};
use super::display::{string_of, write_repr};
use super::error::{Error, Result, failed};
use super::iterate::items;
use super::meter::{Charge, Meter, Output};
use super::value::{Key, Object, Range, Value};

/// Numbers of a range, at most; jinja2's sandbox has the same bound.
const RANGE_MAX: usize = 100_000;
/// Bytes of an object besides its values.
const OBJECT_BYTES: usize = 256;

/// A function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Function {
    Cycler,
    Dict,
    Joiner,
    Namespace,
    RaiseException,
    Range,
    StrftimeNow,
}

const FUNCTIONS: [(&str, Function); 7] = [
    ("cycler", Function::Cycler),
    ("dict", Function::Dict),
    ("joiner", Function::Joiner),
    ("namespace", Function::Namespace),
    ("raise_exception", Function::RaiseException),
    ("range", Function::Range),
    ("strftime_now", Function::StrftimeNow),
];

/// The function with this name.
pub(super) fn global(name: &str) -> Option<Value> {
    let found = FUNCTIONS.iter().find(|(known, _)| *known == name);
    found.map(|(_, function)| Value::Object(Rc::new(*function)))
}

impl Object for Function {
    fn type_name(&self) -> &'static str {
        "function"
    }

    fn write(&self, out: &mut Output) -> Result<()> {
        let found = FUNCTIONS.iter().find(|(_, known)| known == self);
        out.push(&format!("<function {}>", found.map_or("", |(name, _)| name)))
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

impl Function {
    /// Calls the function.
    pub(super) fn call(self, arguments: Arguments, meter: &Meter) -> Result<Value> {
        match self {
            Self::Cycler => {
                let values = arguments.unnamed("cycler")?;
                if values.is_empty() {
                    return Err(failed("at least one item has to be provided"));
                }
                let charge = meter.charge(OBJECT_BYTES + values.len() * size_of::<Value>())?;
                Ok(Value::Object(Rc::new(Cycler {
                    values: RefCell::new(values),
                    idx: Cell::new(0),
                    _charge: charge,
                })))
            }
            Self::Dict => Value::dict(entries(arguments, meter)?, meter),
            Self::Joiner => {
                let [separator] = arguments.bind("joiner", ["sep"], 0)?;
                let separator = separator.map_or_else(|| Value::text(", ", meter), Ok)?;
                Ok(Value::Object(Rc::new(Joiner {
                    separator: RefCell::new(separator),
                    is_used: Cell::new(false),
                    _charge: meter.charge(OBJECT_BYTES)?,
                })))
            }
            Self::Namespace => {
                let mut names = IndexMap::new();
                for (key, value) in entries(arguments, meter)? {
                    names.insert(string_of(&key.0, meter)?, value);
                }
                names.keys().try_for_each(|name| check_name(name))?;
                Ok(Value::Object(Rc::new(Namespace {
                    values: RefCell::new(names),
                    charge: RefCell::new(meter.charge(OBJECT_BYTES)?),
                    is_printed: Cell::new(false),
                })))
            }
            Self::RaiseException => {
                let [message] = arguments.bind("raise_exception", ["message"], 1)?;
                Err(Error::Raised {
                    message: string_of(&message.unwrap_or(Value::None), meter)?,
                })
            }
            Self::Range => range(arguments),
            Self::StrftimeNow => {
                let [format] = arguments.bind("strftime_now", ["format"], 1)?;
                let format = format.unwrap_or(Value::None);
                let format = text(&format, "strftime_now")?;
                let now = jiff::fmt::strtime::format(format, &Zoned::now())
                    .map_err(|error| failed(format!("strftime_now({format:?}): {error}")))?;
                Value::text(&now, meter)
            }
        }
    }
}

/// The entries of `dict(mapping or pairs, **named)`.
fn entries(mut arguments: Arguments, meter: &Meter) -> Result<IndexMap<Key, Value>> {
    let named = dict_of(std::mem::take(&mut arguments.named), meter)?;
    let [first] = arguments.bind("dict", ["mapping"], 0)?;
    let mut entries = match first {
        None => IndexMap::new(),
        Some(Value::Dict(dict)) => {
            meter.steps(dict.entries.len() as u64)?;
            dict.entries.clone()
        }
        Some(pairs) => {
            let mut entries = IndexMap::new();
            for pair in items(&pairs, meter)? {
                let pair: [Value; 2] = items(&pair, meter)?
                    .try_into()
                    .map_err(|_| failed("dictionary update sequence elements have length 2"))?;
                let [key, value] = pair;
                entries.insert(Key::new(key, meter)?, value);
            }
            entries
        }
    };
    entries.extend(named);
    Ok(entries)
}

fn range(arguments: Arguments) -> Result<Value> {
    let arguments = arguments.unnamed("range")?;
    let numbers: Vec<i64> = arguments
        .iter()
        .map(|value| int(value, "range"))
        .collect::<Result<_>>()?;
    let (start, stop, step) = match *numbers {
        [stop] => (0, stop, 1),
        [start, stop] => (start, stop, 1),
        [start, stop, step] => (start, stop, step),
        _ => {
            return Err(failed(format!(
                "range expected 1 to 3 arguments, got {}",
                numbers.len()
            )));
        }
    };
    if step == 0 {
        return Err(failed("range() arg 3 must not be zero"));
    }
    let distance = if step > 0 {
        i128::from(stop) - i128::from(start)
    } else {
        i128::from(start) - i128::from(stop)
    };
    let len = match distance > 0 {
        true => (distance - 1) / i128::from(step).abs() + 1,
        false => 0,
    };
    match usize::try_from(len) {
        Ok(len) if len <= RANGE_MAX => Ok(Value::Range(Range { start, step, len })),
        _ => Err(failed(format!(
            "Range too big. The sandbox blocks ranges larger than MAX_RANGE ({RANGE_MAX})."
        ))),
    }
}

/// `namespace(...)`: values that a template may change.
#[derive(Debug)]
pub(super) struct Namespace {
    values: RefCell<IndexMap<String, Value>>,
    charge: RefCell<Charge>,
    /// It is being printed, maybe as a part of itself.
    is_printed: Cell<bool>,
}

impl Namespace {
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        self.values.borrow().get(name).cloned()
    }

    pub(super) fn set(&self, name: &str, value: Value) -> Result<()> {
        check_name(name)?;
        if !self.values.borrow().contains_key(name) {
            self.charge.borrow_mut().grow(name.len() + OBJECT_BYTES)?;
        }
        let before = self.values.borrow_mut().insert(name.to_owned(), value);
        // The drop of the value may come back here.
        drop(before);
        Ok(())
    }
}

/// Chat templates may not store names that begin with `_`.
fn check_name(name: &str) -> Result<()> {
    if name.starts_with('_') {
        return Err(failed(format!(
            "Chat templates cannot store underscore-prefixed attributes on a namespace, but got '{name}'"
        )));
    }
    Ok(())
}

impl Object for Namespace {
    fn type_name(&self) -> &'static str {
        "Namespace"
    }

    fn write(&self, out: &mut Output) -> Result<()> {
        if self.is_printed.replace(true) {
            return out.push("<Namespace {...}>");
        }
        out.push("<Namespace {")?;
        for (idx, (name, value)) in self.values.borrow().iter().enumerate() {
            out.push(if idx > 0 { ", '" } else { "'" })?;
            out.push(name)?;
            out.push("': ")?;
            write_repr(value, out)?;
        }
        self.is_printed.set(false);
        out.push("}>")
    }

    fn is_callable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn clear(&self) {
        self.values.take();
    }
}

/// `cycler(...)`.
#[derive(Debug)]
pub(super) struct Cycler {
    values: RefCell<Vec<Value>>,
    idx: Cell<usize>,
    _charge: Charge,
}

impl Cycler {
    /// The current value.
    pub(super) fn current(&self) -> Value {
        let current = self.values.borrow().get(self.idx.get()).cloned();
        current.unwrap_or(Value::None)
    }

    /// The current value; the next one becomes current.
    pub(super) fn next(&self) -> Value {
        let current = self.current();
        self.idx
            .set((self.idx.get() + 1) % self.values.borrow().len().max(1));
        current
    }

    pub(super) fn reset(&self) {
        self.idx.set(0);
    }
}

impl Object for Cycler {
    fn type_name(&self) -> &'static str {
        "Cycler"
    }

    fn write(&self, out: &mut Output) -> Result<()> {
        out.push("<jinja2.utils.Cycler object>")
    }

    fn is_callable(&self) -> bool {
        false
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn clear(&self) {
        self.values.take();
    }
}

/// `joiner(...)`.
#[derive(Debug)]
pub(super) struct Joiner {
    separator: RefCell<Value>,
    is_used: Cell<bool>,
    _charge: Charge,
}

impl Joiner {
    /// The separator, but nothing at the first call.
    pub(super) fn next(&self, meter: &Meter) -> Result<Value> {
        match self.is_used.replace(true) {
            true => Ok(self.separator.borrow().clone()),
            false => Value::text("", meter),
        }
    }
}

impl Object for Joiner {
    fn type_name(&self) -> &'static str {
        "Joiner"
    }

    fn write(&self, out: &mut Output) -> Result<()> {
        out.push("<jinja2.utils.Joiner object>")
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn clear(&self) {
        self.separator.replace(Value::None);
    }
}
