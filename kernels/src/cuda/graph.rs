//! A recorded sequence of launches and copies that is enqueued as a whole.

use std::sync::atomic::Ordering;

use cudarc::driver::sys;

use super::error::{CudaError, check};
use super::gpu::Gpu;

/// A recorded sequence. The buffers that it uses must outlive its replays.
pub struct Graph {
    executable: sys::CUgraphExec,
    gpu: Gpu,
}

// SAFETY: a graph may be launched from any thread that has made the context current; one stream orders its replays.
unsafe impl Send for Graph {}

impl Gpu {
    /// Records what `enqueue` enqueues, without running it.
    ///
    /// Waiting, allocating and copies from or to the host are errors meanwhile.
    ///
    /// # Errors
    /// `enqueue` fails, or the driver cannot record what it enqueues. The stream can be used again.
    pub fn capture<E: From<CudaError>>(&self, enqueue: impl FnOnce() -> Result<(), E>) -> Result<Graph, E> {
        self.bind()?;
        let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
        // SAFETY: the stream lives as long as `self`.
        check("cuStreamBeginCapture", unsafe {
            sys::cuStreamBeginCapture_v2(self.shared.stream, mode)
        })?;
        self.shared.is_capturing.store(true, Ordering::Relaxed);
        let enqueued = enqueue();
        self.shared.is_capturing.store(false, Ordering::Relaxed);
        let mut graph = std::ptr::null_mut();
        // SAFETY: as above; the pointer is valid for the call.
        let ended = check("cuStreamEndCapture", unsafe {
            sys::cuStreamEndCapture(self.shared.stream, &mut graph)
        });
        let recorded = enqueued.and_then(|()| ended.map_err(E::from));
        let instantiated = recorded.and_then(|()| self.instantiate(graph).map_err(E::from));
        if !graph.is_null() {
            // SAFETY: the executable graph is a copy, so nobody uses this one any more.
            let _ = unsafe { sys::cuGraphDestroy(graph) };
        }
        instantiated
    }

    /// Enqueues a recorded sequence.
    ///
    /// # Errors
    /// The driver fails.
    pub fn replay(&self, graph: &Graph) -> Result<(), CudaError> {
        self.bind()?;
        // SAFETY: graph and stream live as long as their owners.
        check("cuGraphLaunch", unsafe {
            sys::cuGraphLaunch(graph.executable, self.shared.stream)
        })
    }

    fn instantiate(&self, graph: sys::CUgraph) -> Result<Graph, CudaError> {
        let mut executable = std::ptr::null_mut();
        // SAFETY: the graph was recorded just now, and the pointer is valid for the call.
        check("cuGraphInstantiate", unsafe {
            sys::cuGraphInstantiateWithFlags(&mut executable, graph, 0)
        })?;
        let graph = Graph {
            executable,
            gpu: self.clone(),
        };
        // SAFETY: as above. The device's part of the graph is made now and not at the first replay.
        check("cuGraphUpload", unsafe {
            sys::cuGraphUpload(executable, self.shared.stream)
        })?;
        Ok(graph)
    }
}

impl Drop for Graph {
    fn drop(&mut self) {
        if self.gpu.bind().is_ok() {
            // SAFETY: nobody else has the handle; the driver frees it when its last replay is done.
            let _ = unsafe { sys::cuGraphExecDestroy(self.executable) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing;

    #[test]
    fn a_replay_reads_what_the_buffers_hold_then() {
        testing::each_order(|gpu| {
            let (from, to) = (gpu.alloc(64).unwrap(), gpu.alloc_zeroed(64).unwrap());
            gpu.upload(&[1u32; 64], from.view()).unwrap();
            let graph = gpu.capture(|| gpu.copy(from.view(), to.view())).unwrap();
            let mut got = [9; 64];
            gpu.download(to.view(), &mut got).unwrap();
            assert_eq!(got, [0; 64], "recording does not run");
            for value in [3u32, 4] {
                gpu.upload(&[value; 64], from.view()).unwrap();
                gpu.replay(&graph).unwrap();
                gpu.download(to.view(), &mut got).unwrap();
                assert_eq!(got, [value; 64]);
            }
        });
    }

    #[test]
    fn a_recording_that_fails_leaves_the_stream_usable() {
        let Some(gpu) = testing::gpu(0) else { return };
        let buffer = gpu.alloc_zeroed::<u32>(4).unwrap();
        let refused = gpu.capture(|| gpu.upload(&[1; 4], buffer.view()));
        assert!(refused.is_err());
        let waits = gpu.capture(|| gpu.synchronize());
        assert!(waits.is_err());
        gpu.upload(&[5; 4], buffer.view()).unwrap();
        let mut got = [0; 4];
        gpu.download(buffer.view(), &mut got).unwrap();
        assert_eq!(got, [5; 4]);
    }
}
