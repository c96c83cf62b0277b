//! Rows of a table, widened: token ids become activations.

mod cpu;

use crate::cpu::context::CpuContext;
use crate::error::{KernelError, check_len, check_range};
use crate::weight::Weight;

/// `out[i] = table[ids[i]]`, widened to f32 (exact). `out` is `[ids.len(), table.n_cols()]`.
///
/// # Errors
/// An id is not below the table's rows, or `out` has another length; nothing was written then.
pub fn embed(_context: &CpuContext, table: &Weight, ids: &[u32], out: &mut [f32]) -> Result<(), KernelError> {
    let d = table.n_cols();
    check_len("embed", "out", out.len(), ids.len() * d)?;
    for &id in ids {
        let inside = (id as usize) < table.n_rows();
        check_range(inside, "embed", ("id", id as usize), "below the table's rows")?;
    }
    cpu::run(table, ids, out);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weight::DType;
    use crate::weight::tests::weight_of;

    #[test]
    fn gathers_rows_of_every_dtype() {
        let context = CpuContext::new(1).unwrap();
        let values: Vec<f32> = (0..15).map(|i| i as f32 * 0.3).collect();
        for dtype in [DType::F32, DType::F16, DType::BF16] {
            let (table, rounded) = weight_of(dtype, 5, &values);
            let mut out = [f32::NAN; 15];
            embed(&context, &table, &[2, 0, 2], &mut out).unwrap();
            let want = [&rounded[10..], &rounded[..5], &rounded[10..]].concat();
            assert_eq!(out.map(f64::from).to_vec(), want, "{dtype:?}");
        }
    }

    #[test]
    fn refuses_an_id_beyond_the_table() {
        let context = CpuContext::new(1).unwrap();
        let (table, _) = weight_of(DType::F32, 2, &[1.0; 6]);
        let refused = embed(&context, &table, &[1, 3], &mut [0.0; 4]);
        assert!(matches!(refused, Err(KernelError::Range { got: 3, .. })));
        assert!(embed(&context, &table, &[1], &mut [0.0; 4]).is_err());
    }
}
