//! The container's cgroup while it lives: made, filled, asked, removed.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal};
use tracing::{debug, warn};

use super::tree;
use crate::error::Error;
use crate::plan::{CgroupDir, CgroupFile, CgroupPlan, CgroupVersion};

/// What the names of our cgroups begin with; our process id follows.
const PREFIX: &str = "crun-lite-";
/// What follows that where it is us who are in it.
const ASIDE: &str = "-runtime";
const PROCS: &str = "cgroup.procs";
const SUBTREE: &str = "cgroup.subtree_control";
/// Most names that are tried: others of the same begin are of runs whose process id in
/// another PID namespace is ours.
const NAMES: u32 = 1000;
/// How long what has been killed may take to be gone.
const PATIENCE: Duration = Duration::from_secs(5);
/// For what v1 has no event.
const MOMENT: Duration = Duration::from_millis(1);

/// The container's cgroup. Dropping it says whether its memory limit has killed
/// anything, kills what is still in it, and removes it; to be done when the container's
/// init has been reaped.
#[derive(Debug)]
pub struct Cgroup {
    version: CgroupVersion,
    /// The memory limit, bytes.
    memory: Option<u64>,
    dirs: Vec<Made>,
    aside: Option<Aside>,
}

/// Where we are while our own cgroup passes controllers on.
#[derive(Debug)]
struct Aside {
    made: Made,
    /// What our own cgroup passes on because of us.
    enabled: Vec<String>,
}

/// A directory that is ours for as long as this is open.
#[derive(Debug)]
struct Made {
    /// Where it is.
    parent: OwnedFd,
    name: String,
    /// Itself, locked.
    dir: OwnedFd,
    /// For messages.
    path: PathBuf,
}

impl Cgroup {
    /// Makes what `plan` says, and removes what killed runs have left in the same places.
    /// Where this process has to step aside, so does its `heir`.
    ///
    /// # Errors
    /// [`Error::Cgroup`]; nothing is left of it then, but that controllers that have been
    /// passed on stay so.
    pub fn make(plan: &CgroupPlan, heir: Pid) -> Result<Self, Error> {
        let mut cgroup = Self {
            version: plan.version,
            memory: plan.memory,
            dirs: Vec::new(),
            aside: None,
        };
        for wanted in &plan.dirs {
            let path = &wanted.parent;
            let parent = open_dir(rustix::fs::CWD, path).map_err(|error| Error::Cgroup {
                step: "open the cgroup",
                path: path.clone(),
                source: error.into(),
            })?;
            sweep(&parent, wanted, plan.version);
            if wanted.step_aside {
                let aside = cgroup.aside.insert(Aside {
                    made: Made::new(&parent, wanted, ASIDE)?,
                    enabled: wanted.enable.clone(),
                });
                aside.made.enter(rustix::process::getpid())?;
                aside.made.enter(heir)?;
            }
            pass_on(&parent, wanted)?;
            cgroup.dirs.push(Made::new(&parent, wanted, "")?);
        }
        // They are the directories' by their order.
        for (made, wanted) in cgroup.dirs.iter().zip(&plan.dirs) {
            for file in &wanted.files {
                made.set(file)?;
            }
        }
        Ok(cgroup)
    }

    /// The directory that init is cloned into (clone3(2), `CLONE_INTO_CGROUP`); `None`
    /// with v1, where it has to be [admitted](Self::admit).
    pub fn clone_into(&self) -> Option<BorrowedFd<'_>> {
        let first = self.dirs.first().map(|made| made.dir.as_fd());
        first.filter(|_| self.version == CgroupVersion::V2)
    }

    /// Puts `pid` into it, where it has not been cloned into it.
    ///
    /// # Errors
    /// Those of the kernel, with the file.
    pub fn admit(&self, pid: Pid) -> Result<(), Error> {
        if self.version == CgroupVersion::V2 {
            return Ok(());
        }
        self.dirs.iter().try_for_each(|made| made.enter(pid))
    }

    /// Descriptors by which it is held.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let aside = self.aside.as_ref().map(|aside| &aside.made);
        let all = self.dirs.iter().chain(aside);
        all.flat_map(|made| [made.parent.as_fd(), made.dir.as_fd()])
            .collect()
    }

    /// Leaves it to a process that has been forked with it.
    pub fn let_go(mut self) {
        self.memory = None;
        self.dirs.clear();
        self.aside = None;
    }

    /// Kills everything in it.
    ///
    /// # Errors
    /// Those of the kernel.
    pub fn kill(&self) -> io::Result<()> {
        self.dirs
            .iter()
            .try_for_each(|made| made.kill(self.version))
    }

    /// Removes it, killing what is still in it; what cannot be removed is told.
    pub fn remove(&mut self) {
        for made in self.dirs.drain(..) {
            if let Err(error) = made.remove(self.version) {
                warn!("remove the cgroup {}: {error}", made.path.display());
            }
        }
        if let Some(aside) = self.aside.take()
            && let Err(error) = aside.come_back()
        {
            warn!("leave the cgroup {}: {error}", aside.made.path.display());
        }
    }

    /// Says on standard error what the lack of memory has killed, if anything.
    fn report(&self) {
        let Some(limit) = self.memory else { return };
        let Some((killed, at_limit)) = self.dirs.iter().find_map(|made| made.oom(self.version))
        else {
            return;
        };
        let many = match killed {
            0 => return,
            1 => "a process of the container was".to_owned(),
            many => format!("{many} processes of the container were"),
        };
        let why = if at_limit {
            format!("its memory limit of {limit} bytes (--memory) was reached")
        } else {
            "the memory of the host, or of a cgroup above the container's, was used up".to_owned()
        };
        warn!("out of memory: {many} killed: {why}");
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.report();
        self.remove();
    }
}

pub(super) fn open_dir(parent: impl AsFd, name: impl rustix::path::Arg) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(parent, name, flags, Mode::empty())
}

/// Has the directory in which ours is to be made pass on what it does not yet.
fn pass_on(parent: &OwnedFd, wanted: &CgroupDir) -> Result<(), Error> {
    if wanted.enable.is_empty() {
        return Ok(());
    }
    write(parent, SUBTREE, &words('+', &wanted.enable)).map_err(|error| Error::Cgroup {
        step: "pass controllers on",
        path: wanted.parent.join(SUBTREE),
        source: error.into(),
    })
}

/// Names of controllers as `cgroup.subtree_control` takes them.
fn words(sign: char, names: &[String]) -> String {
    let words: Vec<String> = names.iter().map(|name| format!("{sign}{name}")).collect();
    words.join(" ")
}

impl Aside {
    /// Goes back to where we were, with whatever has been started meanwhile.
    fn come_back(&self) -> io::Result<()> {
        let Made { parent, dir, .. } = &self.made;
        // Nothing can be in a cgroup that passes controllers on.
        if !self.enabled.is_empty() {
            write(parent, SUBTREE, &words('-', &self.enabled))?;
        }
        for pid in read(dir, PROCS)?.lines() {
            match write(parent, PROCS, pid) {
                // It has ended.
                Err(Errno::SRCH) => {}
                moved => moved?,
            }
        }
        self.made.remove(CgroupVersion::V2)
    }
}

/// Writes a file of a cgroup, which is never made by that.
fn write(dir: &OwnedFd, name: &str, value: &str) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    // At once, or the kernel takes each part for a value.
    match rustix::io::write(&file, value.as_bytes())? {
        written if written == value.len() => Ok(()),
        _ => Err(Errno::IO),
    }
}

fn read(dir: &OwnedFd, name: &str) -> io::Result<String> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = rustix::fs::openat(dir, name, flags, Mode::empty())?;
    io::read_to_string(std::fs::File::from(file))
}

/// The number after `key` in a file of lines "KEY NUMBER".
fn value(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    lines.find(|(name, _)| *name == key)?.1.parse().ok()
}

/// The directories in `parent` with such names.
fn names_in(parent: &OwnedFd, is_such: impl Fn(&str) -> bool) -> Result<Vec<String>, Errno> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(parent)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type() == FileType::Directory && is_such(&name) {
            names.push(name);
        }
    }
    Ok(names)
}

/// Removes what runs that were killed have left in `parent`.
fn sweep(parent: &OwnedFd, wanted: &CgroupDir, version: CgroupVersion) {
    let names = match names_in(parent, |name| name.starts_with(PREFIX)) {
        Ok(names) => names,
        Err(error) => return debug!("look for left cgroups: {error}"),
    };
    for name in names {
        // Others may have taken, removed or own it; all of that is fine.
        let Ok(Some(left)) = Made::lock(parent, &name, wanted) else {
            continue;
        };
        match left.remove(version) {
            Ok(()) => debug!("removed the cgroup {} of a killed run", left.path.display()),
            Err(error) => debug!("remove the cgroup {}: {error}", left.path.display()),
        }
    }
}

/// Removes what the process `owner`, which has ended, has left of `plan`. What others
/// hold a lock of is looked at again for as long as `patience`.
pub(super) fn remove_left(plan: &CgroupPlan, owner: u32, patience: Duration) {
    let end = Instant::now() + patience;
    loop {
        let mut held = false;
        for wanted in &plan.dirs {
            match remove_left_in(wanted, plan.version, owner) {
                Ok(some) => held |= some,
                Err(error) => debug!("{}: {error}", wanted.parent.display()),
            }
        }
        let left = end.saturating_duration_since(Instant::now());
        if !held || left.is_zero() {
            return;
        }
        if let Err(error) = poll(&mut [], MOMENT.min(left)) {
            return debug!("wait for who holds a cgroup: {error}");
        }
    }
}

/// As [`remove_left`], in one place; whether there is something that others hold.
fn remove_left_in(wanted: &CgroupDir, version: CgroupVersion, owner: u32) -> io::Result<bool> {
    let parent = open_dir(rustix::fs::CWD, &wanted.parent)?;
    let mut names = names_in(&parent, |name| is_of(name, owner))?;
    // Where we are ourselves can go when the container's is gone.
    names.sort_by_key(|name| name.contains(ASIDE));
    let mut held = false;
    for name in names {
        let Some(made) = Made::lock(&parent, &name, wanted)? else {
            held = true;
            continue;
        };
        let removed = if name.contains(ASIDE) {
            let enabled = wanted.enable.clone();
            Aside { made, enabled }.come_back()
        } else {
            made.remove(version)
        };
        if let Err(error) = removed {
            warn!(
                "remove the cgroup {}: {error}",
                wanted.parent.join(&name).display()
            );
        }
    }
    Ok(held)
}

/// Whether a name is one that the process `owner` gives.
fn is_of(name: &str, owner: u32) -> bool {
    let id = name.strip_prefix(PREFIX);
    let rest = id.and_then(|id| id.strip_prefix(&owner.to_string()));
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
}

impl Made {
    /// Makes a directory under a name that is free.
    fn new(parent: &OwnedFd, wanted: &CgroupDir, suffix: &str) -> Result<Self, Error> {
        let id = format!("{}{suffix}", std::process::id());
        let failed = |name: &str, error: Errno| Error::Cgroup {
            step: "make the cgroup",
            path: wanted.parent.join(name),
            source: error.into(),
        };
        let mut name = format!("{PREFIX}{id}");
        for number in 2..=NAMES {
            match rustix::fs::mkdirat(parent, &name, Mode::from_raw_mode(0o755)) {
                Ok(()) => {
                    let locked = Self::lock(parent, &name, wanted);
                    if let Some(made) = locked.map_err(|error| failed(&name, error))? {
                        return Ok(made);
                    }
                    // Somebody who sweeps was quicker, and has removed it.
                }
                Err(Errno::EXIST) => {}
                Err(error) => return Err(failed(&name, error)),
            }
            name = format!("{PREFIX}{id}-{number}");
        }
        Err(failed(&name, Errno::EXIST))
    }

    /// Opens a directory and takes its lock; `None` where that is somebody else's, or
    /// the directory is gone.
    fn lock(parent: &OwnedFd, name: &str, wanted: &CgroupDir) -> Result<Option<Self>, Errno> {
        let dir = match open_dir(parent, name) {
            Err(Errno::NOENT) => return Ok(None),
            dir => dir?,
        };
        match rustix::fs::flock(&dir, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => return Ok(None),
            locked => locked?,
        }
        // It may have been removed between the two, and made again.
        let there = match rustix::fs::statat(parent, name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            there => there?,
        };
        if there.st_ino != rustix::fs::fstat(&dir)?.st_ino {
            return Ok(None);
        }
        Ok(Some(Self {
            parent: rustix::io::fcntl_dupfd_cloexec(parent, 0)?,
            path: wanted.parent.join(name),
            name: name.to_owned(),
            dir,
        }))
    }

    fn failed(&self, step: &'static str, file: &str, error: Errno) -> Error {
        Error::Cgroup {
            step,
            path: self.path.join(file),
            source: error.into(),
        }
    }

    fn write(&self, name: &str, value: &str) -> Result<(), Errno> {
        write(&self.dir, name, value)
    }

    /// Puts a process into it.
    fn enter(&self, pid: Pid) -> Result<(), Error> {
        self.write(PROCS, &pid.as_raw_nonzero().to_string())
            .map_err(|error| self.failed("put a process into the cgroup", PROCS, error))
    }

    /// Sets a limit.
    fn set(&self, file: &CgroupFile) -> Result<(), Error> {
        let mut missing = None;
        for (name, value) in &file.choices {
            match self.write(name, value) {
                Ok(()) => return Ok(()),
                Err(Errno::NOENT) => missing = Some(*name),
                Err(error) => return Err(self.failed(file.option, name, error)),
            }
        }
        match missing {
            Some(name) if !file.optional => Err(self.failed(file.option, name, Errno::NOENT)),
            _ => Ok(()),
        }
    }

    /// How many processes the lack of memory has killed, and whether it was for the limit
    /// of this cgroup; `None` where it does not count memory.
    fn oom(&self, version: CgroupVersion) -> Option<(u64, bool)> {
        let file = |name| read(&self.dir, name).ok();
        match version {
            CgroupVersion::V2 => {
                let events = file("memory.events")?;
                Some((value(&events, "oom_kill")?, value(&events, "oom")? > 0))
            }
            CgroupVersion::V1 => {
                let killed = value(&file("memory.oom_control")?, "oom_kill")?;
                let failed = ["memory.failcnt", "memory.memsw.failcnt"]
                    .iter()
                    .any(|name| file(name).is_some_and(|count| count.trim() != "0"));
                Some((killed, failed))
            }
        }
    }

    fn kill(&self, version: CgroupVersion) -> io::Result<()> {
        // Since Linux 5.14, and of the whole tree below.
        if version == CgroupVersion::V2 && self.write("cgroup.kill", "1").is_ok() {
            return Ok(());
        }
        self.processes().map(drop)
    }

    /// Kills those that are in it and returns them.
    fn processes(&self) -> io::Result<Vec<OwnedFd>> {
        let list = || read(&self.dir, PROCS);
        let pids = list()?;
        let pids = pids
            .lines()
            .filter_map(|line| Pid::from_raw(line.parse().ok()?));
        // Held first: with the second list what is held is what is in it.
        let held: Vec<(Pid, OwnedFd)> = pids
            .filter_map(|pid| {
                let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty());
                Some((pid, pidfd.ok()?))
            })
            .collect();
        let now = list()?;
        let is_in = |pid: &Pid| {
            let pid = pid.as_raw_nonzero().to_string();
            now.lines().any(|line| line == pid)
        };
        let killed = held.into_iter().filter(|(pid, _)| is_in(pid));
        Ok(killed
            .filter_map(|(_, pidfd)| {
                // One that has ended meanwhile is as good.
                rustix::process::pidfd_send_signal(&pidfd, Signal::KILL).ok()?;
                Some(pidfd)
            })
            .collect())
    }

    /// Removes it with what is below it.
    fn remove(&self, version: CgroupVersion) -> io::Result<()> {
        let end = Instant::now() + PATIENCE;
        loop {
            match tree::remove(&self.parent, &self.name, end) {
                Ok(()) => return Ok(()),
                Err(Errno::BUSY) if Instant::now() < end => {}
                Err(error) => return Err(error.into()),
            }
            match self.wait_until_empty(version, end) {
                // Vanished, as it should.
                Err(error) if is_gone(&error) => {}
                waited => waited?,
            }
        }
    }

    /// Kills what is in it and waits for its end, or for a part of it.
    fn wait_until_empty(&self, version: CgroupVersion, end: Instant) -> io::Result<()> {
        let left = end.saturating_duration_since(Instant::now());
        match version {
            CgroupVersion::V2 => {
                // Before it is read, so that no change is missed.
                let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let events = rustix::fs::openat(&self.dir, "cgroup.events", flags, Mode::empty())?;
                self.kill(version)?;
                let mut text = [0; 256];
                let length = rustix::io::pread(&events, &mut text, 0)?;
                let text = String::from_utf8_lossy(text.get(..length).unwrap_or_default());
                if value(&text, "populated") == Some(0) {
                    return Ok(());
                }
                poll(&mut [PollFd::new(&events, PollFlags::PRI)], left)
            }
            CgroupVersion::V1 => {
                let killed = self.processes()?;
                for pidfd in &killed {
                    let left = end.saturating_duration_since(Instant::now());
                    poll(&mut [PollFd::new(pidfd, PollFlags::IN)], left)?;
                }
                if killed.is_empty() {
                    // A process that has ended is not listed, but may not have been taken
                    // off the cgroup yet, for which there is no event here.
                    poll(&mut [], MOMENT.min(left))?;
                }
                Ok(())
            }
        }
    }
}

fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

fn poll(fds: &mut [PollFd<'_>], limit: Duration) -> io::Result<()> {
    let limit = Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: limit.subsec_nanos().into(),
    };
    match rustix::event::poll(fds, Some(&limit)) {
        Ok(_) | Err(Errno::INTR) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_named_after_the_owner_is_inherited() {
        for name in ["crun-lite-12", "crun-lite-12-2", "crun-lite-12-runtime"] {
            assert!(is_of(name, 12), "{name}");
        }
        for name in [
            "crun-lite-123",
            "crun-lite-1",
            "crun-lite-",
            "12",
            "cell-12",
        ] {
            assert!(!is_of(name, 12), "{name}");
        }
    }
}
