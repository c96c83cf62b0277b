//! Loops, and the variable `loop`.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::objects::Loop;
use super::scope::Scope;
use super::{Flow, Machine};
use crate::jinja::error::{Result, failed};
use crate::jinja::iterate::{Iter, iterate, len};
use crate::jinja::syntax::ForLoop;
use crate::jinja::value::Value;

impl Machine<'_> {
    /// Runs a loop over the value of its expression.
    pub(super) fn for_loop(&mut self, definition: &Arc<ForLoop>, scope: &Rc<Scope>) -> Result<Flow> {
        let iterable = self.value(&definition.iterable, scope)?;
        self.loop_over(definition, &iterable, scope, 0)
    }

    /// Runs a loop over a value.
    pub(super) fn loop_over(
        &mut self,
        definition: &Arc<ForLoop>,
        iterable: &Value,
        scope: &Rc<Scope>,
        depth0: usize,
    ) -> Result<Flow> {
        let n_items = match definition.condition {
            Some(_) => None,
            None => len(iterable, &self.meter)?,
        };
        let state = Rc::new(Loop {
            definition: definition.clone(),
            outer: scope.clone(),
            depth0,
            items: RefCell::new(iterate(iterable)?),
            is_filtered: Cell::new(definition.condition.is_some()),
            len: Cell::new(n_items),
            index0: Cell::new(0),
            before: RefCell::default(),
            current: RefCell::default(),
            ahead: RefCell::default(),
            changed: RefCell::default(),
        });
        let flow = self.turns(&state);
        // Somebody kept the variable `loop`.
        if Rc::strong_count(&state) > 1 {
            self.objects.push(state);
        }
        flow
    }

    fn turns(&mut self, state: &Rc<Loop>) -> Result<Flow> {
        let definition = state.definition.clone();
        let name = self.symbol("loop");
        let mut n_turns = 0;
        // As in jinja2, a turn that breaks or continues does not count for `else`.
        let mut is_empty = true;
        while let Some(item) = self.next_item(state)? {
            let scope = Scope::inside(&state.outer);
            state.index0.set(n_turns);
            n_turns += 1;
            let before = state.current.replace(Some(item.clone()));
            state.before.replace(before);
            if let Some(name) = name {
                scope.set(name, Value::Object(state.clone()));
            }
            self.assign(&definition.target, item, &scope, &state.outer)?;
            match self.statements(&definition.body, &scope)? {
                Flow::Next => is_empty = false,
                Flow::Continue => {}
                Flow::Break => break,
            }
        }
        if is_empty {
            return self.statements(&definition.otherwise, &Scope::inside(&state.outer));
        }
        Ok(Flow::Next)
    }

    /// The next item of a loop: the one that was read ahead, or a new one.
    fn next_item(&mut self, state: &Loop) -> Result<Option<Value>> {
        match state.ahead.take() {
            Some(ahead) => Ok(ahead),
            None => self.read_item(state),
        }
    }

    /// Reads the next item that the loop's condition admits.
    fn read_item(&mut self, state: &Loop) -> Result<Option<Value>> {
        loop {
            let item = state.items.borrow_mut().next(&self.meter)?;
            let condition = state.definition.condition.as_ref();
            let condition = condition.filter(|_| state.is_filtered.get());
            let (Some(found), Some(condition)) = (&item, condition) else {
                return Ok(item);
            };
            let scope = Scope::inside(&state.outer);
            self.assign(&state.definition.target, found.clone(), &scope, &state.outer)?;
            if self.value(condition, &scope)?.is_true() {
                return Ok(item);
            }
        }
    }

    /// The item after the current one.
    fn item_ahead(&mut self, state: &Loop) -> Result<Option<Value>> {
        if state.ahead.borrow().is_none() {
            let item = self.read_item(state)?;
            state.ahead.replace(Some(item));
        }
        let ahead = state.ahead.borrow();
        Ok(ahead.clone().flatten())
    }

    /// The number of items; those that are not read yet are read for it.
    fn loop_len(&mut self, state: &Loop) -> Result<usize> {
        if let Some(len) = state.len.get() {
            return Ok(len);
        }
        let mut rest = Vec::new();
        let mut charge = self.meter.charge(0)?;
        while let Some(item) = self.read_item(state)? {
            charge.grow(size_of::<Value>())?;
            rest.push(item);
        }
        let n_ahead = usize::from(matches!(*state.ahead.borrow(), Some(Some(_))));
        let len = state.index0.get() + 1 + n_ahead + rest.len();
        state.len.set(Some(len));
        // The condition has admitted these items.
        state.is_filtered.set(false);
        state.items.replace(Iter::Owned(rest.into_iter()));
        Ok(len)
    }

    /// An attribute of `loop`.
    pub(super) fn loop_attribute(&mut self, state: &Loop, name: &str) -> Result<Option<Value>> {
        let index0 = state.index0.get();
        let int = |n: usize| Value::Int(n as i64);
        Ok(Some(match name {
            "index" => int(index0 + 1),
            "index0" => int(index0),
            "revindex" => int(self.loop_len(state)? - index0),
            "revindex0" => int(self.loop_len(state)? - index0 - 1),
            "first" => Value::Bool(index0 == 0),
            "last" => Value::Bool(self.item_ahead(state)?.is_none()),
            "length" => int(self.loop_len(state)?),
            "depth" => int(state.depth0 + 1),
            "depth0" => int(state.depth0),
            "previtem" => {
                let before = state.before.borrow().clone();
                before.unwrap_or_else(|| Value::undefined("there is no previous item"))
            }
            "nextitem" => {
                let ahead = self.item_ahead(state)?;
                ahead.unwrap_or_else(|| Value::undefined("there is no next item"))
            }
            _ => return Ok(None),
        }))
    }

    /// Calls `loop(items)`: the loop runs over these items, one level deeper.
    pub(super) fn call_loop(&mut self, state: &Loop, iterable: &Value) -> Result<Value> {
        if !state.definition.is_recursive {
            return Err(failed(
                "The loop must have the 'recursive' marker to be called recursively.",
            ));
        }
        let (definition, outer) = (state.definition.clone(), state.outer.clone());
        let depth0 = state.depth0 + 1;
        let (_, text) = self.captured(|machine| machine.loop_over(&definition, iterable, &outer, depth0))?;
        Ok(text)
    }
}
