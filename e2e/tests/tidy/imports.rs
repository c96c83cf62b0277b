//! What imports what: the modules of a crate, and the arrows between them as `use` lines and paths draw them.
//!
//! Reads the sources as text. A name that a module re-exports counts as the module that defines it. Tests may import
//! anything, so modules of tests are left out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// Longest chain of re-exports that is followed.
const RE_EXPORTS_MAX: usize = 8;

/// A module's path without the crate: `["reconcile", "apply"]`; empty for the root.
pub(crate) type Module = Vec<String>;

/// The modules of a crate, and which modules each one imports.
pub(crate) struct Imports {
    texts: BTreeMap<Module, String>,
    /// Per module and name, the path that it re-exports.
    re_exports: BTreeMap<(Module, String), Vec<String>>,
}

impl Imports {
    /// Reads the sources below `folder`, a crate's `src`.
    pub(crate) fn read(folder: &Path) -> Imports {
        let mut texts = BTreeMap::new();
        read_modules(folder, &mut Vec::new(), &mut texts);
        let mut re_exports = BTreeMap::new();
        for (module, text) in &texts {
            for (visibility, tree) in uses(text) {
                for path in paths(tree).into_iter().filter(|_| visibility.starts_with("pub")) {
                    let name = path.last().cloned().unwrap_or_default();
                    re_exports.insert((module.clone(), name), path);
                }
            }
        }
        Imports { texts, re_exports }
    }

    /// Every module.
    pub(crate) fn modules(&self) -> impl Iterator<Item = &Module> {
        self.texts.keys()
    }

    /// The modules of the crate that each module imports, itself excepted.
    pub(crate) fn arrows(&self) -> BTreeMap<&Module, BTreeSet<Module>> {
        let of = |module: &Module, text: &str| -> BTreeSet<Module> {
            let imported = uses(text)
                .into_iter()
                .filter(|(visibility, _)| !visibility.starts_with("pub"))
                .flat_map(|(_, tree)| paths(tree));
            let named = named_paths(text);
            let found = imported
                .chain(named)
                .filter_map(|path| self.resolve(module, &path, 0));
            found.filter(|found| found != module).collect()
        };
        self.texts
            .iter()
            .map(|(module, text)| (module, of(module, text)))
            .collect()
    }

    /// The module that defines what `path` names inside `module`; `None` if it is of another crate.
    fn resolve(&self, module: &Module, path: &[String], n_re_exports: usize) -> Option<Module> {
        let mut rest = path;
        let mut at = match rest.first()?.as_str() {
            "crate" => Module::new(),
            "self" | "super" => module.clone(),
            first => {
                let is_child = self.texts.contains_key(&child(module, first));
                return is_child
                    .then(|| [vec!["self".to_owned()], path.to_vec()].concat())
                    .and_then(|path| self.resolve(module, &path, n_re_exports));
            }
        };
        if matches!(rest[0].as_str(), "crate" | "self") {
            rest = &rest[1..];
        }
        while rest.first().is_some_and(|name| name == "super") {
            at.pop();
            rest = &rest[1..];
        }
        while let Some((name, behind)) = rest.split_first() {
            let next = child(&at, name);
            if !self.texts.contains_key(&next) {
                break;
            }
            at = next;
            rest = behind;
        }
        let name = rest.first().cloned().unwrap_or_default();
        if let Some(path) = self
            .re_exports
            .get(&(at.clone(), name))
            .filter(|_| n_re_exports < RE_EXPORTS_MAX)
            && let Some(found) = self.resolve(&at, path, n_re_exports + 1)
        {
            return Some(found);
        }
        Some(at)
    }
}

/// The largest groups of nodes of which each is reached from each other one.
pub(crate) fn circles<T: Ord + Clone>(arrows: &BTreeMap<T, BTreeSet<T>>) -> Vec<BTreeSet<T>> {
    let reached = |from: &T| {
        let mut found = BTreeSet::new();
        let mut open = vec![from];
        while let Some(node) = open.pop() {
            for next in arrows.get(node).into_iter().flatten() {
                if found.insert(next.clone()) {
                    open.push(next);
                }
            }
        }
        found
    };
    let reached: BTreeMap<&T, BTreeSet<T>> = arrows.keys().map(|node| (node, reached(node))).collect();
    let circle = |node: &&T| -> BTreeSet<T> {
        let there = reached[*node].iter();
        let back = |other: &&T| reached.get(*other).is_some_and(|back| back.contains(*node));
        there.filter(back).cloned().collect()
    };
    let found: BTreeSet<BTreeSet<T>> = arrows
        .keys()
        .filter(|node| reached[*node].contains(*node))
        .map(|node| circle(&node))
        .collect();
    found.into_iter().collect()
}

fn child(module: &Module, name: &str) -> Module {
    let mut child = module.clone();
    child.push(name.to_owned());
    child
}

fn read_modules(folder: &Path, module: &mut Module, texts: &mut BTreeMap<Module, String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
        if matches!(stem.as_str(), "tests" | "fixtures") {
            continue;
        }
        if path.is_dir() {
            module.push(stem);
            read_modules(&path, module, texts);
            module.pop();
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let of = match stem.as_str() {
                // The program is above the library and may import all of it.
                "main" => continue,
                "lib" => module.clone(),
                name => child(module, name),
            };
            texts.insert(of, code(&fs::read_to_string(&path).unwrap()));
        }
    }
}

/// A source without comments, without the paths of visibilities, and without its tests.
fn code(text: &str) -> String {
    let is_tests = |line: &&str| line.ends_with("mod tests {");
    let lines = text.lines().take_while(|line| !is_tests(line));
    let code = |line: &str| {
        let line = line.split("//").next().unwrap_or_default();
        match line
            .split_once("pub(in ")
            .and_then(|(before, rest)| Some((before, rest.split_once(')')?.1)))
        {
            Some((before, after)) => format!("{before}pub(){after}"),
            None => line.to_owned(),
        }
    };
    lines.map(code).collect::<Vec<_>>().join("\n")
}

/// The visibility and the tree of each `use`.
fn uses(text: &str) -> Vec<(&str, &str)> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices("use ") {
        let line = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let visibility = text[line..at].trim();
        let is_use = visibility.is_empty() || visibility.starts_with("pub");
        if let Some(end) = text[at..].find(';').filter(|_| is_use) {
            found.push((visibility, text[at + "use ".len()..at + end].trim()));
        }
    }
    found
}

/// The paths of a `use` tree.
fn paths(tree: &str) -> Vec<Vec<String>> {
    let Some((prefix, inside)) = tree.split_once('{') else {
        let path = tree.split(" as ").next().unwrap_or_default();
        return vec![segments(path)];
    };
    let inside = inside.trim_end().strip_suffix('}').unwrap_or(inside);
    let mut depth = 0;
    let mut start = 0;
    let mut found = Vec::new();
    let ends = inside.char_indices().chain([(inside.len(), ',')]);
    for (at, char) in ends {
        match char {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 0 => {
                let item = inside[start..at].trim();
                start = (at + 1).min(inside.len());
                if !item.is_empty() {
                    found.extend(paths(&format!("{prefix}{item}")));
                }
            }
            _ => {}
        }
    }
    found
}

/// Paths that the code names without importing them: `crate::a::b` or `super::b`.
fn named_paths(text: &str) -> Vec<Vec<String>> {
    let is_path = |char: char| char.is_alphanumeric() || matches!(char, '_' | ':');
    let words = text.split(|char| !is_path(char));
    // A prefix of a tree, such as `crate::{a, b}`, is read with its tree.
    let is_ours =
        |word: &&str| (word.starts_with("crate::") || word.starts_with("super::")) && !word.ends_with("::");
    words.filter(is_ours).map(segments).collect()
}

fn segments(path: &str) -> Vec<String> {
    let names = path
        .split("::")
        .map(str::trim)
        .filter(|name| !name.is_empty() && *name != "*");
    let mut path: Vec<String> = names.map(str::to_owned).collect();
    if path.len() > 1 && path.last().is_some_and(|name| name == "self") {
        path.pop();
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    fn module(path: &str) -> Module {
        segments(path)
    }

    fn arrows(files: &[(&str, &str)]) -> Vec<(String, String)> {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = folder.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let imports = Imports::read(folder.path());
        let arrows = imports.arrows();
        let named = |module: &Module| module.join("::");
        arrows
            .iter()
            .flat_map(|(from, to)| to.iter().map(|to| (named(from), named(to))))
            .collect()
    }

    fn pair(from: &str, to: &str) -> (String, String) {
        (from.to_owned(), to.to_owned())
    }

    #[test]
    fn every_kind_of_import_is_an_arrow() {
        let found = arrows(&[
            ("lib.rs", "pub mod a;\npub mod b;\nuse std::fmt;"),
            (
                "a.rs",
                "use crate::b::{self, deep::{X, Y as Z}};\nuse serde::Serialize;",
            ),
            ("b.rs", "mod deep;\npub use deep::X;\nfn f() { crate::a::g() }"),
            (
                "b/deep.rs",
                "pub(in crate::a) struct X;\n// use crate::a;\nuse super::f;\n#[cfg(test)]\nmod tests {\n    use crate::a;\n}",
            ),
            ("b/tests.rs", "use crate::a;"),
        ]);
        let expected = [
            pair("a", "b"),
            pair("a", "b::deep"),
            pair("b", "a"),
            pair("b::deep", "b"),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_re_exported_name_is_its_definition() {
        let found = arrows(&[
            ("lib.rs", ""),
            ("a.rs", "pub(crate) use b::X;"),
            ("a/b.rs", ""),
            ("c.rs", "use crate::a::X;\nuse crate::a::Y;"),
        ]);
        assert_eq!(found, [pair("c", "a"), pair("c", "a::b")]);
    }

    #[test]
    fn circles_are_found() {
        let arrow = |(from, to): (&str, &str)| (module(from), BTreeSet::from([module(to)]));
        let arrows = [("a", "b"), ("b", "c"), ("c", "b"), ("d", "a")].map(arrow).into();
        assert_eq!(circles(&arrows), [BTreeSet::from([module("b"), module("c")])]);
    }
}
