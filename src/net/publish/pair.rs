//! A client of the host's own, joined to the container's server socket to socket.
//!
//! # Theory of operation
//!
//! Each direction moves through a pipe by splice(2): the kernel passes pages on
//! and nothing is copied here. A direction has a pipe only while something is in
//! it, so that an idle pair costs its two sockets; nothing is taken from one
//! socket unless the other has room, so a pipe is kept only where that took less
//! than was there. Readiness is edge-triggered: it is remembered until a call says
//! "would block".
//!
//! The end of one direction is passed on as such (`SHUT_WR`), the other goes on
//! as long as it likes. A reset on one side resets the other.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use mio::event::Event;
use netstack::{FlowInfo, Instant, Protocol};
use rustix::io::Errno;
use rustix::net::Shutdown;
use rustix::pipe::{
    PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice,
};
use socket2::Socket;

use crate::errno::{Remedy, remedy};

/// Size asked for per pipe, bytes. With less a bulk transfer needs more turns;
/// with more it leaves the processor's cache.
const PIPE_SIZE: usize = 1 << 20;
/// Pipes kept for the next that needs one.
const SPARE_PIPES: usize = 16;
/// Pipes made ahead of need: each connection gives its own back soon.
const RESERVE: usize = 4;
/// Bytes behind one place of a pipe (`PAGE_SIZE`) as its size is counted. Each
/// place can hold more, or a single byte.
const PLACE: usize = 4096;
/// Bytes that one direction moves before others have their turn.
const TURN_BYTES: usize = 4 << 20;

/// Which side of a pair: the client of the host is 0, the container's server is 1.
pub(super) const CLIENT: usize = 0;
pub(super) const SERVER: usize = 1;

#[derive(Debug)]
pub(super) struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
    /// What it holds at least, bytes: one in each place.
    places: usize,
}

/// Pipes that nobody uses at present.
#[derive(Debug, Default)]
pub(super) struct Pipes(Vec<Pipe>);

impl Pipes {
    /// Makes sure that there are some for connections that need one when there are no
    /// descriptors left.
    pub(super) fn reserve(&mut self) -> io::Result<()> {
        while self.0.len() < RESERVE {
            self.0.push(Self::make()?);
        }
        Ok(())
    }

    fn take(&mut self) -> Result<Pipe, Errno> {
        match self.0.pop() {
            Some(pipe) => Ok(pipe),
            None => Self::make(),
        }
    }

    fn make() -> Result<Pipe, Errno> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // A wish: the user's share of pipe memory may be used up (pipe(7)).
        let size = fcntl_setpipe_size(&write, PIPE_SIZE).or_else(|_| fcntl_getpipe_size(&write))?;
        Ok(Pipe {
            read,
            write,
            places: size / PLACE,
        })
    }

    fn give(&mut self, pipe: Pipe) {
        if self.0.len() < SPARE_PIPES {
            self.0.push(pipe);
        }
    }
}

/// One direction, named by where it comes from.
#[derive(Debug, Default)]
struct Flow {
    /// What has been taken and not yet passed on, and how much of it.
    held: Option<(Pipe, usize)>,
    /// The source has ended.
    ended: bool,
    /// The destination knows.
    shut: bool,
    moved: u64,
}

/// What became of a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turn {
    /// Nothing to do until there is an event.
    Waits,
    /// It has had its turn and has more to do.
    Again,
    /// It has more to do, for which something is missing at present.
    Later,
    /// Both directions have ended, or one side has failed; it is to be dropped.
    Over,
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Pair {
    sockets: [Socket; 2],
    readable: [bool; 2],
    writable: [bool; 2],
    /// Has sent its end, which no further event will tell of.
    closed: [bool; 2],
    /// Has sent urgent data, at which splice(2) stops.
    urgent: [bool; 2],
    flows: [Flow; 2],
    /// It stands in the list of those that have more to do.
    pub(super) queued: bool,
    ends: Ends,
}

/// Between whom a pair is, and since when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ends {
    pub(super) client: SocketAddr,
    pub(super) container: SocketAddr,
    pub(super) since: Instant,
}

impl Pair {
    /// Joins two connected sockets.
    pub(super) fn new(client: Socket, server: Socket, ends: Ends) -> Self {
        Self {
            sockets: [client, server],
            // Their registration makes an event of what is there already.
            readable: [false; 2],
            writable: [false; 2],
            closed: [false; 2],
            urgent: [false; 2],
            flows: Default::default(),
            queued: false,
            ends,
        }
    }

    pub(super) fn socket(&self, side: usize) -> &Socket {
        &self.sockets[side]
    }

    /// Bytes that have come from each side.
    pub(super) fn moved(&self) -> [u64; 2] {
        [self.flows[CLIENT].moved, self.flows[SERVER].moved]
    }

    /// What there is to tell about it.
    pub(super) fn info(&self, now: Instant) -> FlowInfo {
        let [client, server] = [CLIENT, SERVER].map(|side| self.flows[side].ended);
        FlowInfo {
            protocol: Protocol::Tcp,
            container: self.ends.container,
            remote: self.ends.client,
            state: match (client, server) {
                (false, false) => "ESTABLISHED",
                (true, false) => "CLOSE-WAIT",
                (false, true) => "FIN-WAIT-2",
                (true, true) => "LAST-ACK",
            },
            age: now - self.ends.since,
            bytes_up: self.flows[SERVER].moved,
            bytes_down: self.flows[CLIENT].moved,
        }
    }

    /// Whether the container's side still has something to say.
    pub(super) fn is_sending(&self) -> bool {
        !self.flows[SERVER].shut
    }

    /// An event of one side's socket; the error where that has failed.
    pub(super) fn note(&mut self, side: usize, event: &Event) -> io::Result<()> {
        if event.is_error()
            && let Some(error) = self.sockets[side].take_error()?
        {
            return Err(error);
        }
        self.closed[side] |= event.is_read_closed() || event.is_error();
        self.urgent[side] |= event.is_priority();
        self.readable[side] |= event.is_readable() || self.closed[side] || self.urgent[side];
        self.writable[side] |= event.is_writable();
        Ok(())
    }

    /// Moves what can be moved.
    pub(super) fn turn(&mut self, pipes: &mut Pipes) -> Turn {
        let mut turn = Turn::Waits;
        for from in [CLIENT, SERVER] {
            match self.pump(from, pipes) {
                Ok(true) if turn == Turn::Waits => turn = Turn::Again,
                Ok(_) => {}
                Err(error) if remedy(error) == Remedy::Later => {
                    tracing::debug!("spliced connection: {error}");
                    turn = Turn::Later;
                }
                Err(error) => {
                    tracing::trace!("spliced connection: {error}");
                    self.reset();
                    return Turn::Over;
                }
            }
        }
        if self.flows.iter().all(|flow| flow.shut) {
            return Turn::Over;
        }
        turn
    }

    /// Makes both ends see a reset when they are closed.
    pub(super) fn reset(&self) {
        for socket in &self.sockets {
            reset(socket);
        }
    }

    /// One direction; true where there is more to do.
    fn pump(&mut self, from: usize, pipes: &mut Pipes) -> Result<bool, Errno> {
        let to = 1 - from;
        let flow = &mut self.flows[from];
        let mut pipe = flow.held.take();
        let mut moved = 0;
        let outcome = loop {
            if let Some((through, held)) = &mut pipe
                && *held > 0
            {
                if !self.writable[to] {
                    break Ok(false);
                }
                match transfer(&through.read, &self.sockets[to], *held) {
                    Ok(0) => break Err(Errno::PIPE),
                    Ok(count) => {
                        *held = held.saturating_sub(count);
                        moved += count;
                    }
                    Err(Errno::AGAIN) => self.writable[to] = false,
                    Err(error) => break Err(error),
                }
                continue;
            }
            if flow.ended {
                if !flow.shut {
                    let shut = || rustix::net::shutdown(&self.sockets[to], Shutdown::Write);
                    match rustix::io::retry_on_intr(shut) {
                        // It may have failed meanwhile, which an event says.
                        Ok(()) | Err(Errno::NOTCONN) => flow.shut = true,
                        // It would wait for an end that never comes.
                        Err(error) => break Err(error),
                    }
                }
                break Ok(false);
            }
            if !self.readable[from] || !self.writable[to] {
                break Ok(false);
            }
            if moved >= TURN_BYTES {
                break Ok(true);
            }
            let through = match &mut pipe {
                Some(through) => through,
                empty => match pipes.take() {
                    Ok(pipe) => empty.insert((pipe, 0)),
                    Err(error) => break Err(error),
                },
            };
            let source = &self.sockets[from];
            let taken = if self.urgent[from] {
                copy(source, &through.0)
            } else {
                transfer(source, &through.0.write, PIPE_SIZE)
            };
            match taken {
                Ok(0) => flow.ended = true,
                Ok(count) => {
                    through.1 = count;
                    // So little cannot have filled the pipe: it was all there is, unless it
                    // ended at urgent data.
                    self.readable[from] =
                        count >= through.0.places || self.closed[from] || self.urgent[from];
                }
                Err(Errno::AGAIN) => {
                    self.readable[from] = false;
                    self.urgent[from] = false;
                }
                Err(error) => break Err(error),
            }
        };
        flow.moved += moved as u64;
        match pipe {
            Some((through, 0)) => pipes.give(through),
            held => flow.held = held,
        }
        outcome
    }
}

/// splice(2) without waiting.
fn transfer(
    from: impl std::os::fd::AsFd,
    to: impl std::os::fd::AsFd,
    count: usize,
) -> Result<usize, Errno> {
    let flags = SpliceFlags::NONBLOCK | SpliceFlags::MOVE;
    rustix::io::retry_on_intr(|| splice(&from, None, &to, None, count, flags))
}

/// Takes what is at hand, urgent data in its place (RFC 6093, 4), into an empty
/// pipe.
fn copy(from: &Socket, to: &Pipe) -> Result<usize, Errno> {
    let mut buffer = [0; PLACE];
    let count = rustix::io::retry_on_intr(|| rustix::io::read(from, &mut buffer[..]))?;
    let mut rest = buffer.get(..count).unwrap_or_default();
    while !rest.is_empty() {
        // It fits into one place. It is nowhere else any more: no error of this passes.
        let written = rustix::io::retry_on_intr(|| rustix::io::write(&to.write, rest));
        let written = written.map_err(|error| {
            tracing::debug!("a pipe: {error}");
            Errno::IO
        })?;
        rest = rest.get(written..).unwrap_or_default();
    }
    Ok(count)
}

/// Has the other end see a reset when the socket is closed.
pub(crate) fn reset(socket: &Socket) {
    if let Err(error) = socket.set_linger(Some(Duration::ZERO)) {
        // Without it the socket closes in order, which is wrong but not harmful.
        tracing::debug!("reset a connection: {error}");
    }
}
