//! The heir: a process that removes a cgroup whose owner was killed.
//!
//! # Theory of operation
//! Nobody can remove the cgroup that it is in, and a process that is killed removes
//! nothing. So a run with limits forks, before it makes any cgroup, a child that holds the
//! read end of a pipe whose only writer is the run, and sleeps. A byte on the pipe says
//! that the run has come to its end by itself: what is left then, if anything, is of a
//! keeper that has been killed. The end of the pipe without one says that the run was
//! killed. Either way the heir removes what is named after the run and locked by nobody,
//! and ends; after a byte it looks once and the run waits for it.
//!
//! It holds no descriptor but the pipe's and standard error, and is told nothing else, so
//! that nobody can have it remove anything else. If it is killed itself, nobody misses it:
//! the run, or its keeper, removes the cgroup as ever. If all are killed at the same
//! moment, the next run with limits does.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{Pid, WaitId, WaitIdOptions};
use tracing::{debug, error, warn};

use super::handle;
use crate::error::EXIT_RUNTIME;
use crate::plan::CgroupPlan;
use crate::sys;
use crate::sys::helper::{fork_helper, stand_apart};
use crate::sys::process::{Child, ExitOnUnwind, Forked};

/// How long others that hold a lock of the killed run may take to let go: its keeper,
/// which removes the cgroup itself, and init, which is about to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// The heir as the run holds it. Dropping it lets it look at what is left, and waits for
/// its end; to be done when the [`Cgroup`](super::Cgroup) is gone.
#[derive(Debug)]
pub struct Heir {
    child: Child,
    writer: OwnedFd,
}

impl Heir {
    /// Forks the heir of what will be made for `plan`.
    ///
    /// # Errors
    /// Those of fork(2) and pipe(2).
    pub fn start(plan: &CgroupPlan) -> io::Result<Self> {
        let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let owner = std::process::id();
        let child = match fork_helper()? {
            Forked::Child => run(plan, owner, &reader),
            Forked::Parent(child) => child,
        };
        debug!(
            pid = child.pid.as_raw_nonzero().get(),
            "forked the heir of the cgroup"
        );
        Ok(Self { child, writer })
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        self.child.pid
    }
}

impl Drop for Heir {
    fn drop(&mut self) {
        // Where it is gone already that is seen next.
        if let Err(error) = rustix::io::write(&self.writer, b"e") {
            debug!("tell the heir of the cgroup: {error}");
        }
        let waited = rustix::io::retry_on_intr(|| {
            let pidfd = WaitId::PidFd(self.child.pidfd.as_fd());
            rustix::process::waitid(pidfd, WaitIdOptions::EXITED)
        });
        match waited {
            // It has been reaped with what the container has left behind.
            Ok(_) | Err(Errno::CHILD) => {}
            Err(error) => warn!("wait for the heir of the cgroup: {error}"),
        }
    }
}

/// The life of the heir; never returns into what it was forked from.
fn run(plan: &CgroupPlan, owner: u32, reader: &OwnedFd) -> ! {
    let _guard = ExitOnUnwind(EXIT_RUNTIME);
    // The writer above all is let go of.
    let apart = stand_apart(&[reader.as_fd()], c"crun-lite-heir", "crun-lite heir");
    let patience = match apart.and_then(|()| was_orderly(reader)) {
        Ok(true) => Duration::ZERO,
        Ok(false) => PATIENCE,
        Err(error) => {
            error!("the heir of the cgroup: {error}");
            sys::process::exit(EXIT_RUNTIME)
        }
    };
    handle::remove_left(plan, owner, patience);
    sys::process::exit(0)
}

/// Waits for the end of the run; whether it came by itself.
fn was_orderly(reader: &OwnedFd) -> io::Result<bool> {
    let mut byte = [0];
    let length = rustix::io::retry_on_intr(|| rustix::io::read(reader, &mut byte))?;
    Ok(length > 0)
}
