//! Calls of macros, methods and functions.

use std::rc::Rc;

use super::Machine;
use super::objects::{Closure, Loop};
use super::scope::Scope;
use crate::jinja::arguments::{Arguments, dict_of};
use crate::jinja::error::{Result, failed};
use crate::jinja::functions::{Cycler, Function, Joiner};
use crate::jinja::iterate::items;
use crate::jinja::methods;
use crate::jinja::syntax::{ArgumentList, Call, Expr};
use crate::jinja::value::Value;

impl Machine<'_> {
    /// Calls what an expression names. `caller` is the body of a call block.
    pub(super) fn call_with(
        &mut self,
        call: &Call,
        caller: Option<Value>,
        scope: &Rc<Scope>,
    ) -> Result<Value> {
        // The methods of these objects exist only while they are called.
        if let Expr::Attribute(receiver, name) = &call.callee {
            let receiver = self.value(receiver, scope)?;
            let is_own = match name.as_str() {
                "cycle" | "changed" => receiver.object::<Loop>().is_some(),
                "next" | "reset" => receiver.object::<Cycler>().is_some(),
                _ => false,
            };
            if is_own {
                let arguments = self.arguments(&call.arguments, scope)?;
                return self.call_own(&receiver, name, arguments);
            }
            let callee = self.attribute(&receiver, name)?;
            let arguments = self.arguments_with(&call.arguments, caller, scope)?;
            return self.call(&callee, arguments);
        }
        let callee = self.value(&call.callee, scope)?;
        let arguments = self.arguments_with(&call.arguments, caller, scope)?;
        self.call(&callee, arguments)
    }

    fn call(&mut self, callee: &Value, arguments: Arguments) -> Result<Value> {
        if let Value::Method(method) = callee.defined()? {
            return methods::call(&method.receiver, method.name, arguments, &self.meter);
        }
        if let Some(function) = callee.object::<Function>() {
            let value = function.call(arguments, &self.meter)?;
            if let Value::Object(object) = &value {
                self.objects.push(object.clone());
            }
            return Ok(value);
        }
        if let Some(closure) = callee.object::<Closure>() {
            return self.deeper(|machine| machine.call_macro(closure, arguments));
        }
        if let Some(state) = callee.object::<Loop>() {
            let [iterable] = arguments.bind("loop", ["iterable"], 1)?;
            return self.call_loop(state, &iterable.unwrap_or(Value::None));
        }
        if let Some(joiner) = callee.object::<Joiner>() {
            arguments.none("joiner")?;
            return joiner.next(&self.meter);
        }
        Err(failed(format!("'{}' object is not callable", callee.type_name())))
    }

    /// Calls a method of a loop or a cycler.
    fn call_own(&mut self, receiver: &Value, name: &str, arguments: Arguments) -> Result<Value> {
        let values = arguments.unnamed(name)?;
        if let Some(cycler) = receiver.object::<Cycler>() {
            return Ok(match name {
                "next" => cycler.next(),
                _ => {
                    cycler.reset();
                    Value::None
                }
            });
        }
        let Some(state) = receiver.object::<Loop>() else {
            return Ok(Value::None);
        };
        if name == "cycle" {
            return match values.len() {
                0 => Err(failed("no items for cycling given")),
                n => Ok(values[state.index0.get() % n].clone()),
            };
        }
        let list = |values: &[Value]| Value::list(values.to_vec(), &self.meter);
        let before = state.changed.borrow().as_deref().map(list).transpose()?;
        let is_same = match before {
            Some(before) => crate::jinja::compare::equal(&before, &list(&values)?, &self.meter)?,
            None => false,
        };
        if !is_same {
            state.changed.replace(Some(values));
        }
        Ok(Value::Bool(!is_same))
    }

    /// The arguments of a call.
    pub(super) fn arguments(&mut self, list: &ArgumentList, scope: &Rc<Scope>) -> Result<Arguments> {
        let mut arguments = Arguments::of(self.values(&list.positional, scope)?);
        for (name, value) in &list.named {
            let value = self.value(value, scope)?;
            arguments.named.push((name.clone(), value));
        }
        if let Some(rest) = &list.rest {
            let rest = self.value(rest, scope)?;
            arguments.positional.extend(items(&rest, &self.meter)?);
        }
        if let Some(rest) = &list.named_rest {
            let Value::Dict(dict) = self.value(rest, scope)? else {
                return Err(failed("the value behind ** is a mapping"));
            };
            self.meter.steps(dict.entries.len() as u64)?;
            for (key, value) in &dict.entries {
                let name = key.0.as_str().ok_or_else(|| failed("keywords must be strings"))?;
                arguments.named.push((name.to_owned(), value.clone()));
            }
        }
        Ok(arguments)
    }

    fn arguments_with(
        &mut self,
        list: &ArgumentList,
        caller: Option<Value>,
        scope: &Rc<Scope>,
    ) -> Result<Arguments> {
        let mut arguments = self.arguments(list, scope)?;
        if let Some(caller) = caller {
            arguments.named.push(("caller".to_owned(), caller));
        }
        Ok(arguments)
    }

    /// Renders a macro.
    fn call_macro(&mut self, closure: &Closure, arguments: Arguments) -> Result<Value> {
        let scope = Scope::inside(&closure.scope);
        self.bind(closure, arguments, &scope)?;
        let body = &closure.definition.body;
        let (_, text) = self.captured(|machine| machine.statements(body, &scope))?;
        Ok(text)
    }

    /// Assigns the arguments of a macro to its parameters.
    fn bind(&mut self, closure: &Closure, arguments: Arguments, scope: &Rc<Scope>) -> Result<()> {
        let definition = &closure.definition;
        let (name, uses) = (closure.name.clone(), definition.uses);
        let mut positional = arguments.positional.into_iter();
        let mut named = arguments.named;
        for (parameter, default) in &definition.parameters {
            let known = named.iter().position(|(given, _)| given == self.name(*parameter));
            let value = match (positional.next(), known) {
                (Some(_), Some(_)) => {
                    let parameter = self.name(*parameter);
                    return Err(failed(format!(
                        "macro '{name}' got multiple values for argument '{parameter}'"
                    )));
                }
                (Some(value), None) => value,
                (None, Some(idx)) => named.remove(idx).1,
                (None, None) => match default {
                    Some(default) => self.value(default, scope)?,
                    None => {
                        Value::undefined(format!("parameter '{}' was not provided", self.name(*parameter)))
                    }
                },
            };
            scope.set(*parameter, value);
        }
        if uses.caller {
            let idx = named.iter().position(|(given, _)| given == "caller");
            let caller = idx.map(|idx| named.remove(idx).1);
            self.set_special(
                "caller",
                caller.unwrap_or_else(|| Value::undefined("No caller defined")),
                scope,
            );
        }
        if uses.kwargs {
            let entries = dict_of(std::mem::take(&mut named), &self.meter)?;
            self.set_special("kwargs", Value::dict(entries, &self.meter)?, scope);
        }
        if let Some((unknown, _)) = named.first() {
            return Err(failed(format!(
                "macro '{name}' takes no keyword argument '{unknown}'"
            )));
        }
        let rest: Vec<Value> = positional.collect();
        if uses.varargs {
            self.set_special("varargs", Value::tuple(rest, &self.meter)?, scope);
        } else if !rest.is_empty() {
            let n = definition.parameters.len();
            return Err(failed(format!(
                "macro '{name}' takes not more than {n} argument(s)"
            )));
        }
        Ok(())
    }

    fn set_special(&self, name: &str, value: Value, scope: &Scope) {
        if let Some(symbol) = self.symbol(name) {
            scope.set(symbol, value);
        }
    }
}
