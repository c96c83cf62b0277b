//! The memory of bodies: shares of it while they arrive, and while they are parsed.
//!
//! Must not know HTTP.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::weight::Weight;
use crate::api::error::ApiError;
use crate::http::places::{Place, Places};

/// Largest small body, in bytes. Small bodies have memory of their own, so that large ones never keep them out.
const SMALL_BYTES_MAX: usize = 64 << 10;
/// Small bodies that arrive at a time. For a further one, the one that has waited longest for its client gives way.
const SMALL_MAX: usize = 1024;
/// Bytes of all larger bodies, until they are parsed.
const ARRIVED_BYTES_MAX: usize = 64 << 20;
/// Bytes of all values of larger bodies. No body may have more; 8 MiB of token ids have 180 MiB.
const PARSED_BYTES_MAX: usize = 192 << 20;
/// Longest wait of a complete body for its share of them.
const PARSED_WAIT_MAX: Duration = Duration::from_secs(10);
/// Seconds after which a client that found no memory may try again.
const RETRY_AFTER_S: u64 = 5;

/// The memory that all bodies share. Clones are the same memory.
#[derive(Clone, Debug)]
pub(crate) struct BodyMemory {
    small: Arc<Places>,
    arrived: Arc<Semaphore>,
    parsed: Arc<Semaphore>,
}

impl Default for BodyMemory {
    fn default() -> Self {
        Self {
            small: Places::new(SMALL_MAX),
            arrived: Arc::new(Semaphore::new(ARRIVED_BYTES_MAX)),
            parsed: Arc::new(Semaphore::new(PARSED_BYTES_MAX)),
        }
    }
}

impl BodyMemory {
    /// Waits for memory for values of this size, and at most for all of it.
    pub(crate) async fn for_values(&self, n_bytes: usize) -> Option<OwnedSemaphorePermit> {
        let n_bytes = n_bytes.min(PARSED_BYTES_MAX) as u32;
        let share = Arc::clone(&self.parsed).acquire_many_owned(n_bytes).await;
        share.ok()
    }
}

/// A complete body. Its share of the memory is free again when this is dropped.
#[derive(Debug)]
pub(crate) struct CountedBytes {
    bytes: Vec<u8>,
    /// Of its bytes, and of the values that they become.
    _shares: [Option<OwnedSemaphorePermit>; 2],
}

impl Deref for CountedBytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

/// A body that arrives.
#[derive(Debug)]
pub(super) struct Arrival<'a> {
    memory: &'a BodyMemory,
    bytes: Vec<u8>,
    weight: Weight,
    /// Until it is larger than small.
    small: Option<Place>,
    share: Option<OwnedSemaphorePermit>,
}

impl<'a> Arrival<'a> {
    pub(super) async fn new(memory: &'a BodyMemory) -> Self {
        Self {
            memory,
            bytes: Vec::new(),
            weight: Weight::default(),
            small: Some(memory.small.take().await),
            share: None,
        }
    }

    /// Waits until it must give way to a newer body; for ever if it is large.
    pub(super) async fn gives_way(&self) {
        match &self.small {
            Some(place) => place.gives_way().await,
            None => std::future::pending().await,
        }
    }

    /// Adds a piece.
    ///
    /// # Errors
    /// [`ApiError`] if there is no memory for it, or the body has too many values.
    pub(super) fn push(&mut self, piece: &[u8]) -> Result<(), ApiError> {
        self.weight.push(piece);
        if self.weight.n_bytes() > PARSED_BYTES_MAX {
            return Err(ApiError::TooManyValues {
                bytes_max: PARSED_BYTES_MAX,
            });
        }
        self.make_room(self.bytes.len() + piece.len())?;
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    /// Makes room for `n_bytes`, by doubling, and takes the share for it first.
    fn make_room(&mut self, n_bytes: usize) -> Result<(), ApiError> {
        let n_now = self.bytes.capacity();
        if n_bytes <= n_now {
            return Ok(());
        }
        let n_then = n_bytes.max(2 * n_now);
        if n_then > SMALL_BYTES_MAX {
            let n_held = self.share.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = taken(&self.memory.arrived, n_then - n_held).ok_or_else(busy)?;
            match &mut self.share {
                Some(share) => share.merge(more),
                None => self.share = Some(more),
            }
            self.small = None;
        }
        self.bytes.reserve_exact(n_then - self.bytes.len());
        Ok(())
    }

    /// The complete body, with memory for its values.
    ///
    /// # Errors
    /// [`ApiError`] if there is no memory for its values.
    pub(super) async fn complete(self) -> Result<CountedBytes, ApiError> {
        let parsed = match self.share {
            // The values of small bodies are few, and only as many bodies are parsed at once as there are cores.
            None => None,
            Some(_) => {
                let share = self.memory.for_values(self.weight.n_bytes());
                let share = tokio::time::timeout(PARSED_WAIT_MAX, share).await;
                Some(share.ok().flatten().ok_or_else(busy)?)
            }
        };
        Ok(CountedBytes {
            bytes: self.bytes,
            _shares: [self.share, parsed],
        })
    }
}

fn taken(shares: &Arc<Semaphore>, n_bytes: usize) -> Option<OwnedSemaphorePermit> {
    let n_bytes = u32::try_from(n_bytes).ok()?;
    Arc::clone(shares).try_acquire_many_owned(n_bytes).ok()
}

pub(super) fn busy() -> ApiError {
    ApiError::NoMemory {
        retry_after_s: RETRY_AFTER_S,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn arrived(memory: &BodyMemory, n_bytes: usize) -> Result<CountedBytes, ApiError> {
        let mut arrival = Arrival::new(memory).await;
        let piece = [b' '; 16 << 10];
        for at in (0..n_bytes).step_by(piece.len()) {
            arrival.push(&piece[..piece.len().min(n_bytes - at)])?;
        }
        arrival.complete().await
    }

    #[tokio::test]
    async fn large_bodies_share_the_memory_and_small_ones_pass() {
        let memory = BodyMemory::default();
        let mut held = Vec::new();
        let refused = loop {
            match arrived(&memory, 8 << 20).await {
                Ok(body) => held.push(body),
                Err(error) => break error,
            }
        };
        assert_eq!(refused, busy());
        let n_bytes: usize = held.iter().map(|body| body.bytes.capacity()).sum();
        assert!(held.len() > 4 && n_bytes <= ARRIVED_BYTES_MAX, "{}", held.len());
        assert_eq!(
            arrived(&memory, SMALL_BYTES_MAX).await.unwrap().len(),
            SMALL_BYTES_MAX
        );
        drop(held);
        assert!(arrived(&memory, 8 << 20).await.is_ok());
        assert_eq!(memory.arrived.available_permits(), ARRIVED_BYTES_MAX);
    }

    #[tokio::test]
    async fn values_beyond_the_bound_are_refused_while_they_arrive() {
        let memory = BodyMemory::default();
        let mut arrival = Arrival::new(&memory).await;
        let piece = b"[0],".repeat(4096);
        let mut n_bytes = 0;
        let refused = loop {
            n_bytes += piece.len();
            if let Err(error) = arrival.push(&piece) {
                break error;
            }
        };
        assert!(matches!(refused, ApiError::TooManyValues { .. }));
        assert!(n_bytes < 4 << 20, "{n_bytes}");
    }

    #[tokio::test]
    async fn eight_mebibytes_of_token_ids_are_no_more_than_a_body_may_have() {
        let memory = BodyMemory::default();
        let mut arrival = Arrival::new(&memory).await;
        let ids = b"1234,".repeat(1 << 12);
        for _ in 0..(8 << 20) / ids.len() {
            arrival.push(&ids).unwrap();
        }
        assert!(arrival.complete().await.is_ok());
    }
}
