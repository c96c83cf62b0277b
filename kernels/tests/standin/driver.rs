//! Faults of the host's calls: streams, copies, graphs, limits, and the failures that a test asks for.

use std::collections::BTreeSet;
use std::ffi::c_void;
use std::path::Path;

use cudarc::driver::sys::{self, CUresult};

use crate::card::Arg::{At, Int};
use crate::card::{Card, each_order, shape};

/// Names of the driver's functions that the sources below a folder call, by what stands before the name.
fn called(folder: &str, before: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the crate") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap_or_default();
            let ends = text
                .match_indices(before)
                .map(|(at, found)| &text[at + found.len()..]);
            let words = ends.map(|rest| {
                rest.chars()
                    .take_while(|c| c.is_alphanumeric() || *c == '_')
                    .collect::<String>()
            });
            // A function's name begins with `cu` and a capital, a type's with `CU`.
            names.extend(words.filter(|word| {
                word.starts_with("cu") && word.chars().nth(2).is_some_and(char::is_uppercase)
            }));
        }
    }
    names
}

#[test]
fn the_stand_in_has_the_calls_of_the_host_layer_and_no_others() {
    let made = called("standin/driver", "API CUresult ");
    let mut used = called("src", "sys::");
    assert!(used.len() > 30, "{used:?}");
    assert_eq!(
        used.difference(&made).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "calls without a stand-in"
    );
    used.extend(called("tests", "sys::"));
    assert_eq!(
        made.difference(&used).collect::<Vec<_>>(),
        Vec::<&String>::new(),
        "calls that nothing makes"
    );
}

const SUCCESS: CUresult = CUresult::CUDA_SUCCESS;
const INVALID_VALUE: CUresult = CUresult::CUDA_ERROR_INVALID_VALUE;

/// Pinned memory of `len` numbers.
fn pinned(len: usize) -> &'static mut [f32] {
    let mut at: *mut c_void = std::ptr::null_mut();
    // SAFETY: the driver gives memory for the bytes, aligned to a page and set; the test's process keeps it.
    unsafe {
        assert_eq!(sys::cuMemHostAlloc(&mut at, len * 4, 0), SUCCESS);
        std::slice::from_raw_parts_mut(at.cast(), len)
    }
}

fn upload_late(card: &Card, to: u64, from: &[f32]) {
    // SAFETY: pinned memory stays for the life of the process.
    let status =
        unsafe { sys::cuMemcpyHtoDAsync_v2(to, from.as_ptr().cast(), size_of_val(from), card.stream) };
    assert_eq!(status, SUCCESS);
}

#[test]
fn a_pinned_slot_that_is_reused_early_changes_what_is_copied() {
    each_order(|card| {
        let (slot, at) = (pinned(4), card.room::<f32>(4));
        slot.fill(1.0);
        upload_late(card, at, slot);
        slot.fill(2.0);
        assert_eq!(
            card.read(at, 4),
            Ok(vec![2.0f32; 4]),
            "the copy reads the slot when it runs"
        );
        slot.fill(1.0);
        upload_late(card, at, slot);
        assert_eq!(card.wait(), SUCCESS);
        slot.fill(2.0);
        assert_eq!(card.read(at, 4), Ok(vec![1.0f32; 4]));
    });
}

#[test]
fn a_pinned_result_that_is_read_before_the_wait_is_not_there() {
    each_order(|card| {
        let (result, at) = (pinned(4), card.upload(&[5.0f32; 4]));
        result.fill(0.0);
        // SAFETY: pinned memory stays for the life of the process.
        let status = unsafe { sys::cuMemcpyDtoHAsync_v2(result.as_mut_ptr().cast(), at, 16, card.stream) };
        assert_eq!(status, SUCCESS);
        assert_ne!(result, [5.0; 4]);
        assert_eq!(card.wait(), SUCCESS);
        assert_eq!(result, [5.0; 4]);
    });
}

/// Work on a second stream that reads what the first one writes, with and without an event between them.
fn two_streams(card: &Card, waits: bool) -> Result<Vec<f32>, CUresult> {
    let (source, at, copy) = (pinned(8), card.upload(&[0.0f32; 8]), card.room::<f32>(8));
    assert_eq!(card.wait(), SUCCESS);
    source.fill(3.0);
    upload_late(card, at, source);
    let (mut event, mut second) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the handles are made here, and the addresses are the card's.
    unsafe {
        assert_eq!(sys::cuEventCreate(&mut event, 2), SUCCESS);
        assert_eq!(sys::cuEventRecord(event, card.stream), SUCCESS);
        assert_eq!(sys::cuStreamCreate(&mut second, 1), SUCCESS);
        if waits {
            assert_eq!(sys::cuStreamWaitEvent(second, event, 0), SUCCESS);
        }
        assert_eq!(sys::cuMemcpyDtoDAsync_v2(copy, at, 32, second), SUCCESS);
        assert_eq!(sys::cuStreamSynchronize(second), SUCCESS);
        assert_eq!(sys::cuStreamDestroy_v2(second), SUCCESS);
    }
    card.read(copy, 8)
}

#[test]
fn a_missing_wait_between_streams_shows_in_some_order() {
    let mut n_found = 0;
    each_order(|card| {
        assert_eq!(two_streams(card, true), Ok(vec![3.0; 8]), "seed {}", card.seed());
        n_found += u32::from(two_streams(card, false) != Ok(vec![3.0; 8]));
    });
    assert!(n_found > 0 || Card::open(0).is_none());
}

#[test]
fn a_freed_argument_is_refused() {
    let Some(card) = Card::open(0) else { return };
    let (out, input) = (card.room::<f32>(8), card.room::<f32>(8));
    card.free(input);
    assert_eq!(
        card.launch("twice", shape(1, 32), &[At(out), At(input), Int(8)]),
        INVALID_VALUE
    );
    assert!(card.fault().contains("which was freed"), "{}", card.fault());
}

#[test]
fn a_copy_behind_the_end_is_refused() {
    let Some(card) = Card::open(0) else { return };
    let at = card.room::<f32>(8);
    let values = [0.0f32; 9];
    // SAFETY: the driver refuses the range.
    let status = unsafe { sys::cuMemcpyHtoDAsync_v2(at, values.as_ptr().cast(), 36, card.stream) };
    assert_eq!(status, INVALID_VALUE);
}

#[test]
fn the_limits_of_a_launch_are_the_devices() {
    let Some(card) = Card::open(0) else { return };
    let out = card.room::<f32>(2048);
    let n = Int(8);
    assert_eq!(card.launch("bounded", shape(1, 64), &[At(out)]), SUCCESS);
    assert_eq!(card.launch("bounded", shape(1, 65), &[At(out)]), INVALID_VALUE);
    assert_eq!(
        card.launch("bounds", shape(1, 1025), &[At(out), n]),
        INVALID_VALUE
    );
    assert_eq!(card.launch("bounds", shape(0, 32), &[At(out), n]), INVALID_VALUE);
    let large = shape(1, 32).shared(49_153);
    assert_eq!(card.launch("bounds", large, &[At(out), n]), INVALID_VALUE);
    assert!(card.fault().contains("dynamic shared memory"), "{}", card.fault());
}

/// Captures `enqueue` on the card's stream.
fn capture(card: &Card, enqueue: impl FnOnce()) -> Result<sys::CUgraphExec, CUresult> {
    let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    let (mut graph, mut executable) = (std::ptr::null_mut(), std::ptr::null_mut());
    // SAFETY: the handles are made here.
    unsafe {
        assert_eq!(sys::cuStreamBeginCapture_v2(card.stream, mode), SUCCESS);
        enqueue();
        let status = sys::cuStreamEndCapture(card.stream, &mut graph);
        if status != SUCCESS {
            return Err(status);
        }
        assert_eq!(
            sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0),
            SUCCESS
        );
        assert_eq!(sys::cuGraphDestroy(graph), SUCCESS);
    }
    Ok(executable)
}

fn replay(card: &Card, graph: sys::CUgraphExec) {
    // SAFETY: the graph was made by `capture`.
    assert_eq!(unsafe { sys::cuGraphLaunch(graph, card.stream) }, SUCCESS);
}

#[test]
fn a_graph_reads_its_inputs_when_it_is_replayed() {
    each_order(|card| {
        card.function("twice");
        let (slot, input, out) = (pinned(40), card.room::<f32>(40), card.room::<f32>(40));
        let graph = capture(card, || {
            upload_late(card, input, slot);
            card.run("twice", shape(1, 64), &[At(out), At(input), Int(40)]);
            card.run(
                "twice",
                shape(1, 64).overlapping(),
                &[At(input), At(out), Int(40)],
            );
        })
        .expect("a capture");
        for value in [1.0f32, 5.0, 7.0] {
            slot.fill(value);
            replay(card, graph);
            assert_eq!(card.read(input, 40), Ok(vec![4.0 * value; 40]));
        }
    });
}

#[test]
fn a_result_of_a_graph_is_not_there_before_the_wait() {
    let Some(card) = Card::open(0) else { return };
    let (result, at) = (pinned(4), card.upload(&[5.0f32; 4]));
    let graph = capture(&card, || {
        // SAFETY: pinned memory stays for the life of the process.
        let status = unsafe { sys::cuMemcpyDtoHAsync_v2(result.as_mut_ptr().cast(), at, 16, card.stream) };
        assert_eq!(status, SUCCESS);
    })
    .expect("a capture");
    for _ in 0..2 {
        replay(&card, graph);
        assert_ne!(result, [5.0; 4]);
        assert_eq!(card.wait(), SUCCESS);
        assert_eq!(result, [5.0; 4]);
    }
}

#[test]
fn a_graph_replayed_with_a_stale_pad_row_writes_that_row() {
    each_order(|card| {
        card.function("write_slots");
        let (slots, cache) = (card.upload(&[0i32, 1, 2, 3]), card.upload(&[0.0f32; 8]));
        let graph = capture(card, || {
            card.run("write_slots", shape(1, 32), &[At(cache), At(slots), Int(4)])
        })
        .expect("a capture");
        replay(card, graph);
        card.write(cache, &[0.0f32; 8]);
        // Three rows in a graph for four: the fourth is a pad row.
        card.write(slots, &[4i32, 5, 6, -1]);
        replay(card, graph);
        assert_eq!(
            card.read(cache, 8),
            Ok(vec![0.0f32, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 0.0])
        );
        card.write(cache, &[0.0f32; 8]);
        card.write(slots, &[4i32, 5, 6, 3]);
        replay(card, graph);
        assert_eq!(
            card.read(cache, 8),
            Ok(vec![0.0f32, 0.0, 0.0, 4.0, 1.0, 2.0, 3.0, 0.0]),
            "the stale row is seen"
        );
    });
}

#[test]
fn a_wait_or_an_allocation_in_a_capture_spoils_it() {
    let Some(card) = Card::open(0) else { return };
    let spoilt = Err(CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    let unsupported = CUresult::CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    assert_eq!(capture(&card, || assert_eq!(card.wait(), unsupported)), spoilt);
    let mut at = 0;
    // SAFETY: the pointer is valid for the call.
    let allocate = || assert_eq!(unsafe { sys::cuMemAlloc_v2(&mut at, 16) }, unsupported);
    assert_eq!(capture(&card, allocate), spoilt);
}

#[test]
fn memory_ends_where_the_device_ends() {
    let Some(card) = Card::open(0) else { return };
    let size = card.get("memory") as usize;
    let (mut at, mut more) = (0, 0);
    // SAFETY: the pointers are valid for the calls. The memory is never touched, so it costs nothing.
    unsafe {
        assert_eq!(sys::cuMemAlloc_v2(&mut at, size - 4096), SUCCESS);
        assert_eq!(
            sys::cuMemAlloc_v2(&mut more, 8192),
            CUresult::CUDA_ERROR_OUT_OF_MEMORY
        );
        assert_eq!(sys::cuMemFree_v2(at), SUCCESS);
        assert_eq!(sys::cuMemAlloc_v2(&mut more, 8192), SUCCESS);
    }
    card.set("fail_allocation", 1);
    // SAFETY: as above.
    let status = unsafe { sys::cuMemAlloc_v2(&mut at, 16) };
    assert_eq!(status, CUresult::CUDA_ERROR_OUT_OF_MEMORY);
}

#[test]
fn a_launch_fails_and_a_device_is_lost_when_a_test_asks() {
    for (setting, status) in [
        ("fail_launch", CUresult::CUDA_ERROR_LAUNCH_FAILED),
        ("lose_device", CUresult::CUDA_ERROR_UNKNOWN),
    ] {
        let Some(card) = Card::open(0) else { return };
        let out = card.room::<f32>(8);
        card.set(setting, 2);
        card.run("clear", shape(1, 32), &[At(out), Int(8)]);
        assert_eq!(card.wait(), SUCCESS);
        card.run("clear", shape(1, 32), &[At(out), Int(8)]);
        assert_eq!(card.wait(), status, "{setting}");
        assert_eq!(card.read::<f32>(out, 8), Err(status), "the error stays");
    }
}

#[test]
fn waits_of_the_host_are_counted() {
    let Some(card) = Card::open(0) else { return };
    let at = card.upload(&[1.0f32; 4]);
    let (waits, events) = (card.get("host_waits"), card.get("event_waits"));
    let mut event = std::ptr::null_mut();
    // SAFETY: the handle is made here.
    unsafe {
        assert_eq!(sys::cuEventCreate(&mut event, 2), SUCCESS);
        assert_eq!(sys::cuEventRecord(event, card.stream), SUCCESS);
        assert_eq!(sys::cuEventSynchronize(event), SUCCESS);
    }
    assert_eq!(
        (card.get("host_waits"), card.get("event_waits")),
        (waits, events + 1)
    );
    assert!(card.read::<f32>(at, 4).is_ok());
    assert_eq!(card.get("host_waits"), waits + 1);
}
