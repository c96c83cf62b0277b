//! What one rendering may use: steps and bytes. Both are counted, so a template ends at the same place on each machine.

use std::cell::Cell;
use std::rc::Rc;

use super::error::{Error, Result};

/// Steps of one rendering. A step takes 10 to 50 ns, and up to 150 ns in a build for tests, so a rendering ends before
/// the deadline of its place. A search through all messages for each of 2,000 results takes 25 million.
const STEPS_MAX: u64 = 40_000_000;
/// Bytes of all values that a rendering holds at once.
const BYTES_MAX: usize = 256 << 20;
/// Bytes that are copied in one step.
const BYTES_PER_STEP: u64 = 32;

/// Levels of values in values that are printed, at most.
const WRITTEN_DEPTH_MAX: usize = 2_000;

/// The counters of a rendering.
#[derive(Clone, Debug)]
pub(super) struct Meter(Rc<Counters>);

#[derive(Debug)]
struct Counters {
    n_steps: Cell<u64>,
    n_bytes: Cell<usize>,
}

impl Meter {
    pub(super) fn new() -> Self {
        Self(Rc::new(Counters {
            n_steps: Cell::new(0),
            n_bytes: Cell::new(0),
        }))
    }

    /// Counts steps.
    pub(super) fn steps(&self, n: u64) -> Result<()> {
        let n_steps = self.0.n_steps.get().saturating_add(n);
        self.0.n_steps.set(n_steps);
        if n_steps > STEPS_MAX {
            return Err(Error::Steps { n_max: STEPS_MAX });
        }
        Ok(())
    }

    /// Counts the steps of reading or copying this many bytes.
    pub(super) fn pass_over(&self, n_bytes: usize) -> Result<()> {
        self.steps(n_bytes as u64 / BYTES_PER_STEP + 1)
    }

    /// Counts bytes of memory until the charge is dropped.
    pub(super) fn charge(&self, n_bytes: usize) -> Result<Charge> {
        let mut charge = Charge {
            meter: self.clone(),
            n_bytes: 0,
        };
        charge.grow(n_bytes)?;
        Ok(charge)
    }
}

/// Bytes of memory that a value holds.
#[derive(Debug)]
pub(super) struct Charge {
    meter: Meter,
    n_bytes: usize,
}

impl Charge {
    /// Counts more bytes, before they are allocated.
    pub(super) fn grow(&mut self, n_bytes: usize) -> Result<()> {
        self.meter.pass_over(n_bytes)?;
        let counters = &self.meter.0;
        let all = counters.n_bytes.get().saturating_add(n_bytes);
        if all > BYTES_MAX {
            return Err(Error::Memory {
                n_bytes_max: BYTES_MAX,
            });
        }
        counters.n_bytes.set(all);
        self.n_bytes += n_bytes;
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let counters = &self.meter.0;
        counters.n_bytes.set(counters.n_bytes.get() - self.n_bytes);
    }
}

/// A text that grows within the bounds of a rendering.
#[derive(Debug)]
pub(super) struct Output {
    text: String,
    charge: Charge,
    /// Values in values that are being written.
    depth: usize,
}

impl Output {
    pub(super) fn new(meter: &Meter) -> Result<Self> {
        Ok(Self {
            text: String::new(),
            charge: meter.charge(0)?,
            depth: 0,
        })
    }

    /// Appends a text.
    pub(super) fn push(&mut self, text: &str) -> Result<()> {
        self.charge.grow(text.len())?;
        self.text.push_str(text);
        Ok(())
    }

    /// Appends a text `n` times.
    pub(super) fn repeat(&mut self, text: &str, n: usize) -> Result<()> {
        self.charge.grow(text.len().saturating_mul(n))?;
        self.text.extend(std::iter::repeat_n(text, n));
        Ok(())
    }

    /// Writes what is inside a value. A namespace may contain itself.
    pub(super) fn nested(&mut self, write: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        self.depth += 1;
        if self.depth > WRITTEN_DEPTH_MAX {
            return Err(Error::Depth {
                what: "printed values",
                n_max: WRITTEN_DEPTH_MAX,
            });
        }
        let written = write(self);
        self.depth -= 1;
        written
    }

    /// What was written so far.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// The text, and the charge for it.
    pub(super) fn into_parts(self) -> (String, Charge) {
        (self.text, self.charge)
    }
}
