//! Signals: sets, masks, dispositions and signalfd(2).

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// The highest signal number of Linux (`_NSIG`).
pub const MAX_SIGNAL: i32 = 64;

/// `SI_KERNEL` (sigaction(2)): the terminal driver sent it, not a process.
const SI_KERNEL: i32 = 0x80;

/// A set of signals (sigsetops(3)). Bit n-1 stands for signal n, as in the
/// kernel's own `sigset_t`, so that the C library's reserved real-time signals
/// are signals like all others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignalSet(u64);

impl SignalSet {
    /// No signal.
    pub const EMPTY: Self = Self(0);
    /// Every signal; the kernel leaves `SIGKILL` and `SIGSTOP` out.
    pub const ALL: Self = Self(u64::MAX);

    /// This set without `signal`.
    #[must_use]
    pub const fn without(self, signal: i32) -> Self {
        Self(self.0 & !bit(signal))
    }

    /// This set and `signal`.
    #[must_use]
    pub const fn with(self, signal: i32) -> Self {
        Self(self.0 | bit(signal))
    }

    /// Whether `signal` is in it.
    pub const fn contains(self, signal: i32) -> bool {
        self.0 & bit(signal) != 0
    }
}

const fn bit(signal: i32) -> u64 {
    if signal >= 1 && signal <= MAX_SIGNAL {
        1 << (signal - 1)
    } else {
        0
    }
}

/// Makes `set` the signals that are blocked; returns those that were.
pub fn set_mask(set: SignalSet) -> io::Result<SignalSet> {
    let mut old = 0_u64;
    // SAFETY: both pointers are to live sets of the size given, that of the
    // kernel's sigset_t (rt_sigprocmask(2)).
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const set.0,
            &raw mut old,
            size_of::<u64>(),
        )
    };
    if result == 0 {
        Ok(SignalSet(old))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Whether `signal` is ignored.
pub fn is_ignored(signal: i32) -> io::Result<bool> {
    // As in reset_disposition(): the first word is the handler.
    let mut action = [0_usize; 8];
    let new = std::ptr::null::<usize>();
    // SAFETY: `action` is at least as long as the kernel's struct sigaction; a
    // null new one changes nothing.
    match unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            new,
            action.as_mut_ptr(),
            size_of::<u64>(),
        )
    } {
        0 => Ok(action.first() == Some(&libc::SIG_IGN)),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives every signal its default disposition. What is ignored stays ignored
/// across execve(2): Rust ignores `SIGPIPE`, and whatever started this program
/// may have ignored any other, the C library's own two included.
pub fn reset_dispositions() {
    for signal in 1..=MAX_SIGNAL {
        // Refused for SIGKILL and SIGSTOP, whose disposition is always this.
        let _ = reset_disposition(signal);
    }
}

/// Gives `signal` its default disposition.
pub fn reset_disposition(signal: i32) -> io::Result<()> {
    // Of the layout that the kernel has (handler, flags, restorer, mask), nothing
    // but zeroes: SIG_DFL, no flags, an empty mask. Longer than on any
    // architecture. The C library's own function would refuse its two signals.
    let action = [0_usize; 8];
    let old = std::ptr::null_mut::<usize>();
    // SAFETY: `action` is at least as long as the kernel's struct sigaction, and
    // the default action is no handler, so there is nothing to keep valid.
    match unsafe {
        libc::syscall(
            libc::SYS_rt_sigaction,
            signal,
            action.as_ptr(),
            old,
            size_of::<u64>(),
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends `signal` to the process that `pidfd` refers to.
pub fn send(pidfd: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let info = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: a null info makes it a plain kill(2); the rest are integers.
    match unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            info,
            0,
        )
    } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends `signal` to the process `pid`, or to its process group: to itself as long as it
/// has not made one.
pub fn kill(pid: rustix::process::Pid, signal: i32, group: bool) -> io::Result<()> {
    let pid = pid.as_raw_nonzero().get();
    match by_number(if group { -pid } else { pid }, signal) {
        Err(error) if group && error.raw_os_error() == Some(libc::ESRCH) => by_number(pid, signal),
        sent => sent,
    }
}

/// kill(2)
fn by_number(to: libc::pid_t, signal: i32) -> io::Result<()> {
    // SAFETY: integers only.
    match unsafe { libc::kill(to, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends `signal` to this process, `own`, which has one thread (tgkill(2)).
pub fn raise(own: rustix::process::Pid, signal: i32) -> io::Result<()> {
    let own = own.as_raw_nonzero().get();
    // SAFETY: integers only.
    match unsafe { libc::syscall(libc::SYS_tgkill, own, own, signal) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// One signal as a signalfd reports it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Its number.
    pub signal: i32,
    /// The terminal driver sent it (a key, a hang-up), so it was meant for the
    /// whole foreground process group.
    pub from_terminal: bool,
}

/// A descriptor that blocked signals are read from (signalfd(2)).
#[derive(Debug)]
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Reports the signals in `set`, which must be blocked. Never waits.
    pub fn new(set: SignalSet) -> io::Result<Self> {
        let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
        // SAFETY: the pointer is to a live set of the size given, that of the
        // kernel's sigset_t; -1 asks for a new descriptor.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_signalfd4,
                -1,
                &raw const set.0,
                size_of::<u64>(),
                flags,
            )
        };
        let fd = i32::try_from(fd).map_err(|_| io::Error::from_raw_os_error(libc::EBADF))?;
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just made this descriptor for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Takes the next pending signal.
    pub fn next(&self) -> io::Result<Option<Received>> {
        let mut info = MaybeUninit::<libc::signalfd_siginfo>::uninit();
        let size = size_of::<libc::signalfd_siginfo>();
        // SAFETY: the buffer is of the size given.
        let read = unsafe { libc::read(self.0.as_raw_fd(), info.as_mut_ptr().cast(), size) };
        if usize::try_from(read) == Ok(size) {
            // SAFETY: the kernel has filled in the whole structure.
            let info = unsafe { info.assume_init() };
            let signal = i32::try_from(info.ssi_signo).unwrap_or(0);
            return Ok(Some(Received {
                signal,
                from_terminal: info.ssi_code == SI_KERNEL,
            }));
        }
        let error = io::Error::last_os_error();
        match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        }
    }
}

impl std::os::fd::AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        std::os::fd::AsFd::as_fd(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A child that has not come to make a group of its own yet.
    #[test]
    fn a_group_that_is_none_yet() {
        let mut child = std::process::Command::new("sleep")
            .arg("1000")
            .spawn()
            .unwrap();
        kill(
            rustix::process::Pid::from_child(&child),
            libc::SIGTERM,
            true,
        )
        .unwrap();
        let status = child.wait().unwrap();
        assert_eq!(
            std::os::unix::process::ExitStatusExt::signal(&status),
            Some(libc::SIGTERM)
        );
    }

    #[test]
    fn sets_count_as_the_kernel_does() {
        let set = SignalSet::EMPTY.with(libc::SIGTERM).with(MAX_SIGNAL);
        assert_eq!(set.0, 1 << 14 | 1 << 63);
        assert!(set.contains(libc::SIGTERM) && !set.contains(libc::SIGHUP));
        assert!(!set.without(MAX_SIGNAL).contains(MAX_SIGNAL));
        assert!(!SignalSet::ALL.contains(0) && !SignalSet::ALL.contains(65));
    }
}
