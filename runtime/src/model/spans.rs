//! Where the buffers of a program are during a step: ranges of one arena, whatever memory it is in.

use std::ops::Range;

use crate::batch::Batch;
use crate::model::program::{Buffer, BufferId, CHUNK_ROWS, Program, Rows, Sections};

/// How much a step computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct StepSizes {
    /// New tokens.
    pub(super) n_tokens: usize,
    /// Tokens whose logits are requested.
    pub(super) n_logits: usize,
    /// Sequences whose vector is requested.
    pub(super) n_pooled: usize,
}

/// The buffers of a step. Of tokens, only those of the current chunk are seen.
#[derive(Debug)]
pub(super) struct Spans<'a> {
    program: &'a Program,
    n: Sections,
    starts: Sections,
    n_floats: usize,
    chunk: Range<usize>,
}

/// A piece of the arena or of the output, which is not in the arena because it leaves the step.
#[derive(Debug, Clone)]
pub(super) enum Span {
    Arena(Range<usize>),
    Output(Range<usize>),
}

impl StepSizes {
    /// The sizes of a batch.
    pub(super) fn of(batch: &Batch) -> StepSizes {
        StepSizes {
            n_tokens: batch.tokens.len(),
            n_logits: batch.logits_at.len(),
            n_pooled: batch.pooled_rows.len(),
        }
    }
}

impl<'a> Spans<'a> {
    /// The buffers of a program in a step.
    pub(super) fn new(program: &'a Program, sizes: StepSizes) -> Spans<'a> {
        let n = Sections {
            tokens: sizes.n_tokens,
            chunk: sizes.n_tokens.min(CHUNK_ROWS),
            logits: sizes.n_logits,
            pooled: sizes.n_pooled,
        };
        let mut starts = Sections::default();
        let mut end = 0;
        for rows in [Rows::Tokens, Rows::Chunk, Rows::Logits, Rows::Pooled] {
            *starts.of_mut(rows) = end;
            end += n.of(rows) * program.sections.of(rows);
        }
        Spans {
            program,
            n,
            starts,
            n_floats: end,
            chunk: 0..sizes.n_tokens,
        }
    }

    /// Elements of the arena.
    pub(super) fn n_floats(&self) -> usize {
        self.n_floats
    }

    /// Lets the ops that follow see tokens `chunk` only.
    pub(super) fn enter(&mut self, chunk: Range<usize>) {
        self.chunk = chunk;
    }

    /// The tokens that are seen.
    pub(super) fn chunk(&self) -> Range<usize> {
        self.chunk.clone()
    }

    /// New tokens of the step.
    pub(super) fn n_tokens(&self) -> usize {
        self.n.tokens
    }

    /// Rows of a kind that are seen.
    pub(super) fn n_rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens | Rows::Chunk => self.chunk.len(),
            Rows::Logits | Rows::Pooled => self.n.of(rows),
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
        let start = self.starts.of(rows) + self.n.of(rows) * offset + from;
        Span::Arena(start..start + n_floats)
    }
}
