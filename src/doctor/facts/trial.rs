//! Whether a run works: a container with the defaults, whose shell has nothing to read
//! and ends.

use std::io::{self, Read};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use serde::Deserialize;

use crate::sys::child::tie_to_parent;

/// How long a run may take.
const LIMIT: Duration = Duration::from_secs(20);

/// What came of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// It did what it was told.
    Works,
    /// It said why it did not.
    Fails(String),
}

/// What came of the two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trials {
    /// `run --net=none`
    pub none: Trial,
    /// `run --net=builtin`
    pub builtin: Trial,
}

/// The error that ends the program, as it prints it.
#[derive(Deserialize)]
struct Line {
    msg: String,
    level: String,
}

pub(super) fn run() -> Trials {
    let with = |network| match attempt(network) {
        Ok(None) => Trial::Works,
        Ok(Some(message)) => Trial::Fails(message),
        Err(error) => Trial::Fails(format!("start crun-lite: {error}")),
    };
    Trials {
        none: with("--net=none"),
        builtin: with("--net=builtin"),
    }
}

/// Runs it; what it said when it failed.
fn attempt(network: &str) -> io::Result<Option<String>> {
    let mut command = Command::new("/proc/self/exe");
    command
        .args(["--log-level=error", "--log-format=json", "run", network])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    tie_to_parent(&mut command);
    let mut child = command.spawn()?;
    let waited = wait(&child);
    if !matches!(waited, Ok(true)) {
        // With it ends its container.
        child.kill()?;
    }
    let status = child.wait()?;
    let mut said = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        stderr.read_to_string(&mut said)?;
    }
    if !waited? {
        return Ok(Some(format!("it did not end within {LIMIT:?}")));
    }
    Ok((!status.success()).then(|| message(&said).unwrap_or_else(|| status.to_string())))
}

/// Waits for its end; false when it does not come.
fn wait(child: &Child) -> io::Result<bool> {
    let pidfd = pidfd_open(Pid::from_child(child), PidfdFlags::empty())?;
    let limit = Timespec::try_from(LIMIT).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], Some(&limit))? > 0)
}

/// The last error of what it said.
fn message(said: &str) -> Option<String> {
    said.lines()
        .rev()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok())
        .find(|line| line.level == "error")
        .map(|line| line.msg)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_is_found_among_messages() {
        let said = "{\"level\":\"warn\",\"msg\":\"a\"}\nnoise\n{\"level\":\"error\",\"msg\":\"b\",\"hint\":\"c\"}\n";
        assert_eq!(message(said).as_deref(), Some("b"));
        assert_eq!(message("noise\n"), None);
    }
}
