//! One request after another on a connection, and when the connection waits for its client meanwhile.
//!
//! A connection waits until a request is complete, and again after its answer. Must not know what is served.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use axum::Router;
use axum::body::{Body, Bytes};
use futures::future::BoxFuture;
use futures::{FutureExt, TryFutureExt};
use http::{Request, Response};
use hyper::body::{Body as HttpBody, Frame, Incoming, SizeHint};
use hyper::service::Service;
use tower::ServiceExt;

use crate::http::places::{Place, Wait};

/// Answers the requests of a connection.
pub(super) struct Exchanges {
    router: Router,
    place: Arc<Place>,
    first: First,
}

/// Whether the head of a connection's first request is complete.
#[derive(Clone, Debug, Default)]
pub(super) struct First(Arc<AtomicBool>);

impl First {
    pub(super) fn has_come(&self) -> bool {
        self.0.load(Ordering::Acquire)
    }
}

impl Exchanges {
    pub(super) fn new(router: Router, place: Arc<Place>) -> Self {
        Self {
            router,
            place,
            first: First::default(),
        }
    }

    pub(super) fn first(&self) -> First {
        self.first.clone()
    }
}

impl Service<Request<Incoming>> for Exchanges {
    type Response = Response<Answer>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response<Answer>, Infallible>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.first.0.store(true, Ordering::Release);
        let place = Arc::clone(&self.place);
        let request = request.map(|body| Body::new(Arriving::new(body, Arc::clone(&place))));
        let answered = self.router.clone().oneshot(request);
        answered
            .map_ok(|response| response.map(|body| Answer { body, place }))
            .boxed()
    }
}

/// The body of a request.
struct Arriving {
    body: Incoming,
    place: Arc<Place>,
}

impl Arriving {
    fn new(body: Incoming, place: Arc<Place>) -> Self {
        if body.is_end_stream() {
            place.end(Wait::Request);
        }
        Self { body, place }
    }
}

impl HttpBody for Arriving {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        let is_complete = matches!(polled, Poll::Ready(None)) || self.body.is_end_stream();
        if is_complete {
            self.place.end(Wait::Request);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The body of an answer. After it, the connection waits for the next request.
pub(super) struct Answer {
    body: Body,
    place: Arc<Place>,
}

impl HttpBody for Answer {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.place.begin(Wait::Request);
    }
}
