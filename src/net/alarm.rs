//! The clock of the packet loop's deadlines.
//!
//! # Theory of operation
//!
//! A sleep with a time-out starts and cancels a timer of the kernel's each time.
//! Deadlines hardly ever move forward, so one timer (timerfd_create(2)) is set
//! when the earliest does, and every sleep is without a time-out. The descriptor
//! is watched edge-triggered: each expiry is an event, and nothing has to be read.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use netstack::Instant;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

/// Wakes the loop.
#[derive(Debug)]
pub(crate) struct Alarm {
    fd: OwnedFd,
    /// When it goes off, if it is set.
    set: Option<Instant>,
}

impl Alarm {
    pub(crate) fn new(registry: &Registry, token: Token) -> io::Result<Self> {
        let flags = TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK;
        let fd = timerfd_create(TimerfdClockId::Monotonic, flags)?;
        registry.register(&mut SourceFd(&fd.as_raw_fd()), token, Interest::READABLE)?;
        Ok(Self { fd, set: None })
    }

    /// It has gone off.
    pub(crate) fn rang(&mut self) {
        self.set = None;
    }

    /// Makes sure that it goes off no later than at `at`, which is to come.
    pub(crate) fn set(&mut self, now: Instant, at: Instant) -> io::Result<()> {
        if self.set.is_some_and(|set| set <= at) {
            return Ok(());
        }
        let micros = (at - now).total_micros().max(1);
        let value = Timespec {
            tv_sec: i64::try_from(micros / 1_000_000).unwrap_or(i64::MAX),
            tv_nsec: i64::try_from(micros % 1_000_000 * 1000).unwrap_or_default(),
        };
        let once = Itimerspec {
            it_interval: Timespec::default(),
            it_value: value,
        };
        timerfd_settime(&self.fd, TimerfdTimerFlags::empty(), &once)?;
        self.set = Some(at);
        Ok(())
    }
}
