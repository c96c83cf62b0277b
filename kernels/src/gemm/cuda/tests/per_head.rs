//! A product for each head.

use super::*;

/// Heads that lie apart in wider rows, with NaN between them.
fn check(dtype: DType, m: usize, (n_heads, n, k): (usize, usize, usize)) {
    let (x_step, out_step) = (k + 3, n + 2);
    let x_at = HeadColumns {
        row_stride: n_heads * x_step + 1,
        first: 1,
        step: x_step,
    };
    let out_at = HeadColumns {
        row_stride: n_heads * out_step + 5,
        first: 2,
        step: out_step,
    };
    let mut x = numbers(1, m * x_at.row_stride);
    for (at, x) in x.iter_mut().enumerate() {
        let column = at % x_at.row_stride;
        let is_head = column >= 1 && (column - 1) % x_step < k;
        *x = if is_head { rounded(dtype, *x) } else { f32::NAN };
    }
    let before = numbers(2, m * out_at.row_stride);
    let of_head = |head: usize| weight_of(dtype, k, &numbers(10 + head as u64, n * k));
    each_order(|gpu| {
        let uploaded: Vec<_> = (0..n_heads)
            .map(|head| Matrix::upload(gpu, &of_head(head).0).unwrap())
            .collect();
        let matrices: Vec<Matrix> = uploaded.iter().map(|(_, matrix)| *matrix).collect();
        let weights = MatrixList::new(gpu, &matrices, &[]).unwrap();
        let scratch = ProductScratch::new(gpu, &ScratchSizes::default().per_head(m, &weights)).unwrap();
        let (x_there, out) = (upload(gpu, &x), upload(gpu, &before));
        let op = PerHead {
            x: x_there.view(),
            x_at,
            weights: &weights,
            out: out.view(),
            out_at,
            scratch: &scratch,
        };
        per_head(gpu, &op).unwrap();
        let mut unwritten = before.clone();
        let out = download(gpu, &out);
        for head in 0..n_heads {
            let (_, w) = of_head(head);
            for i in 0..m {
                let row = &x[i * x_at.row_stride + 1 + head * x_step..][..k];
                for j in 0..n {
                    let products = row.iter().zip(&w[j * k..]).map(|(x, w)| f64::from(*x) * w);
                    let at = i * out_at.row_stride + 2 + head * out_step + j;
                    let rounding = k as f64 * rounding(DType::F32);
                    Expected::sum(products, rounding).check(out[at], (dtype, m, head, i, j));
                    unwritten[at] = out[at];
                }
            }
        }
        assert_eq!(out, unwritten, "beside the heads");
    });
}

#[test]
fn heads_of_all_types() {
    for dtype in DTYPES {
        check(dtype, 1, (3, 37, 19));
        check(dtype, 21, (5, 130, 70));
    }
}

#[test]
fn many_rows() {
    check(DType::BF16, 140, (2, 9, 33));
}
