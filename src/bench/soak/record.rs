//! A file of results that add up: a line of JSON for each run.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::report::Report;

/// What adds up from run to run.
const SUMS: [&str; 7] = [
    "seconds",
    "connections",
    "flows",
    "gib_down",
    "gib_up",
    "streams",
    "tcp_rr",
];

/// One run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Line {
    /// When, as RFC 3339 in UTC.
    pub date: String,
    /// The kind of run.
    pub verb: String,
    /// The command line.
    pub command: String,
    /// Whether it was run as root.
    pub root: bool,
    /// Processor, their number, kernel.
    pub machine: String,
    /// Whether every bar was met.
    pub good: bool,
    /// The bars that were missed.
    pub missed: Vec<String>,
    /// Single figures.
    pub figures: BTreeMap<String, f64>,
}

impl Line {
    /// What is kept of a run.
    pub fn of(report: &Report) -> Self {
        let machine = &report.machine;
        let missed = report.bars.iter().filter(|bar| bar.met == Some(false));
        Self {
            date: machine.date.clone(),
            verb: report.verb.to_owned(),
            command: report.command.clone(),
            root: machine.root,
            machine: format!(
                "{}, {} CPUs, Linux {}",
                machine.cpu, machine.cpus, machine.kernel
            ),
            good: report.is_good(),
            missed: missed.map(|bar| bar.name.to_owned()).collect(),
            figures: report
                .figures
                .iter()
                .map(|(&key, &value)| (key.to_owned(), value))
                .collect(),
        }
    }
}

/// Adds a run to the file, and gives all that are in it now.
///
/// # Errors
/// The file cannot be written, or has something else in it.
pub fn add(path: &Path, line: &Line) -> io::Result<Vec<Line>> {
    let mut lines = read(path)?;
    let text = serde_json::to_string(line)?;
    let mut file = File::options().append(true).create(true).open(path)?;
    file.write_all(format!("{text}\n").as_bytes())?;
    lines.push(line.clone());
    Ok(lines)
}

/// The runs in a file; none where there is no file.
///
/// # Errors
/// It cannot be read, or has something else in it.
pub fn read(path: &Path) -> io::Result<Vec<Line>> {
    let text = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        text => text?,
    };
    let lines = text.lines().filter(|line| !line.is_empty());
    Ok(lines.map(serde_json::from_str).collect::<Result<_, _>>()?)
}

/// What the good runs of a kind come to together, in a line.
pub fn sums(lines: &[Line], verb: &str) -> String {
    let of_kind = || lines.iter().filter(|line| line.verb == verb);
    let good = || of_kind().filter(|line| line.good);
    let mut text = format!(
        "{verb}: {} of {} runs good, together",
        good().count(),
        of_kind().count()
    );
    for key in SUMS {
        let values: Vec<f64> = good()
            .filter_map(|line| line.figures.get(key).copied())
            .collect();
        if !values.is_empty() {
            // Writing to a String cannot fail.
            let _ = write!(text, " {key} {:.2}", values.iter().sum::<f64>());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(verb: &str, good: bool, gib: f64) -> Line {
        Line {
            date: "2026-11-24T10:00:00Z".to_owned(),
            verb: verb.to_owned(),
            command: "crun-lite bench".to_owned(),
            root: true,
            machine: "Abacus".to_owned(),
            good,
            missed: Vec::new(),
            figures: [("gib_up".to_owned(), gib)].into(),
        }
    }

    #[test]
    fn good_runs_of_a_kind_add_up() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("results.jsonl");
        assert_eq!(read(&path).unwrap(), []);
        for more in [
            line("integrity", true, 1.5),
            line("soak", true, 9.0),
            line("integrity", false, 7.0),
        ] {
            add(&path, &more).unwrap();
        }
        let all = add(&path, &line("integrity", true, 2.0)).unwrap();
        assert_eq!(all, read(&path).unwrap());
        assert_eq!(
            sums(&all, "integrity"),
            "integrity: 2 of 3 runs good, together gib_up 3.50"
        );
    }

    #[test]
    fn another_file_is_not_added_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notes");
        fs::write(&path, "remember the milk\n").unwrap();
        assert!(add(&path, &line("soak", true, 1.0)).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "remember the milk\n");
    }
}
