//! The layout and style rules that a compiler does not check. ARCHITECTURE.md and CONTRIBUTING.md say why.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod imports;
mod parameters;
mod rooms;

use std::fs;
use std::path::{Path, PathBuf};

const FUNCTION_LINES_MAX: usize = 70;
const FILE_BYTES_MAX: u64 = 1 << 20;
const CRATES: [&str; 6] = ["crds", "operator", "cli", "runtime", "kernels", "e2e"];

/// Words that may not stand in the code below a folder: what that part must not know.
const MUST_NOT_KNOW: &[(&str, &[&str])] = &[
    ("crds/src", &["tokio", "kube::Client", "axum", "reqwest"]),
    ("kernels/src", &["axum", "tokio", "serde", "safetensors"]),
    ("runtime/src", &["k8s_openapi", "kube::"]),
    ("cli/src/runpod", &["kube::", "tokio"]),
    ("cli/src/manifest.rs", &["kube::", "tokio"]),
    ("cli/src/reference.rs", &["kube::", "tokio"]),
    (
        "runtime/src/engine",
        &["axum", "serde", "tokenizers", "jinja", "reqwest"],
    ),
    ("runtime/src/model", &["axum", "tokio", "tokenizers", "reqwest"]),
    ("runtime/src/api", &["axum"]),
    ("runtime/src/serving", &["axum"]),
    ("runtime/src/telemetry", &["axum"]),
    ("runtime/src/config", &["axum"]),
    ("runtime/src/grammar", &["axum", "tokio"]),
    ("runtime/src/parsers", &["axum", "tokio"]),
    ("runtime/src/chat_template", &["axum", "tokio"]),
    ("runtime/src/jinja", &["axum", "tokio", "tokenizer"]),
    ("operator/src/reconcile/status", &["object.spec"]),
    ("operator/src/reconcile/apply.rs", &["object.spec"]),
    (
        "operator/src/reconcile/build",
        &["kube::Client", "Api<", "reqwest"],
    ),
];

#[test]
fn every_file_opens_with_what_it_owns() {
    check(|path, text| (!text.starts_with("//!")).then(|| format!("{path}: does not open with `//!`")));
}

#[test]
fn every_file_is_declared() {
    let undeclared = |path: &Path| {
        let stem = path.file_stem()?.to_str()?;
        let folder = path.parent()?;
        if matches!(stem, "lib" | "main" | "build")
            || folder.ends_with("tests")
            || folder.ends_with("benches")
            || folder.ends_with("examples")
        {
            return None;
        }
        let parents = [
            folder.with_extension("rs"),
            folder.join("lib.rs"),
            folder.join("main.rs"),
            folder.join("mod.rs"),
        ];
        let declared = parents
            .iter()
            .filter_map(|parent| fs::read_to_string(parent).ok())
            .any(|text| text.contains(&format!("mod {stem};")));
        // Test programs beside the folder may share the file by its path.
        let shared = format!("#[path = \"{}/{stem}.rs\"]", folder.file_name()?.to_str()?);
        let programs = fs::read_dir(folder.parent()?).ok()?.flatten();
        let is_shared = programs
            .filter_map(|program| fs::read_to_string(program.path()).ok())
            .any(|text| text.contains(&shared));
        let declared = declared || is_shared;
        (!declared).then(|| {
            format!(
                "{}: no `mod {stem};` declares it, so it is never compiled",
                path.display()
            )
        })
    };
    assert_eq!(
        sources()
            .iter()
            .filter_map(|path| undeclared(path))
            .collect::<Vec<_>>(),
        Vec::<String>::new()
    );
}

#[test]
fn files_are_nouns() {
    const NOT_NOUNS: [&str; 6] = ["utils", "util", "common", "helpers", "helper", "manager"];
    check(|path, _| {
        let stem = Path::new(path).file_stem()?.to_str()?;
        NOT_NOUNS
            .contains(&stem)
            .then(|| format!("{path}: says nothing about what it holds"))
    });
}

#[test]
fn parts_do_not_know_what_they_must_not() {
    check(|path, text| {
        let code: String = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"))
            .collect::<Vec<_>>()
            .join("\n");
        let known = MUST_NOT_KNOW
            .iter()
            .filter(|(folder, _)| path.starts_with(folder))
            .flat_map(|(_, words)| words.iter())
            .find(|word| code.contains(**word))?;
        Some(format!("{path}: knows `{known}`"))
    });
}

#[test]
fn functions_fit_a_screen() {
    check(|path, text| {
        // A table of cases is long and easy to read.
        if path.contains("/tests/") || path.ends_with("tests.rs") {
            return None;
        }
        let code = text.split("#[cfg(test)]\nmod tests").next()?;
        let lines: Vec<&str> = code.lines().collect();
        let long = lines.iter().enumerate().filter_map(|(first, line)| {
            let indent = line.len() - line.trim_start().len();
            let is_function = line
                .trim_start()
                .split('(')
                .next()?
                .split_whitespace()
                .any(|word| word == "fn");
            if !is_function
                || line.trim_start().starts_with("//")
                || line.ends_with(';')
                || line.ends_with('}')
            {
                return None;
            }
            let end = format!("{}}}", " ".repeat(indent));
            let length = lines[first..].iter().position(|line| *line == end)? + 1;
            (length > FUNCTION_LINES_MAX)
                .then(|| format!("{path}:{}: a function of {length} lines", first + 1))
        });
        let long: Vec<String> = long.collect();
        (!long.is_empty()).then(|| long.join("\n"))
    });
}

#[test]
fn no_source_file_is_huge() {
    let huge = sources()
        .into_iter()
        .filter(|path| fs::metadata(path).is_ok_and(|m| m.len() > FILE_BYTES_MAX));
    assert_eq!(huge.collect::<Vec<_>>(), Vec::<PathBuf>::new());
}

/// Runs `fault` over every source file and fails with all it found.
fn check(fault: impl Fn(&str, &str) -> Option<String>) {
    let root = root();
    let faults: Vec<String> = sources()
        .iter()
        .filter_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            fault(path.strip_prefix(&root).unwrap().to_str().unwrap(), &text)
        })
        .collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_path_buf()
}

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders: Vec<PathBuf> = CRATES.iter().map(|name| root().join(name)).collect();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    assert!(found.len() > 10, "the sources were not found");
    found
}
