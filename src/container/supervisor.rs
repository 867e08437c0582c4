//! The parent's half of a running container, as a part of an event loop.
//!
//! # Theory of operation
//! Signals reach the parent through a signalfd. One that a process sent is passed
//! to the command alone, as podman does; one that the terminal driver sent was
//! meant for a whole foreground group, and goes to the command's. Since command
//! and init are sessions of their own, the terminal itself reaches only the
//! parent, so a key press arrives exactly once.
//!
//! A stop key stops the job as a whole: the command's group with `SIGSTOP`
//! (`SIGTSTP` has no effect on an orphaned process group, which a container's
//! first one is), then the parent by the default action of `SIGTSTP`, with the
//! terminal put in order before; when continued, the same in reverse.
//!
//! The end of init, by its pidfd, is the end of the container. What its command
//! has written to the pty is still passed on then.

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use mio::event::Event;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::process::Pid;
use tracing::{debug, warn};

use super::exec::is_not_found;
use super::ipc::{Channel, FromInit, Received, ToInit};
use super::spawn::{Init, Prepared, ends};
use crate::errno::{PAUSE, is_broken};
use crate::error::Error;
use crate::sys::signal::{self, SignalFd, SignalSet};
use crate::tty::{RawTerminal, Relay, Tokens};

const INIT: Token = Token(0);
const CHANNEL: Token = Token(1);
const SIGNALS: Token = Token(2);
const RELAY: Tokens = Tokens {
    master: Token(3),
    input: Token(4),
    output: Token(5),
};

/// What became of one [`Supervisor::open_sockets`].
#[derive(Debug)]
pub struct Sockets {
    /// How many there were to be.
    pub asked: usize,
    /// TCP sockets of the container's network namespace, not connected, at most as
    /// many; of IPv6 where there is such, which take IPv4 addresses, too.
    pub opened: Vec<OwnedFd>,
}

/// A container that is about to run its command, or does.
#[derive(Debug)]
pub struct Supervisor {
    // In the order in which they go: the terminal is the caller's again before
    // the end of the container is waited for.
    terminal: Option<RawTerminal>,
    relay: Option<Relay>,
    init: Init,
    channel: Channel,
    signals: SignalFd,
    early: Vec<signal::Received>,
    registry: Registry,
    /// Init is there to pass signals on; else the command is in its place.
    has_init: bool,
    released: bool,
    started: bool,
    /// This process, which may have to stop itself.
    own: Pid,
    /// Sockets that init has opened, by the request for them.
    sockets: Vec<Sockets>,
    /// Messages of init wait that could not be taken, which no event tells of again.
    unread: bool,
    /// What the command came to, once known.
    outcome: Option<Result<u8, Error>>,
    /// Init has closed its end of the channel.
    hung_up: bool,
    /// Init has ended; its exit code.
    ended: Option<u8>,
}

impl Prepared {
    /// Waits until the container is set up, registers everything with `registry`,
    /// under tokens below [`Supervisor::TOKENS`], and takes over the terminal where
    /// there is one.
    ///
    /// # Errors
    /// A step of the plan that failed, [`Error::Interrupted`], those of epoll(7)
    /// and of the terminal. The container is ended then.
    pub fn supervise(mut self, registry: Registry) -> Result<Supervisor, Error> {
        self.wait_for_set_up()?;
        let Self {
            init,
            channel,
            signals,
            early,
            master,
            io,
            has_init,
            own,
            released,
            ..
        } = self;
        let (stdin, stdout) = (io::stdin(), io::stdout());
        let mut supervisor = Supervisor {
            terminal: None,
            relay: None,
            init,
            channel,
            signals,
            early,
            registry,
            has_init,
            released,
            started: false,
            own,
            sockets: Vec::new(),
            unread: false,
            outcome: None,
            hung_up: false,
            ended: None,
        };
        if let Some(master) = master {
            let input = io.interactive.then(|| stdin.as_fd());
            let relay = Relay::new(master, input, stdout.as_fd(), &supervisor.registry, RELAY)
                .map_err(|e| Error::host("relay the terminal", e))?;
            supervisor.relay = Some(relay);
            supervisor.resize();
            if io.interactive {
                if rustix::termios::isatty(&stdin) {
                    let terminal = RawTerminal::enter(stdin.as_fd())
                        .map_err(|e| Error::host("put the terminal into raw mode", e))?;
                    supervisor.init.others.push(terminal.watcher());
                    supervisor.terminal = Some(terminal);
                } else {
                    warn!("-t: standard input is not a terminal");
                }
            }
        }
        for (fd, token) in [
            (supervisor.init.pidfd().as_raw_fd(), INIT),
            (supervisor.channel.as_fd().as_raw_fd(), CHANNEL),
            (supervisor.signals.as_fd().as_raw_fd(), SIGNALS),
        ] {
            supervisor
                .register(fd, token)
                .map_err(|e| Error::host("watch the container's init", e))?;
        }
        Ok(supervisor)
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        if let Some(relay) = &mut self.relay
            && let Err(error) = relay.deregister(&self.registry)
        {
            debug!("let go of the standard streams: {error}");
        }
    }
}

impl Supervisor {
    /// Tokens below this are the supervisor's; the caller's start here.
    pub const TOKENS: usize = 16;

    fn register(&self, fd: RawFd, token: Token) -> io::Result<()> {
        self.registry
            .register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Has init start the command, unless [`Prepared::release`] has, and passes
    /// signals on from here on.
    ///
    /// # Errors
    /// Init is gone.
    pub fn start(&mut self) -> Result<(), Error> {
        if !self.released {
            self.channel
                .send(&ToInit::Go)
                .map_err(|e| Error::host("start the command", e))?;
        }
        self.started = true;
        for received in std::mem::take(&mut self.early) {
            self.handle(received)
                .map_err(|e| Error::host("handle a signal", e))?;
        }
        self.turn()
    }

    /// Has init open `count` TCP sockets, at most 32, in the container's network
    /// namespace. They come with [`Supervisor::take_sockets`]. To be called after
    /// [`Supervisor::start`].
    ///
    /// # Errors
    /// Init cannot be asked at present, or is gone.
    pub fn open_sockets(&self, count: usize) -> io::Result<()> {
        let count = u8::try_from(count).map_err(|_| io::ErrorKind::InvalidInput)?;
        self.channel.try_send(&ToInit::OpenSockets(count))
    }

    /// How long the loop may sleep before [`Supervisor::resume`]; `None` until there is
    /// an event.
    pub fn timeout(&self) -> Option<Duration> {
        self.unread.then_some(PAUSE)
    }

    /// Tries again what could not be done before.
    ///
    /// # Errors
    /// As [`Supervisor::ready`].
    pub fn resume(&mut self) -> Result<(), Error> {
        if self.unread {
            self.take_messages()?;
        }
        Ok(())
    }

    /// Takes the sockets that have come.
    pub fn take_sockets(&mut self) -> Vec<Sockets> {
        std::mem::take(&mut self.sockets)
    }

    /// Handles one event of the loop; those with a token of the caller's do
    /// nothing. Returns the exit code once the container has ended and all its
    /// output has been passed on.
    ///
    /// # Errors
    /// The command could not be started, or the kernel refuses to go on.
    pub fn ready(&mut self, event: &Event) -> Result<Option<u8>, Error> {
        match event.token() {
            INIT => self.take_status()?,
            CHANNEL => self.take_messages()?,
            SIGNALS => self.take_signals()?,
            token if token.0 < Self::TOKENS => {
                if let Some(relay) = &mut self.relay {
                    relay.note(event);
                }
                self.turn()?;
            }
            _ => return Ok(None),
        }
        self.result()
    }

    /// Whether the end of the container may be what its link ended with. The kernel takes
    /// files from a process before namespaces (`do_exit` in kernel/exit.c), so an init that
    /// has not hung up has not let go of the network. A command without an init has no
    /// channel to tell it by.
    ///
    /// # Errors
    /// The channel cannot be read, or something else than init writes to it.
    pub fn may_be_ending(&mut self) -> Result<bool, Error> {
        self.take_messages()?;
        Ok(self.hung_up || !self.has_init)
    }

    fn turn(&mut self) -> Result<(), Error> {
        let Some(relay) = &mut self.relay else {
            return Ok(());
        };
        relay
            .turn(&self.registry)
            .map_err(|e| Error::host("relay the terminal", e))
    }

    /// The exit code, if everything is over.
    fn result(&mut self) -> Result<Option<u8>, Error> {
        let Some(code) = self.ended else {
            return Ok(None);
        };
        if self.relay.as_ref().is_some_and(|relay| !relay.is_drained()) {
            return Ok(None);
        }
        // What came while there was a container was for that, and must not end this process
        // when signals are let through again.
        while self
            .signals
            .next()
            .map_err(|e| Error::host("read the pending signals", e))?
            .is_some()
        {}
        // The terminal first: whatever is printed next is printed in order.
        self.terminal = None;
        self.outcome.take().unwrap_or(Ok(code)).map(Some)
    }

    fn take_status(&mut self) -> Result<(), Error> {
        if self.ended.is_some() {
            return Ok(());
        }
        let status = self
            .init
            .wait()
            .map_err(|e| Error::host("wait for the container's init", e))?;
        self.take_messages()?;
        debug!(?status, "the container's init has ended");
        let code = status
            .exit_status()
            .or_else(|| status.terminating_signal().map(|signal| 128 + signal));
        self.ended = Some(
            code.and_then(|code| u8::try_from(code).ok())
                .unwrap_or(crate::error::EXIT_RUNTIME),
        );
        if let Some(relay) = &mut self.relay {
            relay.end();
        }
        self.turn()
    }

    fn take_messages(&mut self) -> Result<(), Error> {
        let tried = std::mem::take(&mut self.unread);
        loop {
            let received = match self.channel.try_receive() {
                Err(error) if Errno::from_io_error(&error).is_some_and(|of| !is_broken(of)) => {
                    if !tried {
                        warn!("receive from the container's init: {error}");
                    }
                    self.unread = true;
                    return Ok(());
                }
                received => {
                    received.map_err(|e| Error::host("receive from the container's init", e))?
                }
            };
            let outcome = match received {
                Received::Nothing => return Ok(()),
                Received::End => {
                    self.hung_up = true;
                    return Ok(());
                }
                Received::Message(FromInit::Warning(text)) => {
                    warn!("{text}");
                    continue;
                }
                Received::Message(FromInit::Sockets {
                    asked,
                    errno,
                    sockets,
                }) => {
                    if errno != 0 {
                        let error = io::Error::from_raw_os_error(errno);
                        warn!("open sockets in the container's network: {error}");
                    }
                    self.sockets.push(Sockets {
                        asked: usize::from(asked),
                        opened: sockets,
                    });
                    continue;
                }
                Received::Message(FromInit::Exited(code)) => Ok(code),
                Received::Message(FromInit::Failed(failure)) => Err(Error::from(failure)),
                Received::Message(FromInit::ExecFailed { errno, command })
                    if is_not_found(errno) =>
                {
                    Err(Error::NotFound(command))
                }
                Received::Message(FromInit::ExecFailed { errno, command }) => {
                    Err(Error::NotExecutable {
                        command,
                        source: io::Error::from_raw_os_error(errno),
                    })
                }
                Received::Message(message) => {
                    Err(Error::InitDied(format!("out of turn: {message:?}")))
                }
            };
            // The first says why; what follows is a consequence.
            self.outcome.get_or_insert(outcome);
        }
    }

    fn take_signals(&mut self) -> Result<(), Error> {
        while let Some(received) = self
            .signals
            .next()
            .map_err(|e| Error::host("read the pending signals", e))?
        {
            if self.started {
                self.handle(received)
                    .map_err(|e| Error::host("handle a signal", e))?;
            } else if ends(received.signal) {
                return Err(Error::Interrupted(
                    u8::try_from(received.signal).unwrap_or_default(),
                ));
            } else {
                self.early.push(received);
            }
        }
        Ok(())
    }

    fn handle(&mut self, received: signal::Received) -> io::Result<()> {
        match received.signal {
            // Only its output is left, and perhaps nobody takes that.
            signal if self.ended.is_some() && ends(signal) => {
                if let Some(relay) = &mut self.relay {
                    relay.give_up(&self.registry)?;
                }
            }
            libc::SIGWINCH if self.relay.is_some() => self.resize(),
            libc::SIGTSTP => self.stop()?,
            signal => self.pass_on(signal, received.from_terminal),
        }
        Ok(())
    }

    fn pass_on(&self, signal: i32, group: bool) {
        let sent = match (self.has_init, self.ended) {
            (true, _) => self.channel.try_send(&ToInit::Signal { signal, group }),
            (false, None) => self.init.send(signal, group),
            (false, Some(_)) => Ok(()),
        };
        if let Err(error) = sent {
            debug!(signal, "the signal does not reach the container: {error}");
        }
    }

    /// Stops the command and this process until that is continued.
    fn stop(&mut self) -> io::Result<()> {
        if let Some(terminal) = &mut self.terminal {
            terminal.suspend()?;
        }
        self.pass_on(libc::SIGSTOP, true);
        // Its disposition is the default: it is not watched where the caller ignores it.
        let mask = signal::set_mask(SignalSet::ALL)?;
        signal::raise(self.own, libc::SIGTSTP)?;
        // Delivered here, and this is where SIGCONT lets it go on.
        signal::set_mask(mask.without(libc::SIGTSTP))?;
        signal::set_mask(mask)?;
        if let Some(terminal) = &mut self.terminal {
            terminal.resume()?;
        }
        self.resize();
        self.pass_on(libc::SIGCONT, true);
        Ok(())
    }

    /// Gives the pty the size of the caller's terminal, where there is one.
    fn resize(&self) {
        let Some(relay) = &self.relay else { return };
        let size = rustix::termios::tcgetwinsize(io::stdin())
            .or_else(|_| rustix::termios::tcgetwinsize(io::stdout()));
        if let Ok(size) = size
            && let Err(error) = relay.resize(size)
        {
            warn!("set the size of the container's terminal: {error}");
        }
    }
}
