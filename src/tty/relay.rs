//! Bytes between the caller's standard streams and the master of a pty.
//!
//! # Theory of operation
//! One bounded buffer per direction. A side is read only while the buffer behind
//! it has room, so whoever writes too fast waits in the kernel: the command in
//! its write(2) to the pty, the caller's program in its write to the pipe. All
//! readiness is edge-triggered: a side counts as ready until the kernel says
//! that it would have to wait, and from the next event on again.
//!
//! A turn moves a bounded amount, so that a container that prints without end
//! does not hold up the rest of the loop; then the master is registered anew,
//! which makes the kernel report it again if there is more.
//!
//! While no process has the pty open its master says `EIO`. As long as the
//! container lives one may open it again, so only after that is it the end. All
//! that was written before can still be read then, because the kernel flushes
//! the pty's buffers before it says that there is nothing (`n_tty_read`).

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::termios::{SpecialCodeIndex, Winsize};

use super::endpoint::{Direction, Endpoint};

/// Size of each buffer, bytes.
const BUFFER: usize = 64 * 1024;
/// Times that a turn may fill a buffer.
const ROUNDS: usize = 16;

/// The tokens that a relay's three descriptors are registered with.
#[derive(Debug, Clone, Copy)]
pub struct Tokens {
    /// The pty's master.
    pub master: Token,
    /// The caller's standard input.
    pub input: Token,
    /// The caller's standard output.
    pub output: Token,
}

/// A bounded queue of bytes, emptied before it is filled again.
#[derive(Debug)]
struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    fn new() -> Self {
        Self {
            bytes: vec![0; BUFFER].into_boxed_slice(),
            start: 0,
            end: 0,
        }
    }

    fn pending(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn is_empty(&self) -> bool {
        self.start == self.end
    }

    fn room(&mut self) -> &mut [u8] {
        self.bytes.get_mut(self.end..).unwrap_or_default()
    }

    fn filled(&mut self, length: usize) {
        self.end = (self.end + length).min(self.bytes.len());
    }

    fn taken(&mut self, length: usize) {
        self.start = (self.start + length).min(self.end);
        if self.is_empty() {
            self.clear();
        }
    }

    fn clear(&mut self) {
        (self.start, self.end) = (0, 0);
    }
}

/// The relay of one container.
#[derive(Debug)]
pub struct Relay {
    tokens: Tokens,
    master: OwnedFd,
    master_readable: bool,
    master_writable: bool,
    /// Nobody has the pty open.
    hung_up: bool,
    /// `None` without `-i`, and after its end.
    input: Option<Endpoint>,
    /// `None` once nobody takes the output any more.
    output: Option<Endpoint>,
    to_command: Buffer,
    to_caller: Buffer,
    /// What the command's line discipline still lacks to see the end of input.
    end_marks: usize,
    /// The last byte of input, for the line that it leaves open.
    last_input: u8,
}

impl Relay {
    /// Relays between `master` and this process's standard output and, where
    /// given, its standard input.
    ///
    /// # Errors
    /// Those of the kernel in opening the streams anew and registering them.
    pub fn new(
        master: OwnedFd,
        input: Option<BorrowedFd<'_>>,
        output: BorrowedFd<'_>,
        registry: &Registry,
        tokens: Tokens,
    ) -> io::Result<Self> {
        // Its description is ours alone: init has closed its copy.
        rustix::fs::fcntl_setfl(
            &master,
            rustix::fs::fcntl_getfl(&master)? | OFlags::NONBLOCK,
        )?;
        let mut input = input
            .map(|fd| Endpoint::new(fd, Direction::Read))
            .transpose()?;
        let mut output = Endpoint::new(output, Direction::Write)?;
        registry.register(
            &mut SourceFd(&master.as_raw_fd()),
            tokens.master,
            Interest::READABLE | Interest::WRITABLE,
        )?;
        if let Some(input) = &mut input {
            input.register(registry, tokens.input)?;
        }
        output.register(registry, tokens.output)?;
        Ok(Self {
            tokens,
            master,
            master_readable: true,
            master_writable: true,
            hung_up: false,
            input,
            output: Some(output),
            to_command: Buffer::new(),
            to_caller: Buffer::new(),
            end_marks: 0,
            last_input: b'\n',
        })
    }

    /// Sets the size of the pty; the kernel tells the command (`SIGWINCH`).
    pub fn resize(&self, size: Winsize) -> io::Result<()> {
        Ok(rustix::termios::tcsetwinsize(&self.master, size)?)
    }

    /// Takes the caller's streams out of `registry`: what epoll(7) watches is their
    /// description, which outlives this process's descriptors.
    pub fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        let endpoints = [self.input.as_mut(), self.output.as_mut()];
        endpoints
            .into_iter()
            .flatten()
            .try_for_each(|endpoint| endpoint.deregister(registry))
    }

    /// Every process that could write to the pty has ended: from here on its
    /// silence is its end.
    pub fn end(&mut self) {
        self.master_readable = true;
    }

    /// Takes note of an event with one of its tokens.
    pub fn note(&mut self, event: &Event) {
        let token = event.token();
        if token == self.tokens.master {
            self.master_readable |=
                event.is_readable() || event.is_read_closed() || event.is_error();
            self.master_writable |= event.is_writable() || event.is_error();
        } else if token == self.tokens.input {
            if let Some(input) = &mut self.input {
                input.ready = true;
            }
        } else if token == self.tokens.output
            && let Some(output) = &mut self.output
        {
            output.ready = true;
        }
    }

    /// Moves what can be moved.
    ///
    /// # Errors
    /// Those of the kernel that are no end of a stream.
    pub fn turn(&mut self, registry: &Registry) -> io::Result<()> {
        for _ in 0..ROUNDS {
            let out = self.turn_output(registry)?;
            let inp = self.turn_input(registry)?;
            if !out && !inp {
                return Ok(());
            }
        }
        let interest = Interest::READABLE | Interest::WRITABLE;
        registry.reregister(
            &mut SourceFd(&self.master.as_raw_fd()),
            self.tokens.master,
            interest,
        )
    }

    /// Nobody is to wait for what has not been passed on.
    ///
    /// # Errors
    /// Those of epoll_ctl(2).
    pub fn give_up(&mut self, registry: &Registry) -> io::Result<()> {
        match self.output.take() {
            Some(mut output) => output.deregister(registry),
            None => Ok(()),
        }
    }

    /// Whether all that the command has written has been passed on. To be asked
    /// after [`Self::end`] and a turn.
    pub fn is_drained(&self) -> bool {
        self.output.is_none()
            || (self.to_caller.is_empty() && (self.hung_up || !self.master_readable))
    }

    /// Master to standard output; true if something has moved.
    fn turn_output(&mut self, registry: &Registry) -> io::Result<bool> {
        let mut moved = false;
        while self.master_readable && !self.to_caller.room().is_empty() {
            match rustix::io::read(&self.master, self.to_caller.room()) {
                Ok(0) | Err(Errno::IO) => (self.hung_up, self.master_readable) = (true, false),
                Ok(length) => {
                    self.hung_up = false;
                    self.to_caller.filled(length);
                    moved = true;
                }
                Err(Errno::AGAIN) => (self.hung_up, self.master_readable) = (false, false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        let Some(output) = &mut self.output else {
            self.to_caller.clear();
            return Ok(moved);
        };
        while output.ready && !self.to_caller.is_empty() {
            match output.write(self.to_caller.pending()) {
                Ok(Some(length)) => {
                    self.to_caller.taken(length);
                    moved = true;
                }
                Ok(None) => {}
                Err(error) => {
                    // The reader or the terminal is gone; the command goes on
                    // without an audience, as under podman.
                    tracing::debug!("standard output: {error}");
                    output.deregister(registry)?;
                    self.output = None;
                    self.to_caller.clear();
                    return Ok(true);
                }
            }
        }
        Ok(moved)
    }

    /// Standard input to master; true if something has moved.
    fn turn_input(&mut self, registry: &Registry) -> io::Result<bool> {
        let mut moved = false;
        if let Some(input) = &mut self.input {
            while input.ready && !self.to_command.room().is_empty() {
                let end = match input.read(self.to_command.room()) {
                    Ok(Some(0)) => true,
                    Ok(Some(length)) => {
                        self.to_command.filled(length);
                        self.last_input =
                            self.to_command.pending().last().copied().unwrap_or(b'\n');
                        moved = true;
                        false
                    }
                    Ok(None) => false,
                    // A terminal that has hung up.
                    Err(error) => {
                        tracing::debug!("standard input: {error}");
                        true
                    }
                };
                if end {
                    input.deregister(registry)?;
                    self.input = None;
                    // The character ends the line it stands in, if there is one
                    // open, and the input only at the start of one (termios(3)).
                    self.end_marks = if self.last_input == b'\n' { 1 } else { 2 };
                    break;
                }
            }
        }
        if self.to_command.is_empty() && self.end_marks > 0 {
            let mark =
                rustix::termios::tcgetattr(&self.master)?.special_codes[SpecialCodeIndex::VEOF];
            if let Some(room) = self.to_command.room().get_mut(..self.end_marks) {
                room.fill(mark);
                self.to_command.filled(self.end_marks);
                self.end_marks = 0;
            }
        }
        while self.master_writable && !self.to_command.is_empty() {
            match rustix::io::write(&self.master, self.to_command.pending()) {
                Ok(0) | Err(Errno::AGAIN) => self.master_writable = false,
                Ok(length) => {
                    self.to_command.taken(length);
                    moved = true;
                }
                Err(Errno::INTR) => {}
                Err(Errno::IO) => self.to_command.clear(),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(moved)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Duration;

    use super::*;

    const TOKENS: Tokens = Tokens {
        master: Token(1),
        input: Token(2),
        output: Token(3),
    };

    struct Rig {
        poll: mio::Poll,
        relay: Relay,
        slave: Option<OwnedFd>,
        input: Option<OwnedFd>,
        output: OwnedFd,
    }

    impl Rig {
        fn new() -> Self {
            let flags = rustix::pty::OpenptFlags::RDWR | rustix::pty::OpenptFlags::NOCTTY;
            let master = rustix::pty::openpt(flags).unwrap();
            rustix::pty::unlockpt(&master).unwrap();
            let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags).unwrap();
            let (in_read, in_write) = rustix::pipe::pipe().unwrap();
            let (out_read, out_write) = rustix::pipe::pipe().unwrap();
            let poll = mio::Poll::new().unwrap();
            let relay = Relay::new(
                master,
                Some(in_read.as_fd()),
                out_write.as_fd(),
                poll.registry(),
                TOKENS,
            )
            .unwrap();
            Self {
                poll,
                relay,
                slave: Some(slave),
                input: Some(in_write),
                output: out_read,
            }
        }

        fn spin(&mut self) {
            let mut events = mio::Events::with_capacity(8);
            self.relay.turn(self.poll.registry()).unwrap();
            loop {
                self.poll
                    .poll(&mut events, Some(Duration::from_millis(20)))
                    .unwrap();
                if events.is_empty() {
                    return;
                }
                events.iter().for_each(|event| self.relay.note(event));
                self.relay.turn(self.poll.registry()).unwrap();
            }
        }

        fn read(&self) -> Vec<u8> {
            let mut buffer = vec![0; 1 << 20];
            let length = rustix::io::read(&self.output, &mut buffer).unwrap();
            buffer.truncate(length);
            buffer
        }
    }

    #[test]
    fn input_reaches_the_command_and_ends() {
        let mut rig = Rig::new();
        rustix::io::write(rig.input.as_ref().unwrap(), b"line\nopen").unwrap();
        rig.input = None;
        rig.spin();
        let mut buffer = [0; 64];
        let mut lines = Vec::new();
        loop {
            let length = rustix::io::read(rig.slave.as_ref().unwrap(), &mut buffer).unwrap();
            if length == 0 {
                break;
            }
            lines.push(buffer[..length].to_vec());
        }
        assert_eq!(lines, [b"line\n".to_vec(), b"open".to_vec()]);
    }

    #[test]
    fn output_written_before_the_end_arrives_after_it() {
        let mut rig = Rig::new();
        rustix::io::write(rig.slave.as_ref().unwrap(), b"last words\n").unwrap();
        rig.slave = None;
        rig.spin();
        assert!(rig.relay.is_drained());
        assert_eq!(rig.read(), b"last words\r\n");
    }

    #[test]
    fn a_reader_that_does_not_read_stops_the_command() {
        let mut rig = Rig::new();
        let slave = rig.slave.take().unwrap();
        rustix::fs::fcntl_setfl(&slave, OFlags::RDWR | OFlags::NONBLOCK).unwrap();
        let mut written = 0;
        loop {
            match rustix::io::write(&slave, &[b'x'; 4096]) {
                Ok(length) => written += length,
                Err(_) => {
                    let before = written;
                    rig.spin();
                    if let Ok(length) = rustix::io::write(&slave, &[b'x'; 4096]) {
                        written += length;
                    }
                    if before == written {
                        break;
                    }
                }
            }
        }
        assert!((BUFFER..8 * BUFFER).contains(&written), "{written}");
        assert!(!rig.relay.is_drained());
        drop(slave);
        let mut read = 0;
        while !rig.relay.is_drained() {
            read += rig.read().len();
            rig.spin();
        }
        while read < written {
            read += rig.read().len();
        }
        assert_eq!(read, written);
    }

    #[test]
    fn a_reader_that_is_gone_is_no_error() {
        let mut rig = Rig::new();
        rig.output =
            rustix::fs::open("/dev/null", OFlags::RDONLY, rustix::fs::Mode::empty()).unwrap();
        rustix::io::write(rig.slave.as_ref().unwrap(), b"to nobody\n").unwrap();
        rig.spin();
        assert!(rig.relay.is_drained());
    }
}
