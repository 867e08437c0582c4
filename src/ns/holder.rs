//! A user namespace that nobody lives in: a map for idmapped mounts.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};

use rustix::process::{Signal, WaitId, WaitIdOptions};

use super::idmap::{self, Maps};
use crate::error::Error;
use crate::sys::process::{CloneFlags, Forked, exit, fork};
use crate::sys::signal;

/// Makes a user namespace with these maps, and gives what refers to it. The process
/// that it is made with ends before this returns.
///
/// # Errors
/// Those of clone3(2), and of writing the maps.
pub fn user_namespace(maps: &Maps) -> Result<OwnedFd, Error> {
    let fail = |error: std::io::Error| Error::host("make a user namespace for id maps", error);
    // Where the caller ignores SIGCHLD, the kernel would reap the child unseen.
    signal::reset_disposition(libc::SIGCHLD).map_err(fail)?;
    let (waits, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|error| fail(error.into()))?;
    let child = match fork(CloneFlags::NONE.with(CloneFlags::NEWUSER, true), None).map_err(fail)? {
        Forked::Child => {
            drop(writer);
            // Until the parent is done, or gone. Nothing is ever written.
            let _ = rustix::io::retry_on_intr(|| rustix::io::read(&waits, &mut [0; 1]));
            exit(0)
        }
        Forked::Parent(child) => child,
    };
    let made = idmap::write(child.pid, maps).and_then(|()| {
        let path = format!("/proc/{}/ns/user", child.pid.as_raw_nonzero());
        File::open(path).map(OwnedFd::from).map_err(fail)
    });
    // Whatever has become of it, the child is not left behind.
    let ended = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL).and_then(|()| {
        rustix::io::retry_on_intr(|| {
            rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)
        })
    });
    ended.map_err(|error| fail(error.into()))?;
    made
}
