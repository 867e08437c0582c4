//! Placeholder of the mount steps: only the terminal.

use std::os::fd::OwnedFd;

use rustix::pty::OpenptFlags;

use crate::error::StepFailure;
use crate::plan::Step;

/// The command's pty.
#[derive(Debug)]
pub struct Pty {
    /// For the parent.
    pub master: OwnedFd,
    /// For the command.
    pub slave: OwnedFd,
}

/// Carries out the mount steps.
#[derive(Debug, Default)]
pub struct Executor {
    pty: Option<Pty>,
}

impl Executor {
    /// Nothing done yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Carries one step out.
    pub fn step(&mut self, step: &Step) -> Result<(), StepFailure> {
        if let Step::Dev { console: true, .. } = step {
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let open = || {
                let master = rustix::pty::openpt(flags)?;
                rustix::pty::unlockpt(&master)?;
                let slave = rustix::pty::ioctl_tiocgptpeer(&master, flags)?;
                Ok::<_, rustix::io::Errno>(Pty { master, slave })
            };
            self.pty =
                Some(open().map_err(|e| StepFailure::new("open a pty", "/dev/ptmx", &e.into()))?);
        }
        Ok(())
    }

    /// The pty that `Step::Dev` made.
    pub fn take_pty(&mut self) -> Option<Pty> {
        self.pty.take()
    }

    /// Notices since the last call.
    pub fn warnings(&mut self) -> Vec<String> {
        Vec::new()
    }
}
