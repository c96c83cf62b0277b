//! Renders the tree of a template: the statements.

mod calls;
mod expressions;
mod loops;
mod objects;
mod scope;

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use num_bigint::BigInt;
use serde_json::Value as Json;

use super::display::write;
use super::error::{Error, Result, failed};
use super::functions::{Namespace, global};
use super::iterate::items;
use super::json::from_json;
use super::meter::{Meter, Output};
use super::syntax::{Block, Constant, Expr, Macro, Node, Statement, Symbol, Target, Tree};
use super::value::{Object, Value};
use objects::Closure;
use scope::Scope;

/// Levels of statements, expressions and calls, at most. Python's own bound stops earlier.
const DEPTH_MAX: usize = 4_000;
/// Bytes of a scope or a macro besides its values.
const SCOPE_BYTES: usize = 256;

/// What a statement makes of those behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flow {
    Next,
    Break,
    Continue,
}

/// One rendering.
pub(super) struct Machine<'t> {
    tree: &'t Tree,
    meter: Meter,
    constants: Vec<Value>,
    /// The variables of the caller.
    context: HashMap<Symbol, Value>,
    out: Output,
    /// The rendered bodies of filter blocks, for [`Expr::Body`].
    bodies: Vec<Value>,
    depth: usize,
    /// What may be part of a circle of references. It lives to the end, so that no drop recurses far.
    objects: Vec<Rc<dyn Object>>,
    scopes: Vec<Rc<Scope>>,
}

/// Renders a template with these variables.
pub(super) fn render(tree: &Tree, variables: &[(&str, &Json)]) -> Result<String> {
    let meter = Meter::new();
    let mut machine = Machine {
        constants: constants(tree, &meter)?,
        context: context(tree, variables, &meter)?,
        out: Output::new(&meter)?,
        tree,
        meter,
        bodies: Vec::new(),
        depth: 0,
        objects: Vec::new(),
        scopes: Vec::new(),
    };
    let root = Rc::new(Scope::default());
    machine.scopes.push(root.clone());
    let rendered = machine.statements(&tree.body, &root);
    rendered.map(|_| machine.out.text().to_owned())
}

fn constants(tree: &Tree, meter: &Meter) -> Result<Vec<Value>> {
    let value = |constant: &Constant| {
        Ok(match constant {
            Constant::None => Value::None,
            Constant::Bool(value) => Value::Bool(*value),
            Constant::Int(number) => Value::Int(*number),
            Constant::Big(digits) => {
                let number = BigInt::parse_bytes(digits.as_bytes(), 10);
                Value::big(number.unwrap_or_default())
            }
            Constant::Float(number) => Value::Float(*number),
            Constant::Text(text) => Value::text(text, meter)?,
        })
    };
    tree.constants.iter().map(value).collect()
}

/// The variables that the template names.
fn context(tree: &Tree, variables: &[(&str, &Json)], meter: &Meter) -> Result<HashMap<Symbol, Value>> {
    let mut context = HashMap::new();
    for (idx, name) in tree.names.iter().enumerate() {
        let given = variables.iter().find(|(given, _)| given == name);
        let value = match given {
            Some((_, json)) => Some(from_json(json, meter)?),
            None => global(name),
        };
        if let Some(value) = value {
            context.insert(Symbol(idx as u32), value);
        }
    }
    Ok(context)
}

impl Drop for Machine<'_> {
    fn drop(&mut self) {
        self.scopes.iter().for_each(|scope| scope.clear());
        self.objects.iter().for_each(|object| object.clear());
        // A scope may hold the one before it, so the last is dropped first.
        while self.scopes.pop().is_some() || self.objects.pop().is_some() {}
    }
}

impl Machine<'_> {
    /// Runs something one level deeper.
    fn deeper<T>(&mut self, run: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        self.meter.steps(1)?;
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(Error::Depth {
                what: "calls",
                n_max: DEPTH_MAX,
            });
        }
        let result = run(self);
        self.depth -= 1;
        result
    }

    fn statements(&mut self, nodes: &[Node], scope: &Rc<Scope>) -> Result<Flow> {
        for node in nodes {
            let flow = self.deeper(|machine| machine.statement(&node.statement, scope));
            let flow = flow.map_err(|error| error.in_line(node.line))?;
            if flow != Flow::Next {
                return Ok(flow);
            }
        }
        Ok(Flow::Next)
    }

    fn statement(&mut self, statement: &Statement, scope: &Rc<Scope>) -> Result<Flow> {
        match statement {
            Statement::Data(text) => self.out.push(text)?,
            Statement::Output(value) => {
                let value = self.value(value, scope)?;
                write(&value, &mut self.out)?;
            }
            Statement::For(definition) => return self.for_loop(definition, scope),
            Statement::If(branches, otherwise) => {
                for (test, body) in branches {
                    if self.value(test, scope)?.is_true() {
                        return self.statements(body, scope);
                    }
                }
                return self.statements(otherwise, scope);
            }
            Statement::Set(target, value) => {
                let value = self.value(value, scope)?;
                self.assign(target, value, scope, scope)?;
            }
            Statement::SetBlock(target, value, body) => {
                let (flow, value) = self.filtered_body(value, body, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                self.assign(target, value, scope, scope)?;
            }
            Statement::FilterBlock(value, body) => {
                let (flow, value) = self.filtered_body(value, body, scope)?;
                if flow != Flow::Next {
                    return Ok(flow);
                }
                write(&value, &mut self.out)?;
            }
            Statement::With(values, body) => {
                let inner = Scope::inside(scope);
                for (target, value) in values {
                    let value = self.value(value, scope)?;
                    self.assign(target, value, &inner, scope)?;
                }
                return self.statements(body, &inner);
            }
            Statement::Macro(definition) => {
                let value = self.closure(definition, scope)?;
                scope.set(definition.name, value);
            }
            Statement::CallBlock(caller, call) => {
                let caller = self.closure(caller, scope)?;
                let value = self.call_with(call, Some(caller), scope)?;
                write(&value, &mut self.out)?;
            }
            Statement::Scope(body) => return self.statements(body, &Scope::inside(scope)),
            Statement::Block(block) => self.block(block, scope)?,
            Statement::Break => return Ok(Flow::Break),
            Statement::Continue => return Ok(Flow::Continue),
            Statement::NeedsLoader(tag) => {
                return Err(failed(format!(
                    "'{tag}' needs other templates, and there are none"
                )));
            }
        }
        Ok(Flow::Next)
    }

    /// What `render` writes.
    fn captured(&mut self, render: impl FnOnce(&mut Self) -> Result<Flow>) -> Result<(Flow, Value)> {
        let around = std::mem::replace(&mut self.out, Output::new(&self.meter)?);
        let flow = render(self);
        let inner = std::mem::replace(&mut self.out, around);
        Ok((flow?, Value::written(inner)?))
    }

    /// What `value` makes of the rendered body.
    fn filtered_body(&mut self, value: &Expr, body: &[Node], scope: &Rc<Scope>) -> Result<(Flow, Value)> {
        let inner = Scope::inside(scope);
        let (flow, text) = self.captured(|machine| machine.statements(body, &inner))?;
        self.bodies.push(text);
        let value = self.value(value, scope);
        self.bodies.pop();
        Ok((flow, value?))
    }

    /// Assigns a value in `scope`; namespaces are looked up in `around`.
    fn assign(&mut self, target: &Target, value: Value, scope: &Rc<Scope>, around: &Rc<Scope>) -> Result<()> {
        match target {
            Target::Name(name) => scope.set(*name, value),
            Target::Attribute(name, attribute) => {
                let holder = self.variable(*name, around);
                let Some(namespace) = holder.object::<Namespace>() else {
                    return Err(failed("cannot assign attribute on non-namespace object"));
                };
                namespace.set(attribute, value)?;
            }
            Target::Tuple(targets) => {
                let values = items(value.defined()?, &self.meter)?;
                if values.len() != targets.len() {
                    let (n, n_expected) = (values.len(), targets.len());
                    return Err(failed(format!(
                        "{n} values cannot be assigned to {n_expected} names"
                    )));
                }
                for (target, value) in targets.iter().zip(values) {
                    self.assign(target, value, scope, around)?;
                }
            }
        }
        Ok(())
    }

    /// A macro as a value, with the variables around it.
    fn closure(&mut self, definition: &Arc<Macro>, scope: &Rc<Scope>) -> Result<Value> {
        self.retain(scope);
        Ok(Value::Object(Rc::new(Closure {
            definition: definition.clone(),
            scope: scope.clone(),
            name: Rc::from(self.name(definition.name)),
            _charge: self.meter.charge(2 * SCOPE_BYTES)?,
        })))
    }

    /// Keeps a scope to the end.
    fn retain(&mut self, scope: &Rc<Scope>) {
        let is_last = self.scopes.last().is_some_and(|last| Rc::ptr_eq(last, scope));
        if !is_last {
            self.scopes.push(scope.clone());
        }
    }

    /// A block, which sees only the variables of the template, unless it is scoped.
    fn block(&mut self, block: &Block, scope: &Rc<Scope>) -> Result<()> {
        let root = self.scopes[0].clone();
        let around = if block.is_scoped { scope } else { &root };
        self.statements(&block.body, &Scope::inside(around))?;
        Ok(())
    }

    /// The symbol of a name, if the template has it.
    fn symbol(&self, name: &str) -> Option<Symbol> {
        let idx = self.tree.names.iter().position(|known| known == name);
        idx.map(|idx| Symbol(idx as u32))
    }

    fn name(&self, symbol: Symbol) -> &str {
        &self.tree.names[symbol.0 as usize]
    }

    /// The value of a variable.
    fn variable(&self, name: Symbol, scope: &Scope) -> Value {
        scope
            .get(name)
            .or_else(|| self.context.get(&name).cloned())
            .unwrap_or_else(|| Value::undefined(format!("'{}' is undefined", self.name(name))))
    }
}
