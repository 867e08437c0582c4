//! What a container can leave behind, and who ends it.
//!
//! # Theory of operation
//! With a PID namespace of its own a container ends as a whole with its init. With
//! the host's it does not: orphans become children of the parent, a child subreaper,
//! once init is gone, and have to be found in procfs and killed. A parent that may
//! not read procfs any more has another process do that, which has been given the
//! [`Remains`] for it; to reap them is left to the parent.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use rustix::process::{Pid, Signal};
use rustix::time::Timespec;

use super::procfs::{self, Procfs};

/// How long init may take to end its descendants and itself when the parent is gone.
pub(super) const GRACE: Duration = Duration::from_millis(300);

/// Kills the children of this process but these, and all below them; returns the
/// children.
pub type EndChildren = Box<dyn Fn(&[Pid]) -> io::Result<Vec<Pid>>>;

/// Sends a signal to what has taken init's place, or to its process group.
pub type SendSignal = Box<dyn Fn(i32, bool) -> io::Result<()>>;

/// How the parent ends what has outlived init.
pub(super) enum Rest {
    /// Nothing can have.
    None,
    /// By itself.
    Here(Procfs),
    /// By another process.
    Asked(EndChildren),
}

impl std::fmt::Debug for Rest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Here(_) => "Here",
            Self::Asked(_) => "Asked",
        })
    }
}

/// How signals are sent to what has taken init's place.
pub(super) enum SendBy {
    /// By this process.
    Here,
    /// By another.
    Asked(SendSignal),
}

impl std::fmt::Debug for SendBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Here => "Here",
            Self::Asked(_) => "Asked",
        })
    }
}

impl Rest {
    /// Whether it is better to let init end what is below it: whoever could do that in
    /// its place may be gone.
    pub(super) fn needs_init(&self) -> bool {
        matches!(self, Self::Asked(_))
    }

    /// Kills and reaps all that is left but the children in `keep`.
    pub(super) fn end(&self, keep: &[Pid]) -> io::Result<()> {
        match self {
            Self::None => Ok(()),
            Self::Here(procfs) => procfs.kill_descendants(keep),
            Self::Asked(ask) => loop {
                let children = ask(keep)?;
                if children.is_empty() {
                    return Ok(());
                }
                procfs::reap(&children);
            },
        }
    }
}

/// A container, for a process that ends what its parent cannot.
#[derive(Debug)]
pub struct Remains {
    pub(super) init: OwnedFd,
    pub(super) init_pid: Pid,
    /// With the host's PID namespace.
    pub(super) procfs: Option<Procfs>,
}

impl Remains {
    /// Descriptors that it needs.
    pub fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let procfs = self.procfs.as_ref().map(AsFd::as_fd);
        [self.init.as_fd()].into_iter().chain(procfs).collect()
    }

    /// Kills the children of `parent` but these, and all below them; returns the
    /// children.
    ///
    /// # Errors
    /// procfs cannot be read.
    pub fn end_children(&self, parent: Pid, but: &[Pid]) -> io::Result<Vec<Pid>> {
        match &self.procfs {
            Some(procfs) => match procfs.kill_children_of(parent, but) {
                // Some hosts hide processes, and with them a parent that is not dumpable
                // (proc(5), hidepid=). Init has ended what was below it, unless it was
                // killed.
                Err(error) if is_hidden(&error) => {
                    tracing::warn!("cannot look for what the container leaves behind: {error}");
                    Ok(Vec::new())
                }
                killed => killed,
            },
            None => Ok(Vec::new()),
        }
    }

    /// Sends a signal to what has taken init's place, which its parent has not reaped.
    ///
    /// # Errors
    /// The kernel's.
    pub fn signal(&self, signal: i32, group: bool) -> io::Result<()> {
        crate::sys::signal::kill(self.init_pid, signal, group)
    }

    /// Ends the container, whose parent is gone.
    ///
    /// # Errors
    /// It cannot be killed.
    pub fn end(&self) -> io::Result<()> {
        if let Some(procfs) = &self.procfs {
            // The lifeline has told init, and only while it lives can what is below it
            // be found.
            if wait_for(&self.init, GRACE)? {
                return Ok(());
            }
            procfs.kill_all(&[self.init_pid]);
        }
        match rustix::process::pidfd_send_signal(&self.init, Signal::KILL) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

fn is_hidden(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied
    )
}

/// Whether the process of `pidfd` ends within `limit`. Signals that interrupt are to be
/// blocked.
pub(super) fn wait_for(pidfd: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let limit = Timespec::try_from(limit).map_err(|_| Errno::INVAL)?;
    let mut fds = [PollFd::new(pidfd, PollFlags::IN)];
    Ok(rustix::event::poll(&mut fds, Some(&limit))? > 0)
}
