//! What an error of the API server means: the one table of error classes, with the reason and the remedy of each.
//!
//! Pure. The steps name the operation; nothing here knows what it was for.

use crds::failure::{Failure, Reason, chain};
use kube::core::Status;

use super::quota;

/// The API server did not do what a step asked for.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation}")]
pub struct ApiError {
    /// What was asked for, as in `write Service chat`.
    pub operation: String,
    /// The answer.
    #[source]
    source: Box<kube::Error>,
}

/// What an answer means for the ModelDeployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The object is not valid, so the spec must change.
    Spec,
    /// A quota is used up.
    Quota,
    /// A webhook, a policy or an admission plugin refuses the object.
    Policy,
    /// The namespace is being deleted.
    Terminating,
    /// The operator lacks a right.
    Forbidden,
    /// The object was replaced or taken by somebody else since it was read.
    Changed,
    /// The object, or its namespace, does not exist any more.
    Gone,
    /// The API server, or a webhook that it asks, does not answer.
    Unavailable,
}

/// Words of a refusal by a webhook or a policy. Policies choose their own codes, so their words decide.
const POLICY_WORDS: [&str; 4] = [
    "denied the request",
    "denied request",
    "violates PodSecurity",
    "ValidatingAdmissionPolicy",
];

impl Class {
    /// The class of an answer.
    pub fn of(error: &kube::Error) -> Self {
        let kube::Error::Api(status) = error else {
            return Class::Unavailable;
        };
        let says = |words: &str| status.message.contains(words);
        match status.code {
            400..500 if POLICY_WORDS.into_iter().any(says) => Class::Policy,
            400 | 413 | 422 => Class::Spec,
            401 => Class::Forbidden,
            403 if says("quota") => Class::Quota,
            403 if says("being terminated") => Class::Terminating,
            403 if says(" cannot ") => Class::Forbidden,
            403 => Class::Policy,
            404 | 410 => Class::Gone,
            409 => Class::Changed,
            _ => Class::Unavailable,
        }
    }

    /// Whether a person has to change something.
    pub const fn needs_person(self) -> bool {
        match self {
            Class::Spec | Class::Quota | Class::Policy | Class::Terminating | Class::Forbidden => true,
            Class::Changed | Class::Gone | Class::Unavailable => false,
        }
    }

    const fn reason(self) -> Reason {
        match self {
            Class::Spec => Reason::InvalidSetting,
            Class::Quota => Reason::QuotaExceeded,
            Class::Policy => Reason::PolicyRefused,
            Class::Terminating => Reason::NamespaceTerminating,
            Class::Forbidden => Reason::OperatorForbidden,
            Class::Changed | Class::Gone | Class::Unavailable => Reason::ApplyFailed,
        }
    }

    /// `words` are those of the API server.
    fn remedy(self, words: &str) -> String {
        match self {
            Class::Spec => "change the field that the message names",
            Class::Quota => return quota::remedy(words),
            Class::Policy => {
                "change what the message names, or exempt the namespace from the policy that the message names"
            }
            Class::Terminating => "create the ModelDeployment in a namespace that is not being deleted",
            Class::Forbidden => {
                "give the operator's ServiceAccount the right that the message names; the chart's ClusterRole has it"
            }
            Class::Changed | Class::Gone => "wait; the operator tries again",
            Class::Unavailable => {
                "wait; the operator tries again. If the message names a webhook, repair it or delete its configuration"
            }
        }
        .into()
    }
}

impl ApiError {
    /// For `map_err`: the error of `operation`.
    pub fn of(operation: String) -> impl FnOnce(kube::Error) -> Self {
        |source| Self {
            operation,
            source: Box::new(source),
        }
    }

    /// The error of an object that does not exist any more.
    pub fn gone(operation: String) -> Self {
        let status = Status {
            code: 404,
            message: "it does not exist any more".into(),
            ..Status::default()
        };
        Self::of(operation)(kube::Error::Api(Box::new(status)))
    }

    /// What the answer means.
    pub fn class(&self) -> Class {
        Class::of(&self.source)
    }

    /// The failure as the status shows it, in the API server's own words.
    pub fn failure(&self) -> Failure {
        let class = self.class();
        let words = words(&self.source);
        let remedy = class.remedy(&words);
        Failure::new(class.reason(), format!("{self}: {words}"), remedy)
    }
}

/// The message of the API server; without one, the reason or the error itself.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => format!("{} (HTTP {})", status.reason, status.code),
        other => chain(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(code: u16, message: &str) -> ApiError {
        let status = Status {
            code,
            message: message.into(),
            ..Status::default()
        };
        ApiError::of("write Service chat".into())(kube::Error::Api(Box::new(status)))
    }

    /// Answers, and what each means.
    const ANSWERS: [(u16, &str, Class, Reason); 15] = [
        (
            422,
            "spec.ports: Required value",
            Class::Spec,
            Reason::InvalidSetting,
        ),
        (400, "unknown field", Class::Spec, Reason::InvalidSetting),
        (
            403,
            "claims \"c\" is forbidden: exceeded quota: small",
            Class::Quota,
            Reason::QuotaExceeded,
        ),
        (
            403,
            "failed quota: q: must specify limits.cpu",
            Class::Quota,
            Reason::QuotaExceeded,
        ),
        (
            400,
            "webhook \"v\" denied the request: no label",
            Class::Policy,
            Reason::PolicyRefused,
        ),
        (
            422,
            "ValidatingAdmissionPolicy 'p' denied request: no",
            Class::Policy,
            Reason::PolicyRefused,
        ),
        (
            403,
            "maximum storage usage is 1Gi",
            Class::Policy,
            Reason::PolicyRefused,
        ),
        (
            403,
            "namespace team is being terminated",
            Class::Terminating,
            Reason::NamespaceTerminating,
        ),
        (
            403,
            "User \"o\" cannot patch resource \"services\"",
            Class::Forbidden,
            Reason::OperatorForbidden,
        ),
        (401, "Unauthorized", Class::Forbidden, Reason::OperatorForbidden),
        (
            404,
            "namespaces \"team\" not found",
            Class::Gone,
            Reason::ApplyFailed,
        ),
        (409, "the UID does not match", Class::Changed, Reason::ApplyFailed),
        (429, "too many requests", Class::Unavailable, Reason::ApplyFailed),
        (
            500,
            "failed calling webhook \"v\": connection refused",
            Class::Unavailable,
            Reason::ApplyFailed,
        ),
        (
            504,
            "request did not complete",
            Class::Unavailable,
            Reason::ApplyFailed,
        ),
    ];

    #[test]
    fn each_answer_has_a_class_a_reason_and_a_remedy() {
        for (code, message, class, reason) in ANSWERS {
            let error = error(code, message);
            assert_eq!(error.class(), class, "{code} {message}");
            let failure = error.failure();
            assert_eq!(failure.reason, reason, "{code} {message}");
            assert_eq!(failure.message, format!("cannot write Service chat: {message}"));
            assert!(!failure.remedy.is_empty());
        }
    }

    #[test]
    fn a_connection_that_fails_is_no_fault_of_the_spec() {
        let refused = kube::Error::Service("connection refused".into());
        let error = ApiError::of("read Pods".into())(refused);
        assert_eq!(error.class(), Class::Unavailable);
        assert!(error.failure().message.contains("connection refused"));
    }
}
