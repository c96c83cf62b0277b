//! What the operator wrote last: so that it does not write the same again, and does not trust a watch that lags behind.
//!
//! Owns a bounded memory. Forgetting costs one needless write or read, never a wrong one.

use std::{collections::HashMap, sync::Mutex};

use kube::api::ObjectMeta;
use serde_json::Value;

use crate::names::FIELD_MANAGER;

/// Objects that are remembered. Beyond this number all are forgotten.
const ENTRIES_MAX: usize = 50_000;

/// Kind, namespace and name.
type Key = (String, String, String);

#[derive(Clone, Debug)]
struct Entry {
    /// Version that the write made.
    version: Option<u64>,
    /// What the write settled; `None` if only the version matters.
    settled: Option<Settled>,
}

/// A write whose result is accepted as it is, although the object differs from what was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Settled {
    /// Hash of what was written.
    pub hash: String,
    /// The fields that the operator owned afterwards.
    pub fields: Value,
    /// What to tell the user about the difference.
    pub note: Option<String>,
}

/// The last writes.
#[derive(Debug, Default)]
pub struct Written {
    entries: Mutex<HashMap<Key, Entry>>,
}

impl Written {
    /// Remembers the version of an object that was just written.
    pub fn remember(&self, kind: &str, written: &ObjectMeta, settled: Option<Settled>) {
        let mut entries = self.entries.lock().expect("no holder panics");
        if entries.len() >= ENTRIES_MAX {
            entries.clear();
        }
        let version = version(written);
        entries.insert(key(kind, written), Entry { version, settled });
    }

    /// Whether `seen` is at least as new as the last write.
    pub fn is_current(&self, kind: &str, seen: &ObjectMeta) -> bool {
        let entries = self.entries.lock().expect("no holder panics");
        let written = entries.get(&key(kind, seen)).and_then(|entry| entry.version);
        match (version(seen), written) {
            (Some(seen), Some(written)) => seen >= written,
            _ => true,
        }
    }

    /// What the last write settled, if the operator still owns the same fields.
    pub fn settled(&self, kind: &str, live: &ObjectMeta, hash: &str) -> Option<Settled> {
        let entries = self.entries.lock().expect("no holder panics");
        let settled = entries.get(&key(kind, live))?.settled.clone()?;
        (settled.hash == hash && settled.fields == owned_fields(live)).then_some(settled)
    }
}

/// The fields that the operator owns by server-side apply.
pub fn owned_fields(live: &ObjectMeta) -> Value {
    let mut entries = live.managed_fields.iter().flatten();
    let ours = entries.find(|entry| {
        entry.manager.as_deref() == Some(FIELD_MANAGER)
            && entry.operation.as_deref() == Some("Apply")
            && entry.subresource.is_none()
    });
    let fields = ours.and_then(|entry| entry.fields_v1.as_ref());
    fields.map_or(Value::Null, |fields| fields.0.clone())
}

fn key(kind: &str, metadata: &ObjectMeta) -> Key {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (kind.into(), text(&metadata.namespace), text(&metadata.name))
}

/// Versions of one object grow; Kubernetes documents their order since 1.35.
fn version(metadata: &ObjectMeta) -> Option<u64> {
    metadata.resource_version.as_ref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metadata(version: &str) -> ObjectMeta {
        ObjectMeta {
            name: Some("chat".into()),
            namespace: Some("team".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_watch_that_lags_behind_a_write_is_not_current() {
        let written = Written::default();
        assert!(written.is_current("Service", &metadata("5")));
        written.remember("Service", &metadata("7"), None);
        assert!(!written.is_current("Service", &metadata("5")));
        assert!(written.is_current("Service", &metadata("7")));
        assert!(written.is_current("Deployment", &metadata("5")), "another kind");
    }

    #[test]
    fn a_settled_write_is_known_until_the_text_or_the_owned_fields_change() {
        let written = Written::default();
        let live = metadata("7");
        let settled = Settled {
            hash: "h".into(),
            fields: owned_fields(&live),
            note: Some("kept".into()),
        };
        written.remember("Service", &live, Some(settled.clone()));
        assert_eq!(written.settled("Service", &metadata("9"), "h"), Some(settled));
        assert_eq!(written.settled("Service", &live, "other"), None);
        let mut edited = metadata("9");
        edited.managed_fields = serde_json::from_value(serde_json::json!([
            {"manager": FIELD_MANAGER, "operation": "Apply", "fieldsV1": {"f:spec": {}}}
        ]))
        .unwrap();
        assert_eq!(written.settled("Service", &edited, "h"), None);
    }
}
