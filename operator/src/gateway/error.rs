//! What the gateway itself answers, in OpenAI's shape.

use axum::{
    Json,
    http::{HeaderName, HeaderValue, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{
    bucket::{Allowance, Left},
    directory::Key,
};

/// Seconds after which a client may try again.
const RETRY_AFTER_SECONDS: u64 = 5;

/// Marks an answer that comes from the gateway and from no replica.
const FROM_GATEWAY: HeaderName = HeaderName::from_static("x-slipway-gateway-error");

/// Why a request was not forwarded, or has no complete answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// The body names no model and the path no ModelDeployment.
    #[error(
        "the request names no model. Set 'model' in the body, or send the request to /NAMESPACE/NAME/v1; \
         GET /v1/models lists the models"
    )]
    NoModel,
    /// No ModelDeployment serves the name.
    #[error("no ModelDeployment serves the model '{model}'. GET /v1/models lists the models")]
    UnknownModel { model: String },
    /// The path names no ModelDeployment.
    #[error("there is no ModelDeployment {}/{}", key.namespace, key.name)]
    UnknownDeployment { key: Key },
    /// The body does not end in time or breaks off.
    #[error("the body could not be read: {reason}")]
    Body { reason: String },
    /// The body is too large.
    #[error("the body has more than {most} bytes")]
    TooLarge { most: usize },
    /// There is no memory for another body.
    #[error("the gateway holds as many bytes of requests as it may. Try again later")]
    NoMemory,
    /// As many requests wait for this model as may.
    #[error("{most} requests already wait for a replica of {}/{}. Try again later", key.namespace, key.name)]
    QueueFull { key: Key, most: usize },
    /// The client has used up a limit.
    #[error(
        "{client} has used its {} {what} per minute of {}/{} at this gateway. Try again in {} s",
        left.limit,
        key.namespace,
        key.name,
        left.wait_s
    )]
    Limited {
        key: Key,
        client: String,
        what: &'static str,
        left: Left,
        allowance: Box<Allowance>,
    },
    /// No replica became ready in time.
    #[error("no replica of {}/{} became ready within {seconds} s", key.namespace, key.name)]
    NotReady { key: Key, seconds: u64 },
    /// No replica is requested.
    #[error("{}/{} has 0 replicas. Set spec.replicas to 1 or more", key.namespace, key.name)]
    AtZero { key: Key },
    /// Requests start replicas, but not this one.
    #[error(
        "{}/{} has no ready replica, and only a POST request for an answer starts one. A job that was accepted before is lost \
         with its replica",
        key.namespace,
        key.name
    )]
    NothingToStartFor { key: Key },
    /// Requests start replicas, and this client is a stranger as far as is known.
    #[error(
        "{}/{} has no ready replica, and this API key is not known to start one. Send a valid key: Authorization: Bearer KEY. \
         A key that is new in the Secret is known after the next start",
        key.namespace,
        key.name
    )]
    UnknownKey { key: Key },
    /// No replica answered.
    #[error("no replica of {}/{} answered: {reason}", key.namespace, key.name)]
    NoAnswer { key: Key, reason: String },
    /// The answer broke off.
    #[error("the replica ended the answer early: {reason}")]
    CutOff { reason: String },
    /// The gateway does not know the cluster yet.
    #[error("the gateway starts and does not know the models yet. Try again in a few seconds")]
    Starting,
}

impl Error {
    fn status(&self) -> StatusCode {
        match self {
            Error::NoModel | Error::Body { .. } => StatusCode::BAD_REQUEST,
            Error::UnknownModel { .. } | Error::UnknownDeployment { .. } => StatusCode::NOT_FOUND,
            Error::UnknownKey { .. } => StatusCode::UNAUTHORIZED,
            Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Error::QueueFull { .. } | Error::NoMemory | Error::Limited { .. } => {
                StatusCode::TOO_MANY_REQUESTS
            }
            Error::NotReady { .. }
            | Error::AtZero { .. }
            | Error::NothingToStartFor { .. }
            | Error::Starting => StatusCode::SERVICE_UNAVAILABLE,
            Error::NoAnswer { .. } | Error::CutOff { .. } => StatusCode::BAD_GATEWAY,
        }
    }

    fn code(&self) -> &'static str {
        match self {
            Error::NoModel => "missing_model",
            Error::UnknownModel { .. } => "model_not_found",
            Error::UnknownDeployment { .. } => "deployment_not_found",
            Error::Body { .. } => "invalid_body",
            Error::TooLarge { .. } => "request_too_large",
            Error::NoMemory => "gateway_memory_full",
            Error::QueueFull { .. } => "queue_full",
            Error::Limited { .. } => "rate_limit_exceeded",
            Error::NotReady { .. } => "no_ready_replica",
            Error::AtZero { .. } | Error::NothingToStartFor { .. } => "scaled_to_zero",
            Error::UnknownKey { .. } => "invalid_api_key",
            Error::NoAnswer { .. } => "no_answer",
            Error::CutOff { .. } => "answer_cut_off",
            Error::Starting => "starting",
        }
    }

    /// Seconds until another attempt makes sense; `None` if none does.
    fn retry_after_s(&self) -> Option<u64> {
        match self {
            Error::Limited { left, .. } => Some(left.wait_s),
            Error::QueueFull { .. } | Error::NoMemory | Error::NotReady { .. } | Error::Starting => {
                Some(RETRY_AFTER_SECONDS)
            }
            Error::NoModel
            | Error::UnknownModel { .. }
            | Error::UnknownDeployment { .. }
            | Error::Body { .. }
            | Error::TooLarge { .. }
            | Error::AtZero { .. }
            | Error::NothingToStartFor { .. }
            | Error::UnknownKey { .. }
            | Error::NoAnswer { .. }
            | Error::CutOff { .. } => None,
        }
    }

    fn body(&self) -> Value {
        let status = self.status();
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let param = matches!(self, Error::NoModel | Error::UnknownModel { .. }).then_some("model");
        json!({"error": {"message": self.to_string(), "type": kind, "param": param, "code": self.code()}})
    }

    /// The event that ends a stream.
    pub(super) fn event(&self) -> String {
        format!("data: {}\n\n", self.body())
    }
}

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = (self.status(), Json(self.body())).into_response();
        let headers = response.headers_mut();
        headers.insert(FROM_GATEWAY, HeaderValue::from_static(self.code()));
        if let Some(seconds) = self.retry_after_s() {
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
        }
        if let Error::Limited { allowance, .. } = &self {
            headers.extend(allowance.headers());
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_openais_shape_and_say_when_to_try_again() {
        let unknown = Error::UnknownModel { model: "gpt".into() };
        assert_eq!(unknown.body()["error"]["code"], "model_not_found");
        assert_eq!(unknown.body()["error"]["param"], "model");
        let response = unknown.into_response();
        assert_eq!(response.status(), 404);
        assert!(response.headers().get(RETRY_AFTER).is_none());
        let key = Key {
            namespace: "a".into(),
            name: "b".into(),
        };
        let full = Error::QueueFull { key, most: 100 };
        assert!(
            full.event()
                .starts_with("data: {\"error\":{\"message\":\"100 requests"),
            "{}",
            full.event()
        );
        let response = full.into_response();
        assert_eq!(
            (
                response.status().as_u16(),
                response.headers()[RETRY_AFTER].to_str().unwrap()
            ),
            (429, "5")
        );
    }
}
