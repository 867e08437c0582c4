//! The container's processes: how it is cloned, set up, watched and ended.
//!
//! # Theory of operation
//! Two processes of one program. The *parent* is `crun-lite run` in the host's
//! namespaces: one thread, one event loop. *Init* is PID 1 of the container.
//! [`spawn()`] clones init into the new namespaces and writes its id maps. The
//! result is a [`Prepared`] container, whose init carries out every step of the
//! plan but the last. Meanwhile the caller takes the network link out of it, gets
//! its packet loop ready, and says so ([`Prepared::release`]); init then starts
//! the command as soon as it can, and a [`Supervisor`] watches it to its end.
//! Until the command is started any error leaves the host as it was.
//!
//! All that the two have between them is one socketpair ([`ipc`]), the lifeline
//! (see [`init`]) and a pidfd. Dropping a [`Prepared`] or a [`Supervisor`] kills
//! the container and waits for its end.

mod exec;
mod init;
mod ipc;
mod procfs;
mod remains;
mod rlimits;
mod spawn;
mod supervisor;
mod users;

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use crate::error::StepFailure;
use crate::ns::Lease;

pub use remains::{EndChildren, Remains, SendSignal};
pub use rlimits::raise as raise_limits;
pub use spawn::{Prepared, block_signals, spawn};
pub use supervisor::{Sockets, Supervisor};

/// What the command's standard streams are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpawnIo {
    /// A pty, which the parent relays (`-t`).
    pub tty: bool,
    /// Standard input is the caller's (`-i`) instead of `/dev/null`.
    pub interactive: bool,
}

/// What init has of the parent's besides its messages.
#[derive(Debug, Default)]
pub struct Inherited {
    /// Keeps other containers from having the same ids until this one is gone.
    pub lease: Option<Lease>,
    /// Mounts that only the parent can make, by where they are to be.
    pub mounts: Vec<(PathBuf, OwnedFd)>,
}

/// Sets up the container's network; called in init by `Step::Network`, inside
/// the new namespaces, with whether that step has a link. It must open whatever it needs
/// itself: the parent's descriptors are closed by then. A link that it makes is
/// handed to the parent ([`Prepared::take_link`]).
pub type NetworkSetup<'a> = Box<dyn FnOnce(bool) -> Result<Option<NetLink>, StepFailure> + 'a>;

/// A network link, as it goes from init to the parent. What it is, is the network's
/// business.
#[derive(Debug)]
pub struct NetLink {
    /// What the network says of it; 512 bytes of it at most arrive.
    pub about: String,
    /// What it consists of.
    pub fds: Vec<OwnedFd>,
}
