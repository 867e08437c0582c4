//! What the process of crun-lite uses, from outside.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::time::Duration;

use rustix::process::Pid;
use serde::{Deserialize, Serialize};

use crate::bench::usage;

/// At one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub struct State {
    /// Resident memory, KiB.
    pub rss_kib: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Flows of all protocols (`net stats`).
    pub flows: u64,
    /// Payload on its way, bytes (`net stats`).
    pub buffered_bytes: u64,
    /// CPU time so far.
    #[serde(skip)]
    pub cpu: Duration,
}

/// The answer of `net stats --json`.
pub(super) fn counters(json: &str) -> Option<BTreeMap<String, u64>> {
    serde_json::from_str(json).ok()
}

/// How many flows of `net flows --json` are of TCP, and how many of datagrams.
pub(super) fn flows(json: &str) -> Option<(u64, u64)> {
    #[derive(Deserialize)]
    struct Flow {
        protocol: String,
    }
    let flows: Vec<Flow> = serde_json::from_str(json).ok()?;
    let tcp = flows.iter().filter(|flow| flow.protocol == "tcp").count();
    Some((tcp as u64, (flows.len() - tcp) as u64))
}

/// What the process uses.
pub(super) fn state(pid: Pid, counters: &BTreeMap<String, u64>) -> io::Result<State> {
    let usage = usage::of(pid);
    let fds = descriptors(&format!("/proc/{}/fd", pid.as_raw_nonzero()))?;
    let counter = |name: &str| counters.get(name).copied().unwrap_or_default();
    Ok(State {
        rss_kib: usage.rss_kib,
        fds: fds as u64,
        flows: counter("flows"),
        buffered_bytes: counter("buffered_bytes"),
        cpu: usage.cpu,
    })
}

/// How many descriptors a process has open. Another's of the same user that is not
/// dumpable shows no list, but since Linux 6.2 the directory has their number as its size
/// (fs/proc/fd.c).
fn descriptors(dir: &str) -> io::Result<usize> {
    match fs::read_dir(dir) {
        Ok(entries) => Ok(entries.count()),
        Err(denied) => {
            let number = usize::try_from(fs::metadata(dir)?.len()).unwrap_or(usize::MAX);
            // On an older kernel it is 0, and there is always one.
            Some(number).filter(|number| *number > 0).ok_or(denied)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_container_answers_is_understood() {
        let counters = counters(r#"{"flows":3,"buffered_bytes":70}"#).unwrap();
        let state = state(rustix::process::getpid(), &counters).unwrap();
        assert_eq!((state.flows, state.buffered_bytes), (3, 70));
        assert!(state.fds > 2 && state.rss_kib > 0, "{state:?}");
        let flows = r#"[{"protocol":"tcp","age":1},{"protocol":"udp"},{"protocol":"dns"}]"#;
        assert_eq!(super::flows(flows), Some((1, 2)));
        assert_eq!(super::flows("no such container"), None);
    }
}
