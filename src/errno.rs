//! What an error of the kernel means for who goes on: the one place that says so.
//!
//! # Theory of operation
//!
//! A call that fails says something about the call, about what it was made for, or
//! about the descriptor. Only the last can be a reason to end more than that:
//! [`is_broken`]. All else ends a flow, which its ends are told of, or nothing:
//! [`remedy`] says when the same call may go well. What waits for readiness waits for
//! an edge of epoll(7), and no edge follows an error that is none of the descriptor's,
//! so that such a call has to be made again after [`PAUSE`].

use std::io;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::io::Errno;

/// When to try again what has failed for want of something that others may give back.
pub(crate) const PAUSE: Duration = Duration::from_millis(10);

/// Lets [`PAUSE`] go by; for a loop that cannot sleep otherwise.
pub(crate) fn pause() {
    let time = Timespec::try_from(PAUSE).unwrap_or_default();
    if let Err(error) = rustix::event::poll(&mut [], Some(&time)) {
        tracing::debug!("sleep: {error}");
    }
}

/// When a call that has failed may go well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Remedy {
    /// It was interrupted: at once.
    Now,
    /// It would block: after an event.
    Event,
    /// There is too little of something at present, which no event tells the end of.
    Later,
    /// What it was made for has failed.
    None,
}

/// When a call that has failed so may go well.
pub(crate) fn remedy(error: Errno) -> Remedy {
    match error {
        Errno::INTR => Remedy::Now,
        Errno::AGAIN => Remedy::Event,
        Errno::NOBUFS | Errno::NOMEM | Errno::MFILE | Errno::NFILE => Remedy::Later,
        _ => Remedy::None,
    }
}

/// As [`remedy`], of an error of the standard library's.
pub(crate) fn remedy_of(error: &io::Error) -> Remedy {
    Errno::from_io_error(error).map_or(Remedy::None, remedy)
}

/// Whether the descriptor itself is of no use any more, or never was: what stands on it
/// has to end.
pub(crate) fn is_broken(error: Errno) -> bool {
    matches!(
        error,
        // A TAP device whose interface is gone says the second.
        Errno::BADF
            | Errno::BADFD
            | Errno::FAULT
            | Errno::INVAL
            | Errno::IO
            | Errno::NETDOWN
            | Errno::NODEV
            | Errno::NOSYS
            | Errno::NXIO
    )
}
