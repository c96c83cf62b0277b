//! Indices of Python: negative ones count from the end.

/// An index within `0..=len`; a negative one counts from the end.
pub(super) fn clamped(idx: i64, len: usize) -> usize {
    let idx = if idx < 0 {
        idx.saturating_add(len as i64).max(0)
    } else {
        idx
    };
    usize::try_from(idx).unwrap_or(len).min(len)
}

/// The indices that a slice takes of `len` items.
pub(super) fn indices(
    len: usize,
    bounds: [Option<i64>; 2],
    step: i64,
) -> impl DoubleEndedIterator<Item = usize> + Clone {
    let n = len as i64;
    let (low, high) = if step > 0 { (0, n) } else { (-1, n - 1) };
    let bound = |value: Option<i64>, default: i64| match value {
        None => default,
        Some(value) if value < 0 => value.saturating_add(n).max(low),
        Some(value) => value.min(high),
    };
    let start = bound(bounds[0], if step > 0 { low } else { high });
    let stop = bound(bounds[1], if step > 0 { high } else { low });
    let distance = if step > 0 { stop - start } else { start - stop };
    let stride = step.unsigned_abs();
    let n_picked = match u64::try_from(distance) {
        Ok(distance) if distance > 0 => (distance - 1) / stride + 1,
        _ => 0,
    };
    (0..n_picked as i64).map(move |idx| (start + idx * step) as usize)
}
