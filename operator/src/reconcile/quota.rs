//! What to change where a ResourceQuota refuses an object: the fields of the spec behind the resources that its message
//! names.
//!
//! Pure.

use std::collections::BTreeSet;

/// Words before the resources that a quota requires.
const REQUIRED: &str = "must specify ";
/// Words around the resources of which a quota has not enough.
const REQUESTED: [&str; 2] = ["requested: ", ", used: "];

/// Resources of a quota, and the fields that decide how much of them a ModelDeployment takes.
const FIELDS: [(&str, &str); 14] = [
    ("limits.cpu", "spec.resources.limits.cpu"),
    ("requests.cpu", "spec.resources.cpu"),
    ("cpu", "spec.resources.cpu"),
    ("limits.memory", "spec.resources.memory"),
    ("requests.memory", "spec.resources.memory"),
    ("memory", "spec.resources.memory"),
    ("limits.ephemeral-storage", ""),
    ("requests.ephemeral-storage", ""),
    ("ephemeral-storage", ""),
    ("pods", "spec.replicas"),
    ("count/pods", "spec.replicas"),
    ("requests.storage", "spec.cache.size"),
    ("persistentvolumeclaims", "spec.cache"),
    ("count/persistentvolumeclaims", "spec.cache"),
];

/// The remedy for a refusal by a quota, from the message of the API server.
pub(super) fn remedy(message: &str) -> String {
    if let Some((_, required)) = message.split_once(REQUIRED) {
        return required_remedy(required);
    }
    let [before, after] = REQUESTED;
    let requested = message.split_once(before).map(|(_, rest)| rest);
    let requested = requested.map(|rest| rest.split_once(after).map_or(rest, |(requested, _)| requested));
    let fields = named(requested.unwrap_or_default());
    match list(fields.fields, "or") {
        None => "raise the quota of the namespace, or request less".into(),
        Some(fields) => format!("raise the quota of the namespace, or lower {fields}"),
    }
}

/// The remedy where pods must have requests or limits that the spec does not set.
fn required_remedy(required: &str) -> String {
    let Named {
        fields,
        without_field,
    } = named(required);
    let set = list(fields, "and").map(|fields| format!("set {fields}"));
    let default = list(without_field, "and")
        .map(|resources| format!("give the namespace a LimitRange with a default for {resources}"));
    match [set, default].into_iter().flatten().collect::<Vec<_>>() {
        parts if parts.is_empty() => "set what the message names in spec.resources".into(),
        parts => parts.join(", and "),
    }
}

#[derive(Default)]
struct Named {
    /// Fields of the spec.
    fields: BTreeSet<String>,
    /// Resources that no field of the spec sets.
    without_field: BTreeSet<String>,
}

/// The resources in a text, in which other words and numbers stand between them.
fn named(text: &str) -> Named {
    let mut named = Named::default();
    let is_separator = |letter: char| letter.is_whitespace() || matches!(letter, ',' | ';' | ':' | '=');
    for word in text.split(is_separator) {
        // A quota can be on one storage class, as in `gold.storageclass.storage.k8s.io/requests.storage`.
        let of_class = word
            .split_once(".storageclass.storage.k8s.io/")
            .map_or(word, |(_, resource)| resource);
        let row = FIELDS.iter().find(|(resource, _)| *resource == of_class);
        match row {
            Some((resource, "")) => {
                named.without_field.insert((*resource).into());
            }
            Some((_, field)) => {
                named.fields.insert((*field).into());
            }
            None if word.starts_with("requests.") && word.contains('/') => {
                named.fields.insert("spec.resources.gpu.count".into());
            }
            None => {}
        }
    }
    named
}

/// The items as text: `a`, `a or b`, `a, b or c`.
fn list(items: BTreeSet<String>, last: &str) -> Option<String> {
    let items: Vec<String> = items.into_iter().collect();
    let (end, before) = items.split_last()?;
    match before.is_empty() {
        true => Some(end.clone()),
        false => Some(format!("{} {last} {end}", before.join(", "))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_names_the_fields_behind_the_resources_of_the_message() {
        for (message, expected) in [
            (
                "pods \"chat-1\" is forbidden: failed quota: q: must specify limits.cpu for: runtime",
                "set spec.resources.limits.cpu",
            ),
            (
                "failed quota: memory: must specify limits.cpu for: fetch,runtime; limits.memory for: fetch; requests.cpu for: runtime",
                "set spec.resources.cpu, spec.resources.limits.cpu and spec.resources.memory",
            ),
            (
                "failed quota: q: must specify limits.ephemeral-storage for: runtime; memory for: runtime",
                "set spec.resources.memory, and give the namespace a LimitRange with a default for limits.ephemeral-storage",
            ),
            (
                "exceeded quota: cpu, requested: pods=1, used: pods=3, limited: pods=3",
                "raise the quota of the namespace, or lower spec.replicas",
            ),
            (
                "exceeded quota: q, requested: limits.memory=2Gi,requests.nvidia.com/gpu=1, used: cpu=1, limited: cpu=1",
                "raise the quota of the namespace, or lower spec.resources.gpu.count or spec.resources.memory",
            ),
            (
                "exceeded quota: q, requested: gold.storageclass.storage.k8s.io/requests.storage=9Gi, used: x=0, limited: x=1",
                "raise the quota of the namespace, or lower spec.cache.size",
            ),
            (
                "exceeded quota: q, requested: services=1, used: services=1, limited: services=1",
                "raise the quota of the namespace, or request less",
            ),
        ] {
            assert_eq!(remedy(message), expected, "{message}");
        }
    }
}
