//! The variables that a place of a template sees.

use std::cell::RefCell;
use std::rc::Rc;

use crate::jinja::syntax::Symbol;
use crate::jinja::value::Value;

/// Variables, and those around them.
#[derive(Debug, Default)]
pub(super) struct Scope {
    variables: RefCell<Vec<(Symbol, Value)>>,
    parent: Option<Rc<Scope>>,
}

impl Scope {
    /// A scope inside another.
    pub(super) fn inside(parent: &Rc<Self>) -> Rc<Self> {
        Rc::new(Self {
            variables: RefCell::default(),
            parent: Some(parent.clone()),
        })
    }

    pub(super) fn set(&self, name: Symbol, value: Value) {
        let mut variables = self.variables.borrow_mut();
        let known = variables.iter_mut().find(|(known, _)| *known == name);
        let before = match known {
            Some((_, known)) => Some(std::mem::replace(known, value)),
            None => {
                variables.push((name, value));
                None
            }
        };
        drop(variables);
        drop(before);
    }

    /// The variable of this scope or the nearest around it.
    pub(super) fn get(&self, name: Symbol) -> Option<Value> {
        let mut scope = self;
        loop {
            let variables = scope.variables.borrow();
            if let Some((_, value)) = variables.iter().find(|(known, _)| *known == name) {
                return Some(value.clone());
            }
            drop(variables);
            scope = scope.parent.as_deref()?;
        }
    }

    /// Forgets the variables.
    pub(super) fn clear(&self) {
        self.variables.take();
    }
}
