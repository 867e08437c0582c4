//! Descriptors as a range: close_range(2).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// First descriptor after standard input, output and error.
const AFTER_STDIO: u32 = 3;

/// Closes every descriptor from 3 up but those in `keep`.
///
/// For a freshly forked child only: the objects that owned the others were
/// copied by the fork, and this process must never use or drop them.
pub fn close_all_but(keep: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut kept: Vec<u32> = keep
        .iter()
        .filter_map(|fd| u32::try_from(fd.as_raw_fd()).ok())
        .collect();
    kept.sort_unstable();
    let mut first = AFTER_STDIO;
    for fd in kept {
        if fd < AFTER_STDIO {
            continue;
        }
        if fd > first {
            close_range(first, fd - 1, 0)?;
        }
        first = fd + 1;
    }
    close_range(first, u32::MAX, 0)
}

/// Marks every descriptor from 3 up to be closed by execve(2).
pub fn close_all_on_exec() -> io::Result<()> {
    close_range(AFTER_STDIO, u32::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range(first: u32, last: u32, flags: u32) -> io::Result<()> {
    // SAFETY: integers only. Closing descriptors behind their owners' backs is
    // what the callers are for; see their contracts.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
