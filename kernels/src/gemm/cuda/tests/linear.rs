//! Products of all columns.

use super::*;
use crate::error::KernelError;

/// A product, with gaps of NaN between the rows.
#[derive(Clone, Copy, Debug)]
struct Case {
    dtype: DType,
    m: usize,
    n: usize,
    k: usize,
    norm: Option<NormKind>,
    has_bias: bool,
    then: ProductThen,
}

const EPS: f32 = 1e-5;
/// Columns before and behind the operands in their rows.
const GAP: (usize, usize) = (3, 2);

impl Case {
    fn new(dtype: DType, (m, n, k): (usize, usize, usize)) -> Case {
        Case {
            dtype,
            m,
            n,
            k,
            norm: None,
            has_bias: false,
            then: ProductThen::Store,
        }
    }

    fn x(&self) -> Vec<f32> {
        let mut x = numbers(1, self.m * (self.k + GAP.0 + GAP.1));
        for row in x.chunks_mut(self.k + GAP.0 + GAP.1) {
            row.iter_mut().for_each(|x| *x = rounded(self.dtype, *x));
            row[..GAP.0].fill(f32::NAN);
            row[GAP.0 + self.k..].fill(f32::NAN);
        }
        x
    }

    fn before(&self) -> Vec<f32> {
        numbers(5, self.m * self.out_columns().row_stride)
    }

    fn x_columns(&self) -> Columns {
        Columns {
            row_stride: self.k + GAP.0 + GAP.1,
            first: GAP.0,
        }
    }

    fn out_columns(&self) -> Columns {
        Columns {
            row_stride: self.then.n_out(self.n) + GAP.0 + GAP.1,
            first: GAP.1,
        }
    }

    fn bias(&self) -> Option<Vec<f32>> {
        self.has_bias.then(|| numbers(4, self.n))
    }

    /// What is expected of each output of the rows without gaps.
    fn expected(&self, way: Way) -> Vec<Expected> {
        let (_, w) = weight_of(self.dtype, self.k, &numbers(3, self.n * self.k));
        let (x, bias, before) = (self.x(), self.bias(), self.before());
        let (norm_weight, norm_bias) = (numbers(6, self.k), numbers(7, self.k));
        let sums = self.k as f64 * rounding(DType::F32);
        // Activations that are products of a norm are rounded once more where the weight has 16 bits.
        let rounding = match (self.norm, way) {
            (None, _) => sums,
            (Some(_), Way::Gemv) => sums + 1e-5,
            (Some(_), _) => sums + 1e-5 + 2.0 * rounding(self.dtype),
        };
        let n_out = self.then.n_out(self.n);
        let mut expected = Vec::new();
        for i in 0..self.m {
            let row = &x[i * self.x_columns().row_stride + GAP.0..][..self.k];
            let row = normed(self.norm, row, (&norm_weight, &norm_bias));
            let product = |j: usize| {
                let products = row.iter().zip(&w[j * self.k..]).map(|(x, w)| x * w);
                let sum = Expected::sum(products, rounding);
                bias.as_ref().map_or(sum, |bias| sum.plus(f64::from(bias[j])))
            };
            let one = Expected {
                value: 1.0,
                tolerance: 0.0,
            };
            for j in 0..n_out {
                let at = i * self.out_columns().row_stride + self.out_columns().first + j;
                expected.push(match self.then {
                    ProductThen::Store => product(j),
                    ProductThen::AddTo { scale } => {
                        product(j).times(f64::from(scale)).plus(f64::from(before[at]))
                    }
                    ProductThen::Act(activation) => product(j).activated(activation, one),
                    ProductThen::Gated(activation) => product(j).activated(activation, product(n_out + j)),
                });
            }
        }
        expected
    }

    /// All of the output's rows after the product, which is computed twice: working memory is as before after it.
    fn run(&self, gpu: &Gpu, way: Way, x: &[f32]) -> Vec<f32> {
        let (weight, _) = weight_of(self.dtype, self.k, &numbers(3, self.n * self.k));
        let (_weight, matrix) = Matrix::upload(gpu, &weight).unwrap();
        let x = upload(gpu, x);
        let bias = self.bias().map(|bias| upload(gpu, &bias));
        let norm_vectors = [6, 7].map(|seed| upload(gpu, &numbers(seed, self.k)));
        let scratch = ProductScratch::new(gpu, &ScratchSizes::default().linear(self.m, &matrix)).unwrap();
        let mut results = (0..2).map(|_| {
            let out = upload(gpu, &self.before());
            let op = Linear {
                x: x.view(),
                x_columns: self.x_columns(),
                norm: self.norm.map(|kind| RowNorm {
                    kind,
                    weight: Some(norm_vectors[0].view()),
                    bias: (kind == NormKind::Layer).then(|| norm_vectors[1].view()),
                    eps: EPS,
                }),
                weight: matrix,
                bias: bias.as_ref().map(DeviceBuffer::view),
                out: out.view(),
                out_columns: self.out_columns(),
                then: self.then,
                scratch: &scratch,
            };
            run(gpu, &op, (self.m, way)).unwrap();
            download(gpu, &out)
        });
        let (first, second) = (results.next().unwrap(), results.next().unwrap());
        let same = first.iter().zip(&second).all(|(a, b)| a.to_bits() == b.to_bits());
        assert!(same, "{self:?} {way:?}: other bits the second time");
        first
    }

    /// Compares the product with f64 arithmetic, and what is beside it with what was there before.
    fn check(&self, gpu: &Gpu, way: Way, expected: &[Expected]) -> Vec<f32> {
        let out = self.run(gpu, way, &self.x());
        let Columns { row_stride, first } = self.out_columns();
        let n_out = self.then.n_out(self.n);
        for (at, (&got, &before)) in out.iter().zip(&self.before()).enumerate() {
            let (row, column) = (at / row_stride, at % row_stride);
            match column.checked_sub(first).filter(|j| *j < n_out) {
                Some(j) => expected[row * n_out + j].check(got, (self, way, row, j)),
                None => assert_eq!(got, before, "{self:?} {way:?}: beside the columns"),
            }
        }
        out
    }

    /// The same in all orders: within the tolerance, and with the same bits.
    fn check_orders(&self, way: Way) {
        let expected = self.expected(way);
        let mut first: Option<Vec<f32>> = None;
        each_order(|gpu| {
            let out = self.check(gpu, way, &expected);
            let first = first.get_or_insert_with(|| out.clone());
            assert_eq!(*first, out, "{self:?} {way:?}: the order changes bits");
        });
    }
}

fn normed(kind: Option<NormKind>, row: &[f32], (weight, bias): (&[f32], &[f32])) -> Vec<f64> {
    let wide = |x: &f32| f64::from(*x);
    let k = row.len() as f64;
    let mean = match kind {
        Some(NormKind::Layer) => row.iter().map(wide).sum::<f64>() / k,
        _ => 0.0,
    };
    let squares = row.iter().map(|x| (wide(x) - mean).powi(2)).sum::<f64>();
    let scale = 1.0 / (squares / k + f64::from(EPS)).sqrt();
    let at = |(i, x): (usize, &f32)| match kind {
        None => wide(x),
        Some(NormKind::Rms) => wide(x) * scale * wide(&weight[i]),
        Some(NormKind::Layer) => (wide(x) - mean) * scale * wide(&weight[i]) + wide(&bias[i]),
    };
    row.iter().enumerate().map(at).collect()
}

/// Columns that fill `n_steps` steps of a tile but for the last few elements.
fn columns(dtype: DType, n_steps: usize) -> usize {
    n_steps * 128 / dtype.size_bytes() - 5
}

#[test]
fn gemv_of_all_rows_and_chunks() {
    for dtype in DTYPES {
        for m in [1, 2, 3, 4, 5, 8] {
            Case::new(dtype, (m, 37, 75)).check_orders(Way::Gemv);
        }
        // More columns than a block keeps of each row.
        for (m, k) in [(1, 8301), (8, 1101)] {
            Case::new(dtype, (m, 3, k)).check_orders(Way::Gemv);
        }
    }
}

/// Every stage of a ring is filled, emptied and filled again, by each block.
#[test]
fn tiles_go_round_their_ring_twice() {
    for (dtype, (m, n), n_steps, n_stages) in [
        (DType::F32, (5, 150), 33, 4),
        (DType::F16, (37, 150), 33, 4),
        (DType::BF16, (131, 130), 13, 3),
    ] {
        let k = columns(dtype, n_steps);
        each_order(|gpu| {
            let (weight, _) = weight_of(dtype, k, &numbers(3, n * k));
            let (_weight, matrix) = Matrix::upload(gpu, &weight).unwrap();
            let tiles = Tiles::of_linear(m, &matrix);
            let n_units = tiles.n_tiles_max * n_steps;
            assert!(n_units / super::tile::n_blocks(gpu, &tiles) >= 2 * n_stages);
        });
        Case::new(dtype, (m, n, k)).check_orders(Way::Tiles);
    }
}

#[test]
fn tiles_of_any_shape() {
    for dtype in DTYPES {
        for (m, n, k) in [
            (1, 1, 1),
            (6, 17, 3),
            (16, 129, 40),
            (17, 8, 67),
            (65, 3, 130),
            (129, 140, 9),
        ] {
            Case::new(dtype, (m, n, k)).check_orders(Way::Tiles);
        }
    }
}

/// As of tiles; a ring has at most 5 stages.
#[test]
fn streams_go_round_their_ring_twice() {
    for (dtype, m, n_steps) in [
        (DType::F16, 7, 41),
        (DType::BF16, 16, 41),
        (DType::F16, 29, 41),
        (DType::BF16, 64, 33),
        (DType::F16, 140, 13),
    ] {
        Case::new(dtype, (m, 250, columns(dtype, n_steps))).check_orders(Way::Stream);
    }
}

#[test]
fn streams_of_any_shape() {
    for (m, n, k) in [(1, 1, 8), (8, 17, 3), (9, 129, 40), (33, 300, 70), (129, 140, 9)] {
        Case::new(DType::BF16, (m, n, k)).check_orders(Way::Stream);
    }
}

/// Norms, biases and what becomes of a product, on each way.
#[test]
fn everything_around_a_product() {
    let thens = [
        ProductThen::AddTo { scale: 0.7 },
        ProductThen::Act(Activation::GeluTanh),
        ProductThen::Gated(Activation::Silu),
        ProductThen::Gated(Activation::ClampedSwiglu { limit: 0.5 }),
    ];
    for (way, dtype, m) in [
        (Way::Gemv, DType::F32, 3),
        (Way::Gemv, DType::BF16, 1),
        (Way::Tiles, DType::F32, 21),
        (Way::Tiles, DType::F16, 5),
        (Way::Stream, DType::BF16, 20),
        (Way::Stream, DType::F16, 70),
    ] {
        for (idx, then) in thens.into_iter().enumerate() {
            let case = Case {
                norm: [None, Some(NormKind::Rms), Some(NormKind::Layer)][idx % 3],
                has_bias: idx % 2 == 0,
                then,
                ..Case::new(dtype, (m, 144, 70))
            };
            case.check_orders(way);
        }
    }
}

/// cuBLASLt, where outputs start on 16 bytes; it is the stand-in's on the stand-in.
#[test]
fn many_rows_by_the_library() {
    let thens = [
        ProductThen::AddTo { scale: 0.7 },
        ProductThen::Act(Activation::Relu),
        ProductThen::Gated(Activation::Silu),
    ];
    for (dtype, then) in [DType::F16, DType::BF16, DType::BF16].into_iter().zip(thens) {
        let (m, n, k) = (70, 48, 70);
        let (weight, _) = weight_of(dtype, k, &numbers(3, n * k));
        let case = Case {
            has_bias: matches!(then, ProductThen::Gated(_)),
            then,
            ..Case::new(dtype, (m, n, k))
        };
        let expected = case.expected(Way::Library);
        each_order(|gpu| {
            let (_weight, matrix) = Matrix::upload(gpu, &weight).unwrap();
            let scratch = ProductScratch::new(gpu, &ScratchSizes::default().linear(m, &matrix)).unwrap();
            if scratch.library().is_none() {
                crate::cuda::testing::skip("cuBLASLt is not installed");
                return;
            }
            let n_out = then.n_out(n);
            let before: Vec<f32> = case
                .before()
                .chunks(case.out_columns().row_stride)
                .flat_map(|row| row[case.out_columns().first..][..n_out].to_vec())
                .collect();
            let (x, out) = (upload(gpu, &case.x()), upload(gpu, &before));
            let bias = case.bias().map(|bias| upload(gpu, &bias));
            let op = Linear {
                x_columns: case.x_columns(),
                bias: bias.as_ref().map(DeviceBuffer::view),
                out_columns: Columns::all(n_out),
                then,
                ..Linear::of_rows(x.view(), matrix, out.view(), &scratch)
            };
            assert_eq!(way((9, 0), &op, m), Way::Library);
            run(gpu, &op, (m, Way::Library)).unwrap();
            for (got, want) in download(gpu, &out).into_iter().zip(&expected) {
                want.check(got, (dtype, then));
            }
        });
    }
}

#[test]
fn the_choice_of_kernels() {
    each_order(|gpu| {
        let chosen = |dtype, n: usize, capability, m, then| {
            let (weight, _) = weight_of(dtype, 2, &vec![1.0; 2 * n]);
            let (_weight, matrix) = Matrix::upload(gpu, &weight).unwrap();
            let scratch = ProductScratch::new(gpu, &ScratchSizes::default()).unwrap();
            let nothing = gpu.alloc::<f32>(0).unwrap();
            let op = Linear {
                then,
                ..Linear::of_rows(nothing.view(), matrix, nothing.view(), &scratch)
            };
            way(capability, &op, m)
        };
        let gated = ProductThen::Gated(Activation::Silu);
        let store = ProductThen::Store;
        for (dtype, n, capability, m, then, want) in [
            (DType::BF16, 32, (9, 0), 4, store, Way::Gemv),
            (DType::BF16, 32, (9, 0), 5, store, Way::Stream),
            (DType::BF16, 32, (9, 0), 64, gated, Way::Stream),
            (DType::BF16, 40, (9, 0), 64, gated, Way::Tiles),
            (DType::F32, 32, (9, 0), 5, store, Way::Tiles),
            (DType::F16, 32, (8, 0), 8, store, Way::Gemv),
            (DType::F16, 32, (8, 9), 9, store, Way::Tiles),
            (DType::F16, 32, (12, 0), 9, store, Way::Tiles),
            // Without cuBLASLt.
            (DType::F16, 32, (9, 0), 65, store, Way::Stream),
            (DType::F16, 32, (8, 0), 65, store, Way::Tiles),
        ] {
            assert_eq!(
                chosen(dtype, n, capability, m, then),
                want,
                "{dtype:?} {n} {capability:?} {m}"
            );
        }
    });
}

#[test]
fn gates_and_ups_of_odd_widths() {
    for (dtype, way, m) in [(DType::F32, Way::Gemv, 2), (DType::BF16, Way::Tiles, 9)] {
        let case = Case {
            then: ProductThen::Gated(Activation::Silu),
            has_bias: true,
            ..Case::new(dtype, (m, 2 * 67, 33))
        };
        case.check_orders(way);
    }
}

#[test]
fn a_bad_row_stays_one_row() {
    for (way, dtype, m) in [
        (Way::Gemv, DType::F32, 4),
        (Way::Gemv, DType::BF16, 8),
        (Way::Tiles, DType::F32, 20),
        (Way::Tiles, DType::BF16, 20),
        (Way::Stream, DType::F16, 20),
    ] {
        let case = Case::new(dtype, (m, 40, 100));
        let mut x = case.x();
        x[3 * case.x_columns().row_stride + GAP.0 + 5] = f32::NAN;
        each_order(|gpu| {
            let out = case.run(gpu, way, &x);
            for (i, row) in out.chunks(case.out_columns().row_stride).enumerate() {
                let row = &row[GAP.1..GAP.1 + 40];
                assert_eq!(row.iter().all(|v| v.is_nan()), i == 3, "{way:?} row {i}");
                assert_eq!(row.iter().any(|v| v.is_nan()), i == 3, "{way:?} row {i}");
            }
        });
    }
}

#[test]
fn refuses_lengths_that_disagree() {
    each_order(|gpu| {
        let (weight, _) = weight_of(DType::F32, 2, &[1.0; 6]);
        let (_weight, matrix) = Matrix::upload(gpu, &weight).unwrap();
        let scratch = ProductScratch::new(gpu, &ScratchSizes::default().linear(1, &matrix)).unwrap();
        let (x, out) = (upload(gpu, &[1.0; 4]), upload(gpu, &[1.0; 6]));
        let op = |n_x, n_out| {
            let (x, out) = (x.view().range(0..n_x), out.view().range(0..n_out));
            Linear::of_rows(x, matrix, out, &scratch)
        };
        assert!(crate::gpu::linear(gpu, &op(2, 3)).is_ok());
        assert!(crate::gpu::linear(gpu, &op(0, 0)).is_ok());
        for (n_x, n_out, operand) in [(3, 3, "x"), (4, 3, "out"), (2, 4, "out")] {
            let refused = crate::gpu::linear(gpu, &op(n_x, n_out));
            assert!(matches!(refused, Err(KernelError::Length { operand: o, .. }) if o == operand));
        }
        let odd = Linear {
            then: ProductThen::Gated(Activation::Silu),
            ..op(2, 1)
        };
        assert!(matches!(
            crate::gpu::linear(gpu, &odd),
            Err(KernelError::Range { operand: "n", .. })
        ));
    });
}
