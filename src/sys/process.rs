//! Making and leaving processes: clone3(2) and _exit(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::process::Pid;

/// `CLONE_INTO_CGROUP`, which the C library's headers give as a signed number.
const INTO_CGROUP: u64 = 0x2_0000_0000;

/// Flags of clone3(2) for the namespaces and options that crun-lite uses.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CloneFlags(u64);

impl CloneFlags {
    /// A plain fork(2).
    pub const NONE: Self = Self(0);
    /// user_namespaces(7)
    pub const NEWUSER: Self = Self(libc::CLONE_NEWUSER as u64);
    /// mount_namespaces(7)
    pub const NEWNS: Self = Self(libc::CLONE_NEWNS as u64);
    /// pid_namespaces(7)
    pub const NEWPID: Self = Self(libc::CLONE_NEWPID as u64);
    /// uts_namespaces(7)
    pub const NEWUTS: Self = Self(libc::CLONE_NEWUTS as u64);
    /// ipc_namespaces(7)
    pub const NEWIPC: Self = Self(libc::CLONE_NEWIPC as u64);
    /// network_namespaces(7)
    pub const NEWNET: Self = Self(libc::CLONE_NEWNET as u64);
    /// cgroup_namespaces(7)
    pub const NEWCGROUP: Self = Self(libc::CLONE_NEWCGROUP as u64);

    /// Those of `self` that `other` has not.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// These flags and, where `condition` holds, `other`.
    #[must_use]
    pub const fn with(self, other: Self, condition: bool) -> Self {
        if condition {
            Self(self.0 | other.0)
        } else {
            self
        }
    }
}

/// Which side of [`fork`] this is.
#[derive(Debug)]
pub enum Forked {
    /// The new process.
    Child,
    /// The caller; the child is a zombie until it is waited for.
    Parent(Child),
}

/// A child, as its parent holds it.
#[derive(Debug)]
pub struct Child {
    /// Its number in the caller's PID namespace.
    pub pid: Pid,
    /// Refers to it for good, whatever becomes of its number (pidfd_open(2)).
    pub pidfd: OwnedFd,
}

/// Forks with clone3(2): a copy-on-write child with exit signal `SIGCHLD`, in
/// the new namespaces that `flags` names and in the cgroup (v2) whose directory
/// `cgroup` is, else in the caller's.
///
/// # Errors
/// Those of clone3(2), and `EDEADLK` when the caller has other threads: their
/// locks would stay locked in the child for ever.
pub fn fork(flags: CloneFlags, cgroup: Option<BorrowedFd<'_>>) -> io::Result<Forked> {
    if !single_threaded() {
        return Err(io::Error::from_raw_os_error(libc::EDEADLK));
    }
    let mut pidfd: RawFd = -1;
    // SAFETY: clone_args is a struct of integers, for which zero is "not used".
    let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
    args.flags = flags.0 | libc::CLONE_PIDFD as u64;
    args.pidfd = std::ptr::from_mut(&mut pidfd) as u64;
    args.exit_signal = libc::SIGCHLD as u64;
    if let Some(cgroup) = cgroup {
        args.flags |= INTO_CGROUP;
        args.cgroup = u64::from(cgroup.as_raw_fd().unsigned_abs());
    }
    // SAFETY: `args` and `pidfd` outlive the call and the size is that of
    // `args`. Without CLONE_VM the child has a copy of the whole address space
    // and goes on on its copy of this stack, and there is no other thread whose
    // state could have been caught half-way (checked above).
    let pid = unsafe {
        libc::syscall(
            libc::SYS_clone3,
            &raw mut args,
            size_of::<libc::clone_args>(),
        )
    };
    match i32::try_from(pid) {
        Ok(0) => Ok(Forked::Child),
        Ok(pid) if pid > 0 => {
            // SAFETY: the kernel has just put this descriptor here for us.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pid = Pid::from_raw(pid).ok_or_else(|| io::Error::from_raw_os_error(libc::EIO))?;
            Ok(Forked::Parent(Child { pid, pidfd }))
        }
        _ => Err(io::Error::last_os_error()),
    }
}

/// Makes a cgroup namespace whose root is the cgroup that this process is in, and
/// enters it.
///
/// # Errors
/// Those of unshare(2).
pub fn unshare_cgroup_namespace() -> io::Result<()> {
    // SAFETY: integers only. A cgroup namespace is only looked at where paths of cgroups
    // are shown or mounted; nothing of this process's memory depends on it.
    match unsafe { libc::unshare(libc::CLONE_NEWCGROUP) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// fork(2) of a test's thread, by the C library, which puts its own locks in order in
/// the child. That must not use what another thread may have been about.
#[cfg(test)]
pub(crate) fn fork_beside_threads() -> io::Result<Option<Pid>> {
    // SAFETY: the child goes on on its copy of this stack; the only other thread is the
    // test library's, which waits for this one and holds no lock that the child takes.
    match unsafe { libc::fork() } {
        0 => Ok(None),
        pid if pid > 0 => Ok(Pid::from_raw(pid)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Ends the process at once: no destructor and no exit handler of the program
/// that it was forked from runs.
pub fn exit(code: u8) -> ! {
    // SAFETY: _exit(2) has no precondition and does not return.
    unsafe { libc::_exit(i32::from(code)) }
}

/// Ends the process with this code when it is dropped: where a build unwinds, a panic
/// in a forked child must not go on in the code of the process that it was forked from.
#[derive(Debug)]
pub struct ExitOnUnwind(pub u8);

impl Drop for ExitOnUnwind {
    fn drop(&mut self) {
        exit(self.0)
    }
}

/// Whether this is the only thread. unshare(2) with `CLONE_THREAD` does nothing,
/// but only for a process that has one: the kernel answers without a procfs.
fn single_threaded() -> bool {
    // SAFETY: integers only; with this flag alone nothing is unshared.
    let result = unsafe { libc::unshare(libc::CLONE_THREAD) };
    result == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
}
