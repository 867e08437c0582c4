//! What a helper costs: CPU time and memory of its processes.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use rustix::process::Pid;

use crate::sys;

/// CPU time and resident memory of a helper.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Usage {
    /// User and system time of all threads.
    pub cpu: Duration,
    /// Resident memory, KiB.
    pub rss_kib: u64,
}

/// Of the process `root` and those below it, those that are in our own network
/// namespace: what else a helper starts is the container. A process that does
/// not let itself be looked at is the helper's.
///
/// The CPU time of a process that has ended in between is lost; no helper has
/// such.
pub(super) fn of(root: Pid) -> Usage {
    let namespace = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/net"));
    let ours: Option<PathBuf> = namespace("self").ok();
    let mut usage = Usage::default();
    for pid in with_descendants(root.as_raw_nonzero().get()) {
        let theirs = namespace(&pid.to_string()).ok();
        if theirs.is_some() && theirs != ours {
            continue;
        }
        let Some(pid) = Pid::from_raw(pid) else {
            continue;
        };
        // It may end at any moment.
        usage.cpu += sys::child::cpu_time(pid).unwrap_or_default();
        usage.rss_kib += rss_kib(pid).unwrap_or_default();
    }
    usage
}

fn rss_kib(pid: Pid) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let field = text.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    field.split_whitespace().next()?.parse().ok()
}

fn with_descendants(root: i32) -> Vec<i32> {
    let mut children: HashMap<i32, Vec<i32>> = HashMap::new();
    let names = fs::read_dir("/proc").into_iter().flatten().flatten();
    for pid in names.filter_map(|entry| entry.file_name().to_str()?.parse().ok()) {
        if let Some(parent) = parent(pid) {
            children.entry(parent).or_default().push(pid);
        }
    }
    let mut found = vec![root];
    let mut next = 0;
    while let Some(pid) = found.get(next) {
        found.extend(children.remove(pid).unwrap_or_default());
        next += 1;
    }
    found
}

/// Field 4 of `/proc/PID/stat` (proc_pid_stat(5)).
fn parent(pid: i32) -> Option<i32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, rest) = stat.rsplit_once(") ")?;
    rest.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_something() {
        let usage = of(rustix::process::getpid());
        assert!(usage.rss_kib > 0, "{usage:?}");
        assert!(usage.cpu > Duration::ZERO, "{usage:?}");
    }

    #[test]
    fn children_are_found() {
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let found = with_descendants(rustix::process::getpid().as_raw_nonzero().get());
        let pid = i32::try_from(child.id()).unwrap();
        drop(child.stdin.take());
        child.wait().unwrap();
        assert!(found.contains(&pid), "{pid} is not in {found:?}");
    }
}
