//! Whether the container's link could be made, found out by making it.
//!
//! To be called in a user and a network namespace that end with the caller.

use serde::{Deserialize, Serialize};

use super::link::{self, tap, veth};
use crate::error::StepFailure;
use crate::sys::netlink::Netlink;
use crate::sys::netns;

/// MTU of a link that nothing passes.
const MTU: u16 = 1500;

/// What a TAP device takes off the container's kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Offloads {
    /// Checksums and TCP super-segments.
    pub tcp: bool,
    /// UDP super-segments.
    pub udp: bool,
}

/// Makes a TAP device and says what it can do.
///
/// # Errors
/// The step that failed.
pub fn tap() -> Result<Offloads, StepFailure> {
    let queue = tap::create()?;
    let link = tap::configure(&queue, MTU)
        .map_err(|error| StepFailure::new("configure", link::NAME, &error))?;
    Ok(Offloads {
        tcp: link.tso,
        udp: link.uso,
    })
}

/// Makes a veth pair with packet sockets at its far end, in a network namespace of
/// its own: a TAP device that was tried before has the name.
///
/// # Errors
/// The step that failed.
pub fn veth() -> Result<(), StepFailure> {
    netns::unshare().map_err(|error| StepFailure::new("make", "a network namespace", &error))?;
    let here =
        Netlink::open().map_err(|error| StepFailure::new("open rtnetlink", "socket", &error))?;
    veth::create(&here, MTU).map(drop)
}
