//! Jinja2 as transformers configures it: the language of chat templates.
//!
//! Owns templates from their text to the rendered text: white space, Python's values, methods and formats, jinja2's
//! filters and tests. A template may come from a stranger, so steps, memory and depth are counted, and it reads
//! nothing but its arguments and the clock. Must not know chats, tokens or HTTP.

mod arguments;
mod attributes;
mod bounds;
mod compare;
mod display;
mod error;
mod filters;
mod flow;
mod formatting;
mod functions;
mod iterate;
mod json;
mod lexer;
mod machine;
mod meter;
mod methods;
mod number;
mod operators;
mod parser;
mod predicates;
mod syntax;
#[cfg(test)]
mod tests;
mod value;

use serde_json::Value as Json;

pub use error::Error;
use error::failed;
use syntax::Tree;

/// Stack of the threads that parse and render. Only used pages take memory.
const STACK_BYTES: usize = 64 << 20;

/// A template.
#[derive(Debug)]
pub struct Template {
    tree: Tree,
}

impl Template {
    /// Parses a template.
    ///
    /// # Errors
    /// [`Error`] for a text that is not a template.
    pub fn parse(source: &str) -> Result<Self, Error> {
        let tree = on_large_stack(|| parser::parse(source))?;
        Ok(Self { tree })
    }

    /// Renders the template with these variables.
    ///
    /// # Errors
    /// [`Error`] if the template rejects the variables, fails, or exceeds a bound.
    pub fn render(&self, variables: &[(&str, &Json)]) -> Result<String, Error> {
        on_large_stack(|| machine::render(&self.tree, variables))
    }

    /// Whether the template has a loop over the attribute `attribute` of the items of the variable `list`.
    pub fn loops_over(&self, list: &str, attribute: &str) -> bool {
        on_large_stack(|| Ok(flow::loops_over(&self.tree, list, attribute))).unwrap_or(false)
    }
}

/// Runs something that recurses, within the bounds of this room, on a thread whose stack suffices for them.
fn on_large_stack<T: Send>(run: impl FnOnce() -> Result<T, Error> + Send) -> Result<T, Error> {
    std::thread::scope(|scope| {
        let thread = std::thread::Builder::new()
            .name("template".to_owned())
            .stack_size(STACK_BYTES);
        let running = thread
            .spawn_scoped(scope, run)
            .map_err(|error| failed(format!("no thread for the template: {error}")))?;
        running
            .join()
            .unwrap_or_else(|_| Err(failed("the template ended its thread")))
    })
}
