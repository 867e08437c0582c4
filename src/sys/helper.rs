//! Helpers: children that are forked to outlive what happens to their parent.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::process::DumpableBehavior;
use tracing::debug;

use super::process::{CloneFlags, Forked, fork};
use super::signal::{self, SignalSet};
use super::{args, fd};

/// Forks. The child has all signals blocked: one that was delivered to it before it has
/// its own mask would be its parent's.
///
/// # Errors
/// Those of clone3(2) and sigprocmask(2).
pub fn fork_helper() -> io::Result<Forked> {
    let mask = signal::set_mask(SignalSet::ALL)?;
    let forked = fork(CloneFlags::NONE, None);
    if !matches!(forked, Ok(Forked::Child)) {
        signal::set_mask(mask)?;
    }
    forked
}

/// In the child: lets go of all that is its parent's but `kept`, of which the first takes
/// the place of standard input and output. It is in a session of its own, no signal but
/// SIGKILL ends it, nobody can look into it, and it is called `name` (at most 15 bytes),
/// with `title` as its command line.
///
/// # Errors
/// The kernel's. The process is not to go on.
pub fn stand_apart(kept: &[BorrowedFd<'_>], name: &CStr, title: &str) -> io::Result<()> {
    fd::close_all_but(kept)?;
    // Whoever waits for the end of the run's output does not wait for this process.
    if let Some(first) = kept.first() {
        rustix::stdio::dup2_stdin(first.as_fd())?;
        rustix::stdio::dup2_stdout(first.as_fd())?;
    }
    rustix::process::setsid()?;
    signal::reset_dispositions();
    signal::set_mask(SignalSet::ALL)?;
    // Its memory is the parent's, and with --pid=host the container can see it.
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)?;
    rustix::thread::set_no_new_privs(true)?;
    rustix::thread::set_name(name)?;
    // The parent's command line holds the user's options.
    if let Err(error) = args::replace(title) {
        debug!("{title} shows the command line that it was started with: {error}");
    }
    Ok(())
}
