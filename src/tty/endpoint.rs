//! One of the caller's standard streams, read or written without ever waiting.
//!
//! # Theory of operation
//! `O_NONBLOCK` belongs to the open file description, which the caller's shell
//! and its other children share: setting it there would break them, and stay set
//! should this process be killed. So a terminal or pipe is opened anew through
//! `/proc/self/fd`, which gives a description of our own. A regular file never
//! waits, and must not be opened anew: its offset is the caller's too. A socket
//! is told per call (`MSG_DONTWAIT`). What is left is asked with poll(2) before
//! each call, with writes so small that a pipe which is ready takes them whole.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvAncillaryBuffer, RecvFlags, SendAncillaryBuffer, SendFlags};
use rustix::time::Timespec;

/// A pipe that is ready takes this much at once (`PIPE_BUF`, pipe(7)).
const PIPE_BUF: usize = 4096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mechanism {
    /// The description is our own and has `O_NONBLOCK`.
    NonBlocking,
    /// `MSG_DONTWAIT`
    Socket,
    /// poll(2) first.
    PollFirst,
    /// Never waits.
    File,
}

/// Which way bytes go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    /// From the caller.
    Read,
    /// To the caller.
    Write,
}

/// A standard stream.
#[derive(Debug)]
pub(super) struct Endpoint {
    fd: OwnedFd,
    mechanism: Mechanism,
    direction: Direction,
    /// epoll(7) reports it; false for what is always ready.
    polled: bool,
    /// Another attempt is worth while. Edge-triggered: set by an event, cleared
    /// when the kernel says that it would have to wait.
    pub(super) ready: bool,
}

impl Endpoint {
    /// Wraps the stream `fd` of this process.
    pub(super) fn new(fd: BorrowedFd<'_>, direction: Direction) -> io::Result<Self> {
        let kind = FileType::from_raw_mode(rustix::fs::fstat(fd)?.st_mode);
        let reopened = match kind {
            FileType::CharacterDevice | FileType::Fifo => reopen(fd, direction).ok(),
            _ => None,
        };
        let mechanism = match (&reopened, kind) {
            (Some(_), _) => Mechanism::NonBlocking,
            (None, FileType::Socket) => Mechanism::Socket,
            (None, FileType::RegularFile) => Mechanism::File,
            (None, _) => Mechanism::PollFirst,
        };
        let fd = match reopened {
            Some(fd) => fd,
            None => rustix::io::fcntl_dupfd_cloexec(fd, 3)?,
        };
        Ok(Self {
            fd,
            mechanism,
            direction,
            polled: false,
            ready: true,
        })
    }

    /// Has `registry` report it as `token`. What epoll(7) refuses (`EPERM`:
    /// regular files, some devices) is always ready.
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let interest = match self.direction {
            Direction::Read => Interest::READABLE,
            Direction::Write => Interest::WRITABLE,
        };
        match registry.register(&mut SourceFd(&self.fd.as_raw_fd()), token, interest) {
            Ok(()) => self.polled = true,
            Err(error) if error.raw_os_error() == Some(libc::EPERM) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Takes it out of `registry` again.
    pub(super) fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        if std::mem::take(&mut self.polled) {
            registry.deregister(&mut SourceFd(&self.fd.as_raw_fd()))?;
        }
        Ok(())
    }

    /// Reads what is there; `None` where it would have to wait.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let result = match self.mechanism {
            Mechanism::Socket => rustix::net::recvmsg(
                &self.fd,
                &mut [IoSliceMut::new(buffer)],
                &mut RecvAncillaryBuffer::default(),
                RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC,
            )
            .map(|received| received.bytes),
            Mechanism::PollFirst if !self.poll(PollFlags::IN)? => Err(Errno::AGAIN),
            _ => rustix::io::read(&self.fd, buffer),
        };
        self.settle(result)
    }

    /// Writes what fits; `None` where it would have to wait.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<Option<usize>> {
        let result = match self.mechanism {
            Mechanism::Socket => rustix::net::sendmsg(
                &self.fd,
                &[IoSlice::new(bytes)],
                &mut SendAncillaryBuffer::default(),
                SendFlags::DONTWAIT | SendFlags::NOSIGNAL,
            ),
            Mechanism::PollFirst if !self.poll(PollFlags::OUT)? => Err(Errno::AGAIN),
            Mechanism::PollFirst => {
                rustix::io::write(&self.fd, bytes.get(..PIPE_BUF).unwrap_or(bytes))
            }
            _ => rustix::io::write(&self.fd, bytes),
        };
        self.settle(result)
    }

    fn settle(&mut self, result: Result<usize, Errno>) -> io::Result<Option<usize>> {
        match result {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN) => {
                self.ready = false;
                Ok(None)
            }
            // To be tried again at once.
            Err(Errno::INTR) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    fn poll(&self, flags: PollFlags) -> io::Result<bool> {
        let now = Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        };
        match rustix::event::poll(&mut [PollFd::new(&self.fd, flags)], Some(&now)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl AsFd for Endpoint {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn reopen(fd: BorrowedFd<'_>, direction: Direction) -> Result<OwnedFd, Errno> {
    let access = match direction {
        Direction::Read => OFlags::RDONLY,
        Direction::Write => OFlags::WRONLY,
    };
    let flags = access | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    rustix::fs::open(
        format!("/proc/self/fd/{}", fd.as_raw_fd()),
        flags,
        Mode::empty(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pipe_is_used_without_waiting_and_left_as_it_was() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut source = Endpoint::new(read.as_fd(), Direction::Read).unwrap();
        let mut sink = Endpoint::new(write.as_fd(), Direction::Write).unwrap();
        assert_eq!(source.read(&mut [0; 8]).unwrap(), None);
        assert!(!source.ready);
        let mut written = 0;
        while let Some(length) = sink.write(&[7; 10_000]).unwrap() {
            written += length;
        }
        assert!(written > 2 * PIPE_BUF && !sink.ready);
        assert_eq!(source.read(&mut [0; 8]).unwrap(), Some(8));
        for shared in [&read, &write] {
            assert!(
                !rustix::fs::fcntl_getfl(shared)
                    .unwrap()
                    .contains(OFlags::NONBLOCK)
            );
        }
        drop((write, sink));
        while source.read(&mut [0; 65536]).unwrap() != Some(0) {}
    }

    #[test]
    fn a_pipe_that_cannot_be_opened_anew_does_not_wait_either() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let endpoint = |fd, direction| Endpoint {
            fd,
            mechanism: Mechanism::PollFirst,
            direction,
            polled: false,
            ready: true,
        };
        let (mut source, mut sink) = (
            endpoint(read, Direction::Read),
            endpoint(write, Direction::Write),
        );
        assert_eq!(source.read(&mut [0; 8]).unwrap(), None);
        let mut written = 0;
        while let Some(length) = sink.write(&[7; 10_000]).unwrap() {
            written += length;
        }
        assert_eq!(written, 65536);
    }

    #[test]
    fn a_file_keeps_the_offset_that_the_caller_shares() {
        let path = std::env::temp_dir().join(format!("crun-lite-endpoint-{}", std::process::id()));
        std::fs::write(&path, "abcdef").unwrap();
        let mut file = std::fs::File::open(&path).unwrap();
        let mut source = Endpoint::new(file.as_fd(), Direction::Read).unwrap();
        assert_eq!(source.read(&mut [0; 4]).unwrap(), Some(4));
        assert_eq!(io::Seek::stream_position(&mut file).unwrap(), 4);
        let poll = mio::Poll::new().unwrap();
        source.register(poll.registry(), Token(1)).unwrap();
        assert!(!source.polled && source.ready);
        std::fs::remove_file(path).unwrap();
    }
}
