//! The memory of all buffers of a program: one arena, which grows to the largest step.

use std::ops::Range;

use kernels::{Buffer as Memory, KernelError};

use crate::batch::Batch;
use crate::model::program::{Buffer, BufferId, CHUNK_ROWS, Program, Rows, Sections};

/// Memory that is kept from step to step.
#[derive(Debug, Default)]
pub(super) struct Arena {
    memory: Option<Memory>,
    n_floats: usize,
}

/// Sizes of a step: how many rows each kind of buffer has, and where its section starts.
#[derive(Debug, Clone, Copy)]
pub(super) struct StepRows {
    n: Sections,
    starts: Sections,
    n_floats: usize,
}

/// The buffers during a step. Of tokens, only those of the current chunk are seen.
pub(super) struct Buffers<'a> {
    program: &'a Program,
    step: StepRows,
    chunk: Range<usize>,
    arena: &'a mut [f32],
    /// The program's output is not in the arena: it leaves the step.
    output: &'a mut [f32],
}

/// A piece of the arena or of the output.
#[derive(Debug, Clone)]
pub(super) enum Span {
    Arena(Range<usize>),
    Output(Range<usize>),
}

impl StepRows {
    /// Sizes of a step.
    pub(super) fn of(program: &Program, batch: &Batch) -> StepRows {
        let n_tokens = batch.tokens.len();
        let n = Sections {
            tokens: n_tokens,
            chunk: n_tokens.min(CHUNK_ROWS),
            logits: batch.logits_at.len(),
            pooled: batch.pooled_rows.len(),
        };
        StepRows::new(program, n)
    }

    /// Sizes of a step with so many rows of each kind.
    pub(super) fn new(program: &Program, n: Sections) -> StepRows {
        let mut starts = Sections::default();
        let mut end = 0;
        for rows in [Rows::Tokens, Rows::Chunk, Rows::Logits, Rows::Pooled] {
            *starts.of_mut(rows) = end;
            end += n.of(rows) * program.sections.of(rows);
        }
        StepRows {
            n,
            starts,
            n_floats: end,
        }
    }

    /// Bytes of the arena that the step writes.
    pub(super) fn size_bytes(&self) -> usize {
        self.n_floats.saturating_mul(size_of::<f32>())
    }
}

impl Arena {
    /// The memory of a step. Memory is reserved by powers of two and taken from the system as it is first written.
    pub(super) fn of_step(&mut self, step: &StepRows) -> Result<&mut [f32], KernelError> {
        if self.memory.is_none() || self.n_floats < step.n_floats {
            self.memory = None;
            self.n_floats = step.n_floats.next_power_of_two();
            let size_bytes = self.n_floats.saturating_mul(size_of::<f32>());
            self.memory = Some(Memory::zeroed("arena", size_bytes)?);
        }
        let memory = self.memory.as_mut().map(Memory::floats_mut);
        Ok(&mut memory.unwrap_or_default()[..step.n_floats])
    }
}

impl<'a> Buffers<'a> {
    /// The buffers of a program.
    pub(super) fn new(
        program: &'a Program,
        step: StepRows,
        arena: &'a mut [f32],
        output: &'a mut [f32],
    ) -> Buffers<'a> {
        Buffers {
            program,
            step,
            chunk: 0..step.n.tokens,
            arena,
            output,
        }
    }

    /// Lets the ops that follow see tokens `chunk` only.
    pub(super) fn enter(&mut self, chunk: Range<usize>) {
        self.chunk = chunk;
    }

    /// New tokens of the step.
    pub(super) fn n_tokens(&self) -> usize {
        self.step.n.tokens
    }

    /// Rows of a kind that are seen.
    pub(super) fn n_rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens | Rows::Chunk => self.chunk.len(),
            Rows::Logits | Rows::Pooled => self.step.n.of(rows),
        }
    }

    /// Elements of a row.
    pub(super) fn width(&self, id: BufferId) -> usize {
        self.program.buffer(id).width
    }

    /// All rows of a buffer that are seen.
    pub(super) fn all(&self, id: BufferId) -> Span {
        let buffer = self.program.buffer(id);
        let first_row = match buffer.rows {
            Rows::Tokens => self.chunk.start,
            Rows::Chunk | Rows::Logits | Rows::Pooled => 0,
        };
        self.span(
            id,
            first_row * buffer.width,
            self.n_rows(buffer.rows) * buffer.width,
        )
    }

    /// The first `n_floats` of a buffer.
    pub(super) fn first(&self, id: BufferId, n_floats: usize) -> Span {
        self.span(id, 0, n_floats)
    }

    fn span(&self, id: BufferId, from: usize, n_floats: usize) -> Span {
        if id == self.program.output {
            return Span::Output(from..from + n_floats);
        }
        let Buffer { rows, offset, .. } = *self.program.buffer(id);
        let start = self.step.starts.of(rows) + self.step.n.of(rows) * offset + from;
        Span::Arena(start..start + n_floats)
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
