//! The TAP link: made in the container's network namespace, driven from the parent.
//!
//! # Theory of operation
//!
//! `tun-tap` makes the interface, but can not ask for the virtio-net header,
//! which must be asked for when a queue attaches. So the interface is made
//! persistent and attached again with `IFF_VNET_HDR`. Persistent it stays: it
//! ends with its network namespace, which the kernel takes apart in the
//! background, while closing the last queue of another would wait for it. The
//! namespace ends with the container and this descriptor. Which offloads the kernel grants depends on
//! its age: the parent tries the best set first and falls back by what is
//! refused, never by version.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use netstack::LinkConfig;
use rustix::fs::{Mode, OFlags, open};
use tun_tap::{Iface, Mode as TunTapMode};

use super::NAME;
use crate::error::StepFailure;
use crate::sys::tun::{self, offload};

const DEVICE: &str = "/dev/net/tun";

/// Makes the interface in the current network namespace and returns its queue.
pub(in super::super) fn create() -> Result<OwnedFd, StepFailure> {
    let failed = |step| move |error: io::Error| StepFailure::new(step, DEVICE, &error);
    let plain =
        Iface::without_packet_info(NAME, TunTapMode::Tap).map_err(failed("make the TAP device"))?;
    tun::set_persist(&plain, true).map_err(failed("keep the TAP device"))?;
    // An interface has one queue: the plain one has to go first.
    drop(plain);
    let queue = open(
        DEVICE,
        OFlags::RDWR | OFlags::CLOEXEC | OFlags::NONBLOCK,
        Mode::empty(),
    )
    .map_err(io::Error::from)
    .map_err(failed("open the TAP device again"))?;
    tun::attach_tap(&queue, NAME, true).map_err(failed("attach to the TAP device"))?;
    Ok(queue)
}

/// Whether the user can make a TAP device here, as far as that is known without
/// making one: the device can be opened and is what it is called.
///
/// # Errors
/// What failed.
pub fn probe() -> Result<(), StepFailure> {
    let failed = |step| move |error: io::Error| StepFailure::new(step, DEVICE, &error);
    let device = open(DEVICE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
        .map_err(io::Error::from)
        .map_err(failed("open"))?;
    tun::features(&device).map_err(failed("ask for the features of"))?;
    Ok(())
}

/// Whether an error says that TAP devices are not for this user on this host: no
/// such node or driver, no permission, something else by that name. Whatever else
/// goes wrong is a failure.
pub(super) fn is_unavailable(errno: i32) -> bool {
    matches!(
        errno,
        libc::ENOENT
            | libc::ENOTDIR
            | libc::EACCES
            | libc::EPERM
            | libc::ENODEV
            | libc::ENXIO
            | libc::ENOTTY
            | libc::EROFS
    )
}

/// Asks for the best offloads that the kernel has and says what they are.
pub(in super::super) fn configure(queue: &OwnedFd, mtu: u16) -> io::Result<LinkConfig> {
    rustix::io::ioctl_fionbio(queue.as_fd(), true)?;
    let vnet_header = tun::has_vnet_header(queue)?;
    let mut link = LinkConfig {
        mtu,
        vnet_header,
        tso: false,
        uso: false,
    };
    if vnet_header {
        let tso = offload::CSUM | offload::TSO4 | offload::TSO6;
        let uso = tso | offload::USO4 | offload::USO6;
        if tun::set_offload(queue, uso).is_ok() {
            (link.tso, link.uso) = (true, true);
        } else if tun::set_offload(queue, tso).is_ok() {
            link.tso = true;
        } else {
            tracing::warn!("the TAP device has no offloads: transfers will be slow");
        }
    }
    Ok(link)
}
