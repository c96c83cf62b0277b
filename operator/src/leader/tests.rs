//! Tests of leader election: the decision alone, and candidates against an API server that has one Lease.

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

fn spec(holder: &str, seconds: i32) -> LeaseSpec {
    LeaseSpec {
        holder_identity: Some(holder.into()),
        lease_duration_seconds: Some(seconds),
        ..LeaseSpec::default()
    }
}

#[test]
fn a_lease_is_taken_when_free_or_expired_and_renewed_by_its_holder() {
    let second = Duration::from_secs(1);
    for (holder, unchanged_for, expected) in [
        ("", 0, Move::Take),
        ("a", 0, Move::Renew),
        ("a", 100, Move::Renew),
        ("b", 14, Move::Wait),
        ("b", 15, Move::Take),
    ] {
        assert_eq!(
            next_move(&spec(holder, 15), "a", second * unchanged_for),
            expected,
            "{holder} {unchanged_for}"
        );
    }
    assert_eq!(
        next_move(&spec("b", -1), "a", second),
        Move::Wait,
        "a bad duration counts as the default"
    );
    assert_eq!(next_move(&LeaseSpec::default(), "a", second), Move::Take);
}

/// An API server that has one Lease and checks its resourceVersion.
#[derive(Clone, Default)]
struct OneLease(Arc<Mutex<Option<Value>>>);

impl OneLease {
    fn client(&self) -> Client {
        let server = self.clone();
        Client::new(
            tower::service_fn(move |request| {
                let server = server.clone();
                async move { server.answer(request).await }
            }),
            "default",
        )
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let method = request.method().clone();
        let bytes = request.into_body().collect_bytes().await.unwrap();
        let sent: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let (code, body) = self.handle(&method, sent);
        Ok(Response::builder()
            .status(code)
            .body(Body::from(body.to_string().into_bytes()))
            .unwrap())
    }

    fn handle(&self, method: &Method, mut sent: Value) -> (u16, Value) {
        let mut stored = self.0.lock().unwrap();
        let version = |lease: &Value| lease["metadata"]["resourceVersion"].clone();
        let refusal = |code: u16, reason: &str| {
            (
                code,
                json!({"kind": "Status", "status": "Failure", "code": code, "reason": reason}),
            )
        };
        match (method.as_str(), stored.as_ref()) {
            ("GET", Some(lease)) => return (200, lease.clone()),
            ("GET", None) => return refusal(404, "NotFound"),
            ("POST", Some(_)) => return refusal(409, "Conflict"),
            ("PUT", Some(lease)) if version(lease) != version(&sent) => return refusal(409, "Conflict"),
            _ => {}
        }
        let n: u64 = stored
            .as_ref()
            .map_or(0, |lease| version(lease).as_str().unwrap().parse().unwrap());
        sent["metadata"]["resourceVersion"] = json!((n + 1).to_string());
        *stored = Some(sent.clone());
        (200, sent)
    }
}

#[tokio::test]
async fn one_of_two_candidates_holds_it_and_the_other_follows_after_release() {
    let server = OneLease::default();
    let mut first = Candidate::new(server.client(), "default", "first".into());
    let mut second = Candidate::new(server.client(), "default", "second".into());
    assert_eq!(first.try_once().await.unwrap(), Held::Here);
    assert_eq!(second.try_once().await.unwrap(), Held::Elsewhere);
    assert_eq!(first.try_once().await.unwrap(), Held::Here);
    second.release().await.unwrap();
    assert_eq!(
        second.try_once().await.unwrap(),
        Held::Elsewhere,
        "only the holder can release"
    );
    first.release().await.unwrap();
    assert_eq!(second.try_once().await.unwrap(), Held::Here);
    assert_eq!(first.try_once().await.unwrap(), Held::Elsewhere);
}

#[tokio::test]
async fn a_lost_race_is_not_an_error() {
    let server = OneLease::default();
    let mut first = Candidate::new(server.client(), "default", "first".into());
    assert_eq!(first.try_once().await.unwrap(), Held::Here);
    let stale = first.api.get(LEASE).await.unwrap();
    assert_eq!(first.try_once().await.unwrap(), Held::Here);
    let raced = first.replace(&stale).await.map(|_| ());
    assert_eq!(held(raced).unwrap(), Held::Elsewhere);
}
