//! The values of a template, which are those of Python.

use std::any::Any;
use std::cell::RefCell;
use std::fmt::Debug;
use std::hash::{Hash, Hasher};
use std::rc::Rc;

use indexmap::{Equivalent, IndexMap};
use num_bigint::BigInt;

use super::error::{Error, Result, failed};
use super::meter::{Charge, Meter, Output};

/// Levels of lists in lists, at most.
const DEPTH_MAX: usize = 1_000;
/// Bytes of a value inside a list, and what an allocation costs besides.
const VALUE_BYTES: usize = size_of::<Value>();
const ENTRY_BYTES: usize = 2 * VALUE_BYTES + 16;
const ALLOCATION_BYTES: usize = 64;

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Value {
    /// What does not exist, and the error if it is used.
    Undefined(Rc<str>),
    None,
    Bool(bool),
    Int(i64),
    /// An integer that is no `i64`.
    Big(Rc<BigInt>),
    Float(f64),
    Text(Text),
    List(Rc<Items>),
    Tuple(Rc<Items>),
    Dict(Rc<Dict>),
    /// `dict.keys()` and its kin.
    View(Rc<Dict>, View),
    Range(Range),
    /// A generator, which can be read once.
    Stream(Rc<Stream>),
    /// A method of a value.
    Method(Rc<Method>),
    Object(Rc<dyn Object>),
}

/// A text; `is_markup` if the template calls it safe HTML.
#[derive(Clone, Debug)]
pub(super) struct Text {
    letters: Rc<Letters>,
    pub(super) is_markup: bool,
}

#[derive(Debug)]
struct Letters {
    text: String,
    _charge: Charge,
}

/// The items of a list or a tuple.
#[derive(Debug)]
pub(super) struct Items {
    pub(super) values: Vec<Value>,
    depth: usize,
    _charge: Charge,
}

/// A mapping in the order of insertion.
#[derive(Debug)]
pub(super) struct Dict {
    pub(super) entries: IndexMap<Key, Value>,
    depth: usize,
    _charge: Charge,
}

/// What a view of a dict shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum View {
    Keys,
    Values,
    Items,
}

/// `range(start, stop, step)`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Range {
    pub(super) start: i64,
    pub(super) step: i64,
    pub(super) len: usize,
}

impl Range {
    /// The item at `idx`.
    pub(super) fn item(&self, idx: usize) -> Value {
        Value::Int(self.start + self.step * idx as i64)
    }
}

/// A generator.
#[derive(Debug)]
pub(super) struct Stream {
    source: RefCell<Box<dyn Produce>>,
    depth: usize,
}

/// What makes the values of a generator.
pub(super) trait Produce: Debug {
    /// The next value; `None` after the last.
    fn next(&mut self, meter: &Meter) -> Result<Option<Value>>;
}

/// A method and the value that has it.
#[derive(Debug)]
pub(super) struct Method {
    pub(super) receiver: Value,
    pub(super) name: &'static str,
}

/// A value of the evaluator: a macro, a loop, a namespace, a function.
pub(super) trait Object: Debug {
    /// The name of its type in Python.
    fn type_name(&self) -> &'static str;
    /// Appends its text.
    fn write(&self, out: &mut Output) -> Result<()>;
    fn is_callable(&self) -> bool;
    fn as_any(&self) -> &dyn Any;
    /// Forgets the values that it holds, so that no circle of references remains.
    fn clear(&self) {}
}

/// A value that can be the key of a dict.
#[derive(Clone, Debug)]
pub(super) struct Key(pub(super) Value);

/// A text that looks up a key, without a value for it.
#[derive(Hash)]
pub(super) struct Name<'a>(pub(super) &'a str);

impl Equivalent<Key> for Name<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        key.0.as_str() == Some(self.0)
    }
}

impl Text {
    fn new(text: String, charge: Charge) -> Self {
        Self {
            letters: Rc::new(Letters {
                text,
                _charge: charge,
            }),
            is_markup: false,
        }
    }

    pub(super) fn as_str(&self) -> &str {
        &self.letters.text
    }

    /// Whether both are one text in memory.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.letters, &other.letters)
    }

    /// The text as safe HTML, or as none.
    pub(super) fn marked(&self, is_markup: bool) -> Self {
        Self {
            letters: self.letters.clone(),
            is_markup,
        }
    }
}

impl Stream {
    /// The next value.
    pub(super) fn next(&self, meter: &Meter) -> Result<Option<Value>> {
        let mut source = self
            .source
            .try_borrow_mut()
            .map_err(|_| failed("generator already executing"))?;
        source.next(meter)
    }
}

impl Value {
    pub(super) fn text(text: &str, meter: &Meter) -> Result<Self> {
        let charge = meter.charge(text.len() + ALLOCATION_BYTES)?;
        Ok(Self::Text(Text::new(text.to_owned(), charge)))
    }

    /// The text that was written.
    pub(super) fn written(output: Output) -> Result<Self> {
        let (text, mut charge) = output.into_parts();
        charge.grow(ALLOCATION_BYTES)?;
        Ok(Self::Text(Text::new(text, charge)))
    }

    pub(super) fn list(values: Vec<Value>, meter: &Meter) -> Result<Self> {
        Ok(Self::List(Rc::new(Items::new(values, meter)?)))
    }

    pub(super) fn tuple(values: Vec<Value>, meter: &Meter) -> Result<Self> {
        Ok(Self::Tuple(Rc::new(Items::new(values, meter)?)))
    }

    pub(super) fn dict(entries: IndexMap<Key, Value>, meter: &Meter) -> Result<Self> {
        let keys = depth_above(entries.keys().map(|key| &key.0))?;
        Ok(Self::Dict(Rc::new(Dict {
            depth: depth_above(entries.values())?.max(keys),
            _charge: meter.charge(entries.len() * ENTRY_BYTES + ALLOCATION_BYTES)?,
            entries,
        })))
    }

    /// A generator over `source`.
    pub(super) fn stream(source: &Value, produce: impl Produce + 'static) -> Result<Self> {
        Ok(Self::Stream(Rc::new(Stream {
            depth: depth_above(std::iter::once(source))?,
            source: RefCell::new(Box::new(produce)),
        })))
    }

    pub(super) fn undefined(why: impl Into<String>) -> Self {
        Self::Undefined(Rc::from(why.into()))
    }

    pub(super) fn big(number: BigInt) -> Self {
        match i64::try_from(&number) {
            Ok(small) => Self::Int(small),
            Err(_) => Self::Big(Rc::new(number)),
        }
    }

    /// The name of the type in Python.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Undefined(_) => "Undefined",
            Self::None => "NoneType",
            Self::Bool(_) => "bool",
            Self::Int(_) | Self::Big(_) => "int",
            Self::Float(_) => "float",
            Self::Text(text) if text.is_markup => "Markup",
            Self::Text(_) => "str",
            Self::List(_) => "list",
            Self::Tuple(_) => "tuple",
            Self::Dict(_) => "dict",
            Self::View(_, View::Keys) => "dict_keys",
            Self::View(_, View::Values) => "dict_values",
            Self::View(_, View::Items) => "dict_items",
            Self::Range(_) => "range",
            Self::Stream(_) => "generator",
            Self::Method(_) => "builtin_function_or_method",
            Self::Object(object) => object.type_name(),
        }
    }

    pub(super) fn as_str(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text.as_str()),
            _ => None,
        }
    }

    pub(super) fn is_undefined(&self) -> bool {
        matches!(self, Self::Undefined(_))
    }

    /// The error if this value is undefined and is used.
    pub(super) fn defined(&self) -> Result<&Self> {
        match self {
            Self::Undefined(why) => Err(failed(&**why)),
            other => Ok(other),
        }
    }

    /// The object if it has this type.
    pub(super) fn object<T: 'static>(&self) -> Option<&T> {
        match self {
            Self::Object(object) => object.as_any().downcast_ref(),
            _ => None,
        }
    }

    /// Python's `bool(value)`.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Undefined(_) | Self::None => false,
            Self::Bool(value) => *value,
            Self::Int(number) => *number != 0,
            Self::Float(number) => *number != 0.0,
            Self::Big(_) | Self::Stream(_) | Self::Method(_) | Self::Object(_) => true,
            Self::Text(text) => !text.as_str().is_empty(),
            Self::List(items) | Self::Tuple(items) => !items.values.is_empty(),
            Self::Dict(dict) | Self::View(dict, _) => !dict.entries.is_empty(),
            Self::Range(range) => range.len > 0,
        }
    }

    /// Levels of values in this value, it included.
    fn depth(&self) -> usize {
        match self {
            Self::List(items) | Self::Tuple(items) => items.depth,
            Self::Dict(dict) | Self::View(dict, _) => dict.depth,
            Self::Stream(stream) => stream.depth,
            Self::Method(method) => method.receiver.depth() + 1,
            _ => 0,
        }
    }
}

impl Items {
    fn new(values: Vec<Value>, meter: &Meter) -> Result<Self> {
        Ok(Self {
            depth: depth_above(values.iter())?,
            _charge: meter.charge(values.len() * VALUE_BYTES + ALLOCATION_BYTES)?,
            values,
        })
    }
}

fn depth_above<'a>(values: impl Iterator<Item = &'a Value>) -> Result<usize> {
    let depth = 1 + values.map(Value::depth).max().unwrap_or(0);
    if depth > DEPTH_MAX {
        return Err(Error::Depth {
            what: "values",
            n_max: DEPTH_MAX,
        });
    }
    Ok(depth)
}

impl Key {
    /// The key for a value.
    pub(super) fn new(value: Value, meter: &Meter) -> Result<Self> {
        check_hashable(&value, meter)?;
        Ok(Self(value))
    }
}

/// Refuses what has no hash, and counts the steps of the hash.
fn check_hashable(value: &Value, meter: &Meter) -> Result<()> {
    match value {
        Value::List(_) | Value::Dict(_) | Value::View(..) => {
            Err(failed(format!("unhashable type: '{}'", value.type_name())))
        }
        Value::Tuple(items) => {
            meter.steps(items.values.len() as u64 + 1)?;
            items
                .values
                .iter()
                .try_for_each(|item| check_hashable(item, meter))
        }
        Value::Text(text) => meter.pass_over(text.as_str().len()),
        _ => Ok(()),
    }
}

/// A number that compares and hashes as Python's numbers do.
enum Number {
    Int(i64),
    Big(BigInt),
    Float(u64),
}

fn number(value: &Value) -> Option<Number> {
    match value {
        Value::Bool(value) => Some(Number::Int(i64::from(*value))),
        Value::Int(number) => Some(Number::Int(*number)),
        Value::Big(number) => Some(Number::Big((**number).clone())),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e18 => {
            Some(Number::Int(*number as i64))
        }
        Value::Float(number) => Some(Number::Float(number.to_bits())),
        _ => None,
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Value::Text(a), Value::Text(b)) => a.as_str() == b.as_str(),
            (Value::None, Value::None) | (Value::Undefined(_), Value::Undefined(_)) => true,
            (Value::Tuple(a), Value::Tuple(b)) => {
                let keys = |items: &Items| items.values.iter().cloned().map(Key).collect::<Vec<_>>();
                a.values.len() == b.values.len() && keys(a) == keys(b)
            }
            (Value::Object(a), Value::Object(b)) => Rc::ptr_eq(a, b),
            (a, b) => match (number(a), number(b)) {
                (Some(Number::Int(a)), Some(Number::Int(b))) => a == b,
                (Some(Number::Big(a)), Some(Number::Big(b))) => a == b,
                (Some(Number::Float(a)), Some(Number::Float(b))) => a == b,
                _ => false,
            },
        }
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        match &self.0 {
            Value::Text(text) => text.as_str().hash(state),
            Value::Tuple(items) => {
                items.values.len().hash(state);
                items.values.iter().for_each(|item| Key(item.clone()).hash(state));
            }
            value => match number(value) {
                Some(Number::Int(number)) => number.hash(state),
                Some(Number::Big(number)) => number.hash(state),
                Some(Number::Float(bits)) => bits.hash(state),
                None => std::mem::discriminant(value).hash(state),
            },
        }
    }
}
