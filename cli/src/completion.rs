//! Completions of `kubectl slipway`, in the protocol of kubectl's plugins.
//!
//! kubectl calls `kubectl_complete-slipway WORDS`, the last of which is the one to complete and may be empty. It reads one
//! candidate per line, with a tab before its description, and a last line with a directive of the Go library cobra. Must
//! not know a cluster: the caller adds the names in it.

use std::collections::BTreeMap;

use clap::{Arg, Command, ValueHint};
use crds::settings::{SETTINGS, foreign};

use crate::{arguments, cluster::Target};

/// Longest description of a candidate, in characters.
const DESCRIPTION_CHARS_MAX: usize = 80;

/// What the word to complete is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    kind: Kind,
    /// What the word begins with and no candidate has: `--shell=` of `--shell=ba`.
    before: String,
    /// The rest of the word.
    word: String,
    /// Values of flags in the words before.
    values: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Kind {
    /// One of these, each with a description.
    Words(Vec<(String, String)>),
    /// `NAME=VALUE` with one of these names.
    Assignment(Vec<(String, String)>),
    /// The name of a ModelDeployment.
    Deployment,
    /// A file or folder.
    File,
    /// Nothing that can be proposed.
    Free,
}

impl Wanted {
    /// What the last of `words` is, by those before it.
    pub fn of(words: &[String]) -> Self {
        let mut root = arguments::command();
        root.build();
        let (word, before) = match words.split_last() {
            Some((word, before)) => (word.clone(), before),
            None => (String::new(), words),
        };
        let mut place = Place::at(&root);
        for word in before {
            place.pass(word);
        }
        place.wanted(word)
    }

    /// Whether the names of ModelDeployments are candidates.
    pub fn is_deployment(&self) -> bool {
        self.kind == Kind::Deployment
    }

    /// The cluster and the namespace that the words name.
    pub fn target(&self) -> Target {
        let value = |id: &str| self.values.get(id).cloned();
        Target {
            namespace: value("namespace"),
            context: value("context"),
            kubeconfig: value("kubeconfig").map(Into::into),
        }
    }

    /// What kubectl reads, with the names of ModelDeployments that the cluster has.
    pub fn answer(self, deployments: Vec<String>) -> String {
        const NO_SPACE: u8 = 2;
        const NO_FILES: u8 = 4;
        let (candidates, directive) = match self.kind {
            Kind::Words(words) => (words, NO_FILES),
            Kind::Assignment(words) => (words, NO_SPACE | NO_FILES),
            Kind::Deployment => {
                let named = deployments.into_iter().map(|name| (name, String::new()));
                (named.collect(), NO_FILES)
            }
            Kind::File => (Vec::new(), 0),
            Kind::Free => (Vec::new(), NO_FILES),
        };
        let fitting = candidates
            .into_iter()
            .filter(|(candidate, _)| candidate.starts_with(&self.word));
        let mut lines: Vec<String> = fitting
            .map(|(candidate, description)| line(&format!("{}{candidate}", self.before), &description))
            .collect();
        lines.push(format!(":{directive}\n"));
        lines.join("\n")
    }
}

fn line(candidate: &str, description: &str) -> String {
    let first = description.lines().next().unwrap_or_default();
    let short: String = first.chars().take(DESCRIPTION_CHARS_MAX).collect();
    if short.is_empty() {
        candidate.into()
    } else {
        format!("{candidate}\t{short}")
    }
}

/// How far the words have been read.
struct Place<'a> {
    command: &'a Command,
    /// The flag whose value is the next word.
    awaits: Option<&'a Arg>,
    n_positionals: usize,
    has_flags: bool,
    values: BTreeMap<String, String>,
}

impl<'a> Place<'a> {
    fn at(command: &'a Command) -> Self {
        Place {
            command,
            awaits: None,
            n_positionals: 0,
            has_flags: true,
            values: BTreeMap::new(),
        }
    }

    /// Reads a word that is complete.
    fn pass(&mut self, word: &str) {
        if let Some(arg) = self.awaits.take() {
            self.values.insert(arg.get_id().to_string(), word.into());
        } else if self.has_flags && word == "--" {
            self.has_flags = false;
        } else if self.has_flags && word.starts_with('-') && word.len() > 1 {
            let (flag, value) = match word.split_once('=') {
                Some((flag, value)) => (flag, Some(value)),
                None => (word, None),
            };
            let Some(arg) = self.flag(flag).filter(|arg| arg.get_action().takes_values()) else {
                return;
            };
            match value {
                Some(value) => {
                    self.values.insert(arg.get_id().to_string(), value.into());
                }
                None => self.awaits = Some(arg),
            }
        } else if let Some(command) = self.command.find_subcommand(word) {
            (self.command, self.n_positionals) = (command, 0);
        } else {
            self.n_positionals += 1;
        }
    }

    /// `--name`, or `-n`.
    fn flag(&self, word: &str) -> Option<&'a Arg> {
        let long = word.strip_prefix("--");
        let mut short = word.chars().skip(1);
        let short = short.next().filter(|_| long.is_none() && short.next().is_none());
        self.command.get_arguments().find(|arg| match long {
            Some(long) => arg.get_long() == Some(long),
            None => short.is_some() && arg.get_short() == short,
        })
    }

    fn wanted(self, word: String) -> Wanted {
        let (kind, before, word) = match (self.awaits, word.split_once('=')) {
            (Some(arg), _) => (value(self.command, arg), String::new(), word),
            (None, Some((flag, rest))) if self.has_flags && word.starts_with("--") => {
                let kind = self.flag(flag).map_or(Kind::Free, |arg| value(self.command, arg));
                (kind, format!("{flag}="), rest.into())
            }
            (None, _) if self.has_flags && word.starts_with('-') => (self.flags(), String::new(), word),
            (None, _) => (self.positional(), String::new(), word),
        };
        Wanted {
            kind,
            before,
            word,
            values: self.values,
        }
    }

    fn flags(&self) -> Kind {
        let shown = self.command.get_arguments().filter(|arg| !arg.is_hide_set());
        let named = shown.filter_map(|arg| Some((format!("--{}", arg.get_long()?), help(arg.get_help()))));
        Kind::Words(named.collect())
    }

    fn positional(&self) -> Kind {
        let mut positionals = self.command.get_positionals();
        if let Some(arg) = positionals.nth(self.n_positionals) {
            return value(self.command, arg);
        }
        let shown = self
            .command
            .get_subcommands()
            .filter(|command| !command.is_hide_set());
        let named = shown.map(|command| (command.get_name().to_string(), help(command.get_about())));
        Kind::Words(named.collect())
    }
}

fn help(text: Option<&clap::builder::StyledStr>) -> String {
    text.map(ToString::to_string).unwrap_or_default()
}

/// What a value of an argument is.
fn value(command: &Command, arg: &Arg) -> Kind {
    let possible = arg.get_possible_values();
    if !possible.is_empty() {
        let words = possible
            .iter()
            .map(|value| (value.get_name().to_string(), help(value.get_help())));
        return Kind::Words(words.collect());
    }
    match (command.get_name(), arg.get_id().as_str()) {
        // Elsewhere it is a flag, for the name of a new one.
        (_, "name") if arg.is_positional() => Kind::Deployment,
        ("explain", "setting") => Kind::Words(every_name()),
        ("deploy", "set") => {
            let settings = SETTINGS.iter().filter(|setting| setting.crd_path().is_some());
            let named = settings.map(|setting| (format!("{}=", setting.camel()), setting.description()));
            Kind::Assignment(named.collect())
        }
        _ => match arg.get_value_hint() {
            ValueHint::AnyPath | ValueHint::FilePath | ValueHint::DirPath => Kind::File,
            _ => Kind::Free,
        },
    }
}

/// Every name that `explain` knows but paths of fields, each once.
fn every_name() -> Vec<(String, String)> {
    let mut names = BTreeMap::new();
    for foreign in foreign() {
        for name in foreign.names() {
            names.insert(name.to_string(), foreign.why.to_string());
        }
    }
    for setting in SETTINGS {
        let others = [setting.camel(), setting.flag()];
        for name in setting.env_names().into_iter().chain(others) {
            names.insert(name, setting.description());
        }
    }
    names.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(line: &str) -> Wanted {
        let words: Vec<String> = line.split(' ').map(str::to_string).collect();
        Wanted::of(&words)
    }

    /// Candidates without descriptions, and the directive.
    fn answer(line: &str) -> Vec<String> {
        let answer = wanted(line).answer(vec!["chat".into(), "code".into()]);
        let names = answer
            .lines()
            .map(|line| line.split('\t').next().unwrap_or_default());
        names.map(str::to_string).collect()
    }

    #[test]
    fn commands_flags_names_and_settings_are_completed() {
        for (line, expected) in [
            ("l", vec!["list", "logs", ":4"]),
            ("status c", vec!["chat", "code", ":4"]),
            ("status -w c", vec!["chat", "code", ":4"]),
            ("status -n team --timeout-seconds 9 co", vec!["code", ":4"]),
            ("status chat ", vec![":4"]),
            ("status --w", vec!["--watch", ":4"]),
            ("status --nam", vec!["--namespace", ":4"]),
            ("--kube", vec!["--kubeconfig", ":4"]),
            ("completions b", vec!["bash", ":4"]),
            ("explain MAX_MODEL_L", vec!["MAX_MODEL_LEN", ":4"]),
            ("explain maxModelL", vec!["maxModelLen", ":4"]),
            ("deploy a/b --set maxModelL", vec!["maxModelLen=", ":6"]),
            ("deploy a/b --set=maxModelL", vec!["--set=maxModelLen=", ":6"]),
            ("deploy a/b --name c", vec![":4"]),
            ("import-runpod wor", vec![":0"]),
            ("list --kubeconfig ", vec![":0"]),
        ] {
            let found = answer(line);
            let found: Vec<&str> = found.iter().map(String::as_str).collect();
            assert_eq!(found, expected, "{line}");
        }
        assert!(answer("").contains(&"deploy".to_string()));
        let hidden = ["krew", "complete"];
        assert!(!answer("").iter().any(|name| hidden.contains(&name.as_str())));
        assert!(Wanted::of(&[]).answer(Vec::new()).ends_with("\n:4\n"));
    }

    #[test]
    fn the_cluster_is_the_one_of_the_words() {
        let target = wanted("chat --context=far -n team --kubeconfig k ").target();
        assert_eq!(target.namespace.as_deref(), Some("team"));
        assert_eq!(target.context.as_deref(), Some("far"));
        assert_eq!(target.kubeconfig.as_deref(), Some("k".as_ref()));
        assert!(wanted("chat -n team ").is_deployment() && !wanted("chat -n ").is_deployment());
    }
}
