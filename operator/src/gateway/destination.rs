//! Which ModelDeployments a request is for, by its path and the name in its body. Pure.

use std::sync::Arc;

use super::{
    directory::{Backend, Directory, Key},
    error::Error,
};

/// A path, split.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target<'a> {
    /// The ModelDeployment that the path names.
    pub(super) key: Option<Key>,
    /// RunPod's endpoint, which is the name of a model or of a ModelDeployment.
    pub(super) endpoint: Option<&'a str>,
    /// The path for the replica.
    pub(super) path: &'a str,
}

/// How often a request may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Repetition {
    /// To another replica, as long as no part of an answer is known.
    Safe,
    /// Only if it certainly did not arrive: it makes a job.
    IfNotSent,
    /// To every replica, until one knows the job.
    UntilFound,
}

/// First parts of a path that cannot be namespaces here.
const RESERVED: [&str; 3] = ["v1", "v2", "openai"];

impl<'a> Target<'a> {
    /// The target of a path that begins with a slash.
    pub(super) fn of(path: &'a str) -> Target<'a> {
        let here = Target {
            key: None,
            endpoint: None,
            path,
        };
        let mut parts = path[1..].splitn(3, '/');
        let (Some(first), Some(second)) = (parts.next(), parts.next()) else {
            return here;
        };
        if parts.next().is_none() {
            return here;
        }
        if first == "v2" {
            return Target {
                endpoint: Some(second),
                ..here
            };
        }
        if RESERVED.contains(&first) || first.is_empty() || second.is_empty() {
            return here;
        }
        let rest = &path[first.len() + second.len() + 2..];
        let key = Key {
            namespace: first.to_owned(),
            name: second.to_owned(),
        };
        Target {
            key: Some(key),
            ..Target::of_replica(rest)
        }
    }

    fn of_replica(path: &'a str) -> Target<'a> {
        Target {
            key: None,
            endpoint: None,
            path,
        }
    }

    /// How often a request with this path may be sent.
    pub(super) fn repetition(&self) -> Repetition {
        let mut parts = self.path[1..].split('/');
        let first = match parts.next() {
            Some("v2") => parts.nth(1),
            first => first,
        };
        match first {
            Some("run" | "runsync") => Repetition::IfNotSent,
            Some("status" | "stream" | "cancel" | "retry") => Repetition::UntilFound,
            _ => Repetition::Safe,
        }
    }

    /// The ModelDeployments for a request of this path whose body names `model`; never none.
    ///
    /// # Errors
    /// Nothing is named, or what is named does not exist.
    pub(super) fn backends(
        &self,
        directory: &Directory,
        model: Option<&str>,
    ) -> Result<Vec<Arc<Backend>>, Error> {
        if !directory.is_complete {
            return Err(Error::Starting);
        }
        if let Some(key) = &self.key {
            let backend = directory.of_key(key);
            let unknown = || Error::UnknownDeployment { key: key.clone() };
            return Ok(vec![Arc::clone(backend.ok_or_else(unknown)?)]);
        }
        let listed = self.path.strip_prefix("/v1/models/");
        let name = self.endpoint.or(listed).or(model).ok_or(Error::NoModel)?;
        let unknown = || Error::UnknownModel {
            model: name.to_owned(),
        };
        let of_name = directory.of_name(name).map(<[_]>::to_vec);
        let of_endpoint = || {
            let endpoint = self.endpoint?;
            let mut named = directory.all().filter(|backend| backend.key.name == endpoint);
            // A name of several ModelDeployments names none of them.
            let only = named.next()?;
            named.next().is_none().then(|| vec![Arc::clone(only)])
        };
        of_name.or_else(of_endpoint).ok_or_else(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::super::directory::tests::model;
    use super::*;

    #[test]
    fn paths_name_a_deployment_an_endpoint_or_nothing() {
        let key = |namespace: &str, name: &str| {
            let (namespace, name) = (namespace.to_owned(), name.to_owned());
            Some(Key { namespace, name })
        };
        for (path, expected) in [
            ("/v1/chat/completions", (None, None, "/v1/chat/completions")),
            ("/chat/completions", (None, None, "/chat/completions")),
            ("/openai/v1/models", (None, None, "/openai/v1/models")),
            ("/team/chat/v1/models", (key("team", "chat"), None, "/v1/models")),
            ("/team/chat/v2/x/run", (key("team", "chat"), None, "/v2/x/run")),
            ("/v2/chat/run", (None, Some("chat"), "/v2/chat/run")),
            ("/", (None, None, "/")),
            ("//a/b", (None, None, "//a/b")),
        ] {
            let (key, endpoint, rest) = expected;
            assert_eq!(
                Target::of(path),
                Target {
                    key,
                    endpoint,
                    path: rest
                },
                "{path}"
            );
        }
    }

    #[test]
    fn only_jobs_are_not_repeated() {
        for (path, expected) in [
            ("/v1/chat/completions", Repetition::Safe),
            ("/v2/chat/runsync", Repetition::IfNotSent),
            ("/run", Repetition::IfNotSent),
            ("/team/chat/v2/x/status/3", Repetition::UntilFound),
            ("/v2/chat/openai/v1/completions", Repetition::Safe),
        ] {
            assert_eq!(Target::of(path).repetition(), expected, "{path}");
        }
    }

    #[test]
    fn a_request_finds_its_deployments_or_says_what_it_lacks() {
        let models = [
            model(("a", "one"), &["m", "org/m"], 0),
            model(("a", "two"), &["m"], 1),
        ];
        let directory = Directory::of(&models, &[]);
        let found = |path: &str, model: Option<&str>| {
            let backends = Target::of(path).backends(&directory, model)?;
            Ok(backends
                .iter()
                .map(|backend| backend.key.name.clone())
                .collect::<Vec<_>>())
        };
        assert_eq!(found("/v1/completions", Some("m")).unwrap(), ["one", "two"]);
        assert_eq!(found("/v1/models/org/m", None).unwrap(), ["one"]);
        assert_eq!(found("/a/two/v1/completions", Some("other")).unwrap(), ["two"]);
        assert_eq!(found("/v2/two/run", None).unwrap(), ["two"]);
        assert_eq!(found("/v1/completions", None).unwrap_err(), Error::NoModel);
        let unknown: Result<Vec<String>, Error> = found("/v1/completions", Some("x"));
        assert_eq!(unknown.unwrap_err(), Error::UnknownModel { model: "x".into() });
        assert!(matches!(
            found("/a/x/v1/models", None),
            Err(Error::UnknownDeployment { .. })
        ));
        let starting = Target::of("/v1/completions").backends(&Directory::default(), Some("m"));
        assert_eq!(starting.unwrap_err(), Error::Starting);
    }
}
