//! Products on cards of every compute capability, as the stand-in plays them, against those of the CPU.

use kernels::cuda::testing::{self, Driver, driver, gpu, set};
use kernels::cuda::{DeviceBuffer, Gpu};
use kernels::gpu::{Linear, Matrix, ProductScratch, ScratchSizes, linear};
use kernels::{CpuContext, DType, Gemm, Isa, Weight, gemm};

const N: usize = 144;
const K: usize = 70;

/// Numbers of which every type holds the exact value.
fn numbers(n: usize) -> Vec<f32> {
    (0..n)
        .map(|i| ((i * 37 + i / 11) % 33) as f32 / 16.0 - 1.0)
        .collect()
}

fn upload(gpu: &Gpu, numbers: &[f32]) -> DeviceBuffer<f32> {
    let buffer = gpu.alloc(numbers.len()).expect("there is memory");
    gpu.upload(numbers, buffer.view()).expect("the copy is enqueued");
    buffer
}

/// The numbers of the weight.
fn weight(dtype: DType) -> Weight {
    let bytes: Vec<u8> = numbers(N * K).iter().flat_map(|w| w.to_le_bytes()).collect();
    let mut weight = Weight::zeroed(dtype, N, K).expect("there is memory");
    weight.write_rows(0, DType::F32, &bytes).expect("the rows fit");
    weight
}

fn check(gpu: &Gpu, weight: &Weight, packed: &Weight, m: usize) {
    let x = numbers(m * K);
    let mut want = vec![0.0; m * N];
    let context = CpuContext::with_isa(1, Isa::Portable).expect("a thread");
    gemm(&context, Gemm::of_rows(&x, packed, None, &mut want)).expect("the shapes agree");
    let (_buffer, matrix) = Matrix::upload(gpu, weight).expect("there is memory");
    let scratch =
        ProductScratch::new(gpu, &ScratchSizes::default().linear(m, &matrix)).expect("there is memory");
    let (x, out) = (upload(gpu, &x), upload(gpu, &vec![f32::NAN; m * N]));
    linear(gpu, &Linear::of_rows(x.view(), matrix, out.view(), &scratch)).expect("the product is enqueued");
    let mut got = vec![0.0; m * N];
    gpu.download(out.view(), &mut got).expect("the product ends");
    for (at, (got, want)) in got.iter().zip(&want).enumerate() {
        let capability = gpu.capability();
        assert!(
            (got - want).abs() < 1e-4,
            "{capability:?} {:?} {m} rows, {at}: {got}, not {want}",
            weight.dtype()
        );
    }
}

#[test]
fn every_capability_multiplies() {
    if driver() != Some(Driver::StandIn) {
        testing::skip("only the stand-in can be every card");
        return;
    }
    for capability in [80, 86, 89, 90] {
        set("capability", capability);
        for seed in 0..8 {
            let gpu = gpu(seed).expect("the stand-in has a device");
            assert_eq!(
                i64::from(gpu.capability().0 * 10 + gpu.capability().1),
                capability
            );
            for dtype in [DType::F32, DType::F16, DType::BF16] {
                let (rows, mut packed) = (weight(dtype), weight(dtype));
                packed.pack();
                for m in [1, 8, 20, 70] {
                    check(&gpu, &rows, &packed, m);
                }
            }
        }
    }
}
