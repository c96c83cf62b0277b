//! Texts for a terminal: tables, bars, sizes and durations, and one line that is rewritten.

use std::io::{IsTerminal, Write};

/// Characters of a bar.
const BAR_CHARS: usize = 30;

/// Rows under a header, in columns as wide as their widest cell.
pub fn table(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let header: Vec<String> = header.iter().map(|cell| (*cell).to_string()).collect();
    let mut out = String::new();
    for row in std::iter::once(&header).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            let padding = width - cell.chars().count();
            line.push_str(cell);
            line.push_str(&" ".repeat(padding + 3));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// `[#####.....]  17%`.
pub fn bar(percent: u8) -> String {
    let percent = percent.min(100);
    let done = usize::from(percent) * BAR_CHARS / 100;
    format!(
        "[{}{}] {percent:3}%",
        "#".repeat(done),
        ".".repeat(BAR_CHARS - done)
    )
}

/// Bytes in binary units, as Kubernetes writes them.
pub fn bytes(n: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = n as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{n} B")
    } else {
        format!("{value:.1} {}", UNITS[unit])
    }
}

/// Seconds as `7s`, `5m` or `3h`, as kubectl writes an age.
pub fn duration(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..120 => format!("{s}s"),
        s @ 120..7200 => format!("{}m", s / 60),
        s @ 7200..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86400),
    }
}

/// The value at a share of sorted values, by the nearest rank.
pub fn percentile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

/// A line of standard error that shows how far something is: rewritten on a terminal, printed when its state changes
/// elsewhere.
pub struct Line {
    is_terminal: bool,
    last_state: String,
    is_open: bool,
}

impl Line {
    /// One on standard error.
    pub fn on_stderr() -> Self {
        Self {
            is_terminal: std::io::stderr().is_terminal(),
            last_state: String::new(),
            is_open: false,
        }
    }

    /// Shows `text`. Where lines cannot be rewritten, it is printed only if `state` is another one than before.
    pub fn show(&mut self, state: &str, text: &str) {
        let mut out = std::io::stderr();
        // A terminal that is gone is no reason to end.
        let _ = if self.is_terminal {
            self.is_open = true;
            write!(out, "\r\x1b[K{text}").and_then(|()| out.flush())
        } else if self.last_state != state {
            writeln!(out, "{text}")
        } else {
            Ok(())
        };
        self.last_state = state.to_string();
    }

    /// Ends the line.
    pub fn close(&mut self) {
        if std::mem::take(&mut self.is_open) {
            eprintln!();
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_cells() {
        let rows = [
            vec!["a".to_string(), "é".into()],
            vec!["long name".into(), String::new()],
        ];
        assert_eq!(
            table(&["NAME", "X"], &rows),
            "NAME        X\na           é\nlong name\n"
        );
    }

    #[test]
    fn numbers_for_people() {
        assert_eq!(bar(0), format!("[{}]   0%", ".".repeat(30)));
        assert_eq!(bar(50), format!("[{}{}]  50%", "#".repeat(15), ".".repeat(15)));
        assert_eq!(
            [bytes(5), bytes(2048), bytes(3 << 30)],
            ["5 B", "2.0 KiB", "3.0 GiB"]
        );
        assert_eq!(
            [duration(-1), duration(119), duration(120), duration(90_000)],
            ["0s", "119s", "2m", "25h"]
        );
    }

    #[test]
    fn percentiles_are_values_that_occurred() {
        assert_eq!(percentile(&[], 0.5), None);
        assert_eq!(percentile(&[1.0], 0.99), Some(1.0));
        let hundred: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(
            (percentile(&hundred, 0.5), percentile(&hundred, 0.99)),
            (Some(50.0), Some(99.0))
        );
    }
}
