//! What the stand-in can prove holds only for kernels that keep its rules.

use std::path::{Path, PathBuf};

/// The CUDA files of the crate.
fn cuda_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("a folder of the crate") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "cu" || end == "cuh") {
                found.push(path);
            }
        }
    }
    found
}

/// The lines of a file without what is behind `//`.
fn code(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).expect("a file of the crate");
    text.lines()
        .map(|line| line.split("//").next().unwrap_or("").to_owned())
        .collect()
}

fn has_word(line: &str, word: &str) -> bool {
    line.split(|c: char| !c.is_alphanumeric() && c != '_')
        .any(|found| found == word)
}

#[test]
fn ptx_stands_in_one_file_and_kernels_are_launched_by_the_host_layer() {
    let files = cuda_files();
    assert!(files.len() > 5, "{files:?}");
    for path in files {
        let is_ptx = path.ends_with("cuda/ptx.cuh");
        for line in code(&path) {
            assert!(is_ptx || !has_word(&line, "asm"), "{}: {line}", path.display());
            assert!(!line.contains("<<<"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_kernel_may_overlap_with_the_one_before() {
    for path in cuda_files() {
        let lines = code(&path);
        if !lines.iter().any(|line| has_word(line, "__global__")) {
            continue;
        }
        // The body may be in a header beside the file.
        let folder = path.parent().expect("a file has a folder");
        let beside = cuda_files()
            .into_iter()
            .filter(|other| other.parent() == Some(folder));
        let waits = beside
            .flat_map(|other| code(&other))
            .any(|line| has_word(&line, "gdc_wait"));
        assert!(waits, "{}: no kernel calls gdc_wait", path.display());
    }
}
