//! Showing long work on standard error: one line that is rewritten on a terminal, and a line for each title elsewhere.

use std::io::{IsTerminal, Write};

/// Where progress is shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Progress {
    is_terminal: bool,
}

impl Progress {
    pub(super) fn new() -> Progress {
        Progress {
            is_terminal: std::io::stderr().is_terminal(),
        }
    }

    /// Work begins.
    pub(super) fn begin(self, title: &str) {
        if self.is_terminal {
            self.rewrite(title);
        } else {
            eprintln!("bench: {title}");
        }
    }

    /// Work goes on.
    pub(super) fn detail(self, title: &str, detail: &str) {
        if self.is_terminal {
            self.rewrite(&format!("{title}  {detail}"));
        }
    }

    /// All work is done.
    pub(super) fn end(self) {
        if self.is_terminal {
            self.rewrite("");
        }
    }

    fn rewrite(self, text: &str) {
        eprint!("\r\x1b[K{text}");
        // A line that is not shown at once is no progress, and nothing else is lost with it.
        let _shown = std::io::stderr().flush();
    }
}
