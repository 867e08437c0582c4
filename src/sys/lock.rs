//! Locks on ranges of a file: fcntl(2), `F_OFD_SETLK`.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Takes an exclusive lock on `length` bytes from `start` on, which lasts as long as
/// the open file does. `file` has to be open for writing.
///
/// # Errors
/// `EAGAIN` where another open file has a lock on any of them.
pub fn lock_range(file: BorrowedFd<'_>, start: i64, length: i64) -> io::Result<()> {
    control(file, libc::F_OFD_SETLK, &mut range(start, length))
}

/// First byte and length of a lock that keeps [`lock_range`] from being granted, if
/// there is one. A length of 0 is up to the end, wherever that is.
///
/// # Errors
/// Those of fcntl(2).
pub fn find_lock(file: BorrowedFd<'_>, start: i64, length: i64) -> io::Result<Option<(i64, i64)>> {
    let mut lock = range(start, length);
    control(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok((i32::from(lock.l_type) != libc::F_UNLCK).then_some((lock.l_start, lock.l_len)))
}

fn range(start: i64, length: i64) -> libc::flock {
    // SAFETY: a struct of integers, for which zero is a value.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    // Constants of this type in the kernel's header and of a wider one in `libc`.
    lock.l_type = i16::try_from(libc::F_WRLCK).unwrap_or_default();
    lock.l_whence = i16::try_from(libc::SEEK_SET).unwrap_or_default();
    lock.l_start = start;
    lock.l_len = length;
    lock
}

fn control(file: BorrowedFd<'_>, command: i32, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor is borrowed for the call, and both commands take a
    // pointer to a `struct flock`, which `lock` is.
    match unsafe { libc::fcntl(file.as_raw_fd(), command, std::ptr::from_mut(lock)) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}
