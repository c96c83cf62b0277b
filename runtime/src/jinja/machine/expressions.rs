//! The values of expressions.

use std::cmp::Ordering;
use std::rc::Rc;

use indexmap::IndexMap;

use super::Machine;
use super::objects::{Closure, Loop};
use super::scope::Scope;
use crate::jinja::attributes::{attribute, item, slice};
use crate::jinja::compare::{compared, contains, equal};
use crate::jinja::error::Result;
use crate::jinja::functions::{Cycler, Namespace};
use crate::jinja::operators::{binary, concatenated, negative, positive};
use crate::jinja::syntax::{Comparison, Expr};
use crate::jinja::value::{Key, Value};
use crate::jinja::{filters, predicates};

impl Machine<'_> {
    /// The value of an expression.
    pub(super) fn value(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        // These are frequent and do not nest.
        match expr {
            Expr::Constant(idx) => return Ok(self.constants[*idx].clone()),
            Expr::Name(name) => {
                self.meter.steps(1)?;
                return Ok(self.variable(*name, scope));
            }
            _ => {}
        }
        self.deeper(|machine| machine.compound(expr, scope))
    }

    fn compound(&mut self, expr: &Expr, scope: &Rc<Scope>) -> Result<Value> {
        match expr {
            Expr::Constant(_) | Expr::Name(_) => self.value(expr, scope),
            Expr::Body => Ok(self.bodies.last().cloned().unwrap_or(Value::None)),
            Expr::List(items) => Value::list(self.values(items, scope)?, &self.meter),
            Expr::Tuple(items) => Value::tuple(self.values(items, scope)?, &self.meter),
            Expr::Dict(entries) => self.dict(entries, scope),
            Expr::Attribute(value, name) => {
                let value = self.value(value, scope)?;
                self.attribute(&value, name)
            }
            Expr::Item(value, index) => {
                let value = self.value(value, scope)?;
                let index = self.value(index, scope)?;
                match (&value, &index) {
                    (Value::Object(_), Value::Text(name)) => self.attribute(&value, name.as_str()),
                    _ => item(&value, &index, &self.meter),
                }
            }
            Expr::Slice(value, bounds) => {
                let value = self.value(value, scope)?;
                let mut values = [Value::None, Value::None, Value::None];
                for (slot, bound) in values.iter_mut().zip(bounds.iter()) {
                    if let Some(bound) = bound {
                        *slot = self.value(bound, scope)?;
                    }
                }
                slice(&value, &values, &self.meter)
            }
            Expr::Call(call) => self.call_with(call, None, scope),
            Expr::Filter(filter) => {
                let value = self.value(&filter.value, scope)?;
                let arguments = self.arguments(&filter.arguments, scope)?;
                filters::call(&filter.name, &value, arguments, &self.meter)
            }
            Expr::Test(test) => {
                let value = self.value(&test.value, scope)?;
                let arguments = self.arguments(&test.arguments, scope)?;
                predicates::call(&test.name, &value, arguments, &self.meter).map(Value::Bool)
            }
            Expr::Not(value) => Ok(Value::Bool(!self.value(value, scope)?.is_true())),
            Expr::Negative(value) => negative(&self.value(value, scope)?),
            Expr::Positive(value) => positive(&self.value(value, scope)?),
            Expr::And(a, b) => match self.value(a, scope)? {
                a if a.is_true() => self.value(b, scope),
                a => Ok(a),
            },
            Expr::Or(a, b) => match self.value(a, scope)? {
                a if a.is_true() => Ok(a),
                _ => self.value(b, scope),
            },
            Expr::Binary(operator, a, b) => {
                let (a, b) = (self.value(a, scope)?, self.value(b, scope)?);
                binary(*operator, &a, &b, &self.meter)
            }
            Expr::Concat(items) => concatenated(&self.values(items, scope)?, &self.meter),
            Expr::Compare(first, others) => self.comparison(first, others, scope),
            Expr::Condition(condition) => {
                if self.value(&condition.test, scope)?.is_true() {
                    return self.value(&condition.then, scope);
                }
                match &condition.otherwise {
                    Some(otherwise) => self.value(otherwise, scope),
                    None => Ok(Value::undefined(
                        "the inline if-expression evaluated to false and no else section was defined.",
                    )),
                }
            }
        }
    }

    /// The values of several expressions.
    pub(super) fn values(&mut self, exprs: &[Expr], scope: &Rc<Scope>) -> Result<Vec<Value>> {
        exprs.iter().map(|expr| self.value(expr, scope)).collect()
    }

    fn dict(&mut self, entries: &[(Expr, Expr)], scope: &Rc<Scope>) -> Result<Value> {
        let mut dict = IndexMap::with_capacity(entries.len());
        for (key, value) in entries {
            let key = self.value(key, scope)?;
            let value = self.value(value, scope)?;
            dict.insert(Key::new(key, &self.meter)?, value);
        }
        Value::dict(dict, &self.meter)
    }

    fn comparison(
        &mut self,
        first: &Expr,
        others: &[(Comparison, Expr)],
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        let mut left = self.value(first, scope)?;
        for (comparison, right) in others {
            let right = self.value(right, scope)?;
            if !self.holds(*comparison, &left, &right)? {
                return Ok(Value::Bool(false));
            }
            left = right;
        }
        Ok(Value::Bool(true))
    }

    fn holds(&self, comparison: Comparison, a: &Value, b: &Value) -> Result<bool> {
        let meter = &self.meter;
        let ordered = |symbol| compared(a, b, symbol, meter);
        Ok(match comparison {
            Comparison::Equal => equal(a, b, meter)?,
            Comparison::NotEqual => !equal(a, b, meter)?,
            Comparison::Less => ordered("<")? == Some(Ordering::Less),
            Comparison::LessEqual => matches!(ordered("<=")?, Some(Ordering::Less | Ordering::Equal)),
            Comparison::Greater => ordered(">")? == Some(Ordering::Greater),
            Comparison::GreaterEqual => {
                matches!(ordered(">=")?, Some(Ordering::Greater | Ordering::Equal))
            }
            Comparison::In => contains(b, a, meter)?,
            Comparison::NotIn => !contains(b, a, meter)?,
        })
    }

    /// An attribute of a value, the objects of the evaluator included.
    pub(super) fn attribute(&mut self, value: &Value, name: &str) -> Result<Value> {
        let found = if let Some(namespace) = value.object::<Namespace>() {
            namespace.get(name)
        } else if let Some(state) = value.object::<Loop>() {
            self.loop_attribute(state, name)?
        } else if let Some(closure) = value.object::<Closure>() {
            self.macro_attribute(closure, name)?
        } else if let Some(cycler) = value.object::<Cycler>() {
            (name == "current").then(|| cycler.current())
        } else {
            None
        };
        found.map_or_else(|| attribute(value, name, &self.meter), Ok)
    }

    fn macro_attribute(&self, closure: &Closure, name: &str) -> Result<Option<Value>> {
        let uses = closure.definition.uses;
        Ok(Some(match name {
            "name" => Value::text(&closure.name, &self.meter)?,
            "arguments" => {
                let names = closure.definition.parameters.iter();
                let names = names.map(|(name, _)| Value::text(self.name(*name), &self.meter));
                Value::tuple(names.collect::<Result<_>>()?, &self.meter)?
            }
            "catch_kwargs" => Value::Bool(uses.kwargs),
            "catch_varargs" => Value::Bool(uses.varargs),
            "caller" => Value::Bool(uses.caller),
            _ => return Ok(None),
        }))
    }
}
