//! What the compiler made of the kernels, against a snapshot that people review.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on says where")]

use std::io::Write;
use std::path::{Path, PathBuf};

/// Where the build has listed the kernels, if it compiled them for all architectures.
fn report() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    let folders = program.ancestors().skip(1);
    folders
        .map(|folder| folder.join("cuda/evidence.txt"))
        .find(|path| path.exists())
}

/// By how much the number of registers may differ from the snapshot.
const REGISTERS_SLACK: u32 = 8;

/// A kernel on one architecture, and the values of the columns by their names.
struct Line<'a> {
    kernel: &'a str,
    arch: &'a str,
    values: Vec<(&'a str, u32)>,
}

impl Line<'_> {
    fn of(&self, column: &str) -> u32 {
        let found = self.values.iter().find(|(name, _)| *name == column);
        found.unwrap().1
    }

    /// Whether it is the same kernel with the same values. The compiler's choice of registers differs a little from folder
    /// to folder.
    fn is_like(&self, reviewed: &Line<'_>) -> bool {
        let mut values = self.values.iter().zip(&reviewed.values);
        let is_same = |((name, got), (_, want)): (&(&str, u32), &(&str, u32))| {
            got == want || (*name == "registers" && got.abs_diff(*want) <= REGISTERS_SLACK)
        };
        (self.kernel, self.arch) == (reviewed.kernel, reviewed.arch) && values.all(is_same)
    }
}

fn lines(text: &str) -> Vec<Line<'_>> {
    let mut lines = text.lines();
    let names: Vec<&str> = lines.next().unwrap().split(' ').skip(2).collect();
    let of = |line| {
        let words: Vec<&str> = str::split(line, ' ').collect();
        let numbers = words[2..].iter().map(|word| word.parse().unwrap());
        Line {
            kernel: words[0],
            arch: words[1],
            values: names.iter().copied().zip(numbers).collect(),
        }
    };
    lines.map(of).collect()
}

#[test]
fn the_compiled_kernels_are_those_that_were_reviewed() {
    let Some(path) = report() else {
        let reason = "the kernels were not compiled for all cards (SLIPWAY_CUDA_TARGETS)";
        let _ = writeln!(std::io::stdout(), "\nskipped: {reason}");
        return;
    };
    let got = std::fs::read_to_string(&path).unwrap();
    let reviewed = Path::new(env!("CARGO_MANIFEST_DIR")).join("cuda/evidence.txt");
    let want = std::fs::read_to_string(&reviewed).unwrap();
    let (got, want) = (lines(&got), lines(&want));
    let differs: Vec<String> = got
        .iter()
        .filter(|line| !want.iter().any(|reviewed| line.is_like(reviewed)))
        .map(|line| format!("{} {} {:?}", line.kernel, line.arch, line.values))
        .collect();
    assert!(
        differs.is_empty() && got.len() == want.len(),
        "{} lines are new, and {} were {}; review them and copy {} to {}:\n{}",
        differs.len(),
        got.len(),
        want.len(),
        path.display(),
        reviewed.display(),
        differs.join("\n")
    );
}

#[test]
fn every_kernel_can_follow_another_without_a_gap() {
    let text = include_str!("../cuda/evidence.txt");
    for line in lines(text).iter().filter(|line| line.arch == "sm_90a") {
        assert!(
            line.of("wait") > 0,
            "{} does not wait for the kernel before",
            line.kernel
        );
        assert!(
            line.of("trigger") > 0,
            "{} does not let the next kernel begin",
            line.kernel
        );
    }
}

#[test]
fn kernels_that_decide_the_speed_keep_their_values_in_registers() {
    let text = include_str!("../cuda/evidence.txt");
    for line in lines(text) {
        let is_hot = line.of("tensor") > 0 || line.kernel.starts_with("gemv");
        assert!(
            !is_hot || line.of("local") == 0,
            "{} spills on {}",
            line.kernel,
            line.arch
        );
    }
}
