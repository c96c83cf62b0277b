//! Tests of a process that outlives an API server that is away and a Lease that is lost.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::{
    convert::Infallible,
    sync::{Arc, Mutex},
};

use http::{Method, Request, Response};
use kube::{Client, client::Body};
use operator::{
    context::Installation,
    controller::{self, Process},
    health::Leadership,
    leader::{Candidate, LEASE},
    metrics::Metrics,
};
use prometheus_client::registry::Registry;
use serde_json::{Value, json};
use tokio::sync::{oneshot, watch};

/// An API server without objects but one Lease. Its first answers are errors.
#[derive(Clone)]
struct Api(Arc<Mutex<State>>);

struct State {
    /// Requests that still fail.
    n_failures: u32,
    lease: Value,
    version: u64,
}

impl Api {
    fn new(n_failures: u32) -> Self {
        Self(Arc::new(Mutex::new(State {
            n_failures,
            lease: Value::Null,
            version: 0,
        })))
    }

    fn client(&self) -> Client {
        let api = self.clone();
        let answer = move |request| {
            let api = api.clone();
            async move { api.answer(request).await }
        };
        Client::new(tower::service_fn(answer), "slipway-system")
    }

    async fn answer(&self, request: Request<Body>) -> Result<Response<Body>, Infallible> {
        let (method, uri) = (request.method().clone(), request.uri().clone());
        if uri.query().unwrap_or_default().contains("watch=true") {
            // Nothing changes.
            std::future::pending::<()>().await;
        }
        let bytes = request.into_body().collect_bytes().await.unwrap();
        let sent = serde_json::from_slice(&bytes).unwrap_or_default();
        let (code, body) = self.handle(&method, uri.path(), sent);
        let body = Body::from(body.to_string().into_bytes());
        Ok(Response::builder().status(code).body(body).unwrap())
    }

    fn handle(&self, method: &Method, path: &str, sent: Value) -> (u16, Value) {
        let mut state = self.0.lock().unwrap();
        let refusal = |code: u16, reason: &str| {
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code, "reason": reason, "message": reason});
            (code, status)
        };
        if state.n_failures > 0 {
            state.n_failures -= 1;
            return refusal(503, "ServiceUnavailable");
        }
        if path == "/version" {
            let fields = [
                "major",
                "minor",
                "gitVersion",
                "gitCommit",
                "gitTreeState",
                "buildDate",
                "goVersion",
                "compiler",
                "platform",
            ];
            return (
                200,
                fields
                    .into_iter()
                    .map(|field| (field.to_string(), json!("1")))
                    .collect(),
            );
        }
        if !path.contains("/leases") {
            return (
                200,
                json!({"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}),
            );
        }
        match *method {
            Method::GET if state.lease.is_null() => return refusal(404, "NotFound"),
            Method::GET => {}
            _ => {
                let seen = &sent["metadata"]["resourceVersion"];
                if !state.lease.is_null() && *seen != state.lease["metadata"]["resourceVersion"] {
                    return refusal(409, "Conflict");
                }
                state.store(sent);
            }
        }
        (200, state.lease.clone())
    }

    /// Writes the holder as another process does.
    fn hold(&self, holder: &str) {
        let mut state = self.0.lock().unwrap();
        let mut lease = state.lease.clone();
        lease["spec"]["holderIdentity"] = json!(holder);
        state.store(lease);
    }
}

impl State {
    fn store(&mut self, mut lease: Value) {
        self.version += 1;
        lease["metadata"]["resourceVersion"] = json!(self.version.to_string());
        self.lease = lease;
    }
}

#[tokio::test]
async fn an_outage_and_a_lost_lease_are_waited_for_in_the_process() {
    let api = Api::new(2);
    let client = api.client();
    let candidate = Candidate::new(client.clone(), "slipway-system", "here".into());
    let process = Process {
        client,
        metrics: Metrics::register(&mut Registry::default()),
        installation: Installation::default(),
    };
    let (leadership, mut seen) = watch::channel(Leadership::Connecting);
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move {
        let _sent = stopped.await;
    };
    let running =
        tokio::spawn(async move { controller::run(process, Some(candidate), &leadership, shutdown).await });
    let mut until = async |wanted| {
        seen.wait_for(|now| *now == wanted).await.unwrap();
    };
    until(Leadership::Leading).await;
    assert_eq!(api.0.lock().unwrap().lease["metadata"]["name"], LEASE);

    api.hold("elsewhere");
    until(Leadership::Standby).await;
    api.hold("");
    until(Leadership::Leading).await;

    stop.send(()).unwrap();
    running.await.unwrap().unwrap();
    let holder = api.0.lock().unwrap().lease["spec"]["holderIdentity"].clone();
    assert_eq!(holder, Value::Null, "released");
}
