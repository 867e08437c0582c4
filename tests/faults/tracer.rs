//! The program that makes system calls of a running process fail.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::util::tool;
use rustix::process::Pid;

/// What a call is made to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    /// It fails.
    Error(&'static str, i32),
    /// It takes less than it was given.
    Short,
}

impl std::fmt::Display for What {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Error(name, _) => out.write_str(name),
            Self::Short => out.write_str("short"),
        }
    }
}

/// How often a call was made to fail, and how long ago for the first and last time.
#[derive(Debug, Clone, Copy)]
pub(super) struct Met {
    pub(super) count: u64,
    pub(super) first: Duration,
    pub(super) last: Duration,
}

/// A process that is looked at until this is dropped.
pub(super) struct Tracer {
    child: Child,
    /// Until the end.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Tracer {
    /// Begins, by what [`compile`] has made; only root may.
    pub(super) fn start(program: &Path, pid: Pid) -> Self {
        let mut child = Command::new(program)
            .arg(pid.to_string())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut tracer = Self {
            commands: child.stdin.take(),
            answers: BufReader::new(child.stdout.take().unwrap()),
            child,
        };
        assert_eq!(tracer.answer(), ["ready"]);
        tracer
    }

    /// From now on the calls of a site fail, `times` at most and for no longer than this
    /// after the first.
    pub(super) fn fail(&mut self, site: &str, what: What, times: u64, period: Duration) {
        let what = match what {
            What::Error(_, errno) => errno.to_string(),
            What::Short => "short".to_owned(),
        };
        let answer = self.ask(&format!(
            "fault {site}|{what}|{times}|{}",
            period.as_millis()
        ));
        assert!(answer.is_empty(), "{answer:?}");
    }

    /// They do not any more.
    pub(super) fn stop(&mut self) -> Met {
        let answer = self.ask("off");
        let mut words = answer[0].split(' ');
        let mut word = || words.next().unwrap();
        let count = word().parse().unwrap();
        let mut ago = || Duration::from_secs_f64(word().parse::<f64>().unwrap() / 1e3);
        Met {
            count,
            first: ago(),
            last: ago(),
        }
    }

    /// All sites so far.
    pub(super) fn sites(&mut self) -> BTreeMap<String, u64> {
        self.counts("sites")
    }

    /// The descriptors that were opened since the start and are still open, by kind.
    pub(super) fn open(&mut self) -> BTreeMap<String, u64> {
        self.counts("open")
    }

    /// How many system calls there have been.
    pub(super) fn calls(&mut self) -> u64 {
        self.ask("calls")[0].parse().unwrap()
    }

    fn counts(&mut self, command: &str) -> BTreeMap<String, u64> {
        let mut counts = BTreeMap::new();
        for line in self.ask(command) {
            let (count, name) = line.split_once(' ').unwrap();
            *counts.entry(name.to_owned()).or_default() += count.parse::<u64>().unwrap();
        }
        counts
    }

    fn ask(&mut self, command: &str) -> Vec<String> {
        let commands = self.commands.as_mut().unwrap();
        writeln!(commands, "{command}").expect("the tracer and its process live");
        self.answer()
    }

    fn answer(&mut self) -> Vec<String> {
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            let count = self.answers.read_line(&mut line).unwrap();
            assert!(count > 0, "the tracer has ended, or its process has");
            match line.trim_end() {
                "." => return lines,
                line => lines.push(line.to_owned()),
            }
        }
    }
}

impl Drop for Tracer {
    fn drop(&mut self) {
        // The process is let go in order: not within a call that was replaced.
        self.commands = None;
        let _ = self.child.wait();
    }
}

/// Makes the program.
pub(super) fn compile(folder: &Path) -> PathBuf {
    let (source, program) = (folder.join("tracer.c"), folder.join("tracer"));
    fs::write(&source, include_str!("tracer.c")).unwrap();
    let [from, to] = [&source, &program].map(|path| path.to_str().unwrap());
    tool(
        "gcc",
        &["-O2", "-Wall", "-Wextra", "-Werror", "-o", to, from],
    );
    program
}
