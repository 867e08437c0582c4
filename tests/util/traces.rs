//! What a run has on the machine while it lives, and must not have afterwards.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::process::Pid;

/// A process, told from a later one with the same id by its start time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: i32,
    started: u64,
    command_line: String,
}

impl Process {
    fn read(pid: i32) -> Option<Self> {
        let (state, _, started) = stat(pid)?;
        // A zombie is gone but for its parent, which may be the machine's init.
        (state != 'Z').then(|| Self {
            pid,
            started,
            command_line: command_line(pid),
        })
    }

    fn lives(&self) -> bool {
        Self::read(self.pid).is_some_and(|now| now.started == self.started)
    }
}

/// State, parent and start time (proc_pid_stat(5), fields 3, 4 and 22).
fn stat(pid: i32) -> Option<(char, i32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(") ")?.1.split(' ');
    let state = fields.next()?.chars().next()?;
    let parent = fields.next()?.parse().ok()?;
    let started = fields.nth(17)?.parse().ok()?;
    Some((state, parent, started))
}

/// A size in `/proc/PID/status` (proc_pid_status(5)), such as `VmRSS`, KiB.
pub(crate) fn memory(pid: Pid, field: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let value = |line: &str| {
        line.strip_prefix(field)?
            .strip_prefix(':')
            .map(str::to_owned)
    };
    let value = status.lines().find_map(value).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

fn now_in_ticks() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ticks = rustix::param::clock_ticks_per_second();
    now.tv_sec.unsigned_abs() * ticks + now.tv_nsec.unsigned_abs() * ticks / 1_000_000_000
}

fn command_line(pid: i32) -> String {
    let bytes = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}

fn pids() -> Vec<i32> {
    let names = fs::read_dir("/proc")
        .unwrap()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    names.filter_map(|name| name.parse().ok()).collect()
}

/// The processes whose command line or environment has this word in it. The program's
/// own change their command line, but not their environment.
pub(crate) fn marked(marker: &str) -> Vec<Process> {
    let own = i32::try_from(std::process::id()).unwrap();
    let others = pids().into_iter().filter(|&pid| pid != own);
    others
        .filter_map(Process::read)
        .filter(|process| {
            let environment = fs::read(format!("/proc/{}/environ", process.pid));
            let environment = environment.unwrap_or_default();
            process.command_line.contains(marker)
                || String::from_utf8_lossy(&environment).contains(marker)
        })
        .collect()
}

/// The processes below one, itself not included.
pub(crate) fn below(pid: Pid) -> Vec<Process> {
    let all: Vec<_> = pids()
        .into_iter()
        .filter_map(|pid| Some((pid, stat(pid)?.1)))
        .collect();
    let mut found = vec![pid.as_raw_nonzero().get()];
    let mut next = 0;
    while let Some(&parent) = found.get(next) {
        found.extend(
            all.iter()
                .filter(|entry| entry.1 == parent)
                .map(|entry| entry.0),
        );
        next += 1;
    }
    found[1..]
        .iter()
        .filter_map(|&pid| Process::read(pid))
        .collect()
}

/// What a process calls itself (`/proc/PID/comm`).
pub(crate) fn name(pid: i32) -> String {
    let name = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    name.trim_end().to_owned()
}

/// The process that it is a child of.
pub(crate) fn parent(pid: i32) -> Option<i32> {
    stat(pid).map(|(_, parent, _)| parent)
}

/// Its number in its innermost PID namespace.
pub(crate) fn inner_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

/// The container's init below a `crun-lite`.
#[track_caller]
pub(crate) fn init_below(pid: Pid) -> Process {
    let processes = below(pid);
    let init = processes
        .iter()
        .find(|process| inner_pid(process.pid) == Some(1));
    init.unwrap_or_else(|| panic!("no init among {processes:?}"))
        .clone()
}

/// The links in a folder of procfs that name namespaces.
fn namespaces_in(folder: impl AsRef<Path>) -> BTreeSet<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return BTreeSet::new();
    };
    let links = entries.filter_map(|entry| {
        fs::read_link(entry.ok()?.path())
            .ok()?
            .into_os_string()
            .into_string()
            .ok()
    });
    links
        .filter(|link| KINDS.iter().any(|kind| link.starts_with(kind)))
        .collect()
}

const KINDS: [&str; 7] = [
    "net:[", "mnt:[", "pid:[", "user:[", "uts:[", "ipc:[", "cgroup:[",
];

fn namespaces_of(pid: i32) -> BTreeSet<String> {
    namespaces_in(format!("/proc/{pid}/ns"))
}

/// All that one run has.
#[derive(Debug)]
pub(crate) struct Traces {
    pub(crate) processes: Vec<Process>,
    pub(crate) namespaces: BTreeSet<String>,
    /// When, in clock ticks since the machine's start.
    taken: u64,
}

impl Traces {
    /// What the `crun-lite` with this id has now.
    pub(crate) fn of(pid: Pid) -> Self {
        let processes = below(pid);
        let own = namespaces_of(pid.as_raw_nonzero().get());
        let namespaces = processes
            .iter()
            .flat_map(|process| namespaces_of(process.pid));
        let namespaces = namespaces
            .filter(|namespace| !own.contains(namespace))
            .collect();
        let itself = Process::read(pid.as_raw_nonzero().get());
        Self {
            processes: processes.into_iter().chain(itself).collect(),
            namespaces,
            taken: now_in_ticks(),
        }
    }

    /// Waits until nothing of it is left, and fails when that takes too long.
    #[track_caller]
    pub(crate) fn assert_gone(&self, limit: Duration) {
        let deadline = std::time::Instant::now() + limit;
        loop {
            let left = self.left();
            if left.is_empty() {
                return;
            }
            assert!(
                std::time::Instant::now() < deadline,
                "left after {limit:?}:\n{}",
                left.join("\n")
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    fn left(&self) -> Vec<String> {
        let mut left: Vec<_> = self
            .processes
            .iter()
            .filter(|process| process.lives())
            .map(|process| format!("{process:?}"))
            .collect();
        // A namespace lives as long as a process is in it or holds it open, or a
        // mount shows it.
        // A later process may have a namespace with the number of one that is gone.
        let earlier = |pid: &i32| {
            stat(*pid).is_some_and(|(state, _, started)| state != 'Z' && started <= self.taken)
        };
        for pid in pids().into_iter().filter(earlier) {
            let known = |names: BTreeSet<String>| -> BTreeSet<String> {
                names.intersection(&self.namespaces).cloned().collect()
            };
            let mut held = known(namespaces_in(format!("/proc/{pid}/fd")));
            // What is left of a run is in all of its namespaces. A process that
            // has moved since into one with a number used again is in one.
            let inside = known(namespaces_of(pid));
            if inside.len() > 1 {
                held.extend(inside);
            }
            if !held.is_empty() {
                left.push(format!("{held:?} by {pid} {:?}", command_line(pid)));
            }
        }
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        left.extend(
            mounts
                .lines()
                .filter(|line| self.namespaces.iter().any(|name| line.contains(name)))
                .map(str::to_owned),
        );
        left
    }
}
