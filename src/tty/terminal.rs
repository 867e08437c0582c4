//! Raw mode, taken back on every exit path.
//!
//! # Theory of operation
//! While a container has the terminal, keys must reach its pty as they are, so
//! the caller's terminal is in raw mode. It is restored by [`RawTerminal`] when
//! that is dropped or told to. A process that is killed drops nothing, so a
//! *watcher* is forked first: it holds nothing but the terminal and the read end
//! of a pipe whose only writer is this process. A byte from it means that the
//! terminal is in order; end of file means that this process is gone, and the
//! watcher restores the terminal. Either way it exits then. It has a session of
//! its own, so that it survives what kills this process's whole group, and
//! writing the settings cannot stop it (`SIGTTOU` is for a session's own
//! terminal).

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::Pid;
use rustix::termios::{OptionalActions, Termios};

use crate::sys;
use crate::sys::process::{Child, CloneFlags, Forked};
use crate::sys::signal::{self, SignalSet};

/// A terminal in raw mode, and the process that watches over it.
#[derive(Debug)]
pub struct RawTerminal {
    terminal: OwnedFd,
    saved: Termios,
    raw: bool,
    watcher: Child,
    /// The only writer of the watcher's pipe; `None` once it has been told.
    word: Option<OwnedFd>,
}

impl RawTerminal {
    /// Puts `terminal` into raw mode. In the background this stops the process
    /// until it is brought to the foreground, as for any program.
    ///
    /// # Errors
    /// Those of tcsetattr(3) and of the fork of the watcher.
    pub fn enter(terminal: BorrowedFd<'_>) -> io::Result<Self> {
        let terminal = rustix::io::fcntl_dupfd_cloexec(terminal, 3)?;
        let saved = rustix::termios::tcgetattr(&terminal)?;
        let (ear, word) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        // Whatever arrives before the watcher has its own mask waits.
        let mask = signal::set_mask(SignalSet::ALL)?;
        let forked = sys::process::fork(CloneFlags::NONE, None);
        if matches!(forked, Ok(Forked::Child)) {
            watch(&terminal, &ear, &saved);
        }
        signal::set_mask(mask)?;
        let Forked::Parent(watcher) = forked? else {
            return Err(io::Error::from_raw_os_error(libc::EPROTO));
        };
        let mut raw = Self {
            terminal,
            saved,
            raw: false,
            watcher,
            word: Some(word),
        };
        raw.resume()?;
        Ok(raw)
    }

    /// The process to leave alone while it is needed.
    pub fn watcher(&self) -> Pid {
        self.watcher.pid
    }

    /// Puts the terminal back as it was, for the time being.
    pub fn suspend(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.raw) {
            // Also from the background, where this process may be by now.
            let mask = signal::set_mask(SignalSet::ALL)?;
            let result = set(&self.terminal, &self.saved);
            signal::set_mask(mask)?;
            result?;
        }
        Ok(())
    }

    /// Puts the terminal into raw mode again.
    pub fn resume(&mut self) -> io::Result<()> {
        if !self.raw {
            self.raw = true;
            let mut settings = self.saved.clone();
            settings.make_raw();
            set(&self.terminal, &settings)?;
        }
        Ok(())
    }

    fn finish(&mut self) -> io::Result<()> {
        let restored = self.suspend();
        if let Some(word) = self.word.take() {
            if restored.is_ok() {
                // Fails only where the watcher has been killed.
                let _ = rustix::io::write(&word, &[1]);
            }
            drop(word);
            let pidfd = rustix::process::WaitId::PidFd(self.watcher.pidfd.as_fd());
            rustix::io::retry_on_intr(|| {
                rustix::process::waitid(pidfd.clone(), rustix::process::WaitIdOptions::EXITED)
            })?;
        }
        restored
    }
}

impl Drop for RawTerminal {
    fn drop(&mut self) {
        if let Err(error) = self.finish() {
            tracing::warn!("restore the terminal: {error}");
        }
    }
}

fn set(terminal: &OwnedFd, settings: &Termios) -> io::Result<()> {
    rustix::io::retry_on_intr(|| {
        rustix::termios::tcsetattr(terminal, OptionalActions::Now, settings)
    })?;
    Ok(())
}

/// The life of the watcher.
fn watch(terminal: &OwnedFd, ear: &OwnedFd, saved: &Termios) -> ! {
    // Nothing here can be reported to anyone, and each is worth trying even if
    // the one before has failed.
    let _ = sys::fd::close_all_but(&[terminal.as_fd(), ear.as_fd()]);
    let _ = rustix::process::setsid();
    let _ = rustix::thread::set_name(c"crun-lite-tty");
    // The caller's pipes are none of its business; end of file on them must not
    // wait for it. Those of the terminal it has by another number.
    let _ = rustix::stdio::dup2_stdin(ear);
    let _ = rustix::stdio::dup2_stdout(ear);
    let _ = rustix::stdio::dup2_stderr(ear);
    let told = loop {
        match rustix::io::read(ear, &mut [0; 1]) {
            Ok(length) => break length > 0,
            Err(Errno::INTR) => {}
            Err(_) => break false,
        }
    };
    if !told {
        let _ = set(terminal, saved);
    }
    sys::process::exit(0)
}
