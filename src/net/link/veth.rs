//! The veth link: where there is no TAP to be had.
//!
//! # Theory of operation
//!
//! ```text
//! container's network namespace      ours, which no process is in
//!   kernel TCP/IP -- tap0 ============ far0 -- packet socket -- parent
//! ```
//!
//! A process with all capabilities in its user namespace may make a veth pair
//! (veth(4)) whatever the host's devices. Its far end is made in a second network
//! namespace, so that the container does not see it, and is opened there as a
//! packet socket (packet(7)) with the virtio header: the same frames as a TAP's,
//! up to 64 KiB each, checksums left undone. Both ends offer all segmentation
//! offloads from the start.
//!
//! Nothing is ever in that second namespace but this interface, without an
//! address, without ARP, without IPv6, and frames for the gateway are not even
//! addressed to it: it answers nothing. The socket keeps it alive. The container's
//! own namespace is kept by a descriptor beside the socket, as a TAP's queue keeps
//! it: the kernel in it still sends what the command had written when it ended.
//! When both are closed, the kernel takes both namespaces and the pair apart.
//!
//! The queue of a socket is counted in bytes and by default holds three frames of
//! 64 KiB, so there are rings ([`crate::sys::packet`]), in which frames are read
//! where the kernel has put them, each of a socket of its own. For sending there is none: a frame in such
//! a ring is lent to the kernel until the receiver has read it, and a veth says too
//! early that it has.
//!
//! With `--cap-add NET_ADMIN` a container can see the far end by the number of its
//! namespace (`IFLA_TARGET_NETNSID`) and delete it, as it can delete its own: all that
//! it can do is to cut itself off.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use super::NAME;
use crate::error::StepFailure;
use crate::sys::netlink::{LinkChange, Netlink};
use crate::sys::netns;
use crate::sys::packet::{self, RINGS};

/// The far end's name.
const FAR: &str = "far0";
/// sysctl(8): no IPv6 on any interface of the current network namespace.
const DISABLE_IPV6: &str = "/proc/sys/net/ipv6/conf/all/disable_ipv6";

/// What [`create`] makes.
#[derive(Debug)]
pub(in super::super) struct Pair {
    /// The far end's packet sockets, one for each ring.
    pub(super) sockets: [OwnedFd; RINGS],
    /// Keeps the near end's network namespace.
    pub(super) namespace: OwnedFd,
    /// Of the far end's.
    pub(super) there: Netlink,
}

/// Makes the pair; `here` is of the current network namespace, which gets the near
/// end.
pub(in super::super) fn create(here: &Netlink, mtu: u16) -> Result<Pair, StepFailure> {
    let failed =
        |step, object: &'static str| move |error: io::Error| StepFailure::new(step, object, &error);
    let near = netns::of_socket(here.as_fd())
        .map_err(failed("open the network namespace", "of the container"))?;
    netns::unshare().map_err(failed("make a network namespace", "for the veth pair"))?;
    let mut there = Netlink::open().map_err(failed("open rtnetlink", "in the second namespace"))?;
    there
        .add_veth(FAR, NAME, near.as_fd(), mtu.into())
        .map_err(failed("make a veth pair", NAME))?;
    let index = there.link_index(FAR).map_err(failed("find", FAR))?;
    // Each of the two is enough where nobody sends router advertisements to it. Either
    // may be out of reach: a read-only /proc/sys, a kernel without IPv6.
    if let Err(error) = std::fs::write(DISABLE_IPV6, "1") {
        tracing::debug!("{DISABLE_IPV6}: {error}");
    }
    if let Err(error) = there.no_ipv6_address(index) {
        tracing::debug!("{FAR}: {error}");
    }
    let change = LinkChange {
        up: true,
        no_arp: true,
        ..LinkChange::default()
    };
    there
        .change_link(index, change)
        .map_err(failed("bring up", FAR))?;
    let sockets = [open(index, 0)?, open(index, 1)?, open(index, 2)?];
    netns::enter(near.as_fd()).map_err(failed("go back to the network namespace", NAME))?;
    Ok(Pair {
        sockets,
        namespace: near,
        there,
    })
}

/// Opens the far end for the frames of ring `n`.
fn open(index: u32, n: usize) -> Result<OwnedFd, StepFailure> {
    let failed = |step| move |error: io::Error| StepFailure::new(step, FAR, &error);
    let socket = packet::socket().map_err(failed("make a packet socket"))?;
    packet::make_ring(socket.as_fd(), n).map_err(failed("make the ring of the packet socket"))?;
    packet::bind(socket.as_fd(), index).map_err(failed("bind the packet socket"))?;
    Ok(socket)
}

/// Has the kernel notice that both ends are up. It does so in the background, and
/// until then drops what is sent and tells programs that there is no carrier; but
/// whoever asks about an interface gets an answer that holds (`linkwatch_sync_dev`,
/// since Linux 5.16 or so).
pub(super) fn settle(here: &mut Netlink, there: &mut Netlink) {
    for (netlink, name) in [(there, FAR), (here, NAME)] {
        if let Err(error) = netlink.link_index(name) {
            tracing::debug!("{name}: {error}");
        }
    }
}
