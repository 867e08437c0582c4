//! The processes of a sample, and how they end.
//!
//! # Theory of operation
//! Each process is in a group of its own, so that a key that interrupts the
//! benchmark reaches only the benchmark, which then ends the others in order. The
//! signals that end it are blocked and read from a signalfd, and every wait waits
//! for that, too. A process is asked to end by the end of its standard input,
//! then by `SIGTERM`, then killed with its whole group; it is always reaped. If
//! the benchmark itself is killed, the kernel kills its children, and the end of
//! their standard input ends those that it does not.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use crate::sys::child::tie_to_parent;
use crate::sys::signal::{self, SignalFd, SignalSet};

/// How long a process may take to end by itself, and again after `SIGTERM`.
const GRACE: Duration = Duration::from_secs(2);
/// Longest line that a process may say.
const LONGEST_LINE: usize = 64 * 1024;
/// Lines of its standard error that a message has at most.
const ERROR_LINES: usize = 3;
/// As much of the end of its standard error is looked at.
const ERROR_TAIL: usize = 4096;

/// Why a process of a sample did not do what it should.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("start {name}")]
    Start {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// Waiting for it failed.
    #[error("wait for {name}")]
    Wait {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It ended before it should have.
    #[error("{name} ended ({status}){said}")]
    Ended {
        /// Its name.
        name: String,
        /// Exit code or signal.
        status: String,
        /// What it said last, if anything.
        said: String,
    },
    /// It did not say in time what it should have.
    #[error("{name} said nothing for {limit:?}{said}")]
    Silent {
        /// Its name.
        name: String,
        /// How long was waited.
        limit: Duration,
        /// What it said last, if anything.
        said: String,
    },
    /// The benchmark is to end.
    #[error("interrupted by signal {0}")]
    Interrupted(u8),
}

/// Blocks the signals that end the benchmark and reads them, until dropped.
#[derive(Debug)]
pub struct Interrupts {
    signals: SignalFd,
    before: SignalSet,
}

impl Interrupts {
    /// # Errors
    /// As signalfd(2).
    pub fn watch() -> io::Result<Self> {
        let mut watched = SignalSet::EMPTY;
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
            if !signal::is_ignored(signal)? {
                watched = watched.with(signal);
            }
        }
        let before = signal::set_mask(watched)?;
        match SignalFd::new(watched) {
            Ok(signals) => Ok(Self { signals, before }),
            Err(error) => {
                signal::set_mask(before)?;
                Err(error)
            }
        }
    }

    /// Lets the time pass until then.
    ///
    /// # Errors
    /// The benchmark is to end.
    pub fn pause(&self, until: Instant) -> Result<(), ProcessError> {
        match self.wait(None, until) {
            Ok(_) => Ok(()),
            Err(WaitError::Interrupted(signal)) => Err(ProcessError::Interrupted(signal)),
            Err(WaitError::Io(source)) => Err(ProcessError::Wait {
                name: "the time".to_owned(),
                source,
            }),
        }
    }

    /// Waits for `fd`, or without one for the time to pass; false when it has.
    fn wait(&self, fd: Option<BorrowedFd<'_>>, until: Instant) -> Result<bool, WaitError> {
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let limit = Timespec::try_from(left).map_err(|_| io::ErrorKind::InvalidInput)?;
            let signals = PollFd::new(&self.signals, PollFlags::IN);
            let mut fds = vec![signals];
            fds.extend(fd.as_ref().map(|fd| PollFd::new(fd, PollFlags::IN)));
            match poll(&mut fds, Some(&limit)) {
                Ok(0) => return Ok(false),
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(error) => return Err(io::Error::from(error).into()),
            }
            if let Some(received) = self.signals.next()? {
                let signal = u8::try_from(received.signal).unwrap_or_default();
                return Err(WaitError::Interrupted(signal));
            }
            if fds.get(1).is_some_and(|fd| !fd.revents().is_empty()) {
                return Ok(true);
            }
        }
    }
}

impl Drop for Interrupts {
    fn drop(&mut self) {
        // What was allowed before is allowed again.
        let _ = signal::set_mask(self.before);
    }
}

enum WaitError {
    Interrupted(u8),
    Io(io::Error),
}

impl From<io::Error> for WaitError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<io::ErrorKind> for WaitError {
    fn from(kind: io::ErrorKind) -> Self {
        Self::Io(kind.into())
    }
}

/// A running process; ended and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    pidfd: OwnedFd,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    stderr: File,
    /// Read from `stdout`, not yet taken.
    pending: Vec<u8>,
    status: Option<ExitStatus>,
}

impl Process {
    /// Starts `command`; `name` is what messages call it.
    ///
    /// # Errors
    /// There is no such program, or it cannot be executed.
    pub fn start(name: &str, command: &mut Command) -> Result<Self, ProcessError> {
        Self::try_start(name, command).map_err(|source| ProcessError::Start {
            name: name.to_owned(),
            source,
        })
    }

    fn try_start(name: &str, command: &mut Command) -> io::Result<Self> {
        let stderr = File::from(rustix::fs::memfd_create("stderr", MemfdFlags::CLOEXEC)?);
        command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone()?);
        tie_to_parent(command);
        let mut child = command.spawn()?;
        let pipes = child.stdin.take().zip(child.stdout.take());
        let pidfd = pidfd_open(Pid::from_child(&child), PidfdFlags::empty());
        match (pidfd, pipes) {
            (Ok(pidfd), Some((stdin, stdout))) => Ok(Self {
                name: name.to_owned(),
                child,
                pidfd,
                stdin: Some(stdin),
                stdout,
                stderr,
                pending: Vec::new(),
                status: None,
            }),
            (pidfd, _) => {
                child.kill()?;
                child.wait()?;
                Err(pidfd
                    .err()
                    .map_or(io::ErrorKind::BrokenPipe.into(), Into::into))
            }
        }
    }

    /// Its process id.
    pub fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    /// Writes a line to its standard input.
    ///
    /// # Errors
    /// It has ended.
    pub fn tell(&mut self, order: &str) -> Result<(), ProcessError> {
        use io::Write as _;
        let line = format!("{order}\n");
        let stdin = self.stdin.as_mut();
        match stdin.map(|stdin| stdin.write_all(line.as_bytes())) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.ended()),
        }
    }

    /// The next line of its standard output.
    ///
    /// # Errors
    /// It ends, or nothing comes within `limit`, or the benchmark is to end.
    pub fn line(
        &mut self,
        limit: Duration,
        interrupts: &Interrupts,
    ) -> Result<String, ProcessError> {
        let until = Instant::now() + limit;
        loop {
            if let Some(end) = self.pending.iter().position(|&byte| byte == b'\n') {
                let line = self.pending.drain(..=end).collect::<Vec<_>>();
                return Ok(String::from_utf8_lossy(&line).trim_end().to_owned());
            }
            let stdout = self.stdout.as_fd();
            if !self.waited(interrupts.wait(Some(stdout), until))? {
                return Err(ProcessError::Silent {
                    said: self.said(),
                    name: self.name.clone(),
                    limit,
                });
            }
            let mut buffer = [0; 4096];
            match self.stdout.read(&mut buffer) {
                Ok(length) if length > 0 && self.pending.len() < LONGEST_LINE => {
                    self.pending
                        .extend(buffer.get(..length).unwrap_or_default());
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                _ => return Err(self.ended()),
            }
        }
    }

    /// Waits for a byte, or the end, of what else it writes to.
    ///
    /// # Errors
    /// It ends, or nothing comes within `limit`, or the benchmark is to end.
    pub fn signals_readiness(
        &mut self,
        mut pipe: impl Read + AsFd,
        limit: Duration,
        interrupts: &Interrupts,
    ) -> Result<(), ProcessError> {
        let until = Instant::now() + limit;
        if !self.waited(interrupts.wait(Some(pipe.as_fd()), until))? {
            return Err(ProcessError::Silent {
                said: self.said(),
                name: self.name.clone(),
                limit,
            });
        }
        match pipe.read(&mut [0]) {
            Ok(1) => Ok(()),
            _ => Err(self.ended()),
        }
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// It fails, or does not end within `limit`, or the benchmark is to end.
    pub fn finish(&mut self, limit: Duration, interrupts: &Interrupts) -> Result<(), ProcessError> {
        let until = Instant::now() + limit;
        let ended = interrupts.wait(Some(self.pidfd.as_fd()), until);
        if !self.waited(ended)? {
            return Err(ProcessError::Silent {
                said: self.said(),
                name: self.name.clone(),
                limit,
            });
        }
        match self.child.wait() {
            Ok(status) if status.success() => {
                self.status = Some(status);
                Ok(())
            }
            _ => Err(self.ended()),
        }
    }

    fn waited(&self, result: Result<bool, WaitError>) -> Result<bool, ProcessError> {
        result.map_err(|error| match error {
            WaitError::Interrupted(signal) => ProcessError::Interrupted(signal),
            WaitError::Io(source) => ProcessError::Wait {
                name: self.name.clone(),
                source,
            },
        })
    }

    /// The error that it has ended, after seeing to it that it has.
    pub fn ended(&mut self) -> ProcessError {
        let status = match self.end() {
            Some(status) => match (status.code(), status.signal()) {
                (Some(code), _) => format!("exit code {code}"),
                (None, Some(signal)) => format!("signal {signal}"),
                (None, None) => "unknown status".to_owned(),
            },
            None => "unknown status".to_owned(),
        };
        ProcessError::Ended {
            name: self.name.clone(),
            status,
            said: self.said(),
        }
    }

    /// `: ` and the last lines of its standard error that tell something.
    fn said(&self) -> String {
        let mut tail = [0; ERROR_TAIL];
        let read = self.stderr.metadata().and_then(|metadata| {
            let start = metadata.len().saturating_sub(ERROR_TAIL as u64);
            self.stderr.read_at(&mut tail, start)
        });
        let text = String::from_utf8_lossy(tail.get(..read.unwrap_or(0)).unwrap_or_default());
        // pasta complains that there is no system logger, after what it would log;
        // our own hints come after the message.
        let telling = |line: &&str| {
            !line.is_empty() && !line.ends_with("to syslog") && !line.starts_with("hint: ")
        };
        let mut last: Vec<&str> = text.lines().map(str::trim).filter(telling).collect();
        last.drain(..last.len().saturating_sub(ERROR_LINES));
        if last.is_empty() {
            return String::new();
        }
        format!(": {}", last.join("; "))
    }

    /// Asks it to end, then ends it.
    fn end(&mut self) -> Option<ExitStatus> {
        if self.status.is_some() {
            return self.status;
        }
        self.stdin = None;
        if !self.ends_within(GRACE) {
            self.signal(libc::SIGTERM);
            self.ends_within(GRACE);
        }
        // What it has left behind in its group ends, too; the group still has its
        // number, for its leader has not been reaped.
        self.signal(libc::SIGKILL);
        self.status = self.child.wait().ok();
        self.status
    }

    fn signal(&self, signal: i32) {
        // There may be nobody left.
        let _ = signal::kill(self.pid(), signal, true);
    }

    /// Whether it ends, without reaping it.
    fn ends_within(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Ok(limit) = Timespec::try_from(left) else {
                return false;
            };
            match poll(&mut [PollFd::new(&self.pidfd, PollFlags::IN)], Some(&limit)) {
                Err(rustix::io::Errno::INTR) => {}
                result => return result.is_ok_and(|ready| ready > 0),
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
    }
}
