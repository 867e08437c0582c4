//! Sockets that whoever started us has bound for us (sd_listen_fds(3)).

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::io::FdFlags;

/// The first of them (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// More than anybody passes; the variable is not trusted further.
const MOST: RawFd = 65_536;
/// What says that they are there, and for whom.
const VARIABLES: [&str; 3] = ["LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"];

/// Whether a variable of the environment is about them: nobody else is to see it.
pub fn is_about(name: &OsStr) -> bool {
    VARIABLES.iter().any(|variable| name == *variable)
}

static TAKEN: AtomicBool = AtomicBool::new(false);

/// Takes over the descriptors that are meant for this process, none unless there
/// are some, and removes the variables that say so. They are closed by execve(2)
/// from then on. To be called at the start, while there is one thread and nothing
/// else has been opened; from the second time on there are none.
///
/// # Errors
/// One that is announced is not open.
pub fn take() -> io::Result<Vec<OwnedFd>> {
    if TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let number = |name: &str| env::var(name).ok()?.parse::<RawFd>().ok();
    let ours = number("LISTEN_PID") == Some(rustix::process::getpid().as_raw_nonzero().get());
    let count = number("LISTEN_FDS").filter(|count| ours && (1..=MOST).contains(count));
    for name in VARIABLES {
        // SAFETY: there is one thread, as the contract demands, so nobody reads
        // the environment meanwhile.
        unsafe { env::remove_var(name) };
    }
    let mut taken = Vec::new();
    for fd in FIRST..FIRST + count.unwrap_or(0) {
        // SAFETY: fcntl(2) on a number; that it is open is what is asked.
        if unsafe { libc::fcntl(fd, libc::F_GETFD) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: it is open, and by the protocol it has been passed to us, once,
        // for nothing else had been opened before; `TAKEN` sees to the once.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        rustix::io::fcntl_setfd(&fd, FdFlags::CLOEXEC)?;
        taken.push(fd);
    }
    Ok(taken)
}
