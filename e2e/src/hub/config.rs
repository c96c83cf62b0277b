//! Who may read a repository, and what goes wrong while they do.
//!
//! Owns the policies and the armed faults, their JSON form (`hub.json`, `POST /control`) and their using up.

use std::collections::BTreeMap;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};

/// Everything that can be configured, by repository `owner/name`. A repository not named is public and sound.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HubConfig {
    /// Policies by repository.
    #[serde(default)]
    pub repositories: BTreeMap<String, RepositoryPolicy>,
}

/// One repository's access and faults.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RepositoryPolicy {
    /// The one token that opens the repository. With `private` false the repository is gated: its listing is
    /// public, its files are not.
    #[serde(default)]
    pub token: Option<String>,
    /// Whether the repository seems not to exist to anybody without the token.
    #[serde(default)]
    pub private: bool,
    /// Armed faults; the first that fits is used.
    #[serde(default)]
    pub faults: Vec<Fault>,
}

/// Something that goes wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Fault {
    /// The file it concerns; absent means any file, and for `status` the listing too.
    #[serde(default)]
    pub path: Option<String>,
    /// How many answers it still spoils; absent means all.
    #[serde(default)]
    pub times: Option<u32>,
    /// What happens.
    #[serde(flatten)]
    pub kind: FaultKind,
}

/// What a fault does. All but `status` act where a file's bytes are served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum FaultKind {
    /// The connection breaks after this many bytes of the answer.
    Cut {
        /// Bytes sent first.
        after_bytes: u64,
    },
    /// The connection stays open and silent after this many bytes of the answer.
    Stall {
        /// Bytes sent first.
        after_bytes: u64,
    },
    /// The bytes come at this rate.
    Slow {
        /// Rate, at least 10.
        bytes_per_second: u64,
    },
    /// The first byte of the answer is wrong.
    Corrupt,
    /// `Range` is ignored: the whole file comes, with status 200.
    NoRange,
    /// The answer is this status, such as 429 or 503, instead of a file or listing.
    Status {
        /// Status code.
        code: u16,
        /// `Retry-After` header.
        #[serde(default)]
        retry_after_seconds: Option<u64>,
    },
}

impl Fault {
    /// A fault of one file that spoils its next `times` answers.
    pub fn of_file(path: &str, times: u32, kind: FaultKind) -> Self {
        Self {
            path: Some(path.to_owned()),
            times: Some(times),
            kind,
        }
    }

    /// A fault of every answer of the repository.
    pub fn always(kind: FaultKind) -> Self {
        Self {
            path: None,
            times: None,
            kind,
        }
    }
}

impl RepositoryPolicy {
    /// Whether the files need a token, while the listing does not.
    pub fn is_gated(&self) -> bool {
        self.token.is_some() && !self.private
    }

    pub(super) fn hides(&self, token: Option<&str>) -> bool {
        self.private && self.token.as_deref() != token
    }

    pub(super) fn gates(&self, token: Option<&str>) -> bool {
        self.is_gated() && self.token.as_deref() != token
    }
}

impl HubConfig {
    pub(super) fn policy(&self, id: &str) -> RepositoryPolicy {
        self.repositories.get(id).cloned().unwrap_or_default()
    }

    /// Uses up one armed `status` fault of a file, or of the listing where `path` is absent.
    pub(super) fn take_refusal(&mut self, id: &str, path: Option<&str>) -> Option<Response> {
        let kind = self.take(id, path, |kind| matches!(kind, FaultKind::Status { .. }))?;
        let FaultKind::Status {
            code,
            retry_after_seconds,
        } = kind
        else {
            return None;
        };
        let status = StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, "refused on purpose").into_response();
        if let Some(seconds) = retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        Some(response)
    }

    /// Uses up one armed fault of a file's bytes.
    pub(super) fn take_body_fault(&mut self, id: &str, path: &str) -> Option<FaultKind> {
        self.take(id, Some(path), |kind| !matches!(kind, FaultKind::Status { .. }))
    }

    fn take(&mut self, id: &str, path: Option<&str>, fits: fn(&FaultKind) -> bool) -> Option<FaultKind> {
        let faults = &mut self.repositories.get_mut(id)?.faults;
        let fault = faults.iter_mut().find(|fault| {
            fits(&fault.kind)
                && fault.times != Some(0)
                && fault.path.as_deref().is_none_or(|of| path == Some(of))
        })?;
        fault.times = fault.times.map(|times| times - 1);
        Some(fault.kind.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_json_form_names_each_fault_by_its_kind() {
        let json = serde_json::json!({"repositories": {"acme/m": {"token": "t", "faults": [
            {"path": "a.bin", "times": 1, "kind": "cut", "afterBytes": 7},
            {"kind": "status", "code": 429, "retryAfterSeconds": 3},
            {"kind": "noRange"},
        ]}}});
        let config: HubConfig = serde_json::from_value(json).unwrap();
        let policy = config.policy("acme/m");
        assert!(policy.is_gated());
        assert_eq!(
            policy.faults[0],
            Fault::of_file("a.bin", 1, FaultKind::Cut { after_bytes: 7 })
        );
        assert_eq!(policy.faults[2], Fault::always(FaultKind::NoRange));
    }

    #[test]
    fn a_fault_is_used_up_and_concerns_its_file_only() {
        let mut config = HubConfig::default();
        let fault = Fault::of_file("a", 1, FaultKind::Corrupt);
        config
            .repositories
            .entry("r/r".to_owned())
            .or_default()
            .faults
            .push(fault);
        assert_eq!(config.take_body_fault("r/r", "b"), None);
        assert_eq!(config.take_body_fault("r/r", "a"), Some(FaultKind::Corrupt));
        assert_eq!(config.take_body_fault("r/r", "a"), None);
    }
}
