//! Where each buffer of a program is in the arena, and which ops are executed together. The output is not in the arena:
//! it leaves the step.

use super::{Buffer, BufferId, Extent, Program, Rows, Run};

/// Columns are given out in steps of so many: a buffer then starts on a cache line.
const COLUMNS_STEP: usize = 16;

/// Fills in the runs of a program, the offsets of its buffers and the columns of its sections.
pub(super) fn plan(program: &mut Program) {
    program.runs = runs(program);
    let lifetimes = lifetimes(program);
    for rows in [Rows::Tokens, Rows::Chunk, Rows::Logits, Rows::Pooled] {
        place(program, rows, &lifetimes);
    }
}

/// The ops from the first to the last one that need a buffer.
#[derive(Clone, Copy)]
struct Lifetime {
    first: usize,
    last: usize,
}

/// Ops that read or write a chunk run together, once for each chunk.
fn runs(program: &Program) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (idx, op) in program.ops.iter().enumerate() {
        let touches_chunk = op
            .buffers()
            .iter()
            .any(|id| program.buffer(*id).rows == Rows::Chunk);
        let extent = if touches_chunk {
            Extent::Chunks
        } else {
            Extent::Step
        };
        match runs.last_mut().filter(|run| run.extent == extent) {
            Some(run) => run.ops.end = idx + 1,
            None => runs.push(Run {
                ops: idx..idx + 1,
                extent,
            }),
        }
    }
    runs
}

/// The lifetime of every buffer, in the order of their numbers.
fn lifetimes(program: &Program) -> Vec<Option<Lifetime>> {
    let mut lifetimes: Vec<Option<Lifetime>> = vec![None; program.buffers.len()];
    for run in &program.runs {
        for idx in run.ops.clone() {
            for BufferId(id) in program.ops[idx].buffers() {
                // The first op of a run is executed again after its last one, for the next chunk: what all chunks share
                // is needed from the first op to the last.
                let is_shared = run.extent == Extent::Chunks && program.buffers[id].rows != Rows::Chunk;
                let (first, last) = if is_shared {
                    (run.ops.start, run.ops.end - 1)
                } else {
                    (idx, idx)
                };
                let lifetime = lifetimes[id].get_or_insert(Lifetime { first, last });
                lifetime.first = lifetime.first.min(first);
                lifetime.last = lifetime.last.max(last);
            }
        }
    }
    lifetimes
}

/// Gives each buffer of a section the lowest columns that are free during its lifetime, in the order of their first
/// use.
fn place(program: &mut Program, rows: Rows, lifetimes: &[Option<Lifetime>]) {
    let mut order: Vec<(Lifetime, usize)> = lifetimes
        .iter()
        .enumerate()
        .filter(|(id, _)| program.buffers[*id].rows == rows && BufferId(*id) != program.output)
        .filter_map(|(id, lifetime)| Some(((*lifetime)?, id)))
        .collect();
    order.sort_by_key(|(lifetime, id)| (lifetime.first, *id));
    let mut live: Vec<(Lifetime, usize)> = Vec::new();
    let mut n_columns = 0;
    for (lifetime, id) in order {
        live.retain(|(other, _)| other.last >= lifetime.first);
        let n = columns(&program.buffers[id]);
        let mut taken: Vec<(usize, usize)> = live
            .iter()
            .map(|(_, other)| {
                let other = &program.buffers[*other];
                (other.offset, other.offset + columns(other))
            })
            .collect();
        taken.sort_unstable();
        let mut offset = 0;
        for (start, end) in taken {
            if offset + n <= start {
                break;
            }
            offset = offset.max(end);
        }
        program.buffers[id].offset = offset;
        n_columns = n_columns.max(offset + n);
        live.push((lifetime, id));
    }
    *program.sections.of_mut(rows) = n_columns;
}

fn columns(buffer: &Buffer) -> usize {
    buffer.width.next_multiple_of(COLUMNS_STEP)
}
