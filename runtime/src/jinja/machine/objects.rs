//! Macros and loops as values.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use super::scope::Scope;
use crate::jinja::error::Result;
use crate::jinja::iterate::Iter;
use crate::jinja::meter::{Charge, Output};
use crate::jinja::syntax::{ForLoop, Macro};
use crate::jinja::value::{Object, Value};

/// A macro, and the variables around its definition.
#[derive(Debug)]
pub(super) struct Closure {
    pub(super) definition: Arc<Macro>,
    pub(super) scope: Rc<Scope>,
    pub(super) name: Rc<str>,
    pub(super) _charge: Charge,
}

impl Object for Closure {
    fn type_name(&self) -> &'static str {
        "Macro"
    }

    fn write(&self, out: &mut Output) -> Result<()> {
        out.push(&format!("<Macro '{}'>", self.name))
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}

/// The variable `loop`.
#[derive(Debug)]
pub(super) struct Loop {
    pub(super) definition: Arc<ForLoop>,
    /// The variables around the loop.
    pub(super) outer: Rc<Scope>,
    pub(super) depth0: usize,
    pub(super) items: RefCell<Iter>,
    /// The items are those that the loop's condition has not seen yet.
    pub(super) is_filtered: Cell<bool>,
    /// The number of items, where it is known.
    pub(super) len: Cell<Option<usize>>,
    pub(super) index0: Cell<usize>,
    pub(super) before: RefCell<Option<Value>>,
    pub(super) current: RefCell<Option<Value>>,
    /// The item that was read ahead; the inner `None` is the end.
    pub(super) ahead: RefCell<Option<Option<Value>>>,
    pub(super) changed: RefCell<Option<Vec<Value>>>,
}

impl Object for Loop {
    fn type_name(&self) -> &'static str {
        "LoopContext"
    }

    fn write(&self, out: &mut Output) -> Result<()> {
        let len = self.len.get().map_or("?".to_owned(), |len| len.to_string());
        out.push(&format!("<LoopContext {}/{len}>", self.index0.get() + 1))
    }

    fn is_callable(&self) -> bool {
        true
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn clear(&self) {
        self.items.replace(Iter::Empty);
        self.before.take();
        self.current.take();
        self.ahead.take();
        self.changed.take();
    }
}
