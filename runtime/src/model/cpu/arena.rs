//! The memory of all buffers of a program: one arena, which grows to the largest step.

use std::ops::Range;

use kernels::{Buffer as Memory, KernelError};

use crate::model::spans::Span;

/// Memory that is kept from step to step.
#[derive(Debug, Default)]
pub(super) struct Arena {
    memory: Option<Memory>,
    n_floats: usize,
}

/// The memory of a step's buffers.
pub(super) struct Buffers<'a> {
    arena: &'a mut [f32],
    /// The program's output, which leaves the step.
    output: &'a mut [f32],
}

impl Arena {
    /// The memory of a step. Memory is reserved by powers of two and taken from the system as it is first written.
    pub(super) fn of_step(&mut self, n_floats: usize) -> Result<&mut [f32], KernelError> {
        if self.memory.is_none() || self.n_floats < n_floats {
            self.memory = None;
            self.n_floats = n_floats.next_power_of_two();
            let size_bytes = self.n_floats.saturating_mul(size_of::<f32>());
            self.memory = Some(Memory::zeroed("arena", size_bytes)?);
        }
        let memory = self.memory.as_mut().map(Memory::floats_mut);
        Ok(&mut memory.unwrap_or_default()[..n_floats])
    }
}

impl<'a> Buffers<'a> {
    /// The memory of a step.
    pub(super) fn new(arena: &'a mut [f32], output: &'a mut [f32]) -> Buffers<'a> {
        Buffers { arena, output }
    }

    /// A piece, to change in place.
    pub(super) fn one(&mut self, span: Span) -> &mut [f32] {
        match span {
            Span::Arena(range) => &mut self.arena[range],
            Span::Output(range) => &mut self.output[range],
        }
    }

    /// A piece to read and another one to write.
    pub(super) fn two(&mut self, read: Span, write: Span) -> (&[f32], &mut [f32]) {
        let ([read], write) = self.several([read], write);
        (read, write)
    }

    /// Pieces to read and another one to write. None that is read overlaps it, which is what the plan of a program
    /// promises.
    pub(super) fn several<const N: usize>(
        &mut self,
        reads: [Span; N],
        write: Span,
    ) -> ([&[f32]; N], &mut [f32]) {
        let (arena, output) = (&mut *self.arena, &mut *self.output);
        match write {
            Span::Arena(write) => {
                let parts = Parts::around(arena, write);
                let read = |span| match span {
                    Span::Arena(range) => parts.read(range),
                    Span::Output(range) => &output[range],
                };
                (reads.map(read), parts.written)
            }
            Span::Output(write) => {
                let parts = Parts::around(output, write);
                let read = |span| match span {
                    Span::Arena(range) => &arena[range],
                    Span::Output(range) => parts.read(range),
                };
                (reads.map(read), parts.written)
            }
        }
    }
}

/// A piece of memory that is written, and the memory before and after it.
struct Parts<'a> {
    before: &'a [f32],
    written: &'a mut [f32],
    after: &'a [f32],
    /// Where `after` starts.
    end: usize,
}

impl<'a> Parts<'a> {
    fn around(all: &'a mut [f32], written: Range<usize>) -> Parts<'a> {
        let end = written.end;
        let (before, from) = all.split_at_mut(written.start);
        let (written, after) = from.split_at_mut(written.len());
        Parts {
            before,
            written,
            after,
            end,
        }
    }

    fn read(&self, range: Range<usize>) -> &'a [f32] {
        match range.start.checked_sub(self.end) {
            Some(start) => &self.after[start..start + range.len()],
            None => &self.before[range],
        }
    }
}
