//! The answers of one request while they are generated, as one stream of pieces or as complete answers.

use futures::FutureExt;
use futures::stream::{self, BoxStream, Fuse, StreamExt};

use super::choice::Choice;
use super::delta::Delta;
use super::whole::Whole;
use crate::api::error::ApiError;

/// Largest number of pieces that are taken together.
const READY_MAX: usize = 64;

/// The answers of a request that are being generated.
#[derive(Debug)]
pub struct Running {
    /// One choice per generated answer; for a beam search, one per prompt.
    pub choices: Vec<Choice>,
    /// Number of texts that each beam search returns; `None` without beam search.
    pub n_searched: Option<usize>,
}

/// The pieces of a request's answers in the order in which they are made. Dropping this cancels the answers that are not
/// complete.
pub struct Deltas(Source);

enum Source {
    /// A single answer skips the polling of several, which costs as much as a token.
    One(Box<Choice>),
    Several(Fuse<BoxStream<'static, Result<Delta, ApiError>>>),
}

impl Deltas {
    /// Waits for a piece, and takes all further pieces that are ready, up to a maximum. Takes nothing after the end.
    pub async fn ready(&mut self, taken: &mut Vec<Result<Delta, ApiError>>) {
        match &mut self.0 {
            Source::One(choice) => {
                taken.extend(choice.next().await);
                let more = std::iter::from_fn(|| choice.next_ready());
                taken.extend(more.take(READY_MAX.saturating_sub(taken.len())));
            }
            Source::Several(choices) => {
                taken.extend(choices.next().await);
                let more = std::iter::from_fn(|| choices.next().now_or_never().flatten());
                taken.extend(more.take(READY_MAX.saturating_sub(taken.len())));
            }
        }
    }
}

impl Running {
    /// The pieces of all answers.
    pub fn deltas(self) -> Deltas {
        let mut choices = self.choices;
        let several = match (self.n_searched, choices.len()) {
            (None, 1) => return Deltas(Source::One(Box::new(choices.remove(0)))),
            (None, _) => {
                let generated = |choice| stream::unfold(Box::new(choice), next).boxed();
                stream::select_all(choices.into_iter().map(generated)).boxed()
            }
            (Some(n), _) => {
                let searched = |choice: Choice| stream::once(choice.search(n)).flat_map(stream::iter).boxed();
                stream::select_all(choices.into_iter().map(searched)).boxed()
            }
        };
        Deltas(Source::Several(several.fuse()))
    }

    /// Waits for all answers, and returns them in the order of their indices.
    ///
    /// # Errors
    /// The first error of any of them; the others are cancelled.
    pub async fn wholes(self) -> Result<Vec<Whole>, ApiError> {
        let n_each = self.n_searched.unwrap_or(1);
        let mut wholes = vec![Whole::default(); self.choices.len() * n_each];
        let (mut deltas, mut ready) = (self.deltas(), Vec::new());
        loop {
            deltas.ready(&mut ready).await;
            if ready.is_empty() {
                return Ok(wholes);
            }
            for delta in ready.drain(..) {
                let delta = delta?;
                wholes[delta.choice_idx].append(delta);
            }
        }
    }
}

/// Boxed, because the choice is moved in and out with each piece.
async fn next(mut choice: Box<Choice>) -> Option<(Result<Delta, ApiError>, Box<Choice>)> {
    choice.next().await.map(|delta| (delta, choice))
}
