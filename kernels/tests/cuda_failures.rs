//! What fails on a device ends as an error of its kind. One test, because a lost device stays lost in its process.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use kernels::cuda::{Arg, CudaError, Gpu, Launch, Overlap, testing};

fn add(gpu: &Gpu) -> Result<(), CudaError> {
    let x = gpu.alloc_zeroed::<f32>(100)?;
    let launch = Launch {
        kernel: "add",
        grid: [1, 1, 1],
        block: 256,
        shared_bytes: 0,
        overlap: Overlap::None,
    };
    let args = [
        Arg::from(x.view()),
        Arg::from(x.view()),
        Arg::U32(100),
        Arg::F32(1.0),
    ];
    gpu.launch(&launch, &args)?;
    gpu.synchronize()
}

#[test]
fn failures_have_errors_of_their_kind() {
    if testing::driver() != Some(testing::Driver::StandIn) {
        testing::skip("failures can be made on the stand-in only");
        return;
    }
    let gpu = testing::gpu(0).unwrap();
    add(&gpu).unwrap();

    let too_much = gpu.total_memory() / 4 + 1;
    let error = gpu.alloc::<f32>(too_much).err().unwrap();
    let size_bytes = too_much * 4;
    assert!(matches!(error, CudaError::OutOfMemory { size_bytes: got, .. } if got == size_bytes));
    assert!(matches!(
        gpu.alloc::<f32>(usize::MAX / 2),
        Err(CudaError::OutOfMemory { .. })
    ));
    add(&gpu).unwrap();

    testing::set("fail_launch", 1);
    let error = add(&gpu).unwrap_err();
    assert!(
        matches!(error, CudaError::Launch { kernel: "add", .. }) || error.is_fatal(),
        "{error}"
    );

    // As on a card, a launch that fails ends the use of the device in this process.
    assert!(add(&gpu).unwrap_err().is_fatal(), "it stays lost");
}
