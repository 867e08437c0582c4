//! A child in namespaces of its own, which tries something, says what came of it, and
//! ends. Nothing that it does outlives it.

use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::Error;
use crate::ns::idmap::{self, Maps};
use crate::sys::process::{Child, CloneFlags, Forked, exit, fork};

/// How long it may take.
const LIMIT: Duration = Duration::from_secs(10);

/// What a child said, and whether its id maps could be written.
pub(super) struct Said<T> {
    pub(super) answer: io::Result<T>,
    pub(super) maps: Result<(), Error>,
}

/// Calls `attempt` in a child in new namespaces, with these id maps.
///
/// # Errors
/// The namespaces could not be made.
pub(super) fn in_namespaces<T: Serialize + DeserializeOwned>(
    namespaces: CloneFlags,
    maps: Option<&Maps>,
    attempt: impl FnOnce() -> T,
) -> io::Result<Said<T>> {
    let (go, say_go) = pipe_with(PipeFlags::CLOEXEC)?;
    let (answer, give_answer) = pipe_with(PipeFlags::CLOEXEC)?;
    let child = match fork(namespaces, None)? {
        Forked::Child => {
            drop((say_go, answer));
            exit(u8::from(serve(go, give_answer, attempt).is_err()))
        }
        Forked::Parent(child) => child,
    };
    drop((go, give_answer));
    let maps = maps.map_or(Ok(()), |maps| idmap::write(child.pid, maps));
    let told = rustix::io::write(&say_go, b"g");
    let answer = told.map_err(io::Error::from).and_then(|_| read(answer));
    end(&child);
    Ok(Said {
        answer: answer.and_then(|text| Ok(serde_json::from_slice(&text)?)),
        maps,
    })
}

/// The child: the end of `go` without a word is that of the parent.
fn serve<T: Serialize>(
    go: OwnedFd,
    answer: OwnedFd,
    attempt: impl FnOnce() -> T,
) -> io::Result<()> {
    std::fs::File::from(go).read_exact(&mut [0])?;
    let text = serde_json::to_vec(&attempt())?;
    std::fs::File::from(answer).write_all(&text)
}

/// Everything up to the end of file.
fn read(answer: OwnedFd) -> io::Result<Vec<u8>> {
    let deadline = Instant::now() + LIMIT;
    let mut text = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).map_err(|_| io::ErrorKind::TimedOut)?;
        match rustix::event::poll(&mut [PollFd::new(&answer, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        match rustix::io::read(&answer, &mut buffer) {
            Ok(0) => return Ok(text),
            Ok(count) => text.extend(buffer.iter().take(count)),
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// It has ended by itself, unless something keeps it.
fn end(child: &Child) {
    use std::os::fd::AsFd;
    // Both fail where there is nothing left to end.
    let _ = rustix::process::pidfd_send_signal(&child.pidfd, Signal::KILL);
    let _ = rustix::io::retry_on_intr(|| {
        rustix::process::waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED)
    });
}
