//! The binary on a CUDA device, which is the stand-in for the driver: answers, and how it fails.

use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use crds::failure::Reason;
use kernels::cuda::testing;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::binary::{Process, client};
use crate::fixture::until;

/// The variable that lets the binary find the stand-in; `None`, and a line that says why, if the build has made none.
fn library_path() -> Option<String> {
    let folder = testing::standin();
    if folder.is_none() {
        testing::skip("no stand-in for the driver was built");
    }
    Some(folder?.display().to_string())
}

/// The binary on the stand-in, with another variable.
fn on_device(library_path: &str, variable: (&str, &str)) -> Process {
    let variables = [("LD_LIBRARY_PATH", library_path), variable];
    Process::start_with(&["--device", "cuda", "--dtype", "float32"], &variables)
}

/// A greedy answer: its status and its text.
async fn answer(process: &Process) -> (u16, Value) {
    let body = json!({"prompt": "a", "max_tokens": 12, "temperature": 0, "ignore_eos": true});
    let url = format!("http://{}/v1/completions", process.address);
    let response = client()
        .build()
        .unwrap()
        .post(url)
        .json(&body)
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    let body: Value = response.json().await.unwrap();
    (status, body["choices"][0]["text"].clone())
}

async fn status_of(process: &Process, path: &str) -> u16 {
    let url = format!("http://{}{path}", process.address);
    let response = client().build().unwrap().get(url).send().await.unwrap();
    response.status().as_u16()
}

/// Ends a process as the kubelet does, and waits for it.
async fn end(process: &mut Process) -> ExitStatus {
    let pid = Pid::from_child(&process.child);
    kill_process(pid, Signal::TERM).unwrap();
    ended(process).await
}

async fn ended(process: &mut Process) -> ExitStatus {
    let mut status = None;
    until("the end of the process", || {
        status = process.child.try_wait().unwrap();
        status.is_some()
    })
    .await;
    status.unwrap()
}

#[tokio::test]
async fn a_device_answers_as_the_cpu_does() {
    let Some(library_path) = library_path() else {
        return;
    };
    let on_cpu = Process::start(&["--device", "cpu", "--dtype", "float32"]);
    let process = on_device(&library_path, ("SLIPWAY_STANDIN_SEED", "2"));
    on_cpu.logged("ready").await;
    process.logged("ready").await;
    let expected = answer(&on_cpu).await;
    assert_eq!(expected.0, 200);
    // The third one is replayed.
    for _ in 0..3 {
        assert_eq!(answer(&process).await, expected, "{}", process.log());
    }
    let url = format!("http://{}/startupz", process.address);
    let status: Value = client()
        .build()
        .unwrap()
        .get(url)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let device = status["model"]["device"].as_str().unwrap();
    assert!(device.contains("compute capability"), "{device}");
}

#[tokio::test]
async fn without_a_driver_the_cpu_computes_unless_a_gpu_is_requested() {
    let process = Process::start(&["--device", "auto"]);
    process.logged("ready").await;
    assert!(process.log().contains("the CPU computes"), "{}", process.log());
    let mut process = Process::start(&["--device", "cuda"]);
    let status = ended(&mut process).await;
    assert_eq!(
        status.code(),
        Some(Reason::GPUUnavailable.exit_code().into()),
        "{status}"
    );
    process.logged("no GPU can be used").await;
}

#[tokio::test]
async fn a_device_without_memory_is_named() {
    let Some(library_path) = library_path() else {
        return;
    };
    let mut process = on_device(&library_path, ("SLIPWAY_STANDIN_FAIL_ALLOCATION", "5"));
    let status = ended(&mut process).await;
    assert_eq!(
        status.code(),
        Some(Reason::OutOfGPUMemory.exit_code().into()),
        "{}",
        process.log()
    );
}

#[tokio::test]
async fn a_failing_launch_and_a_lost_device_end_the_engine() {
    let Some(library_path) = library_path() else {
        return;
    };
    for variable in ["SLIPWAY_STANDIN_FAIL_LAUNCH", "SLIPWAY_STANDIN_LOSE_DEVICE"] {
        let mut process = on_device(&library_path, (variable, "600"));
        process.logged("ready").await;
        let mut statuses = Vec::new();
        for _ in 0..100 {
            statuses.push(answer(&process).await.0);
            if statuses.ends_with(&[500]) {
                break;
            }
        }
        assert!(
            statuses.ends_with(&[500]),
            "{variable}: {statuses:?}, {}",
            process.log()
        );
        assert_eq!(status_of(&process, "/livez").await, 503, "{variable}");
        let status = end(&mut process).await;
        assert_eq!(status.signal(), None, "{variable}: {status}");
        let expected = Some(Reason::GPUFailed.exit_code().into());
        assert_eq!(status.code(), expected, "{variable}: {}", process.log());
    }
}
