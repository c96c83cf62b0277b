//! Products of tensor cores and copies of tiles against plain loops.

use cudarc::driver::sys::{self, CUresult, CUtensorMap};
use half::{bf16, f16};

use crate::card::Arg::{At, Int, Map};
use crate::card::{Card, each_order, shape};

/// Small whole numbers: products of them are exact in every order.
fn whole(len: usize) -> Vec<f32> {
    (0..len).map(|i| ((i * 7919 + 13) % 17) as f32 - 8.0).collect()
}

/// `a[m, k] . b[n, k]ᵀ`.
fn product(a: &[f32], b: &[f32], k: usize) -> Vec<f32> {
    let rows = a.chunks(k);
    rows.flat_map(|row| {
        b.chunks(k)
            .map(|column| row.iter().zip(column).map(|(x, y)| x * y).sum())
    })
    .collect()
}

fn transposed(x: &[f32], columns: usize) -> Vec<f32> {
    (0..columns)
        .flat_map(|column| x.iter().skip(column).step_by(columns).copied())
        .collect()
}

#[test]
fn a_warps_product_has_the_fragments_of_the_instruction() {
    each_order(|card| {
        let (a, b) = (whole(16 * 16), whole(8 * 16));
        let expected = product(&a, &b, 16);
        let out = card.room::<f32>(16 * 8);
        let run = |kernel: &str, a: u64, b: u64| {
            card.run(kernel, shape(1, 32).shared(768), &[At(out), At(a), At(b)]);
            card.read::<f32>(out, 16 * 8)
        };
        let brain = |x: &[f32]| card.upload(&x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
        let half = |x: &[f32]| card.upload(&x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>());
        assert_eq!(
            run("warp_product_bf16", brain(&a), brain(&b)).as_ref(),
            Ok(&expected)
        );
        assert_eq!(
            run("warp_product_f16", half(&a), half(&b)).as_ref(),
            Ok(&expected)
        );
        assert_eq!(
            run("warp_product_trans", brain(&a), brain(&transposed(&b, 16))).as_ref(),
            Ok(&expected)
        );
    });
}

/// Runs a product of a warpgroup, 64 x 64 x 64.
fn group_product(card: &Card, kernel: &str) -> (Result<Vec<f32>, CUresult>, Vec<f32>) {
    let (a, b) = (whole(64 * 64), whole(64 * 64));
    let stored = if kernel.ends_with("mn_major") {
        transposed(&b, 64)
    } else {
        b.clone()
    };
    let brain = |x: &[f32]| card.upload(&x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
    let out = card.room::<f32>(64 * 64);
    card.run(
        kernel,
        shape(1, 128).shared(16384),
        &[At(out), At(brain(&a)), At(brain(&stored))],
    );
    (card.read(out, 64 * 64), product(&a, &b, 64))
}

#[test]
fn a_warpgroups_product_is_exact_from_shared_memory_and_registers() {
    each_order(|card| {
        for kernel in [
            "group_product_shared",
            "group_product_registers",
            "group_product_mn_major",
        ] {
            let (out, expected) = group_product(card, kernel);
            assert_eq!(out, Ok(expected), "{kernel}");
        }
    });
}

#[test]
fn a_missing_wgmma_wait_reads_nan() {
    each_order(|card| {
        let (out, _) = group_product(card, "group_product_no_wait");
        assert!(out.expect("it ends").iter().all(|value| value.is_nan()));
    });
}

#[test]
fn a_missing_wgmma_fence_is_an_error() {
    each_order(|card| {
        let (out, _) = group_product(card, "group_product_no_fence");
        assert_eq!(out, Err(CUresult::CUDA_ERROR_LAUNCH_FAILED));
        assert!(card.fault().contains("without wgmma_fence"));
    });
}

#[test]
fn a_missing_fence_of_the_async_proxy_reads_nan() {
    each_order(|card| {
        let (out, _) = group_product(card, "group_product_no_proxy_fence");
        assert!(out.expect("it ends").iter().all(|value| value.is_nan()));
    });
}

#[test]
fn wgmma_needs_hopper() {
    let Some(card) = Card::open(0) else { return };
    card.set("capability", 80);
    let (out, _) = group_product(&card, "group_product_shared");
    assert_eq!(out, Err(CUresult::CUDA_ERROR_ILLEGAL_INSTRUCTION));
}

/// A tensor of 16-bit values, innermost side first, and the box that is loaded.
struct Tensor<'a> {
    sides: &'a [u64],
    pitch: u64,
    corner: &'a [u32],
    at: &'a [i32],
    swizzle: sys::CUtensorMapSwizzle,
}

fn encode(base: u64, tensor: &Tensor<'_>) -> Result<CUtensorMap, CUresult> {
    let mut strides = vec![tensor.pitch * 2];
    for side in &tensor.sides[1..] {
        strides.push(strides[strides.len() - 1] * side);
    }
    let steps = [1u32; 5];
    // SAFETY: a tensor map is plain bytes, and the lists have one entry a dimension.
    unsafe {
        let mut map: CUtensorMap = std::mem::zeroed();
        let status = sys::cuTensorMapEncodeTiled(
            &mut map,
            sys::CUtensorMapDataType::CU_TENSOR_MAP_DATA_TYPE_BFLOAT16,
            tensor.sides.len() as u32,
            base as *mut _,
            tensor.sides.as_ptr(),
            strides.as_ptr(),
            tensor.corner.as_ptr(),
            steps.as_ptr(),
            sys::CUtensorMapInterleave::CU_TENSOR_MAP_INTERLEAVE_NONE,
            tensor.swizzle,
            sys::CUtensorMapL2promotion::CU_TENSOR_MAP_L2_PROMOTION_NONE,
            sys::CUtensorMapFloatOOBfill::CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE,
        );
        if status == CUresult::CUDA_SUCCESS {
            Ok(map)
        } else {
            Err(status)
        }
    }
}

/// The value at a place of the tensor, which holds the numbers of its elements; 0 outside.
fn element(tensor: &Tensor<'_>, place: &[i64]) -> u16 {
    let mut index = 0;
    let mut stride = 1;
    for (d, (&at, &side)) in place.iter().zip(tensor.sides).enumerate() {
        if at < 0 || at as u64 >= side {
            return 0;
        }
        index += at as u64 * stride;
        stride *= if d == 0 { tensor.pitch } else { side };
    }
    index as u16
}

/// What shared memory holds after the load.
fn expected_tile(tensor: &Tensor<'_>) -> Vec<u16> {
    let len: u32 = tensor.corner.iter().product();
    let mut tile = vec![0; len as usize];
    for i in 0..len {
        let mut rest = i;
        let place: Vec<i64> = (tensor.corner.iter().zip(tensor.at))
            .map(|(&side, &at)| {
                let here = rest % side;
                rest /= side;
                i64::from(at) + i64::from(here)
            })
            .collect();
        let byte = i * 2;
        let bits = match tensor.swizzle {
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_128B => 0x70,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_64B => 0x30,
            sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B => 0x10,
            _ => 0,
        };
        tile[((byte ^ ((byte >> 3) & bits)) / 2) as usize] = element(tensor, &place);
    }
    tile
}

const NO_SWIZZLE: sys::CUtensorMapSwizzle = sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_NONE;

fn load(card: &Card, kernel: &str, tensor: &Tensor<'_>) -> Result<Vec<u16>, CUresult> {
    let len = tensor.pitch * tensor.sides[1..].iter().product::<u64>();
    let values: Vec<u16> = (0..len).map(|i| i as u16).collect();
    let map = encode(card.upload(&values), tensor).expect("a map of these sizes");
    let at = card.upload(tensor.at);
    let n: u32 = tensor.corner.iter().product();
    let out = card.room::<u16>(n as usize);
    let args = [
        At(out),
        Map(map),
        Int(tensor.at.len() as i32),
        At(at),
        Int(2 * n as i32),
    ];
    card.run(kernel, shape(1, 32).shared(2 * n), &args);
    card.read(out, n as usize)
}

#[test]
fn tiles_of_two_to_five_dimensions_are_the_boxes_of_their_tensor() {
    use sys::CUtensorMapSwizzle as Swizzle;
    each_order(|card| {
        let tensors = [
            Tensor {
                sides: &[100, 30],
                pitch: 104,
                corner: &[64, 16],
                at: &[64, 20],
                swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_128B,
            },
            Tensor {
                sides: &[50, 9],
                pitch: 56,
                corner: &[32, 8],
                at: &[-3, 4],
                swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_64B,
            },
            Tensor {
                sides: &[40, 6, 5],
                pitch: 40,
                corner: &[16, 2, 4],
                at: &[8, 5, -1],
                swizzle: Swizzle::CU_TENSOR_MAP_SWIZZLE_32B,
            },
            Tensor {
                sides: &[16, 5, 4, 3],
                pitch: 16,
                corner: &[8, 2, 2, 2],
                at: &[8, 3, 1, 2],
                swizzle: NO_SWIZZLE,
            },
            Tensor {
                sides: &[8, 3, 4, 3, 4],
                pitch: 8,
                corner: &[8, 2, 2, 2, 2],
                at: &[0, 1, 2, 1, 3],
                swizzle: NO_SWIZZLE,
            },
        ];
        for tensor in &tensors {
            assert_eq!(
                load(card, "tile", tensor),
                Ok(expected_tile(tensor)),
                "{:?}",
                tensor.sides
            );
        }
    });
}

#[test]
fn a_missing_mbarrier_wait_reads_nan() {
    each_order(|card| {
        let tensor = Tensor {
            sides: &[64, 8],
            pitch: 64,
            corner: &[64, 8],
            at: &[0, 0],
            swizzle: NO_SWIZZLE,
        };
        assert_eq!(load(card, "tile_wrong", &tensor), Ok(vec![0xffff; 512]));
    });
}

#[test]
fn a_tensor_map_that_breaks_a_rule_is_refused() {
    let Some(card) = Card::open(0) else { return };
    let base = card.room::<u16>(4096);
    let right = Tensor {
        sides: &[64, 8],
        pitch: 64,
        corner: &[64, 8],
        at: &[0, 0],
        swizzle: NO_SWIZZLE,
    };
    assert!(encode(base, &right).is_ok());
    let swizzle = sys::CUtensorMapSwizzle::CU_TENSOR_MAP_SWIZZLE_32B;
    assert!(encode(base + 2, &right).is_err());
    assert!(encode(base, &Tensor { pitch: 63, ..right }).is_err());
    assert!(
        encode(
            base,
            &Tensor {
                corner: &[64, 300],
                ..right
            }
        )
        .is_err()
    );
    assert!(encode(base, &Tensor { swizzle, ..right }).is_err());
}
