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
        match (read, write) {
            (Span::Arena(read), Span::Arena(write)) => disjoint(self.arena, read, write),
            (Span::Output(read), Span::Output(write)) => disjoint(self.output, read, write),
            (Span::Arena(read), Span::Output(write)) => (&self.arena[read], &mut self.output[write]),
            (Span::Output(read), Span::Arena(write)) => (&self.output[read], &mut self.arena[write]),
        }
    }
}

/// Two pieces that do not overlap, which is what the plan of a program promises.
fn disjoint(all: &mut [f32], read: Range<usize>, write: Range<usize>) -> (&[f32], &mut [f32]) {
    if read.end <= write.start {
        let (before, from) = all.split_at_mut(write.start);
        (&before[read], &mut from[..write.len()])
    } else {
        let (before, from) = all.split_at_mut(read.start);
        (&from[..read.len()], &mut before[write])
    }
}
