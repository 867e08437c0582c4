//! A socketpair for typed messages between two processes of ours.
//!
//! # Theory of operation
//! One `SOCK_SEQPACKET` socketpair: the kernel keeps the boundaries and the
//! order of messages, and shows the end of either side as end of file. A message
//! is a version byte, a kind byte and a body; descriptors ride along as
//! `SCM_RIGHTS` where its kind says so. Both ends are the same program, so the
//! version only differs where that has been broken (a binary replaced while a
//! container runs, once other commands connect), and is refused.
//!
//! What the messages are is the business of those who talk: `container::ipc`
//! (parent and init) and `keeper::messages` (parent and keeper).

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::sockopt::{self, Timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};

/// The longest message, bytes.
pub(crate) const MAX_MESSAGE: usize = 4096;
/// The longest text in one, bytes; JSON can escape a byte as six.
pub(crate) const MAX_TEXT: usize = 512;
/// Most descriptors in one message.
pub(crate) const MAX_FDS: usize = 32;

/// One end of the socketpair.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

/// What became of an attempt to receive.
#[derive(Debug)]
pub(crate) enum Received<M> {
    /// A message.
    Message(M),
    /// Nothing yet.
    Nothing,
    /// The other side is gone.
    End,
}

/// A kind of message, one per direction.
pub(crate) trait Message: Sized {
    /// Version of all messages between the two processes.
    const VERSION: u8;
    /// Kind, body and descriptors.
    fn encode(&self) -> io::Result<(u8, Vec<u8>, Vec<BorrowedFd<'_>>)>;
    /// The reverse; `None` where that is no message of this direction.
    fn decode(kind: u8, body: &[u8], fds: Vec<OwnedFd>) -> Option<Self>;
}

impl Channel {
    /// Makes a connected pair.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        let (a, b) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(a), Self(b)))
    }

    /// Sends one message, waiting while the other side's queue is full.
    pub(crate) fn send<M: Message>(&self, message: &M) -> io::Result<()> {
        self.send_with(message, SendFlags::NOSIGNAL)
    }

    /// Sends one message; fails with `WouldBlock` where the queue is full.
    pub(crate) fn try_send<M: Message>(&self, message: &M) -> io::Result<()> {
        self.send_with(message, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
    }

    fn send_with<M: Message>(&self, message: &M, flags: SendFlags) -> io::Result<()> {
        let (kind, body, fds) = message.encode()?;
        if body.len() + 2 > MAX_MESSAGE || fds.len() > MAX_FDS {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let head = [M::VERSION, kind];
        let iov = [IoSlice::new(&head), IoSlice::new(&body)];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !control.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::Error::from(io::ErrorKind::OutOfMemory));
        }
        rustix::io::retry_on_intr(|| rustix::net::sendmsg(&self.0, &iov, &mut control, flags))?;
        Ok(())
    }

    /// Takes the next message if there is one.
    pub(crate) fn try_receive<M: Message>(&self) -> io::Result<Received<M>> {
        self.receive_with(RecvFlags::DONTWAIT)
    }

    /// Waits for the next message, for as long as [`Channel::set_patience`] says;
    /// [`Received::Nothing`] when there was none by then.
    pub(crate) fn receive<M: Message>(&self) -> io::Result<Received<M>> {
        self.receive_with(RecvFlags::empty())
    }

    /// How long [`Channel::receive`] waits; it waits for ever unless this is set.
    pub(crate) fn set_patience(&self, patience: Duration) -> io::Result<()> {
        sockopt::set_socket_timeout(&self.0, Timeout::Recv, Some(patience))?;
        Ok(())
    }

    fn receive_with<M: Message>(&self, flags: RecvFlags) -> io::Result<Received<M>> {
        let mut buffer = [0; MAX_MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_FDS))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let flags = flags | RecvFlags::CMSG_CLOEXEC;
        let mut receive = || {
            rustix::io::retry_on_intr(|| {
                rustix::net::recvmsg(
                    &self.0,
                    &mut [IoSliceMut::new(&mut buffer)],
                    &mut control,
                    flags,
                )
            })
        };
        let received = match receive() {
            // Reported once, when the other side has ended without taking all that
            // was sent to it; what it had sent comes after that.
            Err(Errno::CONNRESET) => receive(),
            received => received,
        };
        let received = match received {
            Ok(received) => received,
            Err(Errno::AGAIN) => return Ok(Received::Nothing),
            // Not the end: that is told by the call that finds nothing more.
            Err(error) => return Err(error.into()),
        };
        // No message of ours is empty: that is the end of the stream.
        let Some(message) = buffer
            .get(..received.bytes)
            .filter(|message| !message.is_empty())
        else {
            return Ok(Received::End);
        };
        let mut fds = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                fds.extend(rights);
            }
        }
        // Where this process has no more descriptors the kernel passes fewer on, and
        // the message says whether that matters.
        let cut = received.flags.contains(ReturnFlags::TRUNC);
        match message {
            [version, kind, body @ ..] if *version == M::VERSION && !cut => {
                M::decode(*kind, body, fds).map(Received::Message)
            }
            _ => None,
        }
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// `text`, cut at a character boundary to at most [`MAX_TEXT`] bytes.
pub(crate) fn shorten(text: &str) -> &str {
    text.get(..text.floor_char_boundary(MAX_TEXT))
        .unwrap_or(text)
}
