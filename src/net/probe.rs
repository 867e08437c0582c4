//! Whether the container's link could be made, found out by making it.
//!
//! To be called in a user and a network namespace that end with the caller.

use std::io;
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use serde::{Deserialize, Serialize};

use super::netlink::Netlink;
use super::tap;
use crate::error::StepFailure;

/// Whether `--net=builtin` does with a veth pair where there is no TAP device.
pub const VETH_SERVES: bool = false;

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
        .map_err(|error| StepFailure::new("configure", tap::NAME, &error))?;
    Ok(Offloads {
        tcp: link.tso,
        udp: link.uso,
    })
}

/// Makes a veth pair, and a packet socket as for its far end.
///
/// # Errors
/// The step that failed.
pub fn veth() -> Result<(), StepFailure> {
    let failed =
        |step, object: &'static str| move |error: io::Error| StepFailure::new(step, object, &error);
    Netlink::open()
        .and_then(|mut netlink| netlink.try_veth())
        .map_err(failed("make", "a veth pair"))?;
    packet_socket().map_err(failed("make", "a packet socket"))?;
    Ok(())
}

fn packet_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socket_with(
        AddressFamily::PACKET,
        SocketType::RAW,
        flags,
        None,
    )?)
}
